"""The rows of a table in two databases, compared by hashes."""

from typing import Any, Iterator, List

import pytest

from dualdb import ParameterError
from dualdb.operations import RowDifference

#: They make and compare many tables.
pytestmark = pytest.mark.slow

TABLE = """CREATE TABLE sheet (
    id INT PRIMARY KEY, owner VARCHAR(20) CHARACTER SET latin1, amount DECIMAL(10,2),
    f FLOAT, d DOUBLE, day DATE, at DATETIME(6), ts TIMESTAMP NULL, b VARBINARY(20),
    e ENUM('x','y'), bits BIT(4), j JSON
)"""
PAIRS = "CREATE TABLE pairs (a INT, b VARCHAR(10) NOT NULL, v INT, PRIMARY KEY (a, b))"
ROW = (
    "({0}, 'é-{0}', {0}.50, {0}.1, 1e20, '2026-01-01', '2026-01-01 10:11:12.123456', "
    "'2026-01-01 10:11:12', 0x00FF, 'y', b'101', '{{\"a\": {0}}}')"
)
CLEAN = "DROP TABLE IF EXISTS sheet, pairs, keyless, odd"


@pytest.fixture
def tables(databases: Any) -> Iterator[Any]:
    rows = ", ".join(ROW.format(number) for number in range(1, 251))
    for shard in databases.ids:
        databases.run(shard, CLEAN, TABLE, PAIRS, f"INSERT INTO sheet VALUES {rows}")
        pairs = ", ".join(f"({a}, '{b}', {a})" for a in range(10) for b in "xyz")
        databases.run(shard, f"INSERT INTO pairs VALUES {pairs}")
    yield databases
    for shard in databases.ids:
        databases.run(shard, CLEAN)


def differences(report: Any) -> List[Any]:
    return [(each.key["id"], each.kind, each.columns) for each in report.differences]


def test_equal_tables_are_equal(db: Any, io: Any, tables: Any) -> None:
    seen: List[int] = []
    report = io(
        db.operations.check_rows(
            "sheet", between=(1, 2), chunk_rows=60, progress=lambda each: seen.append(each.rows)
        )
    )
    assert (report.ok, report.rows, report.chunks) == (True, 250, 5)
    assert seen == [60, 120, 180, 240, 250]
    assert io(db.operations.check_rows("pairs", between=(1, 2), chunk_rows=4)).ok


def test_values_that_changed_places_are_found(db: Any, io: Any, tables: Any) -> None:
    tables.run(
        2,
        "UPDATE sheet SET amount = 11.5 WHERE id = 10",
        "UPDATE sheet SET amount = 10.5 WHERE id = 11",
    )
    report = io(db.operations.check_rows("sheet", between=(1, 2), chunk_rows=100))
    assert (report.ok, report.differing_chunks) == (False, 1)
    assert differences(report) == [(10, "differs", ("amount",)), (11, "differs", ("amount",))]


@pytest.mark.parametrize(
    ("change", "columns"),
    [
        ("owner = NULL", ("owner",)),
        ("owner = ''", ("owner",)),
        ("owner = 'É-20'", ("owner",)),
        ("owner = 'é-20 '", ("owner",)),
        ("amount = 20.51", ("amount",)),
        ("f = 16777217", ("f",)),
        ("d = 1.00000000000001e20", ("d",)),
        ("at = '2026-01-01 10:11:12.123457'", ("at",)),
        ("ts = '2026-01-01 10:11:13'", ("ts",)),
        ("b = 0x00FE", ("b",)),
        ("e = 'x'", ("e",)),
        ("bits = b'100'", ("bits",)),
        ("j = '{\"a\": 21}'", ("j",)),
        ("owner = NULL, amount = NULL", ("owner", "amount")),
    ],
)
def test_every_kind_of_value_is_compared(
    db: Any, io: Any, tables: Any, change: str, columns: Any
) -> None:
    tables.run(2, f"UPDATE sheet SET {change} WHERE id = 20")
    report = io(db.operations.check_rows("sheet", between=(1, 2)))
    assert differences(report) == [(20, "differs", columns)]


def test_null_is_not_in_another_column(db: Any, io: Any, tables: Any) -> None:
    tables.run(1, "UPDATE sheet SET day = NULL, b = 'x' WHERE id = 5")
    tables.run(2, "UPDATE sheet SET day = NULL, b = NULL WHERE id = 5")
    report = io(db.operations.check_rows("sheet", between=(1, 2)))
    (found,) = report.differences
    assert found == RowDifference({"id": 5}, "differs", ("b",), {"b": b"x"}, {"b": None})


def test_rows_that_only_one_has_are_found_everywhere(db: Any, io: Any, tables: Any) -> None:
    tables.run(1, "DELETE FROM sheet WHERE id IN (1, 60, 61)")
    tables.run(2, "DELETE FROM sheet WHERE id IN (2, 250)")
    tables.run(2, f"INSERT INTO sheet VALUES {ROW.format(999)}")
    report = io(db.operations.check_rows("sheet", between=(1, 2), chunk_rows=20))
    found = {(each[0], each[1]) for each in differences(report)}
    assert found == {
        (1, "only right"), (60, "only right"), (61, "only right"), (999, "only right"),
        (2, "only left"), (250, "only left"),
    }  # fmt: skip


def test_a_key_of_two_columns_is_walked_along(db: Any, io: Any, tables: Any) -> None:
    tables.run(2, "UPDATE pairs SET v = 77 WHERE a = 4 AND b = 'y'")
    report = io(db.operations.check_rows("pairs", between=(1, 2), chunk_rows=2))
    (found,) = report.differences
    assert (found.key, found.left, found.right) == ({"a": 4, "b": "y"}, {"v": 4}, {"v": 77})
    assert report.rows == 30


def test_a_part_can_be_compared_and_gone_on_with(db: Any, io: Any, tables: Any) -> None:
    tables.run(2, "UPDATE sheet SET amount = 0 WHERE id IN (3, 200)")
    check = db.operations.check_rows
    report = io(check("sheet", between=(1, 2), where="id < %(most)s", params={"most": 100}))
    assert [each[0] for each in differences(report)] == [3]
    report = io(check("sheet", between=(1, 2), after=(100,), chunk_rows=50))
    assert [each[0] for each in differences(report)] == [200]
    report = io(check("sheet", between=(1, 2), chunk_rows=10, max_differences=1))
    assert (report.complete, [each[0] for each in differences(report)]) == (False, [3])
    report = io(check("sheet", between=(1, 2), columns=["id", "owner"]))
    assert report.ok


def test_time_zones_of_servers_do_not_matter(db: Any, io: Any, tables: Any) -> None:
    before = tables.value(2, "SELECT @@GLOBAL.time_zone")
    tables.run(2, "SET GLOBAL time_zone = '+05:00'")
    try:
        io(db.close_service())
        io(db.init_service())
        assert io(db.operations.check_rows("sheet", between=(1, 2))).ok
    finally:
        tables.run(2, f"SET GLOBAL time_zone = '{before}'")


def test_tables_that_cannot_be_compared_are_refused(db: Any, io: Any, tables: Any) -> None:
    tables.run(1, "CREATE TABLE keyless (a INT)", "CREATE TABLE odd (a INT PRIMARY KEY, b INT)")
    tables.run(2, "CREATE TABLE keyless (a INT)", "CREATE TABLE odd (a INT PRIMARY KEY, c INT)")
    for table, message in (
        ("nothing", "no table"),
        ("keyless", "no primary key"),
        ("odd", "other columns"),
    ):
        with pytest.raises(ParameterError, match=message):
            io(db.operations.check_rows(table, between=(1, 2)))
    assert io(db.operations.check_rows("odd", between=(1, 2), columns=["a"])).ok
    with pytest.raises(ParameterError, match="no column 'x'"):
        io(db.operations.check_rows("odd", between=(1, 2), columns=["x"]))
    with pytest.raises(ParameterError):
        io(db.operations.check_rows("sheet", between=(1, 9)))
