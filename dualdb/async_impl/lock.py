"""Advisory locks, in asyncio."""

from typing import Any, List, Optional, Tuple

from .. import deadlines, errors
from ..api.lock import RELEASE_GRACE, BaseLock
from ..blocks import ends_block
from ..execution import execute
from ..protocol.exchange import Exchange, readable
from .connection import Connection
from .runner import run_plan, run_step


class Lock(BaseLock):
    """An advisory lock, in asyncio: ``async with db.lock("rebalance", timeout=5) as
    lock:``.
    """

    async def __aenter__(self) -> "Lock":
        self._check_unused()
        until = deadlines.deadline_after()
        borrowed: List[Tuple[Any, Any]] = []
        try:
            await run_plan(execute.check_out(self._route, until=until, into=borrowed), run_step)
            self._client, connection = borrowed[0]
            await run_plan(
                readable(self._acquire_exchange(connection), connection),
                lambda command: connection.run(command, self._until(self._client, self._timeout)),
            )
            self._connection = connection
            return self
        except BaseException as error:
            errors.raise_translated(error, self._not_acquired(error, borrowed))

    async def check(self) -> None:
        """Ask the server whether the lock is still held.

        Raises:
            LockLost: It is not.
            DeadlineExceeded: The deadline of the block had passed before.
            InterfaceError: Outside the block.
        """
        connection = self._held()
        self._check_deadline()
        if not await self._answer(self._check_exchange(connection), connection):
            raise self._lost_error()

    @ends_block
    async def __aexit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        connection = self._held()
        self._connection = None
        try:
            kept = (error is None or isinstance(error, Exception)) and await self._answer(
                self._release_exchange(connection), connection, RELEASE_GRACE
            )
        except errors.Error:
            if error is None:
                raise
        else:
            if error is None and not kept:
                raise self._lost_error()
        finally:
            self._client.pool.release(connection)

    async def _answer(self, exchange: Exchange, connection: Connection, grace: float = 0.0) -> Any:
        try:
            return await run_plan(
                readable(exchange, connection),
                lambda command: connection.run(command, self._until(self._client, grace=grace)),
            )
        except BaseException as error:
            errors.raise_translated(error, self._translate_while_held(error, connection))
