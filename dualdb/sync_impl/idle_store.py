"""DBUtils' pool as the store of idle connections."""

import time
from _thread import RLock
from typing import Any, Callable, List, Optional

from dbutils.pooled_db import PooledDB

from ..config import DatabaseConfig
from ..pooling.base import take_surplus
from .connection import Connection


class _NeverRaised(Exception):
    """Given to DBUtils as the failures after which it repeats a statement: there are
    none.
    """


class _Lock(RLock):  # type: ignore[misc]  # final in typeshed alone
    """In place of DBUtils' Condition, on which nobody waits here.

    A Condition is entered in Python code: a signal handler that raises there leaves it
    locked for ever.
    """

    def notify(self) -> None:
        """Nobody waits."""


class _Driver:
    """What DBUtils takes for a DB-API module.

    Given a function, it looks for that module again for every connection, through the
    packages that the connection's class is in: an import while the pool is locked.
    """

    threadsafety = 1

    def __init__(self, config: DatabaseConfig) -> None:
        self._config = config

    def connect(self) -> Connection:
        """A connection that is not connected yet."""
        return Connection(self._config)


class IdleStore:
    """Where idle connections are kept: without ping, reset, usage limit or replay, and
    without I/O, because new connections are made unconnected.

    A connection that is out has no reference to DBUtils' handle of it that would make a
    circle: who loses one frees its slot at once.

    Args:
        config: How connections are made, and how many are kept.
    """

    def __init__(self, config: DatabaseConfig) -> None:
        self._pool = PooledDB(
            _Driver(config),
            maxcached=config.pool_size,
            maxconnections=0,
            maxshared=0,
            maxusage=None,
            ping=0,
            reset=False,
            failures=(_NeverRaised,),
        )
        self._pool._lock = _Lock()
        self._most = config.most_idle

    def resize(self, config: DatabaseConfig) -> List[Connection]:
        """Keep another number of connections.

        Returns:
            Those that are not kept any more, to be closed.
        """
        with self._pool._lock:
            self._pool._maxcached = config.pool_size
            self._most = config.most_idle
        return take_surplus(self, self._most)

    @property
    def is_full(self) -> bool:
        """No more are kept."""
        return len(self._pool._idle_cache) >= self._most

    def take(self) -> Connection:
        """One of the store's, where there is none a new one that is not connected."""
        pooled = self._pool.connection(shareable=False)
        handle = pooled._con
        pooled._con = None
        connection: Connection = handle._con
        # In this order, so that at no time each refers to the other.
        handle._con = None
        connection.handle = handle
        return connection

    def put(self, connection: Connection) -> None:
        """Keep a connection until it is taken."""
        handle = connection.handle
        connection.handle = None
        connection.lifetime.last_used_at = time.monotonic()
        handle._con = connection
        self._pool.cache(handle)

    def oldest_at(self) -> Optional[float]:
        """Since when the oldest is here, by time.monotonic(); None if there is none."""
        connections = [handle._con for handle in list(self._pool._idle_cache)]
        return min([each.lifetime.last_used_at for each in connections if each.open], default=None)

    def take_oldest(self) -> Optional[Connection]:
        """The connection that has been idle for longest, taken out of the store; None
        if there is none.
        """
        with self._pool._lock:
            handles = [each for each in self._pool._idle_cache if each._con.open]
            if not handles:
                return None
            handle = min(handles, key=lambda each: each._con.lifetime.last_used_at)
            self._pool._idle_cache.remove(handle)
        oldest: Connection = handle._con
        return oldest

    def count(self) -> int:
        """How many are connected."""
        return sum([handle._con.open for handle in list(self._pool._idle_cache)])

    def prune(self, before: float) -> List[Connection]:
        """Those that have not been used since ``before``, by time.monotonic(); they are
        taken out of the store.
        """
        return self._remove(lambda connection: connection.lifetime.last_used_at < before)

    def prune_retired(self) -> List[Connection]:
        """Those whose host is no longer used; they are taken out of the store."""
        return self._remove(lambda connection: connection.retired)

    def _remove(self, unwanted: Callable[[Connection], bool]) -> List[Connection]:
        idle: List[Any] = self._pool._idle_cache
        with self._pool._lock:
            old = [handle for handle in idle if handle._con.open and unwanted(handle._con)]
            for handle in old:
                idle.remove(handle)
        return [handle._con for handle in old]
