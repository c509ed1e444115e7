"""An incremental parser of the response to one command (sans I/O): fed from a socket in
threads and from a stream in asyncio.

Source: MySQL internals manual, "Text Protocol" (COM_QUERY response).
"""

import struct
from typing import Any, Callable, List, Optional, Tuple

import pymysql.err
from pymysql.constants import CR, SERVER_STATUS

from .. import errors
from ..results import ResultSet
from .row_decoder import Malformed, RowDecoder, row_decoder_of, skip_rows

#: The statement changed tracked session state; MariaDB also sets it after rows.
SERVER_SESSION_STATE_CHANGED = 0x4000
_MORE_RESULTS = SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS
_header = struct.Struct("<I").unpack_from
_two_numbers = struct.Struct("<HH").unpack_from

#: Limits of the protocol: the length of a row in bytes, and the number of columns.
_LONGEST = (1 << 30) + (1 << 24)
_MOST_COLUMNS = 65535


class Response:
    """The response to one command; ``feed`` it until it is complete.

    After a text that cannot be decoded, the remaining rows of its result are skipped.
    The response is still read to its end, so that the connection is reusable, and then
    the error is raised.

    Args:
        encoding: Python's name for the connection's character set.
        number: The sequence number of the first packet.
        tuples: Rows are tuples and not dicts.
        stream: The rows of the first result are taken while they arrive; those of
            further results are dropped.
        cached_decoder: The decoder of the previous response, reused if the columns are
            the same.
        most: The most rows of a result.
        compiled: Use the compiled decoder if it was built.

    Attributes:
        results: The complete result sets.
        rows: The rows of the incomplete one; a stream takes them away.
        decoder: The decoder of these rows.
        cached_decoder: The decoder of the last result with columns.
        server_status: The status flags of the last OK packet.
        message: The message and session state of the last OK packet; None after rows.
        complete: The whole response has been received.
        has_unexpected_data: More data than the response has been received.
        failure: The error of a stream, raised after the rows before it are taken.
    """

    server_status: Optional[int] = None
    message: Optional[bytes] = None
    decoder: Optional[RowDecoder] = None
    complete = has_unexpected_data = state_changed = False
    failure: Optional[pymysql.err.MySQLError] = None
    _more = False  # another result follows
    _skipping = False  # no more rows of this result are decoded
    _undecodable: Optional[errors.UndecodableText] = None
    _missing = 0  # bytes of the packet at hand
    _position = 0  # in the data at hand, up to where it has been read
    _taken = 0  # rows of a stream

    # Of the result at hand:
    _columns = 0  # their number, where the definitions have not all come
    _defined = 0  # how many of them have come
    _defined_to = 0  # and how many bytes they are

    def __init__(
        self,
        encoding: str,
        number: int = 1,
        *,
        tuples: bool = False,
        stream: bool = False,
        cached_decoder: Optional[RowDecoder] = None,
        most: Optional[int] = None,
        compiled: bool = True,
    ) -> None:
        self.results: List[ResultSet] = []
        self.rows: List[Any] = []
        self.cached_decoder = cached_decoder
        self._most = most
        self._compiled = compiled
        self._encoding = encoding
        self._number = number
        self._tuples = tuples
        self._stream = stream
        self._pieces: List[bytes] = []
        self._huge: List[bytes] = []
        # A function and no bound method, which would make a reference cycle: rows would
        # stay in memory until the next run of the garbage collector.
        self._state: Callable[[Response, bytes, int, int], Optional[int]] = Response._at_head

    @property
    def names(self) -> Optional[Tuple[str, ...]]:
        """The column names of the first result; None while they are unknown."""
        if self.results:
            return self.results[0].columns
        return None if self.decoder is None else self.decoder.names

    def take(self) -> List[Any]:
        """Remove and return the received rows of the first result.

        Raises:
            pymysql.err.MySQLError: The error of the response, after all rows before it
                have been taken.
        """
        rows = self.results[0].rows if self.results else self.rows
        taken = rows[:]
        rows.clear()
        self._taken += len(taken)
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
        if self._pieces:
            self._pieces.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return False
            data = b"".join(self._pieces)
            self._pieces = []
        try:
            position = self._parse(data)
        except (Malformed, IndexError, ValueError, TypeError, ArithmeticError) as error:
            raise pymysql.err.OperationalError(
                CR.CR_MALFORMED_PACKET, f"Malformed packet: {error}"
            ) from error
        if self.complete:
            self.has_unexpected_data = position < len(data)
            if self._undecodable is not None:
                raise self._undecodable
            return True
        if self._most is not None:
            errors.check_rows(len(self.rows), self._most)
        rest = data[position:]
        self._missing = 4 - len(rest) if len(rest) < 4 else self._missing
        self._pieces = [rest] if rest else []
        return False

    def _parse(self, data: bytes) -> int:
        """Parse as much as possible; return the position after it."""
        position: Optional[int] = 0
        self._position = 0
        while position is not None and not self.complete:
            self._position = position
            position = self._state(self, data, position, len(data))
        return self._position if position is None else position

    # The states, each parsing one part of the response. They return the position of the
    # next part, or None if more data is needed, from ``_position`` on.

    def _at_head(self, data: bytes, position: int, end: int) -> Optional[int]:
        """Parse the first packet of a result: OK, or the number of columns."""
        stop = self._packet_end(data, position, end)
        if stop is None:
            return None
        self._begin_result(data[position + 4 : stop])
        if self._columns:
            self._state = Response._at_definitions
        else:
            self.complete = not self._more
        return stop

    def _at_definitions(self, data: bytes, position: int, end: int) -> Optional[int]:
        """The definitions of the columns, and the packet that ends them."""
        cached = self.cached_decoder
        stop = position + self._defined_to
        if (
            cached is not None
            and data.startswith(cached.definitions, position)
            and cached.fits(self._columns, self._number, self._encoding, self._tuples)
        ):
            self._number = self._number + self._columns & 255
            self._defined = self._columns
            stop = position + len(cached.definitions)
        else:
            cached = None
        while self._defined < self._columns:
            after = self._packet_end(data, stop, end)
            if after is None:
                return None
            stop = after
            self._defined = self._defined + 1
            self._defined_to = after - position
        after = self._packet_end(data, stop, end)
        if after is None:
            self._defined_to = stop - position
            return None
        if not 0 < after - stop - 4 < 9 or data[stop + 4] != 254:
            raise Malformed("the column definitions are not followed by an EOF packet")
        self.decoder = self.cached_decoder = cached or row_decoder_of(
            data[position:stop], self._encoding, tuples=self._tuples, compiled=self._compiled
        )
        self._columns = 0
        self.message = None
        self._state = Response._at_rows
        return after

    def _at_rows(self, data: bytes, position: int, end: int) -> Optional[int]:
        """Parse the rows, and the packet that ends them."""
        over = False
        if not self._huge:
            position, over = self._read_rows(data, position, end)
            self._position = position
            # only the first result of a stream is wanted
            if self._stream and self.results:
                self.rows.clear()
        stop = self._packet_end(data, position, end)
        if stop is None:
            return None
        payload = data[position + 4 : stop]
        if over:
            self._end_result(payload)
        else:
            self._part_of_a_huge_row(payload)
        return stop

    def _read_rows(self, data: bytes, position: int, end: int) -> Tuple[int, bool]:
        """Decode all received rows; return the position, and whether they end there."""
        assert self.decoder is not None
        before = len(self.rows)
        read = skip_rows if self._skipping else self.decoder.read
        try:
            position, self._number, over = read(data, position, end, self._number, self.rows)
            return position, over
        except UnicodeDecodeError as error:
            # The rows before it have been decoded.
            for _ in range(len(self.rows) - before):
                position += 4 + int.from_bytes(data[position : position + 3], "little")
                self._number = self._number + 1 & 255
            stop = position + 4 + int.from_bytes(data[position : position + 3], "little")
            self._skip_rows(data[position + 4 : stop], error)
            return self._read_rows(data, position, end)

    def _skip_rows(self, payload: bytes, error: UnicodeDecodeError) -> None:
        """Record the undecodable text of a row; the result's other rows are skipped."""
        assert self.decoder is not None
        if self._undecodable is None:
            column = self.decoder.undecodable_column(payload)
            row = self._taken + len(self.rows)
            self._undecodable = errors.undecodable_text(row, column, error.encoding)
        self._skipping = True

    def _packet_end(self, data: bytes, position: int, end: int) -> Optional[int]:
        """Return the end of the packet at a position; None if it is incomplete."""
        if end - position < 4:
            self._missing = 4 - (end - position)
            return None
        header: int = _header(data, position)[0]
        number = self._number
        if header >> 24 != number:
            raise self._out_of_sequence(header >> 24)
        stop = position + 4 + (header & 0xFFFFFF)
        if stop > end:
            self._missing = stop - end
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
            affected, position = _number_at(payload, 1)
            insert_id, position = _number_at(payload, position)
            if position + 4 > len(payload):
                raise Malformed("an OK packet is too short")
            self.server_status, warnings = _two_numbers(payload, position)
            self.message = payload[position + 4 :]
            self._more = bool(self.server_status & _MORE_RESULTS)
            self.results.append(ResultSet([], (), affected, insert_id, warnings))
            return
        if first == b"\xff":
            raise _server_error(payload)
        if first == b"\xfb":
            raise errors.NotSupportedError(
                "the server requests a local file (LOAD DATA LOCAL), which is not supported"
            )
        self._columns, position = _number_at(payload, 0)
        if position != len(payload) or not 0 < self._columns <= _MOST_COLUMNS:
            raise Malformed("the number of columns is invalid")
        self._defined = self._defined_to = 0

    def _part_of_a_huge_row(self, payload: bytes) -> None:
        self._huge.append(payload)
        if sum(map(len, self._huge)) > _LONGEST:
            raise Malformed("a row exceeds the maximum length")
        if len(payload) < 0xFFFFFF:
            assert self.decoder is not None
            huge = b"".join(self._huge)
            self._huge = []
            if self._skipping:
                return
            try:
                self.rows.append(self.decoder.read_one(huge))
            except UnicodeDecodeError as error:
                self._skip_rows(huge, error)

    def _end_result(self, payload: bytes) -> None:
        """The packet after the last row."""
        if len(payload) < 5 or payload[0] != 254:
            if payload[:1] == b"\xff":
                raise _server_error(payload)
            raise Malformed("what comes after the last row is not its end")
        assert self.decoder is not None
        warnings, status = _two_numbers(payload, 1)
        self.state_changed = status & SERVER_SESSION_STATE_CHANGED != 0
        self.results.append(ResultSet(self.rows, self.decoder.names, len(self.rows), 0, warnings))
        self.rows = []
        self.decoder = None
        self._skipping = False
        self._state = Response._at_head
        self._more = status & _MORE_RESULTS != 0
        self.complete = not self._more


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
    try:
        pymysql.err.raise_mysql_exception(payload)
    except pymysql.err.MySQLError as error:
        return error
    except (struct.error, IndexError, ValueError):
        pass
    return Malformed("an error packet is invalid")
