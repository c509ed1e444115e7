"""The setting ``DUALDB``."""

from typing import Any, Callable, FrozenSet, Optional

from django.conf import settings
from django.utils.module_loading import import_string

from ...async_impl import DatabaseService as AsyncDatabaseService
from ...sync_impl import DatabaseService


def _option(name: str, default: object = None) -> Any:
    value = getattr(settings, "DUALDB", {}).get(name, default)
    return import_string(value) if isinstance(value, str) else value


def service() -> DatabaseService:
    """Return the service.

    Raises:
        TypeError: ``DUALDB["SERVICE"]`` is none.
    """
    found = _option("SERVICE")
    if not isinstance(found, DatabaseService):
        raise TypeError(
            'DUALDB["SERVICE"] must be a DatabaseService or its dotted path, '
            f"not {type(found).__name__}"
        )
    return found


def async_service() -> Optional[AsyncDatabaseService]:
    """Return the service of ``async def`` views, if there is one."""
    found: Optional[AsyncDatabaseService] = _option("ASYNC_SERVICE")
    return found


def session() -> Optional[Callable[[Any], Any]]:
    """Return the function that finds a request's client session."""
    found: Optional[Callable[[Any], Any]] = _option("SESSION")
    return found


def timeout() -> Optional[float]:
    """Return the seconds for all calls of one request together."""
    found: Optional[float] = _option("TIMEOUT")
    return found


def lock() -> bool:
    """Return whether calls to other shards than the session's are refused."""
    return bool(_option("LOCK", True))


def sharded_apps() -> FrozenSet[str]:
    """Return the labels of the applications whose models are on the shards."""
    return frozenset(getattr(settings, "DUALDB", {}).get("SHARDED_APPS", ()))
