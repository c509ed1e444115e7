"""The threaded pool: DBUtils keeps the idle connections, a fair and timed bound stands before it, and no I/O happens under a lock."""

import ssl
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitTimeout
from typing import Any, Optional

from dbutils.pooled_db import PooledDB

from .. import errors, forks, plans, tls
from ..config import DatabaseConfig
from ..slots import Slots
from .connection import Connection
from .driver import drive


class _NeverRaised(Exception):
    """Given to DBUtils as the failures after which it repeats a statement: there are none."""


class _IdleStore(PooledDB):  # type: ignore[misc]
    """DBUtils' pool as the place where idle connections rest.

    Without ping, reset, usage limit or replay, and with connections that are made unconnected, it does no I/O under its lock.
    """

    def __init__(self, config: DatabaseConfig) -> None:
        super().__init__(
            lambda: Connection(config),
            maxcached=config.pool_size,
            maxconnections=0,
            maxshared=0,
            maxusage=None,
            ping=0,
            reset=False,
            failures=(_NeverRaised,),
        )

    def is_full(self) -> bool:
        return bool(len(self._idle_cache) >= self._maxcached)


class Pool:
    """At most ``pool_size + max_overflow`` connections to one database; ``pool_size`` of them are kept when idle."""

    def __init__(self, config: DatabaseConfig, name: str, shard_id: Optional[int]) -> None:
        self.config, self.name, self.shard_id = config, name, shard_id
        self.closed = False
        self._tls: Optional[ssl.SSLContext] = None
        self._empty()
        forks.watch(self)

    def _empty(self) -> None:
        self._lock = threading.Lock()
        self._slots: Slots[Future[Optional[Connection]]] = Slots(self.config.pool_size + self.config.max_overflow)
        self._store = _IdleStore(self.config)

    def _forked(self) -> None:
        forks.keep(self._store, self._slots)
        self._empty()

    def open(self) -> None:
        """Make the first connection where there is none."""
        self.release(self.checkout())

    def close(self) -> None:
        """Close idle connections now and those in use as they come back; whoever waits is told."""
        with self._lock:
            self.closed = True
            waiters = self._slots.dismiss()
        for waiter in waiters:
            waiter.set_exception(self._closed_error())
        self._store.close()

    def checkout(self) -> Connection:
        """A connection at rest, connected and alive, for the caller alone until ``release``.

        Raises:
            PoolTimeout: none became free within ``pool_timeout``.
            ShardUnavailable, ConnectionFailed: it could not be connected.
            ServiceNotOpen: the pool is closed.
        """
        connection = self._enter()
        try:
            if connection is None:
                pooled = self._store.connection(shareable=False)
                connection = pooled.dbapi_connection
                assert connection is not None
                connection.pooled = pooled
            if connection.open and (connection.is_dead() or connection.too_old(self.config.max_lifetime)):
                connection.quit()
            if not connection.open:
                drive(plans.connecting(self.shard_id, self.config.connect_timeout), lambda step: self._connect(step, connection))
            return connection
        except BaseException:
            self._leave(connection)
            raise

    def release(self, connection: Connection) -> None:
        """Take a connection back. One that is not as it was handed out is closed."""
        self._leave(connection)

    def _connect(self, step: plans.Step, connection: Any) -> None:
        if isinstance(step, plans.Sleep):
            time.sleep(step.seconds)
            return
        try:
            if self._tls is None:
                self._tls = tls.context(self.config)
            connection.open_session(self._tls)
        except errors.ConnectionFailed as error:
            error.about(self.name, self.shard_id, sent=False)
            raise

    def _enter(self) -> Optional[Connection]:
        """Wait for a slot. Gives the connection of whoever had it before, if there was no slot free at once."""
        with self._lock:
            if self.closed:
                raise self._closed_error()
            if self._slots.take():
                return None
            waiter: Future[Optional[Connection]] = Future()
            self._slots.queue(waiter)
        began = time.monotonic()
        try:
            return waiter.result(self.config.pool_timeout)
        except BaseException as error:
            with self._lock:
                withdrawn = self._slots.withdraw(waiter)
            if isinstance(error, WaitTimeout):
                if withdrawn:
                    raise self._slots.timeout(self.name, self.shard_id, time.monotonic() - began) from None
                return waiter.result()  # given at the last moment, or the pool was closed
            if not withdrawn and waiter.exception() is None:
                self._leave(waiter.result())
            raise

    def _leave(self, connection: Optional[Connection]) -> None:
        """Give the slot to the next who waits, with the connection; or lay the connection to rest, and free the slot."""
        if connection is not None and connection.foreign:
            return
        if connection is not None and connection.open and (self.closed or not connection.clean):
            connection.quit()
        waiter = None
        if self._slots.waiting:
            with self._lock:
                waiter = self._slots.give() if self._slots.waiting else None
        if waiter is None:
            self._rest(connection)
            connection = None
            with self._lock:
                waiter = self._slots.give()
        if waiter is not None:
            waiter.set_result(connection)

    def _rest(self, connection: Optional[Connection]) -> None:
        if connection is None:
            return
        pooled, connection.pooled = connection.pooled, None
        if connection.open and (self.closed or self._store.is_full()):
            connection.quit()
        pooled.close()

    def _closed_error(self) -> errors.ServiceNotOpen:
        return errors.ServiceNotOpen(f"the connection pool of {self.name} is closed").about(self.name, self.shard_id, sent=False)
