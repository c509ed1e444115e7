"""Streams, in asyncio."""

from typing import Any, Optional

from .. import errors
from ..api.stream import BaseStream
from ..api.typevars import MadeT
from ..execution import execute
from ..protocol.exchange import learn_limit
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
        """More rows; none where it is over."""
        if self._closed:
            return
        try:
            if self._connection is None:
                await self._start()
            rows = await self._connection.next_rows()
        except BaseException as error:
            translated = self._translate_error(error)
            self._end()
            errors.raise_translated(error, translated)
        self._rows = self._rows_in_time(rows)
        if not rows:
            self._end()

    async def _read(self) -> Optional[MadeT]:
        """The next row for a merge; None after the last."""
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            return None

    async def _start(self) -> None:
        if not self._joins(await run_plan(execute.resolve_route(self._route), run_step)):
            self._client, self._connection = await run_plan(
                execute.check_out(self._route, until=self._until), run_step
            )
        raw, limit = self._connection, self._until
        await run_plan(learn_limit(self._statement, raw), lambda command: raw.run(command, limit))
        self._named(await self._connection.start_stream(self._command(), self._until))

    def close(self) -> None:
        """Leave it before its end."""
        self._leave()

    async def __aenter__(self) -> "Stream[MadeT]":
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self.close()

    def __del__(self) -> None:
        if self.__dict__.get("_connection") is not None:
            self._end(forgotten=True)
