"""The connection of a session to its server, in asyncio."""

import asyncio
import socket
from typing import Any

import pymysql.err
from pymysql.constants import CR

from .. import fork_safety, sockets
from ..config import DatabaseConfig
from .receiver import Receiver, lost


def close_inherited(writer: Any, reader: Any) -> None:
    """Close a forked child's descriptor of its parent's stream, and nothing else.

    Its finalizers never run: they would take the socket out of the parent's selector,
    which is the child's too, and the parent would wait for ever.
    """
    fork_safety.never_finalize(writer, reader)
    sock = getattr(writer.get_extra_info("socket"), "_sock", None)
    if sock is not None:
        fork_safety.close_fd(sock)


class Transport:
    """Sends and receives, and limits how long that takes.

    It takes the place of the driver's stream after authentication, and is the reader
    and the writer of its cursors. When a limit has passed the socket stays open until
    the session has been killed: as long as it is, the server gives the session's id to
    nobody else. So the driver, which closes its socket then, must not close this one
    during a command.

    Args:
        reader: The driver's.
        writer: The driver's.
        config: The limits on silence.
        in_use: The lock that is held during a command.
        chunk: The most bytes that are received at once.

    Attributes:
        timed_out: A limit has passed.
        closed: It was closed on this side.
        receiver: What is expected, and waits for it.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        config: DatabaseConfig,
        in_use: Any,
        chunk: int,
    ) -> None:
        self.timed_out = False
        self.closed = False
        self.receiver = Receiver(writer.transport, chunk, config.read_timeout, self.time_out)
        self._reader = reader
        self._writer = writer
        self._transport: Any = writer.transport
        self._config = config
        self._in_use = in_use
        self._draining = False
        self._events = sockets.watch(self._socket())

    def _socket(self) -> Any:
        return self._transport.get_extra_info("socket")

    def send(self, data: bytes) -> bool:
        """Send data.

        Returns:
            False where not all of it has left; then wait for ``drain``.
        """
        self._transport.write(data)
        return not self._transport.get_write_buffer_size()

    async def drain(self) -> None:
        """Wait until there is room for more data.

        Raises:
            pymysql.err.OperationalError: The connection is lost, or a limit has passed.
                Not all has been sent, so that the server has no whole command and does
                nothing.
        """
        limit = self._config.write_timeout
        loop = asyncio.get_running_loop()
        timer = None if limit is None else loop.call_later(limit, self.time_out)
        self._draining = True
        try:
            await self._writer.drain()
        except OSError as error:
            raise pymysql.err.OperationalError(
                CR.CR_SERVER_GONE_ERROR, f"MySQL server has gone away ({error!r})"
            ) from error
        finally:
            self._draining = False
            if timer is not None:
                timer.cancel()

    def time_out(self) -> None:
        """A limit has passed: wake whoever waits with an error."""
        self.timed_out = True
        if self._draining:
            self._transport.abort()
        else:
            self.fail(socket.timeout("timed out"))

    def fail(self, error: OSError) -> None:
        """Make whoever waits for data, now or later, raise an error."""
        self.receiver.fail(lost(error))
        self._reader.set_exception(error)

    def is_stale(self) -> bool:
        """Return whether an idle connection has received data or was closed.

        The socket itself is checked too, because the loop may not have read from it
        yet.
        """
        reader: Any = self._reader
        return (
            self.closed
            or self.receiver.failure is not None
            or self._transport.is_closing()
            or bool(reader._buffer)
            or self._events() != 0
        )

    def peer_closed(self) -> bool:
        """Return whether the server has closed its end, regardless of unread data."""
        if self.closed or self._transport.is_closing() or self._reader.at_eof():
            return True
        return self._events() & sockets.HANGS_UP != 0

    def abort(self) -> None:
        """Close the connection at once, without COM_QUIT and without waiting."""
        if self.closed:
            return
        self.closed = True
        try:
            self._transport.abort()
        except RuntimeError:
            # Its loop is closed and frees the socket with the transport; the server
            # need not wait for that.
            self._socket().shutdown(socket.SHUT_RDWR)

    def write_last(self, data: bytes) -> None:
        """Send data if that is possible without waiting."""
        if not self.closed and not self._transport.is_closing():
            try:
                self._transport.write(data)
            except RuntimeError:
                pass  # its loop is closed

    def hang_up(self) -> None:
        """Close the socket, so that the server notices at once."""
        self._transport.abort()

    def close_descriptor(self) -> None:
        """Close this process's descriptor of the socket; the server's session
        continues.
        """
        self.closed = True
        fork_safety.never_finalize(self.receiver)
        close_inherited(self._writer, self._reader)

    # What the driver uses, as of the reader and the writer of its stream.

    @property
    def transport(self) -> "Transport":
        """The object that the driver closes."""
        return self

    def write(self, data: bytes) -> None:
        """Send data, or keep it until there is room."""
        self._transport.write(data)

    async def readexactly(self, count: int) -> bytes:
        """Read a number of bytes.

        Raises:
            EOFError: The connection has ended.
            OSError: It is lost, or a limit has passed.
        """
        limit = self._config.read_timeout
        loop = asyncio.get_running_loop()
        timer = None if limit is None else loop.call_later(limit, self.time_out)
        try:
            return await self._reader.readexactly(count)
        finally:
            if timer is not None:
                timer.cancel()

    def close(self) -> None:
        """Close the connection, unless a command is in progress."""
        if not self._in_use.locked():
            self._transport.close()
