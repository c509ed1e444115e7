"""One thread for all time limits of the process."""

import heapq
import itertools
import logging
import threading
import time
from typing import Callable, List, Optional, Tuple

from .. import errors, fork_safety

log = logging.getLogger("dualdb")


class Timer:
    """A function that is to be called at some time, unless it is cancelled before."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[], None]) -> None:
        self._function: Optional[Callable[[], None]] = function

    def cancel(self) -> None:
        """Takes no lock, so that a finaliser can do it."""
        self._function = None

    @property
    def is_cancelled(self) -> bool:
        """True if it is not to be called any more."""
        return self._function is None

    def call(self) -> None:
        """Call the function once, and log what it raises."""
        function, self._function = self._function, None
        try:
            if function is not None:
                function()
        except Exception:
            log.exception("a time limit could not be enforced")


class Timers:
    """Calls functions at their times, in a daemon thread that ends when it has none."""

    #: Seconds that the thread waits for another timer before it ends.
    STAY = 10.0

    def __init__(self) -> None:
        self._forked()
        fork_safety.register(self)

    def _forked(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._heap: List[Tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._thread: Optional[threading.Thread] = None

    def call_at(self, at: float, function: Callable[[], None]) -> Timer:
        """Have a function called at a time of ``time.monotonic()``.

        It must not block.

        Raises:
            OperationalError: no thread can be started.
        """
        timer = Timer(function)
        with self._changed:
            self._ensure_thread()
            heapq.heappush(self._heap, (at, next(self._numbers), timer))
            if self._heap[0][2] is timer:
                self._changed.notify()
        return timer

    def _ensure_thread(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        thread = threading.Thread(target=self._serve, name="dualdb-limit", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise errors.OperationalError(
                f"a time limit cannot be enforced, because no thread can be started: {error}"
            ) from error
        self._thread = thread

    def _serve(self) -> None:
        while True:
            with self._changed:
                due = self._next_due()
                if due is None:
                    if not self._heap:
                        self._thread = None
                        return
                    continue
            due.call()
            del due

    def _next_due(self) -> Optional[Timer]:
        """The next timer whose time has come; None after a wait."""
        while self._heap and self._heap[0][2].is_cancelled:
            heapq.heappop(self._heap)
        if not self._heap:
            self._changed.wait(self.STAY)
            return None
        left = self._heap[0][0] - time.monotonic()
        if left <= 0:
            return heapq.heappop(self._heap)[2]
        self._changed.wait(left)
        return None


#: Of the whole process.
timers = Timers()
