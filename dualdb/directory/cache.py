"""A cache of the shards of keys."""

import threading
import time
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

#: A full cache evicts one part in this many at once, so that not every new key pays for
#: an eviction.
_EVICTED = 10


class Entry(NamedTuple):
    """The result of a lookup.

    Attributes:
        shard_id: The shard's id; None for a key that has no shard.
        at: When the lookup began, by the clock of the cache.
        expires: When the entry expires, by the clock of the cache.
    """

    shard_id: Optional[int]
    at: float
    expires: float


class KeyCache:
    """A bounded map from keys to shards whose entries expire.

    Expired entries are kept until they are replaced or evicted, as a fallback while the
    table cannot be read (``stale``).

    Args:
        ttl: Seconds until the entry of a key with a shard expires.
        negative_ttl: Seconds until the entry of a key without a shard expires.
        size: The most keys; the oldest are evicted first.
        clock: Returns seconds.
    """

    def __init__(
        self,
        ttl: float,
        negative_ttl: float,
        size: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ttl = ttl
        self._negative_ttl = negative_ttl
        self._size = size
        self.clock = clock
        self._entries: Dict[Any, Entry] = {}
        #: Incremented by each change that invalidates lookups in progress.
        self.version = 0
        self.forked()

    def forked(self) -> None:
        """Replace the lock in a forked child."""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: object) -> Optional[Entry]:
        """Return the entry of a key if it has not expired."""
        entry = self._entries.get(key)
        return entry if entry is not None and self.clock() < entry.expires else None

    def stale(self, key: object) -> Optional[Entry]:
        """Return the entry of a key, even if it has expired, if it has a shard."""
        entry = self._entries.get(key)
        return entry if entry is not None and entry.shard_id is not None else None

    def put(self, found: Mapping[Any, Optional[int]], began: float, version: int) -> None:
        """Store the results of a lookup, unless the cache was changed since it began.

        Args:
            found: The shard ids by key; None for a key without a shard.
            began: When the lookup began, by the clock of the cache.
            version: The ``version`` of the cache at that time.
        """
        with self._lock:
            if version != self.version:
                return
            for key, shard_id in found.items():
                ttl = self._negative_ttl if shard_id is None else self._ttl
                # moved to the end, so that entries are ordered by age
                self._entries.pop(key, None)
                self._entries[key] = Entry(shard_id, began, began + ttl)
            if len(self._entries) > self._size:
                self._evict()

    def _evict(self) -> None:
        surplus = len(self._entries) - self._size + self._size // _EVICTED
        for key in list(self._entries)[:surplus]:
            del self._entries[key]

    def assigned(self, key: object, shard_id: int) -> None:
        """Store the shard of a newly assigned key.

        All negative entries are removed, because the key may be cached in another
        spelling that is equal under the collation of its column.
        """
        with self._lock:
            self.version += 1
            now = self.clock()
            self._entries = {
                key: entry for key, entry in self._entries.items() if entry.shard_id is not None
            }
            self._entries[key] = Entry(shard_id, now, now + self._ttl)

    def clear(self) -> None:
        """Remove all entries, and discard the results of lookups in progress."""
        with self._lock:
            self.version += 1
            self._entries = {}


def split(cache: KeyCache, keys: Iterable[Any]) -> Tuple[Dict[Any, Optional[int]], List[Any]]:
    """Return the cached shards of keys, and the keys that must be looked up."""
    known: Dict[Any, Optional[int]] = {}
    missing: List[Any] = []
    for key in keys:
        entry = cache.get(key)
        if entry is None:
            missing.append(key)
        else:
            known[key] = entry.shard_id
    return known, missing
