"""Hashes of rows, as SQL, and what is compared outside of it."""

from typing import Any, List, Optional, Tuple

import pytest

from dualdb.operations import row_hashes
from dualdb.operations.row_hashes import Column


@pytest.mark.parametrize(
    ("column", "inside"),
    [
        (Column("a", "int"), "HEX(CAST(`a` AS CHAR))"),
        (Column("a", "decimal"), "HEX(CAST(`a` AS CHAR))"),
        (Column("a", "float"), "HEX(CAST(`a` * 1e0 AS CHAR))"),
        (Column("a", "varchar", "latin1"), "HEX(CONVERT(`a` USING utf8mb4))"),
        (Column("a", "json", None, is_json=True), "HEX(CONVERT(`a` USING utf8mb4))"),
        (Column("a", "varbinary"), "HEX(`a`)"),
        (Column("a", "bit"), "HEX(CAST(`a` + 0 AS CHAR))"),
        (Column("a", "timestamp"), "HEX(CAST(UNIX_TIMESTAMP(`a`) AS CHAR))"),
        (Column("a`b", "datetime"), "HEX(CAST(`a``b` AS CHAR))"),
    ],
)
def test_every_kind_of_column_is_encoded(column: Column, inside: str) -> None:
    assert row_hashes.encoded(column) == f"IFNULL(CONCAT('v', {inside}), 'n')"


@pytest.mark.parametrize(
    ("key", "after", "upto", "expected"),
    [
        (["a"], None, None, ("TRUE", [])),
        (["a"], (3,), None, ("(`a` >= %s AND ((`a` > %s)))", [3, 3])),
        (["a"], None, (5,), ("(`a` <= %s AND ((`a` <= %s)))", [5, 5])),
        (
            ["a", "b"],
            (1, 2),
            None,
            ("(`a` >= %s AND ((`a` > %s) OR (`a` = %s AND `b` > %s)))", [1, 1, 1, 2]),
        ),
        (
            ["a", "b"],
            None,
            (1, 2),
            ("(`a` <= %s AND ((`a` < %s) OR (`a` = %s AND `b` <= %s)))", [1, 1, 1, 2]),
        ),
    ],
)
def test_a_chunk_is_a_range_of_keys(
    key: List[str], after: Any, upto: Any, expected: Tuple[str, List[Any]]
) -> None:
    assert row_hashes.between(key, after, upto) == expected


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ('{"a": 1, "b": 2.50}', '{"b":2.5,"a":1}', True),
        ("1e2", "100.0", True),
        ('{"a": 1}', '{"a": 2}', False),
        ("[1, 2]", "[2, 1]", False),
        (None, None, True),
        (None, "null", False),
        ("not json", "not json", True),
        ("9007199254740993", "9007199254740992", False),
    ],
)
def test_json_is_compared_by_its_meaning(
    left: Optional[str], right: Optional[str], expected: bool
) -> None:
    assert row_hashes.same_json(left, right) is expected


def test_columns_that_differ_are_named() -> None:
    columns = [Column("a", "int"), Column("j", "json", None, is_json=True)]
    one, other = {"a": 1, "j": "[1,2]"}, {"a": 2, "j": "[1, 2]"}
    assert row_hashes.differing_columns(one, other, columns, parse_json=True) == ["a"]
    assert row_hashes.differing_columns(one, other, columns, parse_json=False) == ["a", "j"]
