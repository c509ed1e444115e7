"""A transaction's time: when it is over the server has rolled back, whatever the block
does.
"""

import asyncio
import functools
import random
import time
from functools import partial
from typing import Any, Iterator

import colours
import pytest
from proxy import Fault, Proxy

from dualdb import DeadlineExceeded, InterfaceError, ParameterError, TransactionAborted

INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1)"
SLOW = "INSERT INTO trades (user_id, symbol, qty) SELECT 1, 'A', 1 FROM DUAL WHERE SLEEP(%s) = 0"
MANY = "SELECT a.n, REPEAT('x', 1000) FROM (SELECT 1 AS n {}) a, (SELECT 1 AS n {}) b, (SELECT 1 AS n {}) c, (SELECT 1 AS n {}) d"
MANY = MANY.replace("{}", "UNION ALL SELECT 2 " * 19)


@pytest.fixture
def client(world: Any, colour: Any) -> Iterator[Any]:
    made = colour.Client(world.config_of(1, pool_size=1, max_overflow=0, pool_timeout=5))
    colour(made.init_pool())
    yield made
    colour(made.close_pool())
    assert made.stats().in_use == 0


def open_ones(world: Any) -> int:
    """How many transactions the server has open."""
    return int(world.value(1, "SELECT COUNT(*) FROM information_schema.innodb_trx"))


# A server shows its transactions of a tenth of a second ago to whoever asks more often.
until = functools.partial(colours.until, every=0.15)


def is_as_before(client: Any, colour: Any, world: Any) -> bool:
    assert colour(client.query_value("SELECT 7")) == 7
    assert until(colour, lambda: client.stats().in_use == 0)
    return bool(world.value(1, "SELECT COUNT(*) FROM trades") == 0)


def test_an_idle_block_does_not_keep_the_server(client: Any, colour: Any, world: Any) -> None:
    with pytest.raises(DeadlineExceeded, match="the transaction's time was over") as caught:
        with colour.using(client.transaction(timeout=0.8)) as tx:
            colour(tx.execute(INSERT))
            assert until(colour, lambda: open_ones(world) == 1)
            colour.sleep(0.7)
            assert until(colour, lambda: open_ones(world) == 0, seconds=1.0)
            for _ in range(2):
                with pytest.raises(DeadlineExceeded) as inside:
                    colour(client.execute(INSERT))
                assert inside.value.sent is False
    assert (caught.value.target, caught.value.retryable) == (client.name, True)
    assert is_as_before(client, colour, world)


def test_a_call_that_runs_is_ended(client: Any, colour: Any, world: Any) -> None:
    for swallowed in (False, True):
        with pytest.raises(DeadlineExceeded), colour.using(client.transaction(timeout=0.4)) as tx:
            colour(tx.execute(INSERT))
            with pytest.raises(DeadlineExceeded) as caught:
                colour(tx.execute(SLOW, (30,)))
            assert caught.value.sent is True
            if not swallowed:
                raise caught.value
            assert until(colour, lambda: open_ones(world) == 0, seconds=1.0), (
                "although the block goes on"
            )
        assert is_as_before(client, colour, world)
    assert until(colour, lambda: open_ones(world) == 0)


def test_what_was_given_up_before_is_ended_with_it(client: Any, colour: Any, world: Any) -> None:
    with pytest.raises(DeadlineExceeded), colour.using(client.transaction(timeout=0.5)) as tx:
        colour(tx.execute(INSERT))
        with pytest.raises(DeadlineExceeded):
            colour(tx.execute(SLOW, (30,), timeout=0.1))
        with pytest.raises(TransactionAborted):
            colour(tx.query("SELECT 1"))
        colour.sleep(0.4)
        assert until(colour, lambda: open_ones(world) == 0, seconds=1.0)
    assert is_as_before(client, colour, world)


def first_row(colour: Any, stream: Any) -> Any:
    if colour.name == "sync":
        return next(stream)
    return colour(stream.__anext__())


def test_a_stream_that_nobody_reads_on_is_ended(client: Any, colour: Any, world: Any) -> None:
    with pytest.raises(DeadlineExceeded), colour.using(client.transaction(timeout=0.4)) as tx:
        colour(tx.execute(INSERT))
        stream = tx.stream(MANY)
        first_row(colour, stream)
        colour.sleep(0.4)
        assert until(colour, lambda: open_ones(world) == 0, seconds=1.0)
        # the rows that have come are given, and the end is never taken for the last row
        with pytest.raises(DeadlineExceeded):
            colour.taken(stream)
    assert is_as_before(client, colour, world)


def test_savepoints_share_it(client: Any, colour: Any, world: Any) -> None:
    with pytest.raises(DeadlineExceeded), colour.using(client.transaction(timeout=0.4)) as tx:
        with pytest.raises(DeadlineExceeded), colour.using(tx.transaction()) as inner:
            colour(inner.execute(INSERT))
            colour.sleep(0.6)
        with pytest.raises(DeadlineExceeded):
            colour.using(tx.transaction()).__enter__()
    assert is_as_before(client, colour, world)
    with (
        pytest.raises(InterfaceError, match="the outermost"),
        colour.using(client.transaction()) as tx,
    ):
        colour.using(tx.transaction(timeout=1)).__enter__()


def test_what_the_block_raises_is_what_comes_out(client: Any, colour: Any, world: Any) -> None:
    with pytest.raises(KeyError), colour.using(client.transaction(timeout=0.2)) as tx:
        colour(tx.execute(INSERT))
        colour.sleep(0.4)
        raise KeyError
    assert is_as_before(client, colour, world)


def test_in_time_nothing_is_different(client: Any, colour: Any, world: Any) -> None:
    session = colour(client.query_value("SELECT CONNECTION_ID()"))
    with colour.using(client.transaction(timeout=0.4)) as tx:
        colour(tx.execute(INSERT))
    assert colour(client.run(lambda tx: tx.execute(INSERT), timeout=0.4)) == 1
    colour.sleep(0.6)
    assert colour(client.query_value("SELECT CONNECTION_ID()")) == session, "the timer is off"
    assert world.value(1, "SELECT COUNT(*) FROM trades") == 2


def test_a_commit_that_has_begun_is_not_cut(client: Any, colour: Any, world: Any) -> None:
    config = world.config_of(1)
    with Proxy(config.host, config.port) as proxy:
        behind = colour.Client(
            config.model_copy(
                update={"host": "127.0.0.1", "port": proxy.port, "ssl_mode": "disabled"}
            )
        )
        with colour.using(behind.transaction(timeout=0.6)) as tx:
            colour(tx.execute(INSERT))
            proxy.set(Fault("down", 0, "delay", 1.2))
        assert proxy.happened
        assert colour(behind.query_value("SELECT COUNT(*) FROM trades")) == 1
        colour(behind.close_pool())


def test_waiting_for_a_connection_counts(client: Any, colour: Any, world: Any) -> None:
    with colour.using(client.transaction()) as tx:

        def other() -> Any:
            return client.run(lambda tx: tx.execute(INSERT), timeout=0.2)

        (outcome,) = colour.at_once([other])
        assert isinstance(outcome, DeadlineExceeded)
        colour(tx.query("SELECT 1"))
    assert is_as_before(client, colour, world)


def test_run_has_it_for_all_attempts(client: Any, colour: Any, world: Any) -> None:
    begun = []

    async def later(tx: Any) -> None:
        begun.append(tx)
        await tx.execute("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213")

    def now(tx: Any) -> None:
        begun.append(tx)
        tx.execute("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213")

    before = time.monotonic()
    with pytest.raises(Exception, match=r"1213|time|deadline"):
        colour(client.run(now if colour.name == "sync" else later, attempts=10**6, timeout=1.0))
    assert len(begun) > 1
    assert time.monotonic() - before < 30


@pytest.mark.parametrize("timeout", [-1, True, "1", float("nan"), 10**9])
def test_a_time_that_is_none_is_refused(client: Any, colour: Any, timeout: Any) -> None:
    with pytest.raises(ParameterError, match="a timeout is a number of seconds"):
        client.transaction(timeout=timeout)
    with pytest.raises(ParameterError, match="a timeout is a number of seconds"):
        colour(client.run(lambda tx: None, timeout=timeout))


def test_at_the_very_limit_the_truth_is_told(colour: Any, world: Any, seed: int) -> None:
    """Blocks that end when their time does: what ended well is committed, nothing else
    is, and no connection is lost over it.
    """
    chance = random.Random(seed)
    shared = colour.Client(world.config_of(1, pool_size=4, max_overflow=0, pool_timeout=30))
    naps = [chance.uniform(0.05, 0.15) for _ in range(60)]

    async def later(nap: float) -> None:
        async with shared.transaction(timeout=0.1) as tx:
            await tx.execute(INSERT)
            if nap < 0.1:
                await asyncio.sleep(nap)
            else:
                await tx.execute(SLOW, (nap - 0.05,))

    def now(nap: float) -> None:
        with shared.transaction(timeout=0.1) as tx:
            tx.execute(INSERT)
            if nap < 0.1:
                time.sleep(nap)
            else:
                tx.execute(SLOW, (nap - 0.05,))

    block = now if colour.name == "sync" else later
    outcomes = []
    for first in range(0, len(naps), 4):
        outcomes += colour.at_once([partial(block, nap) for nap in naps[first : first + 4]])
    assert {type(outcome) for outcome in outcomes} <= {type(None), DeadlineExceeded}
    committed = sum(
        1 if nap < 0.1 else 2 for nap, outcome in zip(naps, outcomes) if outcome is None
    )
    assert world.value(1, "SELECT COUNT(*) FROM trades") == committed
    assert until(colour, lambda: shared.stats().in_use == 0)
    assert colour.at_once([lambda: shared.query_value("SELECT 7")] * 8) == [7] * 8
    colour(shared.close_pool())
