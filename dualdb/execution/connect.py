"""Opening a connection: which host, retries, circuit breaker, and errors."""

import logging
import time
from typing import Any, Callable, Optional, Sequence

from .. import error_codes, errors
from ..buffer import BufferedWait, Refusal
from ..endpoints.node import Role
from ..endpoints.state import SEARCH_INTERVAL, Endpoint
from ..observability.logs import about
from . import retry
from .permits import Permits
from .steps import AwaitSignal, Connect, Plan, Pool, Sleep

log = logging.getLogger("dualdb.pool")

#: Number of attempts to connect before an error is raised.
CONNECT_ATTEMPTS = 3


def connecting(
    pool: Pool, until: Optional[float] = None, clock: Callable[[], float] = time.monotonic
) -> Plan[Any]:
    """Open a connection within its server's budget, with retries after temporary
    failures.

    Of several hosts the first that the policy allows is used. While none is the primary
    and another one may be elected, the call waits.

    Args:
        pool: The pool that needs a connection.
        until: The deadline, by ``clock``; None for no limit.
        clock: Returns seconds.

    Returns:
        A connection that came back to the pool during the wait for a server's budget,
        and is used instead; None if one was opened.

    Raises:
        PoolTimeout: The server's budget was exhausted for ``pool_timeout``.
        ShardUnavailable: Connecting to a shard failed.
        ConnectionFailed: Connecting to another database failed.
        DeadlineExceeded: The deadline passed first.
    """
    permits = Permits(pool, until, clock)
    try:
        if pool.endpoints.several:
            yield from _connecting_to_one_of(pool, permits, until, clock)
        else:
            yield from _connecting_to_the_one(pool, permits, until, clock)
    finally:
        permits.withdraw()
    return permits.reused


def _connecting_to_the_one(
    pool: Pool, permits: Permits, until: Optional[float], clock: Callable[[], float]
) -> Plan[None]:
    """Connect to the only host, again after temporary failures.

    Retrying is always safe, because nothing has been sent. After ``connect_timeout`` no
    further attempt is made, so that an unresponsive host does not cost three timeouts.
    While the pool's circuit is open only its periodic probe connects.
    """
    began = clock()
    limit = pool.config.connect_timeout
    for attempt in range(CONNECT_ATTEMPTS):
        waited = yield from _await_permit(pool, permits, clock)
        if permits.reused is not None:
            return
        began += waited
        failed = yield from _attempt(pool, permits, until, clock)
        if failed is None:
            return
        now = clock()
        may_retry = failed.retryable and now - began < limit and attempt + 1 < CONNECT_ATTEMPTS
        if not may_retry or pool.breaker.is_open or not pool.retry_budget.spend():
            raise _no_connection(pool, failed, None)
        pool.observers.post_pool("retry", pool, error=failed, detail="connect")
        pause = retry.backoff(attempt)
        yield Sleep(pause if until is None else max(0.0, min(pause, until - now)))


def _await_permit(pool: Pool, permits: Permits, clock: Callable[[], float]) -> Plan[float]:
    """Wait until the only host may be connected to, or a connection has come back.

    Returns:
        How long that took, in seconds.

    Raises:
        ShardUnavailable: The circuit is open, and the next probe is not due. The same
            as ConnectionFailed for a database that is not a shard.
    """
    breaker = pool.breaker
    waited = 0.0
    while permits.reused is None:
        wait = breaker.seconds_until_probe(clock())
        if wait is not None:
            assert breaker.failure is not None
            raise _no_connection(pool, breaker.failure, wait)
        taken = False
        try:
            taken = permits.take(pool.endpoints.all[0])
        finally:
            if not taken:
                breaker.record_cancelled()  # another one may probe meanwhile
        if taken:
            break
        if permits.lacking:
            waited += yield from permits.wait()
    return waited


def _attempt(
    pool: Pool, permits: Permits, until: Optional[float], clock: Callable[[], float]
) -> Plan[Optional[errors.ConnectionFailed]]:
    """Connect to the only host once, and tell the circuit breaker.

    Returns:
        The failure; None if there is a connection.

    Raises:
        DeadlineExceeded: The deadline passed first.
    """
    breaker = pool.breaker
    now = clock()
    limit = pool.config.connect_timeout
    attempt_deadline = now + limit
    try:
        deadline = _earlier(attempt_deadline, until)
        yield Connect(deadline, pool.endpoints.all[0], permit=permits.held)
        breaker.record_success()
        if pool.observers.hooks("connect"):
            pool.observers.post_pool("connect", pool, seconds=clock() - now)
        _report_recovery(pool)
        return None
    except errors.ConnectionFailed as error:
        permits.give_back()
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
    return failed


def _connecting_to_one_of(
    pool: Pool, permits: Permits, until: Optional[float], clock: Callable[[], float]
) -> Plan[None]:
    """Open a connection to one of several hosts, see ``connecting``."""
    began = clock()
    endpoints = pool.endpoints
    wait = BufferedWait(endpoints.buffer, pool.config, began, until)
    attempt = 0
    try:
        while True:
            failure = yield from _round(pool, permits, until, clock)
            if failure is None and permits.lacking:
                wait.leave()
                began += yield from permits.wait()
                if permits.reused is None:
                    continue
            if failure is None:
                return
            permits.give_back()
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
    pool: Pool, permits: Permits, until: Optional[float], clock: Callable[[], float]
) -> Plan[Optional[errors.ConnectionFailed]]:
    """Try the hosts once, in order; return why none is used, or None if one is, or
    might be if its budget were not used up: see ``Permits.lacking``.

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
    try:
        failure = yield from _try_in_turn(pool, attempt.candidates, permits, until, clock)
        late = failure is not None and until is not None and clock() >= until
        if failure is not None and not late and pool.config.endpoint_policy == "primary_first":
            failure = yield from _try_replicas(pool, failure, permits, until, clock)
    except BaseException:
        breaker.record_cancelled()
        raise
    finally:
        endpoints.end_search(attempt)
    if late or permits.lacking or permits.reused is not None:
        breaker.record_cancelled()
        return failure
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


def _try_in_turn(
    pool: Pool,
    candidates: Sequence[Endpoint],
    permits: Permits,
    until: Optional[float],
    clock: Callable[[], float],
) -> Plan[Optional[errors.ConnectionFailed]]:
    """Connect to the first host that is used; return as ``_round``.

    A host whose budget is used up is passed over, but not a known primary.
    """
    failure: Optional[errors.ConnectionFailed] = None
    for endpoint in candidates:
        if permits.take(endpoint):
            failure = yield from _try(pool, endpoint, permits, until, clock)
            if failure is None or (until is not None and clock() >= until):
                return failure
        elif permits.reused is not None or _is_waited_for(pool, endpoint):
            return None
    if permits.lacking:
        return None
    return failure or pool.endpoints.no_primary()


def _is_waited_for(pool: Pool, endpoint: Endpoint) -> bool:
    """Whether no other host is used in place of this one, which is known to work."""
    return pool.config.endpoint_policy != "any" and endpoint in pool.endpoints.working


def _try(
    pool: Pool,
    endpoint: Endpoint,
    permits: Permits,
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
        yield Connect(_earlier(limit, until), endpoint, replica=replica, permit=permits.held)
        permits.forget_lacking()
    except errors.ConnectionFailed as error:
        permits.give_back()
        failure = error
    if pool.observers.hooks("connect"):
        pool.observers.post_pool("connect", pool, seconds=clock() - began, error=failure)
    return failure


def _try_replicas(
    pool: Pool,
    failure: errors.ConnectionFailed,
    permits: Permits,
    until: Optional[float],
    clock: Callable[[], float],
) -> Plan[Optional[errors.ConnectionFailed]]:
    """Connect to a replica in place of a primary; return as ``_round``."""
    found: Optional[errors.ConnectionFailed] = failure
    for endpoint in pool.endpoints.all:
        if endpoint.role is Role.REPLICA and permits.take(endpoint):
            found = yield from _try(pool, endpoint, permits, until, clock, replica=True)
        if found is None or permits.reused is not None:
            return None
    return None if permits.lacking else found


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
        pool.budgets.dismiss()
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
