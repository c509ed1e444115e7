"""The shards of keys that were looked up, for a while."""

import threading
import time
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

#: Above this the oldest tenth is dropped at once, so that a full cache does not pay for
#: each new key.
_EVICTED = 10


class Entry(NamedTuple):
    """What a lookup gave: ``shard_id`` is None for a key that has no shard.

    ``at`` is when the lookup began, ``expires`` until when it holds, both by the clock
    of the cache.
    """

    shard_id: Optional[int]
    at: float
    expires: float


class KeyCache:
    """A bounded map from keys to shards whose entries expire.

    An expired entry stays until it is replaced or evicted, because it is better than
    nothing while the table cannot be read (``stale``). A key that has no shard is
    remembered for a shorter time.

    Args:
        ttl: Seconds that an answer holds.
        negative_ttl: Seconds that "this key has no shard" holds.
        size: The most keys that are kept; the oldest are dropped first.
        clock: Gives the time, in seconds.
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
        #: Grows with each change that makes lookups in progress worthless.
        self.version = 0
        self.forked()

    def forked(self) -> None:
        """As in a process where no other thread holds the lock."""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: object) -> Optional[Entry]:
        """The entry of a key if it still holds."""
        entry = self._entries.get(key)
        return entry if entry is not None and self.clock() < entry.expires else None

    def stale(self, key: object) -> Optional[Entry]:
        """The entry of a key, however old, if it names a shard."""
        entry = self._entries.get(key)
        return entry if entry is not None and entry.shard_id is not None else None

    def put(self, found: Mapping[Any, Optional[int]], began: float, version: int) -> None:
        """Keep what a lookup gave that began at ``began``, when the cache had this
        ``version``; nothing if it was changed since.
        """
        with self._lock:
            if version != self.version:
                return
            for key, shard_id in found.items():
                ttl = self._negative_ttl if shard_id is None else self._ttl
                # at the end again, so that the order is that of their age
                self._entries.pop(key, None)
                self._entries[key] = Entry(shard_id, began, began + ttl)
            if len(self._entries) > self._size:
                self._evict()

    def _evict(self) -> None:
        surplus = len(self._entries) - self._size + self._size // _EVICTED
        for key in list(self._entries)[:surplus]:
            del self._entries[key]

    def assigned(self, key: object, shard_id: int) -> None:
        """A key has been given a shard: no key is known to have none any more, because
        one key can have several spellings under the collation of its column.
        """
        with self._lock:
            self.version += 1
            now = self.clock()
            self._entries = {
                key: entry for key, entry in self._entries.items() if entry.shard_id is not None
            }
            self._entries[key] = Entry(shard_id, now, now + self._ttl)

    def clear(self) -> None:
        """Forget everything, also what is being looked up now."""
        with self._lock:
            self.version += 1
            self._entries = {}


def split(cache: KeyCache, keys: Iterable[Any]) -> Tuple[Dict[Any, Optional[int]], List[Any]]:
    """What the cache knows of these keys, and those that must be looked up."""
    known: Dict[Any, Optional[int]] = {}
    missing: List[Any] = []
    for key in keys:
        entry = cache.get(key)
        if entry is None:
            missing.append(key)
        else:
            known[key] = entry.shard_id
    return known, missing
