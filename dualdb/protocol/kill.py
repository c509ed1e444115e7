"""Ending a session of which nobody waits for the answer any more."""

import pymysql.err

from .. import error_codes, errors
from .exchange import Exchange


def end_session(session_id: int, age: float) -> Exchange:
    """End a session, ``age`` seconds old, whose answer nobody waits for.

    Said on another. Gives whether it has ended.

    It has not where it is in a procedure, function or trigger with its definer's
    rights: until that is over it is another user's.

    The caller holds the session's socket open, so that the server has given its id to
    nobody else; unless it has been started anew, which it is asked first.
    """
    (response,) = yield b"SHOW GLOBAL STATUS LIKE 'Uptime'"
    if int(response.rows[0]["Value"]) >= int(age):
        try:
            yield b"KILL %d" % session_id
        except pymysql.err.MySQLError as error:
            if errors.code_of(error) == error_codes.NOT_OWNER:
                return False
            if errors.code_of(error) != error_codes.NO_SUCH_THREAD:
                raise
    return True
