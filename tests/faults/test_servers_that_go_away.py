"""Servers that are down, die, or stop to answer: which error each caller gets, and what
the servers hold afterwards.
"""

import contextlib
import pathlib
import socket
import threading
import time
from typing import Any, Iterator, List, Set

import pymysql
import pytest
from apis import session
from database_servers import GLOBAL_SCHEMA, SHARD_SCHEMA
from io_kinds import IO
from waiting import wait_for

from dualdb import (
    ConnectionFailed,
    ConnectionLost,
    DatabaseConfig,
    DeadlineExceeded,
    OutcomeUnknown,
    ReadOnlyServer,
    ShardUnavailable,
    WriteTimedOut,
)
from dualdb.sandbox import Sandbox

#: They start servers of their own.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[Sandbox]:
    with Sandbox(2) as sandbox:
        sandbox.run("global", *GLOBAL_SCHEMA)
        for shard_id in (1, 2):
            sandbox.run(shard_id, *SHARD_SCHEMA)
        yield sandbox


@pytest.fixture
def sandbox(sandboxes: Sandbox) -> Iterator[Sandbox]:
    """A global database and shards 1 and 2 on private servers, all up before and
    after.
    """
    yield sandboxes
    for name, server in sandboxes.servers.items():
        server.resume()
        server.start()
        if name != "global":
            sandboxes.run(name, "TRUNCATE trades")


INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1)"


def trades(sandbox: Sandbox, shard_id: int = 1) -> int:
    return int(sandbox.run(shard_id, "SELECT COUNT(*) AS n FROM trades")[0]["n"])


def background_threads() -> Set[threading.Thread]:
    """Those of services that are open; other files may have left some."""
    return {each for each in threading.enumerate() if each.name == "dualdb-background"}


def test_a_shard_that_is_down_at_start_is_unavailable_and_comes_back_by_itself(
    sandbox: Sandbox, io: IO, quick_retries: None
) -> None:
    before = background_threads()
    sandbox.servers[2].kill()
    db = io.Service(sandbox.config)
    with io.entered(db):
        assert io(db.shard(1).query_value("SELECT 1")) == 1
        for target in (db.shard(2), db.session(session(2))):
            with pytest.raises(ShardUnavailable, match="^Shard 2 not available: ") as caught:
                io(target.execute(INSERT))
            assert "2003" in str(caught.value.reason)
        assert db.get_shard_client(2) is None
        assert (sorted(db.shard_clients), sorted(db.shard_configs)) == ([1], [1, 2])
        assert io(db.get_active_shard_ids()) == [1, 2]
        report = io(db.health_check())
        assert (report["healthy"], report["shards"][2]["healthy"]) == (False, False)
        sandbox.servers[2].start()

        io.wait_for(lambda: db.get_shard_client(2) is not None)
        assert io(db.session(session(2)).execute(INSERT)) == 1
        assert io(db.health_check())["healthy"] is True
    assert trades(sandbox, 2) == 1
    # one in the middle of a connect ends after it
    wait_for(lambda: not background_threads() - before)


def test_closing_ends_the_look_out_for_shards_that_are_down(
    sandbox: Sandbox, io: IO, quick_retries: None
) -> None:
    before = background_threads()
    sandbox.servers[2].kill()
    db = io.Service(sandbox.config)
    with io.entered(db):
        assert db.get_shard_client(2) is None
    wait_for(lambda: not background_threads() - before)


def test_a_service_that_is_opened_again_looks_out_again(
    sandbox: Sandbox, io: IO, quick_retries: None
) -> None:
    sandbox.servers[2].kill()
    db = io.Service(sandbox.config)
    with io.entered(db):
        assert db.get_shard_client(2) is None
    with io.entered(db):
        assert db.get_shard_client(2) is None
        sandbox.servers[2].start()

        io.wait_for(lambda: db.get_shard_client(2) is not None)


def test_a_shard_that_dies_fails_alone_and_is_used_again_when_it_is_back(
    sandbox: Sandbox, io: IO, quick_retries: None
) -> None:
    db = io.Service(sandbox.config)
    with io.entered(db):
        io(db.shard(2).execute(INSERT))
        sandbox.servers[2].kill()
        for _ in range(3):
            with pytest.raises(ShardUnavailable):
                io(db.session(session(2)).execute(INSERT))
            assert io(db.shard(1).query_value("SELECT 1")) == 1
        sandbox.servers[2].start()

        def is_back() -> bool:
            try:
                return bool(io(db.session(session(2)).execute(INSERT)) == 1)
            except ShardUnavailable:
                return False

        wait_for(is_back)
    assert trades(sandbox, 2) == 2
    assert trades(sandbox, 1) == 0


def test_a_dead_server_is_left_alone_after_a_few_attempts(
    sandbox: Sandbox, io: IO, quick_retries: None
) -> None:
    client = io.Client(sandbox.config_of(1), name="shard 1", shard_id=1)
    io(client.execute(INSERT))
    sandbox.servers[1].kill()
    for expected in (None, pytest.approx(0.4, abs=0.4)):
        with pytest.raises(ShardUnavailable) as caught:
            io(client.execute(INSERT))
        assert caught.value.retry_after == expected
        assert "2003" in str(caught.value.reason)
    assert client.stats().circuit == "open"
    sandbox.servers[1].start()

    def works() -> bool:
        try:
            return bool(io(client.execute(INSERT)) == 1)
        except ShardUnavailable:
            return False

    wait_for(works)
    assert client.stats().circuit == "closed"
    assert trades(sandbox) == 2
    io(client.close_pool())


def test_a_server_that_stands_still_slows_no_other(sandbox: Sandbox, io: IO) -> None:
    db = io.Service(sandbox.config)
    with io.entered(db):
        sandbox.servers[2].pause()
        with pytest.raises(WriteTimedOut):
            io(db.shard(2).execute(INSERT, timeout=0.3))
        with pytest.raises(DeadlineExceeded), io.deadline(0.3):
            io(db.shard(2).query("SELECT 1"))
        for _ in range(3):
            assert io(db.shard(1).execute(INSERT, timeout=5)) == 1
        sandbox.servers[2].resume()
        assert io(db.shard(2).execute(INSERT)) == 1
    assert trades(sandbox, 1) == 3
    assert trades(sandbox, 2) in (1, 2), "the late one may have been applied"


def test_a_server_without_room_turns_away_and_is_asked_again(
    sandbox: Sandbox, io: IO, quick_retries: None
) -> None:
    config = sandbox.config_of(1)
    client = io.Client(config, name="shard 1", shard_id=1)
    sandbox.run(1, "SET GLOBAL max_connections = 10")
    with contextlib.ExitStack() as crowd:
        with pytest.raises(pymysql.err.OperationalError, match="1040"):
            for _ in range(12):
                crowd.enter_context(
                    pymysql.connect(
                        host=config.host,
                        port=config.port,
                        user=config.user,
                        password=config.reveal_password(),
                    )
                )
        for _ in range(4):
            with pytest.raises(ShardUnavailable) as caught:
                io(client.execute(INSERT))
            assert "1040" in str(caught.value.reason)
        assert client.stats().circuit == "closed", "it answers, so it is there"
    wait_for(lambda: sandbox.run(1, "SHOW STATUS LIKE 'Threads_connected'")[0]["Value"] == "1")
    assert io(client.execute(INSERT)) == 1
    io(client.close_pool())
    sandbox.run(1, "SET GLOBAL max_connections = 100")


def test_a_server_that_was_made_read_only_says_so(sandbox: Sandbox, io: IO) -> None:
    client = io.Client(sandbox.config_of(1))
    sandbox.run(1, "SET GLOBAL read_only = 1")
    try:
        with pytest.raises(ReadOnlyServer) as caught:
            io(client.execute(INSERT))
        assert (caught.value.errno, caught.value.retryable) == (1290, True)
        assert io(client.query_value("SELECT COUNT(*) FROM trades")) == 0
    finally:
        sandbox.run(1, "SET GLOBAL read_only = 0")
    assert io(client.execute(INSERT)) == 1
    io(client.close_pool())


def test_connections_to_a_former_primary_are_all_replaced(sandbox: Sandbox, io: IO) -> None:
    """Behind a balancer they would lead to it for the pool's whole lifetime."""
    client = io.Client(sandbox.config_of(1))
    query = "SELECT CONNECTION_ID() AS id, SLEEP(0.2)"
    before = {rows[0]["id"] for rows in io.concurrently([lambda: client.query(query)] * 3)}
    assert len(before) == 3
    sandbox.run(1, "SET GLOBAL read_only = 1")
    try:
        with pytest.raises(ReadOnlyServer), io.entered(client.transaction()) as tx:
            io(tx.execute(INSERT))
        after = {rows[0]["id"] for rows in io.concurrently([lambda: client.query(query)] * 3)}
    finally:
        sandbox.run(1, "SET GLOBAL read_only = 0")
    with pytest.raises(ReadOnlyServer), io.entered(client.transaction(read_only=True)) as tx:
        io(tx.execute(INSERT))
    same = {rows[0]["id"] for rows in io.concurrently([lambda: client.query(query)] * 3)}
    assert not before & after
    assert same == after, "a transaction that was declared read-only says nothing of the server"
    io(client.close_pool())


def test_a_transaction_is_run_again_when_its_server_is_not_the_primary(
    sandbox: Sandbox, io: IO, quick_retries: None
) -> None:
    client = io.Client(sandbox.config_of(1))
    sandbox.run(1, "DELETE FROM trades", "SET GLOBAL read_only = 1")
    begun: List[int] = []

    def work(tx: Any) -> Any:
        begun.append(1)
        if len(begun) == 2:
            sandbox.run(1, "SET GLOBAL read_only = 0")
        return tx.execute(INSERT)

    assert io(client.run(work)) == 1
    assert len(begun) == 2
    assert sandbox.run(1, "SELECT COUNT(*) AS n FROM trades") == [{"n": 1}]
    io(client.close_pool())


def test_a_connection_that_the_server_found_idle_is_replaced_unnoticed(
    sandbox: Sandbox, io: IO
) -> None:
    sandbox.run(1, "SET GLOBAL wait_timeout = 1")
    try:
        client = io.Client(sandbox.config_of(1))
        before = io(client.query_value("SELECT CONNECTION_ID()"))
        wait_for(
            lambda: (
                not sandbox.run(
                    1, f"SELECT 1 FROM information_schema.processlist WHERE id = {before}"
                )
            )
        )
        assert io(client.execute(INSERT)) == 1
        assert client.stats().opened == 2
        io(client.close_pool())
    finally:
        sandbox.run(1, "SET GLOBAL wait_timeout = 28800")
    assert trades(sandbox) == 1


def test_a_restart_between_two_calls_is_not_noticed(sandbox: Sandbox, io: IO) -> None:
    db = io.Service(sandbox.config)
    with io.entered(db):
        for _ in range(2):
            assert io(db.shard(1).execute(INSERT)) == 1
            assert io(db.query_value("SELECT 1")) == 1
            sandbox.servers[1].stop()
            sandbox.servers[1].start()
    assert trades(sandbox) == 2


def test_the_global_database_away_stops_no_shard(
    sandbox: Sandbox, io: IO, quick_retries: None
) -> None:
    db = io.Service(sandbox.config)
    with io.entered(db):
        sandbox.servers["global"].kill()
        assert io(db.session(session(1)).execute(INSERT)) == 1
        with pytest.raises(ConnectionFailed) as caught:
            io(db.query("SELECT 1"))
        assert (caught.value.errno, caught.value.target) == (2003, "global")
        with pytest.raises(ConnectionFailed):
            io(db.load_shard_configs())
        assert sorted(db.shard_configs) == [1, 2], "the last good map stays"
        assert io(db.get_active_shard_ids()) == [1, 2]
        report = io(db.health_check())
        assert (report["healthy"], report["global"]["healthy"], report["shards"][1]["healthy"]) == (
            False,
            False,
            True,
        )


def slowly(statement: str) -> str:
    """A write that takes its time, so that its connection can be lost in between."""
    return statement.replace("(1, 'A', 1)", "(1, 'A', 1 + SLEEP(1.0))")


def kill_soon(sandbox: Sandbox, what: str) -> threading.Thread:
    """Kill the connection that runs a slow statement, once it does, or the server."""

    def running() -> Any:
        # Not by user: a procedure runs as the account that made it.
        where = "db = 'app_shard_1' AND state = 'User sleep'"
        return sandbox.run(1, f"SELECT id FROM information_schema.processlist WHERE {where}")

    def kill() -> None:
        (found,) = wait_for(running)
        if what == "server":
            sandbox.servers[1].kill()
        else:
            sandbox.run(1, f"KILL {found['id']}")

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


@pytest.mark.parametrize("what", ["connection", "server"])
def test_a_write_whose_connection_is_lost_is_not_sent_again(
    sandbox: Sandbox, io: IO, what: str
) -> None:
    db = io.Service(sandbox.config)
    with io.entered(db):
        killer = kill_soon(sandbox, what)
        with pytest.raises(OutcomeUnknown) as caught:
            io(db.shard(1).execute(slowly(INSERT)))
        killer.join()
        assert (
            caught.value.sent,
            caught.value.shard_id,
            caught.value.errno in (2013, 2006, 1927),
        ) == (True, 1, True)
        sandbox.servers[1].start()
        time.sleep(1.2)
        assert trades(sandbox) == 0, "the server undid it, and nobody sent it again"


def test_a_procedure_whose_connection_is_lost_is_not_called_again(sandbox: Sandbox, io: IO) -> None:
    sandbox.run(
        1, "CREATE OR REPLACE PROCEDURE slow() BEGIN " + INSERT + "; SELECT SLEEP(1.5); END"
    )
    db = io.Service(sandbox.config)
    with io.entered(db):
        killer = kill_soon(sandbox, "connection")
        with pytest.raises(OutcomeUnknown):
            io(db.shard(1).call("slow"))
        killer.join()
    assert trades(sandbox) == 1


@pytest.mark.parametrize(
    ("sql", "idempotent"),
    [("SELECT 1 + SLEEP(1) AS a", True), ("SELECT COUNT(*) AS a FROM nap", False)],
)
def test_what_may_be_repeated_is(sandbox: Sandbox, io: IO, sql: str, idempotent: bool) -> None:
    sandbox.run(1, "CREATE OR REPLACE VIEW nap AS SELECT SLEEP(1) AS nap FROM DUAL")
    db = io.Service(sandbox.config)
    with io.entered(db):
        killer = kill_soon(sandbox, "connection")
        assert io(db.shard(1).query(sql, idempotent=idempotent)) == [{"a": 1}]
        killer.join()


def test_a_read_that_loses_its_connection_twice_is_an_error_and_no_riddle(
    sandbox: Sandbox, io: IO, quick_retries: None
) -> None:
    client = io.Client(sandbox.config_of(1).model_copy(update={"read_timeout": 0.2}))
    with pytest.raises(ConnectionLost) as caught:
        io(client.query("SELECT SLEEP(2)", idempotent=True))
    assert type(caught.value) is ConnectionLost
    with pytest.raises(OutcomeUnknown, match="timed out"):
        io(client.execute(slowly(INSERT)))
    io(client.close_pool())


def test_the_last_map_serves_on_while_the_global_database_is_away(
    sandbox: Sandbox, io: IO, quick_retries: None, caplog: pytest.LogCaptureFixture
) -> None:
    db = io.Service(sandbox.config, refresh_interval=0.1)
    with io.entered(db):
        sandbox.servers["global"].kill()

        io.wait_for(lambda: db.status().failure is not None)
        assert io(db.session(session(1)).execute(INSERT)) == 1
        with pytest.raises(ShardUnavailable):
            io(db.shard(9).query("SELECT 1"))
        io.sleep(0.5)
        assert "2003" in db.status().failure
        assert db.status().age > 0.5
        assert caplog.text.count("the last map stays in use") == 1, (
            "logged once, and asked ever more rarely"
        )
        sandbox.servers["global"].start()
        sandbox.run(
            "global", "UPDATE table_shard_config SET status = 'maintenance' WHERE shard_id = 2"
        )

        io.wait_for(lambda: bool(db.status().shards[2].state == "maintenance"))
        assert db.status().failure is None
    sandbox.run("global", "UPDATE table_shard_config SET status = 'active' WHERE shard_id = 2")


@pytest.fixture
def silent_listener() -> Iterator[int]:
    """A port that accepts and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield listener.getsockname()[1]


def test_one_deadline_covers_the_whole_connect(
    io: IO, silent_listener: int, quick_retries: None
) -> None:
    config = DatabaseConfig(
        host="127.0.0.1",
        port=silent_listener,
        database="d",
        user="u",
        password="p",
        connect_timeout=0.2,
    )
    client = io.Client(config)
    with pytest.raises(ConnectionFailed) as caught:
        io(client.init_pool())
    assert caught.value.errno in (2003, 2013)


def test_a_server_held_still_in_the_handshake_holds_nobody(
    sandbox: Sandbox, io: IO, quick_retries: None
) -> None:
    config = sandbox.config.model_copy(update={"connect_timeout": 0.3})
    db = io.Service(config)
    sandbox.servers[2].pause()
    with io.entered(db):
        assert io(db.shard(1).query_value("SELECT 1")) == 1
        with pytest.raises(ShardUnavailable):
            io(db.shard(2).query("SELECT 1"))


def test_a_file_that_a_server_asks_for_is_not_sent(
    io: IO, quick_retries: None, tmp_path: pathlib.Path
) -> None:
    """The shard table names hosts; one of them might ask the client for its files."""
    secret = tmp_path / "secret"
    secret.write_text("canary")
    received = []

    def rogue(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(packet(0, GREETING))
            connection.recv(65536)
            connection.sendall(packet(2, OK))
            while True:
                data = connection.recv(65536)
                if not data:
                    return
                received.append(data)
                asks = b"\xfb" + str(secret).encode()
                for command in commands(data):
                    connection.sendall(packet(1, asks if command == b"SELECT 1" else OK))

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        thread = threading.Thread(target=rogue, args=(listener,), daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        config = DatabaseConfig(
            host="127.0.0.1", port=port, database="d", user="u", password="p", connect_timeout=0.5
        )
        client = io.Client(config)
        with pytest.raises(Exception, match="LOAD DATA LOCAL"):
            io(client.query("SELECT 1"))
        io(client.close_pool())
        thread.join(5)
    assert received
    assert not any(b"canary" in data for data in received)


def commands(data: bytes) -> Iterator[bytes]:
    """The statements that were sent at once."""
    while data:
        end = 4 + int.from_bytes(data[:3], "little")
        yield data[5:end]
        data = data[end:]


def packet(sequence: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([sequence]) + payload


OK = b"\x00\x00\x00\x02\x00\x00\x00"
GREETING = (
    b"\x0a5.7.0\x00" + b"\x01\x00\x00\x00" + b"saltsalt\x00" + b"\xff\xf7"
    + b"\x2d" + b"\x02\x00" + b"\x0f\x00" + b"\x15" + bytes(10)
    + b"saltsaltsalt\x00" + b"mysql_native_password\x00"
)  # fmt: skip


@pytest.mark.slow
def test_health_is_over_in_time_whatever_the_servers_do(
    sandbox: Sandbox, io: IO, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: List[Any] = []
    answered: List[Any] = []
    hang = threading.Event()
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        if host == "hangs.invalid":
            asked.append(host)
            hang.wait(60)
            answered.append(host)
            raise socket.gaierror(-2, "Name or service not known")
        return look_up(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    db = io.Service(sandbox.config, refresh_interval=None)
    with io.entered(db):
        assert io(db.health(deep=True)).state == "ok"
        sandbox.servers["global"].pause()
        sandbox.servers[1].pause()
        io.sleep(1.1)  # what was found is used for a second
        report = io(db.health(deep=True, timeout=0.5))
        assert (report.state, report.live, report.ready) == ("degraded", True, False)
        assert {name: each.state for name, each in report.databases.items()} == {
            "global": "down", "shard 1": "down", "shard 2": "ok",
        }  # fmt: skip
        for name in ("global", 1):
            sandbox.servers[name].resume()
        io.sleep(1.1)
        assert io(db.health(deep=True)).state == "ok"
        sandbox.run("global", "UPDATE table_shard_config SET host='hangs.invalid' WHERE shard_id=2")
        with contextlib.suppress(ShardUnavailable), io.deadline(0.3):
            io(db.refresh())
        report = io(db.health(deep=True, timeout=0.5))
        assert (len(asked) > 0, answered) == (True, []), "the name server has not answered yet"
        hang.set()
        assert report.databases["shard 2"].state == "down"
        sandbox.run("global", "UPDATE table_shard_config SET host='127.0.0.1' WHERE shard_id=2")
