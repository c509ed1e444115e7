"""Rows as they come."""

import contextlib
import gc
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import (
    ConcurrentUseError,
    DeadlineExceeded,
    OperationalError,
    OutcomeUnknown,
    ParameterError,
    ProgrammingError,
    ShardReadOnly,
    ShardUnavailable,
    TransactionAborted,
)

DIGITS = (
    "("
    + " UNION ALL ".join(["SELECT 0 AS d", *[f"SELECT {digit}" for digit in range(1, 10)]])
    + ")"
)
NUMBER = "a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d"
MANY = f"SELECT {NUMBER} AS n, REPEAT('x', 100) AS x FROM " + ", ".join(
    [f"{DIGITS} {letter}" for letter in "abcef"]
)


@pytest.fixture
def client(databases: Databases, io: IO) -> Any:
    made = io.Client(databases.config_of(1, pool_size=2, max_overflow=0, pool_timeout=5))
    yield made
    io(made.close_pool())


def busy(databases: Databases) -> int:
    found = (
        "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%REPEAT(%' AND "
        "info NOT LIKE '%processlist%'"
    )
    return int(databases.value(1, found))


def test_all_rows_come_and_the_connection_goes_back(
    client: Any, io: IO, databases: Databases
) -> None:
    first = io(client.query_value("SELECT CONNECTION_ID()"))
    rows = io.collect(client.stream(MANY + " LIMIT %s", (25_000,)))
    assert len({row["n"] for row in rows}) == 25_000
    assert rows[0].keys() == {"n", "x"}
    assert io.collect(client.stream("SELECT 1 AS a, 2 AS a FROM DUAL WHERE FALSE")) == []
    assert io.collect(client.stream("DO 1")) == []
    assert io(client.query_value("SELECT CONNECTION_ID()")) == first
    assert (client.stats().in_use, client.stats().opened) == (0, 1)


@pytest.mark.slow
def test_leaving_the_loop_frees_the_connection_and_ends_the_query(
    client: Any, io: IO, databases: Databases
) -> None:
    for _ in range(4):
        assert len(io.collect(client.stream(MANY), 3)) == 3
        gc.collect()
        assert io(client.query_value("SELECT 7")) == 7
    io.wait_for(lambda: busy(databases) == 0)
    io.wait_for(lambda: client.stats().in_use == 0)
    stream = client.stream(MANY)
    with io.entered(stream):
        io.collect(stream, 1)
    io.wait_for(lambda: client.stats().in_use == 0)
    assert io.collect(stream) == [], "it is over"


def test_errors_before_and_between_the_rows(client: Any, io: IO, databases: Databases) -> None:
    with pytest.raises(ParameterError):
        client.stream("SELECT %s", ())
    with pytest.raises(ProgrammingError):
        io.collect(client.stream("SELECT * FROM nowhere"))
    fails = f"SELECT n, (SELECT 1 UNION SELECT IF(n < 90000, 1, 2)) FROM ({MANY}) AS m"
    with pytest.raises(OperationalError) as caught:
        io.collect(client.stream(fails))
    assert caught.value.errno == 1242
    with pytest.raises(DeadlineExceeded):
        io.collect(client.stream("SELECT 1 UNION ALL SELECT SLEEP(20)", timeout=0.3))
    io.wait_for(lambda: client.stats().in_use == 0)
    assert io(client.query_value("SELECT 7")) == 7


def test_inside_a_transaction_it_is_part_of_it(client: Any, io: IO, databases: Databases) -> None:
    with io.entered(client.transaction()) as tx:
        io(tx.execute("INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1)"))
        for target in (tx, client):
            assert io.collect(target.stream("SELECT user_id FROM trades")) == [{"user_id": 1}]
        stream = tx.stream(MANY + " LIMIT 1000")
        io.collect(stream, 1)
        with pytest.raises(ConcurrentUseError):
            io(tx.query("SELECT 1"))
        assert len(io.collect(stream)) == 999
        assert io(tx.query_value("SELECT 7")) == 7
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == 1
    with pytest.raises(TransactionAborted), io.entered(client.transaction()) as tx:
        io(tx.execute("INSERT INTO trades (user_id, symbol, qty) VALUES (2, 'A', 1)"))
        stream = tx.stream(MANY)
        io.collect(stream, 1)
        stream.close()
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == 1


def test_a_stream_goes_where_a_call_goes(db: Any, io: IO, databases: Databases) -> None:
    assert io.collect(db.shard(1).stream("SELECT DATABASE() AS d")) == [
        {"d": databases.config_of(1).database}
    ]
    assert io.collect(db.stream("SELECT DATABASE() AS d")) == [
        {"d": databases.config_of("global").database}
    ]
    with pytest.raises(ShardUnavailable):
        io.collect(db.shard(9).stream("SELECT 1"))
    io(db.set_shard_status(1, "readonly"))
    assert io.collect(db.shard(1).stream("SELECT 7 AS n")) == [{"n": 7}]
    with pytest.raises(ShardReadOnly):
        io.collect(db.shard(1).stream("SELECT 7 AS n FOR UPDATE"))


@pytest.mark.slow
def test_a_million_rows_take_no_memory(databases: Databases, io: IO) -> None:
    config = databases.config_of(1)
    url = f"mysql://{config.user}:{config.reveal_password()}@{config.host}:{config.port}/{config.database}"
    million = f"SELECT n, x FROM ({MANY}) AS m, {DIGITS} AS g"
    sync = """
        for row in client.stream(SQL):
            count += 1
    """
    asynchronous = """
        import asyncio
        async def loop():
            global count
            async for row in client.stream(SQL):
                count += 1
            await client.close_pool()
        asyncio.run(loop())
    """
    client = "MySQLClient" if io.name == "sync" else "AsyncMySQLClient"
    loop = textwrap.dedent(sync if io.name == "sync" else asynchronous)
    program = f"""
        import resource
        from dualdb import AsyncMySQLClient, DatabaseConfig, MySQLClient
        SQL = {million!r}
        client = {client}(DatabaseConfig.from_url({url!r}))
        count = 0
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        {textwrap.indent(loop, "        ").strip()}
        print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    count, kilobytes = map(int, done.stdout.split())
    assert count == 1_000_000
    assert kilobytes < 20_000


def test_a_write_whose_connection_is_lost_while_its_rows_come_has_an_unknown_outcome(
    client: Any, io: IO, databases: Databases
) -> None:
    body = f"BEGIN INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1); {MANY}; END"
    databases.run(1, "DROP PROCEDURE IF EXISTS works", f"CREATE PROCEDURE works() {body}")
    stream = client.stream("CALL works()")
    with pytest.raises(OutcomeUnknown) as caught:
        io.next_row(stream)
        databases.run(1, f"KILL {stream._connection.session_id}")
        io.collect(stream)
    assert (caught.value.retryable, caught.value.sent) == (False, True)
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == 1


@pytest.mark.slow
def test_its_time_is_for_the_whole_loop_and_not_for_what_has_come(
    client: Any, io: IO, databases: Databases
) -> None:
    few = (
        f"SELECT {NUMBER} AS n FROM {DIGITS} a, {DIGITS} b, {DIGITS} c, {DIGITS} e, {DIGITS} "
        "f LIMIT 50"
    )
    stream = client.stream(few, timeout=0.5)
    io.next_row(stream)
    io.sleep(0.6)
    with pytest.raises(DeadlineExceeded):
        io.next_row(stream)
    io.wait_for(lambda: client.stats().in_use == 0)


@pytest.mark.slow
def test_one_that_nobody_reads_gives_its_connection_back_in_time(
    client: Any, io: IO, databases: Databases
) -> None:
    stream = client.stream(MANY, timeout=0.5)
    io.next_row(stream)
    assert client.stats().in_use == 1
    io.wait_for(lambda: client.stats().in_use == 0)
    io.wait_for(lambda: busy(databases) == 0)
    with pytest.raises(DeadlineExceeded):
        io.collect(stream)
    assert io.collect(stream) == [], "it is over"
    assert io(client.query_value("SELECT 7")) == 7


def test_it_is_named_where_it_is_in_the_way(client: Any, io: IO) -> None:
    with io.entered(client.transaction()) as tx:
        stream = tx.stream(MANY + " LIMIT 100")
        io.next_row(stream)
        with pytest.raises(ConcurrentUseError, match="a stream is being read"):
            io(tx.execute("DO 1"))
        assert len(io.collect(stream)) == 99


ENDS = {
    "sync": """
        from dualdb import DatabaseConfig, MySQLClient
        client = MySQLClient(DatabaseConfig.from_url({url!r}))
        rows = iter(client.stream({sql!r}))
        next(rows)
        held = client.lock("ends", timeout=0)
        held.__enter__()
        tx = client.transaction(timeout=60)
        tx.__enter__()
    """,
    "async": """
        import asyncio
        from dualdb import AsyncMySQLClient, DatabaseConfig
        client = AsyncMySQLClient(DatabaseConfig.from_url({url!r}))
        async def main():
            global rows, tx
            rows = client.stream({sql!r})
            await rows.__anext__()
            tx = client.transaction(timeout=60)
            await tx.__aenter__()
            await client.query("SELECT 1")
        asyncio.run(main())
    """,
}


def test_a_process_that_ends_with_one_open_ends_in_silence(io: IO, databases: Databases) -> None:
    config = databases.config_of(1)
    account = f"{config.user}:{config.reveal_password()}"
    url = f"mysql://{account}@{config.host}:{config.port}/{config.database}"
    program = textwrap.dedent(ENDS[io.name]).format(url=url, sql=MANY)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


#: What a statement does to its session, and what asks for what is left of it.
LEAVES = {
    "variable": ("CALL sets_a_variable()", "SELECT @left_behind", None),
    "variable before an error": ("CALL sets_and_fails()", "SELECT @left_behind", None),
    "lock before an error": ("CALL sets_and_fails()", "SELECT IS_USED_LOCK('left_behind')", None),
    "transaction before an error": ("CALL begins_and_fails()", "SELECT @@autocommit", 1),
    "character set": ("CALL sets_names()", "SELECT @@character_set_results", "utf8mb4"),
    "default database": ("USE information_schema", "SELECT DATABASE()", "dualdb_1"),
}


@pytest.mark.parametrize("row_decoder", ["auto", "driver"])
@pytest.mark.parametrize("kind", LEAVES)
def test_what_a_stream_s_statement_leaves_behind_is_nobody_else_s(
    databases: Databases, io: IO, kind: str, row_decoder: Any
) -> None:
    databases.run(
        1,
        *[
            f"DROP PROCEDURE IF EXISTS {name}"
            for name in ("sets_a_variable", "sets_and_fails", "begins_and_fails", "sets_names")
        ],
        "CREATE PROCEDURE sets_a_variable() SET @left_behind = 1",
        "CREATE PROCEDURE sets_and_fails() BEGIN SET @left_behind = 1; "
        "DO GET_LOCK('left_behind', 0); SIGNAL SQLSTATE '45000'; END",
        "CREATE PROCEDURE begins_and_fails() BEGIN START TRANSACTION; "
        "SELECT COUNT(*) FROM trades INTO @left_behind; SIGNAL SQLSTATE '45000'; END",
        "CREATE PROCEDURE sets_names() SET NAMES gbk",
    )
    statement, ask, expected = LEAVES[kind]
    client = io.Client(databases.config_of(1, pool_size=1, max_overflow=0, row_decoder=row_decoder))
    if kind == "default database":
        expected = io(client.query_value(ask))
    with contextlib.suppress(OperationalError):  # of a SIGNAL
        io.collect(client.stream(statement))
    assert io(client.query_value(ask)) == expected
    assert client.stats().in_use == 0
    assert databases.value(1, "SELECT COUNT(*) FROM information_schema.innodb_trx") == 0
    io(client.close_pool())


@pytest.mark.parametrize("row_decoder", ["auto", "driver"])
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT CAST('of another' AS SIGNED)",
        "DROP TABLE IF EXISTS of_another",
        "CALL warns()",
        "SELECT of_another",
    ],
)
def test_the_warnings_of_a_stream_are_nobody_else_s(
    databases: Databases, io: IO, statement: str, row_decoder: Any
) -> None:
    databases.run(
        1,
        "DROP PROCEDURE IF EXISTS warns",
        "CREATE PROCEDURE warns() SIGNAL SQLSTATE '01000' SET MESSAGE_TEXT = 'of another'",
    )
    client = io.Client(databases.config_of(1, pool_size=1, max_overflow=0, row_decoder=row_decoder))
    with contextlib.suppress(OperationalError):  # of a column that is not there
        io.collect(client.stream(statement))
    assert io(client.query("SHOW WARNINGS")) == []
    io(client.close_pool())


@pytest.mark.parametrize("row_decoder", ["auto", "driver"])
def test_no_parameter_is_sent_after_a_stream_changed_the_character_set(
    databases: Databases, io: IO, row_decoder: Any
) -> None:
    databases.run(
        1,
        "DROP PROCEDURE IF EXISTS sets_client",
        "CREATE PROCEDURE sets_client() BEGIN SELECT 1; SET NAMES gbk; END",
    )
    client = io.Client(databases.config_of(1, pool_size=1, max_overflow=0, row_decoder=row_decoder))
    text = "\u7e17' OR 1=1 -- "
    with pytest.raises(TransactionAborted), io.entered(client.transaction()) as tx:
        io.collect(tx.stream("CALL sets_client()"))
        io(tx.query("SELECT 1 FROM DUAL WHERE '1' = %s", (text,)))
    assert io(client.query_value("SELECT @@character_set_client")) == "utf8mb4"
    io(client.close_pool())
