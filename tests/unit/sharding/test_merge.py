"""Merging prepared streams."""

from types import SimpleNamespace
from typing import Any, Dict, List

import pytest
from pymysql.constants import FIELD_TYPE

from dualdb import (
    InternalError,
    ParameterError,
    ScatterError,
)
from dualdb.errors import OperationalError
from dualdb.execution.steps import FetchRow, Gather
from dualdb.results import Column, Described, ScatterResult
from dualdb.sharding.calls import Policy
from dualdb.sharding.collation import Descending, Order, Padded, beyond
from dualdb.sharding.merge import BaseMerge, most, ordered


@pytest.mark.parametrize(
    ("terms", "found"),
    [
        ("a", [("a", False)]),
        ("-px, id", [("px", True), ("id", False)]),
        ("px DESC,id asc , x", [("px", True), ("id", False), ("x", False)]),
        (["-a", "b DESC"], [("a", True), ("b", True)]),
        (("a",), [("a", False)]),
        ("`a, ``b` desc, -`-`", [("a, `b", True), ("-", True)]),
        ("COUNT(*)", [("COUNT(*)", False)]),
    ],
)
def test_what_rows_are_ordered_by(terms: Any, found: Any) -> None:
    assert ordered(terms, what="order_by") == [Order(*each) for each in found]


@pytest.mark.parametrize(
    "terms",
    [
        "",
        " ",
        ",",
        "a,",
        "a,,b",
        "-a DESC",
        "a b",
        "a DESC ASC",
        "`a",
        ["a", 1],
        [""],
        7,
        None,
        {"a": 1},
    ],
)
def test_what_is_no_order(terms: Any) -> None:
    with pytest.raises(ParameterError, match="order_by"):
        ordered(terms, what="order_by")


def test_what_is_no_limit() -> None:
    assert (most(None), most(0), most(7)) == (None, 0, 7)
    for wrong in (-1, True, "7", 1.0):
        with pytest.raises(ParameterError):
            most(wrong)


class Shard:
    """A stream of prepared rows."""

    def __init__(self, rows: List[Any]) -> None:
        self.rows, self.left = rows, False

    def close(self) -> None:
        self.left = True


class Merge(BaseMerge[Any]):
    """A merge of prepared streams."""

    def _stream_class(self, route: Any, statement: Any, until: Any) -> Any:
        self.statement = statement
        return route


def merged(
    shards: Dict[int, Shard], *, order: str = "a", limit: Any = None, on_error: str = "raise"
) -> Any:
    def looked(probe: Any, until: Any, routes: Any) -> Any:
        yield from ()
        described = Described(
            {"a": None, **dict.fromkeys("bcdefg")},
            (Column("a", FIELD_TYPE.LONG, 0, 63, 0),) * 7,
        )
        return ScatterResult(dict.fromkeys(shards, described), {})

    policy = Policy(on_error)  # type: ignore[arg-type]
    scatter: Any = SimpleNamespace(
        routes=lambda: shards, reading=lambda route: route, ask=looked, policy=policy
    )
    merge = Merge(
        scatter, ("SELECT 1 AS a", None, False), ordered(order, what="order_by"), limit, None
    )
    return merge, list(rows_of(merge))


def rows_of(merge: Any) -> Any:
    def read(shard: Shard) -> Any:
        return shard.rows.pop(0) if shard.rows else None

    while True:
        plan, response = merge._next(), None
        try:
            while True:
                step = plan.send(response)
                steps = step.steps if isinstance(step, Gather) else (step,)
                answers = [read(each.stream) for each in steps if isinstance(each, FetchRow)]
                if isinstance(step, Gather):
                    response = answers
                elif isinstance(answers[0], Exception):
                    response = None
                    step = plan.throw(answers[0])
                else:
                    response = answers[0]
        except StopIteration as done:
            if done.value is None:
                return
            yield done.value


def shard(*numbers: Any) -> Shard:
    return Shard([number if isinstance(number, Exception) else {"a": number} for number in numbers])


def test_rows_are_taken_from_the_shard_that_has_the_first() -> None:
    merge, rows = merged({1: shard(1, 4, 4), 2: shard(None, 4, 9), 3: shard()})
    assert [row["a"] for row in rows] == [None, 1, 4, 4, 4, 9]
    assert merge.statement.text == "SELECT q.* FROM (\nSELECT 1 AS a\n) AS q ORDER BY q.`a`"
    assert repr(merge) == "<Merge, over>"
    merge, rows = merged({1: shard(4, 1), 2: shard(9, 4, None)}, order="A DESC", limit=3)
    assert [row["a"] for row in rows] == [9, 4, 4]
    assert merge.statement.text.endswith("ORDER BY q.`A` DESC LIMIT 3")


def test_after_the_limit_the_few_rows_on_their_way_are_read() -> None:
    shards = {1: shard(1, 3, 4), 2: shard(2, 5, 6)}
    merged(shards, limit=3)
    assert [each.rows for each in shards.values()] == [[], []]
    assert all(each.left for each in shards.values())
    many = {1: shard(*range(300))}
    merged(many, limit=200)
    assert len(many[1].rows) == 100


def test_an_order_that_is_not_known_is_never_passed_off_as_one() -> None:
    with pytest.raises(InternalError, match="shard 1 sorts .* in an unexpected order"):
        merged({1: shard(1, 3, 2), 2: shard(2, 5, 6)})
    assert not beyond([(0,), (1, 7), Descending((1, b"x"))])
    assert beyond([(1, b"x" * 100)])
    assert beyond([Descending((1, (Padded(b"x" * 100, b" "),)))])


def test_a_shard_that_fails() -> None:
    lost = OperationalError(2013, "lost")
    for on_error in ("raise", "partial"):
        with pytest.raises(ScatterError, match="1 of 2 shards failed: shard 2") as caught:
            merged({1: shard(1, 3), 2: shard(2, lost)}, on_error=on_error)
        assert caught.value.result.errors == {2: lost}
    with pytest.raises(ScatterError):
        merged({1: shard(1, 3), 2: shard(lost)})
    merge, rows = merged({1: shard(1, 3), 2: shard(lost)}, on_error="partial")
    assert (rows, merge.errors) == ([{"a": 1}, {"a": 3}], {2: lost})
