"""The shard table is edited while the application runs."""

import asyncio
import json
import pathlib
import socket
from typing import Any, Callable, List, Tuple

import pytest
from apis import session
from database_servers import Databases
from io_kinds import IO
from shard_rows import new_shard

from dualdb import (
    ConnectionLost,
    OperationalError,
    ParameterError,
    ShardReadOnly,
    ShardUnavailable,
    TooManyRows,
    TransactionAborted,
)
from dualdb.api.interfaces import database_client_of
from dualdb.topology import admin, lifecycle

INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, 'A', 1)"


@pytest.fixture
def refresh_on_every_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every miss reads the table, however recently it was read."""
    monkeypatch.setattr(lifecycle, "MISS_REFRESH_INTERVAL", 0.0)


@pytest.fixture
def live(open_service: Callable[..., Any]) -> Any:
    """A service that reads its shard table five times in a second."""
    return open_service(refresh_interval=0.2)


@pytest.fixture
def still(open_service: Callable[..., Any]) -> Any:
    """A service that reads its shard table only when it is asked to."""
    return open_service(refresh_interval=None)


def users(databases: Databases, name: Any) -> List[int]:
    table = "trades" if isinstance(name, int) else "accounts"
    return [
        row["user_id"] for row in databases.run(name, f"SELECT user_id FROM {table} ORDER BY 1")
    ]


def sessions(databases: Databases, config: Any) -> int:
    return int(
        databases.value(
            1,
            (
                "SELECT COUNT(*) FROM information_schema.processlist WHERE db = "
                f"'{config.database}' AND user = '{config.user}'"
            ),
        )
    )


def test_a_row_is_usable_without_a_call_by_anybody(live: Any, io: IO, databases: Databases) -> None:
    assert live.get_shard_client(3) is None
    databases.set_row(3)
    io.wait_for(lambda: live.get_shard_client(3) is not None)
    assert io(live.session(session(3)).execute(INSERT, (3,))) == 1
    assert users(databases, 1) == [3]


def test_a_refresh_is_now_and_keeps_what_has_not_changed(
    still: Any, io: IO, databases: Databases
) -> None:
    before = {
        shard_id: io(still.shard(shard_id).query_value("SELECT CONNECTION_ID()"))
        for shard_id in (1, 2)
    }
    version = still.status().version
    io(still.refresh())
    assert still.status().version == version, "nothing has changed"
    databases.set_row(3)
    config = databases.config_of(1)
    databases.set_row(2, host=config.host, port=config.port, database_name=config.database)
    io(still.refresh())
    assert still.status().version == version + 1
    assert io(still.shard(3).query_value("SELECT 3")) == 3
    assert io(still.shard(1).query_value("SELECT CONNECTION_ID()")) == before[1]
    assert io(still.shard(2).query_value("SELECT DATABASE()")) == config.database


def test_simultaneous_misses_are_served_by_one_reading(
    still: Any, io: IO, databases: Databases, refresh_on_every_miss: None
) -> None:
    databases.set_row(3)
    client: Any = database_client_of(still.get_global_client())
    execute = client.run_on_own_connection
    readings: List[str] = []

    def counted(statement: Any, *args: Any) -> Any:
        readings.append(statement.sql)
        return execute(statement, *args)

    client.run_on_own_connection = counted
    assert io.concurrently([lambda: still.shard(3).query_value("SELECT 3")] * 50) == [3] * 50
    assert len(readings) == 1
    assert "table_shard_config" in readings[0]
    with pytest.raises(ShardUnavailable):
        io(still.shard(9).query("SELECT 1"))


@pytest.mark.slow
def test_a_miss_does_not_read_the_table_at_every_call(
    still: Any, io: IO, databases: Databases
) -> None:
    with pytest.raises(ShardUnavailable):
        io(still.shard(3).query("SELECT 3"))
    databases.set_row(3)
    with pytest.raises(ShardUnavailable):
        io(still.shard(3).query("SELECT 3"))
    io.wait_for(
        lambda: (
            io(still.session(session(3)).query_value("SELECT DATABASE()"))
            == databases.config_of(1).database
        ),
    )


@pytest.mark.slow
def test_an_inactive_shard_is_drained(still: Any, io: IO, databases: Databases) -> None:
    config = databases.config_of(1)
    with io.entered(still.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        databases.set_row(1, status="inactive")
        io(still.refresh())
        assert still.status().draining == {config.address: 1}
        io(tx.execute(INSERT, (2,)))
        assert io(still.session(session(1)).execute(INSERT, (3,))) == 1, (
            "the same caller takes part in what it has begun"
        )
        with pytest.raises(ShardUnavailable, match="^Shard 1 not available: "):
            io.in_other_caller(lambda: still.shard(1).query("SELECT 1"))
        assert (
            io.in_other_caller(lambda: still.session(session(1)).query_value("SELECT DATABASE()"))
            == databases.config_of("global").database
        )
    assert users(databases, 1) == [1, 2, 3]
    io.wait_for(lambda: not sessions(databases, config))
    io.wait_for(lambda: not still.status().draining)
    assert set(still.stats()) == {"global", 2}


def test_a_drain_counts_the_sessions_of_others_and_none_that_is_just_ending(
    still: Any, io: IO, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = io.Client(databases.config_of(1))
    assert io(other.query_value("SELECT 1")) == 1
    io.concurrently([lambda: still.shard(1).query_value("SELECT 1")] * 10)
    monkeypatch.setattr(admin, "CLOSING_GRACE", 0.0)
    assert io(still.drain_shard(1)).remaining >= 1
    io(other.close_pool())
    monkeypatch.setattr(admin, "CLOSING_GRACE", 20.0)
    assert io(still.drain_shard(1)).remaining == 0


@pytest.mark.slow
def test_what_does_not_end_in_time_is_cut(
    open_service: Callable[..., Any], io: IO, databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    db = open_service(refresh_interval=0.2, drain_timeout=0.3)
    with pytest.raises(TransactionAborted), io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        databases.set_row(1, status="maintenance")
        io.wait_for(lambda: "1 connections were still in use and have been aborted" in caplog.text)
        with pytest.raises(OperationalError) as caught:
            io(tx.execute(INSERT, (2,)))
        assert caught.value.sent is False
    assert users(databases, 1) == []
    io.wait_for(lambda: not db.status().draining)


@pytest.mark.slow
def test_a_transaction_that_was_cut_is_not_committed(
    still: Any, io: IO, databases: Databases
) -> None:
    lost = (ConnectionLost, TransactionAborted)
    with pytest.raises(lost) as caught, io.entered(still.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        io.in_other_caller(lambda: still.drain_shard(1, timeout=0.1))
    assert caught.value.retryable
    assert users(databases, 1) == []


@pytest.mark.slow
def test_maintenance_refuses_at_once_and_ends_by_itself(
    live: Any, io: IO, databases: Databases
) -> None:
    databases.set_row(2, status="maintenance")
    io.wait_for(lambda: live.status().shards[2].state == "maintenance")
    for target in (live.shard(2), live.session(session(2))):
        with pytest.raises(ShardUnavailable) as caught:
            io(target.execute(INSERT, (1,)))
        assert (caught.value.retry_after, caught.value.retryable, caught.value.sent) == (
            0.2,
            True,
            False,
        )
    databases.set_row(2, status="active")
    io.wait_for(lambda: live.status().shards[2].state == "active")
    assert io(live.session(session(2)).execute(INSERT, (1,))) == 1


def test_a_readonly_shard_serves_reads_and_refuses_writes_before_they_are_sent(
    still: Any, io: IO, databases: Databases
) -> None:
    with io.entered(still.shard(1).transaction()) as tx:
        databases.set_row(1, status="readonly")
        io(still.refresh())
        io(tx.execute(INSERT, (1,)))
        io(still.shard(1).execute(INSERT, (2,)))
    shard = still.session(session(1))
    assert io(shard.query_value("SELECT COUNT(*) FROM trades")) == 2
    assert io(
        still.execute_shard_query(1, "SELECT user_id FROM trades WHERE user_id = %s", (1,))
    ) == [{"user_id": 1}]
    assert io(shard.call("portfolio", (1,), read_only=True)).sets
    assert io(shard.query_value("SELECT COUNT(*) FROM trades FOR UPDATE", read_only=True)) == 2
    writes: List[Tuple[str, Callable[[], Any]]] = [
        ("INSERT is not known to be a read", lambda: shard.execute(INSERT, (3,))),
        ("FOR UPDATE", lambda: shard.query("SELECT COUNT(*) FROM trades FOR UPDATE")),
        (r"GET_LOCK\(\) takes a lock", lambda: shard.query("SELECT GET_LOCK('a', 1)")),
        (r"MINE\(\) may be a stored function", lambda: shard.query("SELECT mine(id) FROM trades")),
        ("a procedure", lambda: shard.call("buy", (3, "A", 1))),
        ("a procedure", lambda: still.call_shard_procedure(1, "portfolio", (1,))),
        ("INSERT", lambda: shard.execute(INSERT, (3,), idempotent=True)),
    ]
    for why, write in writes:
        reason = f"^Shard 1 not available: it is read-only, and {why}"
        with pytest.raises(ShardReadOnly, match=reason) as caught:
            io(write())
        assert (caught.value.sent, caught.value.shard_id) == (False, 1)
        assert str(caught.value) == f"Shard 1 not available: {caught.value.reason}"
        assert isinstance(caught.value, ShardUnavailable)
    with pytest.raises(ShardReadOnly), io.entered(shard.connection()):
        raise AssertionError("entered")
    with pytest.raises(ShardReadOnly), io.entered(shard.transaction()) as tx:
        assert io(tx.query_value("SELECT COUNT(*) FROM trades")) == 2
        io(tx.execute(INSERT, (3,)))
    assert users(databases, 1) == [1, 2]
    assert io(still.get_active_shard_ids()) == [1, 2]
    databases.set_row(1, status="active")
    io(still.refresh())
    assert io(shard.execute(INSERT, (3,))) == 1


def test_a_shard_that_moves_takes_new_work_along_and_lets_old_work_finish(
    still: Any, io: IO, databases: Databases
) -> None:
    in_other_caller = databases.config_of(2)
    with io.entered(still.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        databases.set_row(
            1,
            host=in_other_caller.host,
            port=in_other_caller.port,
            database_name=in_other_caller.database,
        )
        io(still.refresh())
        assert io.in_other_caller(lambda: still.shard(1).execute(INSERT, (7,))) == 1
        io(still.shard(1).execute(INSERT, (2,)))
        io(tx.execute(INSERT, (3,)))
    assert (users(databases, 1), users(databases, 2)) == ([1, 2, 3], [7])
    assert io(still.shard(1).query_value("SELECT COUNT(*) FROM trades")) == 1


def test_a_refused_password_has_the_table_read_before_it_is_an_error(
    still: Any, io: IO, databases: Databases, refresh_on_every_miss: None
) -> None:
    account = f"rotated_{io.name}"
    databases.run(
        1, f"DROP USER IF EXISTS {account}@'%'", f"CREATE USER {account}@'%' IDENTIFIED BY 'first'"
    )
    databases.run(1, f"GRANT ALL ON {databases.config_of(1).database}.* TO {account}@'%'")
    databases.set_row(1, username=account, password="first")
    io(still.refresh())
    assert io(still.shard(1).execute(INSERT, (1,))) == 1
    databases.run(1, f"ALTER USER {account}@'%' IDENTIFIED BY 'second'")
    for row in databases.run(
        1, f"SELECT id FROM information_schema.processlist WHERE user = '{account}'"
    ):
        databases.run(1, f"KILL {row.get('id', row.get('ID'))}")
    with pytest.raises(ShardUnavailable, match="^Shard 1 not available: ") as caught:
        io(still.shard(1).execute(INSERT, (9,)))
    assert "1045" in str(caught.value.reason)
    databases.set_row(1, password="second")
    assert io(still.shard(1).execute(INSERT, (2,))) == 1
    with io.entered(still.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (3,)))
    assert users(databases, 1) == [1, 2, 3]
    databases.run(1, f"DROP USER {account}@'%'")


@pytest.mark.slow
def test_a_bad_row_is_set_apart_and_mends_without_a_restart(
    live: Any, io: IO, databases: Databases
) -> None:
    databases.set_row(2, port="0")
    io.wait_for(lambda: live.status().shards[2].state == "invalid")
    status = live.status()
    assert "port" in str(status.shards[2].reason)
    assert status.problems[0].startswith("shard 2: port")
    assert io(live.shard(1).query_value("SELECT 1")) == 1
    databases.set_row(2, port=str(databases.config_of(2).port))
    io.wait_for(lambda: live.status().shards[2].state == "active")
    assert io(live.shard(2).query_value("SELECT 2")) == 2


def test_a_password_may_be_a_reference(
    open_service: Callable[..., Any],
    io: IO,
    databases: Databases,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    still = open_service(refresh_interval=None, allowed_references=["env:*", f"file:{tmp_path}/*"])
    secret = databases.config_of(1).reveal_password()
    (tmp_path / "password").write_text(secret + "\n")
    monkeypatch.setenv("SHARD_TWO", secret)
    databases.set_row(1, password=f"file:{tmp_path / 'password'}")
    databases.set_row(2, password="env:SHARD_TWO")
    databases.set_row(3, password="env:NO_SUCH_VARIABLE")
    io(still.refresh())
    assert [
        io(still.shard(shard_id).query_value("SELECT %s", (shard_id,))) for shard_id in (1, 2)
    ] == [1, 2]
    assert (
        still.status().shards[3].reason
        == "password: there is no environment variable 'NO_SUCH_VARIABLE'"
    )
    kept = still.get_shard_client(1)
    io(still.refresh())
    assert still.get_shard_client(1) is kept
    (tmp_path / "password").write_text("another")
    io(still.refresh())
    assert still.get_shard_client(1) is not kept, (
        "a password that was changed in its file is a changed password"
    )


@pytest.mark.slow
def test_a_host_that_is_not_allowed_is_sent_nothing(
    open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    with socket.create_server(("127.0.0.2", 0)) as listener:
        listener.settimeout(0.5)
        databases.set_row(3, host="127.0.0.2", port=str(listener.getsockname()[1]))
        db = open_service(
            refresh_interval=0.2,
            allowed_hosts=[databases.config_of(1).host, "127.0.0.1/32", "*.internal"],
        )
        with pytest.raises(ShardUnavailable) as caught:
            io(db.shard(3).query("SELECT 1"))
        assert "host '127.0.0.2' is not among the allowed hosts" in str(caught.value.reason)
        with pytest.raises(socket.timeout):
            listener.accept()
        assert io(db.shard(1).query_value("SELECT 1")) == 1


def test_hooks_are_told_in_order_and_cannot_break_anything(
    still: Any, io: IO, databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    translated: List[Any] = []

    @still.on("shard_added")  # type: ignore[untyped-decorator, unused-ignore]
    def fails(event: Any) -> None:
        raise ZeroDivisionError

    def hook(event: Any) -> Any:
        translated.append((event.name, event.shard_id))
        return still.refresh() if event.name == "map_refreshed" else None

    for name in (
        "shard_added",
        "shard_removed",
        "shard_moved",
        "shard_state_changed",
        "map_refreshed",
    ):
        assert still.on(name, hook) is hook
    databases.set_row(3)
    databases.set_row(2, status="maintenance")
    io(still.refresh())
    databases.run("global", "DELETE FROM table_shard_config WHERE shard_id = 3")
    databases.set_row(1, username="somebody")
    io(still.refresh())
    assert translated == [
        ("shard_state_changed", 2), ("shard_added", 3), ("map_refreshed", None),
        ("shard_moved", 1), ("shard_removed", 3), ("map_refreshed", None),
    ]  # fmt: skip
    assert "ZeroDivisionError" in caplog.text
    with pytest.raises(ValueError, match="event must be one of .*, not 'shard_add'"):
        still.on("shard_add", hook)


def test_a_hook_that_has_the_table_read_again_overtakes_nobody(
    still: Any, io: IO, databases: Databases
) -> None:
    translated: List[Any] = []

    def again(event: Any) -> Any:
        if event.shard_id == 3:
            databases.set_row(4)
            return still.refresh()
        return None

    still.on("shard_added", again)
    still.on("shard_added", lambda event: translated.append((event.shard_id, event.version)))
    databases.set_row(3)
    io(still.refresh())
    assert translated == [(3, 2), (4, 3)]


def test_the_status_is_known_without_asking_anybody(
    still: Any, io: IO, databases: Databases
) -> None:
    io(still.shard(1).query("SELECT 1"))
    status = still.status()
    assert (status.version, status.failure, status.problems, status.draining) == (1, None, (), {})
    assert 0 <= status.age < 60
    assert {shard_id: shard.state for shard_id, shard in status.shards.items()} == {
        1: "active",
        2: "active",
    }
    assert status.shards[1].pool == still.stats()[1]
    assert status.shards[1].address == databases.config_of(1).address
    assert databases.config_of(1).reveal_password() not in repr(status)
    io(still.close_service())
    assert (still.status().version, dict(still.status().shards)) == (0, {})


@pytest.mark.slow
def test_shards_are_administered_from_python(still: Any, io: IO, databases: Databases) -> None:
    right = new_shard(databases)
    io(still.add_shard(5, **right))
    assert io(still.session(session(5)).execute(INSERT, (1,))) == 1
    for wrong, cls, says in (
        (
            {**right, "status": "sleepy"},
            ParameterError,
            "would be unusable: shard 6: status 'sleepy'",
        ),
        (
            {**right, "privileges": ["SUPER POWERS"]},
            ParameterError,
            "has not been granted SUPER POWERS",
        ),
        ({**right, "password": "wrong"}, ShardUnavailable, "Shard 6 not available"),
    ):
        with pytest.raises(cls) as caught:
            io(still.add_shard(6, **wrong))
        assert says in str(caught.value)
        assert not databases.run("global", "SELECT 1 FROM table_shard_config WHERE shard_id = 6")
    for connect in (True, False):
        with pytest.raises(ParameterError, match="is in the shard table already"):
            io(still.add_shard(5, **right, connect=connect))
    io(still.add_shard(6, **{**right, "password": "wrong"}, connect=False, dry_run=True))
    assert not databases.run("global", "SELECT 1 FROM table_shard_config WHERE shard_id = 6")
    io(still.add_shard(6, **{**right, "password": "wrong", "status": "inactive"}, connect=False))
    assert databases.run("global", "SELECT 1 FROM table_shard_config WHERE shard_id = 6")
    io(still.remove_shard(6))
    with pytest.raises(ParameterError, match="shard 5 is active: drain it before"):
        io(still.remove_shard(5))
    io(still.set_shard_status(5, "Maintenance"))
    with pytest.raises(ShardUnavailable):
        io(still.shard(5).query("SELECT 1"))
    for shard_id, status, says in (
        (5, "sleepy", "status must be one of"),
        (8, "active", "shard 8 is not in the shard table"),
    ):
        with pytest.raises(ParameterError, match=says):
            io(still.set_shard_status(shard_id, status))
    io(still.set_shard_status(5, "active"))
    databases.run(
        "global",
        "ALTER TABLE table_shard_config MODIFY status ENUM('active', 'inactive', 'maintenance')",
    )
    with pytest.raises(ParameterError, match="does not allow 'readonly'"):
        io(still.set_shard_status(5, "readonly"))
    with pytest.raises(TransactionAborted), io.entered(still.shard(5).transaction()) as tx:
        io(tx.execute(INSERT, (2,)))
        report = io.in_other_caller(lambda: still.drain_shard(5, timeout=0.2))
        assert (report.shard_id, report.finished, report.aborted) == (5, 0, 1)
        with pytest.raises(OperationalError):
            io(tx.execute(INSERT, (3,)))
    io(still.remove_shard(5))
    assert not databases.run("global", "SELECT 1 FROM table_shard_config WHERE shard_id = 5")
    assert still.get_shard_client(5) is None


def test_a_map_is_never_read_inside_a_caller_s_transaction(
    still: Any, io: IO, databases: Databases, refresh_on_every_miss: None
) -> None:
    with io.entered(still.transaction()) as tx:
        io(tx.query("SELECT * FROM table_shard_config"))
        databases.set_row(1, status="maintenance")
        databases.set_row(3)
        assert io(still.shard(3).query_value("SELECT 3")) == 3, "not an old snapshot of the table"
        assert still.status().shards[1].state == "maintenance"
        io(still.set_shard_status(2, "readonly"))
    with pytest.raises(ZeroDivisionError), io.entered(still.transaction()):
        io(still.set_shard_status(1, "active"))
        raise ZeroDivisionError
    io(still.refresh())
    assert {shard_id: shard.state for shard_id, shard in still.status().shards.items()} == {
        1: "active",
        2: "readonly",
        3: "active",
    }


def test_what_began_on_the_global_database_ends_there(
    still: Any, io: IO, databases: Databases
) -> None:
    databases.set_row(1, status="inactive")
    io(still.refresh())
    mine = still.session(session(1))
    insert = "INSERT INTO accounts (id, email) VALUES (%s, UUID())"
    with pytest.raises(ZeroDivisionError), io.entered(mine.transaction()):
        io(mine.execute(insert, (71,)))
        databases.set_row(1, status="active")
        io(still.refresh())
        io(mine.execute(insert, (72,)))
        assert (
            io.in_other_caller(lambda: mine.query_value("SELECT DATABASE()"))
            == databases.config_of(1).database
        )
        raise ZeroDivisionError
    assert databases.value("global", "SELECT COUNT(*) FROM accounts") == 0
    assert io(mine.query_value("SELECT DATABASE()")) == databases.config_of(1).database


def test_a_shard_that_nobody_can_know_of_is_not_taken_for_absent(
    still: Any, io: IO, databases: Databases
) -> None:
    databases.set_row(3)
    databases.run("global", "RENAME TABLE table_shard_config TO hidden")
    for _ in range(2):
        with pytest.raises(ShardUnavailable) as caught:
            io(still.session(session(3)).execute(INSERT, (1,)))
        assert "the shard table cannot be read" in str(caught.value.reason)
        with pytest.raises(ShardUnavailable):
            still.get_client_by_session(session(3))
    assert io(still.session(session(1)).execute(INSERT, (1,))) == 1
    databases.run("global", "RENAME TABLE hidden TO table_shard_config")


def test_a_new_shard_is_looked_for_however_short_ago_the_table_was_read(
    still: Any, io: IO, databases: Databases
) -> None:
    for shard_id in (3, 4, 5):
        databases.set_row(shard_id)
        assert (
            io(still.session(session(shard_id)).query_value("SELECT DATABASE()"))
            == databases.config_of(1).database
        )


@pytest.mark.slow
def test_what_is_idle_in_a_transaction_is_cut_on_the_server_too(
    open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    db, config = open_service(refresh_interval=0.1, drain_timeout=0.2), databases.config_of(1)
    with (
        pytest.raises((TransactionAborted, ConnectionLost)),
        io.entered(db.shard(1).transaction()) as tx,
    ):
        io(tx.execute(INSERT, (1,)))
        databases.set_row(1, status="inactive")
        io.wait_for(lambda: sessions(databases, config) == 0)
    assert users(databases, 1) == []


@pytest.mark.parametrize("what", ["close", "exit"])
def test_a_hook_that_closes_its_service_or_wants_to_exit(
    open_service: Callable[..., Any], io: IO, databases: Databases, what: str
) -> None:
    db = open_service(refresh_interval=0.1)
    translated: List[Any] = []

    def hook(event: Any) -> Any:
        translated.append(event)
        if what == "exit":
            raise SystemExit
        return db.close_service() if len(translated) == 1 else None

    db.on("shard_added", hook)
    databases.set_row(3)
    io.wait_for(lambda: translated)
    if what == "exit":
        databases.set_row(4)
        io.wait_for(lambda: len(translated) == 2)
        return
    io.wait_for(lambda: db.global_client is None)
    io(db.init_service())
    databases.set_row(4)
    io.wait_for(lambda: db.get_shard_client(4) is not None)  # the background is there again


def test_a_hook_may_wait_for_what_needs_the_service_alone(
    still: Any, io: IO, databases: Databases
) -> None:
    if io.name == "sync":
        still.on("shard_added", lambda event: still.refresh())
    else:

        async def hook(event: Any) -> None:
            await asyncio.gather(still.refresh(), still.refresh())

        still.on("shard_added", hook)
    databases.set_row(3)
    io(still.refresh())
    assert io(still.shard(3).query_value("SELECT 3")) == 3


def test_a_readonly_shard_takes_no_marker_and_lends_no_cursor(
    still: Any, io: IO, databases: Databases
) -> None:
    databases.set_row(1, status="readonly")
    io(still.refresh())
    with pytest.raises(ShardReadOnly), io.entered(still.shard(1).transaction(commit_marker=True)):
        raise AssertionError("entered")
    with io.entered(still.shard(1).transaction()) as tx, pytest.raises(ShardReadOnly):
        tx.cursor()


def test_a_table_that_loses_its_rows_is_not_believed(
    still: Any, io: IO, databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    databases.run("global", "DELETE FROM table_shard_config")
    for _ in range(3):
        io(still.refresh())
    assert io(still.session(session(2)).query_value("SELECT DATABASE()")) == (
        databases.config_of(2).database
    )
    assert "no shards any more" in still.status().problems[-1]
    assert caplog.text.count("no shards any more") == 1
    io(still.refresh(force=True))
    assert (dict(still.status().shards), still.status().problems) == ({}, ())


@pytest.mark.slow
def test_a_strange_row_does_not_end_the_refreshing(live: Any, io: IO, databases: Databases) -> None:
    databases.run("global", "ALTER TABLE table_shard_config ADD max_connections DECIMAL(40,0)")
    databases.run(
        "global", "UPDATE table_shard_config SET max_connections = POW(10, 30) WHERE shard_id = 2"
    )
    io.wait_for(lambda: live.status().shards[2].state == "invalid")
    assert io(live.shard(1).query_value("SELECT 1")) == 1
    databases.run("global", "UPDATE table_shard_config SET max_connections = NULL")
    databases.set_row(1, status="maintenance")
    io.wait_for(lambda: live.status().shards[1].state == "maintenance")
    assert live.status().shards[2].state == "active"


def test_more_rows_than_max_shards_leave_the_last_map(
    open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    db = open_service(refresh_interval=None, max_shards=2)
    databases.set_row(3)
    with pytest.raises(TooManyRows, match="max_shards"):
        io(db.refresh())
    assert sorted(db.status().shards) == [1, 2]
    assert "max_shards" in str(db.status().failure)


def test_the_status_and_the_figures_are_ready_for_json(
    still: Any, io: IO, databases: Databases
) -> None:
    databases.set_row(2, status="maintenance")
    io(still.refresh())
    status = json.loads(json.dumps(still.status().as_dict()))
    assert status["shards"]["2"]["state"] == "maintenance"
    assert status["shards"]["1"]["pool"]["circuit"] == "closed"
    assert (status["problems"], status["version"]) == ([], 2)
    figures = json.loads(json.dumps(still.stats().as_dict()))
    assert set(figures) == {"global", "1"}
    assert figures["1"] == still.stats()[1].as_dict()
    assert databases.config_of(1).reveal_password() not in json.dumps(status)


@pytest.mark.slow
def test_a_new_limit_of_a_pool_drops_no_connection_in_use(
    still: Any, io: IO, databases: Databases
) -> None:
    databases.run("global", "ALTER TABLE table_shard_config ADD max_connections INT")
    with io.entered(still.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        databases.set_row(1, max_connections=3)
        io(still.refresh())
        assert still.stats()[1].limit == 3
        io(tx.execute(INSERT, (2,)))
    assert users(databases, 1) == [1, 2]


def test_all_shards_come_to_one_server_by_configuration_alone(
    still: Any, io: IO, databases: Databases
) -> None:
    """The same calls, before and after the rows lead to one database."""

    def work() -> Any:
        for shard_id in (1, 2):
            io(
                still.shard(shard_id).execute(
                    "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, 'ABC', 1)", (shard_id,)
                )
            )
        by_shard = [
            io(
                still.session(session(shard_id)).query_value(
                    "SELECT COUNT(*) FROM trades WHERE user_id = %s", (shard_id,)
                )
            )
            for shard_id in (1, 2)
        ]
        everywhere = io(still.shards().query("SELECT user_id FROM trades")).rows
        return by_shard, sorted(each["user_id"] for each in everywhere)

    assert work() == ([1, 1], [1, 2])
    databases.run(1, "DELETE FROM trades")
    one = databases.config_of(1)
    databases.run(
        "global",
        f"UPDATE table_shard_config SET host = '{one.host}', port = {one.port}, "
        f"database_name = '{one.database}', username = '{one.user}', "
        f"password = '{one.reveal_password()}'",
    )
    io(still.refresh())
    assert work() == ([1, 1], [1, 2]), "each row is there, and counted once"
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == 2
