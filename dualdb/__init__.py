"""One router for a sharded MySQL or MariaDB, with two faces: threads and asyncio.

>>> from dualdb import AsyncDatabaseService, DatabaseConfig, DatabaseService
"""

from .async_impl import DatabaseService as AsyncDatabaseService
from .async_impl import MySQLClient as AsyncMySQLClient
from .config import DatabaseConfig
from .errors import (
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
    LockLost,
    LockNotAvailable,
    LockWaitTimeout,
    NotSupportedError,
    OperationalError,
    OutcomeUnknown,
    ParameterError,
    PoolTimeout,
    ProgrammingError,
    ReadOnlyServer,
    RoutingError,
    RowError,
    ScatterError,
    ServiceNotOpen,
    ShardNotFound,
    ShardReadOnly,
    ShardUnavailable,
    StatementInterrupted,
    TooManyRows,
    TransactionAborted,
    WriteTimedOut,
)
from .pooling.base import PoolStats
from .results import CallResult, ResultSet, Row, RowCount, ScatterResult
from .sharding.aggregates import Aggregate, Avg, Count, Max, Min, Sum
from .sql.parameters import InOut, Out, Params
from .sync_impl import DatabaseService, MySQLClient
from .topology.admin import DrainReport
from .topology.status import Event, ServiceStatus, ShardStatus

__version__ = "0.1.0"

__all__ = [
    "Aggregate",
    "AsyncDatabaseService",
    "AsyncMySQLClient",
    "Avg",
    "CallResult",
    "ConcurrentUseError",
    "ConnectionFailed",
    "ConnectionLost",
    "Count",
    "CrossShardError",
    "DataError",
    "DatabaseConfig",
    "DatabaseError",
    "DatabaseService",
    "DeadlineExceeded",
    "Deadlock",
    "DrainReport",
    "Error",
    "Event",
    "InOut",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "LockLost",
    "LockNotAvailable",
    "LockWaitTimeout",
    "Max",
    "Min",
    "MySQLClient",
    "NotSupportedError",
    "OperationalError",
    "Out",
    "OutcomeUnknown",
    "ParameterError",
    "Params",
    "PoolStats",
    "PoolTimeout",
    "ProgrammingError",
    "ReadOnlyServer",
    "ResultSet",
    "RoutingError",
    "Row",
    "RowCount",
    "RowError",
    "ScatterError",
    "ScatterResult",
    "ServiceNotOpen",
    "ServiceStatus",
    "ShardNotFound",
    "ShardReadOnly",
    "ShardStatus",
    "ShardUnavailable",
    "StatementInterrupted",
    "Sum",
    "TooManyRows",
    "TransactionAborted",
    "WriteTimedOut",
]
