"""What both colours' connections know of themselves, beside the socket."""

import threading
import time
from abc import abstractmethod
from typing import Any, Optional

from pymysql.constants import SERVER_STATUS

from . import errors, forks
from .config import DatabaseConfig
from .statements import Voice


def password_for_driver(config: DatabaseConfig) -> str:
    """The password as a driver wants it: both write it as Latin-1, where a server expects what it was given in UTF-8."""
    return config.reveal_password().encode("utf-8", "surrogateescape").decode("latin1")


class SessionState:
    """Mixed into a driver's connection: is it at rest, is it clean, how does it want its text.

    ``server_status`` and ``encoding`` are the driver's. The flags come from the OK packets alone: a SELECT inside a transaction that
    was opened with autocommit off would not set IN_TRANS in either driver, which is why autocommit stays on and BEGIN is always explicit.
    """

    server_status: int
    encoding: Any

    def __init__(self, **driver_options: Any) -> None:
        self._in_use = threading.Lock()
        super().__init__(**driver_options)
        forks.watch(self)

    #: The session is that of the process this one was forked from.
    foreign = False
    #: time.monotonic() when the session was opened.
    born = 0.0
    #: False from the first byte of a command to the last packet of its answer: what is read next would be somebody else's.
    at_rest = True

    @property
    def voice(self) -> Voice:
        return Voice(self.encoding, not self.server_status & SERVER_STATUS.SERVER_STATUS_NO_BACKSLASH_ESCAPES)

    @property
    def in_transaction(self) -> bool:
        return bool(self.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)

    @property
    def clean(self) -> bool:
        """At rest, in autocommit and outside a transaction: the next borrower finds it as it was."""
        return self.at_rest and bool(self.server_status & SERVER_STATUS.SERVER_STATUS_AUTOCOMMIT) and not self.in_transaction

    def _forked(self) -> None:
        self.foreign, self.at_rest, self._in_use = True, False, threading.Lock()
        self._let_go()

    @abstractmethod
    def _let_go(self) -> None:
        """Drop this process's descriptor of the socket, without a word and without touching the session."""

    def too_old(self, max_lifetime: Optional[float]) -> bool:
        return max_lifetime is not None and time.monotonic() - self.born > max_lifetime

    def begin_command(self) -> None:
        """Raises: ConcurrentUseError before any byte is written, if another thread or task is in the middle of a command."""
        if not self._in_use.acquire(blocking=False):
            raise errors.ConcurrentUseError("another thread or task is using this connection: a transaction belongs to one at a time")
        self.at_rest = False

    def end_command(self, error: Optional[BaseException] = None) -> None:
        """The answer is complete, or ``error`` ended it: a server's refusal is an answer too."""
        self.at_rest = error is None or errors.is_answer(error)
        self._in_use.release()
