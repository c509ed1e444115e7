"""The limit of this process's connections to one server, over all the pools that lead
there. No I/O: the pools wait, and close what is taken from them.

A connection counts from the moment its permit is granted until it is closed. The next
permit goes to the database that has the fewest connections, among several to the
earliest request. At the limit the connection that has been idle for longest makes room;
if none is idle, the request waits. A permit is held by weak references, so one that an
interrupted caller lost is free again.

No pool may hold a lock of its own when it calls this, and no finalizer may.
"""

import enum
import threading
import time
import weakref
from collections import Counter, deque
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Protocol

from .. import errors, fork_safety
from ..config import DatabaseConfig


class ServerStats(NamedTuple):
    """This process's connections to one server at one moment, collected without I/O.

    Attributes:
        limit: The most connections allowed: ``max_connections_per_server``.
        open: Connections that are open or being opened, over all pools.
        waiting: Callers that wait to open one.
        timeouts: Callers whose wait timed out.
        taken_over: Idle connections of one database that were closed so that another
            database's pool could open one.
    """

    limit: int
    open: int
    waiting: int
    timeouts: int
    taken_over: int

    def as_dict(self) -> Dict[str, int]:
        """Return it as a dict of plain values, for ``json.dumps``."""
        return self._asdict()


class BudgetedPool(Protocol):
    """The part of a pool that its server's budget uses."""

    config: DatabaseConfig
    closed: bool

    def take_idle(self) -> Any:
        """Take an idle connection out of the pool, for a caller of the pool itself;
        None if there is none at once.
        """

    def oldest_idle_at(self) -> Optional[float]:
        """Return since when its longest idle connection is idle, by time.monotonic();
        None if there is none.
        """
        ...

    def take_oldest_idle(self) -> Any:
        """Take the connection out of the pool that has been idle for longest, for the
        caller to close; None if there is none, or if the pool closes it by itself.
        """


class BudgetedConnection(Protocol):
    """The part of a connection that its server's budget uses."""

    permit: Any

    @property
    def open(self) -> bool:
        """Whether it has a socket."""
        ...

    def quit(self) -> None:
        """Close it."""


class PermitState(enum.Enum):
    """The state of a permit."""

    WAITING = "waiting"
    GRANTED = "granted"
    NEEDLESS = "needless: a connection has come back to the pool"
    WITHDRAWN = "withdrawn"


class Permit:
    """The right to one open connection to a server, or the wait for it.

    Args:
        pool: The pool that requests it.

    Attributes:
        pool: The same.
        since: When it was requested, by time.monotonic().
        state: Its state.
        replaces: An idle connection, to be closed before the new one is opened.
        reuses: A connection that has come back to the pool, in place of a new one.
    """

    __slots__ = (
        "__weakref__",
        "_connection",
        "_wake",
        "pool",
        "replaces",
        "reuses",
        "since",
        "state",
    )

    def __init__(self, pool: BudgetedPool) -> None:
        self.pool = pool
        self.since = time.monotonic()
        self.state = PermitState.WAITING
        self.replaces: Any = None
        self.reuses: Any = None
        self._wake: Optional[Callable[[], None]] = None
        self._connection: Optional[weakref.ref[BudgetedConnection]] = None

    @property
    def granted(self) -> bool:
        """Whether a connection may be opened."""
        return self.state is PermitState.GRANTED

    def on_decision(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` once it does not wait any more, at once if it does not."""
        self._wake = wake
        if self.state is not PermitState.WAITING:
            wake()

    def decide(self, state: PermitState) -> None:
        """Set the state, and wake who waits for that."""
        self.state = state
        if self._wake is not None:
            self._wake()

    def close_replaced(self) -> None:
        """Close the idle connection that makes room."""
        replaced = self.replaces
        self.replaces = None
        if replaced is not None:
            replaced.quit()

    def take_reused(self) -> Any:
        """Return the connection that it reuses; None for a new one."""
        reused = self.reuses
        self.reuses = None
        return reused

    def attach(self, connection: BudgetedConnection) -> None:
        """Count it from now on for as long as this connection is open."""
        connection.permit = self
        self._connection = weakref.ref(connection)

    def counts(self) -> bool:
        """Return whether it stands for a connection that is open or being opened."""
        if self._connection is None:
            return self.granted
        connection = self._connection()
        return connection is not None and connection.permit is self and connection.open


class ServerBudget:
    """The connections of this process to one server.

    Args:
        server: Its address, for messages.

    Attributes:
        server: The same.
    """

    def __init__(self, server: str) -> None:
        self.server = server
        self._pools: weakref.WeakSet[Any] = weakref.WeakSet()
        self._forked()
        fork_safety.register(self)

    def _forked(self) -> None:
        """Reset to the state of a process without connections."""
        self._lock = threading.Lock()
        self._queues: Dict[BudgetedPool, Deque[weakref.ref[Permit]]] = {}
        self._permits: Dict[int, weakref.ref[Permit]] = {}
        self._timeouts = 0
        self._taken_over = 0

    def join(self, pool: BudgetedPool) -> None:
        """Add a pool; only a weak reference to it is kept."""
        self._pools.add(pool)

    @property
    def limit(self) -> int:
        """The least limit of the open pools' configurations."""
        limits = [pool.config.server_limit for pool in self._open_pools()]
        return min([each for each in limits if each is not None], default=1)

    def request(self, pool: BudgetedPool) -> Permit:
        """Request a connection for a pool: the permit is granted now, or later."""
        permit = Permit(pool)
        with self._lock:
            self._queues.setdefault(pool, deque()).append(weakref.ref(permit))
            self._grant()
        return permit

    def withdraw(self, permit: Permit) -> None:
        """Give a permit back that is not used."""
        with self._lock:
            permit.state = PermitState.WITHDRAWN
            permit.replaces = permit.replaces or permit.reuses
        permit.close_replaced()
        self.changed()

    def dismiss(self, pool: BudgetedPool) -> None:
        """Withdraw the requests of a pool that closes, and wake their callers."""
        with self._lock:
            for reference in self._queues.pop(pool, ()):
                permit = reference()
                if permit is not None and permit.state is PermitState.WAITING:
                    permit.decide(PermitState.WITHDRAWN)
        self.changed()

    def changed(self) -> None:
        """Grant what can be granted, after a connection was returned or closed."""
        if self._queues:
            with self._lock:
                self._grant()

    def must_yield(self, pool: BudgetedPool) -> bool:
        """Return whether a connection that comes back to this pool is closed for
        another pool, which waits and has none, or fewer by two.

        A difference of one remains, because each transfer costs a connect.
        """
        if not self._queues:
            return False
        with self._lock:
            return _must_yield(pool, self._counts(), self._first_waiting())

    def _counts(self) -> "Counter[BudgetedPool]":
        """The connections that are open or being opened, of each pool."""
        found: Counter[BudgetedPool] = Counter()
        for key, reference in list(self._permits.items()):
            permit = reference()
            if permit is not None and permit.counts():
                found[permit.pool] += 1
            else:
                self._permits.pop(key, None)
        return found

    def _first_waiting(self) -> List[Permit]:
        """The first request of each pool that has waiting ones."""
        found: List[Permit] = []
        for pool, queue in list(self._queues.items()):
            while queue:
                permit = queue[0]()
                if permit is not None and permit.state is PermitState.WAITING:
                    found.append(permit)
                    break
                queue.popleft()
            else:
                del self._queues[pool]
        return found

    def stats(self) -> ServerStats:
        """Return the figures."""
        with self._lock:
            count = sum(self._counts().values())
            permits = [reference() for queue in self._queues.values() for reference in queue]
            states = [permit.state for permit in permits if permit is not None]
            waiting = states.count(PermitState.WAITING)
            return ServerStats(self.limit, count, waiting, self._timeouts, self._taken_over)

    def timeout(self, name: str, shard_id: Optional[int], waited: float) -> errors.PoolTimeout:
        """Make the error for a timed-out request, with the budget's usage."""
        self._timeouts += 1
        figures = self.stats()
        return errors.PoolTimeout(
            f"no connection to {name} could be opened within {waited:.2f} s: {figures.open} of "
            f"{figures.limit} connections of this process to the server {self.server} are open "
            f"(max_connections_per_server), {figures.waiting} more callers are waiting"
        ).with_context(name, shard_id, sent=False)

    def _grant(self) -> None:
        while True:
            waiting = self._first_waiting()
            if not waiting:
                return
            counts = self._counts()
            if self._reuse(waiting, counts):
                continue
            permit = min(waiting, key=lambda each: (counts[each.pool], each.since))
            if sum(counts.values()) >= self.limit:
                permit.replaces = self._take_idle()
                if permit.replaces is None:
                    return
                permit.replaces.permit = None
                self._taken_over += 1
            self._permits[id(permit)] = weakref.ref(permit)
            permit.decide(PermitState.GRANTED)

    def _reuse(self, waiting: List[Permit], counts: "Counter[BudgetedPool]") -> bool:
        """Give a connection that has come back to a caller of its own pool."""
        for permit in waiting:
            if not _must_yield(permit.pool, counts, waiting):
                permit.reuses = permit.pool.take_idle()
                if permit.reuses is not None:
                    permit.decide(PermitState.NEEDLESS)
                    return True
        return False

    def _open_pools(self) -> List[BudgetedPool]:
        return [pool for pool in list(self._pools) if not pool.closed]

    def _take_idle(self) -> Any:
        """The connection that has been idle for longest."""
        idle = [(pool.oldest_idle_at(), pool) for pool in self._open_pools()]
        known = [(since, pool) for since, pool in idle if since is not None]
        for _, pool in sorted(known, key=lambda each: each[0]):
            connection = pool.take_oldest_idle()
            if connection is not None:
                return connection
        return None


def _must_yield(pool: BudgetedPool, counts: "Counter[BudgetedPool]", waiting: List[Permit]) -> bool:
    own = counts[pool]
    others = [counts[permit.pool] for permit in waiting if permit.pool is not pool]
    return any(count == 0 or count < own - 1 for count in others)


_budgets: Dict[str, ServerBudget] = {}


def budget_of(pool: BudgetedPool) -> Optional[ServerBudget]:
    """Return the budget of a pool's server, which the pool has joined; None if the
    configuration sets no limit.
    """
    config = pool.config
    if config.server_limit is None:
        return None
    budget = _budgets.setdefault(config.server, ServerBudget(config.server))
    budget.join(pool)
    return budget
