"""Deadlines: which one holds, and what a timeout may be."""

import math
from typing import Any

import pytest
from scripted_plans import READ, place

from dualdb import deadlines
from dualdb.deadlines import Deadline
from dualdb.errors import (
    ParameterError,
)
from dualdb.execution import verbs


@pytest.mark.parametrize("timeout", [-1, "1", True, 1e12, math.inf, math.nan])
def test_a_timeout_is_a_number_from_0_up(timeout: Any) -> None:
    with pytest.raises(ParameterError, match="number of seconds from 0 to"):
        next(verbs.query(place, READ, None, timeout=timeout))


def test_of_nested_deadlines_the_earliest_holds() -> None:
    assert deadlines.deadline_after() is None
    with Deadline(10.0):
        outer = deadlines.deadline_after()
        with Deadline(20.0):
            assert deadlines.deadline_after() == outer
        with Deadline(1.0):
            assert deadlines.deadline_after() < outer  # type: ignore[operator]
        assert deadlines.deadline_after(5.0) < outer  # type: ignore[operator]
        assert deadlines.deadline_after(50.0) == outer
    assert deadlines.deadline_after() is None
