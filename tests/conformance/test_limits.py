"""What a server's limits, types and names ask of a call."""

import datetime
from decimal import Decimal
from typing import Any, Callable, Iterator, List

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import Error, Out, PacketTooLarge, ParameterError

LIMIT = 1024 * 1024


@pytest.fixture
def client(databases: Databases, io: IO) -> Iterator[Any]:
    """A client whose sessions take packets of less than a megabyte."""
    before = databases.value(1, "SELECT @@GLOBAL.max_allowed_packet")
    databases.run(
        1,
        f"SET GLOBAL max_allowed_packet = {LIMIT}",
        "CREATE OR REPLACE TABLE files (id INT, content LONGTEXT)"
        if is_mariadb(databases)
        else "CREATE TABLE files (pk INT AUTO_INCREMENT PRIMARY KEY INVISIBLE, "
        "id INT, content LONGTEXT)",
    )
    made = io.Client(databases.config_of(1))
    yield made
    io(made.close_pool())
    databases.run(1, f"SET GLOBAL max_allowed_packet = {before}", "DROP TABLE files")


def is_mariadb(databases: Databases) -> bool:
    return "MariaDB" in databases.value(1, "SELECT VERSION()")


def statement(length: int) -> str:
    """Of so many bytes; it writes."""
    head, tail = "INSERT INTO files VALUES (1, '", "')"
    return head + "x" * (length - len(head) - len(tail)) + tail


def count(databases: Databases) -> Any:
    return databases.value(1, "SELECT COUNT(*) FROM files")


def test_the_longest_statement_is_taken_and_a_longer_one_is_not_sent(
    client: Any, databases: Databases, io: IO
) -> None:
    assert io(client.execute(statement(LIMIT - 2))) == 1
    session = io(client.query_value("SELECT CONNECTION_ID()"))
    calls: List[Callable[[], Any]] = [
        lambda: client.execute(statement(LIMIT - 1)),
        lambda: client.execute("INSERT INTO files VALUES (1, %s)", ("x" * LIMIT,)),
        lambda: client.query("SELECT %s", ("x" * LIMIT,)),
        lambda: client.call("p", ("x" * LIMIT,)),
        lambda: client.executemany("INSERT INTO files VALUES (%s, %s)", [(1, "x" * LIMIT)]),
    ]
    for call in calls:
        with pytest.raises(PacketTooLarge, match="max_allowed_packet") as caught:
            io(call())
        assert isinstance(caught.value, ParameterError)
        assert (caught.value.sent, caught.value.retryable) == (False, False)
    assert caught.value.rows == (0, 0)
    assert io(client.query_value("SELECT CONNECTION_ID()")) == session
    assert count(databases) == 1


def test_a_transaction_goes_on_without_the_statement_and_is_not_run_again(
    client: Any, databases: Databases, io: IO
) -> None:
    with io.entered(client.transaction()) as tx:
        io(tx.execute("INSERT INTO files VALUES (1, 'a')"))
        with pytest.raises(PacketTooLarge):
            io(tx.execute(statement(LIMIT)))
        io(tx.execute("INSERT INTO files VALUES (2, 'b')"))
    assert count(databases) == 2
    begun: List[int] = []

    def work(tx: Any) -> Any:
        begun.append(1)
        return tx.execute(statement(LIMIT))

    with pytest.raises(PacketTooLarge):
        io(client.run(work))
    assert len(begun) == 1


def test_a_stream_s_statement_is_measured(client: Any, io: IO) -> None:
    with pytest.raises(PacketTooLarge) as caught:
        io.collect(client.stream("SELECT %s", ("x" * LIMIT,)))
    assert caught.value.sent is False
    assert io(client.query_value("SELECT 1")) == 1


def test_executemany_takes_each_row_that_the_server_takes(
    client: Any, databases: Databases, io: IO
) -> None:
    longest = LIMIT - 2 - len("INSERT INTO files VALUES (1,'')")
    lengths = [3, longest, 5, LIMIT // 2, LIMIT // 2, 7]
    rows = [(number, "x" * length) for number, length in enumerate(lengths[:1])]
    rows += [(1, "x" * length) for length in lengths[1:]]
    assert io(client.executemany("INSERT INTO files VALUES (%s,%s)", rows)) == len(rows)
    found = io(client.query_column("SELECT LENGTH(content) FROM files"))
    assert sorted(found) == sorted(lengths)


def test_a_changed_limit_is_that_of_later_sessions(
    client: Any, databases: Databases, io: IO
) -> None:
    """After a reset the variable tells of the new limit, and the old one is kept."""
    single = io.Client(
        databases.config_of(1).model_copy(update={"pool_size": 1, "max_overflow": 0})
    )
    assert io(single.execute(statement(LIMIT - 2))) == 1
    databases.run(1, f"SET GLOBAL max_allowed_packet = {2 * LIMIT}")
    fresh = io.Client(databases.config_of(1))
    assert io(fresh.execute(statement(2 * LIMIT - 2))) == 1
    io(fresh.close_pool())
    io(single.execute("SET @a = 1"))
    assert io(single.query_value("SELECT @a")) is None, "it has been reset"
    with pytest.raises(PacketTooLarge):
        io(single.execute(statement(LIMIT)))
    rows = [(number, "x" * 200_000) for number in range(12)]
    assert io(single.executemany("INSERT INTO files VALUES (%s, %s)", rows)) == 12
    io(single.close_pool())


def test_the_server_is_asked_once_in_a_session_and_for_long_statements_alone(
    client: Any, databases: Databases, io: IO
) -> None:
    def asked() -> int:
        """Statements of the session, without this one."""
        return int(io(client.query("SHOW SESSION STATUS LIKE 'Questions'"))[0]["Value"])

    before = asked()
    io(client.execute(statement(4_000)))
    assert asked() - before == 2
    io(client.execute(statement(100_000)))
    assert asked() - before == 5
    io(client.execute(statement(100_000)))
    io(client.executemany("INSERT INTO files VALUES (%s, %s)", [(1, "a"), (2, "b")]))
    assert asked() - before == 8


@pytest.mark.parametrize("row_decoder", ["auto", "python", "driver"])
def test_a_vector_is_bytes(databases: Databases, io: IO, row_decoder: str) -> None:
    if is_mariadb(databases):
        pytest.skip("MariaDB 11.7 and MySQL 9 have VECTOR")
    config = databases.config_of(1).model_copy(update={"row_decoder": row_decoder})
    client = io.Client(config)
    databases.run(
        1,
        "CREATE TABLE vec (id INT AUTO_INCREMENT PRIMARY KEY, v VECTOR(3), w VECTOR(2))",
        "INSERT INTO vec VALUES (1, STRING_TO_VECTOR('[1, 2.5, -3]'), NULL)",
    )
    try:
        value = bytes.fromhex("0000803f 00002040 000040c0".replace(" ", ""))
        assert io(client.query("SELECT * FROM vec")) == [{"id": 1, "v": value, "w": None}]
        assert io.collect(client.stream("SELECT v FROM vec")) == [{"v": value}]
        assert io(client.execute("INSERT INTO vec (v) VALUES (%s)", (value,))) == 1
    finally:
        databases.run(1, "DROP TABLE vec")
        io(client.close_pool())


def test_out_values_have_their_types(db: Any, databases: Databases, io: IO) -> None:
    databases.run(
        1,
        "CREATE PROCEDURE moments(OUT a DATE, OUT b TIME, OUT c DATETIME(6), INOUT d TIMESTAMP, "
        "OUT e VARCHAR(20), OUT f DECIMAL(5, 2), OUT g DATE, IN h INT) "
        "SELECT '2024-02-29', '-12:30:00', '2024-02-29 23:59:59.000001', '2000-01-01 00:00:00', "
        "'2024-02-29', 1.5, NULL INTO a, b, c, d, e, f, g",
    )
    try:
        params = (*[Out(name) for name in "abcdefg"], 1)
        assert io(db.shard(1).call("moments", params)).out == {
            "a": datetime.date(2024, 2, 29),
            "b": -datetime.timedelta(hours=12, minutes=30),
            "c": datetime.datetime(2024, 2, 29, 23, 59, 59, 1),
            "d": datetime.datetime(2000, 1, 1),
            "e": "2024-02-29",
            "f": Decimal("1.50"),
            "g": None,
        }
        schema = databases.config_of(1).database
        with io.entered(db.shard(1).transaction()) as tx:
            out = io(tx.call(f"{schema}.moments", params)).out
        assert out["a"] == datetime.date(2024, 2, 29)
    finally:
        databases.run(1, "DROP PROCEDURE moments")


NAMES = {
    "end of day": "end of day",
    "1st": "1st",
    "절차": "절차",
    "a$b": "a$b",
    "a-b": "a-b",
    "we`ird": "we`ird",
    "`end.of(day)`": "end.of(day)",
    "`tick``s`": "tick`s",
    "it_is_%s": "it_is_%s",
}


@pytest.mark.parametrize("name", list(NAMES))
def test_a_procedure_that_exists_can_be_called(
    db: Any, databases: Databases, io: IO, name: str
) -> None:
    quoted = "`" + NAMES[name].replace("`", "``") + "`"
    schema = databases.config_of(1).database
    databases.run(1, f"CREATE PROCEDURE {quoted}(IN a INT, OUT b INT) SELECT a + 1 INTO b")
    try:
        for called in (name, f"{schema}.{name}", f"`{schema}`.{name}"):
            assert io(db.shard(1).call(called, (1, Out("b")))).out == {"b": 2}
            # the server says that it is no variable, and the catalogue which
            io(db.shard(1).call(called, (1, None)))
    finally:
        databases.run(1, f"DROP PROCEDURE {quoted}")


def test_a_schema_that_exists_can_be_called(databases: Databases, io: IO) -> None:
    client = io.Client(databases.config_of(1))
    for call in ("no such schema.p", "no such.`p`"):
        with pytest.raises(Error, match="no such"):
            io(client.call(call))
    io(client.close_pool())


def test_a_cursor_that_is_lent_takes_the_same_values(db: Any, io: IO) -> None:
    values = (
        b"\x00\xff'",
        bytearray(b"ab"),
        "it's \\ \U0001f600",
        None,
        True,
        7,
        1.5,
        Decimal("1.50"),
        datetime.date(2024, 2, 29),
        datetime.datetime(2024, 2, 29, 1, 2, 3),
        datetime.timedelta(hours=-1),
    )
    marks = ", ".join(["%s"] * len(values))

    async def asynchronously() -> Any:
        async with db.shard(1).connection() as raw, raw.cursor() as cursor:
            await cursor.execute(f"SELECT {marks}", values)
            row = await cursor.fetchone()
            await cursor.execute("SELECT 2 IN %s, HEX(%s)", ((1, 2), b"\xfe"))
            return row, await cursor.fetchone()

    def synchronously() -> Any:
        with db.shard(1).connection() as raw, raw.cursor() as cursor:
            cursor.execute(f"SELECT {marks}", values)
            row = cursor.fetchone()
            cursor.execute("SELECT 2 IN %s, HEX(%s)", ((1, 2), b"\xfe"))
            return row, cursor.fetchone()

    row, other = io(asynchronously() if io.name == "async" else synchronously())
    assert row[:7] == (b"\x00\xff'", b"ab", "it's \\ \U0001f600", None, 1, 7, Decimal("1.5"))
    assert other == (1, "FE")
