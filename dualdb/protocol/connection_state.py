"""What both colours' connections know of themselves, beside the socket."""

import os
import random
import struct
import threading
import time
from abc import abstractmethod
from typing import Any, Optional, Tuple

import pymysql.converters
import pymysql.err
from pymysql.constants import CLIENT, COMMAND, CR, SERVER_STATUS
from pymysql.protocol import MysqlPacket

from .. import errors, fork_safety
from ..config import DatabaseConfig
from ..sql.literals import time_zone
from .exchange import TextEncoding
from .response import Response
from .row_decoder import DecoderName, decoder_name

_COM_RESET_CONNECTION = 31
_SESSION_TRACK = CLIENT.SESSION_TRACK
#: In the flags of an OK packet: the statement has changed what is tracked.
_STATE_CHANGED = 0x4000
#: What is tracked: a variable, the database, a temporary table or a prepared statement.
#: MySQL tracks transactions as well, unasked.
_SESSION_TRACK_STATE_CHANGE = 2


def password_for_driver(config: DatabaseConfig) -> str:
    """The password as a driver wants it: both write it as Latin-1, where a server
    expects what it was given in UTF-8.
    """
    return config.reveal_password().encode("utf-8", "surrogateescape").decode("latin1")


def _tells_of_a_change(said: bytes) -> bool:
    """What an OK packet says after its flags: a text, then a list of (kind, value)."""
    packet: Any = MysqlPacket(said, "latin1")
    packet.read_length_coded_string()
    tracked = packet.read_length_coded_string()
    while tracked:
        if tracked[0] == _SESSION_TRACK_STATE_CHANGE:
            return True
        packet = MysqlPacket(tracked[1:], "latin1")
        packet.read_length_coded_string()
        tracked = packet.read_all()
    return False


class ConnectionState:
    """Mixed into a driver's connection: is it at rest, is it clean, was it changed, how
    does it want its text.

    ``server_status``, ``client_flag``, ``server_capabilities`` and ``encoding`` are the
    driver's. The flags come from the OK packets
    alone: a SELECT inside a transaction that was opened with autocommit off would not
    set IN_TRANS in either driver, which is why autocommit stays on and BEGIN is always
    explicit.
    """

    server_status: int
    server_capabilities: int
    client_flag: int
    encoding: Any
    server_version: str = ""
    server_thread_id: Tuple[int]
    _config: DatabaseConfig
    _result: Any
    _timed_out: bool
    _next_seq_id: int
    decoders: Any

    #: The most bytes of an answer that are taken at once.
    CHUNK = 65536

    #: Whether this package's reader fits the driver; the layout of the last answer it
    #: read, and the answer to a stream's command.
    MATCHES_DRIVER = False
    _cached_decoder: Any = None
    #: More rows than these of the command at hand are an error; None for no such limit.
    most_rows: Optional[int] = None
    #: Its rows are tuples, not dicts.
    tuple_rows = False
    response: Any = None

    def __init__(self, **driver_options: Any) -> None:
        self._in_use = threading.Lock()
        self._row_decoder = self.decoder_for(self._config)
        super().__init__(**driver_options)
        fork_safety.register(self)

    #: The session is that of the process this one was forked from, and that process.
    inherited = False
    owner_pid = 0
    #: time.monotonic() when the session was opened, when it is too old, and when it was
    #: last given back.
    connected_at = expires_at = last_used_at = 0.0
    #: When its server said that it is not the primary, or not in service; 0 if it has
    #: not.
    refused_at = 0.0
    #: False from the first byte of a command to the last packet of its answer: what is
    #: read next would be somebody else's.
    idle = True
    #: The whole of the last command has left this process.
    _written = False
    #: The same of any command of the statement or the transaction's end that is on its
    #: way; whoever begins one sets it to False.
    sent = False
    #: Nobody waits for the answer any more, but the server may still be working on it.
    needs_kill = False
    #: The pool has broken it, for a borrower that would not end.
    aborted = False
    #: A borrower has changed the session beyond a transaction.
    dirty = False
    #: Its session is being ended on the server although its borrower still holds it:
    #: whether that is done. None where it is not.
    ended: Optional[bool] = None
    #: The rows of a stream are being read.
    streaming = False
    #: A reset has been sent, and its answer not yet been read; the connection may have
    #: been closed or lost since.
    resetting = False

    @property
    def reset_after_call(self) -> bool:
        return self._config.reset_after_call

    @classmethod
    def decoder_for(cls, config: DatabaseConfig) -> DecoderName:
        """What decodes the rows of connections with this configuration."""
        return decoder_name(config.row_decoder, driver_fits=cls.MATCHES_DRIVER)

    @property
    def uses_own_decoder(self) -> bool:
        """Whether answers are read by ``reader`` and not by the driver, which honours
        converters that a cursor's user has set.
        """
        if self._row_decoder == "driver":
            return False
        return not self.dirty or bool(self.decoders == pymysql.converters.decoders)

    @property
    def max_rows(self) -> Optional[int]:
        return self._config.max_rows

    @property
    def session_id(self) -> int:
        """The server's CONNECTION_ID() of it."""
        return self.server_thread_id[0]

    @property
    def text_encoding(self) -> TextEncoding:
        """How it wants text."""
        plain = self.server_status & SERVER_STATUS.SERVER_STATUS_NO_BACKSLASH_ESCAPES
        zone = time_zone(getattr(self._config, "time_zone", None))
        return TextEncoding(self.encoding, not plain, zone)

    @property
    def in_transaction(self) -> bool:
        return bool(self.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)

    @property
    def reusable(self) -> bool:
        """At rest, in autocommit and outside a transaction: the next borrower finds it
        as it was, if it is not ``dirty``.
        """
        # an exception came just when its command began or ended
        if self._in_use.locked():
            return False
        return (
            self.idle
            and bool(self.server_status & SERVER_STATUS.SERVER_STATUS_AUTOCOMMIT)
            and not self.in_transaction
        )

    def session_opened(self) -> None:
        """As the object may have had another session before."""
        self.owner_pid = os.getpid()
        self.connected_at = self.last_used_at = time.monotonic()
        self.idle, self.sent, self._written, self.ended = True, False, False, None
        self.needs_kill = self.aborted = self.dirty = self.resetting = False
        self.refused_at, self.max_packet = 0.0, None
        self._in_use = threading.Lock()
        # Spread over a tenth, so that connections made together are not all replaced
        # together.
        self.expires_at = (
            float("inf")
            if self._config.max_lifetime is None
            else self.connected_at + self._config.max_lifetime * random.uniform(0.9, 1)
        )

    def is_too_old(self, now: float, opened_after: float) -> bool:
        """Whether it is to be replaced: by its own age, or because the pool has retired
        those that were opened before.
        """
        return self.expires_at < now or self.connected_at <= opened_after

    def _forked(self) -> None:
        self.inherited, self.idle, self._in_use = True, False, threading.Lock()
        self._close_descriptor()

    @abstractmethod
    def abort(self) -> None:
        """Drop the socket at once, without a word."""

    @abstractmethod
    def _close_descriptor(self) -> None:
        """Drop this process's descriptor of the socket, without a word and without
        touching the session.
        """

    # One command.

    #: The server's limit on one packet, as far as it was asked for (``learn_limit``).
    #: The session keeps the one it began with.
    max_packet: Optional[int] = None

    def check_length(self, command: bytes) -> None:
        """Raises: PacketTooLarge before any byte is written. The server takes less than
        its limit, with a byte for the kind of command (measured with MariaDB 10.11 and
        MySQL 9.7).
        """
        if self.max_packet is not None and len(command) + 1 >= self.max_packet:
            raise errors.PacketTooLarge(
                f"the statement has {len(command)} bytes, and the server takes less than "
                f"{self.max_packet - 1} (max_allowed_packet)"
            )

    def begin_command(self) -> None:
        """Raises: ConcurrentUseError before any byte is written, if another thread or
        task is in the middle of a command.
        """
        if not self._in_use.acquire(blocking=False):
            raise errors.ConcurrentUseError(
                "a stream is being read on this connection: read it to its end, or close it, "
                "before anything else is sent there"
                if self.streaming
                else "another thread or task is using this connection: "
                "a transaction belongs to one at a time"
            )
        self.idle = self._written = False

    def end_command(self, said: Optional[bytes]) -> None:
        """The answer is complete.

        ``said`` is the rest of an OK packet; None after rows, which tell of no change.
        """
        if said is not None and self.server_status & _STATE_CHANGED and _tells_of_a_change(said):
            self.dirty = True
        self.idle = True
        self._in_use.release()

    def break_command(self, error: BaseException, *, gave_up: bool) -> None:
        """An error ended it: a server's refusal, which is an answer too, or a lost
        connection, or nobody waits any more (``gave_up``).
        """
        if isinstance(error, pymysql.err.MySQLError) and "MariaDB" in self.server_version:
            error.is_from_mariadb = True  # type: ignore[attr-defined]
        self.idle = errors.ends_answer(error)
        if errors.means_not_primary(error):
            self.refused_at = time.monotonic()
        gave_up = (
            gave_up
            or self.aborted
            or isinstance(error, errors.TooManyRows)
            or not isinstance(error, errors.DRIVER_ERRORS)
        )
        self.needs_kill = gave_up and self._written and not self.idle
        self._in_use.release()

    def drop_stream(self) -> None:
        """Nobody reads on."""
        self._end_stream(GeneratorExit())

    def _end_stream(self, error: Optional[BaseException]) -> None:
        self.streaming, result, response = False, self._result, self.response
        if response is not None:
            self.response = None
            self.apply_response(response)
        if error is None:
            self.end_command(None)
            return
        if result is not None:
            result.unbuffered_active = False  # or the driver would read the rest of it
        self.break_command(error, gave_up=self._timed_out)

    # The answer, where it is not the driver that reads it.

    def new_response(self, *, stream: bool = False) -> Any:
        return Response(
            self.encoding,
            self._next_seq_id,
            tuples=stream or self.tuple_rows,
            stream=stream,
            cached_decoder=self._cached_decoder,
            most=None if stream else self.most_rows,
            compiled=self._row_decoder == "compiled",
        )

    def apply_response(self, response: Any) -> None:
        """What it has told of the session, whole or not."""
        self._cached_decoder = response.cached_decoder
        if response.server_status is not None:
            self.server_status = response.server_status
        # the server has said something unasked, as it does when it shuts down
        if response.has_unexpected_data:
            self.abort()

    @property
    def fields(self) -> Any:
        """The column definitions of the last result."""
        return self._cached_decoder.fields if self.uses_own_decoder else self._result.fields

    def gone_away(self) -> pymysql.err.OperationalError:
        return pymysql.err.OperationalError(CR.CR_SERVER_GONE_ERROR, "MySQL server has gone away")

    def deadline_exceeded(self) -> errors.DeadlineExceeded:
        return errors.DeadlineExceeded(
            CR.CR_SERVER_LOST, "the deadline passed before the answer was complete"
        )

    # What a session is given when it is opened, and again when it is reset.

    def track_changes(self) -> None:
        """Before authentication: have the server say when a statement changes the
        session.
        """
        if self.server_capabilities & _SESSION_TRACK:
            self.client_flag |= _SESSION_TRACK

    @property
    def setup(self) -> str:
        # Without SET NAMES the collation is the handshake's, which is not the server's
        # default in MySQL 8 and later.
        tracking = ", session_track_state_change=1" if self.client_flag & _SESSION_TRACK else ""
        return f"SET NAMES {self._config.charset}{tracking}"

    @property
    def reset_packets(self) -> bytes:
        """Three commands at once: all but the database and autocommit as in a new
        session, and then these.
        """
        commands = (
            bytes([_COM_RESET_CONNECTION]),
            bytes([COMMAND.COM_INIT_DB]) + self._config.database.encode(self.encoding),
            bytes([COMMAND.COM_QUERY]) + f"{self.setup}, autocommit=1".encode("ascii"),
        )
        return b"".join([struct.pack("<I", len(command)) + command for command in commands])

    #: How many answers ``reset_packets`` has.
    RESET_RESPONSES = 3
