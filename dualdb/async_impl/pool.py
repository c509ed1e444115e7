"""The asyncio pool: aiomysql connections behind a fair and timed bound.

aiomysql's own pool loses wake-ups (a waiter stays asleep when a connection is dropped),
connects while it holds its lock, and has no limit on a wait, so it is not used.
"""

import asyncio
import sys
import time
from collections import deque
from typing import Deque, List, Optional

from .. import errors, fork_safety
from ..config import DatabaseConfig
from ..execution import connect, steps
from ..pooling.base import BasePool
from ..pooling.slots import Slots
from ..protocol import kill
from .connection import Connection
from .runner import run_plan


class Pool(BasePool):
    """At most ``pool_size + max_overflow`` connections to one database; ``pool_size``
    of them are kept when idle.
    """

    _connection_type = Connection

    def __init__(self, config: DatabaseConfig, name: str, shard_id: Optional[int]) -> None:
        super().__init__(config, name, shard_id)
        fork_safety.register(self)

    def _reset(self) -> None:
        super()._reset()
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._slots: Slots[asyncio.Future[Optional[Connection]]] = Slots(
            self.config.pool_size + self.config.max_overflow
        )
        self._idle: Deque[Connection] = deque()
        self._to_kill: Deque[Connection] = deque()
        self._killer: Optional[asyncio.Task[None]] = None

    def _forked(self) -> None:
        fork_safety.never_finalize(self._slots, self._to_kill, self._killer)
        self._reset()

    def _idle_count(self) -> int:
        return len(self._idle)

    async def open(self, until: Optional[float] = None) -> None:
        """Make the first ``warm_up`` connections where there are none."""
        made: List[Connection] = []
        try:
            for _ in range(self.config.warm_up):
                made.append(await self.checkout(until))
        finally:
            for connection in made:
                self.release(connection)

    def close(self) -> None:
        """Close idle connections now and those in use as they come back; whoever waits
        is told.
        """
        self.closed = True
        waiters = self._slots.dismiss()
        if self._loop is not None and not self._loop.is_closed():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(self._closed_error())
        while self._idle:
            self._idle.pop().quit()

    def abort_in_use(self) -> int:
        """Break the connections that are still in use; how many there were."""
        lent = list(self._checked_out)
        for connection in lent:
            connection.abort_in_use()
        return len(lent)

    def prune_idle(self) -> None:
        """Close what has been idle for too long, and say which connections seem to be
        forgotten.
        """
        limit = self.config.max_idle
        # The oldest are on the left: the last to come back is the first to be used.
        while (
            limit is not None
            and self._idle
            and self._idle[0].last_used_at < time.monotonic() - limit
        ):
            self._idle.popleft().quit()
        self._warn_of_leaks()

    async def wait_for_kills(self, seconds: float) -> None:
        """Wait until what was given up has been ended on the server."""
        ender = self._killer
        if ender is not None and ender.get_loop() is asyncio.get_running_loop():
            await asyncio.wait({ender}, timeout=seconds)
            ender.cancel()

    async def checkout(self, until: Optional[float] = None) -> Connection:
        """A connection at rest, connected and alive, for the caller alone until
        ``release``.

        Raises:
            PoolTimeout: none became free within ``pool_timeout``.
            DeadlineExceeded: none before ``until``, by time.monotonic().
            ShardUnavailable, ConnectionFailed: it could not be connected.
            ServiceNotOpen: the pool is closed.
            InterfaceError: the pool belongs to another event loop.
        """
        connection = await self._acquire_slot(until)
        try:
            now = time.monotonic()
            while connection is not None or self._idle:
                connection = connection or self._idle.pop()
                if connection.resetting:
                    await self._finish_reset(
                        connection, now + self.config.connect_timeout if until is None else until
                    )
                if not connection.is_stale() and not connection.is_too_old(now, self._opened_after):
                    break
                connection.quit()
                connection = None
            if connection is None:
                made: List[Connection] = []
                await run_plan(
                    connect.connecting(self, until), lambda step: self._connect(step, made)
                )
                connection = made[0]
                self.opened += 1
            self._record_checkout(connection, now)
            return connection
        except BaseException:
            self._check_in(connection)
            raise

    def release(self, connection: Connection) -> None:
        """Take a connection back.

        One that is not as it was handed out is closed, or made so.

        Never waits, so a cancelled task can do it.
        """
        self._check_in(connection)

    def discard(self, connection: Connection) -> None:
        """Take a connection back and close it, whatever state it is in."""
        if not connection.needs_kill:
            connection.quit()
        self._check_in(connection)

    def abandon(self, connection: Connection) -> None:
        """Take back a connection that its borrower forgot.

        The garbage collector runs in any thread.
        """
        if self._loop is None or self._loop.is_closed() or sys.is_finalizing():
            connection.abort()
        else:
            self._loop.call_soon_threadsafe(self.discard, connection)

    async def _connect(self, step: steps.Step, made: List[Connection]) -> None:
        if isinstance(step, steps.Sleep):
            await asyncio.sleep(step.seconds)
            return
        assert isinstance(step, steps.Connect)
        try:
            if self._tls is None:
                self._tls = self._tls_context()
            connection = Connection(self.config, self._tls)
            await connection.open_session(step.until)
        except errors.ConnectionFailed as error:
            error.with_context(self.name, self.shard_id, sent=False)
            raise
        made.append(connection)

    async def _finish_reset(self, connection: Connection, until: float) -> None:
        try:
            await connection.finish_reset(until)
        except errors.DRIVER_ERRORS:
            connection.abort()

    async def _acquire_slot(self, until: Optional[float]) -> Optional[Connection]:
        """Wait for a slot.

        Gives the connection of whoever had it before, if there was no slot free at
        once.
        """
        if self.closed:
            raise self._closed_error()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._adopt(loop)
        self.breaker.earn()
        if self._slots.take():
            return None
        waiter = loop.create_future()
        self._slots.queue(waiter)
        began = time.monotonic()
        limit = (
            self.config.pool_timeout
            if until is None
            else min(self.config.pool_timeout, max(0.0, until - began))
        )
        try:
            await asyncio.wait({waiter}, timeout=limit)
        except BaseException:
            if not self._slots.withdraw(waiter) and waiter.done() and waiter.exception() is None:
                self._check_in(waiter.result())
            raise
        if self._slots.withdraw(waiter):
            if limit < self.config.pool_timeout:
                raise self._deadline_error("waiting for a connection")
            raise self._timeout(time.monotonic() - began)
        given: Optional[Connection] = waiter.result()
        return given

    def _check_in(self, connection: Optional[Connection]) -> None:
        """Give the slot to the next who waits, with the connection; or lay the
        connection to rest, and free the slot.
        """
        if connection is not None:
            self._checked_out.pop(connection, None)
            if connection.refused_at:
                self.retire_older(connection.refused_at)
            if connection.inherited:
                return
            if connection.ended is False:
                connection.ended = None  # who ends its session does the rest
                return
            if connection.ended:
                connection.abort()
            elif connection.needs_kill:
                self._kill(connection)
                return
            if self.closed or not connection.open or not connection.reusable:
                connection.quit()
                connection = None
            elif connection.dirty:
                connection.begin_reset()
        waiter = self._slots.give()
        if waiter is not None:
            waiter.set_result(connection)
        elif connection is not None and len(self._idle) < self.config.pool_size:
            connection.last_used_at = time.monotonic()
            self._idle.append(connection)
        elif connection is not None:
            connection.quit()

    # What was given up on this side and goes on on the server is ended there, over a
    # connection of its own. Until that is done the slot is not free, so that the server
    # has never more of these sessions than it should.

    def kill_checked_out(self, connection: Connection) -> None:
        """End the session of a connection whose borrower may still hold it, and may
        wait on it. It is released once he lets go of it.
        """
        connection.ended = False
        self._kill(connection)

    def _kill(self, connection: Connection) -> None:
        self._to_kill.append(connection)
        if self._killer is None:
            assert self._loop is not None
            self._killer = self._loop.create_task(self._kill_sessions(), name="dualdb-kill")

    async def _kill_sessions(self) -> None:
        spare: List[Connection] = []
        limit = self.config.connect_timeout
        try:
            while self._to_kill:
                connection = self._to_kill.popleft()
                ended = True
                try:
                    if not connection.peer_closed() and not self.breaker.is_open:
                        if not spare:
                            await self._connect(steps.Connect(time.monotonic() + limit), spare)
                        end = kill.end_session(
                            connection.session_id, time.monotonic() - connection.connected_at
                        )
                        ended = (
                            await run_plan(
                                end, lambda command: spare[0].run(command, time.monotonic() + limit)
                            )
                            or self.closed
                        )
                except (errors.Error, *errors.DRIVER_ERRORS) as error:
                    self._warn_kill_failed(connection, error)
                    while spare:
                        spare.pop().abort()
                except BaseException:
                    self._to_kill.append(connection)
                    raise
                if not ended:
                    self._warn_still_running(connection)
                    self._to_kill.append(connection)
                    await asyncio.sleep(self.KILL_RETRY_INTERVAL)
                    continue
                if connection.ended is False:
                    connection.ended = True  # its borrower does the rest
                    continue
                connection.abort()
                connection.needs_kill = False
                self._check_in(connection)
        finally:
            self._killer = None
            for connection in (*spare, *self._to_kill):
                connection.quit()

    def _adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None and not self._loop.is_closed():
            raise errors.InterfaceError(
                f"the connections of {self.name} belong to another event loop: "
                "close the service in the loop that opened it, and open it again in this one"
            )
        if self._loop is not None:
            # Its loop is gone, and with it whoever had or awaited one of these.
            for connection in (*self._idle, *self._checked_out, *self._to_kill):
                connection.inherited = True
                connection.abort()
            self._reset()
        self._loop = loop
