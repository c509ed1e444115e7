"""The limit of this process's connections to one server, over all the pools that lead
there. No I/O: the pools wait, and close what is taken from them.

A server is one host and port, so a pool of several hosts has a budget for each. A
permit belongs to one attempt to connect to one host; the connection that was made
counts there until it is closed. The next permit goes to the database that has the
fewest connections there, among several to the earliest request. At the limit the
connection that has been idle for longest makes room; if none is idle, the request
waits. Permits and connections are held weakly, so what an interrupted caller lost is
free again.

No pool may hold a lock of its own when it calls this, and no finalizer may call it:
both may call what takes no lock, ``ServerBudget.must_yield`` and ``Permit.withdraw``.
"""

import enum
import threading
import time
import weakref
from collections import Counter, deque
from typing import Any, Callable, Deque, Dict, List, Mapping, NamedTuple, Optional, Protocol, Tuple

from .. import errors, fork_safety
from ..config import DatabaseConfig
from ..endpoints.state import Endpoint


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
    """The part of a pool that its servers' budgets use."""

    config: DatabaseConfig
    closed: bool

    def take_idle(self) -> Any:
        """Take an idle connection out of the pool, for a caller of the pool itself;
        None if there is none at once.
        """

    def oldest_idle_at(self, budget: "ServerBudget") -> Optional[float]:
        """Return since when its longest idle connection to a server is idle, by
        time.monotonic(); None if there is none.
        """
        ...

    def take_oldest_idle(self, budget: "ServerBudget") -> Any:
        """Take the connection to a server out of the pool that has been idle for
        longest, for the caller to close; None if there is none, or if the pool closes
        it by itself.
        """


class BudgetedConnection(Protocol):
    """The part of a connection that its server's budget uses."""

    budget: Any

    @property
    def open(self) -> bool:
        """Whether it has a socket."""
        ...

    def quit(self) -> None:
        """Close it."""


class PermitState(enum.Enum):
    """The state of a permit."""

    WAITING = "waiting"
    CHOSEN = "chosen: an idle connection may have to be closed first"
    GRANTED = "granted"
    NEEDLESS = "needless: a connection has come back to the pool"
    DISMISSED = "dismissed: the pool is closed, or another host may have to be chosen"


_COUNTED = (PermitState.CHOSEN, PermitState.GRANTED)
_UNDECIDED = (PermitState.WAITING, PermitState.CHOSEN)


class Permit:
    """The right to make one attempt to connect to a server, or the wait for it.

    Args:
        budget: The budget of the server.
        pool: The pool that requests it.

    Attributes:
        budget: The same.
        pool: The same.
        since: When it was requested, by time.monotonic().
        state: Its state, which the budget sets.
        withdrawn: Whoever requested it does not want it any more.
        reuses: A connection that has come back to the pool, in place of a new one.
    """

    __slots__ = (
        "__weakref__",
        "_connection",
        "_wake",
        "budget",
        "pool",
        "reuses",
        "since",
        "state",
        "withdrawn",
    )

    def __init__(self, budget: "ServerBudget", pool: BudgetedPool) -> None:
        self.budget = budget
        self.pool = pool
        self.since = time.monotonic()
        self.state = PermitState.WAITING
        self.withdrawn = False
        self.reuses: Any = None
        self._wake: Optional[Callable[[], None]] = None
        self._connection: Optional[weakref.ref[BudgetedConnection]] = None

    @property
    def granted(self) -> bool:
        """Whether a connection may be opened."""
        return self.state is PermitState.GRANTED

    @property
    def decided(self) -> bool:
        """Whether it does not wait any more."""
        return self.state not in _UNDECIDED

    @property
    def waits(self) -> bool:
        """Whether somebody waits for it."""
        return self.state is PermitState.WAITING and not self.withdrawn

    def on_decision(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` once it is decided, at once if it is."""
        self._wake = wake
        if self.decided:
            wake()

    def decide(self, state: PermitState) -> None:
        """Set the state, and wake who waits for that."""
        self.state = state
        if self._wake is not None:
            self._wake()

    def confirm(self) -> None:
        """Grant it if that was decided, and whoever decided it was interrupted."""
        if self.state is PermitState.CHOSEN:
            self.decide(PermitState.GRANTED)

    def withdraw(self) -> None:
        """Give it back. Takes no lock: who requested it may be garbage-collected.

        It does not count any more; call ``changed`` to have the next one granted.
        """
        self.withdrawn = True
        reused = self.take_reused()
        if reused is not None:
            reused.quit()

    def take_reused(self) -> Any:
        """Return the connection that it reuses; None for a new one."""
        reused = self.reuses
        self.reuses = None
        return reused

    def attach(self, connection: BudgetedConnection) -> None:
        """Count this connection for as long as it is open. To be called before it is
        opened.
        """
        self._connection = weakref.ref(connection)
        self.budget.add(connection, self.pool)

    @property
    def counts(self) -> bool:
        """Whether it stands for a connection, which may be open already."""
        return not self.withdrawn and self.state in _COUNTED

    def is_among(self, open_connections: "Mapping[int, object]") -> bool:
        """Return whether its connection is one of those that are open, by id()."""
        connection = None if self._connection is None else self._connection()
        return connection is not None and id(connection) in open_connections


class ServerBudget:
    """The connections of this process to one server.

    Args:
        server: Its address, as ``DatabaseConfig.servers`` has it.

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
        self._connections: Dict[weakref.ref[BudgetedConnection], weakref.ref[BudgetedPool]] = {}
        self._timeouts = 0
        self._taken_over = 0

    def join(self, pool: BudgetedPool) -> None:
        """Add a pool; only a weak reference to it is kept."""
        self._pools.add(pool)

    @property
    def limit(self) -> int:
        """The least limit of the open pools' configurations, or of those that close."""
        pools = self._open_pools() or list(self._pools)
        limits = [pool.config.limit_at(self.server) for pool in pools]
        return min([each for each in limits if each is not None], default=1)

    def request(self, pool: BudgetedPool) -> Permit:
        """Request a connection for a pool: the permit is granted now, or later."""
        permit = Permit(self, pool)
        with self._lock:
            self._queues.setdefault(pool, deque()).append(weakref.ref(permit))
        self.changed()
        return permit

    def add(self, connection: BudgetedConnection, pool: BudgetedPool) -> None:
        """Count a connection from the moment it is opened until it is closed."""
        connection.budget = self
        self._connections[weakref.ref(connection)] = weakref.ref(pool)

    def dismiss(self, pool: BudgetedPool) -> None:
        """Wake the callers of a pool that wait, without a permit: the pool closes, or
        they must choose a host again.
        """
        if pool not in self._queues:
            return
        with self._lock:
            for permit in self._waiting_of(pool):
                permit.decide(PermitState.DISMISSED)
        self.changed()

    def changed(self) -> None:
        """Grant what can be granted, after a connection was returned or closed."""
        if not self._queues:
            return
        replaced: List[BudgetedConnection] = []
        chosen: List[Permit] = []
        with self._lock:
            self._grant(chosen, replaced)
        for connection in replaced:
            connection.quit()
        for permit in chosen:
            permit.confirm()

    def must_yield(self, pool: BudgetedPool) -> bool:
        """Return whether a connection that comes back to this pool is closed for
        another pool, which waits and has none, or fewer by two.

        A difference of one remains, because each transfer costs a connect. It takes no
        lock.
        """
        if not self._queues:
            return False
        waiting = [other for other in list(self._queues) if self._waiting_of(other)]
        return _must_yield(pool, self._counts(), waiting)

    def stats(self) -> ServerStats:
        """Return the figures."""
        with self._lock:
            count = sum(self._counts().values())
            waiting = sum([len(self._waiting_of(pool)) for pool in self._queues])
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

    def _counts(self) -> "Counter[Optional[BudgetedPool]]":
        """The connections that are open or being opened, of each pool; None for those
        whose pool is gone.
        """
        # Before the connections: a permit is withdrawn after its connection was opened.
        held = [weak() for weak in list(self._permits.values())]
        permits = [permit for permit in held if permit is not None and permit.counts]
        open_connections: Dict[int, Optional[BudgetedPool]] = {}
        for reference, pool in list(self._connections.items()):
            connection = reference()
            if connection is not None and connection.budget is self and connection.open:
                open_connections[id(connection)] = pool()
        found = Counter(open_connections.values())
        for permit in permits:
            if not permit.is_among(open_connections):
                found[permit.pool] += 1
        return found

    def _waiting_of(self, pool: BudgetedPool) -> List[Permit]:
        """The waiting requests of a pool, in their order."""
        queue = self._queues.get(pool)
        found = [] if queue is None else [reference() for reference in queue.copy()]
        return [permit for permit in found if permit is not None and permit.waits]

    # Under the lock.

    def _prune(self) -> None:
        """Forget what has gone."""
        for reference in [each for each in list(self._connections) if each() is None]:
            del self._connections[reference]
        for key, weak in list(self._permits.items()):
            permit = weak()
            if permit is None or permit.withdrawn:
                del self._permits[key]

    def _first_waiting(self) -> List[Permit]:
        """The first request of each pool that has waiting ones; forget older ones."""
        found: List[Permit] = []
        for pool, queue in list(self._queues.items()):
            while queue:
                permit = queue[0]()
                if permit is not None and permit.waits:
                    found.append(permit)
                    break
                queue.popleft()
            else:
                del self._queues[pool]
        return found

    def _grant(self, chosen: List[Permit], replaced: List[BudgetedConnection]) -> None:
        self._prune()
        while True:
            waiting = self._first_waiting()
            if not waiting:
                return
            counts = self._counts()
            if self._reuse(waiting, counts):
                continue
            permit = min(waiting, key=lambda each: (counts[each.pool], each.since))
            if sum(counts.values()) >= self.limit:
                idle = self._take_idle()
                if idle is None:
                    return
                idle.budget = None
                replaced.append(idle)
                self._taken_over += 1
            self._permits[id(permit)] = weakref.ref(permit)
            permit.state = PermitState.CHOSEN
            chosen.append(permit)

    def _reuse(self, waiting: List[Permit], counts: "Counter[Optional[BudgetedPool]]") -> bool:
        """Give a connection that has come back to a caller of its own pool."""
        pools = [permit.pool for permit in waiting]
        for permit in waiting:
            if not _must_yield(permit.pool, counts, pools):
                permit.reuses = permit.pool.take_idle()
                if permit.reuses is not None:
                    permit.decide(PermitState.NEEDLESS)
                    if permit.withdrawn:
                        permit.withdraw()
                    return True
        return False

    def _open_pools(self) -> List[BudgetedPool]:
        return [pool for pool in list(self._pools) if not pool.closed]

    def _take_idle(self) -> Any:
        """The connection that has been idle for longest."""
        idle = [(pool.oldest_idle_at(self), pool) for pool in self._open_pools()]
        known = [(since, pool) for since, pool in idle if since is not None]
        for _, pool in sorted(known, key=lambda each: each[0]):
            connection = pool.take_oldest_idle(self)
            if connection is not None:
                return connection
        return None


def _must_yield(
    pool: BudgetedPool, counts: "Counter[Optional[BudgetedPool]]", waiting: List[BudgetedPool]
) -> bool:
    own = counts[pool]
    others = [counts[other] for other in waiting if other is not pool]
    return any(count == 0 or count < own - 1 for count in others)


_budgets: Dict[str, ServerBudget] = {}


class PoolBudgets:
    """The budgets of the servers that a pool connects to, which it joins.

    Args:
        pool: The pool.

    Attributes:
        all: The budgets; empty if its configuration sets no limit.
    """

    __slots__ = ("_by_position", "_pool", "all")

    def __init__(self, pool: BudgetedPool) -> None:
        self._pool: weakref.ref[BudgetedPool] = weakref.ref(pool)
        config = pool.config
        limited = config.max_connections_per_server is not None or config.server_limits
        self._by_position: Tuple[Optional[ServerBudget], ...] = tuple(
            [
                None
                if config.limit_at(server) is None
                else _budgets.setdefault(server, ServerBudget(server))
                for server in (config.servers if limited else ())
            ]
        )
        found = [budget for budget in self._by_position if budget is not None]
        self.all: Tuple[ServerBudget, ...] = tuple(dict.fromkeys(found))
        for budget in self.all:
            budget.join(pool)

    def at(self, endpoint: Endpoint) -> Optional[ServerBudget]:
        """Return the budget of one of the pool's hosts; None if it has no limit."""
        return self._by_position[endpoint.position] if self.all else None

    def changed(self) -> None:
        """After a connection was returned or closed: let another pool have its place.
        Not to be called under a lock, or by a finalizer.
        """
        for budget in self.all:
            budget.changed()

    def dismiss(self, apart_from: Optional[Endpoint] = None) -> None:
        """Have the callers that wait choose a host again, or find the pool closed.

        Args:
            apart_from: Who waits for a connection to this host goes on waiting.
        """
        pool = self._pool()
        kept = None if apart_from is None else self.at(apart_from)
        for budget in self.all:
            if budget is not kept and pool is not None:
                budget.dismiss(pool)
