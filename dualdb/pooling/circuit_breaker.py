"""A circuit breaker for connecting to a server.

Pure: the current time is an argument.
"""

import copy
import random
import threading
from typing import Callable, Optional

from .. import errors

#: Consecutive failed connects that open the circuit.
THRESHOLD = 3
#: Seconds until an open circuit allows a probe, at first and at most; and at most where
#: several hosts are probed, each of which has a pause of its own.
SHORTEST = 0.5
LONGEST = 10.0
LONGEST_OF_SEVERAL = 1.0


class CircuitBreaker:
    """Opens when connects fail, so that calls fail at once; then allows one probe at a
    time.

    Only unreachable servers count. One that responds with an error is reachable.

    Args:
        spread: Returns a random number from 0 to 1, for jitter.
        failure: The error of the last connect; None if it succeeded.
        longest: The most seconds until an open circuit allows a probe.
    """

    def __init__(
        self,
        spread: Callable[[], float] = random.random,
        failure: Optional[errors.ConnectionFailed] = None,
        longest: float = LONGEST,
    ) -> None:
        self._spread = spread
        self._longest = longest
        self._lock = threading.Lock()
        self._failures = 0
        self._opened = 0  # number of openings since it was last closed
        self._until = 0.0
        self._probing = False
        self._reported = False
        #: The error of the last connect, without its frames; None if it succeeded.
        self.failure = failure

    @property
    def is_open(self) -> bool:
        """Whether the circuit is open."""
        return self._opened > 0

    def seconds_until_probe(self, now: float) -> Optional[float]:
        """Request permission to connect.

        Args:
            now: The current time in seconds.

        Returns:
            None: connect, and record the outcome. Otherwise the seconds until the next
            attempt is allowed.
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
        """Record that the server responded.

        Args:
            failure: Its error, if it refused the login; None after a success.
        """
        with self._lock:
            self._failures = self._opened = 0
            self._probing = False
            self.failure = copy.copy(failure)

    def record_failure(self, now: float, failure: errors.ConnectionFailed) -> None:
        """Record that the server could not be reached.

        Args:
            now: The current time in seconds.
            failure: The error.
        """
        with self._lock:
            self._failures += 1
            self.failure = copy.copy(failure)
            if self._probing or self._failures >= THRESHOLD:
                # Jitter of up to a half, so that processes do not probe in step.
                span = min(self._longest, SHORTEST * 2.0 ** min(self._opened, 16)) * (
                    0.5 + 0.5 * self._spread()
                )
                self._opened += 1
                self._until = now + span
            self._probing = False

    def record_cancelled(self) -> None:
        """Record that the attempt was cancelled, with no result about the server."""
        with self._lock:
            self._probing = False

    def report_outage(self) -> bool:
        """Return True once per outage, when the circuit is open."""
        with self._lock:
            if self._reported or not self._opened:
                return False
            self._reported = True
            return True

    def report_recovery(self) -> bool:
        """Return True once after a reported outage."""
        with self._lock:
            reported = self._reported
            self._reported = False
            return reported
