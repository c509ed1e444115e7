"""Server error codes, grouped by meaning.

Names are those of the manuals: MySQL's "Server Error Message Reference" and "Client
Error Message Reference", MariaDB's "MariaDB Error Code Reference", TiDB's "Error Codes
and Troubleshooting". A comment names the engine if only one uses the code in this
meaning.
"""

from typing import FrozenSet

#: The server rolled back or refused to continue because of a conflict with another
#: transaction: the whole transaction can be repeated.
CONFLICT: FrozenSet[int] = frozenset(
    {
        1020,  # ER_CHECKREAD: MariaDB with innodb_snapshot_isolation
        1213,  # ER_LOCK_DEADLOCK; Galera: a conflict with another node, at COMMIT too
        1614,  # ER_XA_RBDEADLOCK
        3058,  # ER_USER_LOCK_DEADLOCK: of GET_LOCK
        3101,  # ER_TRANSACTION_ROLLBACK_DURING_COMMIT: MySQL, Group Replication
        8002,  # ErrWriteConflict of SELECT FOR UPDATE: TiDB
        8022,  # ErrTxnRetryable: TiDB
        8028,  # ErrInfoSchemaChanged: TiDB
        9007,  # ErrWriteConflict: TiDB
    }
)

#: A lock could not be acquired in time, or at once with NOWAIT.
LOCK_NOT_AVAILABLE: FrozenSet[int] = frozenset(
    {
        1205,  # ER_LOCK_WAIT_TIMEOUT; MariaDB: of NOWAIT, too
        3572,  # ER_LOCK_NOWAIT: MySQL
    }
)

#: The server or the transaction is read-only. Nothing was applied; at COMMIT,
#: everything was rolled back.
READ_ONLY: FrozenSet[int] = frozenset(
    {
        1290,  # ER_OPTION_PREVENTS_STATEMENT: read_only, super_read_only
        1792,  # ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION
        1836,  # ER_READ_ONLY_MODE
        1874,  # ER_INNODB_READ_ONLY
    }
)

#: Also sent for options other than read_only; the message names the option.
OPTION_PREVENTS_STATEMENT = 1290

#: The transaction is read-only, possibly because it was declared so.
READ_ONLY_TRANSACTION = 1792

#: The server is not in service. Nothing was applied.
NOT_IN_SERVICE: FrozenSet[int] = frozenset(
    {
        1047,  # ER_UNKNOWN_COM_ERROR: Galera, a node without a quorum
        3032,  # ER_SERVER_OFFLINE_MODE
        3100,  # ER_RUN_HOOK_ERROR: MySQL, Group Replication without a quorum
    }
)

#: The statement exceeds max_allowed_packet; the server closes the connection.
TOO_BIG: FrozenSet[int] = frozenset(
    {
        1153,  # ER_NET_PACKET_TOO_LARGE
        2020,  # CR_NET_PACKET_TOO_LARGE
    }
)
PACKET_TOO_LARGE = 1153

#: The server aborted the statement: KILL QUERY, or its statement time limit.
INTERRUPTED: FrozenSet[int] = frozenset(
    {
        1317,  # ER_QUERY_INTERRUPTED
        1969,  # ER_STATEMENT_TIMEOUT: MariaDB
        3024,  # ER_QUERY_TIMEOUT: MySQL
    }
)

#: COMMIT may or may not have been applied.
OUTCOME_UNKNOWN: FrozenSet[int] = frozenset({1180})  # ER_ERROR_DURING_COMMIT

#: The server does not support the requested feature.
NOT_SUPPORTED: FrozenSet[int] = frozenset({1235})  # ER_NOT_SUPPORTED_YET

#: Other temporary errors: nothing was applied, and the same may succeed later.
PASSING: FrozenSet[int] = frozenset(
    {
        1040,  # ER_CON_COUNT_ERROR
        1203,  # ER_TOO_MANY_USER_CONNECTIONS
        1226,  # ER_USER_LIMIT_REACHED
        1429,  # ER_CONNECT_TO_FOREIGN_DATA_SOURCE: MariaDB, a data node behind Spider
        3797,  # ER_GRP_TRX_CONSISTENCY_BEFORE: MySQL, Group Replication lags behind
    }
)

#: The connection is lost: codes of the client library, then codes that a server sends
#: before it closes a connection.
LOST: FrozenSet[int] = frozenset(
    {
        2006,  # CR_SERVER_GONE_ERROR
        2013,  # CR_SERVER_LOST
        2055,  # CR_SERVER_LOST_EXTENDED
        1053,  # ER_SERVER_SHUTDOWN
        1077,  # ER_NORMAL_SHUTDOWN
        1152,  # ER_ABORTING_CONNECTION
        *range(1154, 1162),  # ER_NET_READ_ERROR and the other network errors
        1927,  # ER_CONNECTION_KILLED: MariaDB
        4031,  # ER_CLIENT_INTERACTION_TIMEOUT: MySQL since 8.0.24
    }
)

#: Those with another meaning on MariaDB: ER_REFERENCED_TRG_DOES_NOT_EXIST.
LOST_ON_MYSQL_ALONE: FrozenSet[int] = frozenset({4031})

#: The server refused the account or the database: the shard table may have changed
#: since it was read.
DENIED: FrozenSet[int] = frozenset(
    {
        1044,  # ER_DBACCESS_DENIED_ERROR
        1045,  # ER_ACCESS_DENIED_ERROR
        1049,  # ER_BAD_DB_ERROR
        1698,  # ER_ACCESS_DENIED_NO_PASSWORD_ERROR
    }
)

#: A connect that failed with one of these did not reach a responding server.
UNREACHABLE: FrozenSet[int] = frozenset(
    {
        2002,  # CR_CONNECTION_ERROR
        2003,  # CR_CONN_HOST_ERROR
        2005,  # CR_UNKNOWN_HOST
        2006,
        2013,
        2055,
        1053,
        1077,
        1129,  # ER_HOST_IS_BLOCKED
    }
)

#: A connect that failed with one of these can be retried: the host may come up, or a
#: connection slot may become free.
TRANSIENT_CONNECT: FrozenSet[int] = (UNREACHABLE - {1129}) | {1040, 1203, 3032}

#: The account may not read a table or column (ER_TABLEACCESS_DENIED_ERROR,
#: ER_COLUMNACCESS_DENIED_ERROR).
TABLE_DENIED: FrozenSet[int] = frozenset({1142, 1143})

#: There is no such table, or none that the account may know of.
NO_TABLE_TO_READ: FrozenSet[int] = TABLE_DENIED | {1146}

#: TiDB: its storage nodes or its placement driver are not reachable for now; nothing
#: was applied.
TIDB_BACKOFF: FrozenSet[int] = frozenset(
    {
        9001,  # ErrPDServerTimeout
        9002,  # ErrTiKVServerTimeout
        9003,  # ErrTiKVServerBusy
        9004,  # ErrResolveLockTimeout
        9005,  # ErrRegionUnavailable
        9006,  # ErrGCTooEarly
    }
)

#: An OUT or INOUT argument of a procedure is not a variable; raised before the
#: procedure's body runs (ER_SP_NOT_VAR_ARG).
NOT_A_VARIABLE = 1414

#: KILL failed because the session has ended (ER_NO_SUCH_THREAD), or because it runs a
#: procedure with another user's rights (ER_KILL_DENIED_ERROR).
NO_SUCH_THREAD = 1094
NOT_OWNER = 1095

#: ER_NO_SUCH_TABLE, ER_BAD_FIELD_ERROR, ER_SP_DOES_NOT_EXIST
NO_SUCH_TABLE = 1146
NO_SUCH_COLUMN = 1054
NO_SUCH_SAVEPOINT = 1305

#: A command does not fit the state of the session's XA transaction; also after the
#: server has rolled it back.
XA_STATE: FrozenSet[int] = frozenset(
    {
        1399,  # ER_XAER_RMFAIL
        1402,  # ER_XA_RBROLLBACK
        1613,  # ER_XA_RBTIMEOUT
        1614,  # ER_XA_RBDEADLOCK
    }
)

#: What the triggers of a tenant that is being moved, or has been, refuse a write with:
#: a code above those of the servers. A procedure of the application's may signal it,
#: too; the text tells them apart.
TENANT_FENCED = 31001

#: Codes for which ``Error.retryable`` is True.
RETRYABLE: FrozenSet[int] = CONFLICT | LOCK_NOT_AVAILABLE | PASSING | TIDB_BACKOFF
