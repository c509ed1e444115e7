"""A deque as the store of idle connections."""

import time
from collections import deque
from typing import Deque, List, Optional

from ..config import DatabaseConfig
from ..pooling.base import take_surplus
from .connection import Connection


class IdleStore:
    """Where idle connections are kept; the last to come back is the first to be used.

    Args:
        config: How many are kept.
    """

    def __init__(self, config: DatabaseConfig) -> None:
        self._idle: Deque[Connection] = deque()
        self._most = config.most_idle

    def resize(self, config: DatabaseConfig) -> List[Connection]:
        """Keep another number of connections.

        Returns:
            Those that are not kept any more, to be closed.
        """
        self._most = config.most_idle
        return take_surplus(self, self._most)

    @property
    def is_full(self) -> bool:
        """No more are kept."""
        return len(self._idle) >= self._most

    def take(self) -> Optional[Connection]:
        """One of the store's; None where there is none."""
        return self._idle.pop() if self._idle else None

    def put(self, connection: Connection) -> None:
        """Keep a connection until it is taken."""
        connection.lifetime.last_used_at = time.monotonic()
        self._idle.append(connection)

    def oldest_at(self) -> Optional[float]:
        """Since when the oldest is here, by time.monotonic(); None if there is none."""
        try:
            return self._idle[0].lifetime.last_used_at
        except IndexError:  # taken meanwhile, by its own thread
            return None

    def take_oldest(self) -> Optional[Connection]:
        """The connection that has been idle for longest, taken out of the store; None
        if there is none.
        """
        return self._idle.popleft() if self._idle else None

    def count(self) -> int:
        """How many there are."""
        return len(self._idle)

    def prune(self, before: float) -> List[Connection]:
        """Those that have not been used since ``before``, by time.monotonic(); they are
        taken out of the store.
        """
        old: List[Connection] = []
        while self._idle and self._idle[0].lifetime.last_used_at < before:
            old.append(self._idle.popleft())
        return old

    def prune_retired(self) -> List[Connection]:
        """Those whose host is no longer used; they are taken out of the store."""
        retired = [connection for connection in self._idle if connection.retired]
        for connection in retired:
            self._idle.remove(connection)
        return retired
