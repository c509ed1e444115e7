"""What a transaction decides, in both colours: what to say when, what an error means
for it, and when it is over.
"""

import logging
import secrets
import threading
import time
from abc import abstractmethod
from typing import Any, Callable, Generic, List, Optional, Sequence, Tuple

import pymysql.err

from .. import deadlines, error_codes, errors
from ..execution import commit_outcome, execute, steps, verbs
from ..protocol import exchange, transaction_commands
from ..sql.parameters import Params
from .client import AnyClient
from .target import Target
from .typevars import CallR, ColumnR, ConnectionT, CountR, IntR, RowR, RowsR, TransactionT, ValueR

log = logging.getLogger("dualdb")


class BaseTransaction(
    Target[RowsR, RowR, ValueR, ColumnR, CountR, CallR, TransactionT, ConnectionT],
    Generic[RowsR, RowR, ValueR, ColumnR, CountR, CallR, TransactionT, ConnectionT, IntR],
):
    """A transaction on one database, or a savepoint inside one.

    Used once, as a context manager.

    A subclass holds the I/O: check out, say what is decided here, give back. What
    concerns the transaction as a whole is kept by the
    outermost, the *root*: the stack of what is open in it, and what has broken it.
    """

    def __init__(
        self,
        find_client: Callable[[], AnyClient],
        outer: "Optional[AnyTransaction]" = None,
        *,
        options: transaction_commands.TransactionOptions = transaction_commands.DEFAULT_OPTIONS,
    ) -> None:
        self._find_client = find_client
        self._outer = outer
        self._client: Optional[AnyClient] = None
        self._connection: Any = None
        self._read_only = False
        self._closed = False
        self._root: AnyTransaction = self
        self._number = 0  # of the savepoint; 0 for the root
        self._owner: Any = None  # the thread or task that entered it
        # what that thread or task was in before
        self._previous: Optional[AnyTransaction] = None
        # what is to be called when all is committed
        self._commit_hooks: List[Callable[[], Any]] = []
        # Of the root only:
        self._options = options
        self._topology: Any = None  # of its service when it began
        self._token: Optional[str] = None  # what it has left in the table of markers
        self._stack: List[AnyTransaction] = []
        self._savepoints = 0
        self._lost_savepoints_upto = (
            0  # the newest savepoint that an implicit commit has swept away
        )
        self._implicitly_committed = (
            False  # an implicit commit has ended it; what follows begins anew
        )
        self._partially_committed = False  # and so part of it has been committed
        self._rollback_cause: Optional[BaseException] = None  # what it was rolled back for
        self._failure: Optional[BaseException] = None
        # when its time is over, by time.monotonic()
        self._until: Optional[float] = None
        self._timed_out = False  # it was over before the block ended
        self._timer: Any = None  # what looks to that, until the block ends
        self._timer_lock = threading.Lock()  # between the timer and the block's end

    def __repr__(self) -> str:
        state = "over" if self._closed else "open" if self._connection is not None else "not begun"
        return f"<{type(self).__name__} on {self._client.name if self._client else '?'}, {state}>"

    # A place for statements.

    @property
    def name(self) -> str:
        """The database it is on: "global", "shard 7", or the client's address."""
        assert self._client is not None
        return self._client.name

    @property
    def shard_id(self) -> Optional[int]:
        """The shard it is on; None for the global database."""
        assert self._client is not None
        return self._client.shard_id

    _refresh_on_miss = None  # what has begun ends where it began

    def _record_insert_id(self, lastrowid: int) -> None:
        assert self._client is not None
        self._client._record_insert_id(lastrowid)

    @abstractmethod
    def _execute(self, statement: Any, until: Optional[float] = None) -> Any:
        """Say a statement on the transaction's connection: what its talk returns."""

    def _take_retry_token(self) -> bool:
        return False

    def _current_transaction(self) -> Any:
        return self

    def _route(self) -> steps.Executor:
        self._check()
        return self

    def _check(self) -> None:
        if self._connection is None or self._closed:
            raise errors.InterfaceError(
                f"this transaction {'is over' if self._closed else 'has not begun: use it in a with block'}"
            )
        if self._is_overdue():
            raise self._timeout_error().with_context(self.name, self.shard_id, sent=False)
        if self._root._failure is not None:
            raise errors.TransactionAborted(
                "this transaction is gone, so nothing more is sent in it: leave the block and begin again"
            ).with_context(self.name, self.shard_id, sent=False) from self._root._failure

    # Its time.

    def _clamp(self, until: Optional[float]) -> Optional[float]:
        """Until when something in it must be over."""
        limit = self._root._until
        return (
            min(until, limit)
            if until is not None and limit is not None
            else until
            if limit is None
            else limit
        )

    def _is_overdue(self) -> bool:
        root = self._root
        root._timed_out = root._timed_out or (
            root._until is not None and time.monotonic() >= root._until
        )
        return root._timed_out

    def _timeout_error(self) -> errors.DeadlineExceeded:
        error = errors.DeadlineExceeded(
            "the transaction's time was over before its block ended, and it has been rolled back"
        )
        error.in_transaction, error.partially_committed = True, self._root._partially_committed
        return error

    @abstractmethod
    def _set_timer(self, seconds: float) -> None:
        """Have ``_on_timeout`` called in so many seconds, in whatever thread; keep what
        can be cancelled as ``_timer``, before that.
        """

    def _on_timeout(self) -> None:
        """The server must not keep the transaction open for a block that does nothing,
        so it is ended from here.
        """
        with self._timer_lock:
            if self._timer is None:
                return
            self._timer, self._timed_out = None, True
            assert self._client is not None
            self._connection.abort_in_use()
            # the server does not see a broken line before it wants to write
            if not self._connection.idle:
                self._client.pool.kill_checked_out(self._connection)

    def _stop_timer(self) -> None:
        with self._timer_lock:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    # The original yields a connection or a client; code written for either finds what
    # it used.

    def execute_stored_procedure(self, procedure_name: str, params: Sequence[Any] = ()) -> RowsR:
        """Call a procedure; the rows of all its result sets in one list."""
        return self._run(verbs.call_rows(self._route, procedure_name, params))

    def execute_query(self, query: str, params: Params = ()) -> RowsR:
        """The rows of a query."""
        return self._run(verbs.query(self._route, query, params))

    def execute_non_query(self, query: str, params: Params = ()) -> CountR:
        """The number of affected rows."""
        return self._run(verbs.execute(self._route, query, params))

    def get_last_insert_id(self) -> IntR:
        """The id of the last insert that this thread or task made on this database; 0
        where there was none.
        """
        self._check()
        assert self._client is not None
        return self._client.get_last_insert_id()

    def cursor(self, *args: Any) -> Any:
        """A cursor of the driver on this transaction's connection, for code that wants
        the driver's own ways. Not used after the block.
        """
        self._check()
        if self._read_only:
            raise self._refusal()
        self._connection.dirty = True  # what is said through it, nobody here hears
        return self._connection.cursor(*args)

    def _new_connection(self) -> ConnectionT:
        raise errors.InterfaceError(
            "a transaction's connection is not lent: use cursor(), or connection() of the database itself"
        )

    def on_commit(self, function: Callable[[], Any]) -> None:
        """Have a function called once the outermost transaction is committed, outside
        of it; not if this one is rolled back.

        Such functions are called in their order; in asyncio they may be coroutine
        functions. One that fails is logged: the transaction is committed all the same.
        """
        self._check()
        self._commit_hooks.append(function)

    # What the colour's __enter__ asks.

    def _refusal(self) -> errors.Error:
        assert self.shard_id is not None
        return errors.shard_read_only(self.shard_id, "a commit marker is written")

    def _check_unused(self) -> "Callable[[], AnyClient]":
        if self._connection is not None or self._closed:
            raise errors.InterfaceError("a transaction is used once: ask for a new one")
        if self._options.timeout is not None:
            self._until = time.monotonic() + self._options.timeout
        return self._find_client

    def _bind(self, client: AnyClient) -> "Optional[AnyTransaction]":
        """The transaction to begin inside of, if any."""
        self._client, self._owner = client, client._owner()
        if self._options.commit_marker and client._read_only:
            raise self._refusal()
        outer = self._outer or client._current_transaction()
        if outer is not None:
            outer._check()
            if self._options != transaction_commands.DEFAULT_OPTIONS:
                raise errors.InterfaceError(
                    "how a transaction is opened is said of the outermost, and this one is inside another"
                )
            self._root = outer._root
            # Savepoints are a stack: that of another task, released in the middle,
            # would take this one's rows along.
            outer = self._root._stack[-1]
            if outer is not self._root and outer._owner is not self._owner:
                raise errors.ConcurrentUseError(
                    "another thread or task has a savepoint open in this transaction"
                )
            self._root._savepoints += 1
            self._number = self._root._savepoints
        self._outer = outer
        return outer

    def _begin_exchange(self, connection: Any) -> exchange.Exchange:
        connection.sent = False
        self._token = secrets.token_hex(16) if self._options.commit_marker else None
        yield from transaction_commands.begin(self._number, self._token, self._options)

    def _attach(self, connection: Any) -> None:
        assert self._client is not None
        self._read_only = self._client._read_only
        self._connection = connection
        self._root._stack.append(self)
        shared = self._client._shared
        if self._root is self and shared is not None:
            self._topology = shared.topology()
            shared.open.setdefault(self._owner, []).append(self)
        self._previous = self._client._current_transaction()
        self._client._transactions[self._owner] = self
        if self._until is not None:
            self._set_timer(max(0.0, self._until - time.monotonic()))

    # What the colour's _say asks.

    def _exchange(self, statement: Any, until: Optional[float]) -> exchange.Exchange:
        """Say a statement, and see whether the transaction is still there afterwards."""
        root = self._root
        statement.check_in_transaction()
        if root._implicitly_committed:
            yield from root._begin_exchange(self._connection)
            root._implicitly_committed = False
        with_session_tracking = exchange.with_session_tracking(
            statement, self._connection, in_transaction=True
        )
        result = yield from (
            self._guarded(with_session_tracking) if statement.calls else with_session_tracking
        )
        if not self._connection.in_transaction:
            if statement.commits:
                # As it would be with autocommit off: what was done is committed, and
                # what follows is a new transaction.
                log.warning(
                    "%s: a statement inside a transaction committed it; what follows is a transaction of its own",
                    self.name,
                )
                (
                    root._implicitly_committed,
                    root._partially_committed,
                    root._lost_savepoints_upto,
                ) = True, True, root._savepoints
            else:
                self._fail("a statement inside the transaction has committed it or rolled it back")
        return result

    def _guarded(self, exchange: exchange.Exchange) -> exchange.Exchange:
        """What a procedure does to the transaction it does not say, and a transaction
        that it has begun looks like the one it has ended.

        A savepoint tells them apart: it is gone with the transaction it was set in.
        """
        yield transaction_commands.GUARD
        try:
            result = yield from exchange
        except pymysql.err.MySQLError as error:
            if errors.is_server_error(error) and self._connection.in_transaction:
                yield from self._see_whether_it_is_the_same()
            raise
        if self._connection.in_transaction:
            yield from self._see_whether_it_is_the_same()
        return result

    def _see_whether_it_is_the_same(self) -> exchange.Exchange:
        try:
            yield transaction_commands.UNGUARD
        except pymysql.err.MySQLError as error:
            if errors.code_of(error) != error_codes.NO_SUCH_SAVEPOINT:
                raise
            self._fail(
                "a procedure inside the transaction has ended it, or rolled back a part of it, and begun another"
            )

    def _on_error(self, error: BaseException) -> BaseException:
        """What the caller is to be told of a statement's error; and what the error
        means for the transaction.
        """
        translated = self._translate_error(error)
        if (
            isinstance(translated, (errors.ConnectionLost, errors.DeadlineExceeded))
            and not self._connection.idle
        ):
            translated.in_transaction = True
            self._fail(translated)
        elif isinstance(translated, errors.Error) and translated.sent:
            if not self._connection.in_transaction or not self._connection.idle:
                self._fail(translated)
        elif not isinstance(translated, errors.Error) and not self._connection.idle:
            self._fail(error)
        return translated

    def _translate_error(self, error: BaseException) -> BaseException:
        if (
            self._root._timed_out
            and isinstance(error, errors.DRIVER_ERRORS)
            and not errors.is_server_error(error)
        ):
            error = self._timeout_error()  # it was the timer that has cut it
        translated = errors.translate_error(
            error, self.name, self.shard_id, sent=self._connection.sent
        )
        if self._root._partially_committed and isinstance(translated, errors.Error):
            translated.partially_committed = True
        return translated

    def _fail(self, failure: "BaseException | str") -> None:
        """The transaction is gone as a whole, and nothing more may be sent in it."""
        if self._root._failure is None:
            self._root._failure = (
                errors.OperationalError(failure) if isinstance(failure, str) else failure
            )

    # What the colour's __exit__ asks.

    def _finish_commands(self, error: Optional[BaseException]) -> Tuple[bytes, ...]:
        """The commands that end it; none where the connection cannot or must not be
        spoken to any more.
        """
        assert self._client is not None
        root, stack = self._root, self._root._stack
        if self._closed:
            return ()
        if self._connection.idle:
            self._connection.sent = False
        for inner in stack[stack.index(self) :]:
            inner._closed = True
        del stack[stack.index(self) :]
        if self._previous is not None and not self._previous._closed:
            self._client._transactions[self._owner] = self._previous
        else:
            self._client._transactions.pop(self._owner, None)
        if self is root:
            self._stop_timer()  # what follows is not cut short
            root._rollback_cause = error
            self._leave_service()
        if self._is_overdue():
            self._connection.idle = False  # closing the connection rolls back
            self._fail(self._timeout_error())
        if error is not None and not isinstance(error, Exception):
            self._connection.idle = False
            self._fail(error)
        elif not self._connection.idle:
            self._fail("a statement of this transaction was interrupted, or is still running")
        elif error is not None and deadlines.passed():
            # closing the connection rolls back, and nobody has time to wait for more
            self._connection.idle = False
            self._fail(error)
        if not self._connection.idle or (root._failure is not None and self is not root):
            return ()
        if root._failure is not None:
            return transaction_commands.transaction_end(0, commit=False)
        if root._implicitly_committed or (
            self._number and self._number <= root._lost_savepoints_upto
        ):
            if error is not None and self is not root:
                self._fail(
                    "an implicit commit has swept this savepoint away, so what follows it cannot be undone alone"
                )
            return ()
        if not self._connection.in_transaction:
            self._fail("the transaction was ended through its cursor")
            return ()
        return transaction_commands.transaction_end(self._number, commit=error is None)

    def _leave_service(self) -> None:
        assert self._client is not None
        shared = self._client._shared
        transactions = [] if shared is None else shared.open.get(self._owner, [])
        if shared is not None and self in transactions:
            transactions.remove(self)
            if not transactions:
                del shared.open[self._owner]

    def _on_finish_error(
        self, failure: BaseException, error: Optional[BaseException]
    ) -> Optional[errors.OutcomeUnknown]:
        """An ending command failed with ``failure`` while ``error`` was on its way out
        of the block. Gives what is to be settled.
        """
        translated = self._translate_error(failure)
        committing = error is None and self._root._failure is None
        self._fail(translated)
        self._connection.idle = False
        if not committing:
            log.warning(
                "%s: rollback failed, the connection is closed instead: %s", self.name, translated
            )
        elif (
            isinstance(translated, (errors.ConnectionLost, errors.DeadlineExceeded))
            and translated.sent
            and self is self._root
        ):
            unknown = execute.outcome_unknown(translated, "COMMIT")
            unknown.__cause__ = translated
            return unknown
        else:
            errors.raise_translated(failure, translated)
        return None

    def _resolve_commit(self, unknown: errors.OutcomeUnknown) -> steps.Plan[None]:
        """What became of the COMMIT: the block ends well, or raises TransactionAborted,
        or nobody knows. The connection is given back.
        """
        committed = None
        if self._token is not None and not isinstance(unknown, errors.WriteTimedOut):
            assert self._client is not None
            committed = yield from commit_outcome.resolve_commit_outcome(self._client, self._token)
        if committed is None:
            raise unknown
        if not committed:
            since = (
                "what followed the implicit commit"
                if self._partially_committed
                else "the transaction"
            )
            raise errors.TransactionAborted(
                f"the connection was lost before COMMIT was applied, so nothing of {since} was"
            ).with_context(self.name, self.shard_id, sent=True) from unknown.__cause__
        if self._commit_hooks:
            yield steps.CallHooks(tuple(self._commit_hooks))

    def _after_finish(self, error: Optional[BaseException]) -> steps.Plan[None]:
        """Called last: a block that ended well although its transaction is gone must
        not look as if it had been committed.
        """
        self._aborted(error)
        if error is not None:
            return
        if self._outer is not None:
            self._outer._commit_hooks += self._commit_hooks
        elif self._commit_hooks:
            yield steps.CallHooks(tuple(self._commit_hooks))

    def _aborted(self, error: Optional[BaseException]) -> None:
        failure = self._root._failure or self._root._rollback_cause
        if error is None and failure is not None:
            if self._root._timed_out:
                raise self._timeout_error().with_context(self.name, self.shard_id) from failure
            raise errors.TransactionAborted(
                "the transaction was not committed as a whole: it was gone before its block ended"
            ).with_context(self.name, self.shard_id, sent=True) from failure


AnyTransaction = BaseTransaction[Any, Any, Any, Any, Any, Any, Any, Any, Any]
