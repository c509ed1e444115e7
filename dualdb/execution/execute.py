"""Running one statement where its route leads, and when it may be sent again."""

import time
from typing import Any, Callable, List, Optional, Tuple, Union

from .. import deadlines, error_codes, errors
from ..protocol.statements import Call, Statement
from .steps import CheckOut, Execute, Executor, Plan, Route


def execute_statement(
    route: Route,
    statement: Union[Statement, Call],
    until: Optional[float] = None,
    clock: Callable[[], float] = time.monotonic,
) -> Plan[Any]:
    """Run one statement where the route says.

    A statement is sent once. Only one that lost its connection, outside a transaction,
    and is a plain read or was declared idempotent or had not been sent whole, is sent a
    second time.

    Args:
        route: Where to.
        statement: What.
        until: When it must be over, as of ``deadlines.deadline_after``: the one form
            that a time limit has from here down to the connection.
        clock: Gives the time.

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
        if executor._read_only and not statement.reads:
            raise write_refusal(executor, statement.why_no_read)
        if until is not None and clock() >= until:
            raise errors.DeadlineExceeded(
                "the deadline had passed before the statement was sent"
            ).with_context(executor.name, executor.shard_id, sent=False)
        try:
            result = yield Execute(executor, statement, until)
            if type(result) is list and result[0].lastrowid:
                executor._record_insert_id(result[0].lastrowid)
            return result
        except (errors.ServiceNotOpen, errors.ShardUnavailable) as error:
            if last or not (yield from _route_changed(route, executor, error, until)):
                raise
        except (errors.ConnectionLost, errors.DeadlineExceeded) as broken:
            harmless = statement.repeatable or not broken.sent
            if broken.in_transaction or (harmless and isinstance(broken, errors.DeadlineExceeded)):
                raise
            if not harmless:
                raise outcome_unknown(broken, "the statement") from broken
            if last or not executor._take_retry_token():
                raise
    raise AssertionError("unreachable")


def check_out(
    route: Route,
    *,
    raw: bool = False,
    until: Optional[float] = None,
    into: Optional[List[Tuple[Any, Any]]] = None,
) -> Plan[Tuple[Any, Any]]:
    """A client by the route, and a connection out of its pool, before the deadline of
    the block is over.

    With ``raw`` it is for a borrower whose statements are not known, which a read-only
    shard refuses.

    Raises: what ``execute_statement`` raises before anything is sent, and PoolTimeout.
    """
    until = deadlines.deadline_after() if until is None else until
    for last in (False, True):
        client: Any = yield from route(until)
        if (raw and client._read_only) or getattr(client, "write_refusal", None) is not None:
            raise write_refusal(client, "what is sent through a borrowed connection may write")
        try:
            return client, (yield CheckOut(client, until, [] if into is None else into))
        except (errors.ServiceNotOpen, errors.ShardUnavailable) as error:
            if last or not (yield from _route_changed(route, client, error, until)):
                raise
    raise AssertionError("unreachable")


def write_refusal(executor: Any, why: str) -> errors.Error:
    """What a write is refused with where only reads are taken; ``why`` it is one."""
    refusal = getattr(executor, "write_refusal", None)
    if refusal is not None:
        refused: errors.Error = refusal()
        return refused
    return errors.shard_read_only(executor.shard_id, why)


def resolve_route(route: Route, until: Optional[float] = None) -> Plan[Executor]:
    """Where the route leads, before ``until`` by time.monotonic().

    Raises:
        RoutingError: Nowhere.
        ServiceNotOpen: Its service is not open.
    """
    return (yield from route(until))


def _route_changed(
    route: Route, executor: Executor, error: errors.Error, until: Optional[float]
) -> Plan[bool]:
    """Whether the route does not lead to the place any more that gave the error.

    Its pool was closed after the route was chosen: the shard has moved, or is gone. Or
    its server turned the account away, which the shard table may know better by now.
    """
    if not isinstance(error, errors.ServiceNotOpen):
        refused = getattr(error.__cause__, "errno", None) in error_codes.DENIED
        if not refused or executor._refresh_on_miss is None:
            return False
        yield from executor._refresh_on_miss(None, until)
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
