"""Where the shards of keys come from: a lookup table, hash buckets, or a function."""

import dataclasses
import inspect
from typing import Any, Callable, Optional, Union

from . import keys
from .placement import Placement, check_placement

#: The longest times and largest sizes that make sense, and fit every clock.
_MOST_SECONDS = 31_536_000.0
_MOST_KEYS = 100_000_000


def _check_cache(ttl: object, negative_ttl: object, cache_size: object) -> None:
    for name, value in (("ttl", ttl), ("negative_ttl", negative_ttl)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
        if not 0 <= value <= _MOST_SECONDS:
            raise ValueError(f"{name} must be from 0 to {_MOST_SECONDS:.0f} seconds, not {value}")
    if isinstance(cache_size, bool) or not isinstance(cache_size, int):
        raise TypeError(f"cache_size must be an int, not {type(cache_size).__name__}")
    if not 1 <= cache_size <= _MOST_KEYS:
        raise ValueError(f"cache_size must be from 1 to {_MOST_KEYS}, not {cache_size}")


@dataclasses.dataclass(frozen=True)
class LookupTable:
    """A lookup table in the global database with the shard of each key.

    The defaults are the table of the original service, which needs no change:
    ``table_user_shard_mapping (account_db_key, shard_id)``. Further columns are
    allowed. ``assign`` needs a unique index on the key column.

    Args:
        table: The table, ``name`` or ``schema.name``.
        key_column: The column of the keys: an integer, text or binary type.
        shard_column: The column of the shard ids; NULL is the same as no row.
        placement: The shard of a new key: ``"least_loaded"`` by the number of keys for
            the weight of each shard, ``"weighted"``, ``"round_robin"``, or a function
            ``(key, candidates) -> shard_id`` (in asyncio also a coroutine function).
        ttl: Seconds that the shard of a key is cached.
        negative_ttl: Seconds that the absence of a key is cached.
        cache_size: The most keys in the cache.
        alias_table: The table of aliases, made by ``create_tables``.

    Raises:
        ValueError: A name, time, size or placement is invalid.

    Example:
        >>> DatabaseService(config, directory=LookupTable(placement="weighted"))
    """

    table: str = "table_user_shard_mapping"
    key_column: str = "account_db_key"
    shard_column: str = "shard_id"
    placement: Placement = "least_loaded"
    ttl: float = 60.0
    negative_ttl: float = 5.0
    cache_size: int = 100_000
    alias_table: str = "dualdb_key_alias"

    def __post_init__(self) -> None:
        keys.table_name(self.table, "table")
        keys.table_name(self.alias_table, "alias_table")
        keys.column_name(self.key_column, "key_column")
        keys.column_name(self.shard_column, "shard_column")
        check_placement(self.placement)
        _check_cache(self.ttl, self.negative_ttl, self.cache_size)


@dataclasses.dataclass(frozen=True)
class HashBuckets:
    """Each key belongs to one of many hash buckets, and a table of the global database
    names the shard of each bucket.

    The number of buckets can never be changed. ``create_tables`` makes the table and
    spreads the buckets over the shards by their weights; a bucket moves with
    ``set_bucket``.

    Args:
        buckets: How many, from 1 to 65,536.
        table: The table, ``name`` or ``schema.name``.
        ttl: Seconds that the shard of a bucket is cached.
        alias_table: The table of aliases, made by ``create_tables``.

    Raises:
        ValueError: A name, time or number is invalid.

    Example:
        >>> DatabaseService(config, directory=HashBuckets(4096))
    """

    buckets: int = 4096
    table: str = "dualdb_bucket"
    ttl: float = 60.0
    alias_table: str = "dualdb_key_alias"

    def __post_init__(self) -> None:
        if isinstance(self.buckets, bool) or not isinstance(self.buckets, int):
            raise TypeError(f"buckets must be an int, not {type(self.buckets).__name__}")
        if not 1 <= self.buckets <= 65_536:
            raise ValueError(f"buckets must be from 1 to 65536, not {self.buckets}")
        keys.table_name(self.table, "table")
        keys.table_name(self.alias_table, "alias_table")
        _check_cache(self.ttl, self.ttl, self.buckets)


@dataclasses.dataclass(frozen=True)
class KeyFunction:
    """A function that returns the shard of a key; ``shard_of_key=f`` is
    ``directory=KeyFunction(f)``.

    Args:
        function: From a key to a shard id, the same for the same key always. A plain
            function does no I/O. A coroutine function, for asyncio, may.
        batched: The function takes a list of keys and returns a mapping from key to
            shard id, or a list in the same order.
        ttl: Seconds that a result is cached; None not to cache.
        cache_size: The most keys in the cache.

    Raises:
        TypeError: ``function`` is not callable.

    Example:
        >>> async def shard_ids(keys): return await tenants.shards_of(keys)
        >>> AsyncDatabaseService(config, directory=KeyFunction(shard_ids, batched=True))
    """

    function: Callable[[Any], Any]
    batched: bool = False
    ttl: Optional[float] = None
    cache_size: int = 100_000

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"shard_of_key must be a function, not {type(self.function).__name__}")
        _check_cache(0.0 if self.ttl is None else self.ttl, 0.0, self.cache_size)

    @property
    def awaits(self) -> bool:
        """It is a coroutine function, or an object with an async ``__call__``."""
        call = getattr(self.function, "__call__", None)  # noqa: B004
        return inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(call)

    @property
    def immediate(self) -> bool:
        """It is a plain function that is neither batched nor cached."""
        return not (self.batched or self.awaits or self.ttl is not None)


Source = Union[LookupTable, HashBuckets, KeyFunction]
