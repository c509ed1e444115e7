"""Engine profiles: what a kind of server can do, and how.

Sources: MySQL 8.4 manual ("Group Replication Requirements and Limitations"), MariaDB
documentation ("MariaDB Galera Cluster - Known Limitations"), TiDB documentation ("MySQL
Compatibility", "Error Codes and Troubleshooting"), Vitess documentation ("MySQL
Compatibility"), ProxySQL documentation ("Multiplexing").
"""

from types import MappingProxyType
from typing import FrozenSet, Mapping, NamedTuple, Optional, Tuple

from .. import error_codes, errors
from ..config import Engine

#: What a profile is asked for, and how a message names it.
FEATURES = MappingProxyType(
    {
        "xa": "XA transactions",
        "procedures": "stored procedures",
        "out_parameters": "OUT parameters of stored procedures",
        "savepoints": "savepoints",
        "get_lock": "GET_LOCK that excludes every other client",
        "statement_timeout": "a time limit of its own for a statement",
        "kill": "ending a session by its lock",
        "session_tracking": "reporting changes of a session",
        "causal_reads": "waiting until a write of another session is visible",
    }
)


class EngineProfile(NamedTuple):
    """What one kind of server can do.

    Attributes:
        name: The engine.
        xa: XA transactions.
        procedures: Stored procedures.
        out_parameters: OUT parameters of procedures, read back on the same connection.
        savepoints: Savepoints, and so nested transactions.
        get_lock: GET_LOCK excludes every client of the database, not only those of one
            server.
        row_locks: Advisory locks are leases in a table, because GET_LOCK does not
            exclude every client.
        statement_timeout: The session variable that limits a statement's time:
            "max_statement_time" in seconds, or "max_execution_time" in milliseconds,
            for reads only; None if there is none.
        kill: ``KILL IS_USED_LOCK(...)`` ends exactly the session that is meant. Without
            it no KILL is sent, and the connection is closed.
        session_tracking: OK packets report changes of the session.
        causal_reads: How a read waits for a write: "gtid" (WAIT_FOR_EXECUTED_GTID_SET),
            "mariadb_gtid" (MASTER_GTID_WAIT), "wsrep" (wsrep_sync_wait), "always" if
            every read sees every acknowledged write; None if it cannot.
        many_primaries: Every member in service accepts writes.
        plain_sessions: A session is set up by the character set, autocommit and the
            configuration's settings alone: other statements would fail, or would tie
            the session to one server behind a proxy.
        retryable: Codes after which the same transaction may be repeated, beyond those
            of every engine.
    """

    name: Engine
    xa: bool = True
    procedures: bool = True
    out_parameters: bool = True
    savepoints: bool = True
    get_lock: bool = True
    row_locks: bool = False
    statement_timeout: Optional[str] = None
    kill: bool = True
    session_tracking: bool = True
    causal_reads: Optional[str] = None
    many_primaries: bool = False
    plain_sessions: bool = False
    retryable: FrozenSet[int] = frozenset()

    def can(self, feature: str) -> bool:
        """Return whether the engine has a feature of ``FEATURES``."""
        assert feature in FEATURES, feature
        return bool(getattr(self, feature))

    def require(self, feature: str) -> None:
        """Check that the engine has a feature, before anything is sent.

        Args:
            feature: A key of ``FEATURES``.

        Raises:
            NotSupportedByEngine: It does not.
        """
        if not self.can(feature):
            raise errors.not_supported_by_engine(feature, FEATURES[feature], self.name)


_MYSQL = EngineProfile("mysql", statement_timeout="max_execution_time", causal_reads="gtid")
_MARIADB = EngineProfile(
    "mariadb", statement_timeout="max_statement_time", causal_reads="mariadb_gtid"
)

#: By name; "auto" is not one of them.
PROFILES: Mapping[str, EngineProfile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            _MYSQL,
            _MARIADB,
            # XA is not replicated, and a node keeps its user-level locks to itself.
            _MARIADB._replace(
                name="galera",
                xa=False,
                get_lock=False,
                row_locks=True,
                causal_reads="wsrep",
                many_primaries=True,
            ),
            _MYSQL._replace(name="group_replication"),
            # Its storage engine has no savepoints.
            _MARIADB._replace(name="spider", savepoints=False, causal_reads=None),
            EngineProfile(
                "tidb",
                xa=False,
                procedures=False,
                out_parameters=False,
                statement_timeout="max_execution_time",
                # KILL takes a number alone there.
                kill=False,
                session_tracking=False,
                causal_reads="always",
                many_primaries=True,
                plain_sessions=True,
                retryable=error_codes.TIDB_BACKOFF,
            ),
            EngineProfile(
                "vitess",
                xa=False,
                # CALL is passed on where the keyspace has one shard.
                out_parameters=False,
                get_lock=False,
                kill=False,
                session_tracking=False,
                many_primaries=True,
                plain_sessions=True,
            ),
            # A user-level lock or variable would tie a session to one server for good.
            EngineProfile(
                "proxysql",
                xa=False,
                out_parameters=False,
                get_lock=False,
                kill=False,
                session_tracking=False,
                plain_sessions=True,
            ),
        )
    }
)

#: Of a server that has not been asked yet.
UNKNOWN = _MYSQL


def greeted_engine(version: str) -> Engine:
    """Return the engine that the version in a server's greeting means.

    A member of a cluster is distinguished later, by ``node.read_node``.

    Args:
        version: "10.11.6-MariaDB", "8.0.11-TiDB-v7.5.0" or "8.0.30-Vitess", for
            instance.
    """
    text = version.lower()
    engines: Tuple[Engine, ...] = ("mariadb", "tidb", "vitess")
    return next((engine for engine in engines if engine in text), "mysql")


def profile_of(engine: Engine, version: str) -> EngineProfile:
    """Return the profile of a server before it has been asked.

    Args:
        engine: Of the configuration.
        version: From the server's greeting; it counts if the engine is "auto".
    """
    return PROFILES[greeted_engine(version) if engine == "auto" else engine]
