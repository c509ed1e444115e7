"""A router for sharded MySQL and MariaDB, for threads and for asyncio.

>>> from dualdb import AsyncDatabaseService, DatabaseConfig, DatabaseService
"""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, FrozenSet, List

if TYPE_CHECKING:
    from .async_impl import DatabaseService as AsyncDatabaseService
    from .async_impl import MySQLClient as AsyncMySQLClient
    from .config import DatabaseConfig
    from .coordination.outbox import OutboxEvent, OutboxTable
    from .directory.explain import RouteExplanation, RouteReason
    from .directory.ids import IdLayout
    from .directory.placement import Candidate
    from .directory.sources import HashBuckets, KeyFunction, LookupTable
    from .errors import (
        ClockMovedBack,
        ConcurrentUseError,
        ConnectionFailed,
        ConnectionLost,
        CrossShardError,
        DatabaseError,
        DataError,
        DeadlineExceeded,
        Deadlock,
        Error,
        IntegrityError,
        InterfaceError,
        InternalError,
        KeyNotFound,
        LockLost,
        LockNotAvailable,
        LockWaitTimeout,
        NoPrimary,
        NotPrimary,
        NotReady,
        NotSupportedByEngine,
        NotSupportedError,
        OperationalError,
        OutcomeUnknown,
        Overloaded,
        PacketTooLarge,
        ParameterError,
        PartialCommitError,
        PoolTimeout,
        ProgrammingError,
        ReadOnlyServer,
        ReadOnlyTargetError,
        Rollback,
        RoutingError,
        RowError,
        ScatterError,
        ServiceNotOpen,
        ShardNotFound,
        ShardReadOnly,
        ShardUnavailable,
        StaleMap,
        StatementInterrupted,
        SyncInLoopWarning,
        TenantFenced,
        TooManyRows,
        TransactionAborted,
        UndecodableText,
        WriteTimedOut,
    )
    from .observability.digests import DigestStats
    from .observability.events import (
        CoordinationEvent,
        Event,
        PoolEvent,
        QueryEvent,
        TransactionEvent,
    )
    from .observability.health import DatabaseHealth, HealthReport
    from .observability.query_call import QueryCall
    from .pooling.base import PoolStats
    from .pooling.server_budget import ServerStats
    from .results import CallResult, ResultSet, Row, RowCount, ScatterResult
    from .sharding.aggregates import Aggregate, Avg, Count, Max, Min, Sum
    from .sql.parameters import InOut, Out, Params
    from .sync_impl import DatabaseService, MySQLClient
    from .topology.admin import DrainReport
    from .topology.replicas import ReplicaOptions, ReplicaStatus
    from .topology.routing import ClientSession
    from .topology.status import ServiceStats, ServiceStatus, ShardStatus

__version__ = "0.1.0"

__all__ = [
    "Aggregate",
    "AsyncDatabaseService",
    "AsyncMySQLClient",
    "Avg",
    "CallResult",
    "Candidate",
    "ClientSession",
    "ClockMovedBack",
    "ConcurrentUseError",
    "ConnectionFailed",
    "ConnectionLost",
    "CoordinationEvent",
    "Count",
    "CrossShardError",
    "DataError",
    "DatabaseConfig",
    "DatabaseError",
    "DatabaseHealth",
    "DatabaseService",
    "DeadlineExceeded",
    "Deadlock",
    "DigestStats",
    "DrainReport",
    "Error",
    "Event",
    "HashBuckets",
    "HealthReport",
    "IdLayout",
    "InOut",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "KeyFunction",
    "KeyNotFound",
    "LockLost",
    "LockNotAvailable",
    "LockWaitTimeout",
    "LookupTable",
    "Max",
    "Min",
    "MySQLClient",
    "NoPrimary",
    "NotPrimary",
    "NotReady",
    "NotSupportedByEngine",
    "NotSupportedError",
    "OperationalError",
    "Out",
    "OutboxEvent",
    "OutboxTable",
    "OutcomeUnknown",
    "Overloaded",
    "PacketTooLarge",
    "ParameterError",
    "Params",
    "PartialCommitError",
    "PoolEvent",
    "PoolStats",
    "PoolTimeout",
    "ProgrammingError",
    "QueryCall",
    "QueryEvent",
    "ReadOnlyServer",
    "ReadOnlyTargetError",
    "ReplicaOptions",
    "ReplicaStatus",
    "ResultSet",
    "Rollback",
    "RouteExplanation",
    "RouteReason",
    "RoutingError",
    "Row",
    "RowCount",
    "RowError",
    "ScatterError",
    "ScatterResult",
    "ServerStats",
    "ServiceNotOpen",
    "ServiceStats",
    "ServiceStatus",
    "ShardNotFound",
    "ShardReadOnly",
    "ShardStatus",
    "ShardUnavailable",
    "StaleMap",
    "StatementInterrupted",
    "Sum",
    "SyncInLoopWarning",
    "TenantFenced",
    "TooManyRows",
    "TransactionAborted",
    "TransactionEvent",
    "UndecodableText",
    "WriteTimedOut",
]

#: The modules that have the public names.
_HOMES = (
    "config",
    "coordination.outbox",
    "directory.explain",
    "directory.ids",
    "directory.placement",
    "directory.sources",
    "errors",
    "observability.digests",
    "observability.events",
    "observability.health",
    "observability.query_call",
    "pooling.base",
    "pooling.server_budget",
    "results",
    "sharding.aggregates",
    "sql.parameters",
    "sync_impl",
    "topology.admin",
    "topology.replicas",
    "topology.routing",
    "topology.status",
)

#: Public names that are imported only when they are asked for.
_ASYNCIO = {"AsyncDatabaseService": "DatabaseService", "AsyncMySQLClient": "MySQLClient"}


def _show_as_public(name: str, value: object) -> None:
    """Give a public class its public name in tracebacks, logs and pickles."""
    if isinstance(value, type) and value.__module__.startswith("dualdb."):
        value.__module__ = __name__
        value.__name__ = name
        value.__qualname__ = name


def _load() -> None:
    """Import what has public names, and show them as public.

    Called for the first name, and by both implementations, so that no error is raised
    under another name.
    """
    public = set(__all__) - set(_ASYNCIO)
    for home in _HOMES:
        found = vars(import_module(f".{home}", __name__))
        for name in public & set(found):
            globals()[name] = found[name]
            _show_as_public(name, found[name])


def _load_asyncio(name: str) -> object:
    """Import asyncio's classes, so that threaded programs do not pay for them."""
    found = globals()[name] = getattr(import_module(".async_impl", __name__), _ASYNCIO[name])
    _show_as_public(name, found)
    return found


def _submodule(name: str) -> object:
    """Import ``dualdb.name``, which need not have been imported to be an attribute.

    A name that is no module of the package is not tried: whoever asks ``hasattr`` again
    and again must not wait for the import lock.
    """
    if name not in _modules():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f".{name}", __name__)


@cache
def _modules() -> FrozenSet[str]:
    return frozenset(found.name for found in iter_modules(__path__))


def __getattr__(name: str) -> Any:
    """Import the package for the first name that is asked for: ``import dualdb`` alone
    is quick.
    """
    if name in _ASYNCIO:
        return _load_asyncio(name)
    if name not in __all__:
        return _submodule(name)
    _load()
    return globals()[name]


def __dir__() -> List[str]:
    return sorted({*globals(), *__all__})
