"""The steps that plans yield.

A *plan* is a generator. It yields *steps*, which are small immutable values. The runner
of ``sync_impl`` or ``async_impl`` runs each step and resumes the plan with its result
or error; the plan's return value is the result of the call. A step is a complete unit
of I/O, so a suspended plan never holds a connection, and an abandoned plan leaks
nothing.
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
from ..endpoints.balancing import Replica
from ..endpoints.state import NOWHERE, Endpoint, Endpoints
from ..errors import Error
from ..observability.observers import Observers
from ..pooling.circuit_breaker import CircuitBreaker
from ..pooling.retry_budget import RetryBudget
from ..pooling.server_budget import BudgetedPool, Permit, PoolBudgets
from ..protocol.statements import Call, Statement

T = TypeVar("T")


class Executor(Protocol):
    """Executes statements: a database's client, or a transaction's block on one."""

    @property
    def name(self) -> str:
        """The database's name, for messages."""
        ...

    @property
    def shard_id(self) -> Optional[int]:
        """The shard's id; None for another database."""
        ...

    @property
    def client(self) -> Any:
        """The database's client; itself, if it is one."""
        ...

    @property
    def read_only(self) -> bool:
        """Only statements known to be reads are accepted."""
        ...

    @property
    def reads_only(self) -> bool:
        """The call or the transaction, and not the shard, is limited to reads."""
        ...

    @property
    def write_refusal(self) -> "Optional[Callable[[], Error]]":
        """Makes the error for a write; None for the error of a read-only shard or
        target.
        """
        ...

    @property
    def replica(self) -> Optional[Replica]:
        """The replica that it reads; None for a primary."""
        ...

    @property
    def refresh_on_miss(self) -> "Optional[Callable[..., Plan[None]]]":
        """Makes the plan that reads the shard table again; None without such a
        table.
        """
        ...

    @property
    def observers(self) -> Observers:
        """The hooks and interceptors of its calls."""
        ...

    def current_transaction(self) -> Any:
        """Return the block of the transaction that its statements are part of; None
        outside.
        """

    def record_insert_id(self, lastrowid: int) -> None:
        """Record the id that an INSERT generated, for ``get_last_insert_id``."""

    def run_statement(
        self, statement: "Union[Statement, Call]", until: Optional[float] = None
    ) -> Any:
        """Run the statement on one connection, before ``until``: what its exchange
        returns, or in asyncio a coroutine of it.
        """

    def take_retry_token(self) -> bool:
        """Take one retry from the database's budget; False if it is exhausted."""
        ...


class TransactionBlock(Protocol):
    """The part of a transaction's block that repeating it uses."""

    @property
    def client(self) -> Any:
        """The client of its database."""
        ...

    @property
    def outer(self) -> Any:
        """The transaction around it; None for the outermost."""
        ...


class Pool(BudgetedPool, Protocol):
    """The part of a pool that ``connecting`` uses."""

    name: str
    shard_id: Optional[int]
    endpoints: Endpoints
    breaker: CircuitBreaker
    observers: Observers
    on_outage: "Optional[Callable[[Optional[Exception]], None]]"
    retry_budget: RetryBudget
    budgets: PoolBudgets

    def permit_refused(self, permit: Permit, waited: float, *, late: bool) -> Exception:
        """Make the error for a permit that was not granted."""
        ...


class Pooled(Protocol):
    """The part of a client that opening and closing uses."""

    @property
    def name(self) -> str:
        """The database's name, for messages."""
        ...

    @property
    def shard_id(self) -> Optional[int]:
        """The shard's id; None for another database."""
        ...

    @property
    def pool(self) -> Any:
        """The client's pool, which is made when it is first used."""
        ...

    @property
    def has_pool(self) -> bool:
        """Whether the pool has been used."""
        ...

    def close(self) -> None:
        """Close the pool, or one that is made from now on."""
        ...

    def resize(self, config: DatabaseConfig) -> None:
        """Change the sizes of the pool, or of one that is made from now on."""
        ...


class Execute(NamedTuple):
    """Run a statement on one connection of an executor; gives its exchange's result.

    Attributes:
        executor: The executor.
        statement: The statement.
        until: The deadline, by time.monotonic(); None for no limit.
    """

    executor: Executor
    statement: Union[Statement, Call]
    until: Optional[float] = None


class Sleep(NamedTuple):
    """Wait. In the background, closing the service cancels the wait and the plan."""

    seconds: float


class Connect(NamedTuple):
    """Open the connection at hand before ``until``: TCP, TLS, authentication, session
    set-up. Run by a pool, which records the outcome in the endpoint.

    Fails with NoPrimary if the host is one of several and is not to be used.

    Attributes:
        until: The deadline, by time.monotonic().
        endpoint: The host.
        replica: A replica is used as well.
        any_role: It is used whatever its role is.
        permit: Of the host's budget, in which the connection counts; None without one.
    """

    until: float
    endpoint: Endpoint = NOWHERE
    replica: bool = False
    any_role: bool = False
    permit: Optional[Permit] = None


class AwaitPermit(NamedTuple):
    """Wait until one of several permits is decided. Run by a pool.

    Attributes:
        permits: The permits, each for a connection to another host.
        seconds: How long at most; the plan sees which was granted.
    """

    permits: Tuple[Permit, ...]
    seconds: float


class Open(NamedTuple):
    """Open the first connection of a client's pool, which verifies address, account and
    database. Fails if the pool is closed.
    """

    client: "Pooled"
    until: Optional[float] = None


class CheckOut(NamedTuple):
    """Check out a connection of a client's pool.

    For a plan whose result it is, and which ends with it. The client and the connection
    are put into a list as well, where an interrupted caller finds them.
    """

    client: Any
    until: Optional[float]
    into: List[Tuple[Any, Any]]


class Close(NamedTuple):
    """Close the clients' pools: idle connections now, the others when released.

    This step cannot be interrupted.
    """

    clients: Tuple["Pooled", ...]


class AbortInUse(NamedTuple):
    """Abort the connections that are still in use, and log their number."""

    clients: Tuple["Pooled", ...]


class WaitForKills(NamedTuple):
    """Wait a little until abandoned statements have been killed on the servers."""

    clients: Tuple["Pooled", ...]


class WaitUnused(NamedTuple):
    """Wait until no connection of the clients is in use.

    It ends at the latest at ``until``, by time.monotonic().
    """

    clients: Tuple["Pooled", ...]
    until: float


class PruneIdle(NamedTuple):
    """Have the clients' pools close connections that were idle for long, and warn of
    those that seem to be leaked.
    """

    clients: Tuple["Pooled", ...]


class Resize(NamedTuple):
    """Change the sizes of a client's pool; connections in use stay.

    Attributes:
        client: The client.
        config: Its configuration with other sizes.
    """

    client: Any
    config: DatabaseConfig


class Gather(NamedTuple):
    """Run steps at the same time.

    The result is a list of their results, with the Exception of each failed step.
    """

    steps: Tuple["Step", ...]
    max_concurrency: int = 32


class RunWithin(NamedTuple):
    """Run a step, and stop waiting for it at ``until``.

    It may go on then, without anybody knowing its outcome. The result is whether it has
    ended.
    """

    step: "Step"
    until: float


class Hedge(NamedTuple):
    """Run a step, and another one beside it if the first takes long.

    The result is that of the first that succeeds, or the error of the last. In asyncio
    the other one is cancelled; in threads it runs to its end.

    Attributes:
        first: The step.
        second: Called when ``first`` has not ended in time; returns the other step, or
            None for none.
        after: Seconds.
    """

    first: "Step"
    second: Callable[[], "Optional[Step]"]
    after: float


class FetchRow(NamedTuple):
    """Read the next row of a stream; the first one starts it.

    The result is None after the last row.
    """

    stream: Any


class RunPlan(NamedTuple):
    """Run a plan, as one step of a Gather."""

    plan: "Plan[Any]"


class RunAlongside(NamedTuple):
    """Run a plan, and another one beside it in a thread or task of its own.

    The other one ends soon after the first has, and its errors are nobody's. The result
    is that of the first.
    """

    plan: "Plan[Any]"
    alongside: "Plan[None]"


class RunBlock(NamedTuple):
    """Call a function inside a transaction block.

    The result is that of the function; None if it raised Rollback.
    """

    transaction: Any
    function: Callable[[Any], Any]


class EnterBlock(NamedTuple):
    """Enter a transaction's block; whoever yields this ends the transaction."""

    transaction: Any


class AwaitUser(NamedTuple):
    """Await an awaitable of the application: its next row, its progress; asyncio
    only.
    """

    given: Awaitable[Any]


class CallUser(NamedTuple):
    """Call a function of the application's; in asyncio it may be a coroutine function.

    Attributes:
        function: The function.
        argument: Its only argument.
    """

    function: Callable[[Any], Any]
    argument: Any


class AwaitSignal(NamedTuple):
    """Wait for another caller of the same process.

    Attributes:
        subscribe: Is given a function, and calls it once, from any thread, when the
            wait is over.
        seconds: How long to wait at most.
    """

    subscribe: Callable[[Callable[[], None]], None]
    seconds: float


class Spawn(NamedTuple):
    """Run a plan in the background until it ends or the service is closed."""

    plan: "Plan[None]"


class Exclusive(NamedTuple):
    """Run a plan while no other such plan of its service runs: opening, loading.

    Attributes:
        run: The service's method that does so.
        plan: The plan.
        wait: The most seconds to wait for the lock, after which the plan is not run;
            None for no limit.
    """

    run: Callable[..., Any]
    plan: "Plan[None]"
    wait: Optional[float] = None


class CallHooks(NamedTuple):
    """Call hooks of the application in order, and log their exceptions.

    In asyncio they may be coroutine functions.
    """

    calls: Tuple[Callable[[], Any], ...]


class StopBackground(NamedTuple):
    """Stop the background plan, and wait until it has ended."""


Step = Union[
    Execute, Sleep, Connect, AwaitPermit, Open, CheckOut, Close, AbortInUse, WaitForKills,
    WaitUnused, PruneIdle, Resize, Gather, Hedge, RunWithin, FetchRow, RunPlan, RunAlongside,
    RunBlock, AwaitUser, CallUser, AwaitSignal, Spawn, Exclusive, CallHooks, StopBackground,
    EnterBlock,
]  # fmt: skip


Plan = Generator[Step, Any, T]

#: Makes the plan that selects the executor of a call; run for each call, with the
#: deadline by time.monotonic() (None for no limit). It raises RoutingError or
#: ServiceNotOpen if there is none.
Route = Callable[[Optional[float]], Plan[Executor]]


def single(step: Step) -> Plan[Any]:
    """Return the plan that is one step."""
    return (yield step)


def fixed_route(executor: Executor) -> Route:
    """Return the route that always selects this executor."""

    def route(until: Optional[float] = None) -> Plan[Executor]:
        yield from ()
        found: Executor = executor
        return found

    return route
