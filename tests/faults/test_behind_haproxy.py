"""Servers behind one address: a KILL reaches its own session or none, and a switch of
the primary is followed.
"""

import contextlib
import threading
from typing import Any, Iterator, List, Tuple

import pymysql
import pymysql.err
import pytest
from clusters import Load, ReplicaPair, replica_pair
from haproxy import HAProxy, haproxy
from io_kinds import IO
from waiting import wait_for

from dualdb import DeadlineExceeded, ReadOnlyServer
from dualdb.sandbox.server import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pair() -> Iterator[ReplicaPair]:
    with replica_pair() as made:
        yield made


@pytest.fixture
def proxy(pair: ReplicaPair) -> Iterator[HAProxy]:
    with haproxy(pair.nodes) as made:
        yield made


def sleeping(server: Server, seconds: int) -> List[int]:
    """The sessions that sleep for so long."""
    rows = server.run(
        f"SELECT id FROM information_schema.processlist WHERE info = 'SELECT SLEEP({seconds}) AS n'"
    )
    return [int(row["id"]) for row in rows]


class Innocent:
    """A session of the same user, in the middle of a statement; one on each server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.connection = pymysql.connect(
            host="127.0.0.1", port=server.port, user="u", password="p", ssl_disabled=True
        )
        self._session = int(self.connection.thread_id())  # type: ignore[no-untyped-call]
        self.error: List[BaseException] = []
        self._thread = threading.Thread(target=self._sleep)
        self._thread.start()
        wait_for(lambda: sleeping(server, 300))

    def _sleep(self) -> None:
        try:
            with self.connection.cursor() as cursor:
                cursor.execute("SELECT SLEEP(300) AS n")
        except pymysql.err.MySQLError as error:
            self.error.append(error)

    @property
    def unharmed(self) -> bool:
        return bool(sleeping(self.server, 300)) and not self.error

    def end(self) -> None:
        # It is gone already if the test has harmed it.
        with contextlib.suppress(pymysql.err.OperationalError):
            self.server.run(f"KILL {self._session}")
        self._thread.join()
        self.connection.close()


@pytest.fixture
def innocents(pair: ReplicaPair) -> Iterator[List[Innocent]]:
    made = [Innocent(node) for node in pair.nodes for _ in range(3)]
    yield made
    for each in made:
        each.end()


@pytest.mark.parametrize("way", ["behind a balancer", "several hosts"])
def test_what_is_given_up_is_ended_on_its_own_server_and_nothing_else_is(
    pair: ReplicaPair, proxy: HAProxy, innocents: List[Innocent], io: IO, way: str
) -> None:
    if way == "several hosts":
        config = pair.config(endpoint_policy="any", pool_size=6)
    else:
        config = pair.config(host="127.0.0.1", port=proxy.port, pool_size=6)
    client = io.Client(config)
    outcomes = io.concurrently(
        [lambda: client.query("SELECT SLEEP(60) AS n", timeout=1.0) for _ in range(6)]
    )
    assert all(isinstance(outcome, DeadlineExceeded) for outcome in outcomes), outcomes
    io.wait_for(lambda: not any(sleeping(node, 60) for node in pair.nodes), 60)
    io.wait_for(lambda: client.stats().in_use == 0, 60)
    assert [each.unharmed for each in innocents] == [True] * 6
    used = {row[0] for row in _ports(io, client)}
    assert used == {node.port for node in pair.nodes}
    io(client.close_pool())


def _ports(io: IO, client: Any) -> List[Tuple[int, ...]]:
    """The ports of the servers that several connections reach."""

    def ask(tx: Any) -> Any:
        rows = yield tx.query("SELECT @@port AS port", as_=tuple)
        yield io.pause(0.1)
        return rows[0]

    found: List[Tuple[int, ...]] = io.concurrently(
        [io.block(client.transaction, ask) for _ in range(6)]
    )
    return found


def test_a_switch_behind_one_address_is_followed_although_its_sessions_stay(
    pair: ReplicaPair, proxy: HAProxy, io: IO
) -> None:
    primary, replica = pair.nodes
    primary.run("TRUNCATE app.tokens")
    proxy.set_state(1, "maint")
    client = io.Client(pair.config(host="127.0.0.1", port=proxy.port))
    load = Load(io, client)

    def switch(load: Load) -> None:
        primary.run("SET GLOBAL read_only = 1")
        pair.wait_until_caught_up(replica, primary)
        pair.promote(replica)
        proxy.set_state(1, "ready")
        proxy.set_state(0, "maint")
        load.wait_for_writes(50)

    load.run(switch)
    assert {type(failure.error) for failure in load.failures} <= {ReadOnlyServer}
    load.check(replica)
    io(client.close_pool())
    # as before, for the other implementation
    replica.run("SET GLOBAL read_only = 1")
    pair.follow(primary, replica)
    pair.wait_until_caught_up(primary, replica)
    pair.promote(primary)
    pair.follow(replica, primary)
    pair.wait_until_caught_up(replica, primary)
