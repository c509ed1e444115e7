"""Rows as they arrive: what a stream of either implementation decides, without I/O."""

import threading
import time
from abc import abstractmethod
from typing import Any, Callable, Generic, Iterator, List, Optional, Sequence, Tuple

from .. import deadlines, errors
from ..blocks import current_place
from ..execution import execute, observed, steps
from ..observability.observers import Observers
from ..observability.query_call import ObservedCall
from ..observability.tags import append_comment
from ..protocol.statements import Statement
from ..row_mapping import Maker, check_kind, maker, misfit
from .time_limit import TimeLimit
from .typevars import MadeT


class _MadeRows:
    """Makes each row what ``as_`` says."""

    def __init__(self, as_: Any) -> None:
        if as_ is not None:
            check_kind(as_)
        self._as = as_
        self._names: Tuple[str, ...] = ()
        self._maker: Optional[Maker] = None
        self._number = 0  # of the next row

    def begin(self, names: Sequence[str]) -> None:
        """The names of the columns are known."""
        self._names = tuple(names)
        if self._as is not None and self._names:
            self._maker = maker(self._as, self._names)

    def row(self, values: Tuple[Any, ...]) -> Any:
        """Make a row of its values.

        Raises:
            RowError: They do not fit the row type.
        """
        if self._maker is None:
            return dict(zip(self._names, values))
        try:
            row = self._maker.of(self._names, values)
        except (ValueError, TypeError) as error:
            raise misfit(self._as, self._names, self._number, error) from error
        self._number += 1
        return row


class BaseStream(Generic[MadeT]):
    """The rows of one query, one by one, over a connection that is the stream's until
    its end.

    It ends with the last row, at an error, or when ``close()`` is called or the loop
    over it is left: the rest of the query is then aborted on the server. Inside a
    transaction on its database it is part of it, and nothing else can be sent there
    meanwhile.
    """

    def __init__(
        self, route: steps.Route, statement: Statement, timeout: Optional[float], as_: Any = None
    ) -> None:
        self._made = _MadeRows(as_)
        self._route, self._statement = route, statement
        self._until = deadlines.deadline_after(timeout)
        self._client: Any = None
        self._transaction: Any = None
        self._connection: Any = None
        self._rows: Iterator[Tuple[Any, ...]] = iter(())
        self._closed = self._read_elsewhere = False
        self._limit: Optional[TimeLimit] = None
        self._call: Optional[ObservedCall] = None
        #: The error for the next read, if its time was over between two reads.
        self._late: Optional[BaseException] = None
        self._reading = threading.Lock()

    def __repr__(self) -> str:
        if self._closed:
            return f"<{type(self).__name__}, over>"
        return f"<{type(self).__name__}, {'not begun' if self._connection is None else 'open'}>"

    def __del__(self) -> None:
        if self.__dict__.get("_connection") is not None:
            self._end(forgotten=True)

    @abstractmethod
    def _set_timer(self, at: float, function: Callable[[], None]) -> Any:
        """Have a function called at this ``time.monotonic()``; it has ``cancel()``."""

    def _prepare(self) -> "steps.Plan[None]":
        """Find its connection: that of the caller's transaction, or its own."""
        client: Any = yield from execute.resolve_route(self._route, self._until)
        observers: Observers = client.observers
        if observers.watches_calls:
            self._call, self._statement = observed.begin(client, self._statement)
            self._call.place = current_place()
            try:
                yield from observed.intercept(observers, self._call)
            except BaseException as error:
                self._report(observers, error)
                raise
        try:
            if not self._joins(client):
                yield from self._check_out()
        except BaseException as error:
            self._report(observers, error)
            raise
        if self._call is not None:
            self._call.sending(time.monotonic(), in_transaction=self._transaction is not None)

    def _report(self, observers: Observers, error: Optional[BaseException]) -> None:
        """Have the hooks called for its end, if it is observed."""
        call, self._call = self._call, None
        if call is not None:
            rows = call.rows if error is None else None
            observers.post(call.finished(time.monotonic(), rows, error))

    def _joins(self, client: Any) -> bool:
        """Whether it is part of the caller's transaction on the client; what is not
        known to be a read may not go to a read-only shard.
        """
        self._client = client
        if client.read_only and not self._statement.reads:
            raise execute.write_refusal(client, self._statement.why_no_read)
        self._transaction = client.current_transaction()
        if self._transaction is None:
            self._statement.check_outside_transaction()
            return False
        state = self._transaction.check()
        state.check_part(self._statement)
        self._transaction.check_caller(state)
        self._connection = state.connection
        self._until = self._transaction.clamp(self._until)
        return True

    def _check_out(self) -> "steps.Plan[None]":
        """Check out the connection that is the stream's until its end, and set the
        timer that ends it although nothing is read.
        """
        borrowed: List[Tuple[Any, Any]] = []
        limit = TimeLimit(self._until)
        try:
            yield from execute.check_out(self._route, until=self._until, into=borrowed)
            limit.start(self._set_timer, self._expire)
        except BaseException:
            for client, connection in borrowed:
                client.pool.release(connection)
            raise
        self._limit = limit
        (self._client, self._connection) = borrowed[0]

    def _expire(self) -> None:
        """End it at its time; a caller that is just reading finds that out itself."""
        if not self._reading.acquire(blocking=False):
            return
        try:
            if self._connection is not None:
                self._late = self._translate_error(
                    errors.DeadlineExceeded("the deadline passed before the last row was asked for")
                )
                self._end()
        finally:
            self._reading.release()

    def _begin_reading(self) -> bool:
        """Before more rows are read; False where it is over.

        Raises:
            DeadlineExceeded: Its time was over between two reads.
            ConcurrentUseError: Another thread or task reads it.
        """
        acquired = self._reading.acquire(blocking=False)
        late, self._late = self._late, None
        if late is not None or self._closed:
            if acquired:
                self._reading.release()
            if late is not None:
                raise late
            return False
        if not acquired:
            raise errors.ConcurrentUseError("another thread or task is reading this stream")
        return True

    def _command(self) -> bytes:
        command: bytes = next(self._statement.exchange(self._connection.text_encoding))
        return command if self._call is None else append_comment(command, self._call.comment)

    def _row(self, values: Tuple[Any, ...]) -> Any:
        try:
            return self._made.row(values)
        except errors.RowError:
            self._end()
            raise

    def _rows_in_time(self, rows: Sequence[Tuple[Any, ...]]) -> Iterator[Tuple[Any, ...]]:
        """The rows that have come, for as long as there is time for them."""
        if self._call is not None:
            self._call.rows += len(rows)
        if self._until is None:
            return iter(rows)
        return self._until_late(rows, self._until)

    def _until_late(
        self, rows: Sequence[Tuple[Any, ...]], until: float
    ) -> Iterator[Tuple[Any, ...]]:
        for row in rows:
            if time.monotonic() >= until:
                translated = self._translate_error(
                    errors.DeadlineExceeded("the deadline passed before the last row was asked for")
                )
                self._end()
                raise translated
            yield row

    def _translate_error(self, error: BaseException) -> BaseException:
        """The error to raise for one that ended it; marks the transaction it is part of
        failed if the error means that.
        """
        if self._connection is None:
            return error
        if self._transaction is not None:
            translated: BaseException = self._transaction.on_error(error)
            return translated
        translated = errors.translate_error(
            error, self._client.name, self._client.shard_id, sent=self._connection.sent
        )
        if (
            isinstance(translated, (errors.ConnectionLost, errors.DeadlineExceeded))
            and translated.sent
            and not self._statement.reads
        ):
            translated, cause = execute.outcome_unknown(translated, "the statement"), translated
            translated.__cause__ = cause
        return translated

    def close(self) -> None:
        """End the stream before its last row: release the connection, and abort the
        query on the server.

        Does nothing if it has ended.
        """
        # While another thread reads from it, for a merge, that thread releases it.
        self._closed = True
        if not self._read_elsewhere:
            self._end()

    def _end_failed(self, error: BaseException) -> BaseException:
        """End it after an error, and return the error that the caller gets."""
        translated = self._translate_error(error)
        if self._client is not None:
            self._report(self._client.observers, translated)
        self._end()
        return translated

    def _end(self, *, forgotten: bool = False) -> None:
        """Give the connection back, whatever its state."""
        connection, self._connection, self._closed, self._rows = (
            self._connection,
            None,
            True,
            iter(()),
        )
        if self._limit is not None:
            self._limit.stop()
        if connection is None:
            return
        self._report(self._client.observers, None)
        if connection.streaming:
            connection.drop_stream()
            if self._transaction is not None:
                self._transaction.fail("a stream inside the transaction was left before its end")
        if self._statement.changes_session or (
            connection.reset_after_call and self._statement.calls
        ):
            connection.dirty = True
        if self._transaction is None:
            pool = self._client.pool
            if not self._statement.reads:
                pool.record_unreported_write()
            (pool.abandon if forgotten else pool.release)(connection)
