"""An incremental parser of the response to one command (sans I/O): fed from a socket in
threads and from a stream in asyncio.

Source: MySQL internals manual, "Text Protocol" (COM_QUERY response).
"""

import struct
from typing import Any, Callable, List, NamedTuple, Optional, Tuple, Union

import pymysql.err
from pymysql.constants import CR, SERVER_STATUS

from .. import errors
from ..results import ResultSet
from . import commands
from .row_decoder import Malformed, RowDecoder, row_decoder_of, skip_rows

#: The statement changed tracked session state; MariaDB also sets it after rows.
SERVER_SESSION_STATE_CHANGED = 0x4000
_MORE_RESULTS = SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS
_header = struct.Struct("<I").unpack_from
_two_numbers = struct.Struct("<HH").unpack_from
_end_of_rows = struct.Struct("<IBHH").unpack_from  # with the packet's header

#: Limits of the protocol: the length of a row in bytes, and the number of columns.
_LONGEST = (1 << 30) + (1 << 24)
_MOST_COLUMNS = 65535

#: What is raised over bytes that violate the protocol.
_UNREADABLE = (Malformed, IndexError, ValueError, TypeError, ArithmeticError)

#: Parses one part of a response: ``(response, data, position, end) -> position``.
_State = Callable[["Response", bytes, int, int], int]


class ResponseOptions(NamedTuple):
    """What is wanted of a response.

    Attributes:
        encoding: Python's name for the connection's character set.
        tuples: Rows are tuples and not dicts.
        stream: The rows of the first result are taken while they arrive; those of
            further results are dropped.
        most: The most rows of a result.
        compiled: Use the compiled decoder if it was built.
    """

    encoding: str
    tuples: bool = False
    stream: bool = False
    most: Optional[int] = None
    compiled: bool = True


class _Unparsed:
    """Received bytes of an incomplete packet.

    Attributes:
        pieces: The bytes.
        missing: How many are missing until more can be parsed; 0 while that is not
            known.
    """

    __slots__ = ("missing", "pieces")

    def __init__(self) -> None:
        self.pieces: List[bytes] = []
        self.missing = 0

    def completed(self, data: bytes) -> Optional[bytes]:
        """Add received bytes; return all if they suffice, else None."""
        if not self.pieces:
            self.missing = 0
            return data
        self.pieces.append(data)
        self.missing -= len(data)
        if self.missing > 0:
            return None
        self.missing = 0
        joined = b"".join(self.pieces)
        self.pieces = []
        return joined

    def keep(self, rest: bytes) -> None:
        """Keep what has not been parsed."""
        if len(rest) < 4:
            self.missing = 4 - len(rest)
        self.pieces = [rest] if rest else []


class _Result:
    """The incomplete result.

    Attributes:
        rows: Its rows; a stream takes them away.
        taken: How many a stream has taken.
        decoder: The decoder of the rows; None while the definitions are incomplete.
        columns: The number of columns.
        defined: How many column definitions have been received.
        defined_to: The length of these in bytes.
        huge: The packets of an incomplete row of 16 MiB or more.
        skipping: The remaining rows are not decoded.
    """

    __slots__ = (
        "columns",
        "decoder",
        "defined",
        "defined_to",
        "huge",
        "rows",
        "skipping",
        "taken",
    )

    def __init__(self) -> None:
        self.rows: List[Any] = []
        self.taken = 0
        self.decoder: Optional[RowDecoder] = None
        self.columns = 0
        self.defined = 0
        self.defined_to = 0
        self.huge: List[bytes] = []
        self.skipping = False


class Response:
    """The response to one command; ``feed`` it until it is complete.

    After a text that cannot be decoded, the remaining rows of its result are skipped.
    The response is still read to its end, so that the connection is reusable, and then
    the error is raised.

    Args:
        options: What is wanted of it.
        number: The sequence number of the first packet.
        cached_decoder: The decoder of the previous response, reused if the columns are
            the same.

    Attributes:
        results: The complete result sets.
        cached_decoder: The decoder of the last result with columns.
        server_status: The status flags of the last OK packet.
        message: The message and session state of the last OK packet; None after rows.
        changes: For each result but the last OK packet that reports a changed session
            state: what it says of it, or None after rows, where it says nothing more.
        complete: The whole response has been received.
        rest: Data that was received after it.
        failure: The error of a stream, raised after the rows before it are taken.
    """

    server_status: Optional[int] = None
    message: Optional[bytes] = None
    complete = False
    changes: Tuple[Optional[bytes], ...] = ()
    rest = b""
    failure: Optional[pymysql.err.MySQLError] = None
    _more = False  # another result follows
    #: Raised when the response is complete.
    _error: Optional[Exception] = None
    # Made when more than a whole response in one piece is to be parsed.
    _unparsed: Optional[_Unparsed] = None
    _result: _Result
    _state: _State

    def __init__(
        self,
        options: ResponseOptions,
        number: int = 1,
        cached_decoder: Optional[RowDecoder] = None,
    ) -> None:
        self.results: List[ResultSet] = []
        self.cached_decoder = cached_decoder
        self._options = options
        self._number = number

    @property
    def names(self) -> Optional[Tuple[str, ...]]:
        """The column names of the first result; None while they are unknown."""
        if self.results:
            return self.results[0].columns
        decoder = None if self._unparsed is None else self._result.decoder
        return None if decoder is None else decoder.names

    def take(self) -> List[Any]:
        """Remove and return the received rows of the first result.

        Raises:
            pymysql.err.MySQLError: The error of the response, after all rows before it
                have been taken.
        """
        if self.results:
            rows: List[Any] = self.results[0].rows
        elif self._unparsed is not None:
            rows = self._result.rows
            self._result.taken += len(rows)
        else:
            rows = []
        taken = rows[:]
        rows.clear()
        if self.failure is not None and not taken:
            raise self.failure
        return taken

    def feed_stream(self, data: bytes) -> None:
        """Process received data for a stream; an error is raised by ``take``.

        Args:
            data: The received bytes.
        """
        try:
            self.feed(data)
        except pymysql.err.MySQLError as error:
            if self.names is None:
                raise
            self.failure = error

    def feed(self, data: bytes) -> bool:
        """Process received data.

        Args:
            data: The received bytes, split anywhere.

        Returns:
            True when the response is complete.

        Raises:
            TooManyRows: There are more than ``most`` rows; the response is incomplete.
            UndecodableText: A text cannot be decoded; the response is complete.
            pymysql.err.MySQLError: The server's error, which completes the response; or
                with a code of the client library a protocol error, after which the
                connection is unusable.
        """
        if self._unparsed is not None:
            return self._feed_states(data)
        position = self._read_at_once(data, 0)
        if self._more:  # as a procedure's rows, which an OK packet follows
            position = self._read_at_once(data, position)
        if self._unparsed is None:
            if self.results and not self._more:
                self.complete = True
                self.rest = data[position:]
                return True
            self._begin_states(_Result(), Response._at_head)
        return self._feed_states(data[position:])

    def _read_at_once(self, data: bytes, position: int) -> int:
        """Read what most responses consist of: an OK packet, or rows with the columns
        of the previous response. The states parse what follows, or all of it.

        Args:
            data: The first piece of the response.
            position: Where a result begins.

        Returns:
            The position after what was read.
        """
        decoder = self.cached_decoder
        try:
            begin = position + 4
            if data[begin : begin + 1] == b"\x00":
                header = _header(data, position)[0]
                stop: int = begin + (header & 0xFFFFFF)
                if header >> 24 != self._number or not begin + 7 <= stop <= len(data):
                    return position
                self._read_ok(data[begin:stop])
                self._number = self._number + 1 & 255
                return stop
            if (
                position  # the prefix begins a response, and the numbers repeat
                or decoder is None
                or decoder.prefix is None
                or self._number != 1
                or not data.startswith(decoder.prefix)
                or len(data) < len(decoder.prefix) + 4
                or decoder.encoding != self._options.encoding
                or decoder.tuples is not self._options.tuples
            ):
                return position
            return self._read_first_rows(data, decoder, len(decoder.prefix) + 4)
        except _UNREADABLE:
            return position

    def _read_first_rows(self, data: bytes, decoder: RowDecoder, position: int) -> int:
        rows: List[Any] = []
        number = len(decoder.names) + 3 & 255
        end = len(data)
        position, number, over = decoder.read(data, position, end, number, rows)
        if over and end - position >= 9:
            header, kind, warnings, status = _end_of_rows(data, position)
            if header == 5 | number << 24 and kind == 254:
                self._number = number + 1 & 255
                self._add_result(rows, decoder.names, warnings, status)
                return position + 9
        result = _Result()
        result.rows = rows
        result.decoder = decoder
        self._number = number
        self._begin_states(result, Response._at_rows)
        return position

    def _begin_states(self, result: _Result, state: _State) -> None:
        self._unparsed = _Unparsed()
        self._result = result
        # A function and no bound method, which would make a reference cycle: rows would
        # stay in memory until the next run of the garbage collector.
        self._state = state

    # The states, each parsing one part of the response. They return the position after
    # what they have parsed; where they need more data, ``_unparsed.missing`` is set.

    def _feed_states(self, received: bytes) -> bool:
        assert self._unparsed is not None
        data = self._unparsed.completed(received)
        if data is None:
            return False
        position = 0
        try:
            while not self._unparsed.missing and not self.complete:
                position = self._state(self, data, position, len(data))
        except _UNREADABLE as error:
            raise pymysql.err.OperationalError(
                CR.CR_MALFORMED_PACKET, f"Malformed packet: {error}"
            ) from error
        if self.complete:
            self.rest = data[position:]
            self._raise_error()
            return True
        if self._options.most is not None:
            errors.check_rows(len(self._result.rows), self._options.most)
        self._unparsed.keep(data[position:])
        return False

    def _raise_error(self) -> None:
        error = self._error
        self._error = None
        if error is not None:
            try:
                raise error
            finally:
                del error  # whose traceback has this frame

    def _at_head(self, data: bytes, position: int, end: int) -> int:
        """Parse the first packet of a result: OK, or the number of columns."""
        stop = self._packet_end(data, position, end)
        if stop is None:
            return position
        self._begin_result(data[position + 4 : stop])
        if self._result.columns:
            self._state = Response._at_definitions
        else:
            self.complete = not self._more
        return stop

    def _at_definitions(self, data: bytes, position: int, end: int) -> int:
        """The definitions of the columns, and the packet that ends them."""
        result = self._result
        options = self._options
        cached = self.cached_decoder
        stop = position + result.defined_to
        if (
            cached is not None
            and data.startswith(cached.definitions, position)
            and cached.fits(result.columns, self._number, options.encoding, options.tuples)
        ):
            self._number = self._number + result.columns & 255
            result.defined = result.columns
            stop = position + len(cached.definitions)
        else:
            cached = None
        while result.defined < result.columns:
            after = self._packet_end(data, stop, end)
            if after is None:
                return position
            stop = after
            result.defined += 1
            result.defined_to = after - position
        after = self._packet_end(data, stop, end)
        if after is None:
            result.defined_to = stop - position
            return position
        if not 0 < after - stop - 4 < 9 or data[stop + 4] != 254:
            raise Malformed("the column definitions are not followed by an EOF packet")
        result.decoder = self.cached_decoder = cached or row_decoder_of(
            data[position:stop],
            options.encoding,
            tuples=options.tuples,
            compiled=options.compiled,
        )
        result.columns = 0
        self.message = None
        self._state = Response._at_rows
        return after

    def _at_rows(self, data: bytes, position: int, end: int) -> int:
        """Parse the rows, and the packet that ends them."""
        result = self._result
        over = False
        if not result.huge:
            position, over = self._read_rows(data, position, end)
            # only the first result of a stream is wanted
            if self._options.stream and self.results:
                result.rows.clear()
        stop = self._packet_end(data, position, end)
        if stop is None:
            return position
        payload = data[position + 4 : stop]
        if over:
            assert result.decoder is not None
            if payload[:1] == b"\xff":
                self._fail(payload)
            else:
                self._end_result(payload, result.rows, result.decoder.names)
                self._result = _Result()
                self._state = Response._at_head
            self.complete = not self._more
        else:
            self._part_of_a_huge_row(payload)
        return stop

    def _read_rows(self, data: bytes, position: int, end: int) -> Tuple[int, bool]:
        """Decode all received rows; return the position, and whether they end there."""
        result = self._result
        assert result.decoder is not None
        before = len(result.rows)
        read = skip_rows if result.skipping else result.decoder.read
        try:
            position, self._number, over = read(data, position, end, self._number, result.rows)
            return position, over
        except UnicodeDecodeError as error:
            # The rows before it have been decoded.
            for _ in range(len(result.rows) - before):
                position += 4 + int.from_bytes(data[position : position + 3], "little")
                self._number = self._number + 1 & 255
            stop = position + 4 + int.from_bytes(data[position : position + 3], "little")
            self._skip_rows(data[position + 4 : stop], error)
            return self._read_rows(data, position, end)

    def _skip_rows(self, payload: bytes, error: UnicodeDecodeError) -> None:
        """Record the undecodable text of a row; the result's other rows are skipped."""
        result = self._result
        assert result.decoder is not None
        if self._error is None:
            column = result.decoder.undecodable_column(payload)
            row = result.taken + len(result.rows)
            self._error = errors.undecodable_text(row, column, error.encoding)
        result.skipping = True

    def _packet_end(self, data: bytes, position: int, end: int) -> Optional[int]:
        """Return the end of the packet at a position; None if it is incomplete."""
        assert self._unparsed is not None
        if end - position < 4:
            self._unparsed.missing = 4 - (end - position)
            return None
        header: int = _header(data, position)[0]
        number = self._number
        if header >> 24 != number:
            raise self._out_of_sequence(header >> 24)
        stop = position + 4 + (header & 0xFFFFFF)
        if stop > end:
            self._unparsed.missing = stop - end
            return None
        self._number = number + 1 & 255
        return stop

    def _out_of_sequence(self, number: int) -> Exception:
        if number == 0:  # sent by a server that shuts down
            return pymysql.err.OperationalError(
                CR.CR_SERVER_LOST, "Lost connection to MySQL server during query"
            )
        return Malformed(f"expected packet number {self._number}, got {number}")

    def _begin_result(self, payload: bytes) -> None:
        first = payload[:1]
        if first == b"\x00" and len(payload) >= 7:
            self._read_ok(payload)
            return
        if first == b"\xff":
            self._fail(payload)
            return
        if first == b"\xfe" and 5 <= len(payload) < 9:  # of COM_SET_OPTION
            self._end_result(payload, [], ())
            return
        if first == b"\xfb":
            raise errors.NotSupportedError(
                "the server requests a local file (LOAD DATA LOCAL), which is not supported"
            )
        columns, position = _number_at(payload, 0)
        if position != len(payload) or not 0 < columns <= _MOST_COLUMNS:
            raise Malformed("the number of columns is invalid")
        self._result.columns = columns

    def _read_ok(self, payload: bytes) -> None:
        """Read an OK packet, which is a result by itself."""
        affected, position = _number_at(payload, 1)
        insert_id, position = _number_at(payload, position)
        if position + 4 > len(payload):
            raise Malformed("an OK packet is too short")
        self.server_status, warnings = _two_numbers(payload, position)
        self.message = payload[position + 4 :]
        self._more = self.server_status & _MORE_RESULTS != 0
        if self._more and self.server_status & SERVER_SESSION_STATE_CHANGED:
            self.changes = (*self.changes, self.message)
        self.results.append(ResultSet([], (), affected, insert_id, warnings))

    def _fail(self, payload: bytes) -> None:
        """An error packet, which ends the response."""
        self._error = _server_error(payload)
        self._error.completed = len(self.results)  # type: ignore[attr-defined]
        self._more = False

    def _part_of_a_huge_row(self, payload: bytes) -> None:
        result = self._result
        result.huge.append(payload)
        if sum(map(len, result.huge)) > _LONGEST:
            raise Malformed("a row exceeds the maximum length")
        if len(payload) < 0xFFFFFF:
            assert result.decoder is not None
            huge = b"".join(result.huge)
            result.huge = []
            if result.skipping:
                return
            try:
                result.rows.append(result.decoder.read_one(huge))
            except UnicodeDecodeError as error:
                self._skip_rows(huge, error)

    def _end_result(self, payload: bytes, rows: List[Any], names: Tuple[str, ...]) -> None:
        """The packet after the last row."""
        if len(payload) < 5 or payload[0] != 254:
            raise Malformed("what comes after the last row is not its end")
        self._add_result(rows, names, *_two_numbers(payload, 1))

    def _add_result(
        self, rows: List[Any], names: Tuple[str, ...], warnings: int, status: int
    ) -> None:
        if status & SERVER_SESSION_STATE_CHANGED:
            self.changes = (*self.changes, None)
        self.results.append(ResultSet(rows, names, len(rows), 0, warnings))
        self._more = status & _MORE_RESULTS != 0


class Responses:
    """The responses to several commands that were sent together.

    Args:
        count: The number of commands.
        new_response: Makes what is fed with the next response.

    Attributes:
        answers: For each command its complete response, or the server's error.
        rest: Data that was received after the last response.
    """

    def __init__(self, count: int, new_response: Callable[[], Response]) -> None:
        self.answers: List[Union[Response, pymysql.err.MySQLError]] = []
        self.rest = b""
        self._count = count
        self._new_response = new_response
        self._current = new_response()

    def feed(self, data: bytes) -> bool:
        """Process received data.

        Args:
            data: The received bytes, split anywhere.

        Returns:
            True when the last response is complete.

        Raises:
            pymysql.err.MySQLError: A protocol error, after which the connection is
                unusable.
        """
        while True:
            current = self._current
            try:
                if not current.feed(data):
                    return False
                self.answers.append(current)
            except pymysql.err.MySQLError as error:
                if not current.complete:
                    raise
                self.answers.append(error)
            data = current.rest
            if len(self.answers) == self._count:
                self.rest = data
                return True
            self._current = self._new_response()
            if not data:
                return False


class BatchResponse:
    """The response to a ``Batch``, with the attributes of a ``Response``.

    Args:
        options: What is wanted of it.
    """

    def __init__(self, options: ResponseOptions) -> None:
        self._responses = Responses(commands.BATCH_COMMANDS, lambda: Response(options))
        self._answer = Response(options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._answer, name)

    @property
    def rest(self) -> bytes:
        """Data that was received after the response."""
        return self._responses.rest

    def feed(self, data: bytes) -> bool:
        """Process received data.

        Args:
            data: The received bytes, split anywhere.

        Returns:
            True when the response is complete.

        Raises:
            BatchRefused: The server takes no batches, and did nothing.
            pymysql.err.MySQLError: As ``Response.feed``. ``completed`` is the number of
                statements before the one that failed.
        """
        if not self._responses.feed(data):
            return False
        allowed, answer, _ = self._responses.answers
        if isinstance(answer, Response):
            self._answer = answer
            return True
        if isinstance(allowed, pymysql.err.MySQLError) and not completed(answer):
            raise BatchRefused(*answer.args)
        raise answer


class BatchRefused(pymysql.err.ProgrammingError):
    """The server takes one statement in a command."""


def completed(error: BaseException) -> int:
    """Return the number of results that the server sent before an error."""
    return int(getattr(error, "completed", 0))


def _number_at(payload: bytes, position: int) -> Tuple[int, int]:
    """Return a length-encoded integer and the position after it."""
    first = payload[position] if position < len(payload) else 255
    if first < 251:
        return first, position + 1
    size = {252: 2, 253: 3, 254: 8}.get(first)
    if size is None or position + 1 + size > len(payload):
        raise Malformed("a length-encoded integer is invalid")
    return int.from_bytes(
        payload[position + 1 : position + 1 + size], "little"
    ), position + 1 + size


def _server_error(payload: bytes) -> Exception:
    """The error of an error packet.

    Raises:
        Malformed: The packet is none.
    """
    try:
        pymysql.err.raise_mysql_exception(payload)
    except pymysql.err.MySQLError as error:
        return error.with_traceback(None)
    except (struct.error, IndexError, ValueError):
        pass
    raise Malformed("an error packet is invalid")
