"""What to do, in which order, and what to do when it fails: without doing it.

A *plan* is a generator. It yields *steps*, small frozen values, and is sent what each step gave or has its error thrown in; what it
returns is the call's result. ``sync_impl`` and ``async_impl`` each have one ``drive`` that performs the steps their way. A step is one
whole unit of I/O, so a plan never holds a connection while it waits to be resumed, and an abandoned plan leaves nothing behind.
"""

import random
import time
from typing import Any, Callable, Generator, List, NamedTuple, Optional, Protocol, Sequence, Tuple, TypeVar, Union

from . import errors
from .results import CallResult, ResultSet, Row, RowCount
from .sql import Params
from .statements import Call, Statement

T = TypeVar("T")


class Place(Protocol):
    """Where a statement is performed: a database's client, or a transaction on one."""

    @property
    def name(self) -> str: ...

    @property
    def shard_id(self) -> Optional[int]: ...

    def _inserted(self, lastrowid: int) -> None:
        """Keep the id that an INSERT made, for ``get_last_insert_id``."""

    def _say(self, statement: "Union[Statement, Call]") -> Any:
        """Say the statement on one connection: what its talk returns, or in asyncio a coroutine of it."""


class Pooled(Protocol):
    """A database's client, as far as opening and closing it goes."""

    @property
    def pool(self) -> Any: ...


#: Where a call goes, decided when the plan runs. Raises a RoutingError or ServiceNotOpen where it cannot go anywhere.
Route = Callable[[], Place]


class Execute(NamedTuple):
    """Say a statement on one connection of a place, whole. Gives what its talk returns."""

    place: Place
    statement: Union[Statement, Call]


class Sleep(NamedTuple):
    """Wait. In the background, closing the service ends the wait and the plan."""

    seconds: float


class Connect(NamedTuple):
    """Open the connection at hand: TCP, TLS, authentication, session set-up. Performed by a pool."""


class Open(NamedTuple):
    """Have a client's pool make its first connection, which proves address, account and database. A closed pool refuses."""

    client: "Pooled"


class Close(NamedTuple):
    """Close the clients' pools: idle connections now, those in use as they come back. Cannot be interrupted halfway."""

    clients: Tuple["Pooled", ...]


class Gather(NamedTuple):
    """Perform steps at the same time. Gives a list of what each gave; an Exception in place of a value where it failed."""

    steps: Tuple["Step", ...]


class Spawn(NamedTuple):
    """Run a plan in the background until it ends or the service is closed."""

    plan: "Plan[None]"


class Halt(NamedTuple):
    """End what runs in the background, and wait until it has ended."""


Step = Union[Execute, Sleep, Connect, Open, Close, Gather, Spawn, Halt]
Plan = Generator[Step, Any, T]

#: How often a connect is tried before the caller is told.
CONNECT_ATTEMPTS = 3


def backoff(attempt: int, *, base: float = 0.05, cap: float = 2.0, spread: Callable[[], float] = random.random) -> float:
    """Seconds to wait after failed attempt number ``attempt``, from 0: exponential, with full jitter lest callers march in step."""
    return min(cap, base * 2.0 ** min(attempt, 32)) * spread()


def connecting(shard_id: Optional[int], seconds: float, clock: Callable[[], float] = time.monotonic) -> Plan[None]:
    """Open a connection, trying again where the failure may pass. Nothing has been sent, so that is always safe.

    After ``seconds`` no further attempt is made: a host that does not answer is not waited for three times.

    Raises:
        ShardUnavailable: the database is a shard's.
        ConnectionFailed: it is another.
    """
    began = clock()
    for attempt in range(CONNECT_ATTEMPTS):
        try:
            yield Connect()
            return
        except errors.ConnectionFailed as error:
            passing = error.errno in errors.TRANSIENT_CONNECT and clock() - began < seconds
            if passing and attempt + 1 < CONNECT_ATTEMPTS:
                wait = backoff(attempt)
            elif shard_id is None:
                raise
            else:
                failure = errors.unavailable(shard_id, f"no connection: {error}")
                raise failure from error
        yield Sleep(wait)


def perform(route: Route, statement: Union[Statement, Call]) -> Plan[Any]:
    """Perform one statement where the route says.

    A statement is sent once. Only one that lost its connection, outside a transaction, and is a plain read or was declared idempotent
    is sent a second time.

    Raises:
        RoutingError: there is nowhere to send it.
        OutcomeUnknown: the connection was lost after a write was sent.
        ConnectionLost: the connection was lost in the middle of a transaction, or twice while reading.
        Error: what the server said, by its class and code.
    """
    for last in (False, True):
        place = route()
        try:
            result = yield Execute(place, statement)
            if type(result) is list and result[0].lastrowid:
                place._inserted(result[0].lastrowid)
            return result
        except errors.ServiceNotOpen:
            # The pool was closed after the route was chosen: its shard has moved, or is gone.
            if last or route() is place:
                raise
        except errors.ConnectionLost as lost:
            if statement.repeatable and not lost.in_transaction:
                if last:
                    raise
            elif lost.in_transaction:
                raise
            else:
                raise outcome_unknown(lost, "the statement") from lost
    raise AssertionError("unreachable")


def outcome_unknown(lost: errors.ConnectionLost, what: str) -> errors.OutcomeUnknown:
    """A lost connection, told as what it means to whoever waits for the answer."""
    message = f"the connection was lost before {what} was answered, so it may or may not have been applied ({lost.args[-1]})"
    return errors.OutcomeUnknown(lost.errno or 2013, message).about(lost.target, lost.shard_id, sent=True)


def _results(route: Route, sql: str, params: Params, idempotent: bool) -> Plan[List[ResultSet]]:
    results: List[ResultSet] = yield from perform(route, Statement(sql, params, idempotent=idempotent))
    return results


def query(route: Route, sql: str, params: Params, idempotent: bool = False) -> Plan[List[Row]]:
    results = yield from _results(route, sql, params, idempotent)
    return results[0].rows


def query_one(route: Route, sql: str, params: Params, idempotent: bool = False) -> Plan[Optional[Row]]:
    rows = yield from query(route, sql, params, idempotent)
    return rows[0] if rows else None


def query_value(route: Route, sql: str, params: Params, idempotent: bool = False) -> Plan[Any]:
    row = yield from query_one(route, sql, params, idempotent)
    return next(iter(row.values())) if row else None


def execute(route: Route, sql: str, params: Params, idempotent: bool = False) -> Plan[RowCount]:
    statement = Statement(sql, params, idempotent=idempotent)
    results: List[ResultSet] = yield from perform(route, statement)
    return RowCount(results[0].rowcount, results[0].lastrowid)


def call(route: Route, procedure: str, params: Sequence[Any], idempotent: bool = False) -> Plan[CallResult]:
    result: CallResult = yield from perform(route, Call(procedure, params, idempotent=idempotent))
    return result


def call_rows(route: Route, procedure: str, params: Sequence[Any]) -> Plan[List[Row]]:
    """The original service's form: the rows of all result sets in one list."""
    result = yield from call(route, procedure, params)
    return result.rows
