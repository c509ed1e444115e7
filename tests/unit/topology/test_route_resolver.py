"""Which client a call gets: by the map, transactions, scopes and refreshes."""

import logging
from types import SimpleNamespace
from typing import Any, List, Optional

import pytest
from shard_rows import BASE, row

from dualdb import CrossShardError, ServiceNotOpen, ShardNotFound, ShardUnavailable
from dualdb.topology.manager import Topology
from dualdb.topology.routing import RouteResolver
from dualdb.topology.shard_map import parse_shard_table


def client(shard_id: Optional[int]) -> Any:
    return SimpleNamespace(shard_id=shard_id)


def topology(*rows: Any) -> Topology:
    shard_map = parse_shard_table(rows, BASE)
    clients = {
        key: client(key)
        for key, shard in shard_map.shards.items()
        if shard.status.value in ("active", "readonly")
    }
    return Topology(client(None), shard_map, clients)


class Lifecycle:
    """What the resolver sees of a service."""

    def __init__(self, active: Optional[Topology]) -> None:
        self.manager = SimpleNamespace(topology=active, require_open=self._require_open)
        self.moving = SimpleNamespace(wait=self._wait)
        self.retry_after = 2.5
        self.after: Optional[Topology] = None
        self.unchecked: List[int] = []

    def _require_open(self) -> Topology:
        if self.manager.topology is None:
            raise ServiceNotOpen("closed")
        active: Topology = self.manager.topology
        return active

    def check_known(self, shard_id: int) -> None:
        self.unchecked.append(shard_id)

    def refresh_on_miss(self, shard_id: int, until: Optional[float]) -> Any:
        yield ("refresh", shard_id, until)
        self.manager.topology = self.after or self.manager.topology

    def _wait(self, shard_id: int, until: Optional[float]) -> Any:
        yield ("wait", shard_id, until)
        self.manager.topology = self.after or self.manager.topology


def open_on(active: Topology, shard_id: Optional[int], *, other_shards: bool = False) -> Any:
    """The caller's transaction, begun on a topology."""
    on = active.global_client if shard_id is None else active.clients[shard_id]
    options = SimpleNamespace(other_shards=other_shards)
    begun = SimpleNamespace(topology=active, client=on, options=options)
    return SimpleNamespace(shard_id=shard_id, begun=begun)


BEFORE = topology(row(1), row(2), row(3, status="moving"), row(4, status="inactive"))
AFTER = topology(row(1, host="elsewhere"), row(2), row(3), row(5))


@pytest.fixture
def lifecycle() -> Lifecycle:
    return Lifecycle(BEFORE)


def resolver(lifecycle: Any, *transactions: Any, absent: Any = "global", **more: Any) -> Any:
    return RouteResolver(lifecycle, absent, lambda: transactions, **more)


def steps_of(plan: Any) -> Any:
    """The steps of a plan, and what it returns."""
    steps = []
    while True:
        try:
            steps.append(next(plan))
        except StopIteration as done:
            return steps, done.value


def found(routes: Any, shard_id: Optional[int], *, named: bool = False) -> Any:
    """The client of a call for which nothing is waited for, by both ways of asking."""
    steps, chosen = steps_of(routes.resolve(shard_id, named=named))
    assert steps == []
    assert routes.find(shard_id, named=named) is chosen
    return chosen


def test_the_map_decides(lifecycle: Lifecycle) -> None:
    assert found(resolver(lifecycle), 2) is BEFORE.clients[2]
    assert lifecycle.unchecked == [2, 2]
    assert found(resolver(lifecycle), None) is BEFORE.global_client
    assert lifecycle.unchecked == [2, 2]
    with pytest.raises(ShardNotFound, match="inactive"):
        found(resolver(lifecycle, absent="error"), 4)
    with pytest.raises(ShardUnavailable, match="inactive"):
        found(resolver(lifecycle), 4, named=True)


def test_a_closed_service_has_no_clients() -> None:
    routes = resolver(Lifecycle(None))
    with pytest.raises(ServiceNotOpen):
        routes.find(1, named=True)
    with pytest.raises(ServiceNotOpen):
        next(routes.resolve(1, named=True))


def test_an_absent_shard_is_warned_of_once(
    lifecycle: Lifecycle, caplog: pytest.LogCaptureFixture
) -> None:
    routes = resolver(lifecycle)
    with caplog.at_level(logging.WARNING, "dualdb.topology"):
        for _ in range(2):
            assert found(routes, 4) is BEFORE.global_client
    assert [record.event for record in caplog.records] == ["shard_absent"]  # type: ignore[attr-defined]


def test_a_shard_that_the_map_lacks_is_looked_for_in_the_table(lifecycle: Lifecycle) -> None:
    lifecycle.after = AFTER
    steps, chosen = steps_of(resolver(lifecycle).resolve(5, named=True, until=9.0))
    assert (steps, chosen) == ([("refresh", 5, 9.0)], AFTER.clients[5])

    lifecycle = Lifecycle(BEFORE)
    steps, chosen = steps_of(resolver(lifecycle).resolve(5, named=False))
    assert (steps, chosen) == ([("refresh", 5, None)], BEFORE.global_client)


def test_a_shard_that_is_moving_is_waited_for_as_often_as_it_takes(lifecycle: Lifecycle) -> None:
    plan = resolver(lifecycle).resolve(3, named=True, until=7.0)
    assert [next(plan), next(plan)] == [("wait", 3, 7.0)] * 2
    lifecycle.after = AFTER
    assert steps_of(plan) == ([], AFTER.clients[3])
    with pytest.raises(ShardUnavailable, match="it is moving"):
        resolver(Lifecycle(BEFORE)).find(3, named=True)


def test_nothing_is_waited_for_that_would_be_refused(lifecycle: Lifecycle) -> None:
    with pytest.raises(CrossShardError):
        next(resolver(lifecycle, open_on(BEFORE, 1)).resolve(3, named=True))

    def locked(shard_id: int) -> None:
        raise CrossShardError(f"locked against {shard_id}")

    routes = resolver(lifecycle, check=locked)
    for shard_id in (2, 3):
        with pytest.raises(CrossShardError, match=f"locked against {shard_id}"):
            next(routes.resolve(shard_id, named=True))
    assert found(routes, None) is BEFORE.global_client


def test_a_transaction_on_another_shard_is_in_the_way(lifecycle: Lifecycle) -> None:
    routes = resolver(lifecycle, open_on(BEFORE, 1))
    assert found(routes, 1) is BEFORE.clients[1]
    assert found(routes, None) is BEFORE.global_client
    with pytest.raises(CrossShardError, match="shard 2 is another database than shard 1"):
        found(routes, 2)
    either = resolver(lifecycle, open_on(BEFORE, 1), open_on(BEFORE, 2))
    assert found(either, 2) is BEFORE.clients[2]
    assert found(resolver(lifecycle, open_on(BEFORE, 1, other_shards=True)), 2).shard_id == 2
    assert found(resolver(lifecycle, open_on(BEFORE, None)), 2).shard_id == 2


def test_a_transaction_stays_where_it_began_when_the_map_changes(lifecycle: Lifecycle) -> None:
    lifecycle.manager.topology = AFTER
    assert found(resolver(lifecycle, open_on(BEFORE, 1)), 1) is BEFORE.clients[1]
    # by the map of its beginning, to which shard 4 was absent
    assert found(resolver(lifecycle, open_on(BEFORE, None)), 4) is BEFORE.global_client
    # other calls go by the new map, also for a shard that was not in service then
    aside = resolver(lifecycle, open_on(BEFORE, 1, other_shards=True))
    assert found(aside, 3) is AFTER.clients[3]
    assert found(aside, 2) is AFTER.clients[2]


def test_a_transaction_on_a_shard_that_is_gone_is_not_looked_up_again() -> None:
    lifecycle = Lifecycle(topology(row(1, status="moving")))
    routes = resolver(lifecycle, open_on(BEFORE, 1), open_on(BEFORE, 2))
    assert steps_of(routes.resolve(1, named=True)) == ([], BEFORE.clients[1])
    assert steps_of(routes.resolve(2, named=True)) == ([], BEFORE.clients[2])
