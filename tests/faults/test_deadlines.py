"""Deadlines, cancellations and interrupts: the caller gets its error in time, and the
server is not left working.
"""

import socket
from typing import Any, Iterator

import pymysql
import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import DeadlineExceeded, Out, OutcomeUnknown, TransactionAborted, WriteTimedOut

INSERT = "INSERT INTO trades (user_id, symbol, qty) SELECT 1, 'A', 1 FROM DUAL WHERE SLEEP(%s) = 0"
NOW = "INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1)"

#: Procedures, and what is asked after them: the OUT values, and what a call did to the
#: transaction before it failed.
BETWEEN = [
    ("add_one", "SET p_done = 1", b"SELECT @_dualdb"),
    ("add_and_fail", "SIGNAL SQLSTATE '45000'", b"SET NAMES"),
]


@pytest.fixture
def client(databases: Databases, io: IO) -> Iterator[Any]:
    made = io.Client(databases.config_of(1, pool_size=2, max_overflow=0))
    io(made.init_pool())
    yield made
    io(made.close_pool())


def sleepers(databases: Databases, word: str = "SLEEP") -> int:
    """How many statements with a SLEEP the server is working on."""
    found = (
        f"SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%{word}(%' "
        "AND info NOT LIKE '%processlist%'"
    )
    return int(databases.value(1, found))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["timeout", "deadline", "legacy"])
def test_a_late_read_is_an_error_and_is_ended_on_the_server(
    client: Any, io: IO, databases: Databases, how: str
) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        if how == "timeout":
            io(client.query("SELECT SLEEP(30)", timeout=0.2))
        else:
            with io.deadline(0.2):
                ask = client.execute_query if how == "legacy" else client.query
                io(ask("SELECT SLEEP(30)"))
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.sent, caught.value.shard_id, caught.value.retryable) == (True, None, False)
    io.wait_for(lambda: sleepers(databases) == 0)
    assert io(client.query_value("SELECT 7")) == 7


def test_a_late_write_may_have_been_applied(client: Any, io: IO, databases: Databases) -> None:
    with pytest.raises(WriteTimedOut) as caught:
        io(client.execute(INSERT, (30,), timeout=0.2))
    assert isinstance(caught.value, OutcomeUnknown)
    assert isinstance(caught.value, DeadlineExceeded)
    io.wait_for(lambda: sleepers(databases) == 0)
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == 0


def test_a_late_procedure_is_ended_whatever_it_is_doing(
    client: Any, io: IO, databases: Databases
) -> None:
    # Whatever it does about errors, nothing of it is performed after its time: a limit
    # for each statement would be one it can handle. No server lets anybody end what has
    # another's rights: see the next test.
    handler = "DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END"
    body = f"BEGIN {handler}; SELECT SLEEP(30); {NOW}; SELECT SLEEP(30); END"
    databases.run(
        1,
        "DROP PROCEDURE IF EXISTS dawdle",
        f"CREATE PROCEDURE dawdle() SQL SECURITY INVOKER {body}",
    )
    with pytest.raises(WriteTimedOut):
        io(client.call("dawdle", timeout=0.2))
    io.wait_for(lambda: sleepers(databases) == 0)
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == 0


@pytest.mark.slow
def test_what_has_its_definer_s_rights_keeps_its_slot_until_it_is_over(
    databases: Databases, io: IO, caplog: pytest.LogCaptureFixture
) -> None:
    databases.run(
        1,
        "DROP FUNCTION IF EXISTS slowly",
        "CREATE FUNCTION slowly(n FLOAT) RETURNS INT READS SQL DATA RETURN SLEEP(n)",
    )
    client = io.Client(databases.config_of(1, pool_size=2, max_overflow=0))
    for _ in range(4):
        with pytest.raises(DeadlineExceeded):
            io(client.query("SELECT slowly(1.5)", timeout=0.2))
        assert sleepers(databases, "slowly") <= 2
    assert "runs with a definer's rights" in caplog.text
    io.wait_for(lambda: sleepers(databases, "slowly") == 0)
    assert io(client.query_value("SELECT 7")) == 7
    io.wait_for(lambda: client.stats().in_use == 0)
    io(client.close_pool())


@pytest.mark.slow
def test_life_and_health_are_over_in_time_too(databases: Databases, io: IO) -> None:
    # accepts, and says nothing
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = {"host": "127.0.0.1", "port": listener.getsockname()[1]}
        with pytest.raises(DeadlineExceeded), io.deadline(0.2):
            io(io.Service(databases.config.model_copy(update=silent)).init_service())
        databases.set_row(2, **silent)
        db = io.Service(databases.config)
        with io.deadline(0.5):
            io(db.init_service())
        with io.deadline(0.5):
            report = io(db.health_check())
        assert (
            report["global"]["healthy"],
            report["shards"][1]["healthy"],
            report["shards"][2]["healthy"],
        ) == (True, True, False)
        io(db.close_service())


@pytest.mark.slow
def test_waiting_for_a_connection_counts(client: Any, io: IO) -> None:
    streams = [client.stream("SELECT 1 UNION SELECT 2") for _ in range(2)]
    for stream in streams:
        io.next_row(stream)
    with pytest.raises(DeadlineExceeded) as caught:
        io(client.query("SELECT 1", timeout=0.2))
    assert caught.value.sent is False
    for stream in streams:
        io.collect(stream)
    assert io(client.query_value("SELECT 7", timeout=5.0)) == 7


def test_a_deadline_that_has_passed_sends_nothing(
    client: Any, io: IO, databases: Databases
) -> None:
    with io.deadline(0.0), pytest.raises(DeadlineExceeded) as caught:
        io(client.execute(INSERT, (0,)))
    assert caught.value.sent is False
    assert caught.value.retryable
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == 0


def test_a_transaction_that_is_late_is_gone(client: Any, io: IO, databases: Databases) -> None:
    with pytest.raises(TransactionAborted), io.entered(client.transaction()) as tx:
        io(tx.execute(INSERT, (0,)))
        with pytest.raises(DeadlineExceeded):
            io(tx.query("SELECT SLEEP(30)", timeout=0.2))
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == 0
    io.wait_for(lambda: sleepers(databases) == 0)


def test_a_block_that_is_late_before_its_commit_is_rolled_back(
    client: Any, io: IO, databases: Databases
) -> None:
    with (
        io.deadline(0.3),
        pytest.raises(DeadlineExceeded),
        io.entered(client.transaction()) as tx,
    ):
        io(tx.execute(INSERT, (0,)))
        io.sleep(0.4)
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == 0
    assert io(client.query_value("SELECT 1")) == 1


@pytest.mark.slow
def test_a_call_that_is_interrupted_is_ended_on_the_server(
    client: Any, io: IO, databases: Databases
) -> None:
    for _ in range(3):
        io.interrupted(lambda: client.query("SELECT SLEEP(30)"))
    io.wait_for(lambda: sleepers(databases) == 0)
    assert io(client.query_value("SELECT 7")) == 7
    io.wait_for(lambda: client.stats().in_use == 0)


def test_silence_beyond_read_timeout_is_ended_too(databases: Databases, io: IO) -> None:
    client = io.Client(databases.config_of(1, read_timeout=0.2))
    with pytest.raises(OutcomeUnknown):
        io(client.execute(INSERT, (30,)))
    io.wait_for(lambda: sleepers(databases) == 0)
    io(client.close_pool())


@pytest.mark.slow
def test_what_was_given_up_never_exceeds_the_pool_s_limit(databases: Databases, io: IO) -> None:
    """Each given-up session keeps its place until it has been ended."""
    user = "dualdb_counted"
    databases.run(
        1,
        f"DROP USER IF EXISTS {user}",
        f"CREATE USER {user} IDENTIFIED BY 'x'",
        f"GRANT ALL ON *.* TO {user}",
    )
    client = io.Client(
        databases.config_of(
            1, pool_size=2, max_overflow=1, user=user, password="x", pool_timeout=20.0
        )
    )
    # A connection that was given up while it was made may still be set up there.
    working = (
        "SELECT COUNT(*) FROM information_schema.processlist "
        f"WHERE user = '{user}' AND info LIKE '%SLEEP(30)%' AND command <> 'Killed'"
    )
    most = 0
    for _ in range(5):
        io.concurrently([lambda: client.query("SELECT SLEEP(30)", timeout=0.1)] * 6)
        most = max(most, databases.value(1, working))
    assert most <= 3
    io.wait_for(lambda: sleepers(databases) == 0)
    io(client.close_pool())
    databases.run(1, f"DROP USER {user}")


def test_a_large_answer_that_trickles_is_late_too(client: Any, io: IO) -> None:
    some = "(SELECT 1 UNION SELECT 2 UNION SELECT 3)"
    with pytest.raises(DeadlineExceeded):
        io(
            client.query(
                f"SELECT REPEAT('x', 200000), SLEEP(0.05) FROM {some} AS t, {some} AS u",
                timeout=0.2,
            )
        )
    assert io(client.query_value("SELECT 7")) == 7


def test_a_changed_session_that_was_given_up_is_not_reset_but_replaced(
    client: Any, io: IO, databases: Databases
) -> None:
    with pytest.raises(TransactionAborted), io.entered(client.transaction()) as tx:
        io(tx.execute("SET @mine = 1"))
        with pytest.raises(DeadlineExceeded):
            io(tx.query("SELECT SLEEP(20)", timeout=0.2))
    assert io(client.query_value("SELECT @mine")) is None
    io.wait_for(lambda: client.stats().in_use == 0)
    assert client.stats().opened == 2


@pytest.mark.parametrize(
    ("name", "body", "next_command"), BETWEEN, ids=[name for name, *_ in BETWEEN]
)
def test_a_procedure_is_not_called_twice_where_the_next_command_never_left(
    client: Any,
    io: IO,
    databases: Databases,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    body: str,
    next_command: bytes,
) -> None:
    databases.run(
        1,
        f"DROP PROCEDURE IF EXISTS {name}",
        f"CREATE PROCEDURE {name}(OUT p_done INT) BEGIN {NOW}; {body}; END",
    )
    connection_class = io.impl.connection.Connection
    send = connection_class._send

    # No server can be made to hit the microseconds between an answer and the next
    # command.
    def fail(connection: Any, transport: Any, command: bytes, *response: Any) -> Any:
        if next_command in command:
            connection.abort()
            raise pymysql.err.OperationalError(2006, "gone")
        return send(connection, transport, command, *response)

    monkeypatch.setattr(connection_class, "_send", fail)
    with pytest.raises(OutcomeUnknown):
        io(client.call(name, (Out("p_done"),)))
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == 1
