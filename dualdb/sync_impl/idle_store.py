"""DBUtils' pool as the store of idle connections."""

from typing import List

from dbutils.pooled_db import PooledDB

from ..config import DatabaseConfig
from .connection import Connection


class _NeverRaised(Exception):
    """Given to DBUtils as the failures after which it repeats a statement: there are
    none.
    """


class IdleStore(PooledDB):  # type: ignore[misc]
    """DBUtils' pool as the place where idle connections rest.

    Without ping, reset, usage limit or replay, and with connections that are made
    unconnected, it does no I/O under its lock.
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

    def count(self) -> int:
        return sum(stored._con.open for stored in list(self._idle_cache))

    def take_idle(self, before: float) -> List[Connection]:
        """Those that have not been used since ``before``, taken out of the store."""
        with self._lock:
            old = [
                stored
                for stored in self._idle_cache
                if stored._con.open and stored._con.last_used_at < before
            ]
            for stored in old:
                self._idle_cache.remove(stored)
        return [stored._con for stored in old]
