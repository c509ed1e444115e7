"""A PyMySQL connection that knows its state, and whose opening has one deadline."""

import select
import socket
import time
from typing import Any, Callable, List, Optional

import pymysql.connections
import pymysql.err
from pymysql.constants import CR

from .. import errors, forks, results, tls
from ..config import DatabaseConfig
from ..session_state import SessionState, password_for_driver


class Connection(SessionState, pymysql.connections.Connection):
    """One session with a server. Made without I/O; ``open`` connects it, and connects it again after it was closed."""

    #: DBUtils' handle while the connection is out of the pool.
    pooled: Any = None

    _sock: Any
    _rfile: Any
    _result: Any
    _read_timeout: Optional[float]
    _write_timeout: Optional[float]
    _force_close: Callable[[], None]
    _read_packet: Callable[..., Any]

    def __init__(self, config: DatabaseConfig) -> None:
        self._config = config
        super().__init__(
            host=config.host,
            port=config.port,
            unix_socket=config.unix_socket,
            user=config.user,
            password=password_for_driver(config),
            database=config.database,
            charset=config.charset,
            autocommit=True,
            local_infile=False,
            connect_timeout=config.connect_timeout,
            read_timeout=config.read_timeout,
            write_timeout=config.write_timeout,
            ssl_disabled=True,
            program_name="dualdb",
            defer_connect=True,
        )

    def open_session(self, context: Any) -> None:
        """TCP, TLS, authentication and session set-up, all within ``connect_timeout``.

        Raises:
            ConnectionFailed: with the server's or the client library's code.
        """
        self.ssl, self.ctx, self._ssl_required = context is not None, context, tls.is_required(self._config)
        limits = self._read_timeout, self._write_timeout
        deadline = time.monotonic() + self._config.connect_timeout
        read_packet = self._read_packet

        def read_packet_in_time(*args: Any) -> Any:
            self._read_timeout = max(deadline - time.monotonic(), 0.001)
            return read_packet(*args)

        self._read_timeout = self._write_timeout = self._config.connect_timeout
        self._read_packet = read_packet_in_time
        try:
            self.connect(self._dial())
        except (OSError, UnicodeError) as error:  # UnicodeError: a host that is no name
            message = f"Can't connect to MySQL server on {self._config.unix_socket or self.host!r} ({error})"
            raise errors.ConnectionFailed(CR.CR_CONN_HOST_ERROR, message) from error
        except errors.DRIVER_ERRORS as error:
            raise errors.from_driver(error, errors.ConnectionFailed) from error
        except BaseException:
            self._force_close()
            raise
        finally:
            del self._read_packet
            self._read_timeout, self._write_timeout = limits
        self.born, self.at_rest = time.monotonic(), True
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN)

    def _dial(self) -> socket.socket:
        """The socket, connected. PyMySQL's own way leaves one behind unclosed where a unix socket refuses."""
        limit, path = self._config.connect_timeout, self._config.unix_socket
        if path is None:
            dialled = socket.create_connection((self._config.host, self._config.port), limit)
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

    def is_dead(self) -> bool:
        """True if the server has closed an idle connection or said something on it unasked. Costs no round trip."""
        if self._sock is None:
            return True
        return bool(self._poll.poll(0))

    def run(self, command: bytes) -> List[results.ResultSet]:
        """Send one command and read its whole answer."""
        self.begin_command()
        try:
            if self._sock is None:
                raise pymysql.err.OperationalError(CR.CR_SERVER_GONE_ERROR, "MySQL server has gone away")
            self.query(command)
            answer = [results.result_set(self._result)]
            while self._result.has_next:
                self.next_result()
                answer.append(results.result_set(self._result))
        except BaseException as error:
            self.end_command(error)
            raise
        self.end_command()
        return answer

    def quit(self) -> None:
        """Close it: with a word to the server where it is at rest, without one where an answer is still on its way."""
        if self._sock is None:
            return
        if self.at_rest:
            self.close()
        else:
            self.abort()

    def _let_go(self) -> None:
        forks.keep(self.pooled, self._rfile)
        if self._sock is not None:
            forks.close(self._sock)
        self._sock = self._rfile = None

    def abort(self) -> None:
        """Drop the socket at once, without a word."""
        try:
            if self._sock is not None:
                self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._force_close()
