"""The setting ``DATABASES``, from the shard map."""

import re
from typing import Any, Dict, Iterator, Optional

from ...sync_impl import DatabaseService

ENGINE = "dualdb.integrations.django.backend"
DEFAULT = "default"

_ALIAS = re.compile(r"shard_(-?\d+)")


def alias_of(shard_id: Optional[int]) -> str:
    """Return Django's alias of a shard: ``shard_2``; ``default`` for None.

    Args:
        shard_id: The shard; None for the global database.
    """
    return DEFAULT if shard_id is None else f"shard_{shard_id}"


def shard_of(alias: str) -> Optional[int]:
    """Return the shard of an alias; None for ``default``.

    Args:
        alias: The alias.

    Raises:
        KeyError: It is neither.
    """
    if alias == DEFAULT:
        return None
    found = _ALIAS.fullmatch(alias)
    if found is None:
        raise KeyError(alias)
    return int(found[1])


class ShardDatabases(Dict[str, Dict[str, Any]]):
    """Has each shard as ``shard_2`` as soon as somebody asks for it, whether it was in
    the shard table when the process began or not.
    """

    def __contains__(self, alias: object) -> bool:
        return isinstance(alias, str) and (alias == DEFAULT or _ALIAS.fullmatch(alias) is not None)

    def __missing__(self, alias: str) -> Dict[str, Any]:
        shard_of(alias)
        # Django has completed the settings of "default" by then.
        made = {**self[DEFAULT], "TEST": dict(self[DEFAULT].get("TEST", {}))}
        return self.setdefault(alias, made)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self.keys()))  # another thread may add a shard meanwhile


def databases(service: DatabaseService, **settings: Any) -> ShardDatabases:
    """Make the setting ``DATABASES``.

    Its connections are those of the service's pools, so that it has neither addresses
    nor passwords.

    Args:
        service: The service.
        settings: Of each database, such as ``OPTIONS``.

    Returns:
        ``default``, which is the global database, and ``shard_N`` for each shard.

    Example:
        >>> DATABASES = databases(db)
    """
    name = service.global_config.database
    return ShardDatabases({DEFAULT: {"ENGINE": ENGINE, "NAME": name, **settings}})
