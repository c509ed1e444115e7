"""A plan that is resumed step by step, by whoever performs its steps."""

from typing import Any, Generator

import pytest

from dualdb.execution.resumable import Resumable


def plan(log: Any) -> Generator[str, Any, str]:
    try:
        log.append((yield "first"))
    except ValueError as error:
        log.append(error)
        log.append((yield "second chance"))
    return "over"


def test_it_advances_by_what_its_steps_gave() -> None:
    log: Any = []
    running = Resumable(plan(log))
    assert running.advance(None) == "first"
    assert running.advance(7) is None
    assert (running.result, log) == ("over", [7])


def test_it_goes_on_after_an_error_that_it_handles() -> None:
    log: Any = []
    running = Resumable(plan(log))
    running.advance(None)
    error = ValueError()
    assert running.fail(error) == "second chance"
    assert running.advance(8) is None
    assert (running.result, log) == ("over", [error, 8])


def test_it_ends_with_an_error_that_it_does_not_handle() -> None:
    running = Resumable(plan([]))
    running.advance(None)
    with pytest.raises(KeyError):
        running.fail(KeyError())


def test_a_plan_may_return_because_a_step_failed() -> None:
    def gives_up() -> Generator[str, Any, str]:
        try:
            yield "step"
        except OSError:
            return "given up"
        return "done"

    running = Resumable(gives_up())
    running.advance(None)
    assert running.fail(OSError()) is None
    assert running.result == "given up"


def test_what_is_left_of_it_is_a_plan() -> None:
    log: Any = []
    running = Resumable(plan(log))
    step = running.advance(None)
    assert step is not None
    left = Resumable(running.remaining(step))
    assert left.advance(None) == "first"
    assert left.fail(ValueError()) == "second chance"
    assert left.advance(9) is None
    assert (left.result, log[1:]) == ("over", [9])


def test_closing_it_closes_the_plan() -> None:
    closed = []

    def closes() -> Generator[str, Any, None]:
        try:
            yield "step"
        finally:
            closed.append(True)

    running = Resumable(closes())
    running.advance(None)
    running.close()
    assert closed == [True]
