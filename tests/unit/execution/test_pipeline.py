"""``pipeline`` as a plan."""

from typing import Any, List

import pytest
from scripted_plans import follow, place, routed

from dualdb.errors import ConnectionLost, IntegrityError
from dualdb.execution import steps
from dualdb.execution.pipeline import groups, pipeline
from dualdb.protocol.statements import Statement
from dualdb.results import ResultSet
from dualdb.sql.literals import LiteralStyle

LIMIT = (steps.Execute, (1_000_000, LiteralStyle()))
WRITE = "DELETE FROM t WHERE a = 1"


def sizes(statements: List[str], most_bytes: int = 1_000_000) -> List[int]:
    return [len(each) for each in groups(map(Statement, statements), most_bytes)]


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([], []),
        ([WRITE] * 2, [2]),
        ([WRITE] * 600, [256, 256, 88]),
        ([WRITE, "CALL p()", WRITE, "SELECT 1"], [1, 1, 2]),
        ([WRITE, "SELECT 1 -- x", "SELECT 1; SELECT 2", WRITE], [1, 1, 1, 1]),
        (["CREATE TABLE t (a INT)"] * 2, [1, 1]),
    ],
)
def test_statements_are_grouped(statements: List[str], expected: List[int]) -> None:
    assert sizes(statements) == expected


def test_a_group_is_no_longer_than_the_server_takes() -> None:
    long = f"SELECT '{'x' * 100}'"
    assert sizes([long] * 5, 1000) == [2, 2, 1]
    assert sizes([long * 20, WRITE, WRITE], 1000) == [1, 2]


def failed(error: Any, completed: int) -> Any:
    """The server's error after so many results."""
    error.driver_error = ValueError()
    error.driver_error.completed = completed
    return steps.Execute, error


def test_an_error_has_the_number_of_its_statement() -> None:
    error = IntegrityError(1062, "Duplicate entry").with_context("t", None, sent=True)
    error.sqlstate = "23000"
    script = [LIMIT, (steps.Execute, [ResultSet([], (), 1, 0, 0)]), failed(error, 1)]
    with pytest.raises(IntegrityError) as caught:
        follow(pipeline(routed(place), ["DO 1", WRITE, WRITE, WRITE]), script)
    assert caught.value.rows == (2, 2)
    lost = ConnectionLost(2013, "lost").with_context("t", None, sent=True)
    lost.in_transaction = True
    with pytest.raises(ConnectionLost) as gone:
        follow(pipeline(routed(place), [WRITE, WRITE]), [LIMIT, failed(lost, 1)])
    assert gone.value.rows == (0, 1)
