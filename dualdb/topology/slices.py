"""Long loops in short slices, so that an event loop has time for its other tasks."""

import time
from typing import Callable, Iterable, TypeVar

from ..execution import steps

T = TypeVar("T")

#: The longest that a loop goes on before others have their turn, in seconds.
SLICE_SECONDS = 0.002


def in_slices(
    items: Iterable[T], visit: Callable[[T], object], clock: Callable[[], float] = time.monotonic
) -> steps.Plan[None]:
    """Call a function with each item, and let others have their turn in between."""
    ends = clock() + SLICE_SECONDS
    for item in items:
        visit(item)
        if clock() >= ends:
            yield steps.Sleep(0.0)
            ends = clock() + SLICE_SECONDS
