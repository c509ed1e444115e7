"""Draining a shard: whose work is waited for, and what is counted in the end."""

from typing import Any, Callable, Iterator

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import ConnectionLost, OperationalError, ShardUnavailable, TransactionAborted

pytestmark = pytest.mark.slow


@pytest.fixture
def still(open_service: Callable[..., Any]) -> Any:
    """A service that does not refresh by itself."""
    return open_service(refresh_interval=None)


@pytest.fixture
def other(io: IO, databases: Databases) -> Iterator[Any]:
    """Another process's session on shard 1."""
    client = io.Client(databases.config_of(1))
    assert io(client.query_value("SELECT 1")) == 1
    yield client
    io(client.close_pool())


def test_work_that_a_status_change_left_in_progress_is_waited_for(still: Any, io: IO) -> None:
    lost = (ConnectionLost, TransactionAborted, OperationalError)
    with pytest.raises(lost), io.entered(still.shard(1).transaction()) as tx:
        io(tx.query_value("SELECT 1"))
        io.in_other_caller(lambda: still.set_shard_status(1, "inactive"))
        report = io.in_other_caller(lambda: still.drain_shard(1, timeout=0.1))
        assert (report.finished, report.aborted, report.remaining) == (0, 1, 0)
        io(tx.query_value("SELECT 1"))


def test_others_are_waited_for_if_that_is_asked(
    still: Any, other: Any, io: IO, databases: Databases
) -> None:
    def body() -> Any:
        status = "SELECT status FROM table_shard_config WHERE shard_id = 1"
        while databases.value("global", status) != "inactive":
            yield io.pause(0.01)
        yield other.close_pool()

    drained, left = io.concurrently(
        [lambda: still.drain_shard(1, timeout=60.0, others=True), io.function(body)]
    )
    assert left is None
    assert drained.remaining == 0


def test_sessions_that_are_left_are_seen_and_ended(still: Any, other: Any, io: IO) -> None:
    assert io(still.drain_shard(1)).remaining == 1
    mine = "SELECT CONNECTION_ID()"
    session_id = io(other.query_value(mine))
    report = io(still.operations.processes(1, idle=True))
    assert (report.errors, session_id in [each.id for each in report.processes]) == ({}, True)
    assert io(still.operations.kill(1, session_id, connection=True)).killed
    assert io(still.drain_shard(1, timeout=20.0, others=True)).remaining == 0


def test_a_drain_under_load_leaves_no_session_of_its_own(still: Any, io: IO) -> None:
    """Whatever calls are doing: in a transaction, connecting, or being killed."""

    def body() -> Any:
        number = 0
        while True:
            number += 1
            shard = still.shard(1)
            try:
                if number % 3:
                    yield shard.query("SELECT SLEEP(0.01)")
                else:
                    yield shard.query("SELECT SLEEP(5)", timeout=0.05)
            except ShardUnavailable:
                return number
            except OperationalError:
                pass

    def drain() -> Any:
        for _ in range(5):
            yield io.pause(0.1)
        return (yield still.drain_shard(1, timeout=10.0, others=True))

    worker = io.function(body)
    *numbers, report = io.concurrently([worker] * 12 + [io.function(drain)])
    assert all(isinstance(each, int) for each in numbers), numbers
    assert (report.aborted, report.remaining) == (0, 0)
