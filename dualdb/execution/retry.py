"""What may be tried again, how often, and after which pause."""

import random
import time
from typing import Callable, Optional

from .. import deadlines, errors


def backoff(
    attempt: int,
    *,
    base: float = 0.05,
    cap: float = 2.0,
    spread: Callable[[], float] = random.random,
) -> float:
    """Seconds to wait after failed attempt number ``attempt``, from 0: exponential,
    with full jitter lest callers march in step.
    """
    return min(cap, base * 2.0 ** min(attempt, 32)) * spread()


#: What a whole transaction may be begun again after: it was rolled back, and nothing of
#: it is applied.
RUN_AGAIN = (
    errors.Deadlock,
    errors.LockWaitTimeout,
    errors.NotPrimary,
    errors.ConnectionLost,
    errors.TransactionAborted,
)


#: How often a transaction is begun at most.
RUN_ATTEMPTS = 5


def pause_before_run(
    error: errors.Error,
    attempt: int,
    attempts: int,
    left: Optional[float] = None,
    clock: Callable[[], float] = time.monotonic,
) -> Optional[float]:
    """Seconds to wait before a transaction is begun again after attempt number
    ``attempt``, from 0; None where it is not.

    ``left`` is how many seconds there are for all of it.
    """
    now = clock()
    until, pause = deadlines.deadline_after(left, now), backoff(attempt)
    if not isinstance(error, RUN_AGAIN) or not error.retryable or attempt + 1 >= attempts:
        return None
    return None if until is not None and now + pause >= until else pause
