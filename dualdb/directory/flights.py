"""Lookups in progress, which callers who miss the same keys at the same time share."""

import threading
import weakref
from typing import Any, Dict, Iterable, List, Mapping, Optional

from ..execution.alongside import Completion


class Flight(Completion):
    """A lookup that one caller makes, and others wait for.

    Args:
        version: The version of the cache when it began.

    Attributes:
        version: The same.
        found: The shard ids by key; None while it lasts, and after it failed.
    """

    def __init__(self, version: int) -> None:
        super().__init__()
        self.version = version
        self.found: Optional[Mapping[Any, Optional[int]]] = None


class Flights:
    """The lookups in progress of one directory. They are held weakly: one whose caller
    was interrupted is forgotten.
    """

    def __init__(self) -> None:
        self.forked()

    def forked(self) -> None:
        """Forget the lookups of the parent process."""
        self._lock = threading.Lock()
        self._by_key: weakref.WeakValueDictionary[Any, Flight] = weakref.WeakValueDictionary()

    def join(self, keys: Iterable[Any], own: Flight) -> Dict[Flight, List[Any]]:
        """Return which lookups in progress have which of the keys. The others become
        part of ``own``.

        One that began before the cache was changed is not joined.
        """
        others: Dict[Flight, List[Any]] = {}
        with self._lock:
            for key in keys:
                flight = self._by_key.get(key)
                if flight is not None and flight.version == own.version:
                    others.setdefault(flight, []).append(key)
                else:
                    self._by_key[key] = own
        return others

    def finish(self, flight: Flight, keys: Iterable[Any]) -> None:
        """Remove a lookup that is over, and wake who waits for it."""
        with self._lock:
            for key in keys:
                if self._by_key.get(key) is flight:
                    del self._by_key[key]
        flight.end()
