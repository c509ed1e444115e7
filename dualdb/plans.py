"""What to do, in which order, and what to do when it fails: without doing it.

A *plan* is a generator. It yields *steps*, small frozen values, and is sent what each step gave or has its error thrown in; what it
returns is the call's result. ``sync_impl`` and ``async_impl`` each have one ``drive`` that performs the steps their way. A step is one
whole unit of I/O, so a plan never holds a connection while it waits to be resumed, and an abandoned plan leaves nothing behind.
"""

import inspect
import logging
import random
import time
from typing import Any, Awaitable, Callable, Generator, List, NamedTuple, Optional, Protocol, Sequence, Tuple, TypeVar, Union

from . import deadlines, errors
from .config import DatabaseConfig
from .health import Health
from .results import CallResult, ResultSet, Row, RowCount, row_count
from .rows import check_kind, typed
from .sql import Chunk, Chunks, Params
from .statements import Bulk, Call, Statement, marker

log = logging.getLogger("dualdb")

T = TypeVar("T")


class Place(Protocol):
    """Where a statement is performed: a database's client, or a transaction on one."""

    @property
    def name(self) -> str: ...

    @property
    def shard_id(self) -> Optional[int]: ...

    @property
    def _read_only(self) -> bool:
        """Only what is known to be a read goes there."""
        ...

    @property
    def _look(self) -> "Optional[Callable[..., Plan[None]]]":
        """Reads the shard table again, where there is one that knows this place."""
        ...

    def _inserted(self, lastrowid: int) -> None:
        """Keep the id that an INSERT made, for ``get_last_insert_id``."""

    def _say(self, statement: "Union[Statement, Call]", until: Optional[float] = None) -> Any:
        """Say the statement on one connection, before ``until``: what its talk returns, or in asyncio a coroutine of it."""

    def _may_repeat(self) -> bool:
        """Whether the retry budget of the database allows one more."""
        ...


class Pool(Protocol):
    """A pool, as far as connecting goes."""

    config: DatabaseConfig
    name: str
    shard_id: Optional[int]
    health: Health


class Pooled(Protocol):
    """A database's client, as far as opening and closing it goes."""

    @property
    def name(self) -> str: ...

    @property
    def pool(self) -> Any: ...


#: Where a call goes, decided when the plan runs. Raises a RoutingError or ServiceNotOpen where it cannot go anywhere, and Unmapped where
#: it would be worth while to look first whether the map is still true.
Route = Callable[[], Place]


class Unmapped(Exception):
    """The map does not know the shard that is asked for: perhaps its row is new.

    Args:
        look: reads the shard table again.
        decide: the route by the map as it is then.
    """

    def __init__(self, look: "Callable[[Optional[float]], Plan[None]]", decide: Route) -> None:
        super().__init__()
        self._look, self._decide = look, decide

    def settle(self, until: Optional[float] = None) -> "Plan[Place]":
        yield from self._look(until)
        return self._decide()


class Execute(NamedTuple):
    """Say a statement on one connection of a place, whole. Gives what its talk returns.

    ``until`` is when that must be over, by time.monotonic(); None for no limit.
    """

    place: Place
    statement: Union[Statement, Call]
    until: Optional[float] = None


class Sleep(NamedTuple):
    """Wait. In the background, closing the service ends the wait and the plan."""

    seconds: float


class Connect(NamedTuple):
    """Open the connection at hand before ``until``: TCP, TLS, authentication, session set-up. Performed by a pool."""

    until: float


class Open(NamedTuple):
    """Have a client's pool make its first connection, which proves address, account and database. A closed pool refuses."""

    client: "Pooled"
    until: Optional[float] = None


class CheckOut(NamedTuple):
    """Take a connection out of a client's pool. For a plan whose result it is, and which ends with it."""

    client: Any
    until: Optional[float]


class Close(NamedTuple):
    """Close the clients' pools: idle connections now, those in use as they come back. Cannot be interrupted halfway."""

    clients: Tuple["Pooled", ...]


class Cut(NamedTuple):
    """Break the connections that are still in use, and log how many there were."""

    clients: Tuple["Pooled", ...]


class WaitEnded(NamedTuple):
    """Wait a little until what callers have given up has been ended on the servers."""

    clients: Tuple["Pooled", ...]


class Tidy(NamedTuple):
    """Have the clients' pools close what nobody has used for long, and warn of connections that seem to be forgotten."""

    clients: Tuple["Pooled", ...]


class Gather(NamedTuple):
    """Perform steps at the same time. Gives a list of what each gave; an Exception in place of a value where it failed."""

    steps: Tuple["Step", ...]
    at_once: int = 32


class Next(NamedTuple):
    """Read the next row of a stream, which is begun with its first. Gives None after the last."""

    stream: Any


class Perform(NamedTuple):
    """Perform a plan, as one step of a Gather."""

    plan: "Plan[Any]"


class Await(NamedTuple):
    """Await what the caller has given: his next row, his progress. In asyncio alone."""

    given: Awaitable[Any]


class Spawn(NamedTuple):
    """Run a plan in the background until it ends or the service is closed."""

    plan: "Plan[None]"


class Alone(NamedTuple):
    """Perform a plan while no other such plan of its service runs: opening, loading.

    ``run`` is the service's way of doing so; ``wait`` is for how many seconds another one is waited for, after which nothing is done.
    """

    run: Callable[..., Any]
    plan: "Plan[None]"
    wait: Optional[float] = None


class Notify(NamedTuple):
    """Call functions of the application's, one after the other, and log those that fail. In asyncio they may be coroutine functions."""

    calls: Tuple[Callable[[], Any], ...]


class Halt(NamedTuple):
    """End what runs in the background, and wait until it has ended."""


Step = Union[
    Execute, Sleep, Connect, Open, CheckOut, Close, Cut, WaitEnded, Tidy, Gather, Next, Perform, Await, Spawn, Alone, Notify, Halt
]  # fmt: skip
Plan = Generator[Step, Any, T]

#: Seconds that closing waits for what callers have given up to be ended on the server.
PATIENCE = 2.0

#: A chunk of many rows is not longer than this, whatever the server takes: more would only wait longer.
LONGEST_CHUNK = 4 * 1024 * 1024

#: How often a connect is tried before the caller is told.
CONNECT_ATTEMPTS = 3


def backoff(attempt: int, *, base: float = 0.05, cap: float = 2.0, spread: Callable[[], float] = random.random) -> float:
    """Seconds to wait after failed attempt number ``attempt``, from 0: exponential, with full jitter lest callers march in step."""
    return min(cap, base * 2.0 ** min(attempt, 32)) * spread()


def connecting(pool: Pool, until: Optional[float] = None, clock: Callable[[], float] = time.monotonic) -> Plan[None]:
    """Open a connection, trying again where the failure may pass. Nothing has been sent, so that is always safe.

    After ``connect_timeout`` no further attempt is made: a host that does not answer is not waited for three times. While the pool's
    circuit is open nothing is tried at all, but for one caller now and then.

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
            raise errors.DeadlineExceeded(message).about(pool.name, pool.shard_id, sent=False) from failed
        passing = failed.retryable and now - began < limit and attempt + 1 < CONNECT_ATTEMPTS
        if not passing or health.is_open or not health.spend():
            raise _no_connection(pool, failed, None)
        pause = backoff(attempt)
        yield Sleep(pause if until is None else max(0.0, min(pause, until - now)))


def _no_connection(pool: Pool, failure: errors.ConnectionFailed, retry_after: Optional[float]) -> errors.Error:
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


def closing(clients: Tuple[Pooled, ...], timeout: Optional[float], clock: Callable[[], float] = time.monotonic) -> Plan[None]:
    """Close pools. With a ``timeout`` in seconds, wait that long for the work in progress and then break what is left of it."""
    until = None if timeout is None else clock() + deadlines.seconds(timeout)
    # First what cannot be interrupted: a task that is cancelled while it waits has closed its pools.
    yield Close(clients)
    if until is not None:
        yield from _until_unused(clients, until, clock)
        yield Cut(clients)
        yield from _until_unused(clients, clock() + PATIENCE, clock)
    yield WaitEnded(clients)


def _until_unused(clients: Tuple[Pooled, ...], until: float, clock: Callable[[], float]) -> Plan[None]:
    while any(client.pool.in_use for client in clients) and clock() < until:
        yield Sleep(0.02)


def perform(
    route: Route, statement: Union[Statement, Call], timeout: Optional[float] = None, clock: Callable[[], float] = time.monotonic
) -> Plan[Any]:
    """Perform one statement where the route says, before the ``timeout`` in seconds and the deadline of the block are over.

    A statement is sent once. Only one that lost its connection, outside a transaction, and is a plain read or was declared idempotent or
    had not been sent whole, is sent a second time.

    Raises:
        RoutingError: there is nowhere to send it.
        OutcomeUnknown: the connection was lost after a write was sent.
        ConnectionLost: the connection was lost in the middle of a transaction, or twice while reading.
        DeadlineExceeded: the time was over; WriteTimedOut if a write had been sent by then.
        Error: what the server said, by its class and code.
    """
    until = deadlines.until(timeout)
    for last in (False, True):
        try:
            place = route()
        except Unmapped as unmapped:
            place = yield from unmapped.settle(until)
        if place._read_only and not statement.reads:
            assert place.shard_id is not None
            raise errors.read_only(place.shard_id)
        if until is not None and clock() >= until:
            raise errors.DeadlineExceeded("the deadline had passed before the statement was sent").about(
                place.name, place.shard_id, sent=False
            )
        try:
            result = yield Execute(place, statement, until)
            if type(result) is list and result[0].lastrowid:
                place._inserted(result[0].lastrowid)
            return result
        except (errors.ServiceNotOpen, errors.ShardUnavailable) as error:
            if last or not (yield from _leads_elsewhere(route, place, error, until)):
                raise
        except (errors.ConnectionLost, errors.DeadlineExceeded) as broken:
            harmless = statement.repeatable or not broken.sent
            if broken.in_transaction or (harmless and isinstance(broken, errors.DeadlineExceeded)):
                raise
            if not harmless:
                raise outcome_unknown(broken, "the statement") from broken
            if last or not place._may_repeat():
                raise
    raise AssertionError("unreachable")


#: Seconds that are spent on finding out what became of a COMMIT, where no deadline says less.
SETTLING = 30.0


def became_of(client: Place, token: str, clock: Callable[[], float] = time.monotonic) -> Plan[Optional[bool]]:
    """Whether the transaction that left this token was committed; None if that could not be found out."""
    until = clock() + SETTLING
    while clock() < until:
        try:
            results: List[ResultSet] = yield from perform(lambda: client, marker(token), until - clock(), clock)
            return bool(results[0].rows)
        except errors.LockWaitTimeout:
            continue  # the server has not noticed yet that its client is gone
        except errors.Error as error:
            if not error.retryable or clock() >= until:
                log.warning("%s: it could not be found out what became of a COMMIT: %s", client.name, error)
                return None
            yield Sleep(backoff(1))
    return None


def check_out(route: Route, *, raw: bool = False, until: Optional[float] = None) -> Plan[Tuple[Any, Any]]:
    """A client by the route, and a connection out of its pool, before the deadline of the block is over.

    With ``raw`` it is for a borrower of whom nobody knows what he sends, which a read-only shard refuses.

    Raises: what ``perform`` raises before anything is sent, and PoolTimeout.
    """
    until = deadlines.until() if until is None else until
    for last in (False, True):
        client: Any = yield from find(route, until)
        if raw and client._read_only:
            raise errors.read_only(client.shard_id)
        try:
            return client, (yield CheckOut(client, until))
        except (errors.ServiceNotOpen, errors.ShardUnavailable) as error:
            if last or not (yield from _leads_elsewhere(route, client, error, until)):
                raise
    raise AssertionError("unreachable")


#: What a whole transaction may be begun again after: it was rolled back, and nothing of it is applied.
RUN_AGAIN = (errors.Deadlock, errors.LockWaitTimeout, errors.ConnectionLost, errors.TransactionAborted)

#: How often a transaction is begun at most.
RUN_ATTEMPTS = 5


def pause_before_run(
    error: errors.Error, attempt: int, attempts: int, left: Optional[float] = None, clock: Callable[[], float] = time.monotonic
) -> Optional[float]:
    """Seconds to wait before a transaction is begun again after attempt number ``attempt``, from 0; None where it is not.

    ``left`` is how many seconds there are for all of it.
    """
    now = clock()
    until, pause = deadlines.until(left, now), backoff(attempt)
    if not isinstance(error, RUN_AGAIN) or not error.retryable or attempt + 1 >= attempts:
        return None
    return None if until is not None and now + pause >= until else pause


def find(route: Route, until: Optional[float] = None) -> Plan[Place]:
    """Where the route leads."""
    yield from ()
    try:
        return route()
    except Unmapped as unmapped:
        return (yield from unmapped.settle(until))


def _leads_elsewhere(route: Route, place: Any, error: errors.Error, until: Optional[float]) -> Plan[bool]:
    """Whether the route does not lead to the place any more that gave the error.

    Its pool was closed after the route was chosen: the shard has moved, or is gone. Or its server turned the account away, which the shard
    table may know better by now.
    """
    if not isinstance(error, errors.ServiceNotOpen):
        refused = getattr(error.__cause__, "errno", None) in errors.DENIED
        if not refused or place._look is None:
            return False
        yield from place._look(None, until)
    return (yield from find(route, until)) is not place


def outcome_unknown(broken: errors.Error, what: str) -> errors.OutcomeUnknown:
    """A connection that was lost, or an answer that was not waited for, told as what it means to whoever needs to know."""
    late = isinstance(broken, errors.DeadlineExceeded)
    how = "the deadline passed" if late else "the connection was lost"
    message = f"{how} before {what} was answered, so it may or may not have been applied ({broken.args[-1]})"
    cls = errors.WriteTimedOut if late else errors.OutcomeUnknown
    return cls(broken.errno or 2013, message).about(broken.target, broken.shard_id, sent=True)


def query(route: Route, sql: str, params: Params, timeout: Optional[float] = None, *, as_: Any = None, **declared: Any) -> Plan[List[Any]]:
    if as_ is not None:
        check_kind(as_)
    results: List[ResultSet] = yield from perform(route, Statement(sql, params, **declared), timeout)
    return results[0].rows if as_ is None else typed(results[0], as_)


def query_one(
    route: Route, sql: str, params: Params, timeout: Optional[float] = None, *, as_: Any = None, strict: bool = False, **declared: bool
) -> Plan[Optional[Any]]:
    if as_ is not None:
        check_kind(as_)
    results: List[ResultSet] = yield from perform(route, Statement(sql, params, **declared), timeout)
    if strict and len(results[0].rows) > 1:
        raise errors.TooManyRows(f"{len(results[0].rows)} rows came where one at most is asked for").about(None, sent=True)
    first = results[0].rows[:1]
    if as_ is not None:
        first = typed(results[0]._replace(rows=first), as_)
    return first[0] if first else None


def query_value(route: Route, sql: str, params: Params, timeout: Optional[float] = None, **declared: bool) -> Plan[Any]:
    row = yield from query_one(route, sql, params, timeout, **declared)
    return next(iter(row.values())) if row else None


def query_column(route: Route, sql: str, params: Params, timeout: Optional[float] = None, **declared: Any) -> Plan[List[Any]]:
    rows = yield from query(route, sql, params, timeout, **declared)
    return [next(iter(row.values())) for row in rows]


def execute(route: Route, sql: str, params: Params, timeout: Optional[float] = None, **declared: bool) -> Plan[RowCount]:
    results: List[ResultSet] = yield from perform(route, Statement(sql, params, **declared), timeout)
    return row_count(results[0])


def executemany(
    route: Route,
    sql: str,
    rows: Any,
    *,
    chunk_rows: int,
    progress: Optional[Callable[[int], Any]],
    timeout: Optional[float],
    idempotent: bool,
    awaits: bool,
) -> Plan[RowCount]:
    """Write rows chunk by chunk. An error carries the numbers of the rows of its chunk; the chunks before it have been written.

    ``awaits`` says whether there is a loop in which the caller's rows and progress can be awaited.
    """
    until = deadlines.until(timeout)
    if not isinstance(chunk_rows, int) or isinstance(chunk_rows, bool) or chunk_rows < 1:
        raise errors.ParameterError(f"chunk_rows is a number of rows from 1 up, not {chunk_rows!r}")
    is_async = hasattr(rows, "__aiter__")
    if not is_async and not hasattr(rows, "__iter__"):
        raise errors.ParameterError(f"rows is an iterable of parameters, not {type(rows).__name__}")
    if not awaits and (is_async or inspect.iscoroutinefunction(progress)):
        raise errors.ParameterError(f"{'rows that are' if is_async else 'a progress that is'} awaited are for the asyncio service")
    most = yield from query_value(route, "SELECT @@max_allowed_packet", None, timeout)
    cut = Chunks(sql, chunk_rows, min(int(most), LONGEST_CHUNK) - 64)
    affected = written = lastrowid = warnings = 0

    def write(chunk: Chunk) -> Plan[None]:
        nonlocal affected, written, lastrowid, warnings
        left = None if until is None else max(0.0, until - time.monotonic())
        try:
            results: List[ResultSet] = yield from perform(route, Bulk(chunk, idempotent=idempotent), left)
        except errors.Error as error:
            error.rows = (chunk.first, chunk.first + len(chunk.texts) - 1)
            raise
        affected, written = affected + results[0].rowcount, written + len(chunk.texts)
        lastrowid, warnings = results[0].lastrowid or lastrowid, warnings + results[0].warnings
        told = None if progress is None else progress(written)
        if awaits and inspect.isawaitable(told):
            yield Await(told)

    if is_async:
        source = rows.__aiter__()
        while True:
            try:
                params = yield Await(source.__anext__())
            except StopAsyncIteration:
                break
            full = cut.add(params)
            if full is not None:
                yield from write(full)
    else:
        for params in rows:
            full = cut.add(params)
            if full is not None:
                yield from write(full)
    rest = cut.rest()
    if rest is not None:
        yield from write(rest)
    return RowCount(affected, lastrowid, warnings)


def call(route: Route, procedure: str, params: Sequence[Any], timeout: Optional[float] = None, **declared: bool) -> Plan[CallResult]:
    result: CallResult = yield from perform(route, Call(procedure, params, **declared), timeout)
    return result


def call_rows(route: Route, procedure: str, params: Sequence[Any]) -> Plan[List[Row]]:
    """The original service's form: the rows of all result sets in one list."""
    result = yield from call(route, procedure, params)
    return result.rows
