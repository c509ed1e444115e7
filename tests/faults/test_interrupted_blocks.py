"""A signal may raise at any instruction of a transaction's begin and end.

Whatever is interrupted, the caller is in no transaction afterwards, not even while he
handles the exception, and the connection is back in its pool.
"""

import contextlib
import linecache
import os
import sys
from types import FrameType
from typing import Any, Iterator, Optional

import pytest
from io_kinds import IO

import dualdb
from dualdb.deadlines import Deadline

INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, 'A', 1)"

_PACKAGE = os.path.dirname(dualdb.__file__) + os.sep
#: Where a block begins and ends. What the pool and the connection do in between is
#: tested elsewhere.
FILES = {
    os.path.join(_PACKAGE, *name.split("/"))
    for name in (
        "api/membership.py",
        "api/time_limit.py",
        "api/transaction.py",
        "api/transaction_state.py",
        "async_impl/transaction.py",
        "blocks.py",
        "deadlines.py",
        "sync_impl/transaction.py",
    )
}


class Interrupted(BaseException):
    """What a signal handler raises."""


class Interrupt:
    """Raises at one line of the package, counted from the beginning of the block.

    The tracer also stops at the end of a ``with lock:`` block, before the lock is
    released, where no signal is handled; such lines are left out.
    """

    def __init__(self, at: int) -> None:
        self.at, self.lines = at, 0
        self.happened = False
        # kept here: the interpreter drops its own reference to a tracer that raises
        self._tracers = (self._trace, self._trace_line)

    def __enter__(self) -> "Interrupt":
        self._before = sys.gettrace()
        sys.settrace(self._tracers[0])
        return self

    def __exit__(self, *exc_info: Any) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Optional[Any]:
        return self._tracers[1] if frame.f_code.co_filename in FILES else None

    def _trace_line(self, frame: FrameType, event: str, arg: Any) -> Any:
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if event == "line" and not text.startswith("with self._lock"):
            self.lines += 1
            if self.lines == self.at:
                self.happened = True
                raise Interrupted  # which ends the tracing, too
        return self._tracers[1]


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
def client(databases: Any, io: IO) -> Iterator[Any]:
    made = io.Client(databases.config_of(1, pool_size=2, max_overflow=0, pool_timeout=5))
    io(made.init_pool())
    yield made
    io(made.close_pool())


@pytest.mark.slow
# A second exception, in a finaliser, is shown and goes no further.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["committed", "rolled back", "savepoint", "deadline"])
def test_after_an_interrupt_at_any_line_nobody_is_in_a_dead_block(
    client: Any, io: IO, databases: Any, kind: str
) -> None:
    written = []
    for at in range(1, 10_000):
        interrupt = Interrupt(at)
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
