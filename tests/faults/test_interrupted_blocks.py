"""A signal may raise at any instruction of a transaction's begin and end.

Whatever is interrupted, the caller is in no transaction afterwards, not even while he
handles the exception, and the connection is back in its pool.
"""

import contextlib
from typing import Any, Iterator

import pytest
from database_servers import Databases
from interrupts import Interrupt, Interrupted
from io_kinds import IO

from dualdb.deadlines import Deadline

INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, 'A', 1)"

#: Where a block begins and ends. What the pool and the connection do in between is
#: tested elsewhere.
FILES = (
    "api/membership.py",
    "api/time_limit.py",
    "api/transaction.py",
    "api/transaction_block.py",
    "api/transaction_state.py",
    "async_impl/transaction.py",
    "blocks.py",
    "deadlines.py",
    "sync_impl/transaction.py",
)


def blocks_now(client: Any, kind: str) -> None:
    if kind == "committed":
        with client.transaction(timeout=60) as tx:
            tx.execute(INSERT, (0,))
    elif kind == "rolled back":
        with contextlib.suppress(KeyError), client.transaction() as tx:
            tx.execute(INSERT, (0,))
            raise KeyError
    elif kind == "savepoint":
        with client.transaction(), client.transaction() as tx:
            tx.execute(INSERT, (0,))
    else:
        with Deadline(0.0) as tx:
            pass
    assert tx is not None, "it is still bound, as in most programs"


async def blocks_later(client: Any, kind: str) -> None:
    if kind == "committed":
        async with client.transaction(timeout=60) as tx:
            await tx.execute(INSERT, (0,))
    elif kind == "rolled back":
        with contextlib.suppress(KeyError):
            async with client.transaction() as tx:
                await tx.execute(INSERT, (0,))
                raise KeyError
    elif kind == "savepoint":
        async with client.transaction(), client.transaction() as tx:
            await tx.execute(INSERT, (0,))
    else:
        with Deadline(0.0) as tx:
            pass
    assert tx is not None


def write_after(io: IO, client: Any, kind: str, interrupt: Interrupt) -> Any:
    """Interrupt a block, and write while the exception is being handled."""
    if io.name == "sync":
        try:
            with interrupt:
                blocks_now(client, kind)
        except Interrupted:
            return client.execute(INSERT, (interrupt.at,))
        return None

    async def handled() -> Any:
        try:
            with interrupt:
                await blocks_later(client, kind)
        except Interrupted:
            return await client.execute(INSERT, (interrupt.at,))
        return None

    return io(handled())


@pytest.fixture
def client(databases: Databases, io: IO) -> Iterator[Any]:
    made = io.Client(databases.config_of(1, pool_size=2, max_overflow=0, pool_timeout=5))
    io(made.init_pool())
    yield made
    io(made.close_pool())


@pytest.mark.slow
# A second exception, in a finaliser, is shown and goes no further.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["committed", "rolled back", "savepoint", "deadline"])
def test_after_an_interrupt_at_any_line_nobody_is_in_a_dead_block(
    client: Any, io: IO, databases: Databases, kind: str
) -> None:
    written = []
    for at in range(1, 10_000):
        interrupt = Interrupt(at, FILES)
        if write_after(io, client, kind, interrupt) is not None:
            written.append(at)
        if not interrupt.happened:
            break
        io.wait_for(lambda: client.stats().in_use == 0)
    else:
        pytest.fail("the block never ended without being interrupted")
    assert len(written) > 20
    rows = databases.run(1, "SELECT user_id AS n FROM trades WHERE user_id > 0 ORDER BY user_id")
    assert [row["n"] for row in rows] == written, "an acknowledged write is lost"
