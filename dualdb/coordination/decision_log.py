"""The table in the global database that records the decisions about XA transactions."""

import enum
import secrets
from typing import Any, Callable, Iterable, List, NamedTuple, Optional, Tuple

from .. import errors
from ..directory.keys import quoted
from ..execution.detached import DetachedExecutor
from ..execution.steps import Execute, Plan
from ..results import Row
from .commands import Command
from .xid import is_gtrid

#: The name of the table; that of its lease ends with ``LEASE_SUFFIX``.
TABLE = "dualdb_xa"
LEASE_SUFFIX = "_lease"

_DDL = """\
CREATE TABLE IF NOT EXISTS {table} (
    gtrid CHAR(32) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY,
    decision ENUM('commit','abort') NOT NULL,
    parts TEXT NOT NULL,
    at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    KEY (decision, at)
) ENGINE=InnoDB"""

_LEASE_DDL = """\
CREATE TABLE IF NOT EXISTS {table} (
    id TINYINT PRIMARY KEY,
    cluster CHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    owner VARCHAR(255) NULL,
    lease_until DATETIME(6) NULL
) ENGINE=InnoDB"""

_NO_SUCH_TABLE = 1146
_DUPLICATE = 1062
_NOW = "UTC_TIMESTAMP(6)"

#: How long the row of a transaction that was not committed stays, so that a
#: coordinator which was stopped for a while finds it.
KEEP_ABORTED = "1 DAY"
#: How long that of a committed one stays at least, in seconds, unless its coordinator
#: deletes it: so long a coordinator that has lost the answer may ask for it.
KEEP_COMMITTED = 600.0
#: A coordinator that took longer than this, in seconds, does not decide any more: its
#: row that says "abort" might be gone.
DECIDE_WITHIN = 12 * 3600.0
#: The most rows that one statement deletes or reads.
BATCH = 500


class Decision(str, enum.Enum):
    """The decision in a row."""

    COMMIT = "commit"
    ABORT = "abort"


class LogRow(NamedTuple):
    """A row of the log.

    Attributes:
        gtrid: The transaction.
        decision: What becomes of it.
        shard_ids: The shards that take part; empty where it was not committed.
        age: Seconds since the decision, by the server's clock.
    """

    gtrid: str
    decision: Decision
    shard_ids: Tuple[int, ...]
    age: float


class Lease(NamedTuple):
    """The row of the lease.

    Attributes:
        cluster: The name of this global database in xids.
        free: Nobody else has the lease.
    """

    cluster: str
    free: bool


def ddl(table: str = TABLE) -> str:
    """Return the statement that creates the table of decisions, if it does not
    exist.
    """
    return _DDL.format(table=quoted(table))


def lease_ddl(table: str = TABLE) -> str:
    """Return the statement that creates the table of the lease, if it does not
    exist.
    """
    return _LEASE_DDL.format(table=quoted(table + LEASE_SUFFIX))


def is_undecided(error: errors.Error) -> bool:
    """Return whether a decision may have been recorded although its statement failed.

    A duplicate key counts too: the row may be this transaction's own, sent twice.
    """
    if error.sent is False:
        return False
    lost = (errors.ConnectionLost, errors.DeadlineExceeded, errors.OutcomeUnknown)
    return isinstance(error, lost) or error.errno == _DUPLICATE


class DecisionLog:
    """The statements of the log, each on its own connection.

    Args:
        table: Its name, ``name`` or ``schema.name``.
        client: Gives the global database's client.
    """

    def __init__(self, table: str, client: Callable[[], Any]) -> None:
        self.table = table
        self._client = client
        self._decisions = quoted(table)
        self._leases = quoted(table + LEASE_SUFFIX)

    def _rows(self, sql: str, until: Optional[float]) -> Plan[List[Any]]:
        results = yield Execute(DetachedExecutor(self._client()), Command(sql), until)
        found: List[Any] = results[0].rows
        return found

    def _change(self, sql: str, until: Optional[float]) -> Plan[int]:
        results = yield Execute(DetachedExecutor(self._client()), Command(sql), until)
        return int(results[0].rowcount)

    def commit_row(self, gtrid: str, shard_ids: Iterable[int]) -> Command:
        """Return the statement that decides: from its COMMIT on, the transaction is
        committed.
        """
        parts = ",".join(str(shard_id) for shard_id in shard_ids)
        return Command(
            f"INSERT INTO {self._decisions} (gtrid, decision, parts) "
            f"VALUES ('{_checked(gtrid)}', 'commit', '{parts}')"
        )

    def commit(
        self, gtrid: str, shard_ids: Iterable[int], until: Optional[float] = None
    ) -> Plan[None]:
        """Decide that a transaction is committed.

        Raises:
            Error: See ``is_undecided``.
        """
        yield Execute(DetachedExecutor(self._client()), self.commit_row(gtrid, shard_ids), until)

    def settle(self, gtrid: str, until: Optional[float] = None) -> Plan[Decision]:
        """Return the decision about a transaction; if there is none, record an abort.

        It is recorded before anybody acts on it, so that a coordinator that is only
        slow cannot commit afterwards.

        Raises:
            Error: The global database did not respond; the decision is unknown.
        """
        # Written by this call, it is known; otherwise another server of the same
        # database, which may lag behind, can be the one that is asked.
        written = yield from self._change(
            f"INSERT IGNORE INTO {self._decisions} (gtrid, decision, parts) "
            f"VALUES ('{_checked(gtrid)}', 'abort', '')",
            until,
        )
        if written:
            return Decision.ABORT
        found = yield from self.decision(gtrid, until)
        if found is None:
            raise errors.OperationalError(
                f"the decision about the transaction {gtrid} was deleted just now"
            ).with_context("global")
        return found

    def decision(self, gtrid: str, until: Optional[float] = None) -> Plan[Optional[Decision]]:
        """Return the decision about a transaction; None if there is none."""
        rows = yield from self._rows(
            f"SELECT decision FROM {self._decisions} WHERE gtrid = '{_checked(gtrid)}'", until
        )
        return Decision(rows[0]["decision"]) if rows else None

    def rows(self, until: Optional[float] = None, *, committed: bool = False) -> Plan[List[LogRow]]:
        """Return the oldest rows, ``BATCH`` at most.

        Args:
            until: The deadline, by time.monotonic().
            committed: Only those of committed transactions.
        """
        condition = "WHERE decision = 'commit' " if committed else ""
        try:
            rows = yield from self._rows(
                "SELECT gtrid, decision, parts, UNIX_TIMESTAMP() - UNIX_TIMESTAMP(at) AS age "
                f"FROM {self._decisions} {condition}ORDER BY at LIMIT {BATCH}",
                until,
            )
        except errors.ProgrammingError as error:
            if error.errno != _NO_SUCH_TABLE:
                raise
            return []
        return [_log_row(row) for row in rows]

    def forget(self, gtrids: Iterable[str], until: Optional[float] = None) -> Plan[None]:
        """Delete the rows of committed transactions that have ended on every shard."""
        names = [f"'{_checked(gtrid)}'" for gtrid in gtrids]
        for start in range(0, len(names), BATCH):
            yield from self._change(
                f"DELETE FROM {self._decisions} WHERE decision = 'commit' "
                f"AND gtrid IN ({','.join(names[start : start + BATCH])})",
                until,
            )

    def forget_aborted(self, until: Optional[float] = None) -> Plan[None]:
        """Delete rows of transactions that were not committed, after a day."""
        yield from self._change(
            f"DELETE FROM {self._decisions} WHERE decision = 'abort' "
            f"AND at < NOW() - INTERVAL {KEEP_ABORTED} LIMIT {BATCH}",
            until,
        )

    def force_commit(self, gtrid: str, until: Optional[float] = None) -> Plan[Decision]:
        """Decide that a transaction is committed, unless it has been decided already.

        Returns:
            The decision there is now.
        """
        yield from self._change(
            f"INSERT IGNORE INTO {self._decisions} (gtrid, decision, parts) "
            f"VALUES ('{_checked(gtrid)}', 'commit', '')",
            until,
        )
        return (yield from self.settle(gtrid, until))

    # The lease, and the cluster's name in its row.

    def lease(self, owner: str = "", until: Optional[float] = None) -> Plan[Optional[Lease]]:
        """Return the row of the lease; None if there is none, or no table."""
        try:
            rows = yield from self._rows(
                f"SELECT cluster, owner IS NULL OR owner = '{owner}' "
                f"OR lease_until < {_NOW} AS free FROM {self._leases} WHERE id = 1",
                until,
            )
        except errors.ProgrammingError as error:
            if error.errno != _NO_SUCH_TABLE:
                raise
            return None
        return Lease(str(rows[0]["cluster"]), bool(rows[0]["free"])) if rows else None

    def take_lease(self, owner: str, seconds: float, until: Optional[float] = None) -> Plan[bool]:
        """Take or renew the lease; return False if somebody else has it.

        Args:
            owner: This process, with a different name each time it is opened.
            seconds: For how long.
            until: The deadline, by time.monotonic().
        """
        taken = yield from self._change(
            f"UPDATE {self._leases} SET owner = '{owner}', "
            f"lease_until = {_NOW} + INTERVAL {int(seconds * 1e6)} MICROSECOND WHERE id = 1 "
            f"AND (owner IS NULL OR owner = '{owner}' OR lease_until < {_NOW})",
            until,
        )
        return taken > 0

    def give_up_lease(self, owner: str, until: Optional[float] = None) -> Plan[None]:
        """Release the lease."""
        yield from self._change(
            f"UPDATE {self._leases} SET owner = NULL WHERE id = 1 AND owner = '{owner}'", until
        )

    def cluster(self, until: Optional[float] = None) -> Plan[str]:
        """Return the cluster's name; create it and the tables if they are missing.

        Raises:
            Error: The tables are missing, and the account may not create them.
        """
        known = yield from self.lease(until=until)
        if known is None:
            try:
                yield from self._make(until)
            except errors.Error as error:
                if not errors.is_server_error(error):
                    raise
                raise errors.ProgrammingError(
                    error.errno,
                    f"the table {self.table} is missing and cannot be made, which `dualdb init` "
                    f"does: {error.message}",
                ).with_context("global", sent=False) from error
            known = yield from self.lease(until=until)
        if known is None:
            raise errors.OperationalError(
                f"the row of {self.table}{LEASE_SUFFIX} was deleted just now"
            ).with_context("global", sent=False)
        return known.cluster

    def _make(self, until: Optional[float]) -> Plan[None]:
        row = (
            f"INSERT IGNORE INTO {self._leases} (id, cluster) VALUES (1, '{secrets.token_hex(8)}')"
        )
        try:
            yield from self._change(row, until)
        except errors.ProgrammingError as error:
            if error.errno != _NO_SUCH_TABLE:
                raise
            for statement in (ddl(self.table), lease_ddl(self.table), row):
                yield from self._change(statement, until)


def _checked(gtrid: str) -> str:
    """Return the name, which is written into statements.

    Raises:
        ParameterError: It is not a transaction's name.
    """
    if not is_gtrid(gtrid):
        raise errors.ParameterError(f"a transaction's name is 32 hex digits, not {gtrid!r}")
    return gtrid


def _log_row(row: Row) -> LogRow:
    parts = [part for part in str(row["parts"]).split(",") if part]
    return LogRow(
        str(row["gtrid"]),
        Decision(row["decision"]),
        tuple(int(part) for part in parts),
        float(row["age"]),
    )
