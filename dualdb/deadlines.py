"""Until when: a limit over all that a call does, from the wait for a connection to the
last byte of its answer.
"""

import time
from contextvars import ContextVar, Token
from typing import Any, Optional

from . import errors

_current: ContextVar[Optional[float]] = ContextVar("dualdb_deadline", default=None)


#: What the timers of every platform can wait for: about three years.
LONGEST = 100_000_000


def seconds(timeout: Any) -> float:
    """A timeout as a number.

    Raises:
        ParameterError: it is not a number from 0 up.
    """
    if (
        isinstance(timeout, bool)
        or not isinstance(timeout, (int, float))
        or not 0 <= timeout <= LONGEST
    ):
        raise errors.ParameterError(
            f"a timeout is a number of seconds from 0 to {LONGEST}, not {timeout!r}"
        )
    return float(timeout)


def deadline_after(timeout: Optional[float] = None, now: Optional[float] = None) -> Optional[float]:
    """When a call must be over, by time.monotonic(): after ``timeout`` seconds, or when
    the block it is in ends; None for no limit.
    """
    at = _current.get()
    if timeout is None:
        return at
    mine = (time.monotonic() if now is None else now) + seconds(timeout)
    return mine if at is None else min(at, mine)


def passed() -> bool:
    """The deadline of the block is over."""
    at = _current.get()
    return at is not None and time.monotonic() >= at


class Deadline:
    """``with db.deadline(1.5):``, in threads and in asyncio alike.

    Of nested ones the earliest holds; a task's children inherit it.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = seconds(timeout)
        self._token: Optional[Token[Optional[float]]] = None

    def __enter__(self) -> "Deadline":
        if self._token is not None:
            raise errors.InterfaceError("a deadline is for one block at a time: ask for another")
        self._token = _current.set(deadline_after(self._timeout))
        return self

    def __exit__(self, *exc_info: Any) -> None:
        token, self._token = self._token, None
        assert token is not None
        _current.reset(token)
