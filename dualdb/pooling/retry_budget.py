"""A token bucket that limits the retries to one database, so that retries do not
multiply the load during an outage.
"""

import threading

#: The maximum balance in retries, and the amount that each call adds.
BUDGET = 10.0
PER_CALL = 0.1


class RetryBudget:
    """The retry budget of one database, replenished by its calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = BUDGET

    def earn(self) -> None:
        """Add the share of one call."""
        left = self._left + PER_CALL
        self._left = left if left < BUDGET else BUDGET

    def spend(self) -> bool:
        """Take one retry.

        Returns:
            False if the budget is exhausted.
        """
        with self._lock:
            if self._left < 1.0:
                return False
            self._left -= 1.0
            return True
