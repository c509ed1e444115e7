"""Streams, in asyncio."""

from typing import Any, Optional

from ..api.stream import BaseStream
from ..api.typevars import MadeT
from ..execution import execute
from .runner import drive, perform


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
        if self._over:
            return
        try:
            if self._raw is None:
                await self._start()
            rows = await self._raw.next_rows()
        except BaseException as error:
            told = self._told(error)
            self._end()
            if told is error:
                raise
            raise told from error
        self._rows = self._in_time(rows)
        if not rows:
            self._end()

    async def _read(self) -> Optional[MadeT]:
        """The next row for a merge; None after the last."""
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            return None

    async def _start(self) -> None:
        if not self._joins(await drive(execute.find(self._route), perform)):
            self._client, self._raw = await drive(
                execute.check_out(self._route, until=self._until), perform
            )
        self._named(await self._raw.start_stream(self._command(), self._until))

    def close(self) -> None:
        """Leave it before its end."""
        self._leave()

    async def __aenter__(self) -> "Stream[MadeT]":
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self.close()

    def __del__(self) -> None:
        if self.__dict__.get("_raw") is not None:
            self._end(forgotten=True)
