"""A PyMySQL connection with a tracked state, opened within one deadline."""

import contextlib
import socket
import time
from typing import Any, Callable, List, Optional, Sequence, Tuple

import pymysql.connections
import pymysql.err
from pymysql.constants import CR
from pymysql.protocol import FieldDescriptorPacket, MysqlPacket

from .. import errors, fork_safety, results
from ..config import DatabaseConfig
from ..endpoints.state import NOWHERE, Endpoint
from ..protocol import authentication, commands, driver_check, tls
from ..protocol.connection_state import (
    ConnectionState,
    WireState,
    handshake_error,
    is_unreadable,
    password_for_driver,
)
from ..protocol.row_decoder import ColumnDefinition
from ..protocol.session_setup import STATE_CHANGED, new_lock_name
from .transport import TLSContext, Transport

#: Seconds to take what has come while the connection was not read from.
RECEIVED_GRACE = 0.01


class _Recorded(driver_check.Recorded):
    _read_packet = driver_check.Recorded.packet


def _rows_by_driver() -> Any:
    result: Any = pymysql.connections.MySQLResult(_Recorded())  # type: ignore[arg-type]
    result.read()
    return result.rows


def _connect_to_host(host: str, port: int, until: float) -> socket.socket:
    """Connect to the first address of a host that accepts, before ``until``; each of
    them has its share of the time.
    """
    found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    failure: OSError = socket.timeout("timed out")
    for number, (family, kind, protocol, _, address) in enumerate(found):
        candidate = socket.socket(family, kind, protocol)
        try:
            left = max(until - time.monotonic(), 0.001)
            candidate.settimeout(left / (len(found) - number))
            candidate.connect(address)
            return candidate
        except OSError as error:
            candidate.close()
            failure = error
        except BaseException:
            candidate.close()
            raise
    raise failure


class Connection(
    authentication.Authentication,
    ConnectionState,
    pymysql.connections.Connection,
):
    """One session with a server.

    It is created without I/O. ``open_session`` connects it, again after it was closed.
    """

    MATCHES_DRIVER = driver_check.trusted(
        pymysql.connections.Connection, _rows_by_driver, pymysql.__version__
    )

    #: DBUtils' handle while the connection is out of the store.
    handle: Any = None
    #: How many answers to a reset are to be read.
    _reset_answers = 0

    transport: Optional[Transport]
    _sock: Any
    _rfile: Any
    _next_seq_id: int
    _result: Any

    def __init__(self, config: DatabaseConfig) -> None:
        self._config = config
        super().__init__(
            host=config.host,
            port=config.port,
            unix_socket=config.unix_socket,
            user=config.user,
            password="",  # looked up when it connects
            database=config.database,
            charset=config.charset,
            autocommit=None,
            local_infile=False,
            connect_timeout=config.connect_timeout,
            read_timeout=config.read_timeout,
            write_timeout=config.write_timeout,
            ssl_disabled=True,
            program_name="dualdb",
            defer_connect=True,
        )

    def open_session(self, context: Any, until: float, endpoint: Endpoint = NOWHERE) -> None:
        """Connect: TCP, TLS, authentication and session set-up.

        Args:
            context: For TLS; None without.
            until: When all of it must be over, by time.monotonic().
            endpoint: The host; by default that of the configuration.

        Raises:
            ConnectionFailed: With the server's or the client library's code.
        """
        self.aim_at(endpoint)
        self.ssl = context is not None
        self.ctx = None if context is None else TLSContext(context)
        self._ssl_required = tls.is_required(self._config)
        self._secure = self._config.unix_socket is not None
        self.begin_session()
        try:
            self.password = self._look_up_password()
            transport = Transport(self._open_socket(until), self._config, self._in_use)
            self.transport = transport
            transport.until = until
            self.connect(transport)  # type: ignore[arg-type]
        except (OSError, UnicodeError) as error:  # UnicodeError: a host that is no name
            authentication.forget_locals(error)
            server = self._config.unix_socket or self.host
            message = f"Can't connect to MySQL server on {server!r} ({error})"
            errors.raise_translated(error, errors.ConnectionFailed(CR.CR_CONN_HOST_ERROR, message))
        except errors.DRIVER_ERRORS as error:
            authentication.forget_locals(error)
            errors.raise_translated(error, errors.from_driver(error, errors.ConnectionFailed))
        except BaseException as error:
            authentication.forget_locals(error)
            self.abort()
            if is_unreadable(error):
                errors.raise_translated(
                    error, errors.from_driver(handshake_error(error), errors.ConnectionFailed)
                )
            raise
        transport.until = None
        self.session_opened(endpoint)

    def _look_up_password(self) -> bytes:
        try:
            return password_for_driver(self._config).encode("latin1")
        except ValueError as error:
            raise authentication.lookup_failed(error) from error

    def _request_authentication(self) -> None:
        self.track_changes()
        self.prepare_authentication(self._sock.getpeername())
        super()._request_authentication()  # type: ignore[misc]

    def _process_auth(self, plugin_name: Any, auth_packet: Any, handler: Any = None) -> Any:
        self.check_plugin(plugin_name)
        return super()._process_auth(plugin_name, auth_packet, handler)  # type: ignore[misc]

    def set_character_set(self, charset: str, collation: Any = None) -> None:
        """Set up a new session, its character set included; PyMySQL calls it first.

        Args:
            charset: The configuration's is used.
            collation: The character set's is used.
        """
        for lock in (new_lock_name(), None):
            setup = self.setup_commands(lock)
            self._open_transport().send(commands.together(setup))
            if self.finish_setup(self._receive_answers(len(setup)), lock):
                return

    def _receive_answers(self, count: int) -> List[Any]:
        """Receive the responses to commands that were sent together; for a refused
        command, the server's error.
        """
        responses = self.new_responses(count)
        while not responses.feed(self._open_transport().receive()):
            pass
        return self.apply_responses(responses)

    def _open_transport(self) -> Transport:
        """Return the transport.

        Raises:
            pymysql.err.OperationalError: There is none, or it is closed.
        """
        if self.transport is None or self.transport.closed:
            raise self.gone_away()
        return self.transport

    def query(self, sql: Any, unbuffered: bool = False) -> Any:
        """Send a statement; PyMySQL's cursors do so.

        Args:
            sql: Text, or bytes in the connection's character set.
            unbuffered: The rows are read as they are asked for.

        Raises:
            InterfaceError: It would change the character set; nothing was sent.
            pymysql.err.MySQLError: As PyMySQL.
        """
        if self._in_use.locked():
            return super().query(sql, unbuffered)
        self.check_cursor_statement(sql)
        try:
            return super().query(sql, unbuffered)
        except pymysql.err.MySQLError as error:
            if self.may_have_other_charset(sql, error):
                super().query(self.set_names)
            raise

    def _read_query_result(self, unbuffered: bool = False) -> Any:
        affected = super()._read_query_result(unbuffered)  # type: ignore[misc]
        status = self._result.server_status
        if status is not None and status & STATE_CHANGED and not self._in_use.locked():
            self.record_change(self._result.message or b"")
        return affected

    def _read_packet(self, packet_type: Any = MysqlPacket) -> Any:
        kind = ColumnDefinition if packet_type is FieldDescriptorPacket else packet_type
        return super()._read_packet(kind)  # type: ignore[no-untyped-call]

    def _open_socket(self, until: float) -> socket.socket:
        """Return a connected socket.

        PyMySQL's own code leaves one unclosed if a unix socket refuses.
        """
        limit = max(until - time.monotonic(), 0.001)
        path = self._config.unix_socket
        if path is None:
            opened = _connect_to_host(self.host, self.port, until)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return opened
        if not hasattr(socket, "AF_UNIX"):
            raise OSError("this system has no unix sockets")
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            opened.settimeout(limit)
            opened.connect(path)
        except BaseException:
            opened.close()
            raise
        return opened

    @property
    def open(self) -> bool:
        """Its socket is open."""
        return self.transport is not None and not self.transport.closed

    def is_stale(self) -> bool:
        """Return whether the server has closed an idle connection, or sent unexpected
        data on it. Costs no round trip.
        """
        return self.transport is None or self.transport.is_stale()

    def peer_closed(self) -> bool:
        """Return whether the server has closed the connection, even if there is unread
        data.
        """
        return not self.open or (not self.aborted and self._open_transport().peer_closed())

    def abort_in_use(self) -> None:
        """Make the thread that waits on it find the connection lost.

        The server's session continues until it is killed.
        """
        self.aborted = True
        if self.transport is not None and not self.transport.closed:
            # Nobody waits for an answer: the server notices at once, and rolls back
            # what is open.
            self.transport.shutdown(socket.SHUT_RDWR if self.idle else socket.SHUT_RD)

    def run(self, command: bytes, until: Optional[float] = None) -> List[results.ResultSet]:
        """Send one command and read its whole response.

        Args:
            command: The statement, in the connection's character set.
            until: When that must be over, by time.monotonic(); None for no limit but
                ``read_timeout`` and ``write_timeout``.

        Returns:
            The result sets; the last one is that of the last OK packet.

        Raises:
            ConcurrentUseError: Another command is on its way; nothing was sent.
            TransactionAborted: The session must not be used any more.
            PacketTooLarge: The server takes no such long command; nothing was sent.
            DeadlineExceeded: It was not over by ``until``.
            TooManyRows: There are more than ``row_options`` allow.
            pymysql.err.MySQLError: The server's error, or the connection is lost.
        """
        if not self.uses_own_decoder and type(command) is not commands.Batch:
            return self._run_by_driver(command, until)
        self.send(command, until)
        if self.while_waiting is not None:
            self._call_while_waiting(self.while_waiting)
        response = self.receive_response()
        while response is None:
            response = self.receive_response()
        return response

    def _call_while_waiting(self, call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:  # an interrupt
            raise self._failed(error) from None
        transport = self.transport
        if transport is not None and transport.until is not None:
            # What has come during the call is not late.
            transport.until = max(transport.until, time.monotonic() + RECEIVED_GRACE)

    def send(self, command: bytes, until: Optional[float] = None) -> None:
        """The first half of ``run``, for a caller that waits for the responses of
        several connections at once.

        Args:
            command: As for ``run``.
            until: As for ``run``.

        Raises:
            Exception: As ``run``.
        """
        if self.facts.max_packet is not None:
            self.check_length(command)
        transport = self._begin(until)
        try:
            self._send(transport, command)
            self.codec.response = self.new_response(command)
        except BaseException as error:
            raise self._failed(error) from None

    def receive_response(self, *, in_time: bool = True) -> Optional[List[results.ResultSet]]:
        """The second half of ``run``: process what has been received.

        Args:
            in_time: False where nothing has come by ``receive_deadline``.

        Returns:
            The result sets; None while the answer is not complete.

        Raises:
            Exception: As ``run``.
        """
        try:
            response = self.codec.response
            transport = self._open_transport()
            if not in_time:
                raise transport.lost(socket.timeout("timed out"))
            if not response.feed(transport.receive()):
                return None
        except BaseException as error:
            raise self._failed(error) from None
        transport.until = self.codec.response = None
        self.apply_response(response)
        sets: List[results.ResultSet] = response.results
        self.end_command(response.message, sets[-1].warnings)
        return sets

    def drop_command(self) -> None:
        """Stop waiting for the response."""
        if self._in_use.locked():
            self._failed(GeneratorExit())

    def fileno(self) -> int:
        """Return the socket's file descriptor."""
        return self._open_transport().fileno()

    @property
    def has_more(self) -> bool:
        """Whether TLS has received data that the socket does not show."""
        return self._open_transport().has_more

    def receive_deadline(self) -> float:
        """When to call ``receive_response(in_time=False)`` if nothing was received, by
        time.monotonic().
        """
        return self._open_transport().receive_deadline()

    def _begin(self, until: Optional[float]) -> Transport:
        self.begin_command()
        self.codec.response = None
        transport = self.transport
        if transport is None or transport.closed or self.aborted:
            raise self._failed(self.gone_away())
        transport.until = until
        transport.timed_out = False
        return transport

    def _send(self, transport: Transport, command: bytes) -> None:
        if self._result is not None:
            self._finish_cursor()
        transport.send(commands.encode(command))
        self._written = self.sent = True
        if type(command) is commands.Batch:
            transport.send(commands.END_OF_BATCH)

    def _finish_cursor(self) -> None:
        """Read the response that a driver's cursor has left unread."""
        while self._result is not None and (
            self._result.unbuffered_active or self._result.has_next
        ):
            if self._result.unbuffered_active:
                self._result._finish_unbuffered_query()
            else:
                self.next_result()
        self._result = None

    def _failed(self, error: BaseException) -> BaseException:
        """Return the exception to raise for an error that ended a command."""
        error = self.readable(error)
        response = self.codec.response
        self.codec.response = None
        if response is not None:
            self.apply_response(response)
        late = self._ended_late()
        self.break_command(error, gave_up=self._timed_out)
        return self.deadline_exceeded() if late else error

    def _ended_late(self) -> bool:
        """Return whether the deadline of the command has passed, and clear it."""
        if self.transport is None:
            return False
        until = self.transport.until
        self.transport.until = None
        return self.transport.timed_out and until is not None and time.monotonic() > until - 0.001

    def _run_by_driver(self, command: bytes, until: Optional[float]) -> List[results.ResultSet]:
        self.check_length(command)
        transport = self._begin(until)
        try:
            self._ask_driver(transport, command)
            response = [results.result_set(self._result, tuples=self.row_options.as_tuples)]
            while self._result.has_next:
                self.next_result()
                response.append(results.result_set(self._result, tuples=self.row_options.as_tuples))
        except BaseException as error:
            raise self._failed(error) from None
        transport.until = None
        self.end_command(self._result.message, self._result.warning_count)
        return response

    def _ask_driver(
        self, transport: Transport, command: bytes, *, unbuffered: bool = False
    ) -> None:
        """Send a command whose response the driver reads."""
        self._send(transport, command)
        self._next_seq_id = commands.query_packets(command) & 255
        self._read_query_result(unbuffered)

    def start_stream(self, command: bytes, until: Optional[float]) -> Sequence[str]:
        """Send one command whose rows ``next_rows`` returns.

        Args:
            command: The statement, in the connection's character set.
            until: When all of it must be over, by time.monotonic(); None for no limit.

        Returns:
            The names of the columns.

        Raises:
            Exception: As ``run``.
        """
        self.check_length(command)
        transport = self._begin(until)
        self.sent = False
        self.wire = WireState.STREAMING
        try:
            if not self.uses_own_decoder:
                self._ask_driver(transport, command, unbuffered=True)
                return results.column_names(getattr(self._result, "fields", ()))
            self._send(transport, command)
            self.codec.response = self.new_response(command, stream=True)
            while self.codec.response.names is None:
                self.codec.response.feed_stream(transport.receive())
            names: Sequence[str] = self.codec.response.names
            return names
        except BaseException as error:
            raise self._stream_failed(error) from None

    def next_rows(self) -> List[Tuple[Any, ...]]:
        """Wait for more rows of a stream.

        Returns:
            The rows that have come since, at least one; none after the last, when the
            connection is idle again.

        Raises:
            Exception: As ``run``.
        """
        try:
            rows = self._next_rows() if self.uses_own_decoder else self._next_rows_of_driver()
        except BaseException as error:
            raise self._stream_failed(error) from None
        if not rows:
            self._open_transport().until = None
            self._end_stream(None)
        return rows

    def _next_rows(self) -> List[Tuple[Any, ...]]:
        rows: List[Tuple[Any, ...]] = self.codec.response.take()
        while not rows and not self.codec.response.complete:
            self.codec.response.feed_stream(self._open_transport().receive())
            rows = self.codec.response.take()
        return rows

    def _next_rows_of_driver(self) -> List[Tuple[Any, ...]]:
        row = self._result._read_rowdata_packet_unbuffered()
        while row is None and self._result.has_next:
            self.next_result()
        return [] if row is None else [row]

    def _stream_failed(self, error: BaseException) -> BaseException:
        error = self.readable(error)
        late = self._ended_late()
        self._end_stream(error)
        return (
            self.deadline_exceeded() if late and isinstance(error, errors.DRIVER_ERRORS) else error
        )

    def begin_reset(self, *, only_diagnostics: bool = False) -> None:
        """Send the commands that reset the session. Their responses are read before the
        next use, when they have usually arrived.

        Args:
            only_diagnostics: Nothing but the last statement's warnings is forgotten.
        """
        reset = self.reset_commands(only_diagnostics=only_diagnostics)
        transport = self._open_transport()
        self.dirty = False
        self.wire = WireState.RESETTING
        transport.until = None
        self._reset_answers = len(reset)
        transport.send(commands.together(reset))

    def finish_reset(self, until: float) -> None:
        """Read the responses to the commands of ``begin_reset``.

        Args:
            until: When that must be over, by time.monotonic().

        Raises:
            pymysql.err.MySQLError: The connection must not be used.
        """
        self.wire = WireState.CLOSED
        transport = self._open_transport()
        transport.until = until
        try:
            answers = self._receive_answers(self._reset_answers)
        except Exception as error:
            raise self.readable(error) from error
        self.finish_reset_with(answers)
        transport.until = None

    def quit(self) -> None:
        """Close it, with COM_QUIT if it is idle."""
        if self.transport is None or self.transport.closed:
            return
        if self.idle:
            with contextlib.suppress(OSError):
                self.transport.sendall(commands.QUIT)
        self.abort()
        self.wire = WireState.CLOSED

    def _close_descriptor(self) -> None:
        fork_safety.never_finalize(self.handle)
        if self.transport is not None and not self.transport.closed:
            self.transport.close_descriptor()
        self._sock = self._rfile = None

    def abort(self) -> None:
        """Close the socket at once, without COM_QUIT."""
        if self.transport is not None:
            self.transport.abort()
        self._sock = self._rfile = None
