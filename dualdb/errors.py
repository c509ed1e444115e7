"""The exceptions of the package: PEP 249 classes, shared by threads and asyncio.

A server error keeps PyMySQL's class and the server's error code in ``args[0]``, so
existing ``except pymysql.err.IntegrityError`` clauses still work. The classes here add
the database it concerns (``target``, ``shard_id``) and whether the statement may have
been applied (``sent``). Every error can be pickled (Celery does), and no message
contains a password or a parameter value unless the server put it there.
"""

import re
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    List,
    NoReturn,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypeVar,
)

import pymysql.err

from . import error_codes

if TYPE_CHECKING:
    from .results import ScatterResult

E = TypeVar("E", bound="Error")


class Error(pymysql.err.Error):
    """Base of every error raised by dualdb.

    Attributes:
        target: The database it concerns: ``"global"``, ``"shard 7"``, or
            ``"host:port/database"`` for a standalone client.
        shard_id: The shard's id; None for the global database.
        sent: False if nothing of the statement reached a server, True if it may have
            been applied, None if the question does not arise.
        sqlstate: The five-character SQLSTATE from the error packet, or None.
        rows: For ``executemany``: the numbers of the first and the last row of the
            failed chunk, counted from 0.
        partially_committed: DDL inside the block had already committed part of the
            transaction.
        driver_error: The driver's exception that this one replaces, or None. It is not
            pickled.
    """

    target: Optional[str] = None
    shard_id: Optional[int] = None
    sent: Optional[bool] = None
    rows: Optional[Tuple[int, int]] = None
    partially_committed = False
    driver_error: Optional[BaseException] = None

    @property
    def retryable(self) -> bool:
        """True if nothing was applied and the same call may succeed later.

        Outside a transaction repeat the statement, inside one the whole transaction.
        """
        return self.errno in error_codes.RETRYABLE and not self.partially_committed

    @property
    def errno(self) -> Optional[int]:
        """The error code of the server or of the client library, or None."""
        code = self.args[0] if self.args else None
        return code if isinstance(code, int) else None

    def with_context(
        self: E,
        target: Optional[str],
        shard_id: Optional[int] = None,
        *,
        sent: Optional[bool] = None,
    ) -> E:
        """Record which database this error concerns.

        Args:
            target: The database's name, as in ``target``.
            shard_id: The shard's id; None for the global database.
            sent: Whether the statement may have been applied, as in ``sent``.

        Returns:
            The error itself.
        """
        self.target = target
        self.shard_id = shard_id
        self.sent = sent
        return self

    @property
    def message(self) -> str:
        """The text of the error, without its code and target."""
        return str(self.args[-1]) if self.args else type(self).__name__

    @property
    def summary(self) -> str:
        """The message and its code, for use inside the text of another error."""
        return self.message if self.errno is None else f"{self.message} ({self.errno})"

    def __str__(self) -> str:
        # Not super(): OSError.__str__ would write "[Errno 2013] ...".
        text = BaseException.__str__(self)
        return f"{text} [{self.target}]" if self.target and self.errno is not None else text

    def __reduce__(self) -> Tuple[Any, ...]:
        state = {name: value for name, value in vars(self).items() if name != "driver_error"}
        return type(self), self.args, state


class SyncInLoopWarning(RuntimeWarning):
    """A DatabaseService was called inside a running event loop, which it blocks, with
    all tasks of the loop: use AsyncDatabaseService, or a thread.
    """


class Rollback(Exception):
    """Raise it inside a transaction block to roll back and leave without an error.

    Execution continues after the block. In nested blocks it rolls back and leaves the
    innermost one, which is a savepoint.

    Example:
        >>> with db.transaction() as tx:
        ...     tx.execute("UPDATE accounts SET balance = balance - 10 WHERE id = 1")
        ...     raise Rollback
    """


class InterfaceError(Error, pymysql.err.InterfaceError):
    """The package was used incorrectly."""


class DatabaseError(Error, pymysql.err.DatabaseError):
    """A failure of a database or of the connection to it."""


class DataError(DatabaseError, pymysql.err.DataError):
    """A value does not fit its column."""


class RowError(DataError):
    """The rows do not match the type given as ``as_``: other columns, or a value that
    fails validation. The statement has been executed.
    """

    #: The number of the row, from 0; None if the columns do not match, so that no row
    #: does.
    row: Optional[int] = None
    #: The columns that do not match, and the fields without a column, as far as known.
    columns: Tuple[str, ...] = ()


class UndecodableText(RowError):
    """A received text is not valid in the connection's character set.

    The response was read to its end: the statement has been executed, and the
    connection and its transaction remain usable.
    """


class TooManyRows(DataError):
    """There are more rows than ``max_rows``, or more than one for ``query_one(...,
    strict=True)``. A statement that may write has been executed to its end.
    """


class OperationalError(DatabaseError, pymysql.err.OperationalError):
    """The server, the network or a SIGNAL in a procedure reported a failure that is
    not necessarily the caller's fault.
    """


class Deadlock(OperationalError):
    """The server rolled the transaction back to resolve a deadlock, or a conflict
    between cluster nodes: repeat the whole transaction.
    """


class LockWaitTimeout(OperationalError):
    """A row or table lock could not be acquired in time, or at once with NOWAIT.

    Servers differ in what they roll back (``innodb_rollback_on_timeout``): leave the
    block and repeat the whole transaction.
    """


class NotPrimary(OperationalError):
    """The server is no longer the primary of its database, or not in service.

    Nothing was applied, and a transaction is rolled back as a whole. This connection
    and all older ones of its pool are replaced: behind a proxy a new connection may
    reach the current primary.
    """

    #: Another host of the same database may be the primary now, and the statement was
    #: outside a transaction.
    elsewhere = False

    @property
    def retryable(self) -> bool:
        """True unless the transaction was itself read-only, or partially committed."""
        return self.errno != error_codes.READ_ONLY_TRANSACTION and not self.partially_committed


class ReadOnlyServer(NotPrimary):
    """The server or the transaction is read-only: a replica, or a demoted primary."""


class StatementInterrupted(OperationalError):
    """The server aborted the statement: KILL QUERY, or its statement time limit."""


class IntegrityError(DatabaseError, pymysql.err.IntegrityError):
    """A key or constraint was violated."""


class InternalError(DatabaseError, pymysql.err.InternalError):
    """Internal error of the driver or the server."""


class ProgrammingError(DatabaseError, pymysql.err.ProgrammingError):
    """The statement is invalid: syntax, a missing table, mismatched parameters."""


class NotSupportedError(DatabaseError, pymysql.err.NotSupportedError):
    """The server does not support the requested feature."""


class NotSupportedByEngine(NotSupportedError):
    """The engine of the database cannot do this; nothing was sent.

    Attributes:
        feature: What was asked for: "xa" or "procedures", for instance.
        engine: The engine: "galera" or "tidb", for instance.
    """

    feature = ""
    engine = ""


class ParameterError(ProgrammingError, TypeError, ValueError):
    """An argument is invalid: a name, the type or the number of the parameters.

    Nothing was sent. It is also a TypeError and a ValueError, which is what the
    drivers' ``query % params`` raises for the same mistakes.
    """

    #: A session that parses literals otherwise may accept it; see ``sql.literals``.
    _depends_on_style = False


class PacketTooLarge(ParameterError):
    """The statement with its parameters exceeds the server's ``max_allowed_packet``.

    Nothing was applied, and it is not retried.
    """


class ServiceNotOpen(InterfaceError, RuntimeError):
    """The service or client was used before ``init_service()`` or after
    ``close_service()``.
    """


class ConcurrentUseError(InterfaceError):
    """Two threads or tasks used one transaction or connection at the same time.

    Nothing of the second statement was sent.
    """


class RoutingError(DatabaseError, RuntimeError):
    """No database could be selected for a call. Nothing was sent."""


class ShardNotFound(RoutingError):
    """The session names a shard that is not in the shard table or is inactive, and
    ``absent_shard="error"`` is set.
    """


class KeyNotFound(RoutingError):
    """The key has no shard: it is not in the lookup table.

    ``db.directory.assign(key)`` assigns one.
    """


class StaleMap(RoutingError):
    """A write by key was refused because this process could not refresh its mapping of
    keys to shards for ``max_staleness`` seconds. Reads are still allowed.
    """

    retryable = True


class NotReady(OperationalError):
    """``wait_ready`` timed out; the message lists what did not respond, and why."""

    retryable = True


class ClockMovedBack(OperationalError):
    """The system clock was set back to a time for which ids have been generated, and
    waiting for it to catch up would take too long. No id was generated.
    """

    retryable = True


class CrossShardError(RoutingError, InterfaceError):
    """A call to one shard inside a transaction on another one, in the same thread or
    task: a transaction cannot span both.
    """


class ScatterError(OperationalError):
    """A call to several shards failed on some of them.

    ``result`` has the values of the other shards, and each error.
    """

    #: The ScatterResult with values and errors by shard id.
    result: Any = None


class ShardUnavailable(RoutingError, OperationalError):
    """The shard is suspended, unreachable, has an unusable row, or was named explicitly
    and does not exist.

    The message begins with ``Shard 7 not available``, as in the original service.
    ``__cause__`` is the error of the failed connect, if there was one.
    """

    #: Why the shard is not available.
    reason: Optional[str] = None
    #: Seconds until another attempt may succeed; None if unknown.
    retry_after: Optional[float] = None
    retryable = True

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.reason is None else f"{text}: {self.reason}"


class ShardReadOnly(ShardUnavailable):
    """The shard is read-only, and the statement is not known to be a read.

    Nothing was sent.
    """


class ReadOnlyTargetError(InterfaceError):
    """A statement that is not known to be a read was given to ``target.read``, or run
    inside ``db.read_only()``.

    Nothing was sent.
    """


class ConnectionFailed(OperationalError):
    """No connection could be opened: refused, timed out, or login denied.

    Nothing was sent.
    """

    #: Seconds until the open circuit breaker allows another attempt; None if it is
    #: closed.
    retry_after: Optional[float] = None

    @property
    def retryable(self) -> bool:
        """True if the cause may be temporary: an unreachable host, a full server."""
        return self.errno in error_codes.TRANSIENT_CONNECT


class NoPrimary(ConnectionFailed):
    """None of several hosts is the primary of its database, or in service.

    Nothing was sent. The message names each host and why it is not used.
    """

    retryable = True


class ConnectionLost(OperationalError):
    """The connection was lost; the server rolls back its open transaction.

    ``sent`` is True if the statement had been sent.
    """

    #: The statement was part of a transaction, which is lost as a whole.
    in_transaction = False

    @property
    def retryable(self) -> bool:
        """True unless DDL had already committed part of the transaction."""
        return not self.partially_committed


class DeadlineExceeded(OperationalError, TimeoutError):  # type: ignore[override]
    """The time limit of ``timeout=`` or ``db.deadline()`` was exceeded.

    A statement that had been sent is killed on the server.
    """

    #: The statement was part of a transaction, which is lost as a whole.
    in_transaction = False

    @property
    def retryable(self) -> bool:
        """True if nothing was sent."""
        return not self.sent and not self.partially_committed


class OutcomeUnknown(OperationalError):
    """The connection was lost after a write or COMMIT was sent and before its response
    arrived: it may or may not have been applied.

    It was not sent again. Check whether it was applied before repeating it.
    """


class WriteTimedOut(OutcomeUnknown, DeadlineExceeded):  # type: ignore[override]
    """The deadline passed after a write or COMMIT was sent: it is killed on the server,
    but may have been applied before.
    """

    retryable = False


class PoolTimeout(OperationalError):
    """No connection became free within ``pool_timeout`` seconds.

    Nothing was sent. The message includes the pool's usage.
    """

    retryable = True


class Overloaded(PoolTimeout):
    """As many calls of the database are in progress as ``max_in_flight`` allows; the
    call was refused at once.

    Nothing was sent.
    """

    #: Seconds after which another attempt is worthwhile.
    retry_after: Optional[float] = None


class LockNotAvailable(OperationalError):
    """Another session held the advisory lock until the wait timed out."""

    retryable = True


class LockLost(OperationalError):
    """The session that held an advisory lock was lost, which released the lock: another
    session may have acquired it since.
    """


class TransactionAborted(OperationalError):
    """The transaction has failed (a deadlock, a lost connection): leave the block and
    repeat it. ``__cause__`` is the original error.
    """

    @property
    def retryable(self) -> bool:
        """True if the original error is retryable."""
        return bool(getattr(self.__cause__, "retryable", False))


#: What the triggers of a fence say first; the code alone may be an application's own.
FENCE_TEXT = "dualdb: this tenant "


class TenantFenced(OperationalError):
    """The tenant is being moved to another shard, or has been: the triggers of its
    tables refused the write, and nothing of it was applied.

    ``run`` and single statements on ``key()`` wait for the end of the move and go to
    the new shard. Inside a block of ``transaction()`` it is raised: repeat the whole.
    """

    @property
    def retryable(self) -> bool:
        """True, unless a part of the transaction was committed before."""
        return not self.partially_committed

    @property
    def has_moved(self) -> bool:
        """The move is over: the rows are on another shard now."""
        return "has moved" in self.message


class PartialCommitError(OperationalError):
    """A transaction with ``mode="best_effort"`` was committed on some databases and not
    on others. It is not repeated: that would do the committed part twice.

    A database is named by its shard id; None is the global one.
    """

    #: Where it was committed, in order.
    committed: Tuple[Optional[int], ...] = ()
    #: Where it was rolled back: nothing of it was applied.
    failed: Tuple[Optional[int], ...] = ()
    #: Where the answer to COMMIT was lost: it may or may not have been applied.
    unknown: Tuple[Optional[int], ...] = ()

    retryable = False


#: Exception classes by error code, where PyMySQL's class is less specific.
_BY_CODE: Dict[int, Type[Error]] = {
    code: cls
    for codes, cls in (
        (error_codes.CONFLICT, Deadlock),
        (error_codes.LOCK_NOT_AVAILABLE, LockWaitTimeout),
        (error_codes.READ_ONLY, ReadOnlyServer),
        (error_codes.NOT_IN_SERVICE, NotPrimary),
        (error_codes.TOO_BIG, PacketTooLarge),
        (error_codes.INTERRUPTED, StatementInterrupted),
        (error_codes.OUTCOME_UNKNOWN, OutcomeUnknown),
        (error_codes.NOT_SUPPORTED, NotSupportedError),
        ((error_codes.TENANT_FENCED,), TenantFenced),
    )
    for code in codes
}

# "The MySQL server is running with the --secure-file-priv option so it cannot ..."
_OTHER_OPTION = re.compile(r"--(?!(?:\w+-)*read-only\b)[a-z]")

_OURS = {
    pymysql.err.InterfaceError: InterfaceError,
    pymysql.err.DataError: DataError,
    pymysql.err.OperationalError: OperationalError,
    pymysql.err.IntegrityError: IntegrityError,
    pymysql.err.InternalError: InternalError,
    pymysql.err.ProgrammingError: ProgrammingError,
    pymysql.err.NotSupportedError: NotSupportedError,
    pymysql.err.DatabaseError: DatabaseError,
}


def code_of(error: BaseException) -> Optional[int]:
    """Return the MySQL error code of an exception, or None."""
    code = error.args[0] if error.args else None
    if not isinstance(code, int) or not isinstance(error, pymysql.err.MySQLError):
        return None
    # PyMySQL unpacks the code as a signed short, so a SIGNAL with a MYSQL_ERRNO above
    # 32767 is negative.
    return code + 0x10000 if -0x8000 <= code < 0 else code


def is_server_error(error: BaseException) -> bool:
    """Return whether this is an error packet that ended the response, so that the
    connection is idle and reusable.

    Only an error packet carries an SQLSTATE. Text and class do not decide it: both
    drivers raise the same classes for errors of the client side.
    """
    closing = error_codes.LOST | error_codes.TOO_BIG
    if getattr(error, "is_from_mariadb", False):
        closing -= error_codes.LOST_ON_MYSQL_ALONE
    return getattr(error, "sqlstate", None) is not None and code_of(error) not in closing


def ends_answer(error: BaseException) -> bool:
    """Return whether the response was read to its end, so that the connection is
    reusable.
    """
    return isinstance(error, UndecodableText) or is_server_error(error)


def undecodable_text(row: int, column: str, encoding: str) -> UndecodableText:
    """Make the error for a text that is not valid in the connection's character set.

    Args:
        row: The number of its row, from 0.
        column: The name of its column.
        encoding: Python's name for the character set.
    """
    error = UndecodableText(
        f"row {row}, column {column!r}: the text is not in the connection's character set "
        f"({encoding}); read it as bytes, as by CAST({column} AS BINARY)"
    )
    error.row = row
    error.columns = (column,)
    return error


def means_not_primary(error: BaseException) -> bool:
    """Return whether a server refused a statement because it is not the primary or not
    in service, rather than because the transaction was declared read-only.
    """
    code = code_of(error)
    if code == error_codes.OPTION_PREVENTS_STATEMENT:
        return not _OTHER_OPTION.search(str(error))
    return code in error_codes.NOT_IN_SERVICE or (
        code in error_codes.READ_ONLY and code != error_codes.READ_ONLY_TRANSACTION
    )


def check_rows(found: int, most: int) -> None:
    """Check the number of rows against ``max_rows``.

    Raises:
        TooManyRows: ``found`` exceeds ``most``.
    """
    if found > most:
        raise TooManyRows(f"there are more than {most} rows (max_rows)")


def from_driver(error: BaseException, cls: Optional[type] = None) -> Error:
    """Convert a driver's exception, keeping its code, message and SQLSTATE.

    Args:
        error: The driver's exception.
        cls: The class to use in place of the one that code and class select.
    """
    code = code_of(error)
    by_code = _BY_CODE.get(code or 0)
    if code == error_codes.OPTION_PREVENTS_STATEMENT and not means_not_primary(error):
        by_code = None
    if code == error_codes.TENANT_FENCED and FENCE_TEXT not in str(error):
        by_code = None
    chosen: Any = cls or by_code or _OURS.get(type(error), Error)  # type: ignore[arg-type]
    if code is None:
        args: Any = error.args or (str(error) or type(error).__name__,)
    else:
        args = (code, *error.args[1:])
    ours: Error = chosen(*args, sqlstate=getattr(error, "sqlstate", None))
    ours.driver_error = error.with_traceback(None)
    return ours


def translate_error(
    error: BaseException, target: str, shard_id: Optional[int], *, sent: bool = True
) -> BaseException:
    """Translate the error that ended a statement.

    Args:
        error: What was caught.
        target: The name of the database.
        shard_id: The shard; None for the global database.
        sent: The whole statement had been sent.

    Returns:
        For a driver's exception the equivalent of this module: the server's error, or
        ConnectionLost. Any other exception is returned unchanged.
    """
    if isinstance(error, (DeadlineExceeded, TooManyRows, UndecodableText)):
        return error.with_context(target, shard_id, sent=sent)
    if isinstance(error, (PacketTooLarge, NotSupportedByEngine)):
        return error.with_context(target, shard_id, sent=False)
    if isinstance(error, UnicodeDecodeError):  # raised by the driver's decoder
        message = f"a text is not in the connection's character set ({error.encoding})"
        undecodable = RowError(message).with_context(target, shard_id, sent=True)
        undecodable.driver_error = error.with_traceback(None)
        return undecodable
    if isinstance(error, Error) or not isinstance(error, DRIVER_ERRORS):
        return error
    if is_server_error(error) or code_of(error) in error_codes.TOO_BIG:
        return from_driver(error).with_context(target, shard_id, sent=True)
    if code_of(error) is None:
        lost: Error = ConnectionLost(
            2013, f"Lost connection to MySQL server during query ({error})"
        )
        lost.driver_error = error.with_traceback(None)
    else:
        lost = from_driver(error, ConnectionLost)
    return lost.with_context(target, shard_id, sent=sent)


def raise_translated(error: BaseException, translated: BaseException) -> NoReturn:
    """Raise ``translated`` in place of the ``error`` that is being handled.

    The traceback shows a single exception without the frames of this package and the
    driver; the driver's exception is ``driver_error``. An explicit ``__cause__`` of
    ``translated`` is kept.

    Args:
        error: The caught exception.
        translated: The exception for the caller; may be ``error`` itself.
    """
    try:
        if isinstance(translated, Error):
            if translated is not error and not isinstance(error, Error):
                translated.driver_error = error.with_traceback(None)
            cut_own_frames(translated)
        raise translated
    finally:
        # A frame that has the error which it raised keeps all that its callers have,
        # such as a connection, until the garbage collector comes. So have no local
        # variable for ``translated`` where this is called.
        del error, translated


#: Packages whose frames are removed from the tracebacks of our errors.
_INTERNAL = frozenset({__name__.partition(".")[0], "pymysql", "aiomysql", "asyncio"})


def cut_own_frames(error: Error) -> None:
    """Remove internal frames from the error's traceback.

    Frames of the application's callbacks and iterables stay; raising the error adds the
    frames above. If none stay, the implicit ``__context__`` is suppressed too, but not
    an explicit ``__cause__``.
    """
    frames: List[TracebackType] = []
    trace = error.__traceback__
    while trace is not None:
        package = str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0]
        if package not in _INTERNAL:
            frames.append(trace)
        trace = trace.tb_next
    kept: Optional[TracebackType] = None
    for each in reversed(frames):
        kept = TracebackType(kept, each.tb_frame, each.tb_lasti, each.tb_lineno)
    error.__suppress_context__ = error.__suppress_context__ or kept is None
    error.__traceback__ = kept


#: What a driver's connection raises when a statement fails; anything else is a bug of
#: this package or an interrupt.
DRIVER_ERRORS = (pymysql.err.MySQLError, OSError, EOFError)


def not_supported_by_engine(feature: str, what: str, engine: str) -> NotSupportedByEngine:
    """Make the error for a feature that an engine lacks.

    Args:
        feature: The feature's name.
        what: What it is, for the message.
        engine: The engine.
    """
    error = NotSupportedByEngine(f"{engine} does not have {what}").with_context(None, sent=False)
    error.feature = feature
    error.engine = engine
    return error


def reason_of(error: BaseException) -> str:
    """Return an error's text for a status, an event or a log line: its reason, or its
    message and code, not the drivers' ``(2003, '...')``.
    """
    reason: Optional[str] = getattr(error, "reason", None)
    if reason:
        return reason
    return error.summary if isinstance(error, Error) else str(error)


def shard_unavailable(
    shard_id: int, reason: str, retry_after: Optional[float] = None
) -> ShardUnavailable:
    """Make the error ``Shard 7 not available``.

    Args:
        shard_id: The shard.
        reason: Why it is not available.
        retry_after: Seconds until another attempt may succeed; None if unknown.
    """
    error = ShardUnavailable(f"Shard {shard_id} not available").with_context(
        f"shard {shard_id}", shard_id, sent=False
    )
    error.reason = reason
    error.retry_after = retry_after
    return error


def buffer_full(
    failure: ConnectionFailed, size: int, target: str, shard_id: Optional[int]
) -> Error:
    """Make the error for a call that may not wait for a primary.

    Args:
        failure: Why none of the hosts is used.
        size: The number of calls that wait.
        target: The name of the database.
        shard_id: The shard; None for another database.
    """
    reason = f"{failure.message}; {size} calls wait for a primary (buffer_size)"
    if shard_id is None:
        return NoPrimary(reason).with_context(target, None, sent=False)
    unavailable = shard_unavailable(shard_id, f"no connection: {reason}")
    unavailable.__cause__ = failure
    return unavailable


def fence_buffer_full(fenced: TenantFenced, size: int) -> TenantFenced:
    """Make the error for a write that may not wait for the end of a move.

    Args:
        fenced: What the server refused it with.
        size: The number of calls that wait.
    """
    message = f"{fenced.message}; {size} calls wait for the end of the move (buffer_size)"
    return TenantFenced(fenced.args[0], message).with_context(
        fenced.target, fenced.shard_id, sent=fenced.sent
    )


def read_only_target(name: str, shard_id: Optional[int], why: str) -> ReadOnlyTargetError:
    """Make the error for a write through a target that is limited to reads.

    Args:
        name: The name of its database.
        shard_id: The shard; None for another database.
        why: Why the statement is not known to be a read.
    """
    return ReadOnlyTargetError(f"only reads are allowed here, and {why}").with_context(
        name, shard_id, sent=False
    )


def shard_read_only(shard_id: int, why: str, retry_after: Optional[float] = None) -> ShardReadOnly:
    """Make the error for a write to a read-only shard.

    Args:
        shard_id: The shard.
        why: Why the statement is not known to be a read.
        retry_after: Seconds until another attempt may succeed; None if unknown.
    """
    reason = f"it is read-only, and {why}"
    error = ShardReadOnly(f"Shard {shard_id} not available").with_context(
        f"shard {shard_id}", shard_id, sent=False
    )
    error.reason = reason
    error.retry_after = retry_after
    return error


def partial_commit(
    committed: Sequence[Optional[int]],
    failed: Sequence[Optional[int]],
    unknown: Sequence[Optional[int]],
    cause: Error,
) -> PartialCommitError:
    """Make the error of a transaction that was committed on some databases alone.

    Args:
        committed: Where it was; shard ids, None for the global database.
        failed: Where it was not.
        unknown: Where that is not known.
        cause: Why the others were not committed.
    """
    parts = [
        f"{what} {', '.join('global' if each is None else f'shard {each}' for each in where)}"
        for what, where in (
            ("committed on", committed),
            ("rolled back on", failed),
            ("not known on", unknown),
        )
        if where
    ]
    error = PartialCommitError(f"{'; '.join(parts)}: {cause.summary}")
    error.committed = tuple(committed)
    error.failed = tuple(failed)
    error.unknown = tuple(unknown)
    error.__cause__ = cause
    return error.with_context(cause.target, cause.shard_id, sent=True)


def scatter_error(
    result: "ScatterResult[Any, Any]", of: int, least: Optional[int] = None
) -> ScatterError:
    """Make the error of a call to several shards in which too few succeeded.

    Args:
        result: The ScatterResult with the errors of the failed shards.
        of: The number of shards that were called.
        least: The number that must succeed; None if all must.
    """
    failed = ", ".join(
        [
            f"shard {shard_id}: {reason_of(error)}"
            for shard_id, error in sorted(result.errors.items())
        ]
    )
    needed = "" if least is None else f", and {least} must answer"
    error = ScatterError(
        f"{len(result.errors)} of {of} shards failed{needed}: {failed}".rstrip(": ")
    )
    error.result = result
    return error
