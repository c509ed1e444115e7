"""The limit of one process's connections to a server, over all its databases."""

import asyncio
import gc
import threading
from typing import Any, Callable, Dict, Generator, Iterable, Iterator, List

import pytest
from database_servers import Databases
from io_kinds import IO, SyncIO

from dualdb import (
    DatabaseConfig,
    DeadlineExceeded,
    PoolTimeout,
    ServiceNotOpen,
    async_impl,
    sync_impl,
)
from dualdb.observability.metrics import state_metrics
from dualdb.testing import FaultProxy

DATABASES = 16
LIMIT = 6


@pytest.fixture
def clients(databases: Databases, io: IO) -> Iterator[Callable[..., List[Any]]]:
    """A function that makes clients of sixteen databases on one server."""
    made: List[Any] = []

    def make(count: int, **changes: Any) -> List[Any]:
        config = databases.config_of(1, **{"max_connections_per_server": LIMIT, **changes})
        made.extend([io.Client(config, name=f"shard {number}") for number in range(count)])
        return made

    yield make
    for client in made:
        io(client.close_pool())


def open_sessions(databases: Databases, ids: Iterable[int]) -> int:
    """How many of these sessions the server still has."""
    return int(
        databases.value(
            1,
            "SELECT COUNT(*) FROM information_schema.processlist "
            f"WHERE id IN ({','.join(map(str, ids))})",
        )
    )


def test_an_idle_connection_makes_room(
    clients: Callable[..., List[Any]], io: IO, databases: Databases
) -> None:
    made = clients(DATABASES)
    ids: List[int] = []
    budget = made[0].pool.budgets.all[0]
    old = budget.stats()
    for _ in range(2):
        for client in made:
            ids.append(io(client.query_value("SELECT CONNECTION_ID()")))
            assert sum(each.stats().idle for each in made) <= LIMIT
    figures = budget.stats()
    assert figures[:3] == (LIMIT, LIMIT, 0)
    assert figures.timeouts == old.timeouts
    assert figures.taken_over - old.taken_over == 2 * DATABASES - LIMIT
    assert len(set(ids)) == 2 * DATABASES
    io.wait_for(lambda: open_sessions(databases, ids) == LIMIT)


def test_the_wait_is_bounded_and_names_the_server(
    clients: Callable[..., List[Any]], io: IO
) -> None:
    first, second = clients(2, max_connections_per_server=1, pool_timeout=0.1)
    timeouts = first.pool.budgets.all[0].stats().timeouts
    with io.entered(first.transaction()) as tx:
        io(tx.query("SELECT 1"))
        with pytest.raises(PoolTimeout) as caught:
            io(second.query("SELECT 1"))
        assert f"1 of 1 connections of this process to the server {first.config.servers[0]}" in str(
            caught.value
        )
        assert "0 more callers are waiting" in str(caught.value)
        assert caught.value.sent is False
        assert second.stats().timeouts == 1
        assert first.pool.budgets.all[0].stats().timeouts == timeouts + 1
        with io.deadline(0.05), pytest.raises(DeadlineExceeded):
            io(second.query("SELECT 1"))
    assert io(second.query_value("SELECT 1")) == 1
    assert first.pool.budgets.all[0].stats()[1:3] == (1, 0)


@pytest.mark.slow
def test_it_holds_under_load_and_nobody_starves(clients: Callable[..., List[Any]], io: IO) -> None:
    made = clients(DATABASES, pool_size=10, max_overflow=0)
    budget = made[0].pool.budgets.all[0]
    most: List[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            most.append(budget.stats().open)

    watcher = threading.Thread(target=watch)
    watcher.start()

    def ask(client: Any) -> Generator[Any, Any, int]:
        for _ in range(5):
            yield client.query("SELECT SLEEP(0.003)")
        return 5

    try:
        calls = [
            lambda client=client: io.function(ask)(client) for client in made for _ in range(4)
        ]
        assert io.concurrently(calls) == [5] * len(calls)
    finally:
        done.set()
        watcher.join()
    assert max(most) == LIMIT
    assert budget.stats().waiting == 0


def test_a_busy_database_does_not_keep_the_others_out(
    clients: Callable[..., List[Any]], io: IO
) -> None:
    busy, other = clients(2, max_connections_per_server=1, pool_timeout=20.0)
    served: List[str] = []

    def keep_busy() -> Generator[Any, Any, None]:
        yield busy.query("SELECT SLEEP(0.05)")
        served.append("busy")

    def once() -> Generator[Any, Any, None]:
        yield io.pause(0.02)
        yield other.query("SELECT 1")
        served.append("other")

    io.concurrently([io.function(keep_busy)] * 10 + [io.function(once)])
    assert served.index("other") < 5, served


def test_a_failed_connect_gives_its_permit_back(
    clients: Callable[..., List[Any]], io: IO, databases: Databases
) -> None:
    (client,) = clients(1, max_connections_per_server=1)
    wrong = io.Client(
        databases.config_of(1, max_connections_per_server=1, password="wrong", pool_timeout=0.2)
    )
    for _ in range(3):
        with pytest.raises(Exception, match="denied"):
            io(wrong.query("SELECT 1"))
    assert io(client.query_value("SELECT 1")) == 1
    io(wrong.close_pool())


def test_who_waits_learns_that_the_pool_closes(clients: Callable[..., List[Any]], io: IO) -> None:
    first, second = clients(2, max_connections_per_server=1, pool_timeout=20.0)

    def close() -> Generator[Any, Any, None]:
        yield io.pause(0.1)
        yield second.close_pool()

    with io.entered(first.transaction()) as tx:
        io(tx.query("SELECT 1"))
        outcomes = io.concurrently([lambda: second.query("SELECT 1"), io.function(close)])
    assert isinstance(outcomes[0], ServiceNotOpen)


def test_an_interrupted_wait_leaves_nothing(clients: Callable[..., List[Any]], io: IO) -> None:
    first, second = clients(2, max_connections_per_server=1, pool_timeout=20.0)
    with io.entered(first.transaction()) as tx:
        io(tx.query("SELECT 1"))
        io.interrupted(lambda: second.query("SELECT 1"))
    assert io(second.query_value("SELECT 1")) == 1
    assert first.pool.budgets.all[0].stats()[1:3] == (1, 0)


def test_threads_and_tasks_of_one_process_share_it(databases: Databases) -> None:
    config = databases.config_of(1, max_connections_per_server=2)
    threads = sync_impl.MySQLClient(config)

    async def both() -> Dict[str, int]:
        tasks = async_impl.MySQLClient(config)
        try:
            await tasks.query("SELECT 1")
            assert await asyncio.gather(*[tasks.query_value("SELECT 2")] * 1) == [2]
            loop = asyncio.get_running_loop()
            for _ in range(3):
                # every connection is wanted in turn by the other implementation
                values = await asyncio.gather(
                    *[tasks.query_value("SELECT 3 + SLEEP(0.01)") for _ in range(2)]
                )
                assert values == [3, 3]
                calls = [
                    loop.run_in_executor(None, threads.query_value, "SELECT 4 + SLEEP(0.01)")
                    for _ in range(2)
                ]
                assert await asyncio.gather(*calls) == [4, 4]
            return threads.pool.budgets.all[0].stats().as_dict()
        finally:
            await tasks.close_pool()

    try:
        figures = asyncio.run(both())
    finally:
        threads.close_pool()
    assert figures["open"] <= 2
    assert figures["taken_over"] >= 2


def test_an_idle_connection_of_an_event_loop_makes_room_for_a_thread_s_second(
    databases: Databases,
) -> None:
    config = databases.config_of(1, max_connections_per_server=3, pool_timeout=5.0)
    threads = sync_impl.MySQLClient(config)

    def two_at_once() -> Any:
        with threads.transaction() as tx:
            tx.query("SELECT 1")
            (value,) = SyncIO().concurrently([lambda: threads.query_value("SELECT 2")])
            return value

    async def keep_two_idle() -> Any:
        tasks = async_impl.MySQLClient(config)
        try:
            await asyncio.gather(*[tasks.query("SELECT SLEEP(0.05)") for _ in range(2)])
            assert tasks.stats().idle == 2
            value = await asyncio.get_running_loop().run_in_executor(None, two_at_once)
            assert tasks.stats().idle == 1
            return value
        finally:
            await tasks.close_pool()

    try:
        assert asyncio.run(keep_two_idle()) == 2
    finally:
        threads.close_pool()


# asyncio's, of the transport that its loop has not closed
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_idle_connections_of_a_closed_loop_make_room(databases: Databases) -> None:
    config = databases.config_of(1, max_connections_per_server=1, pool_timeout=5.0)
    tasks = async_impl.MySQLClient(config)
    asyncio.run(tasks.query("SELECT 1"))
    threads = sync_impl.MySQLClient(config)
    assert tasks.stats().idle == 1
    assert threads.query_value("SELECT 2") == 2
    assert tasks.stats().idle == 0
    threads.close_pool()
    del tasks
    gc.collect()


def test_smaller_pools_give_up_what_they_keep(clients: Callable[..., List[Any]], io: IO) -> None:
    first, second = clients(2, max_connections_per_server=2, pool_size=2, pool_timeout=20.0)

    with io.entered(first.transaction()) as tx:
        io(tx.query("SELECT 1"))
        io.in_other_caller(lambda: first.query("SELECT 1"))
    budget = first.pool.budgets.all[0]
    assert (first.stats().idle, budget.stats().open) == (2, 2)
    io(first.resize(pool_size=1))
    assert budget.stats().open == 1
    assert io(second.query_value("SELECT 1")) == 1
    assert budget.stats()[1:3] == (2, 0)
    assert first.stats().idle == 1


def test_a_server_may_have_a_limit_of_its_own() -> None:
    url = "mysql://u:p@db1/d?max_connections_per_server=40&server_limits=DB2:3307=80"
    config = DatabaseConfig.from_url(url)
    assert config.server_limit == 40
    other = config.model_copy(update={"host": "db2", "port": 3307})
    assert other.server_limit == 80
    fields: Dict[str, Any] = {"database": "d", "user": "u", "password": "p"}
    assert DatabaseConfig(**fields).server_limit is None
    for wrong in ({"db2": 3}, {"db2:3306": 0}, "db2:3306"):
        with pytest.raises(ValueError, match="server_limits"):
            DatabaseConfig(**fields, server_limits=wrong)  # type: ignore[arg-type]


def test_the_status_has_the_servers_of_primaries_replicas_and_engines(
    databases: Databases, open_service: Callable[..., Any], io: IO
) -> None:
    config = databases.config
    with FaultProxy(config.host, config.port) as proxy, FaultProxy(config.host, config.port) as far:
        engine = {"host": "127.0.0.1", "port": far.port, "max_connections_per_server": 3}
        db = open_service(
            config.model_copy(
                update={
                    "max_connections_per_server": 2,
                    "replicas": f"127.0.0.1:{proxy.port}",
                }
            ),
            engines={"far": config.model_copy(update=engine)},
        )
        assert io(db.engine("far").query_value("SELECT 1")) == 1
        assert db.status().servers[f"localhost:{far.port}"][:3] == (3, 1, 0)
        assert io(db.read.query_value("SELECT 1")) == 1
        figures = db.status().servers
        assert figures[f"localhost:{proxy.port}"][:3] == (2, 1, 0)
        shared = databases.share_one_server  # with the shards
        assert figures[f"localhost:{config.port}"][:3] == (2, 2 if shared else 1, 0)
        metrics = {each.name: each.values for each in state_metrics(db.status())}
        at = (("server", f"localhost:{proxy.port}"),)
        found = [metrics[f"dualdb.server.connections{name}"][at] for name in ("", ".max")]
        assert found == [1, 2]
        io(db.close_service())


def test_the_status_says_how_many_calls_are_buffered(
    databases: Databases, open_service: Callable[..., Any], io: IO
) -> None:
    databases.set_row(1, status="moving")
    db = open_service(refresh_interval=None)
    assert db.status().buffered == {}
    seen: List[Any] = []

    def end() -> Generator[Any, Any, None]:
        while db.status().buffered != {"shard 1": 3}:
            yield io.pause(0.01)
        seen.append(db.status().as_dict()["buffered"])
        seen.append({each.name: each.values for each in state_metrics(db.status())})
        databases.set_row(1, status="active")

    outcomes = io.concurrently(
        [lambda: db.shard(1).query_value("SELECT 1")] * 3 + [io.function(end)]
    )
    assert outcomes == [1, 1, 1, None]
    assert seen[0] == {"shard 1": 3}
    assert seen[1]["dualdb.calls.buffered"] == {(("target", "shard 1"),): 3}
    assert db.status().buffered == {}
