"""Pools that are drained because their shard has gone."""

from types import SimpleNamespace
from typing import Any

import pytest
from shard_rows import BASE, row

from dualdb.execution import steps
from dualdb.topology.manager import Topology, TopologyManager
from dualdb.topology.shard_map import parse_shard_table


@pytest.mark.parametrize("made", ["before", "while the maps are compared", "never"])
def test_a_closed_client_is_drained_if_it_has_a_pool(made: str) -> None:
    client = SimpleNamespace(pool=SimpleNamespace(in_use=1), has_pool=made == "before")
    manager = TopologyManager(lambda *args: None, 30.0, lambda: 100.0)
    with_it = parse_shard_table([row(1)], BASE)
    manager.topology = Topology(SimpleNamespace(), with_it, {1: client})
    plan: Any = manager.activate(parse_shard_table([], BASE, 2))
    for step in plan:
        if isinstance(step, steps.Close):
            assert step.clients == (client,)
            client.has_pool = made != "never"
    found = [(each.client, each.until) for each in manager.draining]
    assert found == ([] if made == "never" else [(client, 130.0)])
