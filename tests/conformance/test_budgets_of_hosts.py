"""The limit of connections to a server, where databases have several hosts: each
connection counts at the host that it goes to, and nobody holds a place while he waits
for something else.
"""

import random
import threading
import time
from typing import Any, Dict, Generator, Iterator, List, Tuple

import pytest
from database_servers import Databases
from io_kinds import IO
from waiting import connections_to, wait_for

from dualdb import ConnectionFailed, DeadlineExceeded, Error, PoolTimeout
from dualdb.protocol.connection_state import ConnectionState
from dualdb.testing import FaultProxy

CALLERS = 50


class Hosts:
    """Two hosts, each a proxy in front of shard 1's server, and clients of them."""

    def __init__(self, databases: Databases, io: IO) -> None:
        config = databases.config_of(1)
        self.io = io
        self.databases = databases
        self.proxies = [FaultProxy(config.host, config.port) for _ in range(2)]
        self.clients: List[Any] = []

    @property
    def ports(self) -> Tuple[int, ...]:
        return tuple([proxy.port for proxy in self.proxies])

    def client(self, hosts: str, **changes: Any) -> Any:
        """A client; in ``hosts``, {0} and {1} are the ports of the hosts."""
        options: Dict[str, Any] = {"max_connections_per_server": 1, "pool_timeout": 0.3}
        config = self.databases.config_of(
            1, host=hosts.format(*self.ports), **{**options, **changes}
        )
        self.clients.append(self.io.Client(config, name=f"shard {len(self.clients)}"))
        return self.clients[-1]

    def open(self, client: Any) -> Dict[str, int]:
        """The connections to each host, by the budgets of a client."""
        return {each.server: each.stats().open for each in client.pool.budgets.all}

    def at(self, number: int) -> str:
        return f"localhost:{self.ports[number]}"

    def kill(self, number: int) -> None:
        """Cut all connections to a host, and refuse others."""
        self.proxies[number].__exit__()

    def set_read_only(self, value: int) -> None:
        self.databases.run(1, f"SET GLOBAL read_only = {value}")

    def close(self) -> None:
        for client in self.clients:
            self.io(client.close_pool())
        for proxy in self.proxies:
            proxy.__exit__()
        self.set_read_only(0)
        for client in self.clients:
            assert client.stats().in_use == 0
            assert sum(self.open(client).values()) == 0


@pytest.fixture
def hosts(databases: Databases, io: IO) -> Iterator[Hosts]:
    made = Hosts(databases, io)
    yield made
    made.close()


@pytest.mark.parametrize("other", ["127.0.0.1:{0}", "localhost:{0}", "127.0.0.1:{0},127.0.0.1:{1}"])
def test_pools_that_share_a_host_share_its_budget(hosts: Hosts, io: IO, other: str) -> None:
    first = hosts.client("127.0.0.1:{0},127.0.0.1:{1}")
    second = hosts.client(other)
    assert io(second.query_value("SELECT 1")) == 1
    with io.entered(first.transaction()) as tx:
        io(tx.query("SELECT 1"))
        assert hosts.open(first) == {hosts.at(0): 1, hosts.at(1): 0}
        with pytest.raises(PoolTimeout, match=f"to the server {hosts.at(0)} are open"):
            io(second.query("SELECT 1"))
        assert connections_to(hosts.ports[0]) == 1
    assert io(second.query_value("SELECT 1")) == 1


def test_the_order_of_the_hosts_does_not_matter(hosts: Hosts, io: IO) -> None:
    first = hosts.client("127.0.0.1:{0},127.0.0.1:{1}")
    second = hosts.client("localhost:{1},localhost:{0}")
    with io.entered(first.transaction()) as one, io.entered(second.transaction()) as two:
        io(one.query("SELECT 1"))
        io(two.query("SELECT 1"))
        for client in (first, second):
            assert hosts.open(client) == {hosts.at(0): 1, hosts.at(1): 1}


def test_an_idle_connection_of_another_list_of_hosts_makes_room(hosts: Hosts, io: IO) -> None:
    first = hosts.client("127.0.0.1:{0},127.0.0.1:{1}")
    second = hosts.client("localhost:{0}")
    for _ in range(3):
        for client in (first, second):
            assert io(client.query_value("SELECT 1")) == 1
            assert connections_to(*hosts.ports) == 1
    (budget,) = second.pool.budgets.all
    assert budget.stats()[:4] == (1, 1, 0, 0)
    assert budget.stats().taken_over >= 5


def test_with_the_policy_any_a_host_with_room_is_used(hosts: Hosts, io: IO) -> None:
    client = hosts.client(
        "127.0.0.1:{0},127.0.0.1:{1}", endpoint_policy="any", pool_size=4, pool_timeout=20.0
    )
    with io.entered(client.transaction()) as one:
        io(one.query("SELECT 1"))

        def second() -> Generator[Any, Any, Any]:
            return (yield client.query_value("SELECT 2"))

        assert io.in_other_caller(io.function(second)) == 2
        assert sorted(hosts.open(client).values()) == [1, 1]


def test_callers_that_wait_for_a_primary_use_up_nothing(hosts: Hosts, io: IO) -> None:
    pair = "127.0.0.1:{0},127.0.0.1:{1}"
    waiting = hosts.client(pair, pool_size=10, buffer_timeout=20.0, pool_timeout=20.0)
    reading = hosts.client(pair, endpoint_policy="any", pool_timeout=20.0)
    hosts.set_read_only(1)
    read: List[Any] = []

    def read_and_promote() -> Generator[Any, Any, None]:
        while waiting.pool.endpoints.buffer.waiting < 5:
            yield io.pause(0.01)
        for _ in range(5):
            read.append((yield reading.query_value("SELECT 1")))
        for budget in waiting.pool.budgets.all:
            assert budget.stats().waiting == 0
        hosts.set_read_only(0)

    calls = [lambda: waiting.query_value("SELECT 2")] * 8
    outcomes = io.concurrently([*calls, io.function(read_and_promote)])
    assert (read, outcomes[:8]) == ([1] * 5, [2] * 8)
    assert outcomes[8] is None


def test_after_a_failover_the_old_host_has_none(hosts: Hosts, io: IO) -> None:
    pair = "127.0.0.1:{0},127.0.0.1:{1}"
    clients = [hosts.client(pair, pool_timeout=20.0) for _ in range(3)]
    other = hosts.client("127.0.0.1:{1}")
    for client in clients:
        assert io(client.query_value("SELECT 1")) == 1
    assert hosts.open(clients[0]) == {hosts.at(0): 1, hosts.at(1): 0}
    hosts.kill(0)
    for client in clients:
        assert io(client.query_value("SELECT 2")) == 2
    assert hosts.open(clients[0]) == {hosts.at(0): 0, hosts.at(1): 1}
    with io.entered(clients[0].transaction()) as tx:
        io(tx.query("SELECT 3"))
        with pytest.raises(PoolTimeout, match=hosts.at(1)):
            io(other.query("SELECT 4"))
    assert io(other.query_value("SELECT 4")) == 4


def test_who_waits_for_the_old_primary_goes_to_the_new_one(hosts: Hosts, io: IO) -> None:
    """A transaction has the only connection to the old one, and does not end."""
    pair = "127.0.0.1:{0},127.0.0.1:{1}"
    blocking = hosts.client("127.0.0.1:{0}")
    waiting = hosts.client(pair, pool_timeout=20.0)
    assert io(waiting.query_value("SELECT 1")) == 1
    with io.entered(blocking.transaction()) as tx:
        io(tx.query("SELECT 1"))  # it has taken over the idle connection

        def promote() -> Generator[Any, Any, None]:
            while not blocking.pool.budgets.all[0].stats().waiting:
                yield io.pause(0.01)
            # as of a statement that it has refused
            waiting.pool.endpoints.all[0].record_refusal(time.monotonic())
            assert (yield waiting.query_value("SELECT 3")) == 3

        outcomes = io.concurrently([lambda: waiting.query_value("SELECT 2"), io.function(promote)])
        assert outcomes == [2, None]
        assert hosts.open(waiting) == {hosts.at(0): 1, hosts.at(1): 1}


def test_the_wait_for_several_hosts_honours_the_deadline(hosts: Hosts, io: IO) -> None:
    pair = "127.0.0.1:{0},127.0.0.1:{1}"
    blocking = [hosts.client(f"127.0.0.1:{{{number}}}") for number in (0, 1)]
    client = hosts.client(pair, pool_timeout=20.0)
    with io.entered(blocking[0].transaction()) as one, io.entered(blocking[1].transaction()) as two:
        io(one.query("SELECT 1"))
        io(two.query("SELECT 1"))
        with io.deadline(0.1), pytest.raises(DeadlineExceeded):
            io(client.query("SELECT 1"))
        io.interrupted(lambda: client.query("SELECT 1"))
        assert [each.stats().waiting for each in client.pool.budgets.all] == [0, 0]
        assert hosts.open(client) == {hosts.at(0): 1, hosts.at(1): 1}
    assert io(client.query_value("SELECT 1")) == 1


def test_a_dead_host_keeps_no_permit(hosts: Hosts, io: IO, quick_retries: None) -> None:
    client = hosts.client("127.0.0.1:{0},127.0.0.1:{1}")
    hosts.kill(0)
    hosts.kill(1)
    for _ in range(3):
        with pytest.raises(ConnectionFailed, match="no primary among"):
            io(client.query("SELECT 1"))
    assert hosts.open(client) == {hosts.at(0): 0, hosts.at(1): 0}


def test_an_open_circuit_fails_those_that_wait_for_a_permit(
    hosts: Hosts, io: IO, quick_retries: None
) -> None:
    """The transaction's connection is cut as well, but its slot is not returned."""
    blocking = hosts.client("127.0.0.1:{0}", max_connections_per_server=2)
    client = hosts.client("127.0.0.1:{0}", max_connections_per_server=2, pool_timeout=20.0)
    hosts.kill(0)
    outcomes = io.concurrently([lambda: client.query("SELECT 1")] * 10)
    assert all(isinstance(each, Error) for each in outcomes)
    assert not any(isinstance(each, PoolTimeout) for each in outcomes)
    assert hosts.open(blocking) == {hosts.at(0): 0}


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 2])
def test_it_holds_under_cancellations_and_a_failover(
    hosts: Hosts, io: IO, limit: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Sessions that are killed have a connection for that outside of the budget.
    monkeypatch.setattr(ConnectionState, "needs_kill", False)
    chance = random.Random(seed)
    lists = [
        "127.0.0.1:{0},127.0.0.1:{1}",
        "localhost:{1},localhost:{0}",
        "127.0.0.1:{0},localhost:{1}",
    ]
    clients = [
        hosts.client(text, max_connections_per_server=limit, pool_timeout=20.0, pool_size=3)
        for text in lists
    ]
    most: Dict[int, int] = dict.fromkeys(hosts.ports, 0)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            for port in hosts.ports:
                most[port] = max(most[port], connections_to(port))

    def ask(client: Any, waits: List[float]) -> Generator[Any, Any, int]:
        answered = 0
        for number, wait in enumerate(waits):
            if client is clients[0] and number == 5:
                hosts.kill(0)
            try:
                yield client.query("SELECT SLEEP(0.002)", timeout=wait)
                answered += 1
            except Error:
                pass
        return answered

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        calls = []
        for number in range(CALLERS):
            waits = [chance.choice([0.005, 0.02, 0.1, 10.0]) for _ in range(8)]
            client = clients[number % len(clients)]
            calls.append(lambda client=client, waits=waits: io.function(ask)(client, waits))
        outcomes = io.concurrently(calls)
    finally:
        done.set()
        watcher.join()
    assert all(type(each) is int for each in outcomes), outcomes
    assert sum(outcomes) > CALLERS
    assert max(most.values()) <= limit
    for client in clients:
        assert [each.stats().waiting for each in client.pool.budgets.all] == [0, 0]
        io(client.close_pool())
    assert hosts.open(clients[0]) == {hosts.at(0): 0, hosts.at(1): 0}
    wait_for(lambda: connections_to(*hosts.ports) == 0)
