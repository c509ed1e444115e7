"""Killing a session whose response has been abandoned."""

import enum

import pymysql.err

from .. import error_codes, errors
from .exchange import Exchange
from .session_setup import SessionFacts


class KillOutcome(enum.Enum):
    """The outcome of an attempt to kill a session.

    Attributes:
        ENDED: The server accepted the KILL.
        NOT_FOUND: This server has no such session: it has ended, belongs to another
            server, or has released its lock.
        NOT_HELD: The session's own server has no such session: it has ended, or has
            released its lock.
        NOT_YET: It runs a procedure, function or trigger with its definer's rights, and
            belongs to another user until that returns.
    """

    ENDED = "ended"
    NOT_FOUND = "not found"
    NOT_HELD = "not held"
    NOT_YET = "not yet"


def end_session(session: SessionFacts, asked: SessionFacts) -> Exchange:
    """Kill the session that holds a lock, from another connection.

    It is a single statement, so that it cannot hit another session: behind a load
    balancer the other connection may reach another server, where the same id belongs to
    an unrelated session. There the lock is free, and the server refuses to kill NULL.

    Args:
        session: The facts of the session, whose lock identifies it.
        asked: Those of the other connection, which may be to the same server.

    Returns:
        A ``KillOutcome``.
    """
    assert session.lock is not None
    try:
        yield b"KILL IS_USED_LOCK('%s')" % session.lock.encode("ascii")
    except pymysql.err.MySQLError as error:
        code = errors.code_of(error)
        if code == error_codes.NOT_OWNER:
            return KillOutcome.NOT_YET
        if code == error_codes.NO_SUCH_THREAD:
            here = session.server is not None and session.server == asked.server
            return KillOutcome.NOT_HELD if here else KillOutcome.NOT_FOUND
        raise
    return KillOutcome.ENDED
