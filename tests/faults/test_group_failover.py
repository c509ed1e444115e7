"""Members of a group of MySQL servers that are lost while they are written to: what is
acknowledged is there, once, on every member.
"""

from typing import Any, Iterator

import pytest
from clusters import MEMBER_GRANT, Group, Load, group
from io_kinds import IO
from waiting import wait_for

from dualdb import NoPrimary

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def started() -> Iterator[Group]:
    with group(3) as made:
        made.nodes[0].run(MEMBER_GRANT)
        yield made


def restore(cluster: Group) -> None:
    """Have every server be a member again."""
    for node in cluster.nodes:
        node.resume()
    for node in cluster.nodes:
        if not node.is_running:
            cluster.start(node)
    members = [
        node for node in cluster.nodes if "ONLINE" in cluster.states(node).get(node.port, "")
    ]
    if not members:
        cluster.bootstrap(cluster.nodes[0])
        members = cluster.nodes[:1]
    for node in cluster.nodes:
        if node not in members:
            node.run("STOP GROUP_REPLICATION")
            cluster.join(node)
    for node in cluster.nodes:
        cluster.wait_until_online(node)
    if cluster.primary(cluster.nodes[0]) is not cluster.nodes[0]:
        cluster.switch(cluster.nodes[0])


@pytest.fixture
def cluster(started: Group) -> Iterator[Group]:
    """All servers are members, and empty; the first is the primary."""
    restore(started)
    started.nodes[0].run("TRUNCATE app.tokens")
    yield started


@pytest.fixture
def client(cluster: Group, io: IO) -> Iterator[Any]:
    made = io.Client(cluster.config(buffer_timeout=200.0, pool_timeout=200.0))
    yield made
    io(made.close_pool())
    assert made.stats().in_use == 0


def check_all(cluster: Group, load: Load) -> None:
    restore(cluster)
    (row,) = cluster.nodes[0].run("SELECT @@gtid_executed AS written")
    for node in cluster.nodes:
        (waited,) = node.run(f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{row['written']}', 60) AS late")
        assert waited["late"] == 0
        load.check(node)


def test_a_planned_switch(cluster: Group, client: Any, io: IO) -> None:
    load = Load(io, client)

    def switch(load: Load) -> None:
        for node in (cluster.nodes[1], cluster.nodes[2]):
            cluster.switch(node)
            load.wait_for_writes(50)

    load.run(switch)
    load.check_errors(faults=2)
    check_all(cluster, load)


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_the_primary_is_lost_and_comes_back_as_a_secondary(
    cluster: Group, client: Any, io: IO, how: str
) -> None:
    load = Load(io, client)
    first = cluster.nodes[0]

    def lose(load: Load) -> None:
        if how == "kill":
            first.kill()
            load.wait_for_writes()
        else:
            with cluster.stopping(first):
                load.wait_for_writes()
        # It is writable until it has joined, and none of its writes would be kept.
        cluster.start(first)
        load.wait_for_writes(50)
        cluster.join(first)
        cluster.wait_until_online(first)
        load.wait_for_writes()

    load.run(lose)
    load.check_errors()
    check_all(cluster, load)


def test_a_frozen_primary(cluster: Group, client: Any, io: IO) -> None:
    load = Load(io, client)
    first = cluster.nodes[0]

    def freeze(load: Load) -> None:
        first.pause()
        load.wait_for_silence(4.0)
        first.resume()
        load.wait_for_writes()

    load.run(freeze)
    check_all(cluster, load)


def test_a_group_without_a_quorum_is_waited_for(cluster: Group, client: Any, io: IO) -> None:
    load = Load(io, client)
    first, *others = cluster.nodes

    def lose(load: Load) -> None:
        for node in others:
            node.kill()
        wait_for(lambda: cluster.states(first).get(first.port, "").startswith("ERROR"), 90)
        first.run("STOP GROUP_REPLICATION")
        cluster.bootstrap(first)
        load.wait_for_writes(seconds=120)

    load.run(lose)
    # It says that it is the primary until it finds out, so that it is tried once more.
    load.check_errors(faults=2)
    check_all(cluster, load)


def test_a_server_outside_its_group_is_not_used(cluster: Group, io: IO) -> None:
    """It accepts writes, which no member has, and which keep it from joining again."""
    first = cluster.nodes[0]
    for node in cluster.nodes:
        node.run("STOP GROUP_REPLICATION")
        node.run("SET GLOBAL super_read_only = 0", "SET GLOBAL read_only = 0")
    client = io.Client(cluster.config(buffer_timeout=0.5))
    with pytest.raises(NoPrimary, match=r"it is not in its group \(OFFLINE"):
        io(client.execute("INSERT INTO tokens (token) VALUES ('stray')"))
    cluster.bootstrap(first)
    wait_for(lambda: cluster.states(first).get(first.port) == "ONLINE/PRIMARY")
    io(client.execute("INSERT INTO tokens (token) VALUES ('kept')"))
    io(client.close_pool())
    assert [row["token"] for row in first.run("SELECT token FROM app.tokens")] == ["kept"]


def test_without_the_privilege_a_server_that_never_joined_is_not_used(
    cluster: Group, io: IO, caplog: pytest.LogCaptureFixture
) -> None:
    first, _, third = cluster.nodes
    first.run(MEMBER_GRANT.replace("GRANT", "REVOKE").replace(" TO ", " FROM "))
    third.kill()
    cluster.start(third)
    config = cluster.config()
    hosts = config.host.split(",")
    client = io.Client(config.model_copy(update={"host": ",".join([hosts[2], hosts[0]])}))
    try:
        io(client.execute("INSERT INTO tokens (token) VALUES ('kept')"))
        warnings = [record.getMessage() for record in caplog.records if "GRANT" in record.message]
        assert len(warnings) == 1
        assert "replication_group_members" in warnings[0]
    finally:
        io(client.close_pool())
        first.run(MEMBER_GRANT)
    assert [row["token"] for row in first.run("SELECT token FROM app.tokens")] == ["kept"]
