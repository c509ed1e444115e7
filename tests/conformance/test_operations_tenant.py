"""A tenant's rows: read, written elsewhere, deleted."""

import json
from typing import Any, Iterator, List

import pytest

from dualdb import ParameterError
from dualdb.operations import TenantTable

#: They make and compare many tables.
pytestmark = pytest.mark.slow

SCHEMA = [
    "CREATE TABLE buyer (id INT PRIMARY KEY, name VARCHAR(20), photo BLOB, born DATE)",
    """CREATE TABLE bill (
        id INT PRIMARY KEY, buyer_id INT NOT NULL, amount DECIMAL(8,2), at DATETIME(6),
        twice DECIMAL(9,2) AS (amount * 2) STORED, FOREIGN KEY (buyer_id) REFERENCES buyer (id)
    )""",
    """CREATE TABLE line (
        bill_id INT, no INT, what VARCHAR(20), PRIMARY KEY (bill_id, no),
        FOREIGN KEY (bill_id) REFERENCES bill (id)
    )""",
    "CREATE TABLE visit (buyer_id INT, page VARCHAR(20))",
]
TABLES = [
    TenantTable("line", where="bill_id IN (SELECT id FROM bill WHERE buyer_id = %(key)s)"),
    TenantTable("bill", "buyer_id"),
    TenantTable("visit", "buyer_id"),
    TenantTable("buyer", "id"),
    TenantTable("accounts", "id", on="global"),
]
CLEAN = "DROP TABLE IF EXISTS line, bill, visit, buyer"


@pytest.fixture
def shop(open_service: Any, databases: Any) -> Iterator[Any]:
    """A service whose keys 1 to 4 are on shards 2 and 1."""
    for shard in databases.ids:
        databases.run(shard, CLEAN, *SCHEMA)
        for key in (each for each in range(1, 5) if each % 2 + 1 == shard):
            databases.run(
                shard,
                f"INSERT INTO buyer VALUES ({key}, 'it''s %{key}', 0x00FF27, '2000-01-01')",
                "INSERT INTO bill (id, buyer_id, amount, at) VALUES "
                f"({key}1, {key}, 1.25, '2026-01-01 00:00:00.5'), ({key}2, {key}, 2, NULL)",
                f"INSERT INTO line VALUES ({key}1, 1, 'a'), ({key}1, 2, NULL), ({key}2, 1, 'b')",
                f"INSERT INTO visit VALUES ({key}, 'x'), ({key}, 'x'), ({key}, NULL)",
            )
    values = ", ".join(f"({key}, 'user{key}@x', {key % 2 + 1})" for key in range(1, 5))
    databases.run("global", f"INSERT INTO accounts (id, email, shard_id) VALUES {values}")
    yield open_service(shard_of_key=lambda key: key % 2 + 1)
    for shard in databases.ids:
        databases.run(shard, CLEAN)


def counts(databases: Any, shard: int) -> List[int]:
    names = ("buyer", "bill", "line", "visit")
    return [databases.value(shard, f"SELECT COUNT(*) FROM {name}") for name in names]


@pytest.mark.parametrize("chunk_rows", [1, 2, 1000])
def test_all_rows_are_read_those_referred_to_first(shop: Any, io: Any, chunk_rows: int) -> None:
    exported = io(shop.operations.tenant_export(3, TABLES, chunk_rows=chunk_rows))
    assert (exported.key, exported.shard_id, exported.rows) == (3, 2, 10)
    by_name = {each.table: each for each in exported.tables}
    assert len(by_name["line"].rows) == 3
    names = [each.table for each in exported.tables]
    assert names.index("buyer") < names.index("bill") < names.index("line")
    assert "twice" not in by_name["bill"].rows[0]
    assert by_name["accounts"].rows[0]["email"] == "user3@x"


def test_an_export_can_be_written_elsewhere_and_is_the_same(
    shop: Any, io: Any, databases: Any
) -> None:
    operations = shop.operations
    exported = io(operations.tenant_export(3, TABLES))
    script = exported.to_sql()
    report = io(operations.sql(script, shards=1))
    assert report.ok, report.databases[0].error
    for table, where in (
        ("buyer", "id = 3"),
        ("bill", "buyer_id = 3"),
        ("line", "bill_id DIV 10 = 3"),
    ):
        found = io(operations.check_rows(table, between=(1, 2), where=where))
        assert (found.ok, found.rows > 0) == (True, True)


def as_json(exported: Any) -> Any:
    return json.loads(json.dumps(exported.to_dict()))


@pytest.mark.parametrize("form", [as_json, lambda exported: exported], ids=["json", "report"])
def test_what_was_exported_and_purged_is_imported(
    shop: Any, io: Any, databases: Any, form: Any
) -> None:
    ops = shop.operations
    databases.run(
        2,
        "CREATE TABLE kinds (buyer_id INT, id INT PRIMARY KEY, t TIME(3), f FLOAT, d DOUBLE, "
        "b BIT(9), y YEAR, v VARBINARY(9), g JSON, e ENUM('a', 'b'), s TEXT, z DECIMAL(20, 5))",
        "INSERT INTO kinds VALUES (3, 1, '-27:01:02.5', 0.25, 1e-9, 300, 2026, 0x00ff, "
        "'{\"a\": [1]}', 'b', 'it''s %s \\\\ é', 123456789012345.12345), "
        "(3, 2, '838:59:59', NULL, 1e300, 0, NULL, '', NULL, NULL, '', -1)",
        "UPDATE kinds SET id = 0 WHERE id = 1",
    )
    try:
        tables = [*TABLES, TenantTable("kinds", "buyer_id")]
        exported = io(ops.tenant_export(3, tables))
        io(ops.tenant_purge(3, tables))
        planned = io(ops.tenant_import(form(exported), dry_run=True))
        assert (planned.inserted, planned.dry_run) == (12, True)
        assert counts(databases, 2) == [1, 2, 3, 3]
        done = io(ops.tenant_import(form(exported)))
        assert (done.key, done.shard_id, done.inserted) == (3, 2, 12)
        assert io(ops.tenant_export(3, tables)) == exported
        assert io(ops.tenant_import(form(exported))).inserted == 0, "nor what has no key"
        assert io(ops.tenant_export(3, tables)) == exported
    finally:
        databases.run(2, "DROP TABLE kinds")


def test_an_import_goes_on_and_never_overwrites(shop: Any, io: Any, databases: Any) -> None:
    ops = shop.operations
    exported = io(ops.tenant_export(3, TABLES))
    databases.run("global", "DELETE FROM accounts WHERE id = 3")
    done = io(ops.tenant_import(as_json(exported)))
    assert {each.table: each.inserted for each in done.tables if each.inserted} == {"accounts": 1}
    io(ops.tenant_purge(3, TABLES))
    databases.run(2, "INSERT INTO buyer VALUES (3, 'another', NULL, NULL)")
    with pytest.raises(ParameterError, match="another row id=3 in 'buyer'"):
        io(ops.tenant_import(as_json(exported)))
    assert counts(databases, 2) == [2, 2, 3, 3], "nothing of it was written"


def test_an_import_to_another_shard(shop: Any, io: Any, databases: Any) -> None:
    exported = io(shop.operations.tenant_export(3, TABLES))
    done = io(shop.operations.tenant_import(exported, shard_id=1))
    assert (done.shard_id, done.inserted) == (1, 9)
    assert counts(databases, 1) == [3, 6, 9, 9]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "no export"),
        ([], "no export"),
        ({"key": 3, "tables": 1}, "no export"),
        ({"key": 3, "tables": [{"table": "buyer", "on": "x", "rows": []}]}, "not 'x'"),
        ({"key": 3, "tables": [{"table": "nothing", "on": "shard", "rows": []}]}, "no table"),
        ({"key": 3, "tables": [{"table": "buyer", "on": "shard", "rows": [{"x": 1}]}]}, "column"),
        (
            {"key": 3, "tables": [{"table": "buyer", "on": "shard", "rows": [{"id": 1}, {}]}]},
            "the same columns",
        ),
        ({"key": 3, "tables": [{"table": "buyer", "on": "shard", "rows": [1]}]}, "no export"),
        (
            {
                "key": 3,
                "tables": [
                    {"table": "buyer", "on": "shard", "rows": [{"id": 9, "photo": "zz"}]},
                ],
            },
            "hexadecimal",
        ),
    ],
)
def test_a_wrong_export_is_refused(shop: Any, io: Any, document: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        io(shop.operations.tenant_import(document))


def test_all_rows_are_deleted_and_no_others(shop: Any, io: Any, databases: Any) -> None:
    purge = shop.operations.tenant_purge
    planned = io(purge(3, TABLES, dry_run=True))
    assert (planned.deleted, planned.dry_run) == (0, True)
    assert {each.table: each.found for each in planned.tables} == {
        "line": 3, "bill": 2, "visit": 3, "buyer": 1, "accounts": 1,
    }  # fmt: skip
    before = counts(databases, 1)
    done = io(purge(3, TABLES, chunk_rows=2))
    assert (done.deleted, done.shard_id) == (10, 2)
    assert counts(databases, 2) == [1, 2, 3, 3]
    assert counts(databases, 1) == before
    assert databases.value("global", "SELECT COUNT(*) FROM accounts") == 3
    assert io(purge(3, TABLES)).deleted == 0


def test_what_was_left_on_another_shard_is_deleted_there(
    shop: Any, io: Any, databases: Any
) -> None:
    databases.run(1, "INSERT INTO buyer VALUES (3, 'left', NULL, NULL)")
    done = io(shop.operations.tenant_purge(3, TABLES, shard_id=1))
    assert (done.deleted, done.shard_id) == (1, 1)
    assert counts(databases, 2)[0] == 2
    assert databases.value("global", "SELECT COUNT(*) FROM accounts") == 4


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([], "no table"),
        ([TenantTable("buyer")], "either key_column or where"),
        ([TenantTable("buyer", "id", where="id = %(key)s")], "either key_column or where"),
        ([TenantTable("buyer", where="TRUE")], "no %\\(key\\)s"),
        ([TenantTable("buyer", "id", on="x")], "on 'shard' or 'global'"),
        ([TenantTable("buyer", "id"), TenantTable("buyer", "id")], "twice"),
        ([TenantTable("nothing", "id")], "no table 'nothing'"),
    ],
)
def test_descriptions_that_are_wrong_are_refused(
    shop: Any, io: Any, databases: Any, tables: Any, message: str
) -> None:
    before = counts(databases, 2)
    for call in (shop.operations.tenant_export, shop.operations.tenant_purge):
        with pytest.raises(ParameterError, match=message):
            io(call(3, tables))
    assert counts(databases, 2) == before
