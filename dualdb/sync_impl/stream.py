"""Streams, in threads."""

from typing import Any, Callable, List, Tuple

import pymysql.err

from .. import errors
from ..api.stream import BaseStream
from ..api.typevars import MadeT
from ..protocol.exchange import after_error, learn_limit
from .runner import run_plan, run_step
from .timers import timers


class Stream(BaseStream[MadeT]):
    """Rows as they come, in threads: ``for row in db.stream(...)``, or in a ``with``
    block.
    """

    def __iter__(self) -> "Stream[MadeT]":
        return self

    def __next__(self) -> MadeT:
        values = next(self._rows, None)
        if values is None:
            self._fetch()
            values = next(self._rows, None)
        if values is None:
            raise StopIteration
        row: MadeT = self._row(values)
        return row

    def _fetch(self) -> None:
        """Return more rows; none after the last."""
        if not self._begin_reading():
            return
        try:
            rows = self._next_rows()
        except BaseException as error:
            errors.raise_translated(error, self._end_failed(error))
        finally:
            self._reading.release()
        self._rows = self._rows_in_time(rows)
        if not rows:
            self._end()

    def _next_rows(self) -> List[Tuple[Any, ...]]:
        try:
            if self._connection is None:
                self._start()
            rows: List[Tuple[Any, ...]] = self._connection.next_rows()
        except pymysql.err.MySQLError as error:
            raw, limit = self._connection, self._until
            if raw is not None:
                run_plan(
                    after_error(
                        self._statement,
                        raw,
                        error,
                        in_transaction=self._transaction is not None,
                    ),
                    lambda command: raw.run(command, limit),
                )
            raise
        return rows

    def _start(self) -> None:
        run_plan(self._prepare(), run_step)
        raw = self._connection
        limit = self._until
        run_plan(learn_limit(self._statement, raw), lambda command: raw.run(command, limit))
        self._made.begin(self._connection.start_stream(self._command(), self._until))

    def __enter__(self) -> "Stream[MadeT]":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _set_timer(self, at: float, function: Callable[[], None]) -> Any:
        return timers.call_at(at, function)
