"""A TCP proxy that cuts, delays or swallows at any byte, in either direction."""

import contextlib
import socket
import threading
import time
from typing import List, NamedTuple, Optional

from typing_extensions import Literal


class Fault(NamedTuple):
    """What happens to the bytes that pass a FaultProxy.

    Attributes:
        direction: "up" is towards the server, "down" towards the client.
        after: How many bytes still pass in this direction.
        action: "cut": both ends are closed; "swallow": nothing passes any more, and
            nobody learns of it; "delay": the rest comes ``seconds`` later.
        seconds: For "delay".
    """

    direction: Literal["up", "down"]
    after: int
    action: Literal["cut", "swallow", "delay"]
    seconds: float = 0.5


class FaultProxy:
    """A TCP proxy in front of one server, which cuts, delays or swallows at any byte.

    It is in a ``with`` block. Bytes are counted from the moment at which a fault is
    set; it happens once. Set it while a transaction is open: the bytes of a connection
    that is resetting its session in the pool count too.

    Args:
        host: The server's host.
        port: The server's port.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        silent: An event. While it is set, nothing passes on any connection, and nobody
            is told: a host that has vanished.

    Example:
        >>> with FaultProxy(config.host, config.port) as proxy:
        ...     through = config.model_copy(update={"port": proxy.port})
        ...     proxy.set(Fault("down", 0, "cut"))
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._fault: Optional[Fault] = None
        self._passed = 0
        self._sockets: List[socket.socket] = []
        self.silent = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "FaultProxy":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.set(None)
        _hang_up(self._listener)
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for each in sockets:
            _hang_up(each)

    def set(self, fault: Optional[Fault]) -> None:
        """Choose what happens next.

        Args:
            fault: The fault; None for none.
        """
        with self._lock:
            self._fault, self._passed = fault, 0

    @property
    def happened(self) -> bool:
        """The fault that was set has happened."""
        return self._fault is None

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._server)
                except OSError:
                    _hang_up(client)
                    continue
                for each in (client, server):
                    # No packet waits until the one before it is acknowledged.
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._sockets += [client, server]
                swallowing = threading.Event()
                for direction, source, target in (("up", client, server), ("down", server, client)):
                    threading.Thread(
                        target=self._pump, args=(direction, source, target, swallowing), daemon=True
                    ).start()

    def _pump(
        self,
        direction: str,
        source: socket.socket,
        target: socket.socket,
        swallowing: threading.Event,
    ) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = source.recv(65536)
                fault, before = self._due(direction, len(data))
                if fault is not None:
                    target.sendall(data[:before])
                    data = data[before:]
                    if fault.action == "cut":
                        break
                    if fault.action == "swallow":
                        swallowing.set()
                    else:
                        time.sleep(fault.seconds)
                if not data:
                    break
                if not swallowing.is_set() and not self.silent.is_set():
                    target.sendall(data)
        if not swallowing.is_set() and not self.silent.is_set():
            _hang_up(source)
            _hang_up(target)

    def _due(self, direction: str, size: int) -> "tuple[Optional[Fault], int]":
        with self._lock:
            fault = self._fault
            if fault is None or fault.direction != direction or not size:
                return None, 0
            before = fault.after - self._passed
            self._passed += size
            if before > size:
                return None, 0
            self._fault = None
            return fault, before


def _hang_up(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
