"""Exchanges: the commands of one statement on one connection, and their responses.

An *exchange* is a generator. It yields the bytes of each command, is resumed with the
result sets of the response or with the server's error, and returns the result of the
statement.
"""

import time
from datetime import tzinfo
from typing import TYPE_CHECKING, Any, Generator, List, NamedTuple, Optional

import pymysql.err
from pymysql.constants import CLIENT

from .. import errors
from ..observability.tags import append_comment
from ..results import CallResult, ResultSet, described
from ..sql.literals import LiteralStyle

if TYPE_CHECKING:
    from ..observability.query_call import ObservedCall
    from .connection_state import ConnectionState
    from .statements import AnyStatement

#: Yields commands, receives result sets, and returns the exchange's result.
Exchange = Generator[bytes, List[ResultSet], Any]


_SESSION_TRACK = CLIENT.SESSION_TRACK

#: A no-op whose OK packet has the status flags for open transaction and autocommit.
PROBE_SESSION = b"DO 0"


class TextEncoding(NamedTuple):
    """How statements are encoded for a connection.

    Attributes:
        encoding: Python's name of its character set.
        backslash_escapes: The SQL mode ``NO_BACKSLASH_ESCAPES`` is off.
        time_zone: The session's time zone, if the configuration sets it.
    """

    encoding: str
    backslash_escapes: bool
    time_zone: Optional[tzinfo] = None

    @property
    def style(self) -> LiteralStyle:
        """How its session parses literals."""
        return LiteralStyle(self.backslash_escapes, self.time_zone)

    def encode(self, text: str) -> bytes:
        """Encode a statement.

        Raises:
            ParameterError: It has a character that the character set lacks.
        """
        try:
            encoded = text.encode(self.encoding)
        except UnicodeEncodeError as error:
            raise errors.ParameterError(
                f"{text[error.start : error.end]!r} is not in the connection's {self.encoding}"
            ) from None
        if self.encoding not in ("utf8", "ascii"):
            # Shift-JIS has no backslash: Python encodes a yen sign as one, which would
            # act as an escape character.
            for character in set(text):
                if character > "\x7f" and character.encode(self.encoding)[0] < 0x80:
                    raise errors.ParameterError(
                        f"{character!r} is encoded as an ASCII character in the connection's "
                        f"{self.encoding}"
                    )
        return encoded


class RowOptions(NamedTuple):
    """How the rows of a statement are wanted.

    Attributes:
        most: More are an error; None for no limit.
        as_tuples: They are tuples, not dicts.
    """

    most: Optional[int] = None
    as_tuples: bool = False


ANY_ROWS = RowOptions()

#: Statements of fewer characters need no check of max_allowed_packet: every server
#: accepts net_buffer_length, 16 KiB by default, and a character has at most 4 bytes.
LONG_STATEMENT = 4096

ASK_PACKET_LIMIT = b"SELECT GREATEST(@@max_allowed_packet, @@net_buffer_length) AS n"


def learn_limit(statement: "AnyStatement", connection: "ConnectionState") -> Exchange:
    """Query max_allowed_packet before the first long statement of a session."""
    known = connection.facts.max_packet is not None
    if not statement.is_long or known or not connection.idle:
        return
    asked = connection.row_options
    connection.row_options = ANY_ROWS
    try:
        (answer,) = yield ASK_PACKET_LIMIT
    finally:
        connection.row_options = asked
        connection.sent = False
    if answer.rows:
        connection.learn_max_packet(int(answer.rows[0]["n"]))


def _check_sets(result: Any, most: int) -> None:
    """Check the number of rows of each result set.

    Raises:
        TooManyRows: One has more than ``most``.
    """
    for each in result.sets if isinstance(result, CallResult) else result:
        errors.check_rows(len(each.rows), most)


def _result_of(statement: "AnyStatement", connection: "ConnectionState", result: Any) -> Any:
    """The result of a statement that asks for something else than its rows."""
    if statement.describes:
        return described(connection.fields, result[0])
    return connection.facts.max_packet, connection.text_encoding.style


def check_engine(statement: "AnyStatement", connection: "ConnectionState") -> None:
    """Check that the server can run a statement.

    Raises:
        NotSupportedByEngine: It cannot; nothing was sent.
    """
    for feature in statement.features:
        connection.profile.require(feature)


def with_session_tracking(
    statement: "AnyStatement",
    connection: "ConnectionState",
    *,
    in_transaction: bool = False,
) -> Exchange:
    """Run a statement and keep the session flags correct even if it fails.

    See ``after_error``.
    """
    if not in_transaction:
        statement.check_outside_transaction()
    if statement.calls:
        check_engine(statement, connection)
    most = connection.max_rows if statement.max_rows is None else statement.max_rows
    # otherwise another caller is using it, and the command will be refused
    idle = connection.idle
    if idle:
        connection.sent = False
        connection.while_waiting = statement.while_waiting
        if most is not None or statement.tuples:
            # A statement that may write is not aborted, but read to its end.
            limit = most if statement.reads else None
            connection.row_options = RowOptions(limit, statement.tuples)
    try:
        if statement.is_long:
            yield from learn_limit(statement, connection)
        exchange = statement.exchange(connection.text_encoding)
        if statement.observation is not None:
            exchange = observed(
                exchange, statement.observation, connection, in_transaction=in_transaction
            )
        result: Any = yield from exchange
        if most is not None:
            _check_sets(result, most)
        return _finished(statement, connection, result, in_transaction=in_transaction)
    except pymysql.err.MySQLError as error:
        yield from after_error(statement, connection, error, in_transaction=in_transaction)
        raise
    except _NO_ANSWER as error:
        raise _not_an_answer(connection, error) from error
    finally:
        if idle:
            connection.row_options = ANY_ROWS
            connection.while_waiting = None


def _finished(
    statement: "AnyStatement", connection: "ConnectionState", result: Any, *, in_transaction: bool
) -> Any:
    """Keep what a statement that succeeded did to its session; return its result."""
    writes = connection.writes
    if writes is not None and not in_transaction and type(result) is list and result:
        # A result with rows ends without an OK packet, which would report a write's id.
        unreported = result[-1].columns and connection.client_flag & _SESSION_TRACK
        if unreported and not statement.reads:
            writes.record_unreported()
    if statement.changes_session or (statement.calls and connection.reset_after_call):
        connection.dirty = True
    special = statement.describes or statement.asks_packet_limit
    return _result_of(statement, connection, result) if special else result


def observed(
    exchange: Exchange, call: "ObservedCall", connection: Any, *, in_transaction: bool
) -> Exchange:
    """Run the exchange of an observed call, and append its tags to each command."""
    call.sending(time.monotonic(), in_transaction=in_transaction)
    comment = call.comment
    try:
        command = next(exchange)
        while True:
            try:
                answer = yield append_comment(command, comment, connection.facts.max_packet)
            except BaseException as error:
                command = exchange.throw(error)
            else:
                command = exchange.send(answer)
    except StopIteration as done:
        return done.value
    finally:
        call.answered(time.monotonic())


#: What comes of rows or columns that were asked for and are not there.
_NO_ANSWER = (LookupError, TypeError, ValueError)


def readable(exchange: Exchange, connection: "ConnectionState") -> Exchange:
    """Run an exchange; convert an unexpected response to an error of the connection."""
    try:
        return (yield from exchange)
    except pymysql.err.MySQLError:
        raise
    except _NO_ANSWER as error:
        raise _not_an_answer(connection, error) from error


def _not_an_answer(connection: "ConnectionState", error: BaseException) -> BaseException:
    """Return the error to raise; the connection is not reused."""
    connection.idle = False
    translated: BaseException = connection.readable(error)
    return translated


def after_error(
    statement: "AnyStatement",
    connection: "ConnectionState",
    error: BaseException,
    *,
    in_transaction: bool,
) -> Exchange:
    """Keep the session flags correct after a statement or a stream failed.

    An error packet carries no flags: what a procedure did to the transaction before it
    failed, or a lock timeout on a server that rolls back on one, shows only in the next
    OK packet. After such an error the server's flags are queried.

    Args:
        statement: What failed.
        connection: Where.
        error: The driver's; nothing is done if it is not the server's.
        in_transaction: It was part of a transaction.
    """
    if not errors.ends_answer(error):
        return
    if statement.calls and not in_transaction and connection.writes is not None:
        connection.writes.record_unreported()
    # It reports no session changes either, and the caller does not wait for a reset.
    connection.dirty = connection.dirty or statement.changes_session or statement.calls
    if statement.leaves_doubt(error, in_transaction=in_transaction):
        # Of a changed character set MariaDB says nothing after an error, and parameters
        # that follow are escaped for this one.
        yield connection.set_names if statement.calls else PROBE_SESSION
