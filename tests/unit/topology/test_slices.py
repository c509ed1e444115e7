"""Long loops let an event loop run other tasks in between."""

from typing import List

from dualdb.execution import steps
from dualdb.topology.slices import SLICE_ITEMS, in_slices


def slices_of(count: int, seconds_each: float) -> List[int]:
    """How many items are visited in each slice, of ``count`` that take so long."""
    now = 0.0
    sizes = [0]

    def visit(item: int) -> None:
        nonlocal now
        now += seconds_each
        sizes[-1] += 1

    for step in in_slices(range(count), visit, lambda: now):
        assert step == steps.Sleep(0.0)
        sizes.append(0)
    return sizes


def test_a_slice_has_a_limited_number_of_items() -> None:
    assert slices_of(2 * SLICE_ITEMS + 1, 0.0) == [SLICE_ITEMS, SLICE_ITEMS, 1]


def test_a_slice_has_a_limited_duration() -> None:
    assert slices_of(4, 0.001) == [2, 2, 0]
    assert slices_of(2, 1.0) == [1, 1, 0], "whatever an item takes"
