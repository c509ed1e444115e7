"""The steps that a plan yields, and what a plan is.

A *plan* is a generator. It yields *steps*, small frozen values, and is sent what each
step gave or has its error thrown in; what it returns is the call's result.
``sync_impl`` and ``async_impl`` each have one runner that performs the steps. A step is
one whole unit of I/O, so a plan never holds a connection while it waits to be resumed,
and an abandoned plan leaves nothing behind.
"""

from typing import (
    Any,
    Awaitable,
    Callable,
    Generator,
    List,
    NamedTuple,
    Optional,
    Protocol,
    Tuple,
    TypeVar,
    Union,
)

from ..config import DatabaseConfig
from ..pooling.circuit_breaker import CircuitBreaker
from ..pooling.retry_budget import RetryBudget
from ..protocol.statements import Call, Statement

T = TypeVar("T")


class Executor(Protocol):
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
    def _refresh_on_miss(self) -> "Optional[Callable[..., Plan[None]]]":
        """Reads the shard table again, where there is one that knows this place."""
        ...

    def _record_insert_id(self, lastrowid: int) -> None:
        """Keep the id that an INSERT made, for ``get_last_insert_id``."""

    def _execute(self, statement: "Union[Statement, Call]", until: Optional[float] = None) -> Any:
        """Run the statement on one connection, before ``until``: what its exchange
        returns, or in asyncio a coroutine of it.
        """

    def _take_retry_token(self) -> bool:
        """Whether the retry budget of the database allows one more."""
        ...


class Pool(Protocol):
    """A pool, as far as connecting goes."""

    config: DatabaseConfig
    name: str
    shard_id: Optional[int]
    breaker: CircuitBreaker
    on_outage: "Optional[Callable[[Optional[Exception]], None]]"
    retry_budget: RetryBudget


class Pooled(Protocol):
    """A database's client, as far as opening and closing it goes."""

    @property
    def name(self) -> str: ...

    @property
    def pool(self) -> Any: ...


class Execute(NamedTuple):
    """Run a statement on one connection of an executor; gives its exchange's result.

    ``until`` is when that must be over, by time.monotonic(); None for no limit.
    """

    executor: Executor
    statement: Union[Statement, Call]
    until: Optional[float] = None


class Sleep(NamedTuple):
    """Wait. In the background, closing the service ends the wait and the plan."""

    seconds: float


class Connect(NamedTuple):
    """Open the connection at hand before ``until``: TCP, TLS, authentication, session
    set-up. Run by a pool.
    """

    until: float


class Open(NamedTuple):
    """Have a client's pool make its first connection, which proves address, account and
    database. A closed pool refuses.
    """

    client: "Pooled"
    until: Optional[float] = None


class CheckOut(NamedTuple):
    """Take a connection out of a client's pool.

    For a plan whose result it is, and which ends with it. The client and the connection
    are put into a list as well, where an interrupted caller finds them.
    """

    client: Any
    until: Optional[float]
    into: List[Tuple[Any, Any]]


class Close(NamedTuple):
    """Close the clients' pools: idle connections now, those in use as they come back.

    Cannot be interrupted halfway.
    """

    clients: Tuple["Pooled", ...]


class AbortInUse(NamedTuple):
    """Break the connections that are still in use, and log how many there were."""

    clients: Tuple["Pooled", ...]


class WaitForKills(NamedTuple):
    """Wait a little until abandoned statements have been killed on the servers."""

    clients: Tuple["Pooled", ...]


class WaitUnused(NamedTuple):
    """Wait until none of the clients' connections is in use, but not longer than
    ``until``, by time.monotonic().
    """

    clients: Tuple["Pooled", ...]
    until: float


class PruneIdle(NamedTuple):
    """Have the clients' pools close connections that were idle for long, and warn of
    those that seem to be leaked.
    """

    clients: Tuple["Pooled", ...]


class Gather(NamedTuple):
    """Run steps at the same time.

    Gives a list of what each gave; an Exception in place of a value where it failed.
    """

    steps: Tuple["Step", ...]
    max_concurrency: int = 32


class FetchRow(NamedTuple):
    """Read the next row of a stream, which is begun with its first.

    Gives None after the last.
    """

    stream: Any


class RunPlan(NamedTuple):
    """Run a plan, as one step of a Gather."""

    plan: "Plan[Any]"


class RunBlock(NamedTuple):
    """Call a function inside the block of a transaction. Gives what it returns; None
    where it has left the block by Rollback.
    """

    transaction: Any
    function: Callable[[Any], Any]


class AwaitUser(NamedTuple):
    """Await what the caller has given: his next row, his progress. In asyncio alone."""

    given: Awaitable[Any]


class Spawn(NamedTuple):
    """Run a plan in the background until it ends or the service is closed."""

    plan: "Plan[None]"


class Exclusive(NamedTuple):
    """Run a plan while no other such plan of its service runs: opening, loading.

    ``run`` is the service's way of doing so; ``wait`` is for how many seconds another
    one is waited for, after which nothing is done.
    """

    run: Callable[..., Any]
    plan: "Plan[None]"
    wait: Optional[float] = None


class CallHooks(NamedTuple):
    """Call functions of the application's, one after the other, and log those that
    fail. In asyncio they may be coroutine functions.
    """

    calls: Tuple[Callable[[], Any], ...]


class StopBackground(NamedTuple):
    """End what runs in the background, and wait until it has ended."""


Step = Union[
    Execute, Sleep, Connect, Open, CheckOut, Close, AbortInUse, WaitForKills, WaitUnused, PruneIdle,
    Gather, FetchRow, RunPlan, RunBlock, AwaitUser, Spawn, Exclusive, CallHooks, StopBackground,
]  # fmt: skip


Plan = Generator[Step, Any, T]

#: Where a call goes: a plan that is made and run for each call, with the time by which
#: it must be over (by time.monotonic(), None for no limit). It raises a RoutingError or
#: ServiceNotOpen where the call cannot go anywhere.
Route = Callable[[Optional[float]], Plan[Executor]]


def fixed_route(executor: Executor) -> Route:
    """The route of a call whose database is known already."""

    def route(until: Optional[float] = None) -> Plan[Executor]:
        yield from ()
        found: Executor = executor
        return found

    return route
