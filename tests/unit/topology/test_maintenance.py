"""The background, which goes on whatever fails."""

import logging
from types import SimpleNamespace
from typing import Any, List

import pytest

from dualdb.execution import steps
from dualdb.topology.maintenance import Maintenance, Timing
from dualdb.topology.manager import DrainingClient, Topology, TopologyManager
from dualdb.topology.shard_map import EMPTY


def client(failure: Any = None) -> Any:
    pool = SimpleNamespace(breaker=SimpleNamespace(failure=failure), opened=1, in_use=0)
    return SimpleNamespace(
        name="it",
        shard_id=1,
        pool=pool,
        has_pool=True,
        failure=failure,
        needs_connection=failure is not None,
    )


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def background(clock: Clock, refresh: Any = None) -> Any:
    manager = TopologyManager(lambda *_: client(), 30.0, clock)
    reader: Any = SimpleNamespace(failures=0, failure=None)
    loop = Maintenance(
        manager,
        reader,
        refresh or (lambda timeout: steps.Sleep(0)),
        5.0,
        timing=Timing(),
        clock=clock,
    )
    manager.topology = Topology(client(), EMPTY, {1: client(failure="down")})
    return manager, loop


@pytest.mark.parametrize("error", [RuntimeError("odd"), KeyError(1), MemoryError(), OSError(24)])
@pytest.mark.parametrize(
    "kind", [steps.Exclusive, steps.Gather, steps.PruneIdle, steps.AbortInUse, steps.CallHooks]
)
def test_it_survives_any_failure_of_any_of_its_steps(
    kind: Any, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    exclusive = steps.Exclusive(lambda *_: None, iter(()))  # type: ignore[arg-type]
    manager, loop = background(clock, lambda timeout: exclusive)
    manager.observers.on("shard_down", lambda event: None)
    late = client()
    late.pool.in_use = 1
    manager.draining = (DrainingClient(late, 0.0),)
    plan = loop.loop(loop._mark)
    step = next(plan)
    seen: List[Any] = []
    with caplog.at_level(logging.ERROR, "dualdb"):
        for _ in range(200):
            seen.append(type(step))
            if isinstance(step, steps.Sleep):
                clock.now += 1.0
                manager._on_outage(1, error)
                manager.draining = (DrainingClient(late, 0.0),)
            if isinstance(step, kind):
                step = plan.throw(error)
            else:
                step = plan.send([] if isinstance(step, steps.Gather) else None)
    assert seen.count(kind) > 3, "it was tried again and again"
    assert "in the background, which continues" in caplog.text
    plan.close()


def test_a_background_that_cannot_be_started_is_started_later() -> None:
    _, loop = background(Clock())
    plan = loop.ensure()
    assert isinstance(next(plan), steps.Spawn)
    with pytest.raises(StopIteration):
        plan.throw(RuntimeError("can't start new thread"))
    again = loop.ensure()
    assert isinstance(next(again), steps.Spawn)
    with pytest.raises(StopIteration):
        again.send(None)
    with pytest.raises(StopIteration):
        next(loop.ensure())
