"""The asyncio pool: aiomysql connections behind a fair and timed bound.

aiomysql's own pool loses wake-ups (a waiter stays asleep when a connection is dropped), connects while it holds its lock, and has no
limit on a wait, so it is not used.
"""

import asyncio
import ssl
import time
from collections import deque
from typing import Deque, List, Optional

from .. import errors, forks, plans, tls
from ..config import DatabaseConfig
from ..slots import Slots
from .connection import Connection
from .driver import drive


class Pool:
    """At most ``pool_size + max_overflow`` connections to one database; ``pool_size`` of them are kept when idle."""

    def __init__(self, config: DatabaseConfig, name: str, shard_id: Optional[int]) -> None:
        self.config, self.name, self.shard_id = config, name, shard_id
        self.closed = False
        self._tls: Optional[ssl.SSLContext] = None
        self._empty()
        forks.watch(self)

    def _empty(self) -> None:
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._slots: Slots[asyncio.Future[Optional[Connection]]] = Slots(self.config.pool_size + self.config.max_overflow)
        self._idle: Deque[Connection] = deque()

    def _forked(self) -> None:
        forks.keep(self._slots)
        self._empty()

    async def open(self) -> None:
        """Make the first connection where there is none."""
        self.release(await self.checkout())

    def close(self) -> None:
        """Close idle connections now and those in use as they come back; whoever waits is told."""
        self.closed = True
        waiters = self._slots.dismiss()
        if self._loop is not None and not self._loop.is_closed():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(self._closed_error())
        while self._idle:
            self._idle.pop().quit()

    async def checkout(self) -> Connection:
        """A connection at rest, connected and alive, for the caller alone until ``release``.

        Raises:
            PoolTimeout: none became free within ``pool_timeout``.
            ShardUnavailable, ConnectionFailed: it could not be connected.
            ServiceNotOpen: the pool is closed.
            InterfaceError: the pool belongs to another event loop.
        """
        connection = await self._enter()
        try:
            while connection is not None or self._idle:
                connection = connection or self._idle.pop()
                if not connection.is_dead() and not connection.too_old(self.config.max_lifetime):
                    return connection
                connection.quit()
                connection = None
            made: List[Connection] = []
            await drive(plans.connecting(self.shard_id, self.config.connect_timeout), lambda step: self._connect(step, made))
            return made[0]
        except BaseException:
            self._leave(None)
            raise

    def release(self, connection: Connection) -> None:
        """Take a connection back. One that is not as it was handed out is closed. Never waits, so a cancelled task can do it."""
        self._leave(connection)

    def discard(self, connection: Connection) -> None:
        """Take a connection back and close it, whatever state it is in."""
        connection.quit()
        self._leave(None)

    def abandon(self, connection: Connection) -> None:
        """Take back a connection that its borrower forgot. The garbage collector runs in any thread."""
        if self._loop is None or self._loop.is_closed():
            connection.abort()
        else:
            self._loop.call_soon_threadsafe(self.discard, connection)

    async def _connect(self, step: plans.Step, made: List[Connection]) -> None:
        if isinstance(step, plans.Sleep):
            await asyncio.sleep(step.seconds)
            return
        try:
            if self._tls is None:
                self._tls = tls.context(self.config)
            connection = Connection(self.config, self._tls)
            await connection.open_session()
        except errors.ConnectionFailed as error:
            error.about(self.name, self.shard_id, sent=False)
            raise
        made.append(connection)

    async def _enter(self) -> Optional[Connection]:
        """Wait for a slot. Gives the connection of whoever had it before, if there was no slot free at once."""
        if self.closed:
            raise self._closed_error()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._adopt(loop)
        if self._slots.take():
            return None
        waiter = loop.create_future()
        self._slots.queue(waiter)
        began = time.monotonic()
        try:
            await asyncio.wait({waiter}, timeout=self.config.pool_timeout)
        except BaseException:
            if not self._slots.withdraw(waiter) and waiter.done() and waiter.exception() is None:
                self._leave(waiter.result())
            raise
        if self._slots.withdraw(waiter):
            raise self._slots.timeout(self.name, self.shard_id, time.monotonic() - began)
        given: Optional[Connection] = waiter.result()
        return given

    def _leave(self, connection: Optional[Connection]) -> None:
        """Give the slot to the next who waits, with the connection; or lay the connection to rest, and free the slot."""
        if connection is not None and connection.foreign:
            return
        if connection is not None and (self.closed or not connection.open or not connection.clean):
            connection.quit()
            connection = None
        waiter = self._slots.give()
        if waiter is not None:
            waiter.set_result(connection)
        elif connection is not None and len(self._idle) < self.config.pool_size:
            self._idle.append(connection)
        elif connection is not None:
            connection.quit()

    def _adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None:
            raise errors.InterfaceError(
                f"the connections of {self.name} belong to another event loop: "
                "close the service in the loop that opened it, and open it again in this one"
            )
        self._loop = loop

    def _closed_error(self) -> errors.ServiceNotOpen:
        return errors.ServiceNotOpen(f"the connection pool of {self.name} is closed").about(self.name, self.shard_id, sent=False)
