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
    DatabaseError,
    DataError,
    DeadlineExceeded,
    Deadlock,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    LockWaitTimeout,
    NotSupportedError,
    OperationalError,
    OutcomeUnknown,
    ParameterError,
    PoolTimeout,
    ProgrammingError,
    ReadOnlyServer,
    RoutingError,
    ServiceNotOpen,
    ShardNotFound,
    ShardUnavailable,
    StatementInterrupted,
    TransactionAborted,
    WriteTimedOut,
)
from .pool import PoolStats
from .results import CallResult, ResultSet, Row, RowCount
from .sql import InOut, Out, Params
from .sync_impl import DatabaseService, MySQLClient

__version__ = "0.1.0"

__all__ = [
    "AsyncDatabaseService",
    "AsyncMySQLClient",
    "CallResult",
    "ConcurrentUseError",
    "ConnectionFailed",
    "ConnectionLost",
    "DataError",
    "DatabaseConfig",
    "DatabaseError",
    "DatabaseService",
    "DeadlineExceeded",
    "Deadlock",
    "Error",
    "InOut",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "LockWaitTimeout",
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
    "ServiceNotOpen",
    "ShardNotFound",
    "ShardUnavailable",
    "StatementInterrupted",
    "TransactionAborted",
    "WriteTimedOut",
]
