"""Advisory locks, in asyncio."""

from typing import Any, Optional

from .. import deadlines, errors
from ..api.lock import BaseLock
from ..execution import execute
from ..protocol.exchange import Talk
from .connection import Connection
from .runner import drive, perform


class Lock(BaseLock):
    """An advisory lock, in asyncio: ``async with db.lock("rebalance", timeout=5) as
    lock:``.
    """

    async def __aenter__(self) -> "Lock":
        self._unused()
        until = deadlines.until()
        self._client, raw = await drive(execute.check_out(self._route, until=until), perform)
        try:
            await drive(self._taking(raw), lambda command: raw.run(command, until))
        except BaseException as error:
            told = self._told(error, raw)
            self._client.pool.release(raw)
            if told is error:
                raise
            raise told from error
        self._raw = raw
        return self

    async def check(self) -> None:
        """Ask the server whether the lock is still held. Raises: LockLost."""
        raw = self._held()
        if not await self._answer(self._checking(raw), raw):
            raise self._lost()

    async def __aexit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> None:
        raw = self._held()
        self._raw = None
        try:
            kept = (error is None or isinstance(error, Exception)) and await self._answer(
                self._letting_go(raw), raw
            )
        except errors.Error:
            if error is None:
                raise
        else:
            if error is None and not kept:
                raise self._lost()
        finally:
            self._client.pool.release(raw)

    async def _answer(self, talk: Talk, raw: Connection) -> Any:
        try:
            return await drive(talk, lambda command: raw.run(command, deadlines.until()))
        except BaseException as error:
            told = self._told_while_held(error, raw)
            if told is error:
                raise
            raise told from error

    def __del__(self) -> None:
        raw = self.__dict__.get("_raw")
        if raw is not None:
            self._client.pool.abandon(raw)
