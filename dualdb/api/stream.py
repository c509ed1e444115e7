"""Rows as they come: what a stream of either colour keeps, beside the waiting."""

import time
from typing import Any, Generic, Iterator, Optional, Sequence, Tuple

from .. import deadlines, errors
from ..execution import execute, steps
from ..protocol.statements import Statement
from ..row_mapping import Maker, check_kind, maker, misfit
from .typevars import MadeT


class BaseStream(Generic[MadeT]):
    """The rows of one query, one by one, over a connection that is the stream's until
    its end.

    It ends with the last row, at an error, or when ``close()`` is called or the loop
    over it is left: what the server has not sent by then it is told not to send. Inside
    a transaction on its database it is part of it, and nothing else can be said there
    meanwhile.
    """

    def __init__(
        self, route: steps.Route, statement: Statement, timeout: Optional[float], as_: Any = None
    ) -> None:
        if as_ is not None:
            check_kind(as_)
        self._route, self._statement = route, statement
        self._until = deadlines.deadline_after(timeout)
        self._client: Any = None
        self._transaction: Any = None
        self._connection: Any = None
        self._names: Tuple[str, ...] = ()
        self._rows: Iterator[Tuple[Any, ...]] = iter(())
        self._as = as_
        self._maker: Optional[Maker] = None
        self._number = 0  # of the next row
        self._closed = self._read_elsewhere = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, {'over' if self._closed else 'open' if self._connection is not None else 'not begun'}>"

    def _joins(self, client: Any) -> bool:
        """Whether it is part of the caller's transaction on the client; what is not
        known to be a read may not go to a read-only shard.
        """
        self._client = client
        if client._read_only and not self._statement.reads:
            raise errors.shard_read_only(client.shard_id, self._statement.why_no_read)
        self._transaction = client._current_transaction()
        if self._transaction is not None:
            self._transaction._check()
            self._connection = self._transaction._connection
            self._until = self._transaction._clamp(self._until)
        return self._transaction is not None

    def _command(self) -> bytes:
        command: bytes = next(self._statement.exchange(self._connection.text_encoding))
        return command

    def _named(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        if self._as is not None and self._names:
            self._maker = maker(self._as, self._names)

    def _row(self, values: Tuple[Any, ...]) -> Any:
        if self._maker is None:
            return dict(zip(self._names, values))
        try:
            row = self._maker.of(self._names, values)
        except (ValueError, TypeError) as error:
            self._end()
            raise misfit(self._as, self._names, self._number, error) from error
        self._number += 1
        return row

    def _rows_in_time(self, rows: Sequence[Tuple[Any, ...]]) -> Iterator[Tuple[Any, ...]]:
        """The rows that have come, for as long as there is time for them."""
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
        """What the caller is to be told of an error that ended it; and what it means
        for the transaction it is part of.
        """
        if self._connection is None:
            return error
        if self._transaction is not None:
            translated: BaseException = self._transaction._on_error(error)
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

    def _leave(self) -> None:
        # While another thread reads from it, for a merge that is begun, it is that
        # thread which lets go.
        self._closed = True
        if not self._read_elsewhere:
            self._end()

    def _end(self, *, forgotten: bool = False) -> None:
        """Let go of the connection, whatever state it is in."""
        connection, self._connection, self._closed, self._rows = (
            self._connection,
            None,
            True,
            iter(()),
        )
        if connection is None:
            return
        if connection.streaming:
            connection.drop_stream()
            if self._transaction is not None:
                self._transaction._fail("a stream inside the transaction was left before its end")
        connection.dirty = connection.dirty or self._statement.changes_session
        if self._transaction is None:
            pool = self._client.pool
            (pool.abandon if forgotten else pool.release)(connection)
