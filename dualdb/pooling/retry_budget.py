"""How many retries a database may be asked for: when everything fails, retries must not
multiply the load.
"""

import threading

#: Retries that may be made at once, and those earned by each call.
BUDGET = 10.0
PER_CALL = 0.1


class RetryBudget:
    """Retries of one database, earned by calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = BUDGET

    def earn(self) -> None:
        """Count a call."""
        left = self._left + PER_CALL
        self._left = left if left < BUDGET else BUDGET

    def spend(self) -> bool:
        """Take one retry.

        Returns:
            False where there is none left.
        """
        with self._lock:
            if self._left < 1.0:
                return False
            self._left -= 1.0
            return True
