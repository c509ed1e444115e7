"""The socket of a session, in threads."""

import socket
import ssl
import time
from typing import Any, Optional

import pymysql.err
from pymysql.constants import CR

from .. import fork_safety, sockets
from ..config import DatabaseConfig

#: The most bytes that are received at once.
CHUNK = 65536


class Transport:
    """Sends and receives, and limits how long that takes.

    The driver connects and authenticates through it as through a socket, and so do its
    cursors. When a limit has passed the socket stays open until the session has been
    killed: as long as it is, the server gives the session's id to nobody else. So the
    driver, which closes its socket then, must not close this one during a command.

    Args:
        sock: A connected socket.
        config: The limits on silence.
        in_use: The lock that is held during a command.

    Attributes:
        until: When what is sent or received must be over, by time.monotonic(); None for
            no limit but ``read_timeout`` and ``write_timeout``.
        timed_out: A limit has passed.
        closed: The socket is closed.
    """

    def __init__(self, sock: socket.socket, config: DatabaseConfig, in_use: Any) -> None:
        self.until: Optional[float] = None
        self.timed_out = False
        self.closed = False
        self._sock = sock
        self._config = config
        self._in_use = in_use
        self._timeout = sock.gettimeout()
        self._received = b""  # and not yet read by the driver
        self._events = sockets.watch(sock)

    def __del__(self) -> None:
        self._sock.close()

    def send(self, data: bytes) -> None:
        """Send data.

        Raises:
            pymysql.err.OperationalError: It was not sent completely, so that the server
                has no whole command and does nothing. The socket is closed.
        """
        try:
            self.sendall(data)
        except OSError as error:
            self.abort()
            raise pymysql.err.OperationalError(
                CR.CR_SERVER_GONE_ERROR, f"MySQL server has gone away ({error!r})"
            ) from error

    def receive(self) -> bytes:
        """Wait for data.

        Raises:
            pymysql.err.OperationalError: The connection is lost, or a limit has passed.
        """
        if self.until is not None or self._timeout != self._config.read_timeout:
            try:
                self._allow(self._config.read_timeout)
            except OSError as error:
                raise self.lost(error) from error
        try:
            data = self._sock.recv(CHUNK)
        except OSError as error:
            raise self.lost(error) from error
        if not data:
            raise self.lost()
        return data

    def lost(self, error: Optional[OSError] = None) -> pymysql.err.OperationalError:
        """Make the error of a connection that was lost while a response was read."""
        if isinstance(error, socket.timeout):
            self.timed_out = True
        why = "" if error is None else f" ({error})"
        return pymysql.err.OperationalError(
            CR.CR_SERVER_LOST, f"Lost connection to MySQL server during query{why}"
        )

    def receive_deadline(self) -> float:
        """Return when waiting for data must be over, by time.monotonic()."""
        silence = self._config.read_timeout
        latest = float("inf") if silence is None else time.monotonic() + silence
        return latest if self.until is None else min(latest, self.until)

    def _allow(self, limit: Optional[float]) -> None:
        """Set the time for the next call of the socket.

        Raises:
            socket.timeout: There is none left.
        """
        timeout = limit
        if self.until is not None:
            left = self.until - time.monotonic()
            if left <= 0:
                self.timed_out = True
                raise socket.timeout("timed out")
            timeout = left if limit is None else min(left, limit)
        if timeout != self._timeout:
            self._sock.settimeout(timeout)
            self._timeout = timeout

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._sock.fileno()

    @property
    def has_more(self) -> bool:
        """Whether TLS has received data that ``poll`` does not show."""
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    def is_stale(self) -> bool:
        """Return whether an idle connection has received data or was closed."""
        return self.closed or bool(self._received) or self._events() != 0

    def peer_closed(self) -> bool:
        """Return whether the server has closed its end, regardless of unread data."""
        return self.closed or self._events() & sockets.HANGS_UP != 0

    def shutdown(self, how: int) -> None:
        """Shut down the socket, so that whoever waits for data finds its end."""
        try:
            self._sock.shutdown(how)
        except OSError:
            pass  # it is not connected any more

    def abort(self) -> None:
        """Close the socket at once, without COM_QUIT."""
        if not self.closed:
            self.closed = True
            self.shutdown(socket.SHUT_RDWR)
            self._sock.close()

    def close_descriptor(self) -> None:
        """Close this process's descriptor of the socket; the server's session
        continues.
        """
        self.closed = True
        fork_safety.close_fd(self._sock)

    # What the driver uses, as of a socket and of the file that it makes of one.

    def sendall(self, data: bytes) -> None:
        """Send data.

        Raises:
            OSError: It was not sent completely.
        """
        if self.until is not None or self._timeout != self._config.write_timeout:
            self._allow(self._config.write_timeout)
        try:
            self._sock.sendall(data)
        except socket.timeout:
            self.timed_out = True
            raise

    def read(self, count: int) -> bytes:
        """Read a number of bytes, or fewer at the end of the connection.

        Raises:
            OSError: The connection is lost, or a limit has passed.
        """
        while len(self._received) < count:
            try:
                self._allow(self._config.read_timeout)
                data = self._sock.recv(max(CHUNK, count - len(self._received)))
            except socket.timeout:
                self.timed_out = True
                raise
            if not data:
                break
            self._received += data
        data = self._received[:count]
        self._received = self._received[count:]
        return data

    def start_tls(self, context: ssl.SSLContext, server_hostname: str) -> None:
        """Begin TLS.

        Raises:
            OSError: The handshake failed.
        """
        self._allow(None)
        self._sock = context.wrap_socket(self._sock, server_hostname=server_hostname)

    def getpeername(self) -> Any:
        """Return the address of the server."""
        return self._sock.getpeername()

    def settimeout(self, seconds: Optional[float]) -> None:
        """Do nothing: the limits are those of the configuration."""

    def makefile(self, mode: str) -> "Transport":
        """Return the file object from which the driver reads."""
        return self

    def close(self) -> None:
        """Close the socket, unless a command is in progress."""
        if not self._in_use.locked():
            self.abort()


class TLSContext:
    """What the driver begins TLS with; a transport stays what it is then.

    Args:
        context: The context.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap_socket(self, sock: Transport, server_hostname: str) -> Transport:
        """Begin TLS on a transport, and return it."""
        sock.start_tls(self._context, server_hostname)
        return sock
