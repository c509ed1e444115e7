"""Opening a connection: how often it is tried, and what a failure means."""

import logging
import time
from typing import Callable, Optional

from .. import error_codes, errors
from . import retry
from .steps import Connect, Plan, Pool, Sleep

log = logging.getLogger("dualdb")

#: How often a connect is tried before the caller is told.
CONNECT_ATTEMPTS = 3


def connecting(
    pool: Pool, until: Optional[float] = None, clock: Callable[[], float] = time.monotonic
) -> Plan[None]:
    """Open a connection, trying again where the failure may pass.

    Nothing has been sent, so that is always safe.

    After ``connect_timeout`` no further attempt is made: a host that does not answer is
    not waited for three times. While the pool's circuit is open nothing is tried at
    all, but for one caller now and then.

    Raises:
        ShardUnavailable: the database is a shard's.
        ConnectionFailed: it is another.
        DeadlineExceeded: ``until`` was over before.
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
        latest = now + limit
        try:
            yield Connect(latest if until is None else min(latest, until))
            breaker.record_success()
            _report_recovery(pool)
            return
        except errors.ConnectionFailed as error:
            now = clock()
            late = until is not None and now >= until
            if late and latest > now:
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
        passing = failed.retryable and now - began < limit and attempt + 1 < CONNECT_ATTEMPTS
        if not passing or breaker.is_open or not pool.retry_budget.spend():
            raise _no_connection(pool, failed, None)
        pause = retry.backoff(attempt)
        yield Sleep(pause if until is None else max(0.0, min(pause, until - now)))


def _report_outage(pool: Pool, failure: errors.ConnectionFailed) -> None:
    if pool.breaker.report_outage():
        log.warning("%s cannot be reached: %s", pool.name, failure.args[-1])
        if pool.on_outage is not None:
            pool.on_outage(failure)


def _report_recovery(pool: Pool) -> None:
    if pool.breaker.report_recovery():
        log.info("%s can be reached again", pool.name)
        if pool.on_outage is not None:
            pool.on_outage(None)


def _no_connection(
    pool: Pool, failure: errors.ConnectionFailed, retry_after: Optional[float]
) -> errors.Error:
    """The error for a caller who gets no connection.

    Args:
        pool: The pool that could not connect.
        failure: Why.
        retry_after: Seconds until it is tried again; None where nobody was told to
            wait.
    """
    later = "" if retry_after is None else f"; tried again in {retry_after:.1f} s"
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
