"""DBUtils' pool as the store of idle connections."""

import time
from contextlib import nullcontext
from typing import Any, Callable, List, Optional, Tuple

from dbutils.pooled_db import PooledDB

from ..config import DatabaseConfig
from ..pooling.base import take_surplus
from ..pooling.server_budget import ServerBudget
from .connection import Connection

_NO_LOCK = nullcontext()


class _NeverRaised(Exception):
    """The failures after which DBUtils would repeat a statement: none, because nothing
    raises this.
    """


class _Driver:
    """A minimal DB-API module for DBUtils.

    Given a function instead, DBUtils would search for that module for every connection,
    through imports, while the pool is locked.
    """

    threadsafety = 1

    def __init__(self, config: DatabaseConfig) -> None:
        self._config = config

    def connect(self) -> Connection:
        """Return a connection that is not connected yet."""
        return Connection(self._config)


class IdleStore:
    """Stores idle connections, without ping, reset, usage limit, replay or I/O: new
    connections are created unconnected. The last one returned is used first.

    There is no lock, because each operation on DBUtils' list is atomic: a signal
    handler or the garbage collector may run code of callers at any time, which would
    wait for a lock for ever.

    A checked-out connection has no reference cycle with DBUtils' handle, so a lost one
    frees its slot at once.

    Args:
        config: How connections are created, and how many are kept.
    """

    def __init__(self, config: DatabaseConfig) -> None:
        self._pool = PooledDB(_Driver(config), maxusage=None, ping=0, failures=(_NeverRaised,))
        # Its Condition takes about a kilobyte, and only its close() would enter it.
        self._pool._lock = _NO_LOCK
        self._most = config.most_idle

    def resize(self, config: DatabaseConfig) -> List[Connection]:
        """Change the number of connections that are kept.

        Returns:
            Those above the new number, to be closed by the caller.
        """
        self._most = config.most_idle
        return take_surplus(self, self._most)

    @property
    def is_full(self) -> bool:
        """Whether no more connections are kept."""
        return len(self._pool._idle_cache) >= self._most

    def take(self) -> Connection:
        """Take a stored connection; create an unconnected one if there is none."""
        # Without the wrapper of PooledDB.connection(), whose finalizer stores it again.
        try:
            handle = self._pool._idle_cache.pop()
        except IndexError:
            handle = self._pool.steady_connection()
        connection: Connection = handle._con
        # In this order, so that at no time each refers to the other.
        handle._con = None
        connection.handle = handle
        return connection

    def put(self, connection: Connection) -> None:
        """Store a connection, unless it is closed."""
        handle = connection.handle
        connection.handle = None
        if not connection.open:
            return
        connection.lifetime.last_used_at = time.monotonic()
        handle._con = connection
        # Not by PooledDB.cache(), which looks for a transaction to roll back.
        self._pool._idle_cache.append(handle)

    def oldest_at(self, budget: ServerBudget) -> Optional[float]:
        """Return since when the oldest connection to a server is stored, by
        time.monotonic(); None if there is none.
        """
        for _, connection in self._stored():
            if connection.budget is budget:
                return connection.lifetime.last_used_at
        return None

    def take_oldest(self, budget: Optional[ServerBudget] = None) -> Optional[Connection]:
        """Take the connection that has been idle for longest; None if there is none.

        Args:
            budget: That of the server that it is connected to; None for any.
        """
        for handle, connection in self._stored():
            if budget in (None, connection.budget) and self._remove(handle):
                return connection
        return None

    def count(self) -> int:
        """Return the number of connected ones."""
        return len(self._stored())

    def prune(self, before: float) -> List[Connection]:
        """Take the connections that have not been used since ``before``, by
        time.monotonic().
        """
        return self._take_all(lambda connection: connection.lifetime.last_used_at < before)

    def prune_retired(self) -> List[Connection]:
        """Take the connections whose host is no longer used."""
        return self._take_all(lambda connection: connection.retired)

    def _stored(self) -> List[Tuple[Any, Connection]]:
        """Return the connected ones with their handles, the oldest first."""
        listed = [(handle, handle._con) for handle in list(self._pool._idle_cache)]
        # A handle has None if its connection has been taken meanwhile.
        return [(handle, found) for handle, found in listed if found is not None and found.open]

    def _take_all(self, unwanted: Callable[[Connection], bool]) -> List[Connection]:
        return [
            connection
            for handle, connection in self._stored()
            if unwanted(connection) and self._remove(handle)
        ]

    def _remove(self, handle: Any) -> bool:
        """Remove a connection; return False if it has been taken meanwhile."""
        try:
            self._pool._idle_cache.remove(handle)
        except ValueError:
            return False
        return True
