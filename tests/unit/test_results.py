"""The keys of a row."""

from types import SimpleNamespace
from typing import Any, List

import pytest

from dualdb.results import column_names


def fields(*names: str, table: str = "t") -> List[Any]:
    return [SimpleNamespace(name=name, table_name=table) for name in names]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (fields("a", "b"), ["a", "b"]),
        (fields("a", "a"), ["a", "t.a"]),
        (fields("a", "a", "a", "a"), ["a", "t.a", "t.t.a", "t.t.t.a"]),
        (fields("t.a", "a", "a"), ["t.a", "a", "t.t.a"]),
        (fields("a") + fields("a", table="u") + fields("a"), ["a", "u.a", "t.a"]),
        (fields("", "", table=""), ["", "."]),
        ([], []),
    ],
)
def test_columns_of_one_name(given: List[Any], names: List[str]) -> None:
    assert column_names(given) == names


def test_very_many_columns_of_one_name() -> None:
    names = column_names(fields(*["a"] * 65535, "t.a#500"))
    assert len(set(names)) == 65536
    assert names[100:103] == ["t." * 100 + "a", "t.a#102", "t.a#103"]
    assert names[-1] == "t.t.a#500"
    assert sum(map(len, names)) < 2_000_000
