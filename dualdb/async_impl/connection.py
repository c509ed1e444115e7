"""An aiomysql connection that knows its state, enforces its TLS settings, and
whose opening has one deadline.
"""

import asyncio
import contextlib
import socket
import time
from typing import Any, List, Optional, Sequence, Tuple

import aiomysql
import pymysql.converters
import pymysql.err
from pymysql.constants import CLIENT, CR
from pymysql.protocol import FieldDescriptorPacket, MysqlPacket

from .. import errors, results
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
from .receiver import CHUNK, CHUNK_IN_PYTHON
from .runner import background_task
from .transport import Transport, close_inherited


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

    It is created in a running loop, without I/O. ``open_session`` connects it, once.
    """

    MATCHES_DRIVER = driver_check.trusted(
        aiomysql.Connection, _rows_by_driver, aiomysql.__version__
    )

    ADDRESS_ATTRIBUTES = ("_host", "_port")

    #: Of a stream: its deadline, and what looks to it.
    _stream_until: Optional[float] = None
    _timer: Any = None

    transport: Optional[Transport]
    _next_seq_id: int
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
        if not self.inherited:
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
        self.begin_session()
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
        if self._config.unix_socket is not None and not hasattr(socket, "AF_UNIX"):
            raise OSError("this system has no unix sockets")
        await self._connect()
        chunk = CHUNK if self.codec.decoder_name == "compiled" else CHUNK_IN_PYTHON
        transport = Transport(self._reader, self._writer, self._config, self._in_use, chunk)
        self.transport = self._reader = self._writer = transport
        for lock in (new_lock_name(), None):
            setup = self.setup_commands(lock)
            transport.send(commands.together(setup))
            if self.finish_setup(await self._receive_answers(transport, len(setup)), lock):
                return

    async def _receive_answers(self, transport: Transport, count: int) -> List[Any]:
        """Receive the responses to commands that were sent together; for a refused
        command, the server's error.
        """
        responses = self.new_responses(count)
        transport.receiver.expect(responses)
        await transport.receiver.wait()
        return self.apply_responses(responses)

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
        """Return a value as an SQL literal, for cursors. Done as PyMySQL does:
        aiomysql's own code uses names that PyMySQL may drop.
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
        try:
            await super()._request_authentication()
        except BaseException:
            # aiomysql would close it, which in TLS waits for the server.
            self._writer.transport.abort()
            raise

    async def _process_auth(self, plugin_name: Any, auth_packet: Any) -> Any:
        self.check_plugin(plugin_name)
        return await super()._process_auth(plugin_name, auth_packet)

    @property
    def open(self) -> bool:
        """Whether it was opened, and not closed on this side."""
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
        return self.transport is None or self.transport.peer_closed()

    def abort_in_use(self) -> None:
        """Make the task that waits on it find the connection lost.

        The server's session continues until it is killed.
        """
        self.aborted = True
        if self.transport is None or self.transport.closed:
            return
        if self.idle:
            # nobody waits for an answer: the server notices at once, and rolls back
            # what is open
            self.transport.hang_up()
        else:
            self.transport.fail(ConnectionAbortedError("the pool was closed"))

    async def run(self, command: bytes, until: Optional[float] = None) -> List[results.ResultSet]:
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
        if self.facts.max_packet is not None:
            self.check_length(command)
        self.begin_command()
        timer = None
        try:
            transport = self._begin(until)
            if until is not None:
                left = until - time.monotonic()
                if left <= 0:
                    raise self.deadline_exceeded()
                timer = self._loop.call_later(left, transport.time_out)
            if not self.uses_own_decoder and type(command) is not commands.Batch:
                return await self._run_by_driver(transport, command)
            self.codec.response = response = self.new_response(command)
            await self._send(transport, command, response)
            if self.while_waiting is not None:
                self.while_waiting()
            await transport.receiver.wait()
            self.codec.response = None
        except BaseException as raised:
            error = self._failed(raised)
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
        self.apply_response(response)
        sets: List[results.ResultSet] = response.results
        self.end_command(response.message, sets[-1].warnings)
        return sets

    def _begin(self, until: Optional[float]) -> Transport:
        self.codec.response = None
        transport = self.transport
        if transport is None or transport.closed or self.aborted:
            raise self.gone_away()
        transport.timed_out = False
        return transport

    async def _finish_cursor(self) -> None:
        """Read the response that a driver's cursor has left unread."""
        while self._result is not None and (
            self._result.unbuffered_active or self._result.has_next
        ):
            if self._result.unbuffered_active:
                await self._result._finish_unbuffered_query()
            else:
                await self.next_result()
        self._result = None

    async def _send(
        self, transport: Transport, command: bytes, response: Any, *, is_stream: bool = False
    ) -> None:
        if self._result is not None:
            await self._finish_cursor()
        transport.receiver.expect(response, is_stream=is_stream)
        if not transport.send(commands.encode(command)):
            await transport.drain()
        self._written = self.sent = True
        if type(command) is commands.Batch:
            transport.send(commands.END_OF_BATCH)

    def _failed(self, error: BaseException) -> BaseException:
        """Return the exception to raise for an error that ended a command."""
        error = self.readable(error)
        response = self.codec.response
        self.codec.response = None
        self._stop_receiving()
        if response is not None:
            self.apply_response(response)
        self.break_command(error, gave_up=self._timed_out)
        return error

    async def _run_by_driver(self, transport: Transport, command: bytes) -> List[results.ResultSet]:
        await self._ask_driver(transport, command)
        response = [results.result_set(self._result, tuples=self.row_options.as_tuples)]
        while self._result.has_next:
            await self.next_result()
            response.append(results.result_set(self._result, tuples=self.row_options.as_tuples))
        self.end_command(self._result.message, response[-1].warnings)
        return response

    async def _ask_driver(
        self, transport: Transport, command: bytes, *, unbuffered: bool = False
    ) -> None:
        """Send a command whose response the driver reads."""
        await self._send(transport, command, None)
        self._next_seq_id = commands.query_packets(command) & 255
        await self._read_query_result(unbuffered)

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
        self.wire = WireState.STREAMING
        self._stream_until = until
        self._timer = None
        try:
            transport = self._begin(until)
            if until is not None:
                left = until - time.monotonic()
                self._timer = self._loop.call_later(left, transport.time_out)
            if not self.uses_own_decoder:
                await self._ask_driver(transport, command, unbuffered=True)
                return results.column_names(getattr(self._result, "fields", ()))
            self.codec.response = response = self.new_response(command, stream=True)
            await self._send(transport, command, response, is_stream=True)
            while response.names is None:
                await transport.receiver.wait()
            names: Sequence[str] = response.names
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
        response = self.codec.response
        rows: List[Tuple[Any, ...]] = response.take()
        while not rows and not response.complete:
            assert self.transport is not None
            await self.transport.receiver.wait()
            rows = response.take()
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
        self._stop_receiving()
        self._end_stream(error)
        late = self._timed_out and until is not None and time.monotonic() > until - 0.001
        return (
            self.deadline_exceeded() if late and isinstance(error, errors.DRIVER_ERRORS) else error
        )

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _stop_receiving(self) -> None:
        if self.transport is not None:
            self.transport.receiver.expect(None)

    def drop_stream(self) -> None:
        self._stop_timer()
        self._stop_receiving()
        super().drop_stream()

    def begin_reset(self, *, only_diagnostics: bool = False) -> None:
        """Send the commands that reset the session. Their responses are read before the
        next use, when they have usually arrived.

        Args:
            only_diagnostics: Nothing but the last statement's warnings is forgotten.
        """
        reset = self.reset_commands(only_diagnostics=only_diagnostics)
        self.dirty = False
        self.wire = WireState.RESETTING
        transport = self.transport
        assert transport is not None
        self.codec.response = self.new_responses(len(reset))
        transport.receiver.expect(self.codec.response)
        transport.write(commands.together(reset))

    async def finish_reset(self, until: float) -> None:
        """Read the responses to the commands of ``begin_reset``.

        Args:
            until: When that must be over, by time.monotonic().

        Raises:
            pymysql.err.MySQLError: The connection must not be used.
        """
        self.wire = WireState.CLOSED
        self._written = True
        if not self.open:
            raise self.gone_away()
        transport = self.transport
        responses = self.codec.response
        self.codec.response = None
        assert transport is not None
        timer = self._loop.call_later(until - time.monotonic(), transport.time_out)
        try:
            await transport.receiver.wait()
            answers = self.apply_responses(responses)
        except Exception as error:
            raise self.readable(error) from error
        finally:
            timer.cancel()
        self.finish_reset_with(answers)

    def quit(self) -> None:
        """Close it, with COM_QUIT if it is idle."""
        if self.transport is not None and self.idle:
            # Five bytes leave at once. Waiting for them, or for the end of a TLS
            # session, would need a loop that goes on.
            self.transport.write_last(commands.QUIT)
        self.abort()
        self.wire = WireState.CLOSED

    def _close_descriptor(self) -> None:
        if self.transport is not None:
            self.transport.close_descriptor()
        elif self._writer is not None:  # of a handshake
            close_inherited(self._writer, self._reader)
        self._writer = self._reader = None

    def abort(self) -> None:
        """Close the socket at once, without COM_QUIT and without waiting."""
        writer = self._writer
        self._writer = self._reader = None
        if self.transport is not None:
            self.transport.abort()
        elif writer is not None:
            writer.transport.abort()  # of a handshake
