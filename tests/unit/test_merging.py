"""What a merge and a total decide, without a server."""

import decimal
from types import SimpleNamespace
from typing import Any, Dict, List

import pytest
from pymysql.constants import FIELD_TYPE, FLAG

from dualdb import (
    Avg,
    Count,
    DataError,
    InterfaceError,
    InternalError,
    Max,
    Min,
    ParameterError,
    ScatterError,
    Sum,
)
from dualdb.errors import OperationalError
from dualdb.execution.steps import FetchRow, Gather
from dualdb.results import Column, Described, ResultSet, ScatterResult
from dualdb.sharding import subquery
from dualdb.sharding.aggregates import AggregateQuery, _sum, quotient
from dualdb.sharding.collation import Descending, Order, Padded, beyond, key
from dualdb.sharding.merge import BaseMerge, most, ordered

D = decimal.Decimal


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELECT 1", "SELECT 1"),
        (" select a FROM t ; ", " select a FROM t   "),
        ("SELECT 1; -- all", "SELECT 1  -- all"),
        ("SELECT 1 # ; LIMIT 3", "SELECT 1 # ; LIMIT 3"),
        ("WITH w AS (SELECT 1 LIMIT 1) SELECT * FROM w", None),
        (
            "SELECT (SELECT a FROM t ORDER BY b LIMIT 1), 'LIMIT 1; (', `order by`, t.limit FROM t",
            None,
        ),
        ("SELECT RANK() OVER (ORDER BY a) FROM t", None),
        ("SELECT 'it''s', \"(\" /* ; ) */ FROM t", None),
        ("SELECT 'it\\'s' FROM t", None),
        ("SELECT limits, offset FROM t", None),
        ("VALUES (1)", None),
    ],
)
def test_a_query_that_may_stand_in_parentheses(text: str, said: Any) -> None:
    assert subquery.body(text) == (text if said is None else said)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (7, "a statement is a str"),
        ("", "a query is expected"),
        ("UPDATE t SET a = 1", "a query is expected"),
        ("(SELECT 1)", "a query is expected"),
        ("SELECT 1; SELECT 2", "more than one statement"),
        ("SELECT 1 LIMIT 3", "its own LIMIT.*use limit="),
        ("SELECT 1 UNION SELECT 2 limit 3", "its own LIMIT"),
        ("SELECT a FROM t ORDER  BY a", "its own ORDER BY.*use order_by="),
        ("SELECT a FROM t FOR UPDATE", "its own FOR UPDATE"),
        ("SELECT a INTO @x FROM t", "its own INTO"),
        ("SELECT a FROM t OFFSET 3 ROWS", "its own OFFSET"),
        ("SELECT 1) AS q, (SELECT 2", "parentheses"),
        ("SELECT (1", "parentheses"),
        ("SELECT 'a", "without an end"),
        ("SELECT 1 /* all", "without an end"),
        ("SELECT 1 /*! LIMIT 1 */", "executed"),
        ("SELECT '\\', 'LIMIT 1 -- '", "two ways"),
    ],
)
def test_a_query_that_may_not(text: Any, why: str) -> None:
    with pytest.raises(ParameterError, match=why):
        subquery.body(text)


def test_expressions() -> None:
    for text in [
        "px",
        "qty * px",
        "COALESCE(a, b)",
        "`a,b`",
        "'a,b;#'",
        "n % 2",
        "CASE WHEN a THEN 1 ELSE 2 END",
    ]:
        assert subquery.expression(text) == text
    wrongs: List[Any] = [
        None,
        "",
        " ",
        "a, b",
        "a) , (b",
        "(a",
        "a; b",
        "a -- b",
        "COALESCE(a /* b */)",
        "'a",
        "DISTINCT a",
        "%s",
        "%(a)s",
    ]
    for wrong in wrongs:
        with pytest.raises(ParameterError):
            subquery.expression(wrong)


def test_what_surrounds_a_query_has_no_placeholders() -> None:
    query = ("SELECT %s AS `a%%`", (1,), False)
    assert (
        subquery.select("q.`a%`", query, "GROUP BY q.`a%`").text
        == "SELECT q.`a%` FROM (\nSELECT 1 AS `a%`\n) AS q GROUP BY q.`a%`"
    )
    assert subquery.select("1", ("SELECT 1", None, False)).reads
    assert not subquery.select("1", ("SELECT f(1)", None, False)).reads
    assert subquery.select("1", ("SELECT f(1)", None, True)).reads
    assert not subquery.select("1 /*M! x */", ("SELECT 1", None, False)).changes_session


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


def test_the_shorter_of_two_texts_goes_on_in_spaces() -> None:
    a, space, tab, b = b"\0a", b"\0 ", b"\0\t", b"\0b"
    rising = [a + tab, a + tab + b, a, a + space + b, a + b]
    texts = [Padded(weights, space) for weights in rising]
    assert sorted([texts[at] for at in (3, 1, 4, 0, 2)]) == texts
    assert Padded(a + space + space, space) == Padded(a, space)
    assert hash(Padded(a + space, space)) == hash(Padded(a, space))
    assert not Padded(a, space) < Padded(a + space, space)
    assert not Padded(b"", space) < Padded(b"", space)


def test_falling_and_null() -> None:
    number = key("n", Column("n", FIELD_TYPE.LONG, 0, 63, 0), [])
    ranks = [number.of(value, ()) for value in (None, -1, 0, D("0.5"))]
    assert sorted([ranks[at] for at in (2, 0, 3, 1)]) == ranks
    assert [each.value for each in sorted(map(Descending, ranks))] == ranks[::-1]
    assert Descending(1) == Descending(1)
    assert hash(Descending(1)) == hash(Descending(1))


TEXT = ["utf8mb4_general_ci", 1, b"\0 ", b"\0 ", b"\0 ", b"\0 "]
ROUNDS = ["utf8mb4_uca1400_as_cs", 1, b"SEC", b"S", b"E", b"C"]


@pytest.mark.parametrize(
    ("column", "translated", "kind", "terms"),
    [
        (Column("a", FIELD_TYPE.LONGLONG, FLAG.UNSIGNED, 63, 0), [], "number", ()),
        (Column("a", FIELD_TYPE.NEWDECIMAL, 0, 63, 2), [], "number", ()),
        (Column("a", FIELD_TYPE.BIT, 0, 63, 0), [], "number", ()),
        (Column("a", FIELD_TYPE.FLOAT, 0, 63, 31), [], "floating point number", ("{}+0e0",)),
        (Column("a", FIELD_TYPE.TIMESTAMP, 0, 63, 0), [], "timestamp", ("UNIX_TIMESTAMP({})",)),
        (Column("a", FIELD_TYPE.TIME, 0, 63, 0), [], "time", ()),
        (Column("a", FIELD_TYPE.STRING, FLAG.ENUM, 45, 0), TEXT, "ENUM", ("{}+0",)),
        (Column("a", FIELD_TYPE.STRING, FLAG.SET, 45, 0), TEXT, "SET", ("{}+0",)),
        (Column("a", FIELD_TYPE.BLOB, 0, 63, 0), [], "binary text", ()),
        (
            Column("a", FIELD_TYPE.VAR_STRING, 0, 45, 0),
            TEXT,
            "text in utf8mb4_general_ci",
            ("WEIGHT_STRING({})",),
        ),
        (
            Column("a", FIELD_TYPE.VAR_STRING, 0, 45, 0),
            ROUNDS,
            "text in utf8mb4_uca1400_as_cs",
            (
                "WEIGHT_STRING({} /*M! LEVEL 1 */)",
                "WEIGHT_STRING({} /*M! LEVEL 2 */)",
                "WEIGHT_STRING({} /*M! LEVEL 3 */)",
            ),
        ),
    ],
)
def test_how_a_column_compares(column: Column, translated: Any, kind: str, terms: Any) -> None:
    found = key("the column 'a'", column, translated)
    assert (found.kind, found.terms) == (kind, terms)
    assert found.by == (
        tuple([f"RPAD({term}, 512, X'{pad}')" for term, pad in zip(terms, ("53", "45", "43"))])
        if translated is ROUNDS
        else ("{}",)
    )


@pytest.mark.parametrize(
    ("type_code", "translated"),
    [
        (FIELD_TYPE.JSON, TEXT),
        (FIELD_TYPE.GEOMETRY, TEXT),
        (FIELD_TYPE.STRING, ["latin1_swedish_ci", None, None, None, None, None]),
        (FIELD_TYPE.STRING, ["latin2_czech_cs", 1, b"\1\1\1\0", b"\1", b"\1", b"\1"]),
    ],
)
def test_what_has_no_known_order(type_code: int, translated: Any) -> None:
    with pytest.raises(ParameterError, match="the column 'a' is .* whose order is not known here"):
        key("the column 'a'", Column("a", type_code, 0, 45, 0), translated)


def test_members_have_one_number_each() -> None:
    column = Column("a", FIELD_TYPE.STRING, FLAG.ENUM, 45, 0)
    for other in (("x", 1), ("a", 2)):
        enum = key("a", column, TEXT)
        assert enum.of("a", [1]) == (1, 1)
        assert enum.of("", [0]) == (1, 0)
        with pytest.raises(InterfaceError):
            enum.of(other[0], [other[1]])
    members = key("a", Column("a", FIELD_TYPE.STRING, FLAG.SET, 45, 0), TEXT)
    assert members.of("a,b", [3]) < members.of("c", [4])


@pytest.mark.parametrize(
    ("total", "number", "total_scale", "scale", "mean"),
    [
        ("2", 3, 0, 4, "0.6667"),
        ("-2", 3, 0, 4, "-0.6667"),
        ("1", 8, 0, 4, "0.1250"),
        ("0.0001", 8, 4, 8, "0.00001250"),
        # nine digits are one word, and what is behind them is not looked at
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


class Shard:
    """A stream of prepared rows."""

    def __init__(self, rows: List[Any]) -> None:
        self.rows, self.left, self._until = rows, False, None

    def _leave(self) -> None:
        self.left = True


class Merge(BaseMerge[Any]):
    """A merge of prepared streams."""

    def _new_stream(self, route: Any, statement: Any) -> Any:
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

    scatter = SimpleNamespace(
        _routes=lambda: shards, _ask=looked, _on_error=on_error, _max_concurrency=32
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
    with pytest.raises(InternalError, match="shard 1 has another order"):
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


def totals(
    rows: Dict[int, List[List[Any]]],
    columns: List[Column],
    translated: List[Any],
    group_by: Any = (),
    **asked: Any,
) -> Any:
    """The total of prepared answers."""

    def probe_terms(statement: Any, until: Any) -> Any:
        yield from ()
        if statement.describes:
            row = {str(number): value for number, value in enumerate(translated)}
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

    plan = AggregateQuery(("SELECT 1 AS a", None, False), group_by, asked).plan(probe_terms, None)
    try:
        next(plan)
    except StopIteration as done:
        return done.value
    raise AssertionError("it asked for more")


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
    with pytest.raises(ParameterError, match="s is of a type that is not summed here"):
        totals({1: [[0.1]]}, [Column("0", FIELD_TYPE.BLOB, 0, 63, 0)], [None, 4], s=Sum("a"))


def test_groups_that_are_equal_are_one() -> None:
    column = Column("0", FIELD_TYPE.VAR_STRING, 0, 45, 0)
    columns = [column, *[column] * 6, column, *[column] * 6]
    translated = [None, *TEXT, None, *TEXT, 4]
    rows: Dict[int, List[List[Any]]] = {
        2: [["A ", b"\0A\0 ", 2, "x", b"\0X"], [None, None, 1, None, None]],
        1: [["a", b"\0A", 3, "w", b"\0W"], ["B", b"\0B", 1, "z", b"\0Z"]],
    }
    found = totals(rows, columns, translated, group_by="g", n=Count(), top=Max("s"))
    assert found == [
        {"g": None, "n": 1, "top": None},
        {"g": "a", "n": 5, "top": "x"},
        {"g": "B", "n": 1, "top": "z"},
    ]


def test_what_is_not_asked_for_rightly() -> None:
    query = ("SELECT 1 AS a", None, False)
    wrongs: List[Any] = [
        ((), {}),
        ("a", {"A": Count()}),
        ("-a", {}),
        ("a", {"n": 1}),
        ("a", {"n": Count}),
        (["a", "a"], {}),
    ]
    for group_by, asked in wrongs:
        with pytest.raises(ParameterError):
            AggregateQuery(query, group_by, asked)
    for wrong in (Sum, Avg, Min, Max, Count):
        with pytest.raises(ParameterError):
            wrong("DISTINCT a")
    assert repr(Sum("a * b")) == "Sum('a * b')"
    assert repr(Count()) == "Count('*')"


def test_a_sum_that_no_double_holds_is_refused_as_a_server_does() -> None:
    assert _sum([1e308, None, -1e308, 1.0]) == 1.0
    with pytest.raises(DataError, match="out of range"):
        _sum([1e308, 1e308])
