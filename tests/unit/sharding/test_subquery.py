"""Which queries may stand in parentheses, and what surrounds them."""

from typing import Any, List

import pytest

from dualdb import ParameterError
from dualdb.sharding import subquery


@pytest.mark.parametrize(
    ("text", "expected"),
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
def test_a_query_that_may_stand_in_parentheses(text: str, expected: Any) -> None:
    assert subquery.body(text) == (text if expected is None else expected)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (7, "sql must be str"),
        ("", "sql must be a query"),
        ("UPDATE t SET a = 1", "sql must be a query"),
        ("(SELECT 1)", "sql must be a query"),
        ("SELECT 1; SELECT 2", "more than one statement"),
        ("SELECT 1 LIMIT 3", "its own LIMIT.*use limit="),
        ("SELECT 1 UNION SELECT 2 limit 3", "its own LIMIT"),
        ("SELECT a FROM t ORDER  BY a", "its own ORDER BY.*use order_by="),
        ("SELECT a FROM t FOR UPDATE", "its own FOR UPDATE"),
        ("SELECT a INTO @x FROM t", "its own INTO"),
        ("SELECT a FROM t OFFSET 3 ROWS", "its own OFFSET"),
        ("SELECT 1) AS q, (SELECT 2", "parentheses"),
        ("SELECT (1", "parentheses"),
        ("SELECT 'a", "an unterminated"),
        ("SELECT 1 /* all", "an unterminated"),
        ("SELECT 1 /*! LIMIT 1 */", "executable comment"),
        ("SELECT '\\', 'LIMIT 1 -- '", "ambiguous"),
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
