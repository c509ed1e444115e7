"""An aiomysql connection that knows its state, means what it is told about TLS, and whose opening has one deadline."""

import asyncio
import select
import socket
import struct
import time
from typing import Any, List, Optional

import aiomysql
import pymysql.err
from pymysql.constants import CLIENT, COMMAND, CR

from .. import errors, forks, results, tls
from ..config import DatabaseConfig
from ..session_state import SessionState, password_for_driver


class Connection(SessionState, aiomysql.Connection):  # type: ignore[misc]
    """One session with a server. Made inside a running loop, without I/O; ``open_session`` connects it, once."""

    #: A read or a write came to its limit.
    _timed_out = False

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
            password=password_for_driver(config),
            db=config.database,
            charset=config.charset,
            autocommit=True,
            local_infile=False,
            ssl=context,
            program_name="dualdb",
        )
        # aiomysql always asks for multi-statements, with which a parameter pasted by hand becomes a second statement.
        self.client_flag &= ~CLIENT.MULTI_STATEMENTS
        if config.read_timeout is not None:
            self._read_bytes = self._read_bytes_in_time

    async def open_session(self) -> None:
        """TCP, TLS, authentication and session set-up, all within ``connect_timeout``.

        Raises:
            ConnectionFailed: with the server's or the client library's code.
        """
        limit = self._config.connect_timeout
        # Not wait_for: before Python 3.12 it may swallow a cancellation.
        opening = asyncio.ensure_future(self._open_session())
        try:
            if not (await asyncio.wait({opening}, timeout=limit))[0]:
                raise TimeoutError(f"timed out after {limit:g} s")
            opening.result()
        except BaseException as error:
            opening.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            opening.cancel()
            self.abort()
            if isinstance(error, (OSError, UnicodeError)):  # UnicodeError: a host that is no name
                message = f"Can't connect to MySQL server on {self._config.unix_socket or self._config.host!r} ({error})"
                raise errors.ConnectionFailed(CR.CR_CONN_HOST_ERROR, message) from error
            if isinstance(error, errors.DRIVER_ERRORS):
                raise errors.from_driver(error, errors.ConnectionFailed) from error
            raise
        self.born, self.at_rest = time.monotonic(), True
        self._poll = select.poll()
        self._poll.register(self._writer.transport.get_extra_info("socket").fileno(), select.POLLIN)

    async def _open_session(self) -> None:
        await self._connect()
        # PyMySQL says this too: without it the collation is the handshake's, which is not the server's default in MySQL 8 and later.
        await self.set_charset(self._config.charset)

    async def _request_authentication(self) -> None:
        # aiomysql would go on in plain text where TLS was asked for and the server has none.
        if self._ssl_context is not None and not self.server_capabilities & CLIENT.SSL:
            if tls.is_required(self._config):
                raise pymysql.err.OperationalError(CR.CR_SSL_CONNECTION_ERROR, "SSL is required but the server doesn't support it")
            self._ssl_context = None
            self.client_flag &= ~CLIENT.SSL
        await super()._request_authentication()

    @property
    def open(self) -> bool:
        return self._writer is not None

    def is_dead(self) -> bool:
        """True if the server has closed an idle connection or said something on it unasked. Costs no round trip.

        The loop may not have looked at the socket since, so the socket is asked as well.
        """
        if self._writer is None or self._writer.transport.is_closing() or self._reader.at_eof() or self._reader._buffer:
            return True
        return bool(self._poll.poll(0))

    async def run(self, command: bytes) -> List[results.ResultSet]:
        """Send one command and read its whole answer."""
        self.begin_command()
        try:
            if self._writer is None:
                raise pymysql.err.OperationalError(CR.CR_SERVER_GONE_ERROR, "MySQL server has gone away")
            await self.query(command)
            answer = [results.result_set(self._result)]
            while self._result.has_next:
                await self.next_result()
                answer.append(results.result_set(self._result))
        except BaseException as error:
            self.end_command(error)
            if self._timed_out and isinstance(error, errors.DRIVER_ERRORS):
                message = "Lost connection to MySQL server during query (timed out)"
                raise pymysql.err.OperationalError(CR.CR_SERVER_LOST, message) from None
            raise
        self.end_command()
        return answer

    async def _execute_command(self, command: int, sql: Any) -> None:
        await super()._execute_command(command, sql)
        if self._writer.transport.get_write_buffer_size():
            await self._in_time(self._writer.drain(), self._config.write_timeout)

    async def _read_bytes_in_time(self, num_bytes: int) -> Any:
        return await self._in_time(super()._read_bytes(num_bytes), self._config.read_timeout)

    async def _in_time(self, step: Any, limit: Optional[float]) -> Any:
        """Await a step of I/O; at the limit the socket is dropped, which ends the step with an error."""
        if limit is None:
            return await step
        timer = asyncio.get_running_loop().call_later(limit, self._time_out)
        try:
            return await step
        finally:
            timer.cancel()

    def _time_out(self) -> None:
        self._timed_out = True
        if self._writer is not None:
            self._writer.transport.abort()

    def quit(self) -> None:
        """Close it: with a word to the server where it is at rest, without one where an answer is still on its way."""
        if self._writer is not None and self.at_rest and not self._writer.transport.is_closing():
            try:
                # Five bytes leave at once. Waiting for them, or for the end of a TLS session, would need a loop that goes on.
                self._writer.write(struct.pack("<iB", 1, COMMAND.COM_QUIT))
            except RuntimeError:
                pass  # its loop is closed
        self.abort()

    def _let_go(self) -> None:
        # The transport would take the socket out of the parent's selector, which is the child's too.
        forks.keep(self._writer, self._reader)
        sock = None if self._writer is None else getattr(self._writer.transport.get_extra_info("socket"), "_sock", None)
        if sock is not None:
            forks.close(sock)
        self._writer = self._reader = None

    def abort(self) -> None:
        """Drop the socket at once, without a word and without waiting."""
        writer, self._writer, self._reader = self._writer, None, None
        if writer is None:
            return
        try:
            writer.transport.abort()
        except RuntimeError:
            # Its loop is closed and frees the socket with the transport; the server need not wait for that.
            writer.transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
