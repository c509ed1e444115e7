"""What may be tried again, how often, and after which pause."""

import itertools
import random
import time
from typing import Any, Callable, Optional

from .. import deadlines, errors
from ..protocol.transaction_commands import TransactionOptions
from .steps import Plan, RunBlock, Sleep


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


def run(
    new_transaction: Callable[[TransactionOptions], Any],
    function: Callable[[Any], Any],
    options: TransactionOptions,
    attempts: int,
) -> Plan[Any]:
    """Call a function with a transaction, and begin again as a whole where the server
    has rolled it back for a conflict; see ``run`` of a target.
    """
    options.checked()
    timeout = options.timeout
    until = None if timeout is None else time.monotonic() + deadlines.seconds(timeout)
    for attempt in itertools.count():
        left = None if until is None else max(0.0, until - time.monotonic())
        transaction = new_transaction(options._replace(timeout=left))
        try:
            return (yield RunBlock(transaction, function))
        except errors.Error as error:
            left = None if until is None else max(0.0, until - time.monotonic())
            pause = pause_before_run(error, attempt, attempts, left)
            # only the whole can begin again, not a savepoint
            if pause is None or transaction._outer is not None:
                raise
        yield Sleep(pause)
    raise AssertionError("unreachable")


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
    until = deadlines.deadline_after(left, now)
    pause = backoff(attempt)
    if not isinstance(error, RUN_AGAIN) or not error.retryable or attempt + 1 >= attempts:
        return None
    return None if until is not None and now + pause >= until else pause
