"""A Galera cluster of two real nodes: what only a cluster says, at COMMIT, and what a
node cannot do.
"""

from typing import Any, Iterator, List

import pytest
from clusters import galera
from io_kinds import IO
from waiting import wait_for

from dualdb import DatabaseConfig, Deadlock, NotSupportedError
from dualdb.sandbox.server import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nodes() -> Iterator[List[Server]]:
    with galera(2) as cluster:
        cluster.nodes[0].run("CREATE TABLE app.accounts (id INT PRIMARY KEY, cents INT NOT NULL)")
        yield cluster.nodes


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


def test_a_node_s_locks_are_refused(clients: List[Any], io: IO) -> None:
    with pytest.raises(NotSupportedError, match="Galera"):
        io.entered(clients[0].lock("mine", timeout=0)).__enter__()
    assert io(clients[0].query_value("SELECT IS_FREE_LOCK('mine')"))
