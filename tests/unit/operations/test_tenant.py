"""The order of a tenant's tables, and rows as INSERT statements."""

import datetime
import decimal
from typing import List, Tuple

import pytest

from dualdb.operations import TableRows, TenantExport, TenantTable, inserts, tenant


@pytest.mark.parametrize(
    ("references", "expected"),
    [
        ([], ["a", "b", "c"]),
        ([("a", "b")], ["b", "c", "a"]),
        ([("a", "b"), ("b", "c")], ["c", "b", "a"]),
        ([("a", "a"), ("a", "other")], ["a", "b", "c"]),
        ([("a", "b"), ("b", "a")], ["c", "a", "b"]),
    ],
)
def test_parents_come_first(references: List[Tuple[str, str]], expected: List[str]) -> None:
    tables = [TenantTable(name, "k") for name in "abc"]
    assert [each.name for each in tenant.parents_first(tables, references)] == expected


def test_conditions_have_the_key() -> None:
    assert tenant.condition(TenantTable("t", "user`id"), "a'b") == "`user``id` = 'a\\'b'"
    assert tenant.condition(TenantTable("t", where="a = %(key)s OR b = %(key)s"), 7) == (
        "(a = 7 OR b = 7)"
    )


def test_rows_are_written_as_statements() -> None:
    day = datetime.date(2026, 1, 2)
    row = {"id": 1, "a`b": "it's", "n": None, "d": decimal.Decimal("1.50"), "day": day}
    assert inserts.insert_script("t", [row]) == (
        "INSERT INTO `t` (`id`, `a``b`, `n`, `d`, `day`) VALUES\n"
        "(1, 'it\\'s', NULL, 1.50, '2026-01-02');\n"
    )
    assert inserts.insert_script("t", []) == ""
    many = inserts.insert_script("t", [{"id": n} for n in range(250)])
    assert many.count("INSERT") == 3


def test_an_export_is_written_for_each_database() -> None:
    exported = TenantExport(
        7,
        1,
        (
            TableRows("users", "global", ({"id": 7},)),
            TableRows("trades", "shard", ({"id": 1}, {"id": 2})),
        ),
    )
    assert exported.rows == 3
    assert exported.to_sql() == "INSERT INTO `trades` (`id`) VALUES\n(1),\n(2);\n"
    assert "users" in exported.to_sql("global")
