"""Ending a session whose response nobody waits for any more."""

import enum

import pymysql.err

from .. import error_codes, errors
from .exchange import Exchange


class KillOutcome(enum.Enum):
    """What became of an attempt to end a session.

    Attributes:
        ENDED: The server ends it.
        NOT_FOUND: This server has no such session: it has ended, or it is another
            server's, or it has given up its lock.
        NOT_YET: It is in a procedure, function or trigger with its definer's rights,
            and until that is over it is another user's.
    """

    ENDED = "ended"
    NOT_FOUND = "not found"
    NOT_YET = "not yet"


def end_session(lock: str) -> Exchange:
    """End the session that holds a lock, sent on another connection.

    One statement, so that no other session is ever meant: behind a load balancer the
    other connection may be to another server, where the same id is somebody else's.
    There the lock is nobody's, and the server refuses to kill NULL.

    Args:
        lock: The name of the session's own lock.

    Returns:
        A ``KillOutcome``.
    """
    try:
        yield b"KILL IS_USED_LOCK('%s')" % lock.encode("ascii")
    except pymysql.err.MySQLError as error:
        code = errors.code_of(error)
        if code == error_codes.NOT_OWNER:
            return KillOutcome.NOT_YET
        if code == error_codes.NO_SUCH_THREAD:
            return KillOutcome.NOT_FOUND
        raise
    return KillOutcome.ENDED
