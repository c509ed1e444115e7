"""Transactions, in asyncio."""

import asyncio
import contextlib
import time
from typing import Any, AsyncIterator, Callable, Generator, List, Optional

from .. import deadlines, errors
from ..api.legacy import ClientMethods
from ..api.transaction import BaseTransaction
from ..api.transaction_block import BaseTransactionBlock
from ..api.transaction_state import TransactionState
from ..blocks import ends_block
from ..coordination.outbox import OutboxProducer
from ..execution import execute
from ..protocol.statements import AnyStatement
from ..protocol.transaction_commands import Verdict
from .borrowed_connection import BorrowedConnection
from .results import Count, Int, Rows, Str
from .runner import Tasks, acquire, run_plan
from .verbs import Verbs


class TransactionBlock(Tasks, BaseTransactionBlock):
    """The block of a transaction or savepoint, in asyncio."""

    async def run_statement(self, statement: AnyStatement, until: Optional[float] = None) -> Any:
        state = self.check()
        until = state.limit.clamp(until)
        if state.gate is None:
            return await self._execute_now(state, statement, until)
        async with self._turn(state, until):
            return await self._execute_now(self.check(), statement, until)

    async def _execute_now(
        self, state: TransactionState, statement: AnyStatement, until: Optional[float]
    ) -> Any:
        self.check_caller(state)
        try:
            return await run_plan(
                self.statement_exchange(statement),
                lambda command: state.connection.run(command, until),
            )
        except BaseException as error:
            errors.raise_translated(error, self.on_error(error))

    @contextlib.asynccontextmanager
    async def _turn(self, state: TransactionState, until: Optional[float]) -> AsyncIterator[None]:
        """Admit one caller at a time."""
        left = None if until is None else max(0.0, until - time.monotonic())
        if not await acquire(state.gate, left):
            raise self.no_turn(state)
        try:
            yield
        finally:
            state.gate.release()

    async def enter(self) -> None:
        """Begin the transaction, or the savepoint."""
        limit = self.check_unused()
        state = None
        until = limit.clamp(deadlines.deadline_after())
        borrowed: List[Any] = []
        try:
            client = await self._run(execute.resolve_route(self._resolve, until))
            state = self.outer_state(client)
            if state is None:
                await self._run(execute.check_out(self._resolve, until=until, into=borrowed))
                state = self.begin_outermost(borrowed, limit)
            if state.gate is None:
                await self._begin(state, until)
            else:
                async with self._turn(state, until):
                    await self._begin(state, until)
        except BaseException as error:
            errors.raise_translated(error, self.begin_failed(state, borrowed, error))

    async def _begin(self, state: TransactionState, until: Optional[float]) -> None:
        connection = state.connection
        await run_plan(self.begin_exchange(state), lambda command: connection.run(command, until))
        self.opened(state)

    async def leave(self, error: Optional[BaseException]) -> None:
        """End it as its block has ended."""
        state = self.begun
        unknown = None
        verdict = Verdict.NOTHING
        finished = False
        try:
            verdict = self.end(error)
            until = state.end_until()
            for command in self.ending(verdict):
                await state.connection.run(command, until)
            finished = True
        except errors.DRIVER_ERRORS as failure:
            finished = True
            unknown = self.on_end_error(failure, verdict)
        finally:
            self.block_left(finished=finished)
        await self._run(self.after_end(verdict, error, unknown))

    def set_timer(self, at: float, function: Callable[[], None]) -> Any:
        loop = asyncio.get_running_loop()
        return loop.call_later(max(0.0, at - time.monotonic()), function)

    def new_gate(self) -> Any:
        return asyncio.Lock()


class Transaction(
    Verbs,
    OutboxProducer[Str],
    BaseTransaction["Transaction", BorrowedConnection],
    ClientMethods[Rows, Count, Int],
):
    """A transaction, in asyncio: ``async with db.transaction() as tx:``."""

    _block_class = TransactionBlock
    _block: TransactionBlock

    def __await__(self) -> Generator[Any, None, "Transaction"]:
        """``async with await db.get_transaction()``: the original service's way."""
        yield from ()
        return self

    async def __aenter__(self) -> "Transaction":
        await self._block.enter()
        return self

    @ends_block
    async def __aexit__(
        self, kind: object, error: Optional[BaseException], trace: object
    ) -> Optional[bool]:
        await self._block.leave(error)
        return isinstance(error, errors.Rollback)

    async def rollback(self) -> None:
        """Roll back now; in a savepoint, what was done since it was opened.

        The transaction, or the savepoint, is over then: nothing more can be sent in it,
        and its block ends without an error.

        Raises:
            InterfaceError: It is over already, or has not begun.
            TransactionAborted: It was lost before.

        Example:
            >>> with db.shard(2).transaction() as tx:
            ...     tx.rollback()
        """
        self._block.check()
        self._block.rolled_back = True
        await self._block.leave(errors.Rollback())
