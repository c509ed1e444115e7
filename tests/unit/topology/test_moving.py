"""Waiting for a shard that is moving: who reads the table, and what ends the wait."""

from types import SimpleNamespace
from typing import Any, List, Optional

import pytest
from shard_rows import BASE, row

from dualdb import DeadlineExceeded, OperationalError, ServiceNotOpen, ShardUnavailable
from dualdb.execution import steps
from dualdb.topology.manager import Topology, TopologyManager
from dualdb.topology.moving import REFRESH_INTERVAL, REFRESH_TIMEOUT, MovingShards
from dualdb.topology.shard_map import ShardMap, parse_shard_table

CONFIG = BASE.model_copy(update={"buffer_timeout": 10.0, "buffer_size": 2})


def shards(*rows: Any, version: int = 1) -> ShardMap:
    return parse_shard_table(rows, CONFIG, version)


MOVING = shards(row(1, status="moving"))
MOVED = shards(row(1, host="elsewhere"), version=2)


def client() -> Any:
    return SimpleNamespace(pool=SimpleNamespace(), has_pool=True)


class Service:
    """What the wait sees of a service; its clock stands still unless it is set."""

    def __init__(self) -> None:
        self.now = 100.0
        self.manager = TopologyManager(lambda *args: client(), 30.0, lambda: self.now)
        self.manager.topology = Topology(SimpleNamespace(), MOVING, {})
        self.reader = SimpleNamespace(failure=None, failures=0)
        self.maintenance = SimpleNamespace(next_refresh_delay=lambda: 7.0)
        self.moving = MovingShards(self, lambda: self.now)  # type: ignore[arg-type]
        self.limits: List[float] = []

    def refresh(self, seconds: float) -> str:
        self.limits.append(seconds)
        return "refresh"

    def exclusive(self, plan: object, wait: float) -> Any:
        return ("exclusive", plan, wait)

    def wait(self, until: Optional[float] = None) -> Any:
        return self.moving.wait(1, until)

    def activate(self, shard_map: ShardMap) -> None:
        plan = self.manager.activate(shard_map)
        for _ in plan:
            pass


READ = ("exclusive", "refresh", 0.0)


@pytest.fixture
def service() -> Service:
    return Service()


def ends(plan: Any, value: Any = None) -> Any:
    """What a plan returns after its last step."""
    with pytest.raises(StopIteration) as done:
        plan.send(value)
    return done.value.value


def test_a_shard_that_is_not_moving_is_not_waited_for(service: Service) -> None:
    for shard_map in (MOVED, shards(row(2))):
        service.manager.topology = Topology(SimpleNamespace(), shard_map, {})
        assert ends(service.wait()) is None


def test_one_call_reads_the_table_and_the_others_wait(service: Service) -> None:
    first, second = service.wait(), service.wait()
    assert next(first) == READ
    assert service.limits == [REFRESH_TIMEOUT]
    step = next(second)
    assert isinstance(step, steps.AwaitSignal)
    assert step.seconds == REFRESH_TIMEOUT
    service.now += 0.05
    step = first.send(None)
    assert isinstance(step, steps.AwaitSignal)
    assert step.seconds == pytest.approx(REFRESH_INTERVAL)
    service.now += 2 * REFRESH_INTERVAL
    assert first.send(None) == READ
    assert isinstance(second.send(None), steps.AwaitSignal)


def test_a_reading_that_takes_long_is_not_repeated_at_once(service: Service) -> None:
    plan = service.wait()
    assert next(plan) == READ
    service.now += 1.5
    assert plan.send(None).seconds == 1.5


def test_a_table_that_cannot_be_read_is_read_less_often(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    plan = service.wait()
    assert next(plan) == READ
    service.reader.failures = 1
    service.reader.failure = "gone"
    assert plan.throw(OperationalError(2013, "gone")).seconds == 7.0
    assert caplog.text.count("the shard table cannot be read for calls to a shard") == 1
    service.now += 7.0
    assert plan.send(None) == READ
    plan.throw(OperationalError(2013, "gone"))
    assert caplog.text.count("the shard table cannot be read for calls to a shard") == 1


def test_the_activation_of_a_map_wakes_whoever_waits(service: Service) -> None:
    first, second = service.wait(), service.wait()
    next(first)
    first.send(None)
    woken: List[str] = []
    next(second).subscribe(lambda: woken.append("second"))
    others = {**MOVING.shards, **shards(row(2)).shards}
    service.activate(ShardMap(2, others))
    assert woken == []
    service.activate(MOVED._replace(version=3))
    assert woken == ["second"]
    assert (ends(first), ends(second)) == (None, None)
    assert service.manager.waiting.waiting(1) == 0


def test_a_map_that_is_activated_before_the_call_has_its_place_is_seen(service: Service) -> None:
    topology = Topology(SimpleNamespace(), MOVED, {})
    enter = service.manager.waiting.of

    def entering(key: Any) -> Any:
        service.manager.topology = topology
        return enter(key)

    service.manager.waiting.of = entering  # type: ignore[method-assign]
    assert ends(service.wait()) is None


def test_when_the_one_that_reads_leaves_another_one_does(service: Service) -> None:
    first, second = service.wait(until=101.0), service.wait()
    next(first)
    assert service.limits == [1.0]
    woken: List[int] = []
    next(second).subscribe(lambda: woken.append(1))
    service.now = 101.0
    with pytest.raises(DeadlineExceeded, match="waiting for shard 1, which is moving"):
        first.send(None)
    assert woken == [1]
    service.now += 1.1  # the last reading took a second
    assert second.send(None) == READ


def test_the_buffer_is_bounded_and_so_is_the_wait(service: Service) -> None:
    first, second = service.wait(), service.wait()
    next(first)
    next(second)
    with pytest.raises(ShardUnavailable) as caught:
        next(service.wait())
    assert caught.value.reason == "it is moving; 2 calls wait for it (buffer_size)"
    second.close()
    third = service.wait()
    next(third)
    service.now += 10.0
    with pytest.raises(ShardUnavailable) as caught:
        third.send(None)
    assert caught.value.reason == "it is moving; the call has waited for 10 s (buffer_timeout)"
    assert (caught.value.retry_after, caught.value.sent) == (1.0, False)


def test_closing_the_service_ends_it(service: Service) -> None:
    service.manager.topology = Topology(SimpleNamespace(), MOVING, {})
    first, second = service.wait(), service.wait()
    next(first)
    woken: List[int] = []
    next(second).subscribe(lambda: woken.append(1))
    service.manager.close()
    assert woken == [1]
    with pytest.raises(ServiceNotOpen):
        second.send(None)
    with pytest.raises(ServiceNotOpen):
        first.throw(ServiceNotOpen("closed"))


def test_an_interrupted_call_leaves_its_place(service: Service) -> None:
    plan = service.wait()
    next(plan)
    with pytest.raises(KeyboardInterrupt):
        plan.throw(KeyboardInterrupt())
    assert service.manager.waiting.waiting(1) == 0
    service.now += 2 * REFRESH_INTERVAL
    assert next(service.wait()) == READ


def test_a_forked_child_waits_for_nobody(service: Service) -> None:
    plan = service.wait()
    next(plan)
    service.manager.forked()
    service.moving.forked()
    assert service.manager.waiting.waiting(1) == 0
    assert next(service.wait()) == READ
