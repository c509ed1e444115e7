"""Transactions, in threads."""

import contextlib
import threading
import time
from typing import Any, Callable, Iterator, List, Optional

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
from ..results import Row, RowCount
from .borrowed_connection import BorrowedConnection
from .runner import Threads, run_plan
from .timers import timers
from .verbs import Verbs


class TransactionBlock(Threads, BaseTransactionBlock):
    """The block of a transaction or savepoint, in threads."""

    def run_statement(self, statement: AnyStatement, until: Optional[float] = None) -> Any:
        state = self.check()
        until = state.limit.clamp(until)
        if state.gate is None:
            return self._execute_now(state, statement, until)
        with self._turn(state, until):
            return self._execute_now(self.check(), statement, until)

    def _execute_now(
        self, state: TransactionState, statement: AnyStatement, until: Optional[float]
    ) -> Any:
        self.check_caller(state)
        try:
            return run_plan(
                self.statement_exchange(statement),
                lambda command: state.connection.run(command, until),
            )
        except BaseException as error:
            errors.raise_translated(error, self.on_error(error))

    @contextlib.contextmanager
    def _turn(self, state: TransactionState, until: Optional[float]) -> Iterator[None]:
        """Admit one caller at a time."""
        left = -1 if until is None else max(0.0, until - time.monotonic())
        if not state.gate.acquire(timeout=left):
            raise self.no_turn(state)
        try:
            yield
        finally:
            state.gate.release()

    def enter(self) -> None:
        """Begin the transaction, or the savepoint."""
        limit = self.check_unused()
        state = None
        until = limit.clamp(deadlines.deadline_after())
        borrowed: List[Any] = []
        try:
            client = self._run(execute.resolve_route(self._resolve, until))
            state = self.outer_state(client)
            if state is None:
                self._run(execute.check_out(self._resolve, until=until, into=borrowed))
                state = self.begin_outermost(borrowed, limit)
            if state.gate is None:
                self._begin(state, until)
            else:
                with self._turn(state, until):
                    self._begin(state, until)
        except BaseException as error:
            errors.raise_translated(error, self.begin_failed(state, borrowed, error))

    def _begin(self, state: TransactionState, until: Optional[float]) -> None:
        connection = state.connection
        run_plan(self.begin_exchange(state), lambda command: connection.run(command, until))
        self.opened(state)

    def leave(self, error: Optional[BaseException]) -> None:
        """End it as its block has ended."""
        state = self.begun
        unknown = None
        verdict = Verdict.NOTHING
        finished = False
        try:
            verdict = self.end(error)
            until = state.end_until()
            for command in self.ending(verdict):
                state.connection.run(command, until)
            finished = True
        except errors.DRIVER_ERRORS as failure:
            finished = True
            unknown = self.on_end_error(failure, verdict)
        finally:
            self.block_left(finished=finished)
        self._run(self.after_end(verdict, error, unknown))

    def set_timer(self, at: float, function: Callable[[], None]) -> Any:
        return timers.call_at(at, function)

    def new_gate(self) -> Any:
        return threading.Lock()


class Transaction(
    Verbs,
    OutboxProducer[str],
    BaseTransaction["Transaction", BorrowedConnection],
    ClientMethods[List[Row], RowCount, int],
):
    """A transaction, in threads: ``with db.transaction() as tx:``."""

    _block_class = TransactionBlock
    _block: TransactionBlock

    def __enter__(self) -> "Transaction":
        self._block.enter()
        return self

    @ends_block
    def __exit__(
        self, kind: object, error: Optional[BaseException], trace: object
    ) -> Optional[bool]:
        self._block.leave(error)
        return isinstance(error, errors.Rollback)

    def rollback(self) -> None:
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
        self._block.leave(errors.Rollback())
