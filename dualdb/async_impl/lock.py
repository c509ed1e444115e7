"""Advisory locks, in asyncio."""

import asyncio
import contextlib
import weakref
from typing import Any, Awaitable, Callable, List, Optional, Tuple

from .. import deadlines, errors
from ..api.lock import RELEASE_GRACE, BaseLock
from ..blocks import ends_block
from ..execution import execute
from ..protocol.exchange import Exchange, readable
from .connection import Connection
from .runner import background_task, run_plan, run_step


class Lock(BaseLock):
    """An advisory lock, in asyncio: ``async with db.lock("rebalance", timeout=5) as
    lock:``.
    """

    _renewal: Optional["_Renewal"] = None

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
            if self._lease is not None:
                self._renewal = _Renewal(self._renew_every, weakref.WeakMethod(self._renew))
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
        renewal = self._renewal
        if renewal is None:
            held = await self._answer(self._check_exchange(connection), connection)
        else:
            async with renewal.turn:
                held = await self._answer(self._check_exchange(connection), connection)
        if not held:
            raise self._lost_error()

    @ends_block
    async def __aexit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        connection = self._held()
        renewal, self._renewal = self._renewal, None
        self._connection = None
        try:
            if renewal is not None:
                await renewal.end()
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

    def _abandon(self) -> None:
        super()._abandon()
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            renewal.abandon()

    async def _answer(self, exchange: Exchange, connection: Connection, grace: float = 0.0) -> Any:
        try:
            return await run_plan(
                readable(exchange, connection),
                lambda command: connection.run(command, self._until(self._client, grace=grace)),
            )
        except BaseException as error:
            errors.raise_translated(error, self._translate_while_held(error, connection))

    async def _renew(self) -> bool:
        """Renew the lease of a lock that is held; return whether it is still held."""
        connection = self._connection
        if connection is None:
            return False
        try:
            return bool(await self._answer(self._check_exchange(connection), connection))
        except errors.Error:
            return False


class _Renewal:
    """Renews the lease of a lock while its block runs.

    It has no reference to the lock, so that a lock whose block is never left can be
    garbage-collected.
    """

    def __init__(
        self, every: float, renew: "weakref.WeakMethod[Callable[[], Awaitable[bool]]]"
    ) -> None:
        self._every = every
        self._ended = asyncio.Event()
        #: Held by who uses the lock's connection.
        self.turn = asyncio.Lock()
        self._task = background_task(self._run(renew), "dualdb-lock")

    async def end(self) -> None:
        """Stop renewing; wait for a renewal in progress."""
        self._ended.set()
        await asyncio.wait({self._task})

    def abandon(self) -> None:
        """Renew it no more; called by whatever collects the lock."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._task.get_loop().call_soon_threadsafe(self._ended.set)

    async def _run(self, known: "weakref.WeakMethod[Callable[[], Awaitable[bool]]]") -> None:
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            while not (await asyncio.wait({ended}, timeout=self._every))[0]:
                async with self.turn:
                    renew = known()
                    if self._ended.is_set() or renew is None or not await renew():
                        return
                    del renew  # a lock that nobody holds can be collected while it waits
        finally:
            ended.cancel()
            await asyncio.wait({ended})
