"""The one error tree: PEP 249 shaped, the same in threads and asyncio.

A server's error keeps PyMySQL's class and the server's own code in ``args[0]``, so
``except pymysql.err.IntegrityError`` goes on working; the classes here add *where* it
happened (``target``, ``shard_id``) and whether the statement may have been applied
(``sent``). Every error can be pickled (Celery does), and none carries a password or a
parameter value of its own making.
"""

import re
from types import TracebackType
from typing import Any, Dict, List, NoReturn, Optional, Tuple, Type, TypeVar

import pymysql.err

from . import error_codes

E = TypeVar("E", bound="Error")


class Error(pymysql.err.Error):
    """Base of every error raised by dualdb.

    Attributes:
        target: The database it concerns: ``"global"``, ``"shard 7"``, or
            ``"host:port/database"`` for a client of its own.
        shard_id: The shard's id; None for the global database.
        sent: False where nothing of the statement reached a server, True where it may
            have been applied, None where that is no question.
        retryable: True where nothing of it was applied and the same may succeed later:
            a statement outside a transaction, else the transaction as a whole.
        sqlstate: The five characters the server sent, or None.
        rows: Of ``executemany``: the numbers of the first and the last row of the chunk
            that failed, from 0.
        partially_committed: Part of the transaction had been committed by then, by DDL
            in its block.
        driver_error: The driver's own exception that this one stands for, or None. It
            is not pickled.
    """

    target: Optional[str] = None
    shard_id: Optional[int] = None
    sent: Optional[bool] = None
    rows: Optional[Tuple[int, int]] = None
    partially_committed = False
    driver_error: Optional[BaseException] = None

    @property
    def retryable(self) -> bool:
        return self.errno in error_codes.RETRYABLE and not self.partially_committed

    @property
    def errno(self) -> Optional[int]:
        """The server's or the client library's error code, or None."""
        code = self.args[0] if self.args else None
        return code if isinstance(code, int) else None

    def with_context(
        self: E,
        target: Optional[str],
        shard_id: Optional[int] = None,
        *,
        sent: Optional[bool] = None,
    ) -> E:
        """Say which database this error concerns; returns the error itself."""
        self.target, self.shard_id, self.sent = target, shard_id, sent
        return self

    @property
    def message(self) -> str:
        """What happened, without the code and the target."""
        return str(self.args[-1]) if self.args else type(self).__name__

    @property
    def summary(self) -> str:
        """The message with the code, for the text of another error."""
        return self.message if self.errno is None else f"{self.message} ({self.errno})"

    def __str__(self) -> str:
        # Not the next class's: an OSError with a code writes "[Errno 2013] ...".
        text = BaseException.__str__(self)
        return f"{text} [{self.target}]" if self.target and self.errno is not None else text

    def __reduce__(self) -> Tuple[Any, ...]:
        state = {name: value for name, value in vars(self).items() if name != "driver_error"}
        return type(self), self.args, state


class Rollback(Exception):
    """Raise it inside a transaction's block to leave the block without an error.

    What the block did is rolled back, and the program goes on after the block. Inside
    nested blocks it leaves the innermost: only that savepoint is undone.
    """


class InterfaceError(Error, pymysql.err.InterfaceError):
    """The package was used in a way it cannot serve."""


class DatabaseError(Error, pymysql.err.DatabaseError):
    """Something went wrong at or on the way to a database."""


class DataError(DatabaseError, pymysql.err.DataError):
    """A value does not fit its column."""


class RowError(DataError):
    """The rows that came are not what ``as_`` asks for: other columns, or a value that
    does not fit. The statement has been performed.
    """

    #: The number of the row, from 0; None where the columns do not fit, so that no row
    #: does.
    row: Optional[int] = None
    #: The columns it is about, and the fields without a column, as far as that is
    #: known.
    columns: Tuple[str, ...] = ()


class UndecodableText(RowError):
    """A text that came is not in the connection's character set.

    The answer was read to its end: the statement has been performed, and the connection
    and its transaction go on.
    """


class TooManyRows(DataError):
    """There are more rows than ``max_rows``, or than one for ``query_one(...,
    strict=True)``. What may write has been performed whole.
    """


class OperationalError(DatabaseError, pymysql.err.OperationalError):
    """The server, the network or a procedure's SIGNAL refused; not necessarily the
    caller's doing.
    """


class Deadlock(OperationalError):
    """The server has rolled the transaction back to resolve a deadlock or a conflict
    between nodes: begin it again as a whole.
    """


class LockWaitTimeout(OperationalError):
    """A lock was not free in time, or at once where the statement has NOWAIT.

    Servers differ in what they roll back: leave the block and begin the transaction
    again.
    """


class NotPrimary(OperationalError):
    """The server is not the primary of its database any more, or not in service.

    Nothing was applied, and a transaction is rolled back as a whole. The connection is
    replaced, and so are all older ones of the same pool: behind a proxy the next may
    lead to the primary.
    """

    @property
    def retryable(self) -> bool:
        return self.errno != error_codes.READ_ONLY_TRANSACTION and not self.partially_committed


class ReadOnlyServer(NotPrimary):
    """The server, or the transaction, takes no writes: a replica, or a primary that was
    demoted.
    """


class StatementInterrupted(OperationalError):
    """The server ended the statement: KILL QUERY, or its own limit on a statement's
    time.
    """


class IntegrityError(DatabaseError, pymysql.err.IntegrityError):
    """A key or constraint was violated."""


class InternalError(DatabaseError, pymysql.err.InternalError):
    """The driver or the server lost its footing."""


class ProgrammingError(DatabaseError, pymysql.err.ProgrammingError):
    """The statement is wrong: syntax, a missing table, parameters that do not fit."""


class NotSupportedError(DatabaseError, pymysql.err.NotSupportedError):
    """The server lacks what was asked for."""


class ParameterError(ProgrammingError, TypeError, ValueError):
    """A name, a parameter's type or the number of parameters is wrong.

    Nothing was sent.

    Also a TypeError and a ValueError: that is what the drivers' ``query % params``
        raises for the same mistakes.
    """


class PacketTooLarge(ParameterError):
    """The statement with its parameters is longer than the server takes at once
    (``max_allowed_packet``). Nothing was applied, and it is not tried again.
    """


class ServiceNotOpen(InterfaceError, RuntimeError):
    """The service or client was used before ``init_service()`` or after
    ``close_service()``.
    """


class ConcurrentUseError(InterfaceError):
    """Two threads or tasks used one transaction or connection at once.

    Nothing was sent by the second.
    """


class RoutingError(DatabaseError, RuntimeError):
    """No database could be chosen for a call, so nothing was sent."""


class ShardNotFound(RoutingError):
    """The session names a shard that is not in the shard table or is inactive, and
    ``absent_shard="error"`` is set.
    """


class KeyNotFound(RoutingError):
    """The key has no shard: it is not in the lookup table.

    ``db.directory.assign(key)`` gives it one.
    """


class StaleMap(RoutingError):
    """A write by key was refused, because this process has not been able to confirm for
    ``max_staleness`` seconds where the keys are. Reads go on.
    """

    retryable = True


class NotReady(OperationalError):
    """``wait_ready`` waited in vain; the message says for what."""

    retryable = True


class ClockMovedBack(OperationalError):
    """The clock shows a time for which ids have been made, and waiting for it to catch
    up would take too long. No id was made.
    """

    retryable = True


class CrossShardError(RoutingError, InterfaceError):
    """A call to one shard inside a transaction on another, of the same thread or task:
    the transaction cannot cover both.
    """


class ScatterError(OperationalError):
    """A call to several shards failed on some of them.

    ``result`` has what the others gave, and each error.
    """

    #: The ScatterResult.
    result: Any = None


class ShardUnavailable(RoutingError, OperationalError):
    """The shard is suspended, cannot be reached, has an unusable row, or was named
    outright and does not exist.

    The message is ``Shard 7 not available``, as the original service had it; ``reason``
    says why, and ``__cause__`` holds the error of the attempt to connect, where there
    was one.
    """

    #: Why the shard is not available.
    reason: Optional[str] = None
    #: Seconds until another attempt may be worth it; None where nobody knows.
    retry_after: Optional[float] = None
    retryable = True

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.reason is None else f"{text}: {self.reason}"


class ShardReadOnly(ShardUnavailable):
    """The shard is read-only for now, and the statement is not known to be a read.

    Nothing was sent.
    """


class ConnectionFailed(OperationalError):
    """No connection could be opened: refused, timed out, or turned away.

    Nothing was sent.
    """

    #: Seconds until another attempt is made, where several have failed and the circuit
    #: is open.
    retry_after: Optional[float] = None

    @property
    def retryable(self) -> bool:
        return self.errno in error_codes.TRANSIENT_CONNECT


class ConnectionLost(OperationalError):
    """The connection broke; what was open on it the server has rolled back.

    ``sent`` says whether the statement had been sent.
    """

    #: The statement was part of a transaction, which is gone as a whole.
    in_transaction = False

    @property
    def retryable(self) -> bool:
        return not self.partially_committed


class DeadlineExceeded(OperationalError, TimeoutError):  # type: ignore[override]
    """The time given by ``timeout=`` or ``db.deadline()`` was over.

    What had been sent is ended on the server.
    """

    in_transaction = False

    @property
    def retryable(self) -> bool:
        return not self.sent and not self.partially_committed


class OutcomeUnknown(OperationalError):
    """The connection broke after a write or COMMIT was sent and before its answer came:
    it may or may not have been applied.

    It was not sent a second time. Look whether it was applied before you repeat it.
    """


class WriteTimedOut(OutcomeUnknown, DeadlineExceeded):  # type: ignore[override]
    """The deadline passed after a write or COMMIT was sent: it is ended on the server,
    but may have been applied before that.
    """

    retryable = False


class PoolTimeout(OperationalError):
    """No connection became free within ``pool_timeout`` seconds.

    Nothing was sent. The message carries the pool's figures.
    """

    retryable = True


class LockNotAvailable(OperationalError):
    """Somebody else held the advisory lock for as long as it was waited for."""

    retryable = True


class LockLost(OperationalError):
    """The session that held an advisory lock is gone, and the lock with it: somebody
    else may have taken it since.
    """


class TransactionAborted(OperationalError):
    """This transaction is gone (a deadlock, a lost connection): leave the block and
    begin again. ``__cause__`` says why.
    """

    @property
    def retryable(self) -> bool:
        return bool(getattr(self.__cause__, "retryable", False))


#: What a server's refusal of a statement means beyond its class.
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
    """The MySQL error code an exception carries, or None."""
    code = error.args[0] if error.args else None
    if not isinstance(code, int) or not isinstance(error, pymysql.err.MySQLError):
        return None
    # PyMySQL unpacks the code as a signed short: a SIGNAL with MYSQL_ERRNO above 32767
    # arrives negative.
    return code + 0x10000 if -0x8000 <= code < 0 else code


def is_server_error(error: BaseException) -> bool:
    """True if a server sent this error as its whole answer, so that the connection is
    at rest and can be used again.

    Told by the SQLSTATE, which only an error packet has, and never by text or class:
    both drivers raise the same classes for what they find wrong themselves.
    """
    closing = error_codes.LOST | error_codes.TOO_BIG
    if getattr(error, "is_from_mariadb", False):
        closing -= error_codes.LOST_ON_MYSQL_ALONE
    return getattr(error, "sqlstate", None) is not None and code_of(error) not in closing


def ends_answer(error: BaseException) -> bool:
    """True if the server's whole answer was read, so that the connection can be used
    again.
    """
    return isinstance(error, UndecodableText) or is_server_error(error)


def undecodable_text(row: int, column: str, encoding: str) -> UndecodableText:
    """What the caller sees of a text that is not in the connection's character set.

    Args:
        row: The number of its row, from 0.
        column: The name of its column.
        encoding: Python's name for the character set.
    """
    error = UndecodableText(
        f"row {row}, column {column!r}: the text is not in the connection's character set "
        f"({encoding}); read it as bytes, as by CAST({column} AS BINARY)"
    )
    error.row, error.columns = row, (column,)
    return error


def means_not_primary(error: BaseException) -> bool:
    """Whether a server refuses a statement because it is not the primary, or not in
    service, and not because the transaction was declared read-only.
    """
    code = code_of(error)
    if code == error_codes.OPTION_PREVENTS_STATEMENT:
        return not _OTHER_OPTION.search(str(error))
    return code in error_codes.NOT_IN_SERVICE or (
        code in error_codes.READ_ONLY and code != error_codes.READ_ONLY_TRANSACTION
    )


def check_rows(found: int, most: int) -> None:
    """Raises: TooManyRows."""
    if found > most:
        raise TooManyRows(f"there are more than {most} rows (max_rows)")


def from_driver(error: BaseException, cls: Optional[type] = None) -> Error:
    """The same error in dualdb's tree: same code, same message, same SQLSTATE; ``cls``
    overrides the class.
    """
    code = code_of(error)
    by_code = _BY_CODE.get(code or 0)
    if code == error_codes.OPTION_PREVENTS_STATEMENT and not means_not_primary(error):
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
        sent: All of the statement had been sent.

    Returns:
        Of a driver's error the one of this tree: what the server refused, or
        ConnectionLost. Any other is returned as it is.
    """
    if isinstance(error, (DeadlineExceeded, TooManyRows, UndecodableText)):
        return error.with_context(target, shard_id, sent=sent)
    if isinstance(error, PacketTooLarge):
        return error.with_context(target, shard_id, sent=False)
    if isinstance(error, UnicodeDecodeError):  # of the driver's own decoder
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

    Only one exception is shown, and none of the frames in which it was found: what the
    driver raised is ``driver_error``. A cause that ``translated`` was given is kept.

    Args:
        error: What was caught.
        translated: What the caller is to see, which may be the same.
    """
    if not isinstance(translated, Error):
        raise translated
    if translated is not error and not isinstance(error, Error):
        translated.driver_error = error.with_traceback(None)
    cut_own_frames(translated)
    raise translated


#: Packages whose frames say nothing to the caller about his own mistake.
_INTERNAL = frozenset({__name__.partition(".")[0], "pymysql", "aiomysql", "asyncio"})


def cut_own_frames(error: Error) -> None:
    """Leave the caller's own frames alone in the traceback: those of his callbacks and
    iterables. Whoever raises the error adds the frames above.

    Where there are none, what was being handled when it was raised is not shown either;
    an explicit ``__cause__`` is.
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


#: What a driver's connection raises when a statement did not go well; everything else
#: is a fault of ours or somebody's interrupt.
DRIVER_ERRORS = (pymysql.err.MySQLError, OSError, EOFError)


def shard_unavailable(
    shard_id: int, reason: str, retry_after: Optional[float] = None
) -> ShardUnavailable:
    """``Shard 7 not available``, with the reason beside it."""
    error = ShardUnavailable(f"Shard {shard_id} not available").with_context(
        f"shard {shard_id}", shard_id, sent=False
    )
    error.reason, error.retry_after = reason, retry_after
    return error


def shard_read_only(shard_id: int, why: str, retry_after: Optional[float] = None) -> ShardReadOnly:
    """What a write to a read-only shard gets; ``why`` it is not known to be a read."""
    reason = f"it is read-only, and {why}"
    error = ShardReadOnly(f"Shard {shard_id} not available").with_context(
        f"shard {shard_id}", shard_id, sent=False
    )
    error.reason, error.retry_after = reason, retry_after
    return error


def scatter_error(result: Any, of: int, least: Optional[int] = None) -> ScatterError:
    """What a call to several shards raises, of which too few answered.

    Args:
        result: The ScatterResult, with the errors of the others.
        of: How many shards there are.
        least: How many must answer, where not all must.
    """
    failed = ", ".join(
        [
            f"shard {shard_id}: {getattr(error, 'reason', None) or error.summary}"
            for shard_id, error in sorted(result.errors.items())
        ]
    )
    needed = "" if least is None else f", and {least} must answer"
    error = ScatterError(
        f"{len(result.errors)} of {of} shards failed{needed}: {failed}".rstrip(": ")
    )
    error.result = result
    return error
