"""Long loops in short slices, so that an event loop can run other tasks in between."""

import time
from typing import Callable, Iterable, TypeVar

from ..execution import steps

T = TypeVar("T")

#: Maximum duration of a slice, in seconds.
SLICE_SECONDS = 0.002


def in_slices(
    items: Iterable[T], visit: Callable[[T], object], clock: Callable[[], float] = time.monotonic
) -> steps.Plan[None]:
    """Call a function with each item, yielding to the event loop after each slice."""
    ends = clock() + SLICE_SECONDS
    for item in items:
        visit(item)
        if clock() >= ends:
            yield steps.Sleep(0.0)
            ends = clock() + SLICE_SECONDS
