"""A time limit that is enforced by a timer, between calls as well."""

import threading
import time
import weakref
from typing import Any, Callable, Optional

from .. import deadlines


class TimeLimit:
    """When something must be over, and the timer that ends it then.

    Attributes:
        at: When, by ``time.monotonic()``; None for no limit.
        passed: It was over before it was stopped.
    """

    def __init__(self, at: Optional[float]) -> None:
        self.at = at
        self.passed = False
        self._timer: Any = None
        self._lock = threading.RLock()

    def is_over(self) -> bool:
        """True from the time on, for good."""
        self.passed = self.passed or (self.at is not None and time.monotonic() >= self.at)
        return self.passed

    def clamp(self, until: Optional[float]) -> Optional[float]:
        """The earlier of ``until`` and this limit."""
        return deadlines.earliest(until, self.at)

    def start(
        self, set_timer: Callable[[float, Callable[[], None]], Any], end: Callable[[], None]
    ) -> None:
        """Have the method ``end`` called at the limit by a timer of ``set_timer``."""
        if self.at is not None:
            method = weakref.WeakMethod(end)  # a timer does not keep a transaction
            self._timer = set_timer(self.at, lambda: self._fire(method))

    def stop(self) -> None:
        """Once this has returned, ``end`` is not called any more."""
        with self._lock:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _fire(self, method: "weakref.WeakMethod[Callable[[], None]]") -> None:
        end = method()
        with self._lock:
            if self._timer is not None and end is not None:
                self._timer, self.passed = None, True
                end()
