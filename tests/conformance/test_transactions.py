"""Transactions: all or nothing, nested, joined, and honest about their end."""

import contextlib
import threading
from typing import Any, Callable, List

import pymysql
import pytest
from apis import session
from database_servers import Databases
from io_kinds import IO

from dualdb import (
    ConcurrentUseError,
    ConnectionLost,
    CrossShardError,
    InterfaceError,
    OperationalError,
    OutcomeUnknown,
    ParameterError,
    ProgrammingError,
    ReadOnlyServer,
    TransactionAborted,
    UndecodableText,
)
from dualdb.api.interfaces import block_of
from dualdb.testing import Fault, FaultProxy

INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, 'A', 1)"


def users(databases: Databases, name: Any = 1) -> Any:
    return [
        row["user_id"] for row in databases.run(name, "SELECT user_id FROM trades ORDER BY user_id")
    ]


@pytest.mark.parametrize(
    "target",
    [lambda db: db.shard(1), lambda db: db.session(session(1)), lambda db: db.get_shard_client(1)],
)
def test_a_block_that_ends_well_is_committed(
    db: Any, io: IO, databases: Databases, target: Any
) -> None:
    with io.entered(target(db).transaction()) as tx:
        assert io(tx.execute(INSERT, (1,))).lastrowid == 1
        io(tx.call("buy", (2, "B", 1)))
        assert io(tx.query_value("SELECT COUNT(*) FROM trades")) == 2
        assert users(databases) == [], "nobody else sees it yet"
    assert users(databases) == [1, 2]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_block_that_fails_is_rolled_back(
    db: Any, io: IO, databases: Databases, error: Any
) -> None:
    with pytest.raises(error), io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        raise error
    assert users(databases) == []


def test_inside_a_transaction_another_is_a_savepoint(db: Any, io: IO, databases: Databases) -> None:
    with io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        with pytest.raises(ZeroDivisionError), io.entered(tx.transaction()) as inner:
            io(inner.execute(INSERT, (2,)))
            with io.entered(inner.transaction()) as innermost:
                io(innermost.execute(INSERT, (3,)))
            raise ZeroDivisionError
        with io.entered(db.shard(1).transaction()) as inner:
            io(inner.execute(INSERT, (4,)))
        assert users(databases) == []
    assert users(databases) == [1, 4]


def test_calls_of_the_same_caller_take_part_and_others_do_not(
    db: Any, io: IO, databases: Databases
) -> None:
    with pytest.raises(ZeroDivisionError), io.entered(db.shard(1).transaction(other_shards=True)):
        io(db.shard(1).execute(INSERT, (1,)))
        io(db.session(session(1)).execute(INSERT, (2,)))
        io(db.call_shard_procedure_update(1, INSERT, (3,)))
        io(db.get_shard_client(1).execute_non_query(INSERT, (4,)))
        io.in_other_caller(lambda: db.shard(1).execute(INSERT, (5,)))
        io(db.shard(2).execute(INSERT, (6,)))
        raise ZeroDivisionError
    assert (users(databases, 1), users(databases, 2)) == ([5], [6])


def test_a_legacy_unit_of_work_commits_or_vanishes_whole(
    db: Any, io: IO, databases: Databases
) -> None:
    databases.run(
        "global",
        "CREATE TABLE IF NOT EXISTS events (name VARCHAR(20) PRIMARY KEY)",
        "TRUNCATE events",
    )

    def sign_up(email: str, *, fail: bool) -> None:
        with io.entered(db.get_transaction()) as tx:
            io(tx.execute_non_query("INSERT INTO accounts (email) VALUES (%s)", (email,)))
            assert (
                io(db.call_global_procedure_update("INSERT INTO events VALUES (%s)", (email,))) == 1
            )
            if fail:
                raise ZeroDivisionError

    sign_up("a", fail=False)
    with pytest.raises(ZeroDivisionError):
        sign_up("b", fail=True)
    assert databases.run("global", "SELECT email FROM accounts") == [{"email": "a"}]
    assert databases.run("global", "SELECT name FROM events") == [{"name": "a"}]


def test_what_a_transaction_yields_serves_old_code(db: Any, io: IO, databases: Databases) -> None:
    with io.entered(db.get_transaction()) as tx:
        assert io(tx.execute_non_query("INSERT INTO accounts (email) VALUES ('a')")) == 1
        assert io(tx.get_last_insert_id()) == 1
        assert io(tx.execute_query("SELECT email FROM accounts")) == [{"email": "a"}]
        assert io(tx.execute_stored_procedure("find_account", ("a",)))[0]["id"] == 1

        def old_code(cursor: Any) -> Any:
            return (yield cursor.execute("INSERT INTO accounts (email) VALUES ('b')"))

        assert io(io.block(tx.cursor, old_code)()) == 1
    assert databases.value("global", "SELECT COUNT(*) FROM accounts") == 2


def test_a_transaction_is_used_once_and_inside_its_block(db: Any, io: IO) -> None:
    tx = db.transaction()
    with pytest.raises(InterfaceError, match="has not begun"):
        io(tx.query("SELECT 1"))
    with io.entered(tx):
        pass
    with pytest.raises(InterfaceError, match="is over"):
        io(tx.query("SELECT 1"))
    with pytest.raises(InterfaceError, match="used once"), io.entered(tx):
        pass


def test_an_error_that_the_block_handles_leaves_the_rest(
    db: Any, io: IO, databases: Databases
) -> None:
    with io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        with pytest.raises(Exception, match="no more"):
            io(tx.call("insert_and_fail", (2,)))
        io(tx.execute(INSERT, (3,)))
    assert users(databases) == [1, 2, 3]


def test_after_a_deadlock_nothing_more_is_sent(db: Any, io: IO, databases: Databases) -> None:
    databases.run(
        1, "INSERT INTO trades (id, user_id, symbol, qty) VALUES (1, 1, 'A', 0), (2, 2, 'B', 0)"
    )
    update = "UPDATE trades SET qty = qty + 1 WHERE id = %s"
    outcome = []
    with pytest.raises(TransactionAborted), io.entered(db.shard(1).transaction()) as mine:
        io(mine.execute(update, (1,)))
        with driver_connection(databases) as other:
            with other.cursor() as cursor:
                # A transaction that has done more is not the victim: this one will be.
                cursor.execute("BEGIN")
                cursor.execute("UPDATE trades SET qty = qty + 1 WHERE id = 2")
                for _ in range(5):
                    cursor.execute("INSERT INTO trades (user_id, symbol, qty) VALUES (9, 'X', 0)")
                blocked = threading.Thread(
                    target=lambda: outcome.append(
                        cursor.execute("UPDATE trades SET qty = qty + 1 WHERE id = 1")
                    )
                )
                blocked.start()
                waiting = (
                    "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
                )
                io.wait_for(lambda: databases.run(1, waiting), every=0.15)
                with pytest.raises(Exception, match="[Dd]eadlock") as caught:
                    io(mine.execute(update, (2,)))
                assert caught.value.args[0] == 1213
                blocked.join()
            with pytest.raises(TransactionAborted, match="nothing more is sent"):
                io(mine.execute(INSERT, (7,)))
            with pytest.raises(TransactionAborted):
                io(db.shard(1).execute(INSERT, (8,)))
    assert outcome == [1]
    assert 7 not in users(databases)
    assert 8 not in users(databases)


def driver_connection(databases: Databases) -> Any:
    config = databases.config_of(1)
    return pymysql.connect(
        host=config.host,
        port=config.port,
        user=config.user,
        password=config.reveal_password(),
        database=config.database,
    )


def test_a_statement_that_commits_by_itself_does_not_leave_the_rest_unprotected(
    db: Any, io: IO, databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ZeroDivisionError), io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        io(tx.execute("CREATE TABLE IF NOT EXISTS ddl (a INT)"))
        io(tx.execute(INSERT, (2,)))
        raise ZeroDivisionError
    assert users(databases) == [1]
    assert "committed it" in caplog.text


def test_an_implicit_commit_sweeps_savepoints_away_and_says_so(
    db: Any, io: IO, databases: Databases
) -> None:
    with pytest.raises(TransactionAborted) as caught, io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        with pytest.raises(ZeroDivisionError), io.entered(tx.transaction()) as inner:
            io(inner.execute(INSERT, (2,)))
            io(inner.execute("CREATE TABLE IF NOT EXISTS ddl (a INT)"))
            io(inner.execute(INSERT, (3,)))
            raise ZeroDivisionError
    assert "swept this savepoint away" in str(caught.value.__cause__)
    assert users(databases) == [1, 2], "what DDL committed stays; what followed is rolled back"


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("commits", [True, False])
def test_a_procedure_that_ends_the_transaction_is_found_out(
    db: Any, io: IO, databases: Databases, commits: bool, fails: bool
) -> None:
    with pytest.raises(TransactionAborted), io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        with (
            pytest.raises(OperationalError, match="no more") if fails else contextlib.nullcontext()
        ):
            io(tx.call("end_and_fail", (commits, fails)))
        with pytest.raises(TransactionAborted, match="nothing more is sent"):
            io(tx.execute(INSERT, (2,)))
    assert users(databases) == ([1] if commits else [])


def test_a_transaction_that_a_failed_procedure_left_open_is_not_lent_on(
    databases: Databases, io: IO
) -> None:
    client = io.Client(databases.config_of(1, pool_size=1, max_overflow=0))
    with pytest.raises(OperationalError, match="no more"):
        io(client.call("begin_and_fail", (1,)))
    io(client.execute(INSERT, (2,)))
    assert users(databases) == [2]
    io(client.close_pool())


def test_what_is_open_inside_ends_with_the_outer_block(
    db: Any, io: IO, databases: Databases
) -> None:
    with io.entered(db.shard(1).transaction()) as tx:
        inner = tx.transaction()
        entered = io.entered(inner)
        entered.__enter__()
        io(inner.execute(INSERT, (1,)))
    with pytest.raises(InterfaceError, match="is over"):
        io(inner.execute(INSERT, (2,)))
    entered.__exit__(None, None, None)
    io(db.shard(1).execute(INSERT, (3,)))
    assert users(databases) == [1, 3]


def test_savepoints_of_several_callers_do_not_cross(db: Any, io: IO, databases: Databases) -> None:
    def cross(tx: Any) -> Any:
        """Open a savepoint in a transaction that another caller is in."""

        def body(inner: Any) -> Any:
            return (yield inner.execute(INSERT, (3,)))

        return io.block(tx.transaction, body)()

    with io.entered(db.shard(1).transaction()) as tx:
        with io.entered(tx.transaction()) as inner:
            io(inner.execute(INSERT, (1,)))
            with pytest.raises(ConcurrentUseError, match="savepoint"):
                io.in_other_caller(lambda: cross(tx))
        assert io.in_other_caller(lambda: cross(tx)) == 1
        io(db.shard(1).execute(INSERT, (2,)))
    assert users(databases) == [1, 2, 3]


def test_a_statement_that_was_interrupted_takes_the_transaction_with_it(
    db: Any, io: IO, databases: Databases
) -> None:
    with pytest.raises(TransactionAborted), io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        io.interrupted(lambda: tx.query("SELECT SLEEP(5)"))
        with pytest.raises(TransactionAborted, match="nothing more is sent"):
            io(tx.execute(INSERT, (2,)))
    assert users(databases) == []


def test_a_connection_that_dies_in_the_block_takes_the_transaction_with_it(
    db: Any, io: IO, databases: Databases
) -> None:
    with pytest.raises(TransactionAborted), io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        databases.run(1, f"KILL {io(tx.query_value('SELECT CONNECTION_ID()'))}")
        for _ in range(2):
            with pytest.raises(Exception, match="Lost|nothing more|gone away|killed"):
                io(tx.execute(INSERT, (2,)))
    assert users(databases) == []
    assert io(db.shard(1).query_value("SELECT 1")) == 1


def behind(io: IO, config: Any, proxy: FaultProxy, **more: Any) -> Any:
    """A client whose line goes through the proxy."""
    through = {"host": "127.0.0.1", "port": proxy.port, "ssl_mode": "disabled"}
    return io.Client(config.model_copy(update={**through, **more}))


def test_a_commit_whose_answer_is_lost_is_unknown(io: IO, databases: Databases) -> None:
    config = databases.config_of(1)
    with FaultProxy(config.host, config.port) as proxy:
        client = behind(io, config, proxy)
        with pytest.raises(OutcomeUnknown, match="COMMIT") as caught:
            with io.entered(client.transaction()) as tx:
                io(tx.execute(INSERT, (1,)))
                proxy.set(Fault("down", 0, "cut"))
        assert (caught.value.sent, caught.value.target) == (True, client.name)
        io(client.close_pool())


def test_a_session_that_ended_while_its_block_was_idle_has_committed_nothing(
    db: Any, io: IO, databases: Databases
) -> None:
    with pytest.raises(TransactionAborted) as caught, io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        databases.run(1, f"KILL {io(tx.query_value('SELECT CONNECTION_ID()'))}")
        io.wait_for(block_of(tx).begun.connection.is_stale)
    assert isinstance(caught.value.__cause__, ConnectionLost)
    assert (caught.value.retryable, caught.value.__cause__.sent) == (True, False)
    begun = []

    def body(tx: Any) -> Any:
        begun.append(1)
        yield tx.execute(INSERT, (2,))
        if len(begun) == 1:
            databases.run(1, f"KILL {(yield tx.query_value('SELECT CONNECTION_ID()'))}")
            while not block_of(tx).begun.connection.is_stale():
                yield client.query_value("SELECT SLEEP(0.01)")

    client = io.Client(databases.config_of(2))
    io(db.shard(1).run(io.function(body)))
    assert (len(begun), users(databases)) == (2, [2])
    io(client.close_pool())


def test_two_callers_in_one_transaction_are_told_so(db: Any, io: IO) -> None:
    with io.entered(db.transaction()) as tx:
        outcomes = io.concurrently([lambda: tx.query_value("SELECT SLEEP(0.2)")] * 3)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == [
        "ConcurrentUseError",
        "ConcurrentUseError",
        "int",
    ]
    assert any(isinstance(outcome, ConcurrentUseError) for outcome in outcomes)


def test_a_transaction_on_a_shard_that_is_away_is_refused(db: Any, io: IO) -> None:
    with (
        pytest.raises(RuntimeError, match="^Shard 9 not available: "),
        io.entered(db.shard(9).transaction()),
    ):
        raise AssertionError("entered")


def test_the_connection_comes_back_clean(databases: Databases, io: IO) -> None:
    client = io.Client(databases.config_of(1, pool_size=1, max_overflow=0))
    ids = set()
    for _ in range(3):
        with io.entered(client.transaction()) as tx:
            io(tx.execute(INSERT, (1,)))
            ids.add(io(tx.query_value("SELECT CONNECTION_ID()")))
        ids.add(io(client.query_value("SELECT CONNECTION_ID()")))
    assert len(ids) == 1, "one connection served all, and was not replaced"
    with io.entered(client.transaction()) as tx:
        io(tx.execute("SET autocommit = 0"))
    assert io(client.query_value("SELECT @@autocommit")) == 1
    io(client.close_pool())


def test_a_commit_marker_is_left_with_the_transaction(
    db: Any, io: IO, databases: Databases
) -> None:
    databases.run(1, "DROP TABLE IF EXISTS dualdb_commit")
    with io.entered(db.shard(1).transaction(commit_marker=True)) as tx:
        io(tx.execute(INSERT, (1,)))
        with io.entered(tx.transaction()) as inner:
            io(inner.execute(INSERT, (2,)))
        with (
            pytest.raises(InterfaceError, match="outermost"),
            io.entered(tx.transaction(commit_marker=True)),
        ):
            raise AssertionError("entered")
        io(tx.execute("CREATE TABLE IF NOT EXISTS made (a INT)"))
        io(tx.execute(INSERT, (3,)))
    with (
        pytest.raises(ZeroDivisionError),
        io.entered(db.shard(1).transaction(commit_marker=True)),
    ):
        raise ZeroDivisionError
    assert users(databases) == [1, 2, 3]
    assert (
        len({row["token"] for row in databases.run(1, "SELECT token FROM dualdb_commit")}) == 2
    ), "one before and one after the DDL"


ENDS = {
    "commits": "BEGIN COMMIT; START TRANSACTION; END",
    "rolls_back": "BEGIN ROLLBACK; START TRANSACTION; END",
    "works_on": (
        "BEGIN COMMIT; START TRANSACTION; INSERT INTO trades (user_id, symbol, qty) VALUES "
        "(8, 'A', 1); END"
    ),
    "shows_rows": (
        "BEGIN COMMIT; START TRANSACTION; INSERT INTO trades (user_id, symbol, qty) VALUES "
        "(8, 'A', 1); SELECT 1; END"
    ),
    "fails": (
        "BEGIN COMMIT; START TRANSACTION; INSERT INTO trades (user_id, symbol, qty) VALUES "
        "(8, 'A', 1); SIGNAL SQLSTATE '45000'; END"
    ),
    "undoes": "ROLLBACK TO SAVEPOINT mine",
}


@pytest.mark.parametrize("body", ENDS)
@pytest.mark.parametrize("marked", [False, True])
def test_a_procedure_that_begins_another_transaction_is_found_out(
    db: Any, io: IO, databases: Databases, body: str, marked: bool
) -> None:
    databases.run(1, f"DROP PROCEDURE IF EXISTS {body}", f"CREATE PROCEDURE {body}() {ENDS[body]}")
    with (
        pytest.raises(TransactionAborted),
        io.entered(db.shard(1).transaction(commit_marker=marked)) as tx,
    ):
        io(tx.execute("SAVEPOINT mine"))
        io(tx.execute(INSERT, (1,)))
        with pytest.raises(OperationalError) if body == "fails" else contextlib.nullcontext():
            io(tx.call(body) if marked else tx.query(f"CALL {body}()"))
        with pytest.raises(TransactionAborted, match="nothing more is sent"):
            io(tx.execute(INSERT, (2,)))
    assert users(databases) == ([] if body in ("rolls_back", "undoes") else [1])


def test_a_procedure_whose_text_cannot_be_decoded_is_watched_all_the_same(
    open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    bad = "SELECT _latin1 x'81' AS text"
    databases.run(
        1,
        "DROP PROCEDURE IF EXISTS bad_text",
        f"CREATE PROCEDURE bad_text() BEGIN COMMIT; START TRANSACTION; {bad}; END",
        "DROP PROCEDURE IF EXISTS only_text",
        f"CREATE PROCEDURE only_text() {bad}",
    )
    config = databases.config_of(1, charset="latin1", row_decoder="auto")
    client = io.Client(config)
    with io.entered(client.transaction()) as tx:
        with pytest.raises(UndecodableText):
            io(tx.call("only_text"))
        io(tx.execute(INSERT, (1,)))
    with pytest.raises(TransactionAborted), io.entered(client.transaction()) as tx:
        io(tx.execute(INSERT, (2,)))
        with pytest.raises(UndecodableText):
            io(tx.call("bad_text"))
        with pytest.raises(TransactionAborted):
            io(tx.execute(INSERT, (3,)))
    assert users(databases) == [1, 2]
    io(client.close_pool())


HIDDEN = [
    ("SET STATEMENT max_statement_time = 9 FOR COMMIT AND CHAIN", InterfaceError),
    ("SET STATEMENT max_statement_time = 9 FOR CALL commits()", TransactionAborted),
    ("IF 1 THEN COMMIT; START TRANSACTION; END IF", TransactionAborted),
    ("CASE WHEN 1 THEN COMMIT; START TRANSACTION; END CASE", TransactionAborted),
    ("FOR i IN 1 .. 1 DO COMMIT; START TRANSACTION; END FOR", TransactionAborted),
]


@pytest.mark.parametrize(("sql", "translated"), HIDDEN)
def test_a_commit_inside_another_statement_is_found_out(
    db: Any, io: IO, databases: Databases, sql: str, translated: Any
) -> None:
    if "MariaDB" not in databases.value(1, "SELECT VERSION()"):
        # MySQL has no such statements
        translated = InterfaceError if translated is InterfaceError else ProgrammingError
    databases.run(
        1, "DROP PROCEDURE IF EXISTS commits", f"CREATE PROCEDURE commits() {ENDS['commits']}"
    )
    with pytest.raises(translated), io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        io(tx.execute(sql))
        assert translated is TransactionAborted
    assert users(databases) == ([1] if translated is TransactionAborted else [])


def test_a_stream_after_a_cursor_that_was_not_read_to_its_end_has_its_own_rows(
    db: Any, io: IO, databases: Databases
) -> None:
    digits = " UNION ALL ".join([f"SELECT {number} AS n" for number in range(252)])
    databases.run(
        1,
        "DROP PROCEDURE IF EXISTS two_sets",
        f"CREATE PROCEDURE two_sets() BEGIN {digits}; SELECT 'of the CALL' AS a; END",
    )
    with io.entered(db.shard(1).transaction()) as tx:
        cursor = io.awaited(tx.cursor())
        io.awaited(cursor.execute("CALL two_sets()"))
        assert io.collect(tx.stream("SELECT 'of the stream' AS a")) == [{"a": "of the stream"}]
        assert io(tx.query_value("SELECT 'of the query'")) == "of the query"


def test_a_procedure_that_does_no_such_thing_is_left_alone(
    db: Any, io: IO, databases: Databases
) -> None:
    databases.run(
        1,
        "DROP PROCEDURE IF EXISTS busy",
        (
            "CREATE PROCEDURE busy() BEGIN SELECT 1; INSERT INTO trades (user_id, symbol, "
            "qty) VALUES (8, 'A', 1); SELECT 2; END"
        ),
    )
    with io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute("SET @mine = 1"))
        for number in range(3):
            io(tx.call("busy"))
            io(tx.query("SELECT * FROM trades"))
            io(tx.execute("CREATE TEMPORARY TABLE IF NOT EXISTS mine (a INT)"))
            io(tx.execute("DELETE FROM trades WHERE user_id = 8"))
            with io.entered(tx.transaction()):
                io(tx.execute(INSERT, (number,)))
            with contextlib.suppress(ZeroDivisionError), io.entered(tx.transaction()):
                io(tx.execute(INSERT, (9,)))
                raise ZeroDivisionError
    assert users(databases) == [0, 1, 2]


@pytest.mark.parametrize(
    "word",
    [
        "BEGIN",
        "start transaction read only",
        "/* so */ COMMIT",
        "ROLLBACK AND CHAIN",
        "ROLLBACK",
        "XA START 'a'",
    ],
)
def test_a_transaction_is_ended_by_its_block_alone(
    db: Any, io: IO, databases: Databases, word: str
) -> None:
    with io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        with pytest.raises(InterfaceError, match="inside a transaction"):
            io(tx.execute(word))
        io(tx.execute("SAVEPOINT mine"))
        io(tx.execute(INSERT, (2,)))
        io(tx.execute("ROLLBACK TO mine"))
    assert users(databases) == [1]


def test_what_follows_ddl_is_not_reported_as_the_whole(
    db: Any, io: IO, databases: Databases
) -> None:
    with pytest.raises(TransactionAborted) as caught, io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        io(tx.execute("/* so */ CREATE TABLE IF NOT EXISTS made (a INT)"))
        databases.run(1, f"KILL {io(tx.query_value('SELECT CONNECTION_ID()'))}")
        with pytest.raises(OperationalError) as lost:
            io(tx.execute(INSERT, (2,)))
        assert lost.value.retryable is False
    assert caught.value.retryable is False
    assert users(databases) == [1]


def test_a_block_inside_does_not_outlive_a_transaction_that_was_rolled_back(
    db: Any, io: IO, databases: Databases
) -> None:
    inner: Any = None
    with pytest.raises(ZeroDivisionError), io.entered(db.shard(1).transaction()) as tx:
        inner = io.entered(tx.transaction())
        inner.__enter__()
        io(tx.execute(INSERT, (1,)))
        raise ZeroDivisionError
    with pytest.raises(TransactionAborted):
        inner.__exit__(None, None, None)
    assert users(databases) == []


def test_what_is_said_through_a_cursor_is_not_the_next_borrower_s(
    databases: Databases, io: IO
) -> None:
    client = io.Client(databases.config_of(1, pool_size=1, max_overflow=0))
    with io.entered(client.transaction()) as tx:
        cursor = io.awaited(tx.cursor())
        io.awaited(cursor.execute("USE information_schema"))
        io.awaited(cursor.execute("SET @mine = 1"))
    assert io(client.query_one("SELECT DATABASE() AS d, @mine AS m")) == {
        "d": databases.config_of(1).database,
        "m": None,
    }
    io(client.close_pool())


@pytest.mark.slow
def test_twenty_callers_on_two_rows_all_succeed_with_the_right_sums(
    databases: Databases, io: IO
) -> None:
    databases.run(
        1,
        "DROP TABLE IF EXISTS sums",
        "CREATE TABLE sums (id INT PRIMARY KEY, n INT)",
        "INSERT INTO sums VALUES (1, 0), (2, 0)",
    )
    client = io.Client(databases.config_of(1, pool_size=20))
    begun = []

    def mover(first: int, second: int) -> Any:
        def body(tx: Any) -> Any:
            begun.append(1)
            yield tx.execute("UPDATE sums SET n = n + 1 WHERE id = %s", (first,))
            yield tx.query_value("SELECT SLEEP(0.005)")
            yield tx.execute("UPDATE sums SET n = n + 1 WHERE id = %s", (second,))
            return first

        return io.function(body)

    calls = [lambda ids=ids: client.run(mover(*ids), attempts=50) for ids in [(1, 2), (2, 1)] * 10]
    assert io.concurrently(calls) == [1, 2] * 10
    assert [row["n"] for row in databases.run(1, "SELECT n FROM sums ORDER BY id")] == [20, 20]
    assert len(begun) > 20, "there were deadlocks, or this proves nothing"
    io(client.close_pool())


@pytest.mark.parametrize("completion_type", ["CHAIN", "RELEASE"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_end_is_the_same_with_any_completion_type(
    databases: Databases, io: IO, completion_type: str, fails: bool
) -> None:
    client = io.Client(databases.config_of(1, pool_size=1, max_overflow=0))
    with contextlib.suppress(ZeroDivisionError), io.entered(client.transaction()) as tx:
        io(tx.execute(f"SET SESSION completion_type = '{completion_type}'"))
        io(tx.execute(INSERT, (1,)))
        if fails:
            raise ZeroDivisionError
    assert users(databases) == ([] if fails else [1])
    assert io(client.query_value("SELECT @@SESSION.completion_type")) == "NO_CHAIN"
    assert io(client.execute(INSERT, (2,))) == 1, "in no transaction"
    assert users(databases) == ([2] if fails else [1, 2])
    io(client.close_pool())


def test_what_is_no_conflict_is_not_begun_again(db: Any, io: IO, databases: Databases) -> None:
    begun, translated = [], []

    def body(tx: Any) -> Any:
        begun.append(1)
        tx.on_commit(lambda: translated.append("never"))
        yield tx.execute(INSERT, (1,))
        yield tx.execute("SELECT nonsense")

    with pytest.raises(OperationalError):
        io(db.shard(1).run(io.function(body)))
    assert (begun, translated, users(databases)) == ([1], [], [])


def test_a_connection_that_is_lost_before_commit_begins_it_again(
    db: Any, io: IO, databases: Databases
) -> None:
    begun, translated = [], []

    def body(tx: Any) -> Any:
        begun.append(1)
        tx.on_commit(lambda: translated.append("committed"))
        yield tx.execute(INSERT, (len(begun),))
        if len(begun) < 3:
            databases.run(1, f"KILL {(yield tx.query_value('SELECT CONNECTION_ID()'))}")
        yield tx.execute(INSERT, (9,))

    io(db.shard(1).run(io.function(body), commit_marker=True, isolation="read committed"))
    assert (users(databases), translated) == ([3, 9], ["committed"])
    begun.clear()
    with pytest.raises(ConnectionLost):
        io(db.shard(1).run(io.function(body), attempts=2))
    assert len(begun) == 2
    begun.clear()
    with pytest.raises(TransactionAborted), io.entered(db.shard(1).transaction()) as tx:
        with pytest.raises(ConnectionLost):
            io(tx.run(io.function(body)))
    assert len(begun) == 1, "only the whole can begin again"


def function_that_raises(io: IO, error: BaseException) -> Any:
    def fails(*_: Any) -> Any:
        raise error

    async def fails_in_a_task(*_: Any) -> Any:
        raise error

    return fails if io.name == "sync" else fails_in_a_task


def outcome_of(io: IO, call: Callable[[], Any]) -> Any:
    """What a call returns, or the exception that it raises, of whatever class."""
    if io.name == "sync":
        try:
            return call()
        except BaseException as error:
            return error

    async def attempt() -> Any:
        try:
            return await call()
        except BaseException as error:
            return error

    return io(attempt())


@pytest.mark.parametrize("cls", [StopIteration, StopAsyncIteration, GeneratorExit, KeyError])
@pytest.mark.parametrize("inside", [False, True])
def test_run_raises_what_its_function_raises(
    db: Any, io: IO, databases: Databases, cls: type, inside: bool
) -> None:
    error = cls("of the function")
    outer = io.entered(db.shard(1).transaction()) if inside else contextlib.nullcontext()
    with contextlib.suppress(TransactionAborted), outer:
        outcome = outcome_of(io, lambda: db.shard(1).run(function_that_raises(io, error)))
        if (io.name, cls) == ("async", StopIteration):
            # a coroutine cannot raise it: PEP 479
            assert isinstance(outcome, RuntimeError)
            outcome = outcome.__cause__
        assert outcome is error
        assert error.__cause__ is None
    assert db.stats()["global"].in_use == db.stats()[1].in_use == 0


def test_run_keeps_a_runtime_error_with_a_stop_iteration_for_its_cause(db: Any, io: IO) -> None:
    error = RuntimeError("of the function")
    error.__cause__ = StopIteration()
    outcome = outcome_of(io, lambda: db.shard(1).run(function_that_raises(io, error)))
    assert outcome is error


@pytest.mark.parametrize("cls", [StopIteration, StopAsyncIteration, GeneratorExit, SystemExit])
def test_a_hook_cannot_break_what_is_committed(
    db: Any, io: IO, databases: Databases, cls: type, caplog: pytest.LogCaptureFixture
) -> None:
    called: List[int] = []

    def fails() -> None:
        raise cls

    with io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        tx.on_commit(fails)
        tx.on_commit(lambda: called.append(1))
    assert (users(databases), called) == ([1], [1])
    assert f"the hook {fails!r} failed" in caplog.text


def test_what_is_to_be_done_after_the_commit(
    db: Any, io: IO, databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    translated: List[Any] = []

    def fails() -> None:
        raise ZeroDivisionError

    with io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        tx.on_commit(fails)
        tx.on_commit(lambda: translated.append(users(databases)))
        with io.entered(db.shard(1).transaction()) as inner:
            inner.on_commit(lambda: translated.append("inner"))
        with contextlib.suppress(ZeroDivisionError), io.entered(tx.transaction()) as undone:
            undone.on_commit(lambda: translated.append("undone"))
            raise ZeroDivisionError
        assert translated == []
    assert translated == [[1], "inner"]
    assert "ZeroDivisionError" in caplog.text


def test_how_a_transaction_is_opened(db: Any, io: IO, databases: Databases) -> None:
    shard = db.shard(1)
    with io.entered(shard.transaction(isolation="read committed")) as tx:
        assert io(tx.query_value("SELECT COUNT(*) FROM trades")) == 0
        databases.run(1, "INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1)")
        assert io(tx.query_value("SELECT COUNT(*) FROM trades")) == 1
    with io.entered(shard.transaction(snapshot=True)) as tx:
        databases.run(1, "INSERT INTO trades (user_id, symbol, qty) VALUES (2, 'A', 1)")
        assert io(tx.query_value("SELECT COUNT(*) FROM trades")) == 1, "as it was when it began"
    with io.entered(shard.transaction(read_only=True)) as tx, pytest.raises(ReadOnlyServer):
        io(tx.execute(INSERT, (3,)))
    assert io(shard.execute(INSERT, (4,))) == 1, "the next one is as ever"
    for wrong in (
        {"isolation": "SOME"},
        {"isolation": 1},
        {"commit_marker": True, "read_only": True},
    ):
        with pytest.raises(ParameterError):
            shard.transaction(**wrong)
    with (
        io.entered(shard.transaction()) as tx,
        pytest.raises(InterfaceError, match="outermost"),
        io.entered(tx.transaction(isolation="SERIALIZABLE")),
    ):
        raise AssertionError("entered")


def test_another_shard_inside_a_transaction_is_refused_unless_asked_for(
    db: Any, io: IO, databases: Databases
) -> None:
    with io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        calls: List[Callable[[], Any]] = [
            lambda: db.shard(2).query("SELECT 1"),
            lambda: db.session(session(2)).execute(INSERT, (2,)),
            lambda: db.call_shard_procedure(2, "buy", (2, "A", 1)),
            lambda: db.get_shard_client(2).execute_non_query(INSERT, (2,)),
        ]
        for call in calls:
            with pytest.raises(
                CrossShardError, match="shard 2 is another database than shard 1"
            ) as caught:
                io(call())
            assert isinstance(caught.value, RuntimeError)
        with pytest.raises(CrossShardError), io.entered(db.shard(2).transaction()):
            raise AssertionError("entered")
        assert io(db.query_value("SELECT 7")) == 7, "the global database may be asked"
        assert io(db.shard(1).execute(INSERT, (3,))) == 1
        with io.entered(tx.transaction()):
            assert io(db.session(session(1)).execute(INSERT, (4,))) == 1
        assert io.in_other_caller(lambda: db.shard(2).execute(INSERT, (5,))) == 1, (
            "others are not in it"
        )
    assert io(db.shard(2).execute(INSERT, (6,))) == 1
    with io.entered(db.shard(1).transaction(other_shards=True)):
        assert io(db.shard(2).execute(INSERT, (7,))) == 1
    with pytest.raises(ZeroDivisionError), io.entered(db.shard(1).transaction()):
        raise ZeroDivisionError
    with io.entered(db.transaction()):
        assert io(db.shard(2).execute(INSERT, (8,))) == 1
    assert (users(databases, 1), users(databases, 2)) == ([1, 3, 4], [5, 6, 7, 8])


@pytest.mark.parametrize(
    ("sql", "instead"),
    [
        ("BEGIN", r"transaction\(\)"),
        ("/* so */ start transaction", r"transaction\(\)"),
        ("COMMIT", r"transaction\(\)"),
        ("ROLLBACK", r"transaction\(\)"),
        ("SAVEPOINT a", "savepoint"),
        ("SET @a = 1, @@session.autocommit = 0", r"transaction\(\)"),
        ("LOCK TABLES trades WRITE", r"connection\(\)"),
        ("XA START 'a'", r"connection\(\)"),
    ],
)
def test_words_about_a_session_are_refused_outside_a_block(
    db: Any, io: IO, sql: str, instead: str
) -> None:
    calls: List[Callable[[], Any]] = [
        lambda: db.shard(1).execute(sql),
        lambda: db.execute_shard_query(1, sql),
        lambda: db.execute_global_query(sql),
        lambda: db.get_shard_client(1).execute_non_query(sql),
        lambda: db.shard(1).query(sql),
    ]
    for call in calls:
        with pytest.raises(InterfaceError, match=instead) as caught:
            io(call())
        assert caught.value.sent is not True
    with pytest.raises(InterfaceError, match=instead):
        io.collect(db.shard(1).stream(sql))
    with pytest.raises(Exception, match=instead):
        io(db.shards().execute(sql))
    assert io(db.shard(1).query_value("SELECT 7")) == 7
