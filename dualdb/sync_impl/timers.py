"""One thread for all time limits of the process."""

import contextlib
import heapq
import itertools
import logging
import queue
import threading
import time
from typing import Callable, List, Optional, Tuple

from .. import errors, fork_safety
from ..observability.logs import about

log = logging.getLogger("dualdb.transaction")


class Timer:
    """A function to be called at a given time, unless cancelled before."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[], None]) -> None:
        self._function: Optional[Callable[[], None]] = function

    def cancel(self) -> None:
        """Cancel it. Takes no lock, so a finalizer can call it."""
        self._function = None

    @property
    def is_cancelled(self) -> bool:
        """Whether it is not to be called any more."""
        return self._function is None

    def call(self) -> None:
        """Call the function once, and log its exception."""
        function = self._function
        self._function = None
        try:
            if function is not None:
                function()
        except Exception:
            log.exception(
                "a time limit could not be enforced", extra=about("time_limit_not_enforced")
            )


class Timers:
    """Calls functions at given times, in a daemon thread.

    Callers share a queue with the thread and no lock: a signal handler that raises in a
    caller would leave the lock of a condition locked.
    """

    def __init__(self) -> None:
        self._forked()
        fork_safety.register(self)

    def _forked(self) -> None:
        self._added: queue.SimpleQueue[Tuple[float, int, Timer]] = queue.SimpleQueue()
        self._numbers = itertools.count()
        self._thread: Optional[threading.Thread] = None

    def call_at(self, at: float, function: Callable[[], None]) -> Timer:
        """Schedule a function, which must not block, for a time of
        ``time.monotonic()``.

        Raises:
            OperationalError: No thread can be started.
        """
        if self._thread is None or not self._thread.is_alive():
            self._start_thread()
        timer = Timer(function)
        self._added.put((at, next(self._numbers), timer))
        return timer

    def _start_thread(self) -> None:
        # Two callers at once start two threads, which share the work.
        thread = threading.Thread(
            target=_serve, args=(self._added,), name="dualdb-limit", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            raise errors.OperationalError(
                f"a time limit cannot be enforced, because no thread can be started: {error}"
            ) from error
        self._thread = thread


def _serve(added: "queue.SimpleQueue[Tuple[float, int, Timer]]") -> None:
    waiting: List[Tuple[float, int, Timer]] = []
    while True:
        while waiting and waiting[0][2].is_cancelled:
            heapq.heappop(waiting)
        left = waiting[0][0] - time.monotonic() if waiting else None
        if left is not None and left <= 0:
            heapq.heappop(waiting)[2].call()
            continue
        with contextlib.suppress(queue.Empty):
            heapq.heappush(waiting, added.get(timeout=left))


#: Of the whole process.
timers = Timers()
