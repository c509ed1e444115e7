"""The limit of calls in progress on one database, and what it leaves to the others."""

from typing import Any, Callable, Generator, List

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import Overloaded, RowCount

MOST = 4


@pytest.fixture
def limited(databases: Databases, open_service: Callable[..., Any]) -> Any:
    """A service whose databases have a limit."""
    config = databases.config.model_copy(update={"max_in_flight": MOST, "pool_size": 2})
    return open_service(config.model_copy(update={"max_overflow": 0}))


def slow(db: Any, io: IO) -> List[Callable[[], Any]]:
    return [lambda: db.shard(1).query_value("SELECT SLEEP(0.5)", read_only=True)] * (3 * MOST)


def test_a_slow_shard_refuses_and_leaves_the_others_alone(limited: Any, io: IO) -> None:
    def other() -> Generator[Any, Any, Any]:
        return (yield limited.shard(2).query_value("SELECT 2"))

    calls = [*slow(limited, io), *[io.function(other)] * MOST]
    outcomes = io.concurrently(calls)
    refused = [each for each in outcomes[: 3 * MOST] if isinstance(each, Overloaded)]
    served = [each for each in outcomes[: 3 * MOST] if each == 0]
    assert len(served) + len(refused) == 3 * MOST
    assert len(served) == MOST
    assert {each.shard_id for each in refused} == {1}
    assert outcomes[3 * MOST :] == [2] * MOST
    assert io(limited.shard(1).query_value("SELECT 1")) == 1, "the load is over"


def test_batch_makes_way(limited: Any, io: IO) -> None:
    def batch() -> Generator[Any, Any, Any]:
        with limited.priority("batch"):
            return (yield limited.shard(1).query_value("SELECT 1"))

    with io.entered(limited.shard(1).transaction()) as one:
        assert io.in_other_caller(io.function(batch)) == 1
        with io.entered(limited.shard(1).connection()):
            with pytest.raises(Overloaded):
                io.in_other_caller(io.function(batch))
            done = io(one.execute("DELETE FROM trades"))
            assert isinstance(done, RowCount), "inside it goes on"
