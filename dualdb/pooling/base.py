"""The state and decisions of a pool that both implementations share."""

import enum
import logging
import os
import ssl
import sys
import time
import weakref
from functools import lru_cache
from typing import (
    Any,
    Callable,
    Dict,
    List,
    NamedTuple,
    Optional,
    Protocol,
    Tuple,
    Type,
    TypeVar,
)

from pymysql.constants import CR

from .. import errors
from ..config import DatabaseConfig
from ..endpoints.causal import WriteLog
from ..endpoints.node import Role
from ..endpoints.state import Endpoint, Endpoints
from ..observability.logs import about
from ..observability.observers import NOBODY, Observers
from ..protocol import tls
from ..protocol.connection_state import ConnectionState, KillState
from ..protocol.row_decoder import DecoderName
from .admission import Admission
from .circuit_breaker import LONGEST, LONGEST_OF_SEVERAL, CircuitBreaker
from .retry_budget import RetryBudget
from .server_budget import Permit, PoolBudgets, ServerBudget
from .session_killer import SessionKiller

log = logging.getLogger("dualdb.pool")

ConnectionT = TypeVar("ConnectionT", bound=ConnectionState)
StoredT_co = TypeVar("StoredT_co", bound=ConnectionState, covariant=True)

#: By how many seconds a wait may end before its limit by the clock.
CUT_SHORT = 0.05

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class PoolStats(NamedTuple):
    """Statistics of a pool at one moment, collected without I/O.

    Attributes:
        limit: The most connections allowed: ``pool_size + max_overflow``.
        in_use: Connections in use, including those whose session is being killed.
        idle: Idle connections.
        waiting: Callers that wait for a connection.
        opened: Connections opened since the pool was created.
        timeouts: Callers whose wait timed out since the pool was created.
        circuit: The circuit breaker: "closed", or "open" while the server is
            unreachable and calls fail at once.
    """

    limit: int
    in_use: int
    idle: int
    waiting: int
    opened: int
    timeouts: int
    circuit: str

    def as_dict(self) -> Dict[str, Any]:
        """Return it as a dict of plain values, for ``json.dumps``."""
        return self._asdict()


def unused_stats(config: DatabaseConfig) -> PoolStats:
    """Return the statistics of a pool that has not been used."""
    return _unused_stats(config.pool_size + config.max_overflow)


@lru_cache(maxsize=256)  # one for the thousands of pools of one size
def _unused_stats(limit: int) -> PoolStats:
    return PoolStats(limit, 0, 0, 0, 0, 0, "closed")


class Disposition(enum.Enum):
    """What to do with a returned connection.

    Attributes:
        DROP: Discard it without I/O: it belongs to the parent process.
        KILLER_OWNS_IT: Nothing; the killer checks it in when it is done.
        KILL: Kill its session; the slot stays taken until then.
        CLOSE: Close it.
        RESET: Reset its session.
        CLEAR: Clear the warnings and errors of the last statement on the server.
        REUSE: Store it unchanged.
    """

    DROP = "drop"
    KILLER_OWNS_IT = "killer owns it"
    KILL = "kill"
    CLOSE = "close"
    RESET = "reset"
    CLEAR = "clear"
    REUSE = "reuse"


_REUSE = Disposition.REUSE


class BasePool:
    """The connections of one database, their holders, and the state of the server.

    Args:
        config: The configuration of the database and the pool.
        name: The database's name, for messages.
        shard_id: The shard's id; None for a database that is not a shard.
    """

    #: Seconds between attempts to kill a session that cannot be killed yet.
    KILL_RETRY_INTERVAL = 0.1

    _slots: Any
    _store: Any
    #: The driver's connection class extended by this package.
    _connection_type: Type[ConnectionState]

    #: Called when the circuit opens, with the failure, and when it closes, with None.
    on_outage: Optional[Callable[[Optional[Exception]], None]] = None
    #: The hooks of its events.
    observers: Observers = NOBODY
    #: Where the writes of its connections are recorded.
    writes: Optional[WriteLog] = None

    def __init__(self, config: DatabaseConfig, name: str, shard_id: Optional[int]) -> None:
        self.config = config
        self.name = name
        self.shard_id = shard_id
        self.closed = False
        self._resets_always = config.reset == "always"
        self._tls: Optional[ssl.SSLContext] = None
        self.opened = self._timeouts = 0
        #: The hosts behind its name.
        self.endpoints = Endpoints(
            () if config.unix_socket is not None else config.hosts, config.endpoint_policy
        )
        #: The limit of calls in progress; None without one.
        self.admission = None if config.max_in_flight is None else Admission(config.max_in_flight)
        self.breaker = CircuitBreaker()
        self._reset()
        #: The limits of connections to its servers over all their pools. At the end,
        #: because other threads use a pool that has joined a budget.
        self.budgets = PoolBudgets(self)

    @property
    def load(self) -> int:
        """The number of its calls in progress, and of those that wait for a
        connection.
        """
        return int(self._slots.in_use) + int(self._slots.waiting)

    def record_unreported_write(self) -> None:
        """Record that a write may have been committed whose position is not known."""
        if self.writes is not None:
            self.writes.record_unreported()

    def record_wait(self, seconds: float, *, timed_out: bool) -> None:
        """Record how long a caller waited for a connection that was not free."""
        error = errors.PoolTimeout("no connection became free") if timed_out else None
        self.observers.post_pool("pool_wait", self, seconds=seconds, error=error)

    def _report_kill(self, seconds: float, outcome: str) -> None:
        self.observers.post_pool("kill", self, seconds=seconds, detail=outcome)

    def retire_older(self, now: float) -> None:
        """Replace the connections that were opened before ``now``: idle ones at their
        next checkout, the others after their release.

        Args:
            now: The time, by time.monotonic().
        """
        self.endpoints.retire(now)

    def record_connected(
        self,
        connection: ConnectionState,
        endpoint: Endpoint,
        began: float,
        *,
        replica: bool = False,
    ) -> None:
        """Record that a connection was opened, and check that it is to be used.

        Args:
            connection: The connection; it is closed if it is not used.
            endpoint: The host.
            began: The time before the attempt.
            replica: A replica is used as well.

        Raises:
            NoPrimary: It is not used.
        """
        node = connection.facts.node
        connection.writes = self.writes
        if not self.endpoints.several:
            endpoint.record_connected(node, began)
            return
        before = endpoint.role
        why = self.endpoints.judge(endpoint, node, began)
        if why is None:
            if endpoint.role is not before:
                self.budgets.dismiss(apart_from=endpoint)
            if node is not None and node.why and self.endpoints.warn_once(endpoint):
                log.warning(
                    "%s: %s: %s",
                    self.name,
                    endpoint.address,
                    node.why,
                    extra=about("host_unusable", self),
                )
            return
        if replica and endpoint.role is Role.REPLICA:
            self.endpoints.accept_replica(endpoint)
            return
        connection.quit()
        raise errors.NoPrimary(f"{endpoint.address}: {why}").with_context(
            self.name, self.shard_id, sent=False
        )

    def _connect_failed(
        self, error: errors.ConnectionFailed, endpoint: Endpoint, began: float, until: float
    ) -> None:
        """Record that no connection could be opened."""
        now = time.monotonic()
        # An attempt that only the caller's deadline cut short says nothing of the host.
        waited_long = now - began >= self._connect_limit(endpoint) - CUT_SHORT
        endpoint.record_failure(error.summary, began, now, timed_out=now >= until and waited_long)
        error.with_context(self.name, self.shard_id, sent=False)

    def _connect_limit(self, endpoint: Endpoint) -> float:
        """The limit on connecting to a host, and on each round trip of a kill, in
        seconds.
        """
        limit = self.config.connect_timeout
        return endpoint.connect_limit(limit) if self.endpoints.several else limit

    def _note_refusal(self, connection: ConnectionState) -> None:
        """Replace the connections to the host of a returned connection, if it has
        refused a statement because it is not the primary, or not in service.
        """
        lifetime = connection.lifetime
        if lifetime.refused_at:
            lifetime.endpoint.record_refusal(lifetime.refused_at)

    def _reset(self) -> None:
        """Reset to a pool without connections."""
        self.endpoints.forget_callers()
        self.breaker = CircuitBreaker(
            failure=self.breaker.failure,
            longest=LONGEST_OF_SEVERAL if self.endpoints.several else LONGEST,
        )
        self.retry_budget = RetryBudget()
        self._kills = SessionKiller(
            self.name, self.KILL_RETRY_INTERVAL, self._report_kill, self.shard_id
        )
        #: By id() of each connection in use: a weak reference, the time of its
        #: checkout, and the code location of it if leaks are detected. The reference is
        #: weak so that a leaked connection can be collected.
        self._checked_out: Dict[int, Tuple[weakref.ReferenceType[Any], float, str]] = {}

    @property
    def row_decoder(self) -> DecoderName:
        """The name of the row decoder of its connections."""
        return self._connection_type.decoder_for(self.config)

    @property
    def _first_connections(self) -> int:
        """The number of connections to make when it is opened, or again after the last
        attempt failed.
        """
        return max(self.config.warm_up, int(self.breaker.failure is not None))

    @property
    def in_use(self) -> int:
        """The number of taken slots: by callers, and by sessions being killed."""
        return int(self._slots.in_use)

    def disposition(self, connection: Any) -> Disposition:
        """Decide what to do with a returned connection.

        Pure; called under the pool's lock.
        """
        if connection.untouched and connection.open and not (self.closed or self._resets_always):
            return Disposition.CLOSE if connection.retired else _REUSE
        if connection.inherited:
            return Disposition.DROP
        if connection.kill_state is KillState.PENDING:
            return Disposition.KILLER_OWNS_IT
        if connection.open and connection.needs_kill:
            return Disposition.KILL
        if self.closed or not connection.open or not connection.reusable or connection.retired:
            return Disposition.CLOSE
        if connection.dirty or self._resets_always:
            # COM_RESET_CONNECTION does not run init_connect
            return Disposition.CLOSE if connection.facts.runs_init_connect else Disposition.RESET
        return Disposition.CLEAR

    def _is_surplus(self, connection: ConnectionState, waiting: int) -> bool:
        """Return whether a connection that is returned is closed: no caller may have
        it, and no more are kept.

        Args:
            connection: The connection.
            waiting: How many callers wait for one.
        """
        if waiting:
            budget: Optional[ServerBudget] = connection.budget
            return budget is not None and budget.must_yield(self)
        return self.closed or bool(self._store.is_full)

    def stats(self) -> PoolStats:
        """Return the pool's statistics, without I/O."""
        return PoolStats(
            self._slots.limit,
            self.in_use,
            self._idle_count(),
            self._slots.waiting,
            self.opened,
            self._timeouts,
            "open" if self.breaker.is_open else "closed",
        )

    def _set_config(self, config: DatabaseConfig) -> None:
        """Change the sizes, under the pool's lock."""
        self.config = config
        self._slots.limit = config.pool_size + config.max_overflow

    def _idle_count(self) -> int:
        """Return the number of idle connections."""
        raise NotImplementedError

    def oldest_idle_at(self, budget: ServerBudget) -> Optional[float]:
        """Return since when its longest idle connection to a server is idle, by
        time.monotonic(); None if there is none.
        """
        at: Optional[float] = self._store.oldest_at(budget)
        return at

    def take_idle(self) -> Any:
        """Take an idle connection out of the pool, for a caller of it; None if there is
        none at once.
        """
        raise NotImplementedError

    def take_oldest_idle(self, budget: ServerBudget) -> Any:
        """Take the connection to a server out of the pool that has been idle for
        longest, for the caller to close.

        Returns:
            None if there is none, or if the pool closes it by itself, soon.
        """
        raise NotImplementedError

    def _tls_context(self) -> Optional[ssl.SSLContext]:
        try:
            return tls.context(self.config)
        except OSError as error:  # an ssl.SSLError too
            raise errors.ConnectionFailed(
                CR.CR_SSL_CONNECTION_ERROR, f"the TLS files cannot be used: {error}"
            ) from error

    def _record_checkout(self, connection: object, now: float) -> None:
        self._checked_out[id(connection)] = (
            weakref.ref(connection),
            now,
            "" if self.config.leak_threshold is None else _caller(),
        )

    def checked_out_at(self, connection: object) -> Optional[float]:
        """Return the time.monotonic() of a connection's checkout; None if it is not
        checked out.
        """
        entry = self._checked_out.get(id(connection))
        return None if entry is None else entry[1]

    def _connections_out(self) -> List[Any]:
        found = [entry[0]() for entry in list(self._checked_out.values())]
        return [connection for connection in found if connection is not None]

    def abort_in_use(self) -> int:
        """Abort the connections that are still in use.

        Returns:
            Their number.
        """
        connections = self._connections_out()
        for connection in connections:
            connection.abort_in_use()
        return len(connections)

    def _warn_of_leaks(self) -> None:
        """Log each connection once that has been checked out for longer than
        ``leak_threshold``, with the code location of its checkout.
        """
        limit = self.config.leak_threshold
        now = time.monotonic()
        for key, (connection, since, place) in list(self._checked_out.items()):
            if limit is not None and place and now - since > limit:
                log.warning(
                    "%s: a connection has been in use for %.1f s, since its checkout at %s",
                    self.name,
                    now - since,
                    place,
                    extra=about("connection_leaked", self),
                )
                self._checked_out[key] = (connection, since, "")

    def _timeout(self, waited: float) -> errors.PoolTimeout:
        self._timeouts += 1
        self._warn_of_leaks()
        error: errors.PoolTimeout = self._slots.timeout(self.name, self.shard_id, waited)
        return error

    def permit_refused(self, permit: Permit, waited: float, *, late: bool) -> errors.Error:
        """Make the error for a permit of a server's budget that was not granted.

        Args:
            permit: The permit.
            waited: Seconds that its caller waited.
            late: The caller's deadline has passed.
        """
        if self.closed:
            return self._closed_error()
        if late:
            return self._deadline_error("waiting for a connection")
        self._timeouts += 1
        self._warn_of_leaks()
        return permit.budget.timeout(self.name, self.shard_id, waited)

    def _deadline_error(self, doing: str) -> errors.DeadlineExceeded:
        return errors.DeadlineExceeded(f"the deadline passed while {doing}").with_context(
            self.name, self.shard_id, sent=False
        )

    def check_buffer(self) -> None:
        """Check that one more caller may wait while there is no primary.

        Raises:
            ShardUnavailable: As many wait as may, for a shard's primary.
            NoPrimary: The same, for another database's.
        """
        size = self.config.buffer_size
        if self.endpoints.is_full(self._slots.waiting, size):
            failure = self.endpoints.no_primary()
            raise errors.buffer_full(failure, size, self.name, self.shard_id)

    def _closed_error(self) -> errors.ServiceNotOpen:
        return errors.ServiceNotOpen(f"the connection pool of {self.name} is closed").with_context(
            self.name, self.shard_id, sent=False
        )


class _Store(Protocol[StoredT_co]):
    """A store of idle connections."""

    def count(self) -> int:
        """Return how many there are."""
        ...

    def take_oldest(self) -> Optional[StoredT_co]:
        """Take out the one that is there for longest."""
        ...


def take_surplus(store: _Store[ConnectionT], most: int) -> List[ConnectionT]:
    """Take out of a store what is there for longest, until so many are left."""
    taken: List[ConnectionT] = []
    while store.count() > most:
        connection = store.take_oldest()
        if connection is None:
            break
        taken.append(connection)
    return taken


def _caller() -> str:
    """Return the innermost code location outside this package."""
    frame: Any = sys._getframe(2)
    while frame is not None and (
        frame.f_code.co_filename.startswith(_PACKAGE)
        or frame.f_code.co_filename.endswith("/asyncio/events.py")
    ):
        frame = frame.f_back
    return (
        "?"
        if frame is None
        else f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
    )
