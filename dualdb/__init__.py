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
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    OutcomeUnknown,
    ParameterError,
    PoolTimeout,
    ProgrammingError,
    RoutingError,
    ServiceNotOpen,
    ShardNotFound,
    ShardUnavailable,
    TransactionAborted,
)
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
    "Error",
    "InOut",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "MySQLClient",
    "NotSupportedError",
    "OperationalError",
    "Out",
    "OutcomeUnknown",
    "ParameterError",
    "Params",
    "PoolTimeout",
    "ProgrammingError",
    "ResultSet",
    "RoutingError",
    "Row",
    "RowCount",
    "ServiceNotOpen",
    "ShardNotFound",
    "ShardUnavailable",
    "TransactionAborted",
]
