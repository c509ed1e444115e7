"""Totals of prepared responses."""

import decimal
from typing import Any, Dict, List, Optional

import pytest
from pymysql.constants import FIELD_TYPE

from dualdb import Avg, Count, DataError, Max, Min, ParameterError, Sum
from dualdb.results import Column, Described, ResultSet, ScatterResult
from dualdb.sharding.aggregates import AggregateQuery, _sum, quotient

D = decimal.Decimal
TEXT = ["utf8mb4_general_ci", 1, b"\0 ", b"\0 ", b"\0 ", b"\0 "]


@pytest.mark.parametrize(
    ("total", "number", "total_scale", "scale", "mean"),
    [
        ("2", 3, 0, 4, "0.6667"),
        ("-2", 3, 0, 4, "-0.6667"),
        ("1", 8, 0, 4, "0.1250"),
        ("0.0001", 8, 4, 8, "0.00001250"),
        # nine digits are one word; further ones are cut off
        ("0.00002", 3, 5, 9, "0.000006666"),
        ("0.000002", 3, 6, 10, "6.667E-7"),
        ("0", 3, 2, 6, "0.000000"),
        ("9" * 60, 1, 0, 4, "9" * 60 + ".0000"),
    ],
)
def test_an_average_is_cut_and_rounded_as_the_server_does(
    total: str, number: int, total_scale: int, scale: int, mean: str
) -> None:
    assert str(quotient(D(total), number, total_scale, scale, 4)) == mean


def totals(
    rows: Dict[int, List[List[Any]]],
    columns: List[Column],
    probed: List[Any],
    group_by: Any = (),
    sent: Optional[List[str]] = None,
    **aggregates: Any,
) -> Any:
    """Compute totals of prepared responses.

    Args:
        rows: The partial results of each shard.
        columns: The definitions of the probed columns, the same on all shards.
        probed: The values of these columns.
        group_by: The groups.
        sent: Receives the statements.
        aggregates: The aggregates.
    """

    def ask_all(statement: Any, until: Any) -> Any:
        yield from ()
        if sent is not None:
            sent.append(" ".join(statement.text.split()))
        if statement.describes:
            row = {str(number): value for number, value in enumerate(probed)}
            return ScatterResult(
                {shard_id: Described(row, tuple(columns)) for shard_id in rows}, {}
            )
        sets = {
            shard_id: [
                ResultSet(
                    [{str(number): value for number, value in enumerate(row)} for row in found],
                    (),
                    0,
                    0,
                    0,
                )
            ]
            for shard_id, found in rows.items()
        }
        return ScatterResult(sets, {})

    query = AggregateQuery(("SELECT 1 AS a", None, False), group_by, aggregates)
    plan = query.plan(ask_all, None)
    try:
        next(plan)
    except StopIteration as done:
        return done.value
    raise AssertionError("an unexpected step")


def test_sums_beyond_what_python_rounds_to() -> None:
    column = Column("0", FIELD_TYPE.NEWDECIMAL, 0, 63, 2)
    big = D("9" * 50 + ".25")
    assert totals({1: [[big]], 2: [[D("0.25")]], 3: [[None]]}, [column], [None, 4], s=Sum("a")) == [
        {"s": D("9" * 50 + ".50")}
    ]
    assert totals({1: [[None]], 2: [[None]]}, [column], [None, 4], s=Sum("a")) == [{"s": None}]
    mean = [Column("0", FIELD_TYPE.NEWDECIMAL, 0, 63, 6), column]
    assert totals(
        {1: [[D("1.00"), 1]], 2: [[D("1.00"), 2]]}, mean, [None, None, 4], m=Avg("a")
    ) == [{"m": D("0.666667")}]
    floating = Column("0", FIELD_TYPE.DOUBLE, 0, 63, 31)
    assert totals({1: [[0.1]], 2: [[0.2]]}, [floating], [None, 4], s=Sum("a")) == [
        {"s": pytest.approx(0.3)}
    ]
    with pytest.raises(ParameterError, match="s has a type that cannot be summed"):
        totals({1: [[0.1]]}, [Column("0", FIELD_TYPE.BLOB, 0, 63, 0)], [None, 4], s=Sum("a"))


def test_groups_that_are_equal_are_one() -> None:
    column = Column("0", FIELD_TYPE.VAR_STRING, 0, 45, 0)
    columns = [column, *[column] * 6, column, *[column] * 6]
    probed = [None, *TEXT, None, *TEXT, 4]
    rows: Dict[int, List[List[Any]]] = {
        2: [["A ", b"\0A\0 ", 2, "x", b"\0X"], [None, None, 1, None, None]],
        1: [["a", b"\0A", 3, "w", b"\0W"], ["B", b"\0B", 1, "z", b"\0Z"]],
    }
    found = totals(rows, columns, probed, group_by="g", n=Count(), top=Max("s"))
    assert found == [
        {"g": None, "n": 1, "top": None},
        {"g": "a", "n": 5, "top": "x"},
        {"g": "B", "n": 1, "top": "z"},
    ]


def test_without_shards_there_is_nothing_to_count() -> None:
    assert totals({}, [], [], n=Count(), s=Sum("a"), top=Max("a")) == [
        {"n": 0, "s": None, "top": None}
    ]
    assert totals({}, [], [], group_by="g", n=Count()) == []


def test_each_aggregate_has_its_own_columns() -> None:
    """A column of another type, such as those of the probes, could not be summed."""
    text = Column("0", FIELD_TYPE.VAR_STRING, 0, 45, 0)
    number = Column("0", FIELD_TYPE.LONG, 0, 63, 0)
    exact = Column("0", FIELD_TYPE.NEWDECIMAL, 0, 63, 2)
    mean = Column("0", FIELD_TYPE.NEWDECIMAL, 0, 63, 6)
    columns = [text, *[text] * 6, number, *[text] * 6, exact, mean, exact, number, *[text] * 6]
    probed = [None, *TEXT, None, *[None] * 6, None, None, None, None, *[None] * 6, 4]
    rows: Dict[int, List[List[Any]]] = {
        1: [["a", b"\0A", 1, D("1.00"), D("1.00"), 1, 7]],
        2: [["A", b"\0A", 1, D("2.50"), D("2.50"), 2, 5], ["a", b"\0A", 0, None, None, 0, None]],
    }
    sent: List[str] = []
    found = totals(rows, columns, probed, ["g", "h"], sent, s=Sum("x"), m=Avg("x"), low=Min("y"))
    assert found == [
        {"g": "a", "h": 0, "s": None, "m": None, "low": None},
        {"g": "a", "h": 1, "s": D("3.50"), "m": D("1.166667"), "low": 5},
    ]
    _, query = sent
    assert query == (
        "SELECT q.`g` AS dualdb_0, WEIGHT_STRING(q.`g`) AS dualdb_1, q.`h` AS dualdb_2, "
        "SUM(x) AS dualdb_3, SUM(x) AS dualdb_4, COUNT(x) AS dualdb_5, MIN(y) AS dualdb_6 "
        "FROM ( SELECT 1 AS a ) AS q GROUP BY q.`g`, q.`h`"
    )


def test_invalid_arguments_are_refused() -> None:
    query = ("SELECT 1 AS a", None, False)
    wrongs: List[Any] = [
        ((), {}),
        ("a", {"A": Count()}),
        ("-a", {}),
        ("a", {"n": 1}),
        ("a", {"n": Count}),
        (["a", "a"], {}),
    ]
    for group_by, aggregates in wrongs:
        with pytest.raises(ParameterError):
            AggregateQuery(query, group_by, aggregates)
    for wrong in (Sum, Avg, Min, Max, Count):
        with pytest.raises(ParameterError):
            wrong("DISTINCT a")
    assert repr(Sum("a * b")) == "Sum('a * b')"
    assert repr(Count()) == "Count('*')"


def test_a_sum_that_no_double_holds_is_refused_as_a_server_does() -> None:
    assert _sum([1e308, None, -1e308, 1.0]) == 1.0
    with pytest.raises(DataError, match="out of range"):
        _sum([1e308, 1e308])


@pytest.mark.parametrize(
    ("aggregate", "kind"),
    [(Max("a"), "text in utf8mb4_general_ci"), (Min("a"), "text in utf8mb4_general_ci")],
)
def test_a_text_is_compared_by_the_collation_that_was_probed(aggregate: Any, kind: str) -> None:
    column = Column("0", FIELD_TYPE.VAR_STRING, 0, 45, 0)
    part = aggregate._part("top", [column], [None, *TEXT], 4)
    assert part.kind == kind
    expected = "w" if isinstance(aggregate, Max) else "a"
    assert part.total([["a", b"\0A"], [None, None], ["w", b"\0W"]]) == expected
    assert part.total([[None, None]]) is None
