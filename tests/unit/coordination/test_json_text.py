"""Values that JSON holds, and those that it would change."""

import datetime
from typing import Any

import pytest

from dualdb import ParameterError
from dualdb.coordination.json_text import encoded
from dualdb.results import RowCount


class Loop(list):  # type: ignore[type-arg]
    """A list that has itself in it."""

    def __repr__(self) -> str:
        return "a loop"


LOOP = Loop()
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        ((1, (2,)), "[1, [2]]"),
        ({"a": {"b": [1.5, None]}}, '{"a": {"b": [1.5, null]}}'),
        ("é\n", '"\\u00e9\\n"'),
        (RowCount(3, 9), "3"),
        ([], "[]"),
        ({}, "{}"),
    ],
)
def test_what_comes_back_equal_is_taken(value: Any, text: str) -> None:
    assert encoded(value, "it") == text


@pytest.mark.parametrize(
    "value",
    [
        b"a",
        {1, 2},
        datetime.date(2026, 1, 1),
        float("inf"),
        float("nan"),
        {1: "a"},
        {True: "a"},
        {None: "a"},
        {1.5: "a"},
        {(1, 2): "a"},
        [{"a": [{2: 1}]}],
        LOOP,
        object,
    ],
    ids=repr,
)
def test_what_would_come_back_changed_is_refused(value: Any) -> None:
    with pytest.raises(ParameterError, match="the thing must be what JSON can hold"):
        encoded(value, "the thing")
