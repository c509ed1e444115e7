"""A Galera cluster of two real nodes: what only a cluster says, at COMMIT, and what a
node cannot do.
"""

import os
import shutil
import tempfile
from typing import Any, Dict, Iterator, List

import pymysql.err
import pytest
from io_kinds import IO
from waiting import wait_for

from dualdb import DatabaseConfig, Deadlock, NotSupportedError
from dualdb.sandbox.server import Engine, Server, free_port

pytestmark = pytest.mark.slow

NODES = ("one", "other")
PROVIDER = "/usr/lib/galera/libgalera_smm.so"


def options(name: str, ports: Dict[str, int]) -> List[str]:
    port, copied, missed = ports[name], ports[f"{name}: a copy"], ports[f"{name}: what it missed"]
    provider = f"base_host=127.0.0.1; base_port={port}; gmcast.listen_addr=tcp://127.0.0.1:{port}; "
    return [
        "--wsrep-on=ON",
        f"--wsrep-provider={PROVIDER}",
        "--wsrep-cluster-name=dualdb",
        "--wsrep-cluster-address=gcomm://"
        + ",".join([f"127.0.0.1:{ports[each]}" for each in NODES]),
        f"--wsrep-node-address=127.0.0.1:{port}",
        f"--wsrep-sst-receive-address=127.0.0.1:{copied}",
        "--wsrep-sst-method=rsync",
        (
            f"--wsrep-provider-options={provider}ist.recv_addr=127.0.0.1:{missed}; "
            "gcache.size=8M; gcache.page_size=8M"
        ),
        "--binlog-format=ROW",
        "--innodb-autoinc-lock-mode=2",
    ]


@pytest.fixture(scope="module")
def nodes() -> Iterator[List[Server]]:
    engine = Engine()
    if not engine.is_mariadb or not os.path.exists(PROVIDER):
        raise RuntimeError(
            "these tests need MariaDB with Galera (Debian and Ubuntu: apt-get install "
            "mariadb-server galera-4)"
        )
    directory = tempfile.mkdtemp(prefix="dualdb-galera-")
    one, other = f"{directory}/one", f"{directory}/other"
    names = [f"{name}{use}" for name in NODES for use in ("", ": a copy", ": what it missed")]
    ports = {name: free_port(engine) for name in names}
    for each in (one, other):
        os.mkdir(each)
    engine.prepare(f"{one}/data")
    first = Server(engine, "one", one, [*options("one", ports), "--wsrep-new-cluster"])
    second = Server(engine, "other", other, options("other", ports))
    try:
        first.start()
        first.run(
            "CREATE DATABASE app",
            "CREATE USER u@'%' IDENTIFIED BY 'p'",
            "GRANT ALL ON app.* TO u@'%'",
        )
        first.run("CREATE TABLE app.accounts (id INT PRIMARY KEY, cents INT NOT NULL)")
        # The other begins with a copy, so that it is sent what came since and nothing
        # else. Where that is received it is nobody's account.
        first.stop()
        shutil.copytree(
            f"{one}/data", f"{other}/data", ignore=shutil.ignore_patterns("galera.cache")
        )
        for path, mode in ((directory, 0o711), (other, 0o711), (f"{other}/data", 0o777)):
            os.chmod(path, mode)
        first.start()
        second.start()
        for node in (first, second):
            wait_until_synced(node)
        yield [first, second]
    finally:
        second.stop()
        first.stop()
        shutil.rmtree(directory)


def wait_until_synced(node: Server) -> None:
    """Wait through a time in which a joining node refuses, or closes connections."""

    def is_synced() -> bool:
        assert node.is_running, node.log()[-4000:]
        try:
            (state,) = node.run("SHOW STATUS LIKE 'wsrep_local_state_comment'")
        except (OSError, pymysql.err.MySQLError):
            return False
        return bool(state["Value"] == "Synced")

    try:
        wait_for(is_synced, 60, every=0.05)
    except AssertionError as error:
        raise AssertionError(f"{node} is not synced: {error}\n{node.log()[-4000:]}") from None


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
