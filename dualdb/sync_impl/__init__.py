"""Threads: PyMySQL connections, pooled by DBUtils. Only I/O lives here; what it decides by is in ``dualdb`` itself."""

from .service import DatabaseService, MySQLClient, Target, Transaction

__all__ = ["DatabaseService", "MySQLClient", "Target", "Transaction"]
