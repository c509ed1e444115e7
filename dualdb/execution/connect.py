"""Opening a connection: how often it is tried, and what a failure means."""

import time
from typing import Callable, Optional

from .. import errors
from . import retry
from .steps import Connect, Plan, Pool, Sleep

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
    began, health, limit = clock(), pool.health, pool.config.connect_timeout
    for attempt in range(CONNECT_ATTEMPTS):
        now = clock()
        wait = health.refuses(now)
        if wait is not None:
            assert health.failure is not None
            raise _no_connection(pool, health.failure, wait)
        latest = now + limit
        try:
            yield Connect(latest if until is None else min(latest, until))
            health.reached()
            return
        except errors.ConnectionFailed as error:
            now = clock()
            late = until is not None and now >= until
            if late and latest > now:
                health.abandoned()
            elif error.errno in errors.UNREACHABLE:
                health.failed(now, error)
            else:
                health.reached(error)
            failed = error
        except BaseException:
            health.abandoned()
            raise
        if late:
            message = f"the deadline passed while connecting ({failed})"
            raise errors.DeadlineExceeded(message).about(
                pool.name, pool.shard_id, sent=False
            ) from failed
        passing = failed.retryable and now - began < limit and attempt + 1 < CONNECT_ATTEMPTS
        if not passing or health.is_open or not health.spend():
            raise _no_connection(pool, failed, None)
        pause = retry.backoff(attempt)
        yield Sleep(pause if until is None else max(0.0, min(pause, until - now)))


def _no_connection(
    pool: Pool, failure: errors.ConnectionFailed, retry_after: Optional[float]
) -> errors.Error:
    why = str(failure)
    if retry_after is not None:
        why += f"; tried again in {retry_after:.1f} s"
    if pool.shard_id is not None:
        unavailable = errors.unavailable(pool.shard_id, f"no connection: {why}")
        unavailable.retry_after, unavailable.__cause__ = retry_after, failure
        return unavailable
    if retry_after is None:
        return failure
    failed = errors.ConnectionFailed(failure.errno, why).about(pool.name, None, sent=False)
    failed.retry_after, failed.__cause__ = retry_after, failure
    return failed
