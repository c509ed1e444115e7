"""Threads: PyMySQL connections, pooled by DBUtils. Only I/O lives here; what it decides by is in ``dualdb`` itself."""

from .service import DatabaseService, Lock, Merge, MySQLClient, Scatter, Stream, Target, Transaction

__all__ = ["DatabaseService", "Lock", "Merge", "MySQLClient", "Scatter", "Stream", "Target", "Transaction"]
