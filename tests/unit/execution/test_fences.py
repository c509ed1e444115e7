"""Waiting for a fence: until it ends, the tenant has moved, or the time is over."""

from types import SimpleNamespace
from typing import Any, List

import pytest

from dualdb import errors
from dualdb.execution import fences
from dualdb.execution.fences import FenceWait

FENCED = errors.TenantFenced(31001, "dualdb: this tenant is being moved")
MOVED = errors.TenantFenced(31001, "dualdb: this tenant has moved")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def client() -> Any:
    forgotten: List[int] = []
    shared = SimpleNamespace(forget_keys=lambda: forgotten.append(1))
    return SimpleNamespace(_shared=shared, forgotten=forgotten)


@pytest.mark.parametrize("until", [None, 3.0])
def test_it_waits_so_long_and_looks_keys_up_again(client: Any, until: Any) -> None:
    clock = Clock()
    wait = FenceWait(until, clock)
    limit = fences.FENCE_WAIT if until is None else until
    for now in (0.0, 1.0, limit - 0.1):
        clock.now = now
        assert 0.0 <= wait.pause(FENCED, client) <= fences.PAUSE
    assert len(client.forgotten) == 3
    clock.now = limit
    with pytest.raises(errors.TenantFenced):
        wait.pause(FENCED, client)


def test_a_call_that_goes_to_the_old_shard_again_is_refused(client: Any) -> None:
    other = SimpleNamespace(_shared=client._shared)
    wait = FenceWait(None, Clock())
    wait.pause(MOVED, client)
    wait.pause(MOVED, other)
    wait.pause(FENCED, other)
    wait.pause(MOVED, other)
    with pytest.raises(errors.TenantFenced, match="has moved"):
        wait.pause(MOVED, SimpleNamespace(_client=other))


def test_a_client_that_stands_alone_knows_no_keys() -> None:
    assert FenceWait(None, Clock()).pause(FENCED, SimpleNamespace(_shared=None)) >= 0.0
