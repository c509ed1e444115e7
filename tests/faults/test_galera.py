"""A Galera cluster of two real nodes: what only a cluster says, at COMMIT, and what a
node cannot do.
"""

from typing import Any, Iterator, List

import pytest
from io_kinds import IO
from waiting import wait_for

from dualdb import DatabaseConfig, Deadlock, LockLost, LockNotAvailable, NotSupportedError
from dualdb.sandbox import Sandbox, Server
from dualdb.topology.shard_map import DDL

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nodes() -> Iterator[List[Server]]:
    with Sandbox(0, galera=2) as sandbox:
        members = sandbox.members["global"]
        members[0].run(
            "CREATE DATABASE app",
            "CREATE USER u@'%' IDENTIFIED BY 'p'",
            "GRANT ALL ON app.* TO u@'%'",
            "CREATE TABLE app.accounts (id INT PRIMARY KEY, cents INT NOT NULL)",
        )
        yield members


@pytest.fixture
def clients(nodes: List[Server], io: IO) -> Iterator[List[Any]]:
    nodes[0].run("TRUNCATE app.accounts", "INSERT INTO app.accounts VALUES (1, 0), (2, 0)")
    assert nodes[1].run(
        "SET SESSION wsrep_sync_wait = 1", "SELECT id, cents FROM app.accounts ORDER BY id"
    ) == [{"id": 1, "cents": 0}, {"id": 2, "cents": 0}]
    made = [
        io.Client(
            DatabaseConfig(host="127.0.0.1", port=node.port, database="app", user="u", password="p")
        )
        for node in nodes
    ]
    yield made
    for client in made:
        io(client.close_pool())
        assert client.stats().in_use == 0


ADD = "UPDATE accounts SET cents = cents + 1 WHERE id = 1"


def cents(node: Server) -> int:
    found = node.run(
        "SET SESSION wsrep_sync_wait = 1", "SELECT cents FROM app.accounts WHERE id = 1"
    )
    return int(found[0]["cents"])


def test_run_begins_again_after_a_conflict_at_commit(
    nodes: List[Server], clients: List[Any], io: IO
) -> None:
    tries: List[int] = []

    def overtaken(tx: Any) -> Any:
        """The first time, a transaction on the other node overtakes this one."""
        yield tx.execute(ADD)
        tries.append(len(tries))
        if len(tries) == 1:
            nodes[1].run("UPDATE app.accounts SET cents = cents + 10 WHERE id = 1")
        return "done"

    assert io(clients[0].run(io.function(overtaken))) == "done"
    assert tries == [0, 1]
    for node in nodes:
        wait_for(lambda node=node: cents(node) == 11)


def test_alone_it_is_a_deadlock_and_nothing_is_applied(
    nodes: List[Server], clients: List[Any], io: IO
) -> None:
    with pytest.raises(Deadlock) as caught, io.entered(clients[0].transaction()) as tx:
        io(tx.execute(ADD))
        nodes[1].run("UPDATE app.accounts SET cents = cents + 10 WHERE id = 1")
    assert caught.value.retryable
    for node in nodes:
        wait_for(lambda node=node: cents(node) == 10)


def test_sums_are_right_where_two_nodes_are_written_to(
    nodes: List[Server], clients: List[Any], io: IO
) -> None:
    def move(tx: Any) -> Any:
        yield tx.execute(ADD)
        yield tx.execute("UPDATE accounts SET cents = cents - 1 WHERE id = 2")

    work = io.function(move)
    outcomes = io.concurrently(
        [
            lambda client=client: client.run(work, attempts=100)
            for client in clients
            for _ in range(10)
        ]
    )
    assert outcomes == [None] * 20
    for node in nodes:
        wait_for(
            lambda node=node: (
                node.run("SELECT cents FROM app.accounts ORDER BY id")
                == [{"cents": 20}, {"cents": -20}]
            )
        )


def leases(node: Server) -> List[Any]:
    return node.run("SET SESSION wsrep_sync_wait = 1", "SELECT * FROM app.dualdb_lock")


def test_a_lock_excludes_everybody_on_every_node(
    nodes: List[Server], clients: List[Any], io: IO
) -> None:
    here, there = clients
    with io.entered(here.lock("it's \\ mine", timeout=0)) as lock:
        io(lock.check())
        for client in clients:
            with pytest.raises(LockNotAvailable):
                io.entered(client.lock("it's \\ mine", timeout=0)).__enter__()
        with io.entered(there.lock("another", timeout=0)):
            assert len(leases(nodes[0])) == 2
    wait_for(lambda: not leases(nodes[1]))
    with io.entered(there.lock("it's \\ mine", timeout=5)):
        pass
    assert leases(nodes[0]) == []


def test_who_waits_for_a_lock_on_another_node_gets_it(clients: List[Any], io: IO) -> None:
    order: List[str] = []

    def hold(name: str, pause: float) -> Any:
        def body(lock: Any) -> Any:
            order.append(f"{name} has it")
            yield io.pause(pause)
            yield lock.check()
            order.append(f"{name} gives it back")

        return body

    def taking(number: int) -> Any:
        return io.block(
            lambda: clients[number % 2].lock("mine", timeout=30), hold(str(number), 0.2)
        )

    blocks = [taking(number) for number in range(4)]
    assert io.concurrently(blocks) == [None] * 4
    assert len(order) == 8
    for taken, given_back in zip(order[::2], order[1::2]):
        assert given_back == taken.replace("has it", "gives it back")


def test_a_lease_is_renewed_while_its_block_runs(
    nodes: List[Server], clients: List[Any], io: IO
) -> None:
    lock = clients[0].lock("mine", timeout=0)
    lock._renew_every = 0.05
    with io.entered(lock):
        (first,) = leases(nodes[1])
        io.wait_for(lambda: leases(nodes[1])[0]["until"] > first["until"])
        io(lock.check())


def test_whoever_has_lost_a_lease_gets_an_error(
    nodes: List[Server], clients: List[Any], io: IO
) -> None:
    end = "UPDATE app.dualdb_lock SET until = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND"
    lock = clients[0].lock("mine", timeout=0)
    with pytest.raises(LockLost), io.entered(lock):
        nodes[0].run(end)
        with io.entered(clients[1].lock("mine", timeout=5)):
            with pytest.raises(LockLost):
                io(lock.check())
    assert clients[0].stats().in_use == 0


def test_xa_is_refused_before_anything_is_begun(nodes: List[Server], io: IO) -> None:
    columns = "(shard_id, host, port, database_name, username, password, status)"
    nodes[0].run(
        DDL.format(table="table_shard_config"),
        *[
            f"INSERT INTO table_shard_config {columns} "
            f"VALUES ({number}, '127.0.0.1', {node.port}, 'app', 'u', 'p', 'active')"
            for number, node in enumerate(nodes, 1)
        ],
        database="app",
    )
    config = DatabaseConfig(
        host="127.0.0.1", port=nodes[0].port, database="app", user="u", password="p"
    )
    service = io.Service(config, xa_grace=None)
    with io.entered(service) as db:
        with pytest.raises(NotSupportedError, match=r"shard 1.*Galera"):
            with io.entered(db.shards([1, 2]).transaction(mode="xa", global_=True)):
                raise AssertionError("begun")
        assert [db.stats()[key].in_use for key in ("global", 1, 2)] == [0, 0, 0]
        with io.entered(db.shards([1]).transaction(mode="best_effort")) as tx:
            io(tx[1].query("SELECT 1"))
    nodes[0].run("DROP TABLE table_shard_config", database="app")
