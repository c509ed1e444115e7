"""The shards of keys, as the service knows them."""

from typing import Any, Dict, Optional, Sequence

from .. import errors
from ..api.interfaces import internals_of
from ..execution import steps


def shards_of(
    service: Any, keys: Sequence[Any], *, fresh: bool = False
) -> steps.Plan[Dict[Any, Optional[int]]]:
    """The shard id of each key, None for a key that has none.

    Args:
        service: The open service.
        keys: The keys.
        fresh: Ask again for what is cached.

    Raises:
        ParameterError: The service does not know the shards of keys.
    """
    directory = internals_of(service).directory
    if directory is None:
        raise errors.ParameterError(
            "the service does not know the shards of keys: give it directory or shard_of_key"
        )
    found: Dict[Any, Optional[int]] = yield from directory.resolve(keys, None, fresh=fresh)
    return found


def counts(service: Any) -> steps.Plan[Dict[int, int]]:
    """The number of keys, or of hash buckets, on each shard; see ``key_counts``."""
    directory = internals_of(service).directory
    if directory is None:
        return {}
    found: Dict[int, int] = yield from directory.counts()
    return found
