"""Streams, in asyncio."""

import asyncio
import time
from typing import Any, Callable, List, Tuple

import pymysql.err

from .. import errors
from ..api.stream import BaseStream
from ..api.typevars import MadeT
from ..protocol.exchange import after_error, learn_limit
from .runner import run_plan, run_step


class Stream(BaseStream[MadeT]):
    """Rows as they come, in asyncio: ``async for row in db.stream(...)``, or in an
    ``async with`` block.
    """

    def __aiter__(self) -> "Stream[MadeT]":
        return self

    async def __anext__(self) -> MadeT:
        values = next(self._rows, None)
        if values is None:
            await self._fetch()
            values = next(self._rows, None)
        if values is None:
            raise StopAsyncIteration
        row: MadeT = self._row(values)
        return row

    async def _fetch(self) -> None:
        """Return more rows; none after the last."""
        if not self._begin_reading():
            return
        try:
            rows = await self._next_rows()
        except BaseException as error:
            errors.raise_translated(error, self._end_failed(error))
        finally:
            self._reading.release()
        self._rows = self._rows_in_time(rows)
        if not rows:
            self._end()

    async def _next_rows(self) -> List[Tuple[Any, ...]]:
        try:
            if self._connection is None:
                await self._start()
            rows: List[Tuple[Any, ...]] = await self._connection.next_rows()
        except pymysql.err.MySQLError as error:
            raw, limit = self._connection, self._until
            if raw is not None:
                await run_plan(
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

    async def _start(self) -> None:
        await run_plan(self._prepare(), run_step)
        raw = self._connection
        limit = self._until
        await run_plan(learn_limit(self._statement, raw), lambda command: raw.run(command, limit))
        self._made.begin(await self._connection.start_stream(self._command(), self._until))

    async def __aenter__(self) -> "Stream[MadeT]":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def _set_timer(self, at: float, function: Callable[[], None]) -> Any:
        loop = asyncio.get_running_loop()
        return loop.call_later(max(0.0, at - time.monotonic()), function)
