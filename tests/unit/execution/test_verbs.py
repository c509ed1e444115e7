"""What the verbs return, and what they refuse."""

from typing import Any, List

import pytest
from scripted_plans import NONE, ROWS, UPDATED, follow, place, routed

from dualdb.errors import (
    ParameterError,
)
from dualdb.execution import steps, verbs
from dualdb.results import CallResult, ResultSet

INSERTED = [ResultSet([], (), 1, 77, 0)]


@pytest.mark.parametrize(
    ("plan", "response", "value"),
    [
        (verbs.query(routed(place), "SELECT 1", None), ROWS, [{"a": 1, "b": 2}, {"a": 3, "b": 4}]),
        (verbs.query(routed(place), "UPDATE t SET a = 1", None), UPDATED, []),
        (verbs.query_one(routed(place), "SELECT 1", None), ROWS, {"a": 1, "b": 2}),
        (verbs.query_one(routed(place), "SELECT 1", None), NONE, None),
        (verbs.query_value(routed(place), "SELECT 1", None), ROWS, 1),
        (verbs.query_value(routed(place), "SELECT 1", None), NONE, None),
        (verbs.execute(routed(place), "UPDATE t SET a = 1", None), UPDATED, 5),
        (
            verbs.call(routed(place), "p", ()),
            CallResult(ROWS, {}, 0, 0),
            CallResult(ROWS, {}, 0, 0),
        ),
        (
            verbs.call_rows(routed(place), "p", ()),
            CallResult(ROWS + ROWS, {}, 0, 0),
            ROWS[0].rows * 2,
        ),
    ],
)
def test_verbs(plan: Any, response: Any, value: Any) -> None:
    assert follow(plan, [(steps.Execute, response)]) == value


def test_an_insert_s_id_is_given_and_kept() -> None:
    kept: List[int] = []
    count = follow(
        verbs.execute(routed(lambda: place(kept.append)), "INSERT INTO t VALUES ()", None),
        [(steps.Execute, INSERTED)],
    )
    assert (count, count.lastrowid, kept) == (1, 77, [77])
    follow(
        verbs.execute(routed(lambda: place(kept.append)), "UPDATE t SET a = 1", None),
        [(steps.Execute, UPDATED)],
    )
    assert kept == [77], "a statement that makes no id leaves the last one"


def test_bad_input_is_refused_before_a_database_is_looked_for() -> None:
    def nowhere(until: Any = None) -> Any:
        raise AssertionError("routed")

    with pytest.raises(ParameterError):
        next(verbs.query(nowhere, "SELECT %s", ()))
    with pytest.raises(ParameterError):
        next(verbs.call(nowhere, "no(procedure)", ()))
