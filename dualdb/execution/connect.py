"""Opening a connection: retries, circuit breaker, and errors."""

import logging
import time
from typing import Callable, Optional

from .. import error_codes, errors
from . import retry
from .steps import Connect, Plan, Pool, Sleep

log = logging.getLogger("dualdb")

#: Number of attempts to connect before an error is raised.
CONNECT_ATTEMPTS = 3


def connecting(
    pool: Pool, until: Optional[float] = None, clock: Callable[[], float] = time.monotonic
) -> Plan[None]:
    """Open a connection, with retries after temporary failures.

    Retrying is always safe, because nothing has been sent. After ``connect_timeout`` no
    further attempt is made, so that an unresponsive host does not cost three timeouts.
    While the pool's circuit is open only its periodic probe connects.

    Args:
        pool: The pool that needs a connection.
        until: The deadline, by ``clock``; None for no limit.
        clock: Returns seconds.

    Raises:
        ShardUnavailable: Connecting to a shard failed.
        ConnectionFailed: Connecting to another database failed.
        DeadlineExceeded: The deadline passed first.
    """
    began = clock()
    breaker = pool.breaker
    limit = pool.config.connect_timeout
    for attempt in range(CONNECT_ATTEMPTS):
        now = clock()
        wait = breaker.seconds_until_probe(now)
        if wait is not None:
            assert breaker.failure is not None
            raise _no_connection(pool, breaker.failure, wait)
        attempt_deadline = now + limit
        try:
            yield Connect(attempt_deadline if until is None else min(attempt_deadline, until))
            breaker.record_success()
            if pool.observers.hooks("connect"):
                pool.observers.post_pool("connect", pool, seconds=clock() - now)
            _report_recovery(pool)
            return
        except errors.ConnectionFailed as error:
            now = clock()
            pool.observers.post_pool(
                "connect", pool, seconds=now - attempt_deadline + limit, error=error
            )
            late = until is not None and now >= until
            if late and attempt_deadline > now:
                breaker.record_cancelled()
            elif error.errno in error_codes.UNREACHABLE:
                breaker.record_failure(now, error)
                _report_outage(pool, error)
            else:
                breaker.record_success(error)
                _report_recovery(pool)
            failed = error
        except BaseException:
            breaker.record_cancelled()
            raise
        if late:
            message = f"the deadline passed while connecting ({failed.summary})"
            raise errors.DeadlineExceeded(message).with_context(
                pool.name, pool.shard_id, sent=False
            ) from failed
        may_retry = failed.retryable and now - began < limit and attempt + 1 < CONNECT_ATTEMPTS
        if not may_retry or breaker.is_open or not pool.retry_budget.spend():
            raise _no_connection(pool, failed, None)
        pool.observers.post_pool("retry", pool, error=failed, detail="connect")
        pause = retry.backoff(attempt)
        yield Sleep(pause if until is None else max(0.0, min(pause, until - now)))


def _report_outage(pool: Pool, failure: errors.ConnectionFailed) -> None:
    if pool.breaker.report_outage():
        log.warning("%s cannot be reached: %s", pool.name, failure.args[-1])
        pool.observers.post_pool("circuit_opened", pool, error=failure)
        if pool.on_outage is not None:
            pool.on_outage(failure)


def _report_recovery(pool: Pool) -> None:
    if pool.breaker.report_recovery():
        log.info("%s can be reached again", pool.name)
        pool.observers.post_pool("circuit_closed", pool)
        if pool.on_outage is not None:
            pool.on_outage(None)


def _no_connection(
    pool: Pool, failure: errors.ConnectionFailed, retry_after: Optional[float]
) -> errors.Error:
    """Make the error for a failed checkout.

    Args:
        pool: The pool that could not connect.
        failure: The error of the connect.
        retry_after: Seconds until the circuit breaker allows the next attempt; None if
            it did not refuse this one.
    """
    later = "" if retry_after is None else f"; next attempt in {retry_after:.1f} s"
    if pool.shard_id is not None:
        unavailable = errors.shard_unavailable(
            pool.shard_id, f"no connection: {failure.summary}{later}"
        )
        unavailable.retry_after = retry_after
        unavailable.__cause__ = failure
        return unavailable
    if retry_after is None:
        return failure
    failed = errors.ConnectionFailed(failure.errno, failure.message + later).with_context(
        pool.name, None, sent=False
    )
    failed.retry_after = retry_after
    failed.__cause__ = failure
    return failed
