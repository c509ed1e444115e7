"""Transactions, in asyncio."""

import asyncio
import time
from typing import (
    Any,
    Awaitable,
    Callable,
    Generator,
    List,
    Optional,
    Type,
    TypeVar,
    overload,
)

from .. import deadlines, errors
from ..api.transaction import BaseTransaction
from ..api.transaction_state import TransactionState
from ..api.typevars import MadeT
from ..blocks import ends_block
from ..execution import execute, retry, steps
from ..protocol.statements import Statement
from ..protocol.transaction_commands import TransactionOptions, Verdict, commands_for
from ..results import Row
from ..sql.parameters import Params
from .borrowed_connection import BorrowedConnection
from .results import Called, Column, Count, Int, OneRow, Rows, Value
from .runner import Tasks, run_plan
from .stream import Stream

T = TypeVar("T")


class _Runs(Tasks):
    """Whatever a transaction can be begun on."""

    _new_transaction: Callable[[TransactionOptions], Any]
    _route: Callable[..., Any]

    @overload
    def stream(
        self,
        sql: str,
        params: Params = None,
        *,
        read_only: bool = False,
        timeout: Optional[float] = None,
    ) -> Stream[Row]: ...

    @overload
    def stream(
        self,
        sql: str,
        params: Params = None,
        *,
        as_: Type[MadeT],
        read_only: bool = False,
        timeout: Optional[float] = None,
    ) -> Stream[MadeT]: ...

    def stream(
        self,
        sql: str,
        params: Params = None,
        *,
        as_: Optional[Type[Any]] = None,
        read_only: bool = False,
        timeout: Optional[float] = None,
    ) -> Stream[Any]:
        """The rows of a query as they come, in constant memory: ``for row in
        db.stream(...)``, with asyncio's own loop there.

        The connection is the loop's until its end. Leaving the loop early frees it at
        once and ends the query on the server. Nothing is sent before the first row is
        asked for, and nothing a second time.

        Args:
            as_, read_only, timeout: as for ``query``; the time is for the whole loop.
        """
        return Stream(self._route, Statement(sql, params, read_only=read_only), timeout, as_)

    async def run(
        self,
        function: Callable[["Transaction"], Awaitable[T]],
        *,
        attempts: int = retry.RUN_ATTEMPTS,
        commit_marker: bool = False,
        isolation: Optional[str] = None,
        timeout: Optional[float] = None,
    ) -> T:
        """Call a function with a transaction, and begin again as a whole where the
        server has rolled it back for a conflict.

        After a deadlock, a lock that was not free in time, a conflict between nodes at
        COMMIT, or a connection that was lost before COMMIT,
        nothing of it is applied: the function is called again, after a random pause,
        ``attempts`` times at most and as long as the deadline of the block is not over.
        So it must do nothing else that counts; see ``on_commit``. What it gives is
        given. Inside another
        transaction it is called once, in a savepoint: only the whole can begin again.

        Args:
            function: takes the transaction; in asyncio a coroutine function.
            commit_marker, isolation: as for ``transaction``.
            timeout: seconds for all of it, with every attempt and pause; see
                ``transaction``.

        Raises: what the function raises, and what COMMIT says; after the last attempt,
            what that ended with.
        """
        options = TransactionOptions(commit_marker, isolation, timeout=timeout)
        result: T = await self._run(retry.run(self._new_transaction, function, options, attempts))
        return result


class Transaction(
    _Runs,
    BaseTransaction[
        Rows, OneRow, Value, Column, Count, Called, "Transaction", BorrowedConnection, Int
    ],
):
    """A transaction, in asyncio: ``async with db.transaction() as tx:``."""

    def __await__(self) -> Generator[Any, None, "Transaction"]:
        """``async with await db.get_transaction()``: the original service's way."""
        yield from ()
        return self

    def _new_transaction(self, options: TransactionOptions) -> "Transaction":
        state = self._check()
        return Transaction(steps.fixed_route(state.client), state, options=options)

    async def _execute(self, statement: Any, until: Optional[float] = None) -> Any:
        state = self._check()
        if state.gate is None:
            return await self._execute_now(state, statement, until)
        async with state.gate:
            return await self._execute_now(state, statement, until)

    async def _execute_now(
        self, state: TransactionState, statement: Any, until: Optional[float]
    ) -> Any:
        until = state.limit.clamp(until)
        try:
            return await run_plan(
                self._exchange(statement), lambda command: state.connection.run(command, until)
            )
        except BaseException as error:
            translated = self._on_error(error)
            errors.raise_translated(error, translated)

    async def __aenter__(self) -> "Transaction":
        limit = self._check_unused()
        state = None
        until = limit.clamp(deadlines.deadline_after())
        borrowed: List[Any] = []
        try:
            client = await self._run(execute.resolve_route(self._resolve, until))
            state = self._outer_state(client)
            if state is None:
                await self._run(execute.check_out(self._resolve, until=until, into=borrowed))
                state = self._begin_outermost(borrowed, limit)
            connection = state.connection
            await run_plan(
                self._begin_exchange(state), lambda command: connection.run(command, until)
            )
            self._opened(state)
            return self
        except BaseException as error:
            translated = self._begin_failed(state, borrowed, error)
            errors.raise_translated(error, translated)

    @ends_block
    async def __aexit__(
        self, kind: Any, error: Optional[BaseException], trace: Any
    ) -> Optional[bool]:
        await self._leave(error)
        return isinstance(error, errors.Rollback)

    async def rollback(self) -> None:
        """Roll back now what the block has done; in a savepoint, what that has done.

        It is over then: nothing more can be sent in it, and its block ends without an
        error.
        """
        self._check()
        self._rolled_back = True
        await self._leave(errors.Rollback())

    async def _leave(self, error: Optional[BaseException]) -> None:
        state = self._begun
        unknown = None
        verdict = Verdict.NOTHING
        finished = False
        try:
            verdict = self._end(error)
            until = state.end_until()
            for command in commands_for(verdict, self._number):
                await state.connection.run(command, until)
            finished = True
        except errors.DRIVER_ERRORS as failure:
            finished = True
            unknown = self._on_end_error(failure, verdict)
        finally:
            self._block_left(finished=finished)
        await self._run(self._after_end(verdict, error, unknown))

    def _set_timer(self, at: float, function: Callable[[], None]) -> Any:
        loop = asyncio.get_running_loop()
        return loop.call_later(max(0.0, at - time.monotonic()), function)

    def _new_gate(self) -> Any:
        return asyncio.Lock()
