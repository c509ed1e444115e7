"""A PyMySQL connection that knows its state, and whose opening has one deadline."""

import contextlib
import select
import socket
import ssl
import time
from typing import Any, Callable, List, Optional, Sequence, Tuple

import pymysql.connections
import pymysql.err
from pymysql.constants import COMMAND, CR
from pymysql.protocol import FieldDescriptorPacket, MysqlPacket

from .. import errors, fork_safety, results
from ..config import DatabaseConfig
from ..endpoints.state import NOWHERE, Endpoint
from ..protocol import authentication, driver_check, tls
from ..protocol.connection_state import (
    ConnectionState,
    WireState,
    handshake_error,
    is_unreadable,
    password_for_driver,
)
from ..protocol.row_decoder import ColumnDefinition
from ..protocol.session_setup import STATE_CHANGED, new_lock_name, packets

#: What poll() says of a socket whose other end is closed.
HANGS_UP = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)


class _Recorded(driver_check.Recorded):
    _read_packet = driver_check.Recorded.packet


def _rows_by_driver() -> Any:
    result: Any = pymysql.connections.MySQLResult(_Recorded())  # type: ignore[arg-type]
    result.read()
    return result.rows


class Connection(
    authentication.Authentication,
    ConnectionState,
    pymysql.connections.Connection,
):
    """One session with a server.

    Made without I/O; ``open`` connects it, and connects it again after it was closed.
    """

    MATCHES_DRIVER = driver_check.trusted(
        pymysql.connections.Connection, _rows_by_driver, pymysql.__version__
    )

    #: DBUtils' handle while the connection is out of the store.
    handle: Any = None
    #: How many answers to a reset are to be read.
    _reset_answers = 0

    #: When what is being read or written must be over; and that it, or a limit on
    #: silence, has passed.
    _until: Optional[float] = None
    _timed_out = False

    _sock: Any
    _rfile: Any
    _current_timeout: Optional[float]
    _next_seq_id: int
    _result: Any
    _read_timeout: Optional[float]
    _write_timeout: Optional[float]
    _force_close: Callable[[], None]

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
        self.ssl, self.ctx, self._ssl_required = (
            context is not None,
            context,
            tls.is_required(self._config),
        )
        self._until = until
        self._secure = False
        try:
            self.password = self._look_up_password()
            self.connect(self._open_socket(until))
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
            self._force_close()
            if is_unreadable(error):
                errors.raise_translated(
                    error, errors.from_driver(handshake_error(error), errors.ConnectionFailed)
                )
            raise
        self._until = None
        self.session_opened(endpoint)
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN | HANGS_UP)

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
        """What PyMySQL sends first in a new session.

        Args:
            charset: The configuration's is used.
            collation: The character set's is used.
        """
        for lock in (new_lock_name(), None):
            commands = self.setup_commands(lock)
            self._write_bytes(packets(commands))
            if self.finish_setup(self._read_answers(len(commands)), lock):
                return

    def _read_answers(self, count: int) -> List[Any]:
        """The results of commands that were sent at once, or a server's errors."""
        answers: List[Any] = []
        for _ in range(count):
            self._next_seq_id = 1
            try:
                super()._read_query_result()  # type: ignore[misc]
                answers.append(self._result)
            except pymysql.err.MySQLError as error:
                if not errors.is_server_error(error):
                    raise
                answers.append(error)
        self._result = None
        return answers

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
        is_column = packet_type is FieldDescriptorPacket
        return super()._read_packet(ColumnDefinition if is_column else packet_type)  # type: ignore[no-untyped-call]

    def _open_socket(self, until: float) -> socket.socket:
        """The socket, connected.

        PyMySQL's own way leaves one behind unclosed where a unix socket refuses.
        """
        limit = max(until - time.monotonic(), 0.001)
        path = self._config.unix_socket
        if path is None:
            dialled = socket.create_connection((self.host, self.port), limit)
            dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            dialled.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return dialled
        dialled = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            dialled.settimeout(limit)
            dialled.connect(path)
        except BaseException:
            dialled.close()
            raise
        self._secure = True
        return dialled

    def is_stale(self) -> bool:
        """True if the server has closed an idle connection or sent something on it
        unasked. Costs no round trip.
        """
        if self._sock is None:
            return True
        return bool(self._poll.poll(0))

    def peer_closed(self) -> bool:
        """True if the server has closed the connection, whatever it may have sent
        before.
        """
        return self._sock is None or (
            not self.aborted and any(event & HANGS_UP for _, event in self._poll.poll(0))
        )

    def abort_in_use(self) -> None:
        """Have the thread that waits on it find it lost.

        The session lives until it has been ended on the server.
        """
        self.aborted = True
        sock = self._sock
        if sock is not None:
            with contextlib.suppress(OSError):
                # Nobody waits for an answer: the server notices at once, and rolls back
                # what is open.
                sock.shutdown(socket.SHUT_RDWR if self.idle else socket.SHUT_RD)

    def run(self, command: bytes, until: Optional[float] = None) -> List[results.ResultSet]:
        """Send one command and read its whole answer.

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
        if not self.uses_own_decoder:
            return self._run_by_driver(command, until)
        self.send(command, until)
        response = self.receive_response()
        while response is None:
            response = self.receive_response()
        return response

    def send(self, command: bytes, until: Optional[float] = None) -> None:
        """The first half of ``run``, for a caller that takes the answers of several
        connections as they come.

        Args:
            command: As for ``run``.
            until: As for ``run``.

        Raises:
            Exception: As ``run``.
        """
        if self.facts.max_packet is not None:
            self.check_length(command)
        self._begin(until)
        try:
            self._execute_command(COMMAND.COM_QUERY, command)
            self.codec.response = self.new_response()
        except BaseException as error:
            raise self._failed(error) from None

    def receive_response(self, *, in_time: bool = True) -> Optional[List[results.ResultSet]]:
        """The second half of ``run``: take what has come of the answer.

        Args:
            in_time: False where nothing has come by ``receive_deadline``.

        Returns:
            The result sets; None while the answer is not complete.

        Raises:
            Exception: As ``run``.
        """
        try:
            response = self.codec.response
            if not in_time:
                raise self._lost(socket.timeout("timed out"))
            if not response.feed(self._receive()):
                return None
        except BaseException as error:
            raise self._failed(error) from None
        self._until = self.codec.response = None
        self.apply_response(response)
        sets: List[results.ResultSet] = response.results
        self.end_command(response.message, sets[-1].warnings)
        return sets

    def drop_command(self) -> None:
        """Nobody waits for the answer any more."""
        if self._in_use.locked():
            self._failed(GeneratorExit())

    def fileno(self) -> int:
        """Of its socket."""
        return int(self._sock.fileno())

    @property
    def has_more(self) -> bool:
        """Something has come that its socket does not show any more: TLS has it."""
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    def receive_deadline(self) -> float:
        """When to call ``receive_response(in_time=False)`` if nothing comes until then;
        by time.monotonic().
        """
        silence = (
            float("inf") if self._read_timeout is None else time.monotonic() + self._read_timeout
        )
        return silence if self._until is None else min(silence, self._until)

    def _begin(self, until: Optional[float]) -> None:
        self.begin_command()
        self._until = until
        self._timed_out = False
        self.codec.response = None
        if self._sock is None or self.aborted:
            raise self._failed(self.gone_away())

    def _failed(self, error: BaseException) -> BaseException:
        """What is to be raised in place of the error that ended a command."""
        error = self.readable(error)
        until = self._until
        response = self.codec.response
        self._until = self.codec.response = None
        if response is not None:
            self.apply_response(response)
        self.break_command(error, gave_up=self._timed_out)
        return (
            self.deadline_exceeded()
            if self._timed_out and until is not None and time.monotonic() > until - 0.001
            else error
        )

    def _run_by_driver(self, command: bytes, until: Optional[float]) -> List[results.ResultSet]:
        self.check_length(command)
        self._begin(until)
        try:
            self.query(command)
            response = [results.result_set(self._result, tuples=self.row_options.as_tuples)]
            while self._result.has_next:
                self.next_result()
                response.append(results.result_set(self._result, tuples=self.row_options.as_tuples))
        except BaseException as error:
            raise self._failed(error) from None
        self._until = None
        self.end_command(self._result.message, self._result.warning_count)
        return response

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
        self.begin_command()
        self.sent = False
        self._timed_out = False
        self.wire = WireState.STREAMING
        self._until = until
        try:
            if self._sock is None or self.aborted:
                raise self.gone_away()
            if not self.uses_own_decoder:
                self.query(command, unbuffered=True)
                return results.column_names(getattr(self._result, "fields", ()))
            self._execute_command(COMMAND.COM_QUERY, command)
            self.codec.response = self.new_response(stream=True)
            self._result = None
            while self.codec.response.names is None:
                self.codec.response.feed_stream(self._receive())
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
            self._until = None
            self._end_stream(None)
        return rows

    def _next_rows(self) -> List[Tuple[Any, ...]]:
        rows: List[Tuple[Any, ...]] = self.codec.response.take()
        while not rows and not self.codec.response.complete:
            self.codec.response.feed_stream(self._receive())
            rows = self.codec.response.take()
        return rows

    def _next_rows_of_driver(self) -> List[Tuple[Any, ...]]:
        row = self._result._read_rowdata_packet_unbuffered()
        while row is None and self._result.has_next:
            self.next_result()
        return [] if row is None else [row]

    def _stream_failed(self, error: BaseException) -> BaseException:
        error = self.readable(error)
        until = self._until
        self._until = None
        self._end_stream(error)
        late = self._timed_out and until is not None and time.monotonic() > until - 0.001
        return (
            self.deadline_exceeded() if late and isinstance(error, errors.DRIVER_ERRORS) else error
        )

    def _execute_command(self, command: int, sql: Any) -> None:
        super()._execute_command(command, sql)  # type: ignore[misc]
        self._written = self.sent = True

    # PyMySQL's own ways close the socket when time is up. It stays open until the
    # statement has been ended on the server: as long as it is, the server gives the
    # session's id to nobody else.

    def _receive(self) -> bytes:
        """What has come of an answer, past PyMySQL's own buffer: it is empty, because
        it asks for no more than it needs.
        """
        try:
            if self._until is not None:
                self._allow(self._until, self._read_timeout)
            elif self._current_timeout != self._read_timeout:
                self._sock.settimeout(self._read_timeout)
                self._current_timeout = self._read_timeout
            data: bytes = self._sock.recv(self.CHUNK)
        except OSError as error:
            raise self._lost(error) from error
        if not data:
            raise pymysql.err.OperationalError(
                CR.CR_SERVER_LOST, "Lost connection to MySQL server during query"
            )
        return data

    def _read_bytes(self, num_bytes: int) -> bytes:
        try:
            data: bytes = (
                self._rfile.read(num_bytes)
                if self._until is None
                else self._read_until(num_bytes, self._until)
            )
            if len(data) < num_bytes:
                raise pymysql.err.OperationalError(
                    CR.CR_SERVER_LOST, "Lost connection to MySQL server during query"
                )
        except BaseException as error:
            # a cursor's doing, and nobody else would know that the answer was not read
            # to its end
            if not self._in_use.locked():
                self._force_close()
            if isinstance(error, OSError):
                raise self._lost(error) from error
            raise
        return data

    def _lost(self, error: OSError) -> pymysql.err.OperationalError:
        self._timed_out = isinstance(error, socket.timeout)
        return pymysql.err.OperationalError(
            CR.CR_SERVER_LOST, f"Lost connection to MySQL server during query ({error})"
        )

    def _read_until(self, num_bytes: int, until: float) -> bytes:
        data = b""
        while len(data) < num_bytes:
            self._allow(until, self._read_timeout)
            piece = self._rfile.read1(num_bytes - len(data))
            if not piece:
                break
            data += piece
        return data

    def _write_bytes(self, data: bytes) -> None:
        try:
            if self._until is not None:
                self._allow(self._until, self._write_timeout)
            elif self._current_timeout != self._write_timeout:
                self._sock.settimeout(self._write_timeout)
                self._current_timeout = self._write_timeout
            self._sock.sendall(data)
        except OSError as error:
            # Not all of it has left, so that the server has no whole command and does
            # nothing.
            self._timed_out = isinstance(error, socket.timeout)
            self._force_close()
            raise pymysql.err.OperationalError(
                CR.CR_SERVER_GONE_ERROR, f"MySQL server has gone away ({error!r})"
            ) from error

    def _allow(self, until: float, limit: Optional[float]) -> None:
        left = until - time.monotonic()
        if left <= 0:
            raise socket.timeout("timed out")
        self._sock.settimeout(left if limit is None else min(left, limit))
        self._current_timeout = -1.0  # not known to PyMySQL, which sets its own again

    def begin_reset(self, *, only_diagnostics: bool = False) -> None:
        """Send what makes the session as new; the answers are read before it is used
        again, and have come by then.

        Args:
            only_diagnostics: Nothing but the last statement's warnings is forgotten.
        """
        commands = self.reset_commands(only_diagnostics=only_diagnostics)
        self.dirty = False
        self.wire = WireState.RESETTING
        self._until = None
        self._reset_answers = len(commands)
        self._write_bytes(packets(commands))

    def finish_reset(self, until: float) -> None:
        """Read the answers to ``begin_reset``.

        Args:
            until: When that must be over, by time.monotonic().

        Raises:
            pymysql.err.MySQLError: The connection must not be used.
        """
        self.wire = WireState.CLOSED
        self._until = until
        if self._sock is None:
            raise self.gone_away()
        try:
            answers = self._read_answers(self._reset_answers)
        except Exception as error:
            raise self.readable(error) from error
        self.finish_reset_with(answers)
        self._until = None

    def quit(self) -> None:
        """Close it: with COM_QUIT where it is idle, without where an answer is still on
        its way.
        """
        if self._sock is None:
            return
        if self.idle:
            self.close()
        else:
            self.abort()
        self.wire = WireState.CLOSED

    def _close_descriptor(self) -> None:
        fork_safety.never_finalize(self.handle, self._rfile)
        if self._sock is not None:
            fork_safety.close_fd(self._sock)
        self._sock = self._rfile = None

    def abort(self) -> None:
        """Drop the socket at once, without a word."""
        sock = self._sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._force_close()
