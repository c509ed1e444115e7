"""Executing one statement along its route, and the rules for sending it again."""

import time
from typing import Any, Callable, List, Optional, Tuple, Union

from .. import deadlines, error_codes, errors
from ..observability.query_call import ObservedCall
from ..protocol.response import completed
from ..protocol.statements import Call, Statement
from . import fences, observed, reads
from .resumable import Resumable
from .steps import AwaitSignal, Execute, Executor, Plan, Route, Step


def execute_statement(
    route: Route,
    statement: Union[Statement, Call],
    until: Optional[float] = None,
    clock: Callable[[], float] = time.monotonic,
    parent: Optional[ObservedCall] = None,
) -> Plan[Any]:
    """Run one statement where the route says.

    It is sent a second time only outside a transaction: if its connection was lost, and
    it is a plain read, was declared idempotent, or had not been sent completely; or if
    the server refused it because it is not the primary, and there are other hosts. Of a
    procedure a part may have been applied before that.

    Args:
        route: The route of the call.
        statement: The statement or procedure call.
        until: When it must be over, as of ``deadlines.deadline_after``: the one form
            that a time limit has from here down to the connection.
        clock: Returns seconds.
        parent: The call to several shards that it is part of, if that is observed.

    Returns:
        The result of the statement's exchange: a list of result sets, or a CallResult.

    Raises:
        RoutingError: There is nowhere to send it.
        OutcomeUnknown: The connection was lost after a write was sent.
        ConnectionLost: The connection was lost in the middle of a transaction, or twice
            while reading.
        DeadlineExceeded: The time was over; WriteTimedOut if a write had been sent by
            then.
        Error: The server's error, by its class and code.
    """
    for last in (False, True):
        executor = yield from route(until)
        if executor.observers.watches_calls and observed.observable(statement):
            call, watched = observed.begin(executor, statement, clock, parent)
            found = observed.found_route(executor, route)
            plan = execute_statement(found, watched, until, clock)
            return (yield from observed.observe(executor.observers, call, plan, clock))
        if executor.read_only or until is not None:
            _check_sendable(executor, statement, until, clock)
            if executor.replica is not None:
                return (yield from reads.read_from_replica(route, executor, statement, until))
        try:
            result = yield Execute(executor, statement, until)
            if type(result) is list and result[0].lastrowid:
                executor.record_insert_id(result[0].lastrowid)
            return result
        except (errors.ServiceNotOpen, errors.ShardUnavailable) as error:
            if last or not (yield from _route_changed(route, executor, error, until)):
                raise
        except errors.TenantFenced as fenced:
            return (yield from fences.send_again(route, executor, statement, until, fenced))
        except errors.NotPrimary as refused:
            began = statement.calls or completed(refused.driver_error or refused)
            if last or began or not refused.elsewhere:
                raise
        except (errors.ConnectionLost, errors.DeadlineExceeded) as broken:
            _check_outcome_is_known(broken, statement)
            _check_may_repeat(broken, executor, last=last)
            executor.observers.post_pool("retry", executor, error=broken, detail="statement")
    raise AssertionError("unreachable")


def _check_outcome_is_known(
    broken: Union[errors.ConnectionLost, errors.DeadlineExceeded],
    statement: Union[Statement, Call],
) -> None:
    if broken.sent and not statement.repeatable and not broken.in_transaction:
        raise outcome_unknown(broken, "the statement") from broken


def _check_sendable(
    executor: Executor,
    statement: Union[Statement, Call],
    until: Optional[float],
    clock: Callable[[], float],
) -> None:
    if executor.read_only and not statement.reads:
        raise write_refusal(executor, statement.why_no_read)
    if until is not None and clock() >= until:
        raise errors.DeadlineExceeded(
            "the deadline had passed before the statement was sent"
        ).with_context(executor.name, executor.shard_id, sent=False)


def _check_may_repeat(broken: errors.Error, executor: Executor, *, last: bool) -> None:
    """Raise the error, unless the statement, which did no harm, is sent again."""
    lost = isinstance(broken, errors.ConnectionLost) and not broken.in_transaction
    if last or not lost or not executor.take_retry_token():
        raise broken


def check_out(
    route: Route,
    *,
    raw: bool = False,
    until: Optional[float] = None,
    into: Optional[List[Tuple[Any, Any]]] = None,
) -> Plan[Tuple[Any, Any]]:
    """Check out a connection of the database that the route selects.

    With ``raw`` it is for a borrower whose statements are not known, which a read-only
    shard refuses.

    Returns:
        The client and the connection.

    Raises:
        PoolTimeout: No connection became free.
        Error: As ``execute_statement`` before anything is sent.
    """
    until = deadlines.deadline_after() if until is None else until
    for last in (False, True):
        client = yield from route(until)
        if (raw and client.read_only) or client.write_refusal is not None:
            raise write_refusal(client, "what is sent through a borrowed connection may write")
        try:
            return (yield from reads.check_out_following(route, client, until, into))
        except (errors.ServiceNotOpen, errors.ShardUnavailable) as error:
            if last or not (yield from _route_changed(route, client, error, until)):
                raise
    raise AssertionError("unreachable")


def write_refusal(executor: Executor, why: str) -> errors.Error:
    """Make the error for a write to a read-only executor.

    Args:
        executor: The executor, which may make its own error.
        why: Why the statement is not known to be a read.
    """
    if executor.write_refusal is not None:
        return executor.write_refusal()
    if executor.shard_id is None or executor.reads_only:
        return errors.read_only_target(executor.name, executor.shard_id, why)
    return errors.shard_read_only(executor.shard_id, why)


def resolve_route(route: Route, until: Optional[float] = None) -> Plan[Executor]:
    """Resolve a route.

    Args:
        route: The route.
        until: The deadline, by time.monotonic(); None for no limit.

    Raises:
        RoutingError: No database could be selected.
        ServiceNotOpen: Its service is not open.
    """
    return (yield from route(until))


def begin_route(
    route: Route, until: Optional[float] = None
) -> Plan[Tuple[Optional[Executor], Optional[Plan[Executor]]]]:
    """Resolve a route, unless that has to wait for something that happens elsewhere.

    Args:
        route: The route.
        until: The deadline, by time.monotonic(); None for no limit.

    Returns:
        The executor; or None, and the plan that waits and then returns it.

    Raises:
        RoutingError: No database could be selected.
        ServiceNotOpen: Its service is not open.
    """
    running: Resumable[Step, Executor] = Resumable(route(until))
    step = yield from running.run_until(lambda each: isinstance(each, AwaitSignal))
    if step is not None:
        return None, running.remaining(step)
    return running.result, None


def _route_changed(
    route: Route, executor: Executor, error: errors.Error, until: Optional[float]
) -> Plan[bool]:
    """Resolve the route again after an error; return whether it leads elsewhere now.

    Either the pool was closed after the route was resolved, because the shard was moved
    or removed; or the server denied the login, and the shard table may have changed.
    """
    if not isinstance(error, errors.ServiceNotOpen):
        cause = error.__cause__
        denied = isinstance(cause, errors.Error) and cause.errno in error_codes.DENIED
        if not denied or executor.refresh_on_miss is None:
            return False
        yield from executor.refresh_on_miss(None, until)
    return (yield from route(until)) is not executor


def outcome_unknown(broken: errors.Error, what: str) -> errors.OutcomeUnknown:
    """The error for a write whose connection was lost, or whose deadline passed, before
    it was answered.
    """
    late = isinstance(broken, errors.DeadlineExceeded)
    how = "the deadline passed" if late else "the connection was lost"
    message = (
        f"{how} before {what} was answered, so it may or may not have been applied "
        f"({broken.args[-1]})"
    )
    cls = errors.WriteTimedOut if late else errors.OutcomeUnknown
    return cls(broken.errno or 2013, message).with_context(
        broken.target, broken.shard_id, sent=True
    )
