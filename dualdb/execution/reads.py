"""Reads that go to replicas: moving to another one, and the primary in place of one."""

import time
from typing import Any, Callable, List, Optional, Tuple, Union

from .. import errors
from ..protocol.statements import Call, Statement
from .steps import CheckOut, Execute, Hedge, Plan, Route, Step

#: Nothing has been sent, so that the call may go to any other server.
NOT_SENT = (errors.ServiceNotOpen, errors.ShardUnavailable, errors.ConnectionFailed)


class PrimaryReader:
    """A primary's client that accepts only reads.

    Args:
        primary: The client.

    Attributes:
        primary: As given.
    """

    read_only = True
    #: The call, and not the shard, is limited to reads.
    reads_only = True

    def __init__(self, primary: Any) -> None:
        self.primary = primary

    def __getattr__(self, name: str) -> Any:
        return getattr(self.primary, name)


def is_reader(executor: Any) -> bool:
    """Return whether an executor was chosen for a read."""
    return isinstance(executor, PrimaryReader) or executor.replica is not None


def read_from_replica(
    route: Route,
    client: Any,
    statement: Union[Statement, Call],
    until: Optional[float] = None,
    clock: Callable[[], float] = time.monotonic,
) -> Plan[Any]:
    """Run a known read on a replica, and on another one, or the primary, if that is
    lost: once if it has been sent, and otherwise as often as the route has another.

    Args:
        route: Chooses the executor; it leaves out replicas that have failed.
        client: The replica's client that it chose.
        statement: The read.
        until: The deadline, by ``clock``; None for no limit.
        clock: Returns seconds.

    Returns:
        The result of the statement's exchange.
    """
    moved = False
    while True:
        replica = client.replica
        began = clock()
        try:
            result = yield _step(client, statement, until)
        except NOT_SENT as error:
            failure: errors.Error = error
        except errors.ConnectionLost as error:
            if moved or error.in_transaction or replica is None:
                raise
            moved = True
            failure = error
        except errors.DeadlineExceeded as error:
            if replica is not None and error.sent:
                replica.failure = errors.reason_of(error)
            raise
        else:
            if replica is not None:
                replica.record_latency(clock() - began)
            return result
        if replica is None:
            raise failure
        client = yield from next_executor(route, client, failure, until)


def _step(client: Any, statement: Union[Statement, Call], until: Optional[float]) -> Step:
    """Return the step that runs a read, on a second replica as well if it takes long
    and that is wanted.
    """
    first = Execute(client, statement, until)
    if client.replica is None:
        return first
    # That of the replica itself, of which the executor may be a detached one.
    own = client.replica.client
    manager = own.shared.replicas
    if manager.options.hedge is None or not manager.may_hedge(own):
        return first

    def second() -> Optional[Step]:
        other = manager.hedge_for(own)
        return None if other is None else Execute(other, statement, until)

    return Hedge(first, second, manager.options.hedge)


def next_executor(
    route: Route, client: Any, failure: errors.Error, until: Optional[float]
) -> Plan[Any]:
    """Take a replica out of the rotation; return the executor that the route chooses
    then.

    Args:
        route: Chooses the executor.
        client: The replica's client.
        failure: Why.
        until: The deadline, by time.monotonic(); None for no limit.

    Raises:
        Error: The failure, if the route has no other.
    """
    client.replica.failure = errors.reason_of(failure)
    client.observers.post_pool("retry", client, error=failure, detail="replica")
    following = yield from route(until)
    if following is client:
        raise failure
    return following


def check_out_following(
    route: Route,
    executor: Any,
    until: Optional[float],
    into: Optional[List[Tuple[Any, Any]]] = None,
) -> Plan[Tuple[Any, Any]]:
    """Check out a connection of an executor's database; of a replica that cannot be
    reached, of the next that the route chooses.

    Returns:
        The client and the connection; see ``execute.check_out``.
    """
    while True:
        client = executor.client
        try:
            return client, (yield CheckOut(client, until, [] if into is None else into))
        except NOT_SENT as error:
            if client.replica is None:
                raise
            failure = error
        executor = yield from next_executor(route, client, failure, until)
