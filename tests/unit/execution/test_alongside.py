"""What is done again and again while a plan runs."""

from typing import Any, List

import pytest

from dualdb.execution import alongside, steps


def plan_of(value: Any) -> steps.Plan[Any]:
    yield steps.Sleep(0)
    if isinstance(value, Exception):
        raise value
    return value


def started(value: Any, wanted: List[bool]) -> steps.RunAlongside:
    def again() -> steps.Plan[bool]:
        yield steps.Sleep(1)
        return wanted.pop(0)

    step = next(alongside.repeated(plan_of(value), again, 5.0))
    assert isinstance(step, steps.RunAlongside)
    return step


def test_it_is_done_until_it_says_so() -> None:
    plan = started(1, [True, False]).alongside
    seen = [type(step) for step in plan]
    assert seen == [steps.AwaitSignal, steps.Sleep] * 2


@pytest.mark.parametrize("value", [1, KeyError("x")])
def test_it_ends_with_the_plan_however_that_ends(value: Any) -> None:
    step = started(value, [])
    waits = next(step.alongside)
    assert isinstance(waits, steps.AwaitSignal)
    assert waits.seconds == 5.0
    woken: List[int] = []
    waits.subscribe(lambda: woken.append(1))
    next(step.plan)
    assert woken == []
    with pytest.raises((StopIteration, KeyError)):
        next(step.plan)
    assert woken == [1]
    with pytest.raises(StopIteration):
        next(step.alongside)
