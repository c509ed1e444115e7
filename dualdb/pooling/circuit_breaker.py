"""Whether an endpoint is worth another attempt to connect: a circuit breaker.

Pure; the time is given.
"""

import random
import threading
from typing import Callable, Optional

from .. import errors

#: Connects in a row that failed before the circuit opens.
THRESHOLD = 3
#: Seconds that an open circuit stays open, at first and at most.
SHORTEST = 0.5
LONGEST = 10.0


class CircuitBreaker:
    """The circuit opens when connects fail, so that calls fail at once; then one caller
    at a time may try again.

    Only a failed connect counts. A server that answers, with whatever error, is there.
    """

    def __init__(
        self,
        spread: Callable[[], float] = random.random,
        failure: Optional[errors.ConnectionFailed] = None,
    ) -> None:
        self._spread = spread
        self._lock = threading.Lock()
        self._failures = 0
        self._opened = 0  # how often since it was last closed
        self._until = 0.0
        self._probing = False
        self._reported = False
        #: What the last connect failed with; None if it did not.
        self.failure = failure

    @property
    def is_open(self) -> bool:
        return self._opened > 0

    def seconds_until_probe(self, now: float) -> Optional[float]:
        """Seconds until the next attempt may be made; None: make it, and report how it
        went.
        """
        with self._lock:
            if not self._opened:
                return None
            if now < self._until:
                return self._until - now
            if self._probing:
                return SHORTEST
            self._probing = True
            return None

    def record_success(self, failure: Optional[errors.ConnectionFailed] = None) -> None:
        """The server answered, and let the caller in or turned him away."""
        with self._lock:
            self._failures = self._opened = 0
            self._probing = False
            self.failure = failure

    def record_failure(self, now: float, failure: errors.ConnectionFailed) -> None:
        with self._lock:
            self._failures += 1
            self.failure = failure
            if self._probing or self._failures >= THRESHOLD:
                # Between half and the whole, lest all processes probe at once.
                span = min(LONGEST, SHORTEST * 2.0 ** min(self._opened, 16)) * (
                    0.5 + 0.5 * self._spread()
                )
                self._opened += 1
                self._until = now + span
            self._probing = False

    def record_cancelled(self) -> None:
        """The attempt was broken off, which says nothing about the server."""
        with self._lock:
            self._probing = False

    def report_outage(self) -> bool:
        """True once for an outage: the circuit is open, and nobody has reported it."""
        with self._lock:
            if self._reported or not self._opened:
                return False
            self._reported = True
            return True

    def report_recovery(self) -> bool:
        """True once after an outage that was reported."""
        with self._lock:
            reported = self._reported
            self._reported = False
            return reported
