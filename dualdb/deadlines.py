"""Until when: a limit over all that a call does, from the wait for a connection to the
last byte of its answer.
"""

import logging
import time
from contextvars import ContextVar
from typing import Optional

from . import blocks, errors

log = logging.getLogger("dualdb.deadlines")


#: What the timers of every platform can wait for: about three years.
LONGEST = 100_000_000


def seconds(timeout: object) -> float:
    """Check a timeout.

    Args:
        timeout: What the user passed.

    Returns:
        Seconds, as a float.

    Raises:
        ParameterError: It is not a number from 0 to ``LONGEST``.
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


class _Limit:
    """The deadline of one block, and that of the block around it."""

    __slots__ = ("at", "generator", "left", "outer")

    def __init__(self, at: float, outer: "Optional[_Limit]") -> None:
        self.at = at
        self.outer = outer
        self.left = False
        # While a generator is suspended inside its block, the caller that resumes it is
        # not in the block.
        self.generator = blocks.suspendable(blocks.user_frame())

    def applies(self) -> bool:
        return not self.left and (self.generator is None or blocks.runs(self.generator))

    def without(self, other: "_Limit") -> "Optional[_Limit]":
        """This chain without one of its members."""
        if self is other:
            return self.outer
        self.outer = None if self.outer is None else self.outer.without(other)
        return self


_current: "ContextVar[Optional[_Limit]]" = blocks.variable("dualdb_deadline", None)


def _of_the_block() -> Optional[float]:
    """The earliest of the deadlines that the caller is in."""
    limit = _current.get()
    at = None
    while limit is not None:
        if limit.applies():
            at = earliest(at, limit.at)
        limit = limit.outer
    return at


def earliest(one: Optional[float], other: Optional[float]) -> Optional[float]:
    """The earlier of two times.

    Args:
        one: By ``time.monotonic()``; None for no limit.
        other: The same.
    """
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def deadline_after(timeout: Optional[float] = None, now: Optional[float] = None) -> Optional[float]:
    """When a call must be over: after its timeout, or at the deadline of its block.

    This is the only place where seconds become a time: from here down to the connection
    it is passed as ``until``. A float and no object, because None is the usual case and
    a call on the hot path makes none.

    Args:
        timeout: Seconds; None for no limit of the call's own.
        now: The time; None to ask the clock.

    Returns:
        By ``time.monotonic()``; None for no limit.

    Raises:
        ParameterError: The timeout is none.
    """
    at = None if _current.get() is None else _of_the_block()
    if timeout is None:
        return at
    return earliest(at, (time.monotonic() if now is None else now) + seconds(timeout))


def passed() -> bool:
    """True if the deadline of the block is over."""
    at = _of_the_block()
    return at is not None and time.monotonic() >= at


class Deadline(blocks.EndedBlock):
    """A time limit for everything that is called inside a block: ``with
    db.deadline(1.5):``, in asyncio, too.

    Of nested ones the earliest holds; a task's children inherit it. It holds in the
    context (``contextvars``) that entered the block.

    Args:
        timeout: Seconds, from the beginning of the block on.

    Raises:
        ParameterError: The timeout is no number from 0 up.
        InterfaceError: (at the end of the block) It is left in another context than it
            was entered in, so that it did not limit what was called in that other one.

    Example:
        >>> with db.deadline(1.5):
        ...     db.query("SELECT 1")
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = seconds(timeout)
        self._limit: Optional[_Limit] = None

    def __enter__(self) -> "Deadline":
        if self._limit is not None:
            raise errors.InterfaceError("a deadline is for one block at a time: ask for another")
        self._limit = _Limit(time.monotonic() + self._timeout, _current.get())
        _current.set(self._limit)
        return self

    @property
    def _entered(self) -> bool:
        return self._limit is not None

    def _abandon(self) -> None:
        """It holds nowhere any more, whatever context still has it."""
        if self._limit is not None:
            self._limit.left = True
            self._limit = None

    @blocks.ends_block
    def __exit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        limit = self._limit
        current = _current.get()
        if limit is None:
            raise errors.InterfaceError("this deadline is not held by a block")
        limit.generator = None
        if _holds(current, limit):
            assert current is not None
            _current.set(current.without(limit))
            self._limit = None
            return
        self._abandon()
        message = (
            "a deadline was left in another context than it was entered in: what was called "
            "in between was not limited by it"
        )
        if error is None:
            raise errors.InterfaceError(message)
        log.warning("%s", message, extra={"event": "deadline_left_elsewhere"})


def _holds(chain: Optional[_Limit], wanted: _Limit) -> bool:
    while chain is not None and chain is not wanted:
        chain = chain.outer
    return chain is not None
