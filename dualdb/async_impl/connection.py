"""An aiomysql connection that knows its state, enforces its TLS settings, and
whose opening has one deadline.
"""

import asyncio
import contextlib
import select
import socket
import struct
import time
from typing import Any, List, Optional, Sequence, Tuple

import aiomysql
import pymysql.converters
import pymysql.err
from pymysql.constants import CLIENT, COMMAND, CR
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
from .runner import background_task

#: What poll() says of a socket whose other end is closed.
HANGS_UP = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)


class _Recorded(driver_check.Recorded):
    async def _read_packet(self, *args: Any) -> Any:
        return self.packet(*args)


def _rows_by_driver() -> Any:
    result = aiomysql.connection.MySQLResult(_Recorded())
    with contextlib.suppress(StopIteration):
        result.read().send(None)
    return result.rows


class Connection(
    authentication.Authentication,
    ConnectionState,
    aiomysql.Connection,  # type: ignore[misc]
):
    """One session with a server.

    Made inside a running loop, without I/O; ``open_session`` connects it, once.
    """

    MATCHES_DRIVER = driver_check.trusted(
        aiomysql.Connection, _rows_by_driver, aiomysql.__version__
    )

    #: Decoding them takes a few milliseconds, for which the loop's other tasks wait.
    CHUNK = 16384
    ADDRESS_ATTRIBUTES = ("_host", "_port")
    #: How many answers to a reset are to be read.
    _reset_answers = 0

    #: The deadline, or a limit on silence, has passed.
    _timed_out = False

    #: Of a stream: its deadline, and what looks to it.
    _stream_until: Optional[float] = None
    _timer: Any = None

    _loop: Any
    _writer: Any
    _reader: Any
    _ssl_context: Any

    def __init__(self, config: DatabaseConfig, context: Any) -> None:
        self._config = config
        super().__init__(
            host=config.host,
            port=config.port,
            unix_socket=config.unix_socket,
            user=config.user,
            password="",  # looked up when it connects
            db=config.database,
            charset=config.charset,
            autocommit=None,
            local_infile=False,
            ssl=context,
            program_name="dualdb",
        )
        # aiomysql always asks for multi-statements, with which a parameter pasted by
        # hand becomes a second statement.
        self.client_flag &= ~CLIENT.MULTI_STATEMENTS

    def __del__(self) -> None:
        # aiomysql's own complains, and closes the transport through its loop, which may
        # be closed.
        if self.__dict__.get("_writer") is not None and not self.inherited:
            with contextlib.suppress(Exception):
                self.abort()

    async def open_session(self, until: float, endpoint: Endpoint = NOWHERE) -> None:
        """Connect: TCP, TLS, authentication and session set-up.

        Args:
            until: When all of it must be over, by time.monotonic().
            endpoint: The host; by default that of the configuration.

        Raises:
            ConnectionFailed: With the server's or the client library's code.
        """
        self.aim_at(endpoint)
        limit = max(until - time.monotonic(), 0.001)
        # Not wait_for: before Python 3.12 it may swallow a cancellation.
        opening = background_task(self._open_session(), "dualdb-connect")
        try:
            if not (await asyncio.wait({opening}, timeout=limit))[0]:
                raise TimeoutError(f"timed out after {limit:g} s")
            opening.result()
        except BaseException as error:
            opening.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            opening.cancel()
            self.abort()
            authentication.forget_locals(error)
            if isinstance(error, pymysql.err.OperationalError) and isinstance(
                error.__cause__, (OSError, UnicodeError)
            ):
                error = error.__cause__  # aiomysql leaves out why it cannot connect
            # UnicodeError: a host that is no name
            if isinstance(error, (OSError, UnicodeError)):
                server = self._config.unix_socket or self._host
                message = f"Can't connect to MySQL server on {server!r} ({error})"
                errors.raise_translated(
                    error, errors.ConnectionFailed(CR.CR_CONN_HOST_ERROR, message)
                )
            if isinstance(error, errors.DRIVER_ERRORS):
                errors.raise_translated(error, errors.from_driver(error, errors.ConnectionFailed))
            if is_unreadable(error):
                errors.raise_translated(
                    error, errors.from_driver(handshake_error(error), errors.ConnectionFailed)
                )
            raise
        self.session_opened(endpoint)
        self._poll = select.poll()
        self._poll.register(
            self._writer.transport.get_extra_info("socket").fileno(), select.POLLIN | HANGS_UP
        )

    async def _open_session(self) -> None:
        try:
            if self._config.looks_up_password:
                self._password = await self._loop.run_in_executor(
                    None, password_for_driver, self._config
                )
            else:
                self._password = password_for_driver(self._config)
        except ValueError as error:
            raise authentication.lookup_failed(error) from error
        await self._connect()
        for lock in (new_lock_name(), None):
            commands = self.setup_commands(lock)
            self._write_bytes(packets(commands))
            if self.finish_setup(await self._read_answers(len(commands)), lock):
                return

    async def _read_answers(self, count: int) -> List[Any]:
        """The results of commands that were sent at once, or a server's errors."""
        answers: List[Any] = []
        for _ in range(count):
            self._next_seq_id = 1
            try:
                await super()._read_query_result()
                answers.append(self._result)
            except pymysql.err.MySQLError as error:
                if not errors.is_server_error(error):
                    raise
                answers.append(error)
        self._result = None
        return answers

    async def query(self, sql: Any, unbuffered: bool = False) -> Any:
        """Send a statement; aiomysql's cursors do so.

        Args:
            sql: Text, or bytes in the connection's character set.
            unbuffered: The rows are read as they are asked for.

        Raises:
            InterfaceError: It would change the character set; nothing was sent.
            pymysql.err.MySQLError: As aiomysql.
        """
        if self._in_use.locked():
            return await super().query(sql, unbuffered)
        self.check_cursor_statement(sql)
        try:
            return await super().query(sql, unbuffered)
        except pymysql.err.MySQLError as error:
            if self.may_have_other_charset(sql, error):
                await super().query(self.set_names)
            raise

    async def _read_query_result(self, unbuffered: bool = False) -> None:
        await super()._read_query_result(unbuffered)
        status = self._result.server_status
        if status is not None and status & STATE_CHANGED and not self._in_use.locked():
            self.record_change(self._result.message or b"")

    def _read_packet(self, packet_type: Any = MysqlPacket) -> Any:
        is_column = packet_type is FieldDescriptorPacket
        return super()._read_packet(ColumnDefinition if is_column else packet_type)

    def escape(self, obj: Any, mapping: Any = None) -> str:
        """A value as text, for cursors. As PyMySQL's: aiomysql's own leans on names
        that PyMySQL does not keep.
        """
        if isinstance(obj, str):
            return f"'{self.escape_string(obj)}'"
        if isinstance(obj, (bytes, bytearray)):
            return f"X'{obj.hex()}'"
        # not isinstance: a struct_time is a tuple, too
        if type(obj) in (tuple, list, set, frozenset):
            return "(" + ",".join([self.escape(item, mapping) for item in obj]) + ")"
        return str(pymysql.converters.escape_item(obj, self.encoding, mapping))

    async def _request_authentication(self) -> None:
        # aiomysql would go on in plain text where TLS was asked for and the server has
        # none.
        if self._ssl_context is not None and not self.server_capabilities & CLIENT.SSL:
            if tls.is_required(self._config):
                raise pymysql.err.OperationalError(
                    CR.CR_SSL_CONNECTION_ERROR, "SSL is required but the server doesn't support it"
                )
            self._ssl_context = None
            self.client_flag &= ~CLIENT.SSL
        self.track_changes()
        self.prepare_authentication(self._writer.transport.get_extra_info("peername"))
        # aiomysql answers the greeting's plugin at once, after it has begun TLS.
        authentication.check_plugin(
            self._server_auth_plugin, self._config, encrypted=self._ssl_context is not None
        )
        await super()._request_authentication()

    async def _process_auth(self, plugin_name: Any, auth_packet: Any) -> Any:
        self.check_plugin(plugin_name)
        return await super()._process_auth(plugin_name, auth_packet)

    @property
    def open(self) -> bool:
        return self._writer is not None

    def is_stale(self) -> bool:
        """True if the server has closed an idle connection or sent something on it
        unasked. Costs no round trip.

        The loop may not have looked at the socket since, so the socket is asked as
        well.
        """
        if (
            self._writer is None
            or self._writer.transport.is_closing()
            or self._reader.at_eof()
            or self._reader._buffer
        ):
            return True
        # time was up just when the answer was complete
        if self._reader.exception() is not None:
            return True
        return bool(self._poll.poll(0))

    def peer_closed(self) -> bool:
        """True if the server has closed the connection, whatever it may have sent
        before.
        """
        if self._writer is None or self._writer.transport.is_closing() or self._reader.at_eof():
            return True
        return any(event & HANGS_UP for _, event in self._poll.poll(0))

    def abort_in_use(self) -> None:
        """Have the task that waits on it find it lost.

        The session lives until it has been ended on the server.
        """
        self.aborted = True
        if self._writer is not None and self.idle:
            # nobody waits for an answer: the server notices at once, and rolls back
            # what is open
            self._writer.transport.abort()
        elif self._reader is not None:
            self._reader.set_exception(ConnectionAbortedError("the pool was closed"))

    async def run(self, command: bytes, until: Optional[float] = None) -> List[results.ResultSet]:
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
        if self.facts.max_packet is not None:
            self.check_length(command)
        self.begin_command()
        self._timed_out = False
        timer = (
            None
            if until is None
            else self._loop.call_later(until - time.monotonic(), self._time_out)
        )
        try:
            if self._writer is None or self.aborted:
                raise self.gone_away()
            if until is not None and time.monotonic() >= until:
                raise self.deadline_exceeded()
            response, info = await (
                self._ask(command) if self.uses_own_decoder else self._ask_driver(command)
            )
        except BaseException as raised:
            error = self.readable(raised)
            self.break_command(error, gave_up=self._timed_out)
            if (
                until is not None
                and self._timed_out
                and isinstance(error, errors.DRIVER_ERRORS)
                and time.monotonic() > until - 0.001
            ):
                raise self.deadline_exceeded() from None
            raise error  # noqa: B904
        finally:
            if timer is not None:
                timer.cancel()
        self.end_command(info, response[-1].warnings)
        return response

    async def _ask(self, command: bytes) -> Tuple[List[results.ResultSet], Optional[bytes]]:
        await self._execute_command(COMMAND.COM_QUERY, command)
        response = self.new_response()
        try:
            while not response.feed(await self._receive()):
                pass
        finally:
            self.apply_response(response)
        return response.results, response.message

    async def _ask_driver(self, command: bytes) -> Tuple[List[results.ResultSet], Optional[bytes]]:
        await self.query(command)
        response = [results.result_set(self._result, tuples=self.row_options.as_tuples)]
        while self._result.has_next:
            await self.next_result()
            response.append(results.result_set(self._result, tuples=self.row_options.as_tuples))
        return response, self._result.message

    async def start_stream(self, command: bytes, until: Optional[float]) -> Sequence[str]:
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
        self._stream_until = until
        self._timer = (
            None
            if until is None
            else self._loop.call_later(until - time.monotonic(), self._time_out)
        )
        try:
            if self._writer is None or self.aborted:
                raise self.gone_away()
            if not self.uses_own_decoder:
                await self.query(command, unbuffered=True)
                return results.column_names(getattr(self._result, "fields", ()))
            await self._execute_command(COMMAND.COM_QUERY, command)
            self.codec.response = self.new_response(stream=True)
            self._result = None
            while self.codec.response.names is None:
                self.codec.response.feed_stream(await self._receive())
            names: Sequence[str] = self.codec.response.names
            return names
        except BaseException as error:
            raise self._stream_failed(error) from None

    async def next_rows(self) -> List[Tuple[Any, ...]]:
        """Wait for more rows of a stream.

        Returns:
            The rows that have come since, at least one; none after the last, when the
            connection is idle again.

        Raises:
            Exception: As ``run``.
        """
        try:
            rows = await (
                self._next_rows() if self.uses_own_decoder else self._next_rows_of_driver()
            )
        except BaseException as error:
            raise self._stream_failed(error) from None
        if not rows:
            self._stop_timer()
            self._end_stream(None)
        return rows

    async def _next_rows(self) -> List[Tuple[Any, ...]]:
        rows: List[Tuple[Any, ...]] = self.codec.response.take()
        while not rows and not self.codec.response.complete:
            self.codec.response.feed_stream(await self._receive())
            rows = self.codec.response.take()
        return rows

    async def _next_rows_of_driver(self) -> List[Tuple[Any, ...]]:
        row = await self._result._read_rowdata_packet_unbuffered()
        while row is None and self._result.has_next:
            await self.next_result()
        return [] if row is None else [row]

    def _stream_failed(self, error: BaseException) -> BaseException:
        error = self.readable(error)
        until = self._stream_until
        self._stop_timer()
        self._end_stream(error)
        late = self._timed_out and until is not None and time.monotonic() > until - 0.001
        return (
            self.deadline_exceeded() if late and isinstance(error, errors.DRIVER_ERRORS) else error
        )

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def drop_stream(self) -> None:
        self._stop_timer()
        super().drop_stream()

    async def _execute_command(self, command: int, sql: Any) -> None:
        await super()._execute_command(command, sql)
        if self._writer.transport.get_write_buffer_size():
            await self._drain()
        self._written = self.sent = True

    async def _drain(self) -> None:
        limit = self._config.write_timeout
        timer = None if limit is None else self._loop.call_later(limit, self._time_out)
        try:
            await self._writer.drain()
        except OSError as error:
            # Not all of it has left, so that the server has no whole command and does
            # nothing.
            raise pymysql.err.OperationalError(
                CR.CR_SERVER_GONE_ERROR, f"MySQL server has gone away ({error!r})"
            ) from error
        finally:
            if timer is not None:
                timer.cancel()

    # aiomysql's own ways close the socket when time is up or the task is cancelled. It
    # stays open until the statement has been ended on the server: as long as it is, the
    # server gives the session's id to nobody else.

    async def _receive(self) -> bytes:
        """What has come of an answer."""
        if self._reader is not None and self._reader._buffer:
            await asyncio.sleep(0)  # read() would return at once, and others have to wait
        limit = self._config.read_timeout
        timer = None if limit is None else self._loop.call_later(limit, self._time_out)
        try:
            data: bytes = await self._reader.read(self.CHUNK)
        except BaseException as error:
            self._read_failed(error)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if not data:
            raise pymysql.err.OperationalError(
                CR.CR_SERVER_LOST, "Lost connection to MySQL server during query"
            )
        return data

    async def _read_bytes(self, num_bytes: int) -> Any:
        limit = self._config.read_timeout
        timer = None if limit is None else self._loop.call_later(limit, self._time_out)
        try:
            return await self._reader.readexactly(num_bytes)
        except BaseException as error:
            self._read_failed(error)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _read_failed(self, error: BaseException) -> None:
        """Raises: OperationalError in place of an error of a lost connection."""
        # a cursor's doing, and nobody else would know that the answer was not read to
        # its end
        if not self._in_use.locked():
            self.abort()
        if isinstance(error, (OSError, EOFError)):
            why = "" if isinstance(error, EOFError) else f" ({error})"
            message = f"Lost connection to MySQL server during query{why}"
            raise pymysql.err.OperationalError(CR.CR_SERVER_LOST, message) from error

    def _close_on_cancel(self) -> None:
        """aiomysql's own closes the socket; ``_read_bytes`` has done what is to be
        done.
        """

    def _time_out(self) -> None:
        self._timed_out = True
        if self._writer is not None and not self._written:
            self._writer.transport.abort()
        elif self._reader is not None:
            self._reader.set_exception(socket.timeout("timed out"))

    def begin_reset(self, *, only_diagnostics: bool = False) -> None:
        """Send what makes the session as new; the answers are read before it is used
        again, and have come by then.

        Args:
            only_diagnostics: Nothing but the last statement's warnings is forgotten.
        """
        commands = self.reset_commands(only_diagnostics=only_diagnostics)
        self.dirty = False
        self.wire = WireState.RESETTING
        self._reset_answers = len(commands)
        self._write_bytes(packets(commands))

    async def finish_reset(self, until: float) -> None:
        """Read the answers to ``begin_reset``.

        Args:
            until: When that must be over, by time.monotonic().

        Raises:
            pymysql.err.MySQLError: The connection must not be used.
        """
        self.wire = WireState.CLOSED
        self._written = True
        if self._writer is None:
            raise self.gone_away()
        timer = self._loop.call_later(until - time.monotonic(), self._time_out)
        try:
            answers = await self._read_answers(self._reset_answers)
        except Exception as error:
            raise self.readable(error) from error
        finally:
            timer.cancel()
        self.finish_reset_with(answers)

    def quit(self) -> None:
        """Close it: with COM_QUIT where it is idle, without where an
        answer is still on its way.
        """
        if self._writer is not None and self.idle and not self._writer.transport.is_closing():
            try:
                # Five bytes leave at once. Waiting for them, or for the end of a TLS
                # session, would need a loop that goes on.
                self._writer.write(struct.pack("<iB", 1, COMMAND.COM_QUIT))
            except RuntimeError:
                pass  # its loop is closed
        self.abort()
        self.wire = WireState.CLOSED

    def _close_descriptor(self) -> None:
        # The transport would take the socket out of the parent's selector, which is the
        # child's too.
        fork_safety.never_finalize(self._writer, self._reader)
        sock = (
            None
            if self._writer is None
            else getattr(self._writer.transport.get_extra_info("socket"), "_sock", None)
        )
        if sock is not None:
            fork_safety.close_fd(sock)
        self._writer = self._reader = None

    def abort(self) -> None:
        """Drop the socket at once, without a word and without waiting."""
        writer = self._writer
        self._writer = None
        self._reader = None
        if writer is None:
            return
        try:
            writer.transport.abort()
        except RuntimeError:
            # Its loop is closed and frees the socket with the transport; the server
            # need not wait for that.
            writer.transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
