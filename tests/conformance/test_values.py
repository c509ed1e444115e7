"""This package's reader of answers gives what the drivers give, from real servers."""

import random
from typing import Any, Callable, List

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import RowError, UndecodableText
from dualdb.protocol import compiled_decoder

#: Kinds of columns that both MariaDB and MySQL have, and expressions for their values.
COLUMNS = {
    "TINYINT": ["-128", "127", "0"],
    "TINYINT(1)": ["TRUE", "FALSE"],
    "SMALLINT UNSIGNED": ["65535", "0"],
    "MEDIUMINT": ["-8388608", "8388607"],
    "INT(8) UNSIGNED ZEROFILL": ["7", "4294967295"],
    "BIGINT UNSIGNED": ["18446744073709551615", "0"],
    "BIGINT": ["-9223372036854775808", "1"],
    "FLOAT": ["1.5e-30", "-3.25", "16777217"],
    "DOUBLE": ["1.7976931348623157e308", "-0.1", "5e-324", "-0e0"],
    "DECIMAL(65,30)": ["-12345678901234567890123456789012345.123456789012345678901234567890", "0"],
    "DECIMAL(5,0)": ["99999", "-1"],
    "YEAR": ["1901", "2155", "0"],
    "DATE": ["'2024-02-29'", "'0000-00-00'", "'2024-00-10'", "'9999-12-31'", "'0001-01-01'"],
    "DATETIME": ["'2024-02-29 23:59:59'", "'0000-00-00'", "'1000-01-01 00:00:00'"],
    "DATETIME(6)": ["'2024-02-29 23:59:59.000001'", "'0000-00-00'", "'9999-12-31 23:59:59.999999'"],
    "DATETIME(1)": ["'2024-02-29 23:59:59.9'"],
    "DATETIME(3)": ["'2024-02-29 23:59:59.007'"],
    "TIMESTAMP(2) NULL": ["'2024-02-29 12:00:00.25'"],
    "TIME": ["'-838:59:59'", "'838:59:59'", "'00:00:00'", "'-00:00:01'", "'12:34:56'"],
    "TIME(6)": ["'-838:59:58.999999'", "'00:00:00.000001'"],
    "TIME(2)": ["'01:02:03.45'", "'100:00:00'"],
    "BIT(1)": ["b'1'", "b'0'"],
    "BIT(64)": ["~0", "1"],
    "CHAR(10)": ["'x'", "''", "'ä'"],
    "CHAR(10) BINARY": ["'Ü'"],
    "VARCHAR(300)": ["'日本語'", "REPEAT('y', 250)", "REPEAT('y', 251)", "'😀'", "''"],
    "VARCHAR(20) CHARACTER SET latin1": ["'Grüße'"],
    "BINARY(4)": ["x'00FF'", "''"],
    "VARBINARY(300)": ["x'FBFCFDFEFF'", "REPEAT('z', 252)"],
    "TINYTEXT": ["'tiny'"],
    "TEXT": ["REPEAT('é', 30000)", "''"],
    "LONGTEXT": ["REPEAT('l', 70000)"],
    "BLOB": ["x'00'", "REPEAT('b', 65535)"],
    "MEDIUMBLOB": ["REPEAT(x'FF', 200000)"],
    "ENUM('a', 'ü', '')": ["'a'", "'ü'", "''"],
    "SET('x', 'y')": ["'x,y'", "''"],
    "JSON": ['\'{"a": [1, "é", null]}\'', "'[]'"],
    "GEOMETRY": ["ST_GeomFromText('POINT(1 -2)')", "ST_GeomFromText('LINESTRING(0 0, 1 1, 2 2)')"],
}
#: What both servers offer and Python knows; of the others most speak of one of these.
CHARSETS = [
    "utf8mb4",
    "utf8mb3",
    "latin1",
    "latin2",
    "cp1251",
    "koi8r",
    "greek",
    "sjis",
    "cp932",
    "ujis",
    "gbk",
    "euckr",
    "big5",
    "ascii",
]


def kinds(rows: Any) -> List[Any]:
    return [[(name, type(value), repr(value)) for name, value in row.items()] for row in rows]


@pytest.fixture
def values(databases: Databases, seed: int) -> List[str]:
    """A table with every kind of column; the names of the columns."""
    columns = [f"c{number}" for number in range(len(COLUMNS))]
    declared = ", ".join([f"{name} {kind}" for name, kind in zip(columns, COLUMNS)])
    databases.run(
        "global",
        "DROP TABLE IF EXISTS vals",
        f"CREATE TABLE vals (id INT PRIMARY KEY, {declared}) CHARACTER SET utf8mb4",
    )
    spread = random.Random(seed)
    rows = []
    for number in range(12):
        chosen = [
            spread.choice([*texts, "NULL"]) if number > 5 else texts[number % len(texts)]
            for texts in COLUMNS.values()
        ]
        rows.append(f"INSERT INTO vals VALUES ({number}, {', '.join(chosen)})")
    databases.run("global", "SET SESSION sql_mode = ''", *rows)
    return columns


@pytest.mark.slow
@pytest.mark.parametrize("charset", CHARSETS)
def test_every_value_is_the_drivers_in_every_charset(
    values: Any, databases: Databases, open_service: Callable[..., Any], io: IO, charset: str
) -> None:
    *own, driver = [
        open_service(
            databases.config.model_copy(update={"charset": charset, "row_decoder": row_decoder})
        )
        for row_decoder in ("auto", "python", "driver")
    ]
    sql = "SELECT * FROM vals ORDER BY id"
    expected = kinds(io(driver.query(sql)))
    for reader in (*own, driver):
        assert kinds(io(reader.query(sql))) == expected
        assert kinds(io.collect(reader.stream(sql))) == expected
    for name in values:
        sql = f"SELECT {name}, id, {name} AS again FROM vals"
        expected = kinds(io(driver.query(sql)))
        assert [kinds(io(reader.query(sql))) for reader in own] == [expected] * 2


def test_the_status_says_what_decodes_rows(
    databases: Databases, open_service: Callable[..., Any]
) -> None:
    for choice, name in [
        ("auto", "compiled" if compiled_decoder.AVAILABLE else "python"),
        ("python", "python"),
        ("driver", "driver"),
    ]:
        db = open_service(databases.config.model_copy(update={"row_decoder": choice}))
        assert db.status().row_decoder == name


@pytest.mark.parametrize("row_decoder", ["auto", "python", "driver"])
def test_either_reader_does_what_a_call_can_do(
    databases: Databases, open_service: Callable[..., Any], io: IO, row_decoder: str
) -> None:
    databases.run(1, "INSERT INTO trades VALUES (1, 7, 'A', 2), (2, 7, 'B', 3)")
    db = open_service(databases.config.model_copy(update={"row_decoder": row_decoder}))
    result = io(db.shard(1).call("portfolio", (7,)))
    assert [each.columns for each in result.sets] == [
        ("ErrorCode", "trades"),
        ("symbol", "qty"),
        ("id",),
    ]
    assert [len(each.rows) for each in result.sets] == [1, 2, 0]
    count = io(db.shard(1).execute("INSERT INTO trades (user_id, symbol, qty) VALUES (8, 'C', 1)"))
    assert (count, count.lastrowid) == (1, 3)
    assert io(db.shard(1).query("SELECT id, qty AS id FROM trades ORDER BY 1 LIMIT 1")) == [
        {"id": 1, "trades.id": 2}
    ]


@pytest.mark.slow
def test_rows_of_more_than_a_packet_and_very_many_columns(
    databases: Databases, open_service: Callable[..., Any], io: IO
) -> None:
    before = databases.value("global", "SELECT @@GLOBAL.max_allowed_packet")
    databases.run("global", f"SET GLOBAL max_allowed_packet = {64 * 1024 * 1024}")
    try:
        db = open_service()
        sizes = [0xFFFFFF - 4, 0xFFFFFF - 5, 0xFFFFFF, 40_000_000]
        rows = io(
            db.query(
                " UNION ALL ".join(
                    [f"SELECT REPEAT('x', {size}) AS a, {size} AS n" for size in sizes]
                )
            )
        )
        assert [(len(row["a"]), row["a"].strip("x")) for row in rows] == [
            (row["n"], "") for row in rows
        ]
        assert [row["n"] for row in rows] == sizes
    finally:
        databases.run("global", f"SET GLOBAL max_allowed_packet = {before}")
    many = ", ".join([f"{number} AS c{number}" for number in range(1000)])
    assert io(db.query(f"SELECT {many}")) == [{f"c{number}": number for number in range(1000)}]


def test_a_converter_set_on_a_cursor_is_honoured(db: Any, io: IO) -> None:
    with io.entered(db.shard(1).transaction()) as tx:
        assert type(io(tx.query_value("SELECT 9000000000"))) is int
        connection = io.awaited(tx.cursor()).connection
        connection.decoders = {**connection.decoders, 8: float}
        assert type(io(tx.query_value("SELECT 9000000000"))) is float


#: A character of MySQL's latin1 that Python's has not.
UNDECODABLE = "SELECT 1 AS id, 'a' AS text UNION SELECT 2, _latin1 x'81' UNION SELECT 3, 'b'"


@pytest.mark.parametrize("row_decoder", ["auto", "python"])
def test_a_text_that_cannot_be_decoded_costs_nothing_else(
    databases: Databases, open_service: Callable[..., Any], io: IO, row_decoder: str
) -> None:
    config = databases.config.model_copy(
        update={"charset": "latin1", "row_decoder": row_decoder, "pool_size": 1, "max_overflow": 0}
    )
    db = open_service(config)
    session = io(db.query_value("SELECT CONNECTION_ID()"))
    calls: List[Callable[[], Any]] = [
        lambda: io(db.query(UNDECODABLE)),
        lambda: io(db.query(UNDECODABLE, as_=tuple)),
        lambda: io.collect(db.stream(UNDECODABLE)),
    ]
    for call in calls:
        with pytest.raises(UndecodableText) as caught:
            call()
        assert (caught.value.row, caught.value.columns) == (1, ("text",))
        assert (caught.value.target, caught.value.sent) == ("global", True)
    assert io(db.query_value("SELECT CONNECTION_ID()")) == session
    with io.entered(db.transaction()) as tx:
        io(tx.execute("INSERT INTO accounts (email) VALUES ('kept')"))
        calls = [
            lambda: io(tx.query(UNDECODABLE)),
            lambda: io.collect(tx.stream(UNDECODABLE)),
        ]
        for call in calls:
            with pytest.raises(UndecodableText):
                call()
    assert io(db.query_column("SELECT email FROM accounts")) == ["kept"]


def test_a_text_that_the_driver_cannot_decode_is_an_error_in_the_tree(
    databases: Databases, open_service: Callable[..., Any], io: IO
) -> None:
    config = databases.config.model_copy(update={"charset": "latin1", "row_decoder": "driver"})
    db = open_service(config)
    calls: List[Callable[[], Any]] = [
        lambda: io(db.query(UNDECODABLE)),
        lambda: io.collect(db.stream(UNDECODABLE)),
    ]
    for call in calls:
        with pytest.raises(RowError, match="not in the connection's character set"):
            call()
    assert io(db.query_value("SELECT 1")) == 1


def test_very_many_columns_of_one_name(db: Any, io: IO) -> None:
    rows = io(db.query("SELECT " + ",".join(["1"] * 2000), as_=tuple))
    assert rows == [(1,) * 2000]
    row = io(db.query_one("SELECT " + ",".join(["NULL"] * 2000)))
    assert len(row) == 2000


def test_the_first_long_statement_of_a_session_may_ask_for_tuples(
    databases: Databases, open_service: Callable[..., Any], io: IO
) -> None:
    db = open_service(databases.config.model_copy(update={"pool_size": 1, "max_overflow": 0}))
    long = "x" * 100_000
    assert io(db.query("SELECT %s AS text", (long,), as_=tuple)) == [(long,)]
    with io.entered(db.shard(1).transaction()) as tx:
        assert io(tx.query("SELECT %s AS text", (long,), as_=tuple)) == [(long,)]
