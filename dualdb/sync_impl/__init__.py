"""Threads: PyMySQL connections, pooled by DBUtils.

Only I/O lives here; what it decides by is in ``dualdb`` itself.
"""

from .. import _load
from .client import MySQLClient, Target
from .coordination import DistributedTransaction
from .directory import Directory, Ids
from .lock import Lock
from .scatter import Merge, Scatter, ScatterReader
from .scope import Scope
from .service import DatabaseService
from .stream import Stream
from .transaction import Transaction

__all__ = [
    "DatabaseService",
    "Directory",
    "DistributedTransaction",
    "Ids",
    "Lock",
    "Merge",
    "MySQLClient",
    "Scatter",
    "ScatterReader",
    "Scope",
    "Stream",
    "Target",
    "Transaction",
]

_load()  # errors and results are shown under their public names from now on
