"""Opening a connection: which host, retries, circuit breaker, and errors."""

import logging
import time
from typing import Callable, Optional

from .. import error_codes, errors
from ..buffer import BufferedWait, Refusal
from ..endpoints.node import Role
from ..endpoints.state import SEARCH_INTERVAL, Endpoint
from ..observability.logs import about
from ..pooling.server_budget import Permit
from . import retry
from .steps import AwaitPermit, AwaitSignal, Connect, Plan, Pool, Sleep

log = logging.getLogger("dualdb.pool")

#: Number of attempts to connect before an error is raised.
CONNECT_ATTEMPTS = 3


def connecting(
    pool: Pool, until: Optional[float] = None, clock: Callable[[], float] = time.monotonic
) -> Plan[Optional[Permit]]:
    """Open a connection within the server's budget, with retries after temporary
    failures.

    Of several hosts the first that the policy allows is used. While none is the primary
    and another one may be elected, the call waits.

    Args:
        pool: The pool that needs a connection.
        until: The deadline, by ``clock``; None for no limit.
        clock: Returns seconds.

    Returns:
        The permit, to be attached to the connection, or with a connection that came
        back to the pool meanwhile and is used instead; None without a budget.

    Raises:
        PoolTimeout: The server's budget was exhausted for ``pool_timeout``.
        ShardUnavailable: Connecting to a shard failed.
        ConnectionFailed: Connecting to another database failed.
        DeadlineExceeded: The deadline passed first.
    """
    budget = pool.budget
    if budget is None:
        yield from _attempts(pool, until, clock)
        return None
    permit = budget.request(pool)
    try:
        yield from _await_permit(pool, permit, until, clock)
        if permit.granted:
            yield from _attempts(pool, until, clock)
    except BaseException:
        budget.withdraw(permit)
        raise
    return permit


def _await_permit(
    pool: Pool, permit: Permit, until: Optional[float], clock: Callable[[], float]
) -> Plan[None]:
    if permit.reuses is not None or (permit.granted and permit.replaces is None):
        return
    began = clock()
    limit = pool.config.pool_timeout
    if until is not None:
        limit = min(limit, max(0.0, until - began))
    yield AwaitPermit(permit, limit)
    if not permit.granted and permit.reuses is None:
        raise pool.permit_refused(clock() - began, limit)


def _attempts(pool: Pool, until: Optional[float], clock: Callable[[], float]) -> Plan[None]:
    if pool.endpoints.several:
        yield from _connecting_to_one_of(pool, until, clock)
    else:
        yield from _connecting_to_the_one(pool, until, clock)


def _connecting_to_the_one(
    pool: Pool, until: Optional[float], clock: Callable[[], float]
) -> Plan[None]:
    """Connect to the only host, again after temporary failures.

    Retrying is always safe, because nothing has been sent. After ``connect_timeout`` no
    further attempt is made, so that an unresponsive host does not cost three timeouts.
    While the pool's circuit is open only its periodic probe connects.
    """
    began = clock()
    breaker = pool.breaker
    limit = pool.config.connect_timeout
    endpoint = pool.endpoints.all[0]
    for attempt in range(CONNECT_ATTEMPTS):
        now = clock()
        wait = breaker.seconds_until_probe(now)
        if wait is not None:
            assert breaker.failure is not None
            raise _no_connection(pool, breaker.failure, wait)
        attempt_deadline = now + limit
        try:
            yield Connect(_earlier(attempt_deadline, until), endpoint)
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
            raise _deadline_passed(pool, failed) from failed
        may_retry = failed.retryable and now - began < limit and attempt + 1 < CONNECT_ATTEMPTS
        if not may_retry or breaker.is_open or not pool.retry_budget.spend():
            raise _no_connection(pool, failed, None)
        pool.observers.post_pool("retry", pool, error=failed, detail="connect")
        pause = retry.backoff(attempt)
        yield Sleep(pause if until is None else max(0.0, min(pause, until - now)))


def _connecting_to_one_of(
    pool: Pool, until: Optional[float], clock: Callable[[], float]
) -> Plan[None]:
    """Open a connection to one of several hosts, see ``connecting``."""
    began = clock()
    endpoints = pool.endpoints
    wait = BufferedWait(endpoints.buffer, pool.config, began, until)
    attempt = 0
    try:
        while True:
            failure = yield from _round(pool, until, clock)
            if failure is None:
                return
            now = clock()
            if until is not None and now >= until:
                raise _deadline_passed(pool, failure) from failure
            if endpoints.undecided:
                refusal = wait.refusal(now)
                if refusal is Refusal.FULL:
                    size = pool.config.buffer_size
                    raise errors.buffer_full(failure, size, pool.name, pool.shard_id)
                if refusal is not None:
                    raise _no_connection(pool, failure, None)
                yield AwaitSignal(wait.subscribe, min(SEARCH_INTERVAL, wait.seconds_left(now)))
                continue
            attempt += 1
            late = now - began >= pool.config.connect_timeout
            if not failure.retryable or late or attempt >= CONNECT_ATTEMPTS:
                raise _no_connection(pool, failure, None)
            pause = retry.backoff(attempt)
            yield Sleep(pause if until is None else max(0.0, min(pause, until - now)))
    finally:
        wait.leave()


def _round(
    pool: Pool, until: Optional[float], clock: Callable[[], float]
) -> Plan[Optional[errors.ConnectionFailed]]:
    """Try the hosts once, in order; return why none is used, or None if one is.

    While another caller tries them all, return at once.
    """
    breaker, endpoints = pool.breaker, pool.endpoints
    now = clock()
    wait = breaker.seconds_until_probe(now)
    if wait is not None:
        assert breaker.failure is not None
        raise _no_connection(pool, breaker.failure, wait)
    attempt = endpoints.next_attempt(now)
    if not attempt.candidates:
        breaker.record_cancelled()
        return endpoints.no_primary().with_context(pool.name, pool.shard_id, sent=False)
    failure: Optional[errors.ConnectionFailed] = None
    try:
        for endpoint in attempt.candidates:
            failure = yield from _try(pool, endpoint, until, clock)
            if failure is None:
                break
            if until is not None and clock() >= until:
                breaker.record_cancelled()
                return failure
        else:
            failure = failure or endpoints.no_primary()
            if pool.config.endpoint_policy == "primary_first":
                failure = yield from _try_replicas(pool, failure, until, clock)
    except BaseException:
        breaker.record_cancelled()
        raise
    finally:
        endpoints.end_search(attempt)
    if failure is None:
        breaker.record_success()
        _report_recovery(pool)
        return None
    all_tried = len(attempt.candidates) == len(endpoints.all)
    return _no_host(pool, failure, clock(), all_tried=all_tried)


def _no_host(
    pool: Pool, failure: errors.ConnectionFailed, now: float, *, all_tried: bool
) -> errors.ConnectionFailed:
    """Record a round in which no host was used; return the error of all of them."""
    endpoints = pool.endpoints
    if failure.errno is None or failure.retryable:
        failure = endpoints.no_primary().with_context(pool.name, pool.shard_id, sent=False)
    if endpoints.undecided or not failure.retryable or not all_tried:
        pool.breaker.record_success(failure)
    else:
        pool.breaker.record_failure(now, failure)
        _report_outage(pool, failure)
    return failure


def _try(
    pool: Pool,
    endpoint: Endpoint,
    until: Optional[float],
    clock: Callable[[], float],
    *,
    replica: bool = False,
) -> Plan[Optional[errors.ConnectionFailed]]:
    """Connect to one of several hosts; return why it is not used, or None if it is."""
    began = clock()
    limit = began + endpoint.connect_limit(pool.config.connect_timeout)
    failure: Optional[errors.ConnectionFailed] = None
    try:
        yield Connect(_earlier(limit, until), endpoint, replica=replica)
    except errors.ConnectionFailed as error:
        failure = error
    if pool.observers.hooks("connect"):
        pool.observers.post_pool("connect", pool, seconds=clock() - began, error=failure)
    return failure


def _try_replicas(
    pool: Pool,
    failure: errors.ConnectionFailed,
    until: Optional[float],
    clock: Callable[[], float],
) -> Plan[Optional[errors.ConnectionFailed]]:
    """Connect to a replica in place of a primary; return as ``_try``."""
    found: Optional[errors.ConnectionFailed] = failure
    for endpoint in pool.endpoints.all:
        if endpoint.role is Role.REPLICA:
            found = yield from _try(pool, endpoint, until, clock, replica=True)
            if found is None:
                break
    return found


def _earlier(at: float, other: Optional[float]) -> float:
    return at if other is None else min(at, other)


def _deadline_passed(pool: Pool, failure: errors.ConnectionFailed) -> errors.DeadlineExceeded:
    message = f"the deadline passed while connecting ({failure.summary})"
    return errors.DeadlineExceeded(message).with_context(pool.name, pool.shard_id, sent=False)


def _report_outage(pool: Pool, failure: errors.ConnectionFailed) -> None:
    if pool.breaker.report_outage():
        log.warning(
            "%s cannot be reached: %s",
            pool.name,
            failure.args[-1],
            extra=about("circuit_opened", pool),
        )
        pool.observers.post_pool("circuit_opened", pool, error=failure)
        if pool.on_outage is not None:
            pool.on_outage(failure)


def _report_recovery(pool: Pool) -> None:
    if pool.breaker.report_recovery():
        log.info("%s can be reached again", pool.name, extra=about("circuit_closed", pool))
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
