"""Several hosts behind one name: a dead one is passed over, a primary is waited for,
and what was refused is sent there.
"""

import socket
import threading
import time
from typing import Any, Callable, Iterator

import pytest
from database_servers import Databases
from io_kinds import IO
from waiting import wait_for

from dualdb import ConnectionFailed, DeadlineExceeded, Error, NoPrimary, ReadOnlyServer


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def open_client(databases: Databases, dead_port: int, io: IO) -> Iterator[Callable[..., Any]]:
    """Make a client of shard 1's server and a dead host."""
    made = []

    def open_one(hosts: str = "{dead},{server}", **changes: Any) -> Any:
        config = databases.config_of(1)
        if config.unix_socket is not None:
            raise AssertionError("its server is reached by a port")
        host = hosts.format(dead=f"127.0.0.1:{dead_port}", server=f"{config.host}:{config.port}")
        made.append(io.Client(databases.config_of(1, host=host, **changes)))
        return made[-1]

    yield open_one
    for client in made:
        io(client.close_pool())
        assert client.stats().in_use == 0


@pytest.fixture
def read_only(databases: Databases) -> Iterator[Callable[[int], Any]]:
    def set_it(value: int) -> None:
        databases.run(1, f"SET GLOBAL read_only = {value}")

    yield set_it
    set_it(0)


INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1)"


@pytest.mark.parametrize("policy", ["primary", "primary_first", "any"])
@pytest.mark.parametrize("hosts", ["{dead},{server}", "{server},{dead}"])
def test_a_dead_host_is_passed_over(
    open_client: Callable[..., Any], io: IO, policy: str, hosts: str
) -> None:
    client = open_client(hosts, endpoint_policy=policy)
    for _ in range(3):
        assert io(client.execute(INSERT)) == 1
        client.pool.retire_older(time.monotonic())
    assert client.stats().circuit == "closed"


def test_where_none_is_there_the_error_names_each(
    open_client: Callable[..., Any], io: IO, quick_retries: None
) -> None:
    client = open_client("{dead},127.0.0.1:1")
    with pytest.raises(NoPrimary, match=r"no primary among 127.0.0.1:\d+: .*2003.*127.0.0.1:1: "):
        io(client.execute(INSERT))


def test_a_refused_statement_is_sent_where_the_primary_is(
    databases: Databases, open_client: Callable[..., Any], read_only: Any, io: IO
) -> None:
    client = open_client()
    assert io(client.execute(INSERT)) == 1
    read_only(1)
    writable = threading.Timer(0.5, read_only, (0,))
    writable.start()
    assert io(client.execute(INSERT)) == 1
    writable.join()
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == 2


def test_inside_a_transaction_it_is_not(
    databases: Databases, open_client: Callable[..., Any], read_only: Any, io: IO
) -> None:
    client = open_client()
    with pytest.raises(ReadOnlyServer) as caught, io.entered(client.transaction()) as tx:
        io(tx.execute(INSERT))
        read_only(1)
        io(tx.execute(INSERT))
    assert caught.value.retryable
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == 0


def test_reads_go_on_where_the_policy_allows_it(
    databases: Databases, open_client: Callable[..., Any], read_only: Any, io: IO
) -> None:
    read_only(1)
    for policy in ("primary_first", "any"):
        client = open_client(endpoint_policy=policy, buffer_timeout=0.3)
        assert io(client.query_value("SELECT COUNT(*) FROM trades")) == 0
        with pytest.raises(ReadOnlyServer):
            io(client.execute(INSERT))
    client = open_client(buffer_timeout=0.3)
    with pytest.raises(NoPrimary, match="it is read-only"):
        io(client.query_value("SELECT COUNT(*) FROM trades"))


@pytest.mark.parametrize("pool_size", [1, 10])
def test_no_more_calls_wait_for_a_primary_than_allowed(
    databases: Databases, open_client: Callable[..., Any], read_only: Any, io: IO, pool_size: int
) -> None:
    client = open_client(buffer_size=3, pool_size=pool_size, max_overflow=0)
    read_only(1)
    with pytest.raises(DeadlineExceeded):
        io(client.execute(INSERT, timeout=0.2))
    refused = []

    def call() -> Any:
        def body() -> Any:
            try:
                return (yield client.execute(INSERT))
            except NoPrimary as error:
                refused.append(error)
                if len(refused) == 4:
                    read_only(0)
                return None

        return io.function(body)()

    outcomes = io.concurrently([call] * 8)
    # One that has a connection's slot may not be waiting yet when the next one comes.
    written = outcomes.count(1)
    assert (written in (3, 4), outcomes.count(None)) == (True, 8 - written)
    assert all("3 calls wait for a primary (buffer_size)" in str(error) for error in refused)
    wait_for(lambda: databases.value(1, "SELECT COUNT(*) FROM trades") == written)


def test_a_name_is_looked_up_for_each_connection_and_may_have_several_addresses(
    databases: Databases, dead_port: int, io: IO, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = databases.config_of(1)
    look_up = socket.getaddrinfo
    ports = [dead_port, config.port]

    def answer(host: Any, port: Any, *args: Any, **named: Any) -> Any:
        if host not in ("db.example", b"db.example"):
            return look_up(host, port, *args, **named)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", each)) for each in ports]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    client = io.Client(databases.config_of(1, host="db.example", max_lifetime=None))
    assert io(client.query_value("SELECT 1")) == 1
    ports.remove(config.port)
    assert io(client.query_value("SELECT 2")) == 2  # on the same connection
    client.pool.retire_older(time.monotonic())
    with pytest.raises(ConnectionFailed, match="db.example"):
        io(client.query("SELECT 3"))
    io(client.close_pool())


@pytest.mark.parametrize(
    ("code", "replaced"),
    [(1047, True), (1180, True), (1213, False)],
    ids=["not in service", "left in the middle of COMMIT", "a conflict"],
)
def test_a_server_that_left_its_cluster_gives_no_further_connections(
    open_client: Callable[..., Any], io: IO, code: int, replaced: bool
) -> None:
    client = open_client()
    first = io(client.query_value("SELECT CONNECTION_ID()"))
    with pytest.raises(Error) as caught:
        io(client.execute(f"SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {code}"))
    assert caught.value.args[0] == code
    assert (io(client.query_value("SELECT CONNECTION_ID()")) != first) is replaced
