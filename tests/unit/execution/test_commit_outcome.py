"""What became of a COMMIT whose response was lost."""

import itertools
from typing import Any, List, Tuple

import pytest
from scripted_plans import NONE, ROWS, follow, lost, place

from dualdb.errors import (
    LockWaitTimeout,
    ProgrammingError,
    ServiceNotOpen,
    shard_unavailable,
)
from dualdb.execution import commit_outcome, steps

TIMED_OUT = LockWaitTimeout(1205, "Lock wait timeout exceeded", sqlstate="HY000")


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ([(steps.Execute, ROWS)], True),
        ([(steps.Execute, NONE)], False),
        ([(steps.Execute, lost()), (steps.Execute, ROWS)], True),
        ([(steps.Execute, TIMED_OUT), (steps.Execute, ROWS)], True),
        (
            [
                (steps.Execute, shard_unavailable(1, "away")),
                (steps.Sleep, None),
                (steps.Execute, NONE),
            ],
            False,
        ),
        (
            [(steps.Execute, ProgrammingError(1142, "SELECT command denied", sqlstate="42000"))],
            None,
        ),
        ([(steps.Execute, ServiceNotOpen("closed"))], None),
    ],
)
def test_what_became_of_a_commit(script: List[Tuple[Any, Any]], outcome: Any) -> None:
    assert (
        follow(commit_outcome.resolve_commit_outcome(place(), "f00d", clock=lambda: 0.0), script)
        is outcome
    )


def test_what_became_of_a_commit_is_not_asked_for_ever() -> None:
    times = itertools.count(0.0, 4.0)
    assert (
        follow(
            commit_outcome.resolve_commit_outcome(place(), "f00d", clock=lambda: next(times)),
            [(steps.Execute, TIMED_OUT)] * 4,
        )
        is None
    )
