"""``pool="null"``: no connection is kept open after its use."""

from typing import Any, Callable, Generator

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import DatabaseConfig, PoolTimeout

ID = "SELECT CONNECTION_ID()"


@pytest.fixture
def null(databases: Databases, open_service: Callable[..., Any]) -> Any:
    changes = {"pool": "null", "pool_size": 2, "max_overflow": 1, "pool_timeout": 0.2}
    return open_service(databases.config.model_copy(update=changes))


def test_nothing_is_idle_after_a_call(null: Any, io: IO) -> None:
    assert {stats.idle for stats in null.stats().values()} == {0}
    first, second = [io(null.shard(1).query_value(ID)) for _ in range(2)]
    assert first != second, "each call has a connection of its own"
    io(null.shards().query("SELECT 1"))
    with io.entered(null.shard(1).transaction()) as tx:
        io(tx.execute("INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1)"))
        assert null.stats()[1].in_use == 1
    figures = [(stats.idle, stats.in_use) for stats in null.stats().values()]
    assert figures == [(0, 0)] * 3


@pytest.mark.slow
def test_the_limit_holds_and_who_waits_is_served(null: Any, io: IO) -> None:
    shard = null.shard(1)
    with io.entered(shard.transaction()), io.entered(shard.transaction(isolation=None)):
        assert null.stats()[1].limit == 3

    def body() -> Generator[Any, Any, Any]:
        return (yield shard.query_value("SELECT 1 + SLEEP(0.02)"))

    assert io.concurrently([io.function(body)] * 9) == [1] * 9
    assert (null.stats()[1].idle, null.stats()[1].in_use) == (0, 0)
    late = io.concurrently([lambda: shard.query_value("SELECT 1 + SLEEP(1)")] * 4)
    assert sum(isinstance(each, PoolTimeout) for each in late) == 1


def test_a_shard_has_it_from_the_global_configuration(null: Any) -> None:
    assert null.shard_configs[1].pool == "null"
    assert null.shard_configs[1].most_idle == 0


def test_it_is_one_of_two_words() -> None:
    fields = {"database": "d", "user": "u", "password": "p"}
    assert DatabaseConfig.from_url("mysql://u:p@h/d?pool=null").most_idle == 0
    assert DatabaseConfig(**fields, pool_size=7).most_idle == 7  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pool"):
        DatabaseConfig(**fields, pool="none")  # type: ignore[arg-type]
