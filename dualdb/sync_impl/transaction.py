"""Transactions, in threads."""

import contextlib
import threading
from typing import Any, Callable, List, Optional, Type, TypeVar, overload

from .. import deadlines, errors
from ..api.transaction import BaseTransaction
from ..api.typevars import MadeT
from ..blocks import ends_block
from ..execution import execute, retry, steps
from ..protocol.statements import Statement
from ..protocol.transaction_commands import TransactionOptions, Verdict, commands_for
from ..results import CallResult, Row, RowCount
from ..sql.parameters import Params
from .borrowed_connection import BorrowedConnection
from .runner import Threads, run_plan
from .stream import Stream
from .timers import timers

T = TypeVar("T")


class _Runs(Threads):
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

    def run(
        self,
        function: Callable[["Transaction"], T],
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
        result: T = self._run(retry.run(self._new_transaction, function, options, attempts))
        return result


class Transaction(
    _Runs,
    BaseTransaction[
        List[Row],
        Optional[Row],
        Any,
        List[Any],
        RowCount,
        CallResult,
        "Transaction",
        BorrowedConnection,
        int,
    ],
):
    """A transaction, in threads: ``with db.transaction() as tx:``."""

    def _new_transaction(self, options: TransactionOptions) -> "Transaction":
        state = self._check()
        return Transaction(steps.fixed_route(state.client), state, options=options)

    def _execute(self, statement: Any, until: Optional[float] = None) -> Any:
        state = self._check()
        until = state.limit.clamp(until)
        with contextlib.nullcontext() if state.gate is None else state.gate:
            try:
                return run_plan(
                    self._exchange(statement), lambda command: state.connection.run(command, until)
                )
            except BaseException as error:
                translated = self._on_error(error)
                errors.raise_translated(error, translated)

    def __enter__(self) -> "Transaction":
        limit = self._check_unused()
        state = None
        until = limit.clamp(deadlines.deadline_after())
        borrowed: List[Any] = []
        try:
            client = self._run(execute.resolve_route(self._resolve, until))
            state = self._outer_state(client)
            if state is None:
                self._run(execute.check_out(self._resolve, until=until, into=borrowed))
                state = self._begin_outermost(borrowed, limit)
            connection = state.connection
            run_plan(self._begin_exchange(state), lambda command: connection.run(command, until))
            self._opened(state)
            return self
        except BaseException as error:
            translated = self._begin_failed(state, borrowed, error)
            errors.raise_translated(error, translated)

    @ends_block
    def __exit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> Optional[bool]:
        self._leave(error)
        return isinstance(error, errors.Rollback)

    def rollback(self) -> None:
        """Roll back now what the block has done; in a savepoint, what that has done.

        It is over then: nothing more can be sent in it, and its block ends without an
        error.
        """
        self._check()
        self._rolled_back = True
        self._leave(errors.Rollback())

    def _leave(self, error: Optional[BaseException]) -> None:
        state = self._begun
        unknown = None
        verdict = Verdict.NOTHING
        finished = False
        try:
            verdict = self._end(error)
            until = state.end_until()
            for command in commands_for(verdict, self._number):
                state.connection.run(command, until)
            finished = True
        except errors.DRIVER_ERRORS as failure:
            finished = True
            unknown = self._on_end_error(failure, verdict)
        finally:
            self._block_left(finished=finished)
        self._run(self._after_end(verdict, error, unknown))

    def _set_timer(self, at: float, function: Callable[[], None]) -> Any:
        return timers.call_at(at, function)

    def _new_gate(self) -> Any:
        return threading.Lock()
