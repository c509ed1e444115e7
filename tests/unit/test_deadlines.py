"""Deadlines: which one holds, and what a timeout may be."""

import contextvars
import math
from typing import Any

import pytest
from scripted_plans import READ, place

from dualdb import deadlines
from dualdb.deadlines import Deadline
from dualdb.errors import InterfaceError, ParameterError
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


def test_the_longest_timeout_is_three_years() -> None:
    assert deadlines.deadline_after(100_000_000, now=0.0) == 100_000_000.0
    assert deadlines.deadline_after(0, now=5.0) == 5.0
    with pytest.raises(ParameterError, match="from 0 to 100000000, not 100000001"):
        deadlines.deadline_after(100_000_001)


def test_a_deadline_is_entered_once_at_a_time() -> None:
    deadline = Deadline(10.0)
    for _ in range(2):
        with deadline as entered:
            assert entered is deadline
            with pytest.raises(InterfaceError, match="one block at a time"):
                deadline.__enter__()
    with pytest.raises(InterfaceError, match="not held by a block"):
        deadline.__exit__(None, None, None)


def test_deadlines_may_be_left_in_any_order() -> None:
    first, second, third = Deadline(1.0), Deadline(2.0), Deadline(3.0)
    for deadline in (third, first, second):
        deadline.__enter__()
    earliest = deadlines.deadline_after()
    first.__exit__(None, None, None)
    later = deadlines.deadline_after()
    assert earliest is not None
    assert later is not None
    assert later > earliest
    second.__exit__(None, None, None)
    assert deadlines.deadline_after() > later  # type: ignore[operator]
    third.__exit__(None, None, None)
    assert deadlines.deadline_after() is None


def test_a_deadline_that_is_left_in_another_context_says_so() -> None:
    deadline = Deadline(10.0)
    contextvars.copy_context().run(deadline.__enter__)
    with pytest.raises(InterfaceError, match="^a deadline was left in another context than"):
        deadline.__exit__(None, None, None)
    assert deadlines.deadline_after() is None


@pytest.mark.parametrize(
    ("one", "other", "first"),
    [(None, None, None), (1.0, None, 1.0), (None, 2.0, 2.0), (1.0, 2.0, 1.0), (2.0, 1.0, 1.0)],
)
def test_the_earlier_of_two_times(one: Any, other: Any, first: Any) -> None:
    assert deadlines.earliest(one, other) == first


def test_a_deadline_passes() -> None:
    assert not deadlines.passed()
    with Deadline(10.0):
        assert not deadlines.passed()
    with Deadline(0.0):
        assert deadlines.passed()
