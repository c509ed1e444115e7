"""Rows as Arrow tables and frames: values, types, order, memory, errors."""

import datetime
from decimal import Decimal
from typing import Any

import pyarrow
import pytest

import dualdb
from dualdb import errors

pytestmark = pytest.mark.slow

COLUMNS = {
    "tiny": "TINYINT",
    "big": "BIGINT",
    "huge": "BIGINT UNSIGNED",
    "money": "DECIMAL(12, 3)",
    "wide": "DECIMAL(60, 5)",
    "single": "FLOAT",
    "number": "DOUBLE",
    "name": "VARCHAR(50)",
    "data": "VARBINARY(10)",
    "day": "DATE",
    "moment": "DATETIME(6)",
    "span": "TIME(3)",
    "kind": "ENUM('a', 'b')",
    "doc": "JSON",
    "bits": "BIT(4)",
    "annum": "YEAR",
}
ROW = {
    "tiny": -5,
    "big": -(2**63),
    "huge": 2**64 - 1,
    "money": Decimal("-123456789.125"),
    "wide": Decimal("1" * 55 + ".12345"),
    "single": 0.5,
    "number": 1e300,
    "name": "größe 🙂",
    "data": b"\x00\xff",
    "day": datetime.date(2024, 2, 29),
    "moment": datetime.datetime(2024, 2, 29, 12, 30, 15, 123456),
    "span": -datetime.timedelta(hours=800, milliseconds=125),
    "kind": "b",
    "doc": '{"a": 1}',
    "bits": b"\x05",
    "annum": 2024,
}


@pytest.fixture
def typed(databases: Any) -> Any:
    definition = ", ".join(f"`{name}` {kind}" for name, kind in COLUMNS.items())
    databases.run(1, "DROP TABLE IF EXISTS typed", f"CREATE TABLE typed ({definition})")
    yield databases
    databases.run(1, "DROP TABLE typed")


def fill(databases: Any, shard_id: int, count: int) -> None:
    values = ", ".join(f"({number}, 'S{shard_id}', {number})" for number in range(count))
    databases.run(shard_id, f"INSERT INTO trades (user_id, symbol, qty) VALUES {values}")


def test_values_of_every_type_are_the_same(db: Any, call: Any, typed: Any) -> None:
    names = ", ".join(f"`{name}`" for name in COLUMNS)
    marks = ", ".join(["%s"] * len(COLUMNS))
    for row in (tuple(ROW.values()), (None,) * len(ROW)):
        call(db.shard(1).execute(f"INSERT INTO typed ({names}) VALUES ({marks})", row))
    table = call(db.shard(1).to_arrow("SELECT * FROM typed"))
    expected = call(db.shard(1).query("SELECT * FROM typed"))
    assert table.to_pylist() == expected
    assert expected[0] == {**ROW, "doc": expected[0]["doc"]}
    types = {field.name: str(field.type) for field in table.schema}
    assert types["huge"] == "uint64"
    assert types["money"] == "decimal128(38, 3)"
    assert types["wide"] == "decimal256(76, 5)"
    assert types["span"] == "duration[us]"
    assert types["data"] == types["bits"] == "binary"


def test_types_do_not_depend_on_the_rows(db: Any, call: Any, typed: Any) -> None:
    empty = call(db.shard(1).to_arrow("SELECT * FROM typed"))
    call(db.shard(1).execute("INSERT INTO typed () VALUES ()"))
    assert empty.num_rows == 0
    assert call(db.shard(1).to_arrow("SELECT * FROM typed")).schema == empty.schema
    assert not any(str(field.type) == "null" for field in empty.schema)


def test_several_shards_are_one_table(db: Any, call: Any, databases: Any) -> None:
    fill(databases, 1, 3)
    fill(databases, 2, 2)
    sql = "SELECT symbol, qty FROM trades WHERE qty >= %s ORDER BY id"
    table = call(db.shards().to_arrow(sql, (1,), shard_column="shard"))
    assert table.to_pylist() == [
        {"symbol": "S1", "qty": 1, "shard": 1},
        {"symbol": "S1", "qty": 2, "shard": 1},
        {"symbol": "S2", "qty": 1, "shard": 2},
    ]
    frame = call(db.shards().to_pandas(sql, (1,)))
    assert frame["qty"].sum() == 4
    assert call(db.shards().to_polars(sql, (1,)))["qty"].sum() == 4


def test_batches_are_of_the_size_that_was_asked_for(db: Any, io: Any, databases: Any) -> None:
    fill(databases, 1, 250)
    fill(databases, 2, 10)
    batches = io.collect(db.shards().arrow_batches("SELECT qty FROM trades", batch_rows=100))
    assert [batch.num_rows for batch in batches] == [100, 100, 50, 10]
    assert pyarrow.Table.from_batches(batches)["qty"].to_pylist() == [*range(250), *range(10)]


def test_a_loop_that_is_left_frees_its_connection(db: Any, io: Any, databases: Any) -> None:
    fill(databases, 1, 400)
    batches = db.shard(1).arrow_batches(
        "SELECT REPEAT('x', 1000) AS x FROM trades a CROSS JOIN trades b", batch_rows=10
    )
    with io.entered(batches):
        assert io(io.advance(batches)).num_rows == 10
        assert db.stats()[1].in_use == 1
    io.wait_for(lambda: db.stats()[1].in_use == 0)
    assert io.collect(batches) == []


def test_it_is_part_of_a_transaction(db: Any, io: Any, databases: Any) -> None:
    with io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute("INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 7)"))
        assert io(tx.to_arrow("SELECT qty FROM trades"))["qty"].to_pylist() == [7]


def test_errors(db: Any, call: Any, databases: Any) -> None:
    with pytest.raises(dualdb.OperationalError) as one:
        call(db.shard(2).to_arrow("SELECT nothing FROM trades"))
    assert one.value.shard_id == 2
    with pytest.raises(dualdb.ScatterError) as both:
        call(db.shards().to_arrow("SELECT nothing FROM trades"))
    assert sorted(both.value.result.errors) == [1, 2]
    with pytest.raises(errors.ParameterError):
        db.shards(on_error="partial").arrow_batches("SELECT 1")
    with pytest.raises(errors.ParameterError):
        db.arrow_batches("SELECT 1", batch_rows=0)
    with pytest.raises(errors.ParameterError):
        db.arrow_batches("SELECT %s", ())
    databases.run(
        1,
        "SET sql_mode = ''",
        "CREATE TABLE zero_days (day DATE)",
        "INSERT INTO zero_days VALUES ('0000-00-00')",
    )
    with pytest.raises(errors.RowError, match="column 'day'") as wrong:
        call(db.shard(1).to_arrow("SELECT day FROM zero_days"))
    databases.run(1, "DROP TABLE zero_days")
    assert wrong.value.columns == ("day",)
