"""Long loops in short slices, so that an event loop can run other tasks in between."""

import time
from typing import Callable, Iterable, TypeVar

from ..execution import steps

T = TypeVar("T")

#: Maximum duration of a slice in seconds, and the most items in one.
SLICE_SECONDS = 0.002
SLICE_ITEMS = 256


class Slices:
    """Tells a long loop when to yield to the event loop.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self._count = 0
        self._ends = self._clock() + SLICE_SECONDS

    def ends_with_item(self) -> bool:
        """Count an item; return whether the slice ends with it, and begin the next."""
        self._count += 1
        if self._count < SLICE_ITEMS and self._clock() < self._ends:
            return False
        self._begin()
        return True


def in_slices(
    items: Iterable[T], visit: Callable[[T], object], clock: Callable[[], float] = time.monotonic
) -> steps.Plan[None]:
    """Call a function with each item, yielding to the event loop after each slice."""
    slices = Slices(clock)
    for item in items:
        visit(item)
        if slices.ends_with_item():
            yield steps.Sleep(0.0)
