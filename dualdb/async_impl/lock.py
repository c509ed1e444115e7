"""Advisory locks, in asyncio."""

from typing import Any, Optional

from .. import deadlines, errors
from ..api.lock import BaseLock
from ..execution import execute
from ..protocol.exchange import Exchange
from .connection import Connection
from .runner import run_plan, run_step


class Lock(BaseLock):
    """An advisory lock, in asyncio: ``async with db.lock("rebalance", timeout=5) as
    lock:``.
    """

    async def __aenter__(self) -> "Lock":
        self._check_unused()
        until = deadlines.deadline_after()
        self._client, connection = await run_plan(
            execute.check_out(self._route, until=until), run_step
        )
        try:
            await run_plan(
                self._acquire_exchange(connection), lambda command: connection.run(command, until)
            )
        except BaseException as error:
            translated = self._translate_error(error, connection)
            self._client.pool.release(connection)
            errors.raise_translated(error, translated)
        self._connection = connection
        return self

    async def check(self) -> None:
        """Ask the server whether the lock is still held. Raises: LockLost."""
        connection = self._held()
        if not await self._answer(self._check_exchange(connection), connection):
            raise self._lost_error()

    async def __aexit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> None:
        connection = self._held()
        self._connection = None
        try:
            kept = (error is None or isinstance(error, Exception)) and await self._answer(
                self._release_exchange(connection), connection
            )
        except errors.Error:
            if error is None:
                raise
        else:
            if error is None and not kept:
                raise self._lost_error()
        finally:
            self._client.pool.release(connection)

    async def _answer(self, exchange: Exchange, connection: Connection) -> Any:
        try:
            return await run_plan(
                exchange, lambda command: connection.run(command, deadlines.deadline_after())
            )
        except BaseException as error:
            translated = self._translate_while_held(error, connection)
            errors.raise_translated(error, translated)

    def __del__(self) -> None:
        connection = self.__dict__.get("_connection")
        if connection is not None:
            self._client.pool.abandon(connection)
