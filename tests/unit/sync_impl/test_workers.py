"""The threads in which calls to several shards run."""

import contextvars
import threading
import weakref
from typing import Any, List, Type

import pytest

from dualdb.execution import steps
from dualdb.sync_impl.concurrency import Workers
from dualdb.sync_impl.runner import run_step

request: contextvars.ContextVar[Any] = contextvars.ContextVar("request")


class Request:
    """Something that a caller has in its context."""


def _serve(workers: Workers, seen: List[int]) -> "weakref.ref[Request]":
    own = Request()
    request.set(own)
    workers.begin(lambda: seen.append(id(request.get())), 1)()
    assert seen[-1] == id(own)
    return weakref.ref(own)


def test_work_has_its_callers_context_which_no_idle_thread_keeps() -> None:
    workers = Workers()
    seen: List[int] = []
    requests = [contextvars.Context().run(_serve, workers, seen) for _ in range(3)]
    assert len(seen) == 3
    assert [each() for each in requests] == [None] * 3
    assert len(workers._threads) == 1
    workers.dismiss()


@pytest.mark.parametrize("cls", [KeyError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_work_that_raises_ends_for_its_caller(cls: Type[BaseException]) -> None:
    workers = Workers()
    done: List[int] = []
    lock = threading.Lock()

    def work() -> None:
        with lock:
            done.append(1)
            number = len(done)
        if number == 2:
            raise cls("a bug")

    wait = workers.begin(work, 3)
    with pytest.raises(cls):
        wait()
    assert len(done) == 3
    workers.begin(work, 1)()
    assert len(done) == 4
    workers.dismiss()


@pytest.mark.parametrize("cls", [KeyError, SystemExit])
def test_a_hedged_step_that_raises_ends_for_its_caller(cls: Type[BaseException]) -> None:
    def fail(argument: Any) -> None:
        raise cls("a bug")

    hedge = steps.Hedge(steps.CallUser(fail, None), lambda: None, 60.0)
    with pytest.raises(cls):
        run_step(hedge)


def test_a_gathered_step_that_raises_is_an_outcome() -> None:
    def fail(argument: Any) -> None:
        raise KeyError(argument)

    members = tuple([steps.CallUser(fail, number) for number in range(3)])
    outcomes = run_step(steps.Gather(members))
    assert [type(each) for each in outcomes] == [KeyError] * 3
