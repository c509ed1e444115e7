"""``select.poll``, and the same by ``select.select`` for systems without it."""

import select
import socket
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Tuple

try:
    from . import _poll
except ImportError:  # there was no C compiler, or there is no poll()
    HAS_COMPILED_POLL = False
else:
    HAS_COMPILED_POLL = hasattr(select, "poll")

READABLE: int = getattr(select, "POLLIN", 1)
#: What poll() reports for a socket whose other end is closed.
HANGS_UP: int = (
    getattr(select, "POLLHUP", 16) | getattr(select, "POLLERR", 8) | getattr(select, "POLLRDHUP", 0)
)


class SelectPoll:
    """What this package uses of ``select.poll()``, for Windows."""

    def __init__(self) -> None:
        self._sockets: Dict[int, Any] = {}

    def register(self, sock: Any, events: int) -> None:
        """Watch a socket.

        Args:
            sock: A socket, or its descriptor.
            events: Not used: whatever can happen is reported.
        """
        self._sockets[sock if isinstance(sock, int) else sock.fileno()] = sock

    def unregister(self, descriptor: int) -> None:
        """Watch a socket no more.

        Args:
            descriptor: The socket's.
        """
        del self._sockets[descriptor]

    def poll(self, timeout: Optional[float] = None) -> List[Tuple[int, int]]:
        """Wait for data, or the end of it.

        Args:
            timeout: Milliseconds; None for no limit.

        Returns:
            Descriptors and events.
        """
        seconds = None if timeout is None else max(0.0, timeout / 1000)
        ready, _, _ = select.select(list(self._sockets), [], [], seconds)
        return [(each, READABLE | self._hang_up(self._sockets[each])) for each in ready]

    @staticmethod
    def _hang_up(sock: Any) -> int:
        if isinstance(sock, int):
            return 0
        try:
            # Not recv() of an SSLSocket, which takes no flags.
            ended = not socket.socket.recv(getattr(sock, "_sock", sock), 1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            return HANGS_UP
        return HANGS_UP if ended else 0


def new_poll() -> Any:
    """Return a new ``select.poll()``, or what stands for it."""
    return select.poll() if hasattr(select, "poll") else SelectPoll()


def watch(sock: Any) -> Callable[[], int]:
    """Return a function that tells what has happened on a socket, without waiting: a
    combination of ``READABLE`` and ``HANGS_UP``, or 0.

    Args:
        sock: A socket; or a transport's, which may have no descriptor that can be
            asked. Then nothing is told, and what the event loop has received counts.
    """
    try:
        asked = _compiled(sock) if HAS_COMPILED_POLL else _by_select(sock)
        asked()
    except (AttributeError, OSError, TypeError, ValueError):
        return _nothing
    return asked


def _compiled(sock: Any) -> Callable[[], int]:
    return partial(_poll.events, sock.fileno())


def _by_select(sock: Any) -> Callable[[], int]:
    made = new_poll()
    made.register(sock, READABLE | HANGS_UP)

    def asked() -> int:
        events = 0
        for _, event in made.poll(0):
            events |= event
        return events

    return asked


def _nothing() -> int:
    return 0
