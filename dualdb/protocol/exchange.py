"""Exchanges: the commands of one statement on one connection, and their answers.

An *exchange* is a generator: it yields the bytes of one command, is sent the result
sets that came back (or has the server's error thrown in) and returns the result of the
whole.
"""

from datetime import tzinfo
from typing import Any, Generator, List, NamedTuple, Optional

import pymysql.err

from .. import errors
from ..results import ResultSet, described
from ..sql.literals import LiteralStyle

#: Commands out, result sets in, the exchange's result in the end.
Exchange = Generator[bytes, List[ResultSet], Any]


#: Does nothing; its OK packet says whether a transaction is open and autocommit on.
PROBE_SESSION = b"DO 0"


class TextEncoding(NamedTuple):
    """How a connection wants text.

    Attributes:
        encoding: Python's name of its character set.
        backslash_escapes: ``NO_BACKSLASH_ESCAPES`` is off.
        time_zone: Of the session, where the configuration states it.
    """

    encoding: str
    backslash_escapes: bool
    time_zone: Optional[tzinfo] = None

    @property
    def style(self) -> LiteralStyle:
        """How its session reads literals."""
        return LiteralStyle(self.backslash_escapes, self.time_zone)

    def encode(self, text: str) -> bytes:
        """Raises: ParameterError for a character that the connection's character set
        lacks.
        """
        try:
            encoded = text.encode(self.encoding)
        except UnicodeEncodeError as error:
            raise errors.ParameterError(
                f"{text[error.start : error.end]!r} is not in the connection's {self.encoding}"
            ) from None
        if self.encoding not in ("utf8", "ascii"):
            # Shift-JIS has no backslash: Python writes a yen sign as one, which would
            # end what was escaped.
            for character in set(text):
                if character > "\x7f" and character.encode(self.encoding)[0] < 0x80:
                    raise errors.ParameterError(
                        f"{character!r} stands for an ASCII character in the connection's "
                        f"{self.encoding}"
                    )
        return encoded


#: A statement of fewer characters is sent without asking whether the server takes it:
#: every server takes net_buffer_length, which is 16 KiB, and a character has 4 bytes.
LONG_STATEMENT = 4096

ASK_PACKET_LIMIT = b"SELECT GREATEST(@@max_allowed_packet, @@net_buffer_length) AS n"


def learn_limit(statement: Any, connection: Any) -> Exchange:
    """Before a long statement, once in a session: ask how long one may be."""
    if not statement.is_long or connection.max_packet is not None or not connection.idle:
        return
    asked = connection.most_rows, connection.tuple_rows
    connection.most_rows = None
    connection.tuple_rows = False
    try:
        (answer,) = yield ASK_PACKET_LIMIT
    finally:
        connection.most_rows, connection.tuple_rows = asked
        connection.sent = False
    if answer.rows:
        connection.max_packet = int(answer.rows[0]["n"])


def _check_sets(result: Any, most: int) -> None:
    """Raises: TooManyRows where a result set has more than so many rows."""
    for each in getattr(result, "sets", result):
        errors.check_rows(len(each.rows), most)


def with_session_tracking(
    statement: Any, connection: Any, *, in_transaction: bool = False
) -> Exchange:
    """Run a statement and keep the session flags correct even if it fails.

    An error packet carries no flags: what a procedure did to the transaction before it
    failed, or a lock timeout on a server that rolls back on one, shows only in the next
    OK packet. So after such an error the server is asked.
    """
    if not in_transaction:
        statement.check_outside_transaction()
    most = connection.max_rows if statement.max_rows is None else statement.max_rows
    # otherwise it is somebody else's, and the command will be refused
    idle = connection.idle
    if idle:
        connection.sent = False
        connection.tuple_rows = statement.tuples
        # What may write is read to its end: it is ended in the middle of nothing.
        connection.most_rows = most if most is not None and statement.reads else None
    try:
        if statement.is_long:
            yield from learn_limit(statement, connection)
        result = yield from statement.exchange(connection.text_encoding)
        if most is not None:
            _check_sets(result, most)
        if statement.changes_session or (connection.reset_after_call and statement.calls):
            connection.dirty = True
        if statement.describes:
            return described(connection.fields, result[0])
        if statement.asks_packet_limit:
            return connection.max_packet, connection.text_encoding.style
        return result
    except pymysql.err.MySQLError as error:
        if errors.ends_answer(error):
            # An error packet does not tell either what was changed before it; a reset
            # costs nobody's time.
            connection.dirty = connection.dirty or statement.changes_session or statement.calls
            if statement.leaves_doubt(error, in_transaction=in_transaction):
                yield PROBE_SESSION
        raise
    finally:
        if idle:
            connection.tuple_rows = False
