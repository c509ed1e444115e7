"""Waiting for a fence: until it ends, the tenant has moved, or the time is over."""

from types import SimpleNamespace
from typing import Any, Callable, List

import pytest
from scripted_plans import executor

from dualdb import DatabaseConfig, errors
from dualdb.execution import fences
from dualdb.execution.fences import FenceWait

FENCED = errors.TenantFenced(31001, "dualdb: this tenant is being moved")
MOVED = errors.TenantFenced(31001, "dualdb: this tenant has moved")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Pool:
    """What calls to one shard have in common."""


@pytest.fixture
def new_client() -> Callable[..., Any]:
    """Make a client of a shard."""

    def make(**limits: Any) -> Any:
        forgotten: List[int] = []
        shared = SimpleNamespace(forget_keys=lambda: forgotten.append(1))
        config = DatabaseConfig(database="d", user="u", password="p", **limits)
        return executor(shared=shared, forgotten=forgotten, config=config, pool=Pool())

    return make


@pytest.mark.parametrize("until", [None, 3.0])
def test_it_waits_so_long_and_looks_keys_up_again(
    new_client: Callable[..., Any], until: Any
) -> None:
    clock = Clock()
    client = new_client(buffer_timeout=10.0)
    wait = FenceWait(until, clock)
    limit = 10.0 if until is None else until
    for now in (0.0, 1.0, limit - 0.1):
        clock.now = now
        assert 0.0 <= wait.pause(FENCED, client) <= fences.PAUSE
    assert len(client.forgotten) == 3
    clock.now = limit
    with pytest.raises(errors.TenantFenced):
        wait.pause(FENCED, client)


def test_no_more_calls_of_a_shard_wait_than_allowed(new_client: Callable[..., Any]) -> None:
    client = new_client(buffer_size=2)
    waits = [FenceWait(None, Clock()) for _ in range(2)]
    for wait in waits:
        wait.pause(FENCED, client)
    fenced = errors.TenantFenced(31001, FENCED.message).with_context("shard 1", 1, sent=True)
    with pytest.raises(errors.TenantFenced) as caught:
        FenceWait(None, Clock()).pause(fenced, client)
    error = caught.value
    assert error.message == f"{FENCED.message}; 2 calls wait for the end of the move (buffer_size)"
    assert (error.errno, error.target, error.shard_id, error.sent) == (31001, "shard 1", 1, True)
    assert error.retryable
    assert fences.waiting()[client.pool] == 2
    FenceWait(None, Clock()).pause(FENCED, new_client(buffer_size=1))
    waits[0].leave()
    assert fences.waiting()[client.pool] == 1
    FenceWait(None, Clock()).pause(FENCED, client)


def test_a_wait_that_has_not_begun_is_left_without_harm() -> None:
    FenceWait(None, Clock()).leave()


def test_a_call_that_goes_to_the_old_shard_again_is_refused(
    new_client: Callable[..., Any],
) -> None:
    client = new_client()
    other = new_client()
    wait = FenceWait(None, Clock())
    wait.pause(MOVED, client)
    wait.pause(MOVED, other)
    wait.pause(FENCED, other)
    wait.pause(MOVED, other)
    with pytest.raises(errors.TenantFenced, match="has moved"):
        wait.pause(MOVED, SimpleNamespace(client=other))


def test_a_client_that_stands_alone_knows_no_keys(new_client: Callable[..., Any]) -> None:
    client = new_client()
    client.shared = None
    assert FenceWait(None, Clock()).pause(FENCED, client) >= 0.0
