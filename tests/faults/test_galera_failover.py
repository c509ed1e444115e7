"""Nodes of a Galera cluster that are lost while they are written to: what is
acknowledged is there, once, on every node.
"""

from typing import Any, Iterator

import pytest
from clusters import Galera, Load, answer, galera
from io_kinds import IO
from waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def started() -> Iterator[Galera]:
    with galera(3) as cluster:
        yield cluster


@pytest.fixture
def cluster(started: Galera) -> Iterator[Galera]:
    """All nodes in sync and empty, before and after."""
    started.nodes[0].run("TRUNCATE app.tokens")
    yield started
    for node in started.nodes:
        node.resume()
    for node in started.nodes:
        if not node.is_running:
            node.launch()
    for node in started.nodes:
        started.wait_until_synced(node)


@pytest.fixture
def client(cluster: Galera, io: IO) -> Iterator[Any]:
    made = io.Client(cluster.config())
    yield made
    io(made.close_pool())
    assert made.stats().in_use == 0


READ_IN_TIME = ("SET SESSION wsrep_sync_wait = 1", "SELECT COUNT(*) FROM app.tokens")


def check_all(cluster: Galera, load: Load) -> None:
    for node in cluster.nodes:
        if not node.is_running:
            node.launch()
    for node in cluster.nodes:
        cluster.wait_until_synced(node)
    for node in cluster.nodes:
        wait_for(lambda node=node: answer(node, *READ_IN_TIME), 60)
        load.check(node)


@pytest.mark.parametrize("how", ["kill", "stop", "pause"])
def test_a_node_is_lost_and_comes_back(cluster: Galera, client: Any, io: IO, how: str) -> None:
    load = Load(io, client)
    first = cluster.nodes[0]

    def lose(load: Load) -> None:
        getattr(first, how)()
        if how == "pause":
            load.wait_for_silence()
        load.wait_for_writes()
        first.resume()
        if not first.is_running:
            first.launch()
        cluster.wait_until_synced(first)
        load.wait_for_writes()

    load.run(lose)
    # One that goes on after a pause takes writes until it notices that it was expelled,
    # which is a second fault.
    load.check_errors(faults=2 if how == "pause" else 1)
    check_all(cluster, load)


def test_a_cluster_without_a_quorum_is_waited_for(cluster: Galera, client: Any, io: IO) -> None:
    load = Load(io, client)
    first, *others = cluster.nodes

    def lose(load: Load) -> None:
        for node in others:
            node.kill()
        wait_for(
            lambda: (
                answer(first, "SHOW STATUS LIKE 'wsrep_cluster_status'")[0]["Value"] != "Primary"
            ),
            60,
        )
        first.run("SET GLOBAL wsrep_provider_options = 'pc.bootstrap=1'")
        load.wait_for_writes()

    load.run(lose)
    load.check_errors()
    check_all(cluster, load)
