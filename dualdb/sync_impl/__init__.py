"""Threads: PyMySQL connections, pooled by DBUtils.

Only I/O lives here; what it decides by is in ``dualdb`` itself.
"""

from .client import MySQLClient, Target
from .lock import Lock
from .scatter import Merge, Scatter
from .service import DatabaseService
from .stream import Stream
from .transaction import Transaction

__all__ = [
    "DatabaseService",
    "Lock",
    "Merge",
    "MySQLClient",
    "Scatter",
    "Stream",
    "Target",
    "Transaction",
]
