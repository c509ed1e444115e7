"""Transactions, in threads."""

import threading
import time
from typing import Any, Callable, List, Optional, Type, TypeVar, overload

from .. import deadlines, errors
from ..api.transaction import BaseTransaction
from ..api.typevars import MadeT
from ..execution import execute, retry
from ..protocol.statements import Statement
from ..protocol.transaction_commands import Mode
from ..results import CallResult, Row, RowCount
from ..sql.parameters import Params
from .borrowed_connection import BorrowedConnection
from .connection import Connection
from .runner import Threads, drive
from .stream import Stream

T = TypeVar("T")


class _Runs(Threads):
    """Whatever a transaction can be begun on."""

    _new_transaction: Callable[[Mode], Any]
    _route: Callable[[], Any]

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
        attempt, left = 0, timeout
        until = None if timeout is None else time.monotonic() + deadlines.seconds(timeout)
        while True:
            transaction = self._new_transaction(
                Mode(commit_marker, isolation, timeout=left).checked()
            )
            try:
                with transaction as tx:
                    return function(tx)
            except errors.Error as error:
                left = None if until is None else max(0.0, until - time.monotonic())
                pause = (
                    None
                    if transaction._outer is not None
                    else retry.pause_before_run(error, attempt, attempts, left)
                )
                if pause is None:
                    raise
            time.sleep(pause)
            attempt, left = (
                attempt + 1,
                None if until is None else max(0.0, until - time.monotonic()),
            )


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

    def _new_transaction(self, mode: Mode) -> "Transaction":
        self._check()
        return Transaction(lambda: self._client, self, mode=mode)  # type: ignore[arg-type, return-value]

    def _say(self, statement: Any, until: Optional[float] = None) -> Any:
        self._check()
        until = self._within(until)
        try:
            return drive(
                self._talk(statement, until), lambda command: self._raw.run(command, until)
            )
        except BaseException as error:
            told = self._told(error)
            if told is error:
                raise
            raise told from error

    def __enter__(self) -> "Transaction":
        route, until = self._unused(), self._within(deadlines.until())
        client = self._run(execute.find(route, until))
        outer = self._begin(client)
        if outer is not None:
            raw = outer._raw
        else:
            self._client, raw = self._run(execute.check_out(route, until=until))
        try:
            drive(self._opening(raw), lambda command: raw.run(command, until))
        except BaseException as error:
            self._give_back(raw)
            told = errors.told(error, self.name, self.shard_id, sent=raw.sent)
            if told is error:
                raise
            raise told from error
        self._begun(raw)
        return self

    def __exit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> None:
        unknown = None
        try:
            for command in self._ending(error):
                self._raw.run(command, deadlines.until())
        except errors.DRIVER_ERRORS as failure:
            unknown = self._ended_by(failure, error)
        finally:
            raw, self._raw = self._raw, None
            self._give_back(raw)
        if unknown is not None:
            self._run(self._settle(unknown))
        else:
            self._run(self._closing(error))

    def _set_timer(self, seconds: float) -> None:
        self._timer = timer = threading.Timer(seconds, self._time_over)
        timer.name, timer.daemon = "dualdb-limit", True
        timer.start()

    def _give_back(self, raw: Connection) -> None:
        if self._outer is None and self._client is not None:
            self._client.pool.release(raw)
