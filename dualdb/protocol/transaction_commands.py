"""The commands that begin and end a transaction, and the commit marker."""

import enum
import logging
import random
import time
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

import pymysql.err

from .. import deadlines, error_codes, errors
from ..observability.logs import about
from .exchange import Exchange
from .statements import Statement

log = logging.getLogger("dualdb.transaction")


#: Around a statement that may end the transaction and begin another; see
#: ``BaseTransactionBlock._guarded``.
GUARD = b"SAVEPOINT `dualdb_call`"
UNGUARD = b"RELEASE SAVEPOINT `dualdb_call`"


#: The table for the tokens of commit markers, in the database of the transaction.
MARKERS = "dualdb_commit"


#: Makes that table, unless it is there.
MARKERS_DDL = (
    f"CREATE TABLE IF NOT EXISTS {MARKERS} "
    "(token CHAR(32) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY, "
    "at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, KEY (at)) ENGINE=InnoDB"
)
_NEW_MARKERS = MARKERS_DDL.encode()


_OLD_MARKERS = f"DELETE FROM {MARKERS} WHERE at < NOW() - INTERVAL 7 DAY LIMIT 1000".encode()


#: One in this many transactions also deletes markers older than a week.
SWEEP_EVERY = 500


_ISOLATION = ("READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")


class TransactionOptions(NamedTuple):
    """How a transaction is opened; see ``Target.transaction``."""

    commit_marker: bool = False
    isolation: Optional[str] = None
    read_only: bool = False
    snapshot: bool = False
    other_shards: bool = False
    timeout: Optional[float] = None
    #: When it must be over, by time.monotonic(), once ``timeout`` has begun to run.
    until: Optional[float] = None
    #: It is a part of a transaction on several databases, which ends with the whole.
    distributed: bool = False
    #: Only known reads are sent.
    reads_only: bool = False
    #: The xid of its XA branch, as XA START has it.
    xid: Optional[str] = None

    def begun(self) -> "TransactionOptions":
        """The same, with the time running from now on."""
        if self.timeout is None:
            return self
        return self._replace(timeout=None, until=time.monotonic() + self.timeout)

    def checked(self) -> "TransactionOptions":
        """Validate the options.

        Raises:
            ParameterError: The isolation level or the timeout is invalid, or two
                options exclude each other.
        """
        if self.timeout is not None:
            deadlines.seconds(self.timeout)
        if self.isolation is not None and (
            not isinstance(self.isolation, str) or self.isolation.upper() not in _ISOLATION
        ):
            raise errors.ParameterError(
                f"isolation must be one of {', '.join(_ISOLATION)}, not {self.isolation!r}"
            )
        if self.commit_marker and self.read_only:
            raise errors.ParameterError(
                "commit_marker and read_only exclude each other: a read-only transaction cannot "
                "write a marker"
            )
        return self

    @property
    def commands(self) -> List[bytes]:
        """The commands that begin the transaction."""
        commands = (
            []
            if self.isolation is None
            else [f"SET TRANSACTION ISOLATION LEVEL {self.isolation.upper()}".encode()]
        )
        asked = [
            words
            for words, is_asked in (
                (b"WITH CONSISTENT SNAPSHOT", self.snapshot),
                (b"READ ONLY", self.read_only),
            )
            if is_asked
        ]
        if self.xid is not None:
            return commands  # the branches of all databases are begun at the same time
        return [*commands, b"START TRANSACTION " + b", ".join(asked) if asked else b"BEGIN"]


DEFAULT_OPTIONS = TransactionOptions()


def begin(
    savepoint: int,
    token: Optional[str],
    options: TransactionOptions = DEFAULT_OPTIONS,
    spread: Callable[[], float] = random.random,
) -> Exchange:
    """Begin a transaction or a savepoint, and write its commit marker.

    The marker is written first, because its table can still be created then, and
    because its row is locked until the outcome of the transaction is certain.

    Args:
        savepoint: 0 for a transaction; the number of a savepoint inside one.
        token: The token of the commit marker; None for none.
        options: The options of the transaction.
        spread: Returns a random number from 0 to 1; decides about deleting old markers.
    """
    commands = [b"SAVEPOINT `dualdb_%d`" % savepoint] if savepoint else options.commands
    if token is None:
        for command in commands:
            yield command
        return
    leave = f"INSERT INTO {MARKERS} (token) VALUES ('{token}')".encode()
    try:
        if spread() * SWEEP_EVERY < 1:
            yield from _sweep()
        for command in [*commands, leave]:
            yield command
    except pymysql.err.MySQLError as error:
        if errors.code_of(error) != error_codes.NO_SUCH_TABLE:
            raise
        for command in [_NEW_MARKERS, *commands, leave]:
            yield command


def _sweep() -> Exchange:
    try:
        yield _OLD_MARKERS
    except pymysql.err.MySQLError as error:
        if not errors.is_server_error(error) or errors.code_of(error) == error_codes.NO_SUCH_TABLE:
            raise
        log.warning(
            "old rows of %s cannot be deleted: %s", MARKERS, error, extra=about("old_rows_kept")
        )


def marker(token: str) -> Statement:
    """Return the statement that finds the marker of a committed transaction.

    It waits for the row lock while the transaction is still open.
    """
    return Statement(
        f"SELECT 1 FROM {MARKERS} WHERE token = %s LOCK IN SHARE MODE", (token,), idempotent=True
    )


class Verdict(enum.Enum):
    """How a transaction or savepoint ends with its block."""

    COMMIT = "commit"
    ROLLBACK = "rollback"
    RELEASE = "release"
    ROLLBACK_TO = "rollback to"
    #: Nothing is sent: it has already ended, or an outer block decides.
    NOTHING = "nothing"
    #: The connection is closed, and the server rolls back.
    CLOSE = "close"


_ENDING: Dict[Verdict, Tuple[bytes, ...]] = {
    Verdict.COMMIT: (b"COMMIT",),
    Verdict.ROLLBACK: (b"ROLLBACK",),
    Verdict.RELEASE: (b"RELEASE SAVEPOINT `dualdb_%d`",),
    Verdict.ROLLBACK_TO: (
        b"ROLLBACK TO SAVEPOINT `dualdb_%d`",
        b"RELEASE SAVEPOINT `dualdb_%d`",
    ),
    Verdict.NOTHING: (),
    Verdict.CLOSE: (),
}


def commands_for(verdict: Verdict, savepoint: int, *, explicit: bool = False) -> Tuple[bytes, ...]:
    """Return the commands that carry out a verdict.

    Args:
        verdict: The verdict.
        savepoint: 0 for a transaction; the number of a savepoint inside one.
        explicit: Nothing but the transaction ends, whatever the session's
            completion_type is: a member of a Galera cluster answers no COMMIT that
            releases the session.
    """
    commands = _ENDING[verdict]
    if explicit and verdict in (Verdict.COMMIT, Verdict.ROLLBACK):
        return tuple([command + b" AND NO CHAIN NO RELEASE" for command in commands])
    return tuple(command % savepoint for command in commands) if savepoint else commands
