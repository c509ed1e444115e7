"""What is repeated, how often, and after which pause."""

import random
import time
from typing import Any, Callable, Optional

from .. import deadlines, errors
from ..protocol.transaction_commands import TransactionOptions
from .fences import FenceWait
from .steps import Plan, RunBlock, Sleep, TransactionBlock


def backoff(
    attempt: int,
    *,
    base: float = 0.05,
    cap: float = 2.0,
    spread: Callable[[], float] = random.random,
) -> float:
    """How long to wait after a failed attempt: exponential, with full jitter so that
    callers do not repeat in step.

    Args:
        attempt: Its number, from 0.
        base: Seconds at most after the first.
        cap: Seconds at most after any.
        spread: Gives a number from 0 to 1.

    Returns:
        Seconds.
    """
    return min(cap, base * 2.0 ** min(attempt, 32)) * spread()


#: After these errors a whole transaction may be repeated: it was rolled back, and
#: nothing of it was applied.
RUN_AGAIN = (
    errors.Deadlock,
    errors.LockWaitTimeout,
    errors.NotPrimary,
    errors.ConnectionLost,
    errors.TransactionAborted,
)


#: The default of the largest number of attempts.
RUN_ATTEMPTS = 5


def run(
    new_transaction: Callable[[TransactionOptions], Any],
    block_of: Callable[[Any], TransactionBlock],
    function: Callable[[Any], Any],
    options: TransactionOptions,
    attempts: int,
) -> Plan[Any]:
    """Call a function in a transaction, and repeat the whole after a conflict; see
    ``Target.run``.

    Args:
        new_transaction: Makes a transaction with options.
        block_of: Returns the block of such a transaction.
        function: The user's; takes the transaction.
        options: How each transaction is opened; their ``timeout`` is for all attempts.
        attempts: The largest number of calls.
    """
    options = options.checked().begun()
    fence = FenceWait(options.until)
    attempt = 0
    try:
        while True:
            transaction = new_transaction(options)
            try:
                return (yield RunBlock(transaction, function))
            except errors.TenantFenced as fenced:
                if block_of(transaction).outer is not None:
                    raise
                pause: Optional[float] = fence.pause(fenced, block_of(transaction).client)
            except errors.Error as error:
                until = deadlines.earliest(options.until, deadlines.deadline_after())
                pause = pause_before_run(error, attempt, attempts, until)
                # only the whole can begin again, not a savepoint
                if pause is None or block_of(transaction).outer is not None:
                    raise
                attempt += 1
            yield Sleep(pause or 0.0)
    finally:
        fence.leave()


def pause_before_run(
    error: errors.Error,
    attempt: int,
    attempts: int,
    until: Optional[float] = None,
    clock: Callable[[], float] = time.monotonic,
) -> Optional[float]:
    """How long to wait before a transaction is repeated.

    Args:
        error: What the last attempt ended with.
        attempt: Its number, from 0.
        attempts: The largest number of attempts.
        until: When all of them must be over, by ``clock``; None for no limit.
        clock: Gives the time.

    Returns:
        Seconds; None if it is not repeated.
    """
    if not isinstance(error, RUN_AGAIN) or not error.retryable or attempt + 1 >= attempts:
        return None
    pause = backoff(attempt)
    return None if until is not None and clock() + pause >= until else pause
