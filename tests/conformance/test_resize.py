"""Pools that are resized while they are in use."""

import contextlib
from typing import Any, Callable, Generator, List

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import ParameterError


def holders(io: IO, client: Any, count: int, stack: contextlib.ExitStack) -> List[Any]:
    """Connections in use."""
    made = [io(client.pool.checkout()) for _ in range(count)]
    for connection in made:
        stack.callback(client.pool.release, connection)
    return made


def test_a_larger_pool_serves_who_waits(open_service: Callable[..., Any], io: IO) -> None:
    db = open_service()
    client = db.get_shard_client(1)
    io(client.resize(pool_size=1, max_overflow=0))

    def resize_when_waited_for() -> Generator[Any, Any, None]:
        while client.stats().waiting < 2:
            yield io.pause(0.01)
        yield client.resize(pool_size=2, max_overflow=1)

    with contextlib.ExitStack() as stack:
        holders(io, client, 1, stack)
        calls = [lambda: client.query_value("SELECT 1")] * 2
        outcomes = io.concurrently([*calls, io.function(resize_when_waited_for)])
    assert outcomes == [1, 1, None]
    assert client.stats().limit == 3


def test_a_smaller_pool_keeps_what_is_in_use_until_it_comes_back(
    open_service: Callable[..., Any], io: IO
) -> None:
    db = open_service()
    client = db.get_shard_client(1)
    with contextlib.ExitStack() as stack:
        connections = holders(io, client, 4, stack)
        io(client.resize(pool_size=1, max_overflow=1))
        assert client.stats()[:2] == (2, 4), "nothing in use was cut"
        assert [connection.open for connection in connections] == [True] * 4
    assert client.stats()[:3] == (2, 0, 1)


def test_no_more_than_the_smaller_limit_is_used_again(
    open_service: Callable[..., Any], io: IO
) -> None:
    db = open_service()
    client = db.get_shard_client(1)
    with contextlib.ExitStack() as stack:
        holders(io, client, 3, stack)
        io(client.resize(pool_size=1, max_overflow=0))
    assert client.stats().idle == 1

    def body() -> Generator[Any, Any, int]:
        assert client.stats().in_use <= 1
        value: int = yield client.query_value("SELECT 1 + SLEEP(0.01)")
        return value

    assert io.concurrently([io.function(body)] * 6) == [1] * 6
    assert client.stats().idle == 1


@pytest.mark.slow
def test_it_grows_and_shrinks_under_load_without_an_error(
    open_service: Callable[..., Any], io: IO
) -> None:
    db = open_service()
    client = db.get_shard_client(1)

    def work() -> Generator[Any, Any, int]:
        done = 0
        for _ in range(40):
            done += yield client.query_value("SELECT 1 + SLEEP(0.002)")
        return done

    def resize() -> Generator[Any, Any, None]:
        for size in (1, 6, 2, 10, 1, 4):
            yield client.resize(pool_size=size, max_overflow=size)
            yield io.pause(0.05)

    outcomes = io.concurrently([*[io.function(work)] * 12, io.function(resize)])
    assert outcomes == [40] * 12 + [None]
    assert client.stats().limit == 8
    assert client.stats().in_use == 0
    assert client.stats().idle <= 4


def test_a_row_s_limit_resizes_the_pool_it_has(
    open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    databases.run("global", "ALTER TABLE table_shard_config ADD max_connections INT")
    try:
        db = open_service()
        client = db.get_shard_client(1)
        with io.entered(client.transaction()) as tx:
            io(tx.execute("INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1)"))
            databases.set_row(1, max_connections=3)
            io(db.refresh())
            assert db.get_shard_client(1) is client
            assert db.stats()[1][:2] == (3, 1)
            assert db.status().draining == {}
        databases.set_row(1, max_connections=None)
        io(db.refresh())
        assert db.stats()[1].limit == 30
        assert databases.value(1, "SELECT COUNT(*) FROM trades") == 1
    finally:
        databases.run("global", "ALTER TABLE table_shard_config DROP max_connections")


def test_a_shard_is_resized_by_its_row(
    open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    db = open_service()
    with pytest.raises(ParameterError, match=r"ALTER TABLE .* ADD max_connections"):
        io(db.resize_shard(1, 3))
    databases.run("global", "ALTER TABLE table_shard_config ADD max_connections INT")
    try:
        client = db.get_shard_client(1)
        io(db.resize_shard(1, 3))
        assert db.stats()[1].limit == 3
        assert db.get_shard_client(1) is client
        for wrong in (0, -1, True, "3", 1.5):
            with pytest.raises(ParameterError, match="max_connections"):
                io(db.resize_shard(1, wrong))
        with pytest.raises(ParameterError, match="shard 99"):
            io(db.resize_shard(99, 3))
        assert open_service().stats()[1].limit == 3
        io(db.resize_shard(1, None))
        assert db.stats()[1].limit == 30
    finally:
        databases.run("global", "ALTER TABLE table_shard_config DROP max_connections")


def test_the_service_is_resized_as_a_whole(
    open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    db = open_service()
    clients = dict(db.shard_clients)
    io(db.resize(pool_size=3, max_overflow=4))
    assert {name: stats.limit for name, stats in db.stats().items()} == {"global": 7, 1: 7, 2: 7}
    assert dict(db.shard_clients) == clients
    assert (db.global_config.pool_size, db.global_config.max_overflow) == (3, 4)
    io(db.resize(max_overflow=0))
    assert db.stats()[2].limit == 3
    with pytest.raises(ValueError, match="pool_size"):
        io(db.resize(pool_size=0))
    assert db.stats()["global"].limit == 3


def test_a_size_that_is_too_small_for_warm_up_lowers_it(
    open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    db = open_service(databases.config.model_copy(update={"warm_up": 4}))
    io(db.resize(pool_size=2))
    assert (db.global_config.pool_size, db.global_config.warm_up) == (2, 2)
    assert db.stats()[1].idle == 2
