"""Calls that wait: how many, for how long, and what wakes them."""

import gc
import threading
from typing import Any, Callable, Iterator, List, Optional, cast

import pytest

from dualdb import DatabaseConfig
from dualdb.buffer import Buffer, BufferedWait, Buffers, Refusal


def config(size: int = 2, timeout: float = 5.0) -> DatabaseConfig:
    return DatabaseConfig(
        database="d", user="u", password="p", buffer_size=size, buffer_timeout=timeout
    )


def waits(buffer: Buffer, count: int, size: int = 2) -> List[BufferedWait]:
    return [BufferedWait(buffer, config(size), 100.0) for _ in range(count)]


def test_no_more_calls_wait_than_allowed_and_one_that_leaves_makes_room() -> None:
    buffer = Buffer()
    first, second, third = waits(buffer, 3)
    assert [each.refusal(100.0) for each in (first, second, third)] == [None, None, Refusal.FULL]
    assert [each.refusal(101.0) for each in (first, second)] == [None, None]
    assert buffer.waiting == 2
    first.leave()
    first.leave()
    assert buffer.waiting == 1
    assert third.refusal(101.0) is None
    assert first.refusal(101.0) is Refusal.FULL


def test_with_size_0_nobody_waits() -> None:
    (wait,) = waits(Buffer(), 1, size=0)
    assert wait.refusal(100.0) is Refusal.FULL


@pytest.mark.parametrize(
    ("timeout", "until", "ends", "refusal"),
    [
        (5.0, None, 105.0, Refusal.TIME_OVER),
        (5.0, 200.0, 105.0, Refusal.TIME_OVER),
        (5.0, 102.0, 102.0, Refusal.DEADLINE),
        (0.0, None, 100.0, Refusal.TIME_OVER),
        (5.0, 99.0, 100.0, Refusal.DEADLINE),
    ],
)
def test_it_ends_with_its_time_or_the_deadline(
    timeout: float, until: Optional[float], ends: float, refusal: Refusal
) -> None:
    buffer = Buffer()
    wait = BufferedWait(buffer, config(timeout=timeout), 100.0, until)
    if ends > 100.0:
        assert wait.refusal(ends - 0.1) is None
        assert wait.seconds_left(100.0) == ends - 100.0
    assert wait.refusal(ends) is refusal
    assert wait.seconds_left(ends + 1.0) == 0.0


def test_one_whose_caller_was_interrupted_leaves_its_place() -> None:
    buffer = Buffer()
    found = waits(buffer, 2)
    assert [each.refusal(100.0) for each in found] == [None, None]
    found.pop()
    assert buffer.waiting == 1


def test_a_wake_reaches_whoever_waits_once_and_is_not_lost() -> None:
    buffer = Buffer()
    first, second = waits(buffer, 2)
    woken: List[Any] = []
    assert (first.refusal(100.0), second.refusal(100.0)) == (None, None)
    first.subscribe(lambda: woken.append("first"))
    buffer.wake()
    buffer.wake()
    assert woken == ["first"]
    # it was woken before it waited, once or more often
    second.subscribe(lambda: woken.append("second"))
    assert woken == ["first", "second"]
    second.subscribe(lambda: woken.append("again"))
    assert woken == ["first", "second"]
    second.leave()
    buffer.wake()
    assert woken == ["first", "second"]


def test_each_thing_has_a_buffer_of_its_own_while_somebody_waits() -> None:
    buffers = Buffers()
    woken: List[int] = []
    for key in (1, 2):
        (wait,) = waits(buffers.of(key), 1, size=1)
        assert wait.refusal(100.0) is None
        wait.subscribe(lambda key=key: woken.append(key))  # type: ignore[misc]
        if key == 1:
            first = wait
    assert (buffers.waiting(1), buffers.waiting(2), buffers.waiting(3)) == (1, 1, 0)
    buffers.wake(2, 3)
    assert woken == [2]
    buffers.wake()
    assert sorted(woken) == [1, 2]
    first.leave()
    del first
    assert buffers.of(1).waiting == 0


def test_a_forked_child_has_none_of_the_callers() -> None:
    buffers = Buffers()
    (wait,) = waits(buffers.of(1), 1)
    assert wait.refusal(100.0) is None
    buffers.forget_callers()
    assert buffers.of(1).waiting == 0
    buffer = Buffer()
    (wait,) = waits(buffer, 1)
    assert wait.refusal(100.0) is None
    buffer.forget_callers()
    assert buffer.waiting == 0


def test_threads_take_no_more_places_than_there_are() -> None:
    buffer = Buffer()
    outcomes: List[Any] = []
    kept: List[BufferedWait] = waits(buffer, 64, size=10)
    begin = threading.Barrier(8)

    def take(mine: List[BufferedWait]) -> None:
        begin.wait(20)
        outcomes.extend([each.refusal(100.0) for each in mine])

    threads = [threading.Thread(target=take, args=(kept[n::8],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert outcomes.count(None) == buffer.waiting == 10
    assert outcomes.count(Refusal.FULL) == 54


class CollectsWhileHeld:
    """A lock whose thread collects garbage while it holds it."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        self._lock.acquire()
        gc.collect()

    def __exit__(self, *args: object) -> None:
        self._lock.release()


def _abandon(end: Callable[[], None]) -> None:
    """Leave a plan to the garbage collector, which ends it."""

    def plan() -> Iterator[Any]:
        try:
            yield running
        finally:
            end()

    running = plan()
    next(running)


def _ends(work: Callable[[], None]) -> bool:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    return not thread.is_alive()


@pytest.mark.slow
def test_a_plan_may_be_collected_while_its_thread_adds_a_call() -> None:
    buffer = Buffer()
    first, second = waits(buffer, 2)
    assert first.refusal(100.0) is None
    cast(Any, buffer)._lock = CollectsWhileHeld(buffer._lock)
    refusals: List[Any] = []

    def work() -> None:
        _abandon(first.leave)
        refusals.append(second.refusal(100.0))

    assert _ends(work)
    assert refusals == [None]
    assert buffer.waiting == 1


@pytest.mark.slow
def test_a_plan_may_be_collected_while_its_thread_looks_up_a_buffer() -> None:
    buffers = Buffers()
    (wait,) = waits(buffers.of(1), 1)
    assert wait.refusal(100.0) is None
    woken: List[str] = []
    wait.subscribe(lambda: woken.append("first"))
    cast(Any, buffers)._lock = CollectsWhileHeld(buffers._lock)

    def work() -> None:
        _abandon(buffers.wake)
        buffers.of(2)

    assert _ends(work)
    assert woken == ["first"]
