"""A router for sharded MySQL and MariaDB, for threads and for asyncio.

>>> from dualdb import AsyncDatabaseService, DatabaseConfig, DatabaseService
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
from .observability.events import Event, PoolEvent, QueryEvent, TransactionEvent
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

if TYPE_CHECKING:
    from .async_impl import DatabaseService as AsyncDatabaseService
    from .async_impl import MySQLClient as AsyncMySQLClient

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

_ASYNCIO = {"AsyncDatabaseService": "DatabaseService", "AsyncMySQLClient": "MySQLClient"}


def _show_as_public(name: str, value: object) -> None:
    """Give a public class its public name in tracebacks, logs and pickles."""
    if isinstance(value, type) and value.__module__.startswith("dualdb."):
        value.__module__ = __name__
        value.__name__ = name
        value.__qualname__ = name


def __getattr__(name: str) -> Any:
    """Import the asyncio classes on first access, so that threaded programs do not pay
    for them.
    """
    if name != "async_impl" and name not in _ASYNCIO:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(".async_impl", __name__)
    if name == "async_impl":
        return module
    found = globals()[name] = getattr(module, _ASYNCIO[name])
    _show_as_public(name, found)
    return found


for _name in set(__all__) - set(_ASYNCIO):
    _show_as_public(_name, globals()[_name])
