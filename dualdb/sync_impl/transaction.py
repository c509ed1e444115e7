"""Transactions, in threads."""

import contextlib
import threading
from typing import Any, Callable, List, Optional

from .. import deadlines, errors
from ..api.transaction import BaseTransaction
from ..blocks import ends_block
from ..execution import execute, steps
from ..protocol.transaction_commands import TransactionOptions, Verdict, commands_for
from ..results import CallResult, Row, RowCount
from .borrowed_connection import BorrowedConnection
from .runner import Threads, run_plan
from .stream import Stream
from .timers import timers


class Transaction(
    Threads,
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

    _new_stream = Stream

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
        limit, state = self._check_unused(), None
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
        state, unknown = self._begun, None
        verdict, finished = Verdict.NOTHING, False
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
