"""The threaded pool: DBUtils keeps the idle connections, a fair and timed bound stands
before it, and no I/O happens under a lock.
"""

import contextlib
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitTimeout
from typing import Any, Deque, List, Optional

from .. import errors, fork_safety
from ..config import DatabaseConfig
from ..execution import connect, steps
from ..pooling.base import BasePool
from ..pooling.slots import Slots
from ..protocol import kill
from .connection import Connection
from .idle_store import IdleStore
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
        self._lock = threading.Lock()
        self._slots: Slots[Future[Optional[Connection]]] = Slots(
            self.config.pool_size + self.config.max_overflow
        )
        self._store = IdleStore(self.config)
        self._to_kill: Deque[Connection] = deque()
        self._abandoned: Deque[Connection] = deque()
        self._killer: Optional[threading.Thread] = None

    def _forked(self) -> None:
        fork_safety.never_finalize(self._store, self._slots, self._to_kill, self._abandoned)
        self._reset()

    def _idle_count(self) -> int:
        return self._store.count()

    def open(self, until: Optional[float] = None) -> None:
        """Make the first ``warm_up`` connections where there are none."""
        made: List[Connection] = []
        try:
            for _ in range(self.config.warm_up):
                made.append(self.checkout(until))
        finally:
            for connection in made:
                self.release(connection)

    def close(self) -> None:
        """Close idle connections now and those in use as they come back; whoever waits
        is told.
        """
        with self._lock:
            self.closed = True
            waiters = self._slots.dismiss()
        for waiter in waiters:
            waiter.set_exception(self._closed_error())
        self._store.close()

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
        if self.config.max_idle is not None:
            for connection in self._store.take_idle(time.monotonic() - self.config.max_idle):
                connection.quit()
        self._warn_of_leaks()

    def wait_for_kills(self, seconds: float) -> None:
        """Wait until what was given up has been ended on the server."""
        ender = self._killer
        if ender is not None:
            ender.join(seconds)

    def checkout(self, until: Optional[float] = None) -> Connection:
        """A connection at rest, connected and alive, for the caller alone until
        ``release``.

        Raises:
            PoolTimeout: none became free within ``pool_timeout``.
            DeadlineExceeded: none before ``until``, by time.monotonic().
            ShardUnavailable, ConnectionFailed: it could not be connected.
            ServiceNotOpen: the pool is closed.
        """
        entered, connection = False, None
        try:
            connection = self._acquire_slot(until)
            entered = True
            if connection is None:
                connection = self._take_idle()
            now = time.monotonic()
            if connection.resetting:
                self._finish_reset(
                    connection, now + self.config.connect_timeout if until is None else until
                )
            if connection.open and (
                connection.is_stale() or connection.is_too_old(now, self._opened_after)
            ):
                connection.quit()
            if not connection.open:
                run_plan(
                    connect.connecting(self, until), lambda step: self._connect(step, connection)
                )
                self.opened += 1
            self._record_checkout(connection, now)
            return connection
        except BaseException:
            if entered:
                self._check_in(connection)
            raise

    def checkout_idle(self) -> Optional[Connection]:
        """A connection that is there at once, so that nobody waits for it; None where
        there is none. See ``checkout``.
        """
        with self._lock:
            if self.closed or not self._slots.take():
                return None
            self.breaker.earn()
        connection: Optional[Connection] = None
        try:
            connection = self._take_idle()
            now = time.monotonic()
            ready = (
                connection.open
                and not connection.resetting
                and not connection.is_too_old(now, self._opened_after)
                and not connection.is_stale()
            )
            if ready and connection.uses_own_decoder:
                self._record_checkout(connection, now)
                return connection
        except BaseException:
            self._check_in(connection)
            raise
        self._check_in(connection)
        return None

    def _take_idle(self) -> Connection:
        """One out of the store, where there is none a new one that is not connected."""
        pooled = self._store.connection(shareable=False)
        connection: Connection = pooled.dbapi_connection
        connection.pooled = pooled
        return connection

    def release(self, connection: Connection) -> None:
        """Take a connection back.

        One that is not as it was handed out is closed, or made so.
        """
        self._check_in(connection)

    def discard(self, connection: Connection) -> None:
        """Take a connection back and close it, whatever state it is in."""
        if not connection.needs_kill:
            connection.quit()
        self._check_in(connection)

    def abandon(self, connection: Connection) -> None:
        """Take back a connection that its borrower forgot.

        The garbage collector runs anywhere, also in a thread that holds this pool's
        lock: whoever holds it does this afterwards. A process that ends starts no
        thread any more to end a session on the server.
        """
        if sys.is_finalizing():
            connection.abort()
            return
        self._abandoned.append(connection)
        if self._lock.acquire(blocking=False):
            self._lock.release()
            self._collect()

    def _collect(self) -> None:
        while self._abandoned:
            with contextlib.suppress(IndexError):
                self.discard(self._abandoned.popleft())

    def _connect(self, step: steps.Step, connection: Any) -> None:
        if isinstance(step, steps.Sleep):
            time.sleep(step.seconds)
            return
        assert isinstance(step, steps.Connect)
        try:
            if self._tls is None:
                self._tls = self._tls_context()
            connection.open_session(self._tls, step.until)
        except errors.ConnectionFailed as error:
            error.with_context(self.name, self.shard_id, sent=False)
            raise

    def _finish_reset(self, connection: Connection, until: float) -> None:
        try:
            connection.finish_reset(until)
        except errors.DRIVER_ERRORS:
            connection.abort()

    def _acquire_slot(self, until: Optional[float]) -> Optional[Connection]:
        """Wait for a slot.

        Gives the connection of whoever had it before, if there was no slot free at
        once.
        """
        with self._lock:
            if self.closed:
                raise self._closed_error()
            self.breaker.earn()
            if self._slots.take():
                return None
            waiter: Future[Optional[Connection]] = Future()
            self._slots.queue(waiter)
        self._collect()
        began = time.monotonic()
        limit = (
            self.config.pool_timeout
            if until is None
            else min(self.config.pool_timeout, max(0.0, until - began))
        )
        try:
            return waiter.result(limit)
        except BaseException as error:
            with self._lock:
                withdrawn = self._slots.withdraw(waiter)
            if isinstance(error, WaitTimeout):
                if not withdrawn:
                    # given at the last moment, or the pool was closed
                    return waiter.result()
                if limit < self.config.pool_timeout:
                    raise self._deadline_error("waiting for a connection") from None
                raise self._timeout(time.monotonic() - began) from None
            if not withdrawn and waiter.exception() is None:
                self._check_in(waiter.result())
            raise

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
            if connection.ended is not None and self._release_during_kill(connection):
                return
            if connection.needs_kill:
                self._kill(connection)
                return
            try:
                if connection.open and (self.closed or not connection.reusable):
                    connection.quit()
                elif connection.open and connection.dirty:
                    self._begin_reset(connection)
            except BaseException:  # a signal handler's: the slot must not be lost over it
                connection.abort()
                self._hand_over(connection)
                raise
        self._hand_over(connection)

    def _hand_over(self, connection: Optional[Connection]) -> None:
        waiter = None
        if self._slots.waiting:
            with self._lock:
                waiter = self._slots.give() if self._slots.waiting else None
        if waiter is None:
            try:
                self._store_idle(connection)
            finally:
                connection = None
                with self._lock:
                    waiter = self._slots.give()
                if waiter is not None:
                    waiter.set_result(None)
        else:
            waiter.set_result(connection)
        self._collect()

    def _store_idle(self, connection: Optional[Connection]) -> None:
        if connection is None:
            return
        pooled, connection.pooled = connection.pooled, None
        if connection.open and (self.closed or self._store.is_full()):
            connection.quit()
        connection.last_used_at = time.monotonic()
        pooled.close()

    def _begin_reset(self, connection: Connection) -> None:
        try:
            connection.begin_reset()
        except errors.DRIVER_ERRORS:
            connection.abort()

    # What was given up on this side and goes on on the server is ended there, over a
    # connection of its own. Until that is done the slot is not free, so that the server
    # has never more of these sessions than it should.

    def kill_checked_out(self, connection: Connection) -> None:
        """End the session of a connection whose borrower may still hold it, and may
        wait on it. It is released once he lets go of it.
        """
        connection.ended = False
        self._kill(connection)

    def _release_during_kill(self, connection: Connection) -> bool:
        """Its borrower lets go of it; who ends its session does the rest, where that is
        not done yet.
        """
        with self._lock:
            done, connection.ended = connection.ended, None
        if done:
            connection.needs_kill = False
            connection.abort()
        return not done

    def _finish_kill(self, connection: Connection) -> bool:
        """Its session has been ended; its borrower does the rest, where he has not let
        go of it yet.
        """
        with self._lock:
            held = connection.ended is False
            if held:
                connection.ended = True
        return held

    def _kill(self, connection: Connection) -> None:
        with self._lock:
            self._to_kill.append(connection)
            if self._killer is None:
                self._killer = threading.Thread(
                    target=self._kill_sessions, name="dualdb-kill", daemon=True
                )
                self._killer.start()

    def _kill_sessions(self) -> None:
        spare, limit = Connection(self.config), self.config.connect_timeout
        while True:
            with self._lock:
                if not self._to_kill:
                    self._killer = None
                    break
                connection = self._to_kill.popleft()
            ended = True
            try:
                if not connection.peer_closed() and not self.breaker.is_open:
                    if not spare.open:
                        self._connect(steps.Connect(time.monotonic() + limit), spare)
                    end = kill.end_session(
                        connection.session_id, time.monotonic() - connection.connected_at
                    )
                    ended = (
                        run_plan(end, lambda command: spare.run(command, time.monotonic() + limit))
                        or self.closed
                    )
            except (errors.Error, *errors.DRIVER_ERRORS) as error:
                self._warn_kill_failed(connection, error)
                spare.abort()
            if not ended:
                self._warn_still_running(connection)
                self._to_kill.append(connection)
                time.sleep(self.KILL_RETRY_INTERVAL)
                continue
            if self._finish_kill(connection):
                continue
            connection.abort()
            connection.needs_kill = False
            self._check_in(connection)
        spare.quit()
