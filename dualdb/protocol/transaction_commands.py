"""The commands that begin and end a transaction, and the commit marker."""

import enum
import logging
import random
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

import pymysql.err

from .. import deadlines, error_codes, errors
from .exchange import Exchange
from .statements import Statement

log = logging.getLogger("dualdb")


#: Around a statement that may end the transaction and begin another; see
#: ``BaseTransaction._guarded``.
GUARD = b"SAVEPOINT `dualdb_call`"
UNGUARD = b"RELEASE SAVEPOINT `dualdb_call`"


#: Where a transaction with a commit marker leaves its token, in its own database.
MARKERS = "dualdb_commit"


#: Makes that table, unless it is there.
MARKERS_DDL = (
    f"CREATE TABLE IF NOT EXISTS {MARKERS} "
    "(token CHAR(32) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY, "
    "at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, KEY (at)) ENGINE=InnoDB"
)
_NEW_MARKERS = MARKERS_DDL.encode()


_OLD_MARKERS = f"DELETE FROM {MARKERS} WHERE at < NOW() - INTERVAL 7 DAY LIMIT 1000".encode()


#: One transaction in so many also removes what is a week old.
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

    def checked(self) -> "TransactionOptions":
        """Raises: ParameterError for an isolation level that there is not, no such
        time, or what excludes each other.
        """
        if self.timeout is not None:
            deadlines.seconds(self.timeout)
        if self.isolation is not None and (
            not isinstance(self.isolation, str) or self.isolation.upper() not in _ISOLATION
        ):
            raise errors.ParameterError(
                f"isolation is one of {', '.join(_ISOLATION)}, not {self.isolation!r}"
            )
        if self.commit_marker and self.read_only:
            raise errors.ParameterError(
                "a transaction that only reads has nothing to mark: commit_marker and read_only "
                "exclude each other"
            )
        return self

    @property
    def commands(self) -> List[bytes]:
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
        return [*commands, b"START TRANSACTION " + b", ".join(asked) if asked else b"BEGIN"]


DEFAULT_OPTIONS = TransactionOptions()


def begin(
    savepoint: int,
    token: Optional[str],
    options: TransactionOptions = DEFAULT_OPTIONS,
    spread: Callable[[], float] = random.random,
) -> Exchange:
    """Open a transaction, or savepoint number 1 and up inside one; with a token, leave
    it where ``marker`` finds it.

    First and not last: where the table is missing it can still be made, and from here
    on the token's row is locked until it is certain what became of it.
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
        log.warning("old rows of %s cannot be removed: %s", MARKERS, error)


def marker(token: str) -> Statement:
    """Finds a row where the token's transaction was committed.

    Waits where it is neither committed nor rolled back yet.
    """
    return Statement(
        f"SELECT 1 FROM {MARKERS} WHERE token = %s LOCK IN SHARE MODE", (token,), idempotent=True
    )


class Verdict(enum.Enum):
    """What becomes of a transaction, or of a savepoint inside one, when its block
    ends.
    """

    COMMIT = "commit"
    ROLLBACK = "rollback"
    RELEASE = "release"
    ROLLBACK_TO = "rollback to"
    #: Nothing is sent: it is over already, or an outer block decides.
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


def commands_for(verdict: Verdict, savepoint: int) -> Tuple[bytes, ...]:
    """The commands that carry out a verdict on what ``begin`` opened."""
    commands = _ENDING[verdict]
    return tuple(command % savepoint for command in commands) if savepoint else commands
