"""A deque as the store of idle connections."""

import time
from collections import deque
from typing import Deque, List, Optional

from ..config import DatabaseConfig
from ..pooling.base import take_surplus
from ..pooling.server_budget import ServerBudget
from .connection import Connection


class IdleStore:
    """Stores idle connections; the last one returned is used first.

    Args:
        config: How many are kept.
    """

    def __init__(self, config: DatabaseConfig) -> None:
        self._idle: Deque[Connection] = deque()
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
        return len(self._idle) >= self._most

    def take(self) -> Optional[Connection]:
        """Take a stored connection; None if there is none."""
        return self._idle.pop() if self._idle else None

    def put(self, connection: Connection) -> None:
        """Store a connection."""
        connection.lifetime.last_used_at = time.monotonic()
        self._idle.append(connection)

    def oldest_at(self, budget: ServerBudget) -> Optional[float]:
        """Return since when the oldest connection to a server is stored, by
        time.monotonic(); None if there is none. May be called in any thread.
        """
        for connection in self._idle.copy():
            if connection.budget is budget:
                return connection.lifetime.last_used_at
        return None

    def take_oldest(self, budget: Optional[ServerBudget] = None) -> Optional[Connection]:
        """Take the connection that has been idle for longest; None if there is none.

        Args:
            budget: That of the server that it is connected to; None for any.
        """
        for connection in self._idle:
            if budget in (None, connection.budget):
                self._idle.remove(connection)
                return connection
        return None

    def count(self) -> int:
        """Return the number of connections."""
        return len(self._idle)

    def prune(self, before: float) -> List[Connection]:
        """Take the connections that have not been used since ``before``, by
        time.monotonic().
        """
        old: List[Connection] = []
        while self._idle and self._idle[0].lifetime.last_used_at < before:
            old.append(self._idle.popleft())
        return old

    def prune_retired(self) -> List[Connection]:
        """Take the connections whose host is no longer used."""
        retired = [connection for connection in self._idle if connection.retired]
        for connection in retired:
            self._idle.remove(connection)
        return retired
