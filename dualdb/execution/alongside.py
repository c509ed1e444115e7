"""Something that is done again and again while a plan runs."""

import threading
from typing import Callable, List, Optional, TypeVar

from . import steps

T = TypeVar("T")


class Completion:
    """The end of something, which others wait for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wakes: Optional[List[Callable[[], None]]] = []

    @property
    def ended(self) -> bool:
        """It has ended."""
        return self._wakes is None

    def on_end(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` when it ends, at once if it has."""
        with self._lock:
            waiting = self._wakes is not None
            if self._wakes is not None:
                self._wakes.append(wake)
        if not waiting:
            wake()

    def end(self) -> None:
        """Wake who waits for it."""
        with self._lock:
            wakes = self._wakes or []
            self._wakes = None
        for wake in wakes:
            wake()


def repeated(
    plan: steps.Plan[T], again: Callable[[], steps.Plan[bool]], interval: float
) -> steps.Plan[T]:
    """Run a plan, and beside it another one every ``interval`` seconds, in a thread or
    a task of its own.

    Args:
        plan: The plan, which the caller's thread or task runs.
        again: Makes the other plan; it returns whether it is to be run again.
        interval: Seconds between two of them, and before the first.
    """
    completion = Completion()

    def until_it_ends() -> steps.Plan[T]:
        try:
            return (yield from plan)
        finally:
            completion.end()

    def beside() -> steps.Plan[None]:
        wanted = True
        while wanted:
            yield steps.AwaitSignal(completion.on_end, interval)
            if completion.ended:
                return
            wanted = yield from again()

    found: T = yield steps.RunAlongside(until_it_ends(), beside())
    return found
