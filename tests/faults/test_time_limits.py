"""A transaction's time: when it is over the server has rolled back, whatever the block
does.
"""

import random
from functools import partial
from typing import Any, Iterator

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import (
    DeadlineExceeded,
    InterfaceError,
    OutcomeUnknown,
    ParameterError,
    TransactionAborted,
)
from dualdb.testing import Fault, FaultProxy

INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1)"
SLOW = "INSERT INTO trades (user_id, symbol, qty) SELECT 1, 'A', 1 FROM DUAL WHERE SLEEP(%s) = 0"
MANY = (
    "SELECT a.n, REPEAT('x', 1000) FROM (SELECT 1 AS n {}) a, (SELECT 1 AS n {}) b, (SELECT "
    "1 AS n {}) c, (SELECT 1 AS n {}) d"
)
MANY = MANY.replace("{}", "UNION ALL SELECT 2 " * 19)


@pytest.fixture
def client(databases: Databases, io: IO) -> Iterator[Any]:
    made = io.Client(databases.config_of(1, pool_size=1, max_overflow=0, pool_timeout=5))
    io(made.init_pool())
    yield made
    io(made.close_pool())
    assert made.stats().in_use == 0


def wait_for_rows(io: IO, databases: Databases, number: int) -> None:
    """Until the table has so many rows, with those that are not committed."""
    dirty = "SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED"
    count = "SELECT COUNT(*) AS n FROM trades"
    io.wait_for(lambda: databases.run(1, dirty, count) == [{"n": number}])


def is_as_before(client: Any, io: IO, databases: Databases) -> bool:
    assert io(client.query_value("SELECT 7")) == 7
    io.wait_for(lambda: client.stats().in_use == 0)
    return bool(databases.value(1, "SELECT COUNT(*) FROM trades") == 0)


@pytest.mark.slow
def test_an_idle_block_does_not_keep_the_server(client: Any, io: IO, databases: Databases) -> None:
    with pytest.raises(DeadlineExceeded, match="the transaction's time was over") as caught:
        with io.entered(client.transaction(timeout=0.8)) as tx:
            io(tx.execute(INSERT))
            wait_for_rows(io, databases, 1)
            wait_for_rows(io, databases, 0)
            for _ in range(2):
                with pytest.raises(DeadlineExceeded) as inside:
                    io(client.execute(INSERT))
                assert inside.value.sent is False
    assert (caught.value.target, caught.value.retryable) == (client.name, True)
    assert is_as_before(client, io, databases)


@pytest.mark.slow
def test_a_call_that_runs_is_ended(client: Any, io: IO, databases: Databases) -> None:
    for swallowed in (False, True):
        with pytest.raises(DeadlineExceeded), io.entered(client.transaction(timeout=0.4)) as tx:
            io(tx.execute(INSERT))
            with pytest.raises(DeadlineExceeded) as caught:
                io(tx.execute(SLOW, (30,)))
            assert caught.value.sent is True
            if not swallowed:
                raise caught.value
            wait_for_rows(io, databases, 0)
        assert is_as_before(client, io, databases)
    wait_for_rows(io, databases, 0)


@pytest.mark.slow
def test_what_was_given_up_before_is_ended_with_it(
    client: Any, io: IO, databases: Databases
) -> None:
    with pytest.raises(DeadlineExceeded), io.entered(client.transaction(timeout=0.5)) as tx:
        io(tx.execute(INSERT))
        with pytest.raises(DeadlineExceeded):
            io(tx.execute(SLOW, (30,), timeout=0.1))
        with pytest.raises(TransactionAborted):
            io(tx.query("SELECT 1"))
        wait_for_rows(io, databases, 0)
    assert is_as_before(client, io, databases)


def test_a_stream_that_nobody_reads_on_is_ended(client: Any, io: IO, databases: Databases) -> None:
    with pytest.raises(DeadlineExceeded), io.entered(client.transaction(timeout=0.4)) as tx:
        io(tx.execute(INSERT))
        stream = tx.stream(MANY)
        io.next_row(stream)
        wait_for_rows(io, databases, 0)
        # the rows that have come are given, and the end is never taken for the last row
        with pytest.raises(DeadlineExceeded):
            io.collect(stream)
    assert is_as_before(client, io, databases)


def test_savepoints_share_it(client: Any, io: IO, databases: Databases) -> None:
    with pytest.raises(DeadlineExceeded), io.entered(client.transaction(timeout=0.4)) as tx:
        with pytest.raises(DeadlineExceeded), io.entered(tx.transaction()) as inner:
            io(inner.execute(INSERT))
            wait_for_rows(io, databases, 0)
        with pytest.raises(DeadlineExceeded):
            io.entered(tx.transaction()).__enter__()
    assert is_as_before(client, io, databases)
    with (
        pytest.raises(InterfaceError, match="the outermost"),
        io.entered(client.transaction()) as tx,
    ):
        io.entered(tx.transaction(timeout=1)).__enter__()


def test_what_the_block_raises_is_what_comes_out(client: Any, io: IO, databases: Databases) -> None:
    with pytest.raises(KeyError), io.entered(client.transaction(timeout=0.2)) as tx:
        io(tx.execute(INSERT))
        wait_for_rows(io, databases, 0)
        raise KeyError
    assert is_as_before(client, io, databases)


@pytest.mark.slow
def test_in_time_nothing_is_different(client: Any, io: IO, databases: Databases) -> None:
    session = io(client.query_value("SELECT CONNECTION_ID()"))
    with io.entered(client.transaction(timeout=0.4)) as tx:
        io(tx.execute(INSERT))
    assert io(client.run(lambda tx: tx.execute(INSERT), timeout=0.4)) == 1
    io.sleep(0.6)
    assert io(client.query_value("SELECT CONNECTION_ID()")) == session, "the timer is off"
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == 2


@pytest.mark.slow
def test_a_commit_that_has_begun_is_not_cut(client: Any, io: IO, databases: Databases) -> None:
    config = databases.config_of(1)
    with FaultProxy(config.host, config.port) as proxy:
        behind = io.Client(
            config.model_copy(
                update={"host": "127.0.0.1", "port": proxy.port, "ssl_mode": "disabled"}
            )
        )
        with io.entered(behind.transaction(timeout=0.6)) as tx:
            io(tx.execute(INSERT))
            proxy.set(Fault("down", 0, "delay", 1.2))
        assert proxy.happened
        assert io(behind.query_value("SELECT COUNT(*) FROM trades")) == 1
        io(behind.close_pool())


@pytest.mark.slow
@pytest.mark.parametrize("how", ["timeout", "run", "deadline", "read_timeout", "marker"])
def test_a_commit_that_is_never_answered_ends_with_its_time(
    io: IO, databases: Databases, how: str
) -> None:
    config = databases.config_of(1)
    with FaultProxy(config.host, config.port) as proxy:
        silent = 0.5 if how == "read_timeout" else None
        through = {"host": "127.0.0.1", "port": proxy.port, "ssl_mode": "disabled"}
        behind = io.Client(config.model_copy(update={**through, "read_timeout": silent}))
        io(behind.init_pool())

        def body(tx: Any) -> Any:
            yield tx.execute(INSERT)
            proxy.set(Fault("down", 0, "swallow"))

        function = io.function(body)
        options: Any = {"timeout": {"timeout": 0.5}, "marker": {"timeout": 0.5}}.get(how, {})
        with pytest.raises(OutcomeUnknown) as caught:
            if how == "run":
                io(behind.run(function, timeout=0.5))
            elif how == "deadline":
                with io.deadline(0.5), io.entered(behind.transaction()) as tx:
                    io(function(tx))
            else:
                options["commit_marker"] = how == "marker"
                with io.entered(behind.transaction(**options)) as tx:
                    io(function(tx))
        assert caught.value.retryable is False
        io(behind.close_pool())


@pytest.mark.slow
def test_waiting_for_a_connection_counts(client: Any, io: IO, databases: Databases) -> None:
    with io.entered(client.transaction()) as tx:

        def other() -> Any:
            return client.run(lambda tx: tx.execute(INSERT), timeout=0.2)

        (outcome,) = io.concurrently([other])
        assert isinstance(outcome, DeadlineExceeded)
        io(tx.query("SELECT 1"))
    assert is_as_before(client, io, databases)


@pytest.mark.slow
def test_run_has_it_for_all_attempts(client: Any, io: IO, databases: Databases) -> None:
    begun = []

    def conflict(tx: Any) -> Any:
        begun.append(tx)
        yield tx.execute("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213")

    with pytest.raises(Exception, match=r"1213|time|deadline"):
        io(client.run(io.function(conflict), attempts=10**6, timeout=1.0))
    assert len(begun) > 1


@pytest.mark.parametrize("timeout", [-1, True, "1", float("nan"), 10**9])
def test_a_time_that_is_none_is_refused(client: Any, io: IO, timeout: Any) -> None:
    with pytest.raises(ParameterError, match="a timeout is a number of seconds"):
        client.transaction(timeout=timeout)
    with pytest.raises(ParameterError, match="a timeout is a number of seconds"):
        io(client.run(lambda tx: None, timeout=timeout))


@pytest.mark.slow
def test_at_the_very_limit_the_outcome_is_as_reported(
    io: IO, databases: Databases, seed: int
) -> None:
    """Blocks that end when their time does: what ended well is committed, nothing else
    is, and no connection is lost over it.
    """
    chance = random.Random(seed)
    shared = io.Client(databases.config_of(1, pool_size=4, max_overflow=0, pool_timeout=30))
    naps = [chance.uniform(0.05, 0.15) for _ in range(60)]

    def block(nap: float) -> Any:
        def body(tx: Any) -> Any:
            yield tx.execute(INSERT)
            yield io.pause(nap) if nap < 0.1 else tx.execute(SLOW, (nap - 0.05,))

        return io.block(lambda: shared.transaction(timeout=0.1), body)()

    outcomes = []
    for first in range(0, len(naps), 4):
        outcomes += io.concurrently([partial(block, nap) for nap in naps[first : first + 4]])
    assert {type(outcome) for outcome in outcomes} <= {type(None), DeadlineExceeded}
    committed = sum(
        1 if nap < 0.1 else 2 for nap, outcome in zip(naps, outcomes) if outcome is None
    )
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == committed
    io.wait_for(lambda: shared.stats().in_use == 0)
    assert io.concurrently([lambda: shared.query_value("SELECT 7")] * 8) == [7] * 8
    io(shared.close_pool())
