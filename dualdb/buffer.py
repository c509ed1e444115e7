"""Calls that wait, a bounded number of them for a bounded time, until something can be
used again: a shard that moves, the next primary, a tenant behind a fence.

Pure: the time is an argument. Nothing has been sent when a call waits here.
"""

import enum
import threading
import weakref
from typing import Callable, Dict, Hashable, Optional

from . import deadlines
from .config import DatabaseConfig


class Refusal(enum.Enum):
    """Why a call does not wait, or no longer."""

    #: ``buffer_size`` calls wait already.
    FULL = "full"
    #: It has waited for ``buffer_timeout``.
    TIME_OVER = "time over"
    #: Its own deadline has passed.
    DEADLINE = "deadline"


class Buffer:
    """The calls that wait for one thing.

    They are held weakly: one whose caller was interrupted leaves its place. ``leave``
    takes no lock, because a plan that is garbage-collected calls it in any place.
    """

    def __init__(self) -> None:
        self.forget_callers()

    def forget_callers(self) -> None:
        """Begin without callers, as in a forked child, which has none of them."""
        self._lock = threading.Lock()
        self._waits: weakref.WeakValueDictionary[int, BufferedWait] = weakref.WeakValueDictionary()

    @property
    def waiting(self) -> int:
        """The number of calls that wait."""
        return len(self._waits)

    def wake(self) -> None:
        """Have every call that waits try again."""
        for reference in self._waits.valuerefs():
            wait = reference()
            if wait is not None:
                wait.wake()

    def enter(self, wait: "BufferedWait", size: int) -> bool:
        """Add a call; return False if so many wait already."""
        with self._lock:
            if len(self._waits) >= size:
                return False
            self._waits[id(wait)] = wait
            return True

    def leave(self, wait: "BufferedWait") -> None:
        """Remove a call, if it is there."""
        self._waits.pop(id(wait), None)


class Buffers:
    """A buffer for each thing that calls wait for, as long as there are any."""

    def __init__(self) -> None:
        self.forget_callers()

    def forget_callers(self) -> None:
        """Begin without callers, as in a forked child, which has none of them."""
        # a plan that is garbage-collected while its thread holds the lock wakes others
        self._lock = threading.RLock()
        self._by_key: weakref.WeakValueDictionary[Hashable, Buffer] = weakref.WeakValueDictionary()

    #: In a forked child; see ``fork_safety.register``.
    _forked = forget_callers

    def of(self, key: Hashable) -> Buffer:
        """Return the buffer of one thing."""
        with self._lock:
            buffer = self._by_key.get(key)
            if buffer is None:
                buffer = self._by_key[key] = Buffer()
            return buffer

    def waiting(self, key: Hashable) -> int:
        """Return the number of calls that wait for one thing."""
        with self._lock:
            buffer = self._by_key.get(key)
        return 0 if buffer is None else buffer.waiting

    def counts(self) -> Dict[Hashable, int]:
        """Return the number of calls that wait for each thing, where there are any."""
        with self._lock:
            found = [(key, buffer.waiting) for key, buffer in list(self._by_key.items())]
        return {key: waiting for key, waiting in found if waiting}

    def wake(self, *keys: Hashable) -> None:
        """Have the calls that wait for some things try again.

        Args:
            keys: The things; without any, all.
        """
        with self._lock:
            found = [self._by_key.get(key) for key in keys or list(self._by_key)]
        for buffer in found:
            if buffer is not None:
                buffer.wake()


class BufferedWait:
    """The wait of one call; ``leave`` ends it.

    Args:
        buffer: Where it waits.
        config: How long a call waits (``buffer_timeout``), and how many do at the same
            time (``buffer_size``).
        began: Since when it waits, by time.monotonic().
        until: The call's deadline, by the same clock; None for no limit.

    Example:
        >>> wait = BufferedWait(Buffer(), config, began=100.0)
        >>> wait.refusal(100.0), wait.seconds_left(100.0)
        (None, 30.0)
    """

    def __init__(
        self,
        buffer: Buffer,
        config: DatabaseConfig,
        began: float,
        until: Optional[float] = None,
    ) -> None:
        self._buffer = buffer
        self._until = until
        self._size = config.buffer_size
        self._ends = began + config.buffer_timeout
        self._entered = False
        self._lock = threading.Lock()
        self._woken = False
        self._wake: Optional[Callable[[], None]] = None

    def refusal(self, now: float) -> Optional[Refusal]:
        """Take a place, unless the call has one; return why it may not wait.

        Args:
            now: The time.
        """
        if self._until is not None and now >= self._until:
            return Refusal.DEADLINE
        if now >= self._ends:
            return Refusal.TIME_OVER
        if not self._entered:
            if not self._buffer.enter(self, self._size):
                return Refusal.FULL
            self._entered = True
        return None

    def seconds_left(self, now: float) -> float:
        """Return how long the call may wait, from now on."""
        ends = deadlines.earliest(self._ends, self._until)
        assert ends is not None
        return max(0.0, ends - now)

    def leave(self) -> None:
        """Give up the place."""
        self._entered = False
        self._buffer.leave(self)

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` when the thing may be usable; at once if that was the case
        since the last time. It replaces the last one: see ``steps.AwaitSignal``.
        """
        with self._lock:
            woken = self._woken
            self._woken = False
            self._wake = None if woken else wake
        if woken:
            wake()

    def wake(self) -> None:
        """Have the call try again; called from any thread."""
        with self._lock:
            wake = self._wake
            self._wake = None
            self._woken = wake is None
        if wake is not None:
            wake()
