"""Metrics of a service, independent of the system that collects them.

The names are those of OpenTelemetry's semantic conventions for databases, and
``dualdb.*`` where there is none. No label has a value of unbounded number: neither
statements nor keys.
"""

import threading
from bisect import bisect_left
from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    List,
    Literal,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from .. import fork_safety
from .digests import DigestStats
from .events import (
    CoordinationEvent,
    EventName,
    PoolEvent,
    QueryEvent,
    TransactionEvent,
)

if TYPE_CHECKING:
    from ..topology.status import ServiceStatus

#: The upper bounds of the buckets of durations, in seconds.
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)

Labels = Tuple[Tuple[str, str], ...]


class Distribution(NamedTuple):
    """Durations by bucket.

    Attributes:
        counts: The number in each bucket of ``BOUNDS``, and above the last.
        total: Their sum, in seconds.
    """

    counts: Tuple[int, ...]
    total: float

    @property
    def count(self) -> int:  # type: ignore[override]
        """Their number."""
        return sum(self.counts)


class Metric(NamedTuple):
    """One metric with the values of all its labels.

    Attributes:
        name: Its name, with dots.
        kind: What its values are: a "counter" only increases.
        unit: "s" for seconds; empty for numbers.
        description: What it is.
        values: By labels, which are pairs of name and value.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    description: str
    values: Mapping[Labels, Union[float, Distribution]]


class _Histogram:
    """Durations by labels."""

    def __init__(self) -> None:
        self._counts: Dict[Labels, List[int]] = {}
        self._totals: Dict[Labels, float] = {}

    def add(self, labels: Labels, seconds: float) -> None:
        """Count a duration."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(BOUNDS) + 1)
            self._totals[labels] = 0.0
        counts[bisect_left(BOUNDS, seconds)] += 1
        self._totals[labels] += seconds

    def values(self) -> Dict[Labels, Distribution]:
        """Return a copy."""
        return {
            labels: Distribution(tuple(counts), self._totals[labels])
            for labels, counts in self._counts.items()
        }


class Recorder:
    """Counts events; its methods are hooks."""

    def __init__(self) -> None:
        self._forked()
        fork_safety.register(self)
        self._operations = _Histogram()
        self._transactions = _Histogram()
        self._connects = _Histogram()
        self._waits = _Histogram()
        self._counters: Dict[str, Dict[Labels, float]] = {
            "retry": {},
            "kill": {},
            "circuit_opened": {},
        }

    def _forked(self) -> None:
        self._lock = threading.Lock()

    def query(self, event: QueryEvent) -> None:
        """Count a call."""
        labels = _labels(target=event.target, error=_error(event.error))
        with self._lock:
            self._operations.add(labels, event.seconds)

    def transaction(self, event: TransactionEvent) -> None:
        """Count a transaction."""
        with self._lock:
            self._transactions.add(
                _labels(target=event.target, outcome=event.outcome), event.seconds
            )

    def pool(self, event: PoolEvent) -> None:
        """Count an event of a pool."""
        with self._lock:
            if event.name == "connect":
                labels = _labels(target=event.target, error=_error(event.error))
                self._connects.add(labels, event.seconds)
            elif event.name == "pool_wait":
                self._waits.add(_labels(target=event.target), event.seconds)
            elif event.name in self._counters:
                labels = _labels(target=event.target)
                if event.detail is not None:
                    labels = _labels(target=event.target, what=event.detail)
                counts = self._counters[event.name]
                counts[labels] = counts.get(labels, 0) + 1

    def metrics(self) -> List[Metric]:
        """Return what was counted so far."""
        with self._lock:
            return [
                Metric(
                    "db.client.operation.duration",
                    "histogram",
                    "s",
                    "Duration of calls, by database and error class",
                    self._operations.values(),
                ),
                Metric(
                    "db.client.connection.create_time",
                    "histogram",
                    "s",
                    "Duration of attempts to connect",
                    self._connects.values(),
                ),
                Metric(
                    "db.client.connection.wait_time",
                    "histogram",
                    "s",
                    "How long callers waited for a connection, if none was free",
                    self._waits.values(),
                ),
                Metric(
                    "dualdb.transaction.duration",
                    "histogram",
                    "s",
                    "Duration of transactions, by database and outcome",
                    self._transactions.values(),
                ),
                Metric(
                    "dualdb.retries",
                    "counter",
                    "",
                    "Statements sent again, and further attempts to connect",
                    dict(self._counters["retry"]),
                ),
                Metric(
                    "dualdb.kills",
                    "counter",
                    "",
                    "Sessions of abandoned calls, by what came of killing them",
                    dict(self._counters["kill"]),
                ),
                Metric(
                    "dualdb.circuit.openings",
                    "counter",
                    "",
                    "How often a server became unreachable",
                    dict(self._counters["circuit_opened"]),
                ),
            ]


class CoordinationFigure(NamedTuple):
    """A metric that is made of events.

    Attributes:
        name: Its name, with dots.
        kind: A "gauge" is the last value, a "counter" the sum.
        unit: "s" for seconds; empty for numbers.
        description: What it is.
        field: What of the event its value is.
        labels: By which fields of the event it is divided, and what they are called.
    """

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    description: str
    field: Literal["number", "seconds"]
    labels: Tuple[Tuple[str, str], ...]


_TARGET = (("target", "target"),)

#: By the event that they are made of.
FIGURES: Mapping[str, Tuple[CoordinationFigure, ...]] = {
    "xa_in_doubt": (
        CoordinationFigure(
            "dualdb.xa.in_doubt", "gauge", "", "Prepared transactions that have not ended",
            "number", _TARGET,
        ),
    ),
    "xa_finished": (
        CoordinationFigure(
            "dualdb.xa.finished", "counter", "", "Transactions finished for processes that left "
            "them", "number", (("decision", "detail"),),
        ),
    ),
    "outbox_lag": (
        CoordinationFigure(
            "dualdb.outbox.lag", "gauge", "s", "Age of the oldest pending event", "seconds",
            _TARGET,
        ),
        CoordinationFigure(
            "dualdb.outbox.pending", "gauge", "", "Pending events", "number", _TARGET
        ),
    ),
    "outbox_delivered": (
        CoordinationFigure(
            "dualdb.outbox.delivered", "counter", "", "Events that were delivered", "number",
            _TARGET,
        ),
    ),
    "outbox_failed": (
        CoordinationFigure(
            "dualdb.outbox.failed", "counter", "", "Deliveries that failed and are repeated",
            "number", _TARGET,
        ),
    ),
    "outbox_dead": (
        CoordinationFigure(
            "dualdb.outbox.dead", "counter", "", "Events that were given up", "number", _TARGET
        ),
    ),
    "idempotency_hit": (
        CoordinationFigure(
            "dualdb.idempotency.hits", "counter", "", "Calls that got an earlier call's result",
            "number", _TARGET,
        ),
    ),
    "move_started": (
        CoordinationFigure(
            "dualdb.moves.started", "counter", "", "Moves of tenants begun or resumed", "number",
            _TARGET,
        ),
    ),
    "move_step": (
        CoordinationFigure(
            "dualdb.moves.steps", "counter", "", "Steps of moves, by their names", "number",
            (("step", "detail"),),
        ),
    ),
    "move_fenced": (
        CoordinationFigure(
            "dualdb.moves.switched", "counter", "", "Tenants that were switched", "number", _TARGET
        ),
        CoordinationFigure(
            "dualdb.moves.fenced_time", "counter", "s", "Time that writes waited for switches",
            "seconds", _TARGET,
        ),
    ),
    "move_finished": (
        CoordinationFigure(
            "dualdb.moves.finished", "counter", "", "Moves that a process is done with, by state",
            "number", (("state", "detail"),),
        ),
    ),
}  # fmt: skip


class CoordinationRecorder:
    """Counts what happens to coordination and to moves; its method is a hook of
    ``COORDINATION_EVENTS``.
    """

    def __init__(self) -> None:
        self._forked()
        fork_safety.register(self)
        self._values: Dict[str, Dict[Labels, float]] = {
            figure.name: {} for figures in FIGURES.values() for figure in figures
        }

    def _forked(self) -> None:
        self._lock = threading.Lock()

    def add(self, event: CoordinationEvent) -> None:
        """Count an event."""
        with self._lock:
            for figure in FIGURES[event.name]:
                values = self._values[figure.name]
                labels = _labels(
                    **{label: str(getattr(event, field) or "") for label, field in figure.labels}
                )
                before = values.get(labels, 0.0) if figure.kind == "counter" else 0.0
                values[labels] = before + float(getattr(event, figure.field))

    def metrics(self) -> List[Metric]:
        """Return what was counted so far."""
        with self._lock:
            return [
                Metric(
                    figure.name,
                    figure.kind,
                    figure.unit,
                    figure.description,
                    dict(self._values[figure.name]),
                )
                for figures in FIGURES.values()
                for figure in figures
            ]


#: The event and the method of the Recorder for each hook.
HOOKS: Tuple[Tuple[EventName, str], ...] = (
    ("query", "query"),
    ("transaction", "transaction"),
    ("connect", "pool"),
    ("pool_wait", "pool"),
    ("retry", "pool"),
    ("kill", "pool"),
    ("circuit_opened", "pool"),
)


def state_metrics(status: "ServiceStatus") -> List[Metric]:
    """Return the metrics of a service's state at this moment.

    Args:
        status: Its ServiceStatus.
    """
    pools = {"global": status.global_pool}
    pools.update({f"shard {key}": shard.pool for key, shard in status.shards.items()})
    stats = {name: pool for name, pool in pools.items() if pool is not None}
    used = {_labels(target=name, state="used"): pool.in_use for name, pool in stats.items()}
    idle = {_labels(target=name, state="idle"): pool.idle for name, pool in stats.items()}
    return [
        Metric(
            "db.client.connection.count",
            "gauge",
            "",
            "Open connections of each pool, by state",
            {**used, **idle},
        ),
        _of_pools("db.client.connection.max", "gauge", "The most connections", stats, "limit"),
        _of_pools(
            "db.client.connection.pending_requests",
            "gauge",
            "Callers that wait for a connection",
            stats,
            "waiting",
        ),
        _of_pools(
            "db.client.connection.timeouts",
            "counter",
            "Callers that waited for a connection in vain",
            stats,
            "timeouts",
        ),
        _of_pools("dualdb.connections.opened", "counter", "Connections opened", stats, "opened"),
        Metric(
            "dualdb.circuit.open",
            "gauge",
            "",
            "1 while calls fail at once because the server cannot be reached",
            {_labels(target=name): float(pool.circuit == "open") for name, pool in stats.items()},
        ),
        Metric(
            "dualdb.shard.state",
            "gauge",
            "",
            "1 for the state that a shard is in",
            {
                _labels(shard_id=str(key), state=state): float(shard.state == state)
                for key, shard in status.shards.items()
                for state in STATES
            },
        ),
        *_of_servers(status.servers),
        Metric(
            "dualdb.calls.buffered",
            "gauge",
            "",
            "Calls that wait, before they are sent, for a primary or the end of a move",
            {_labels(target=name): count for name, count in status.buffered.items()},
        ),
        Metric("dualdb.map.version", "gauge", "", "Version of the shard map", {(): status.version}),
        Metric(
            "dualdb.map.age",
            "gauge",
            "s",
            "Time since the shard table was last read",
            {} if status.age is None else {(): status.age},
        ),
        Metric(
            "dualdb.map.readable",
            "gauge",
            "",
            "0 if the last attempt to read the shard table failed",
            {(): float(status.failure is None)},
        ),
    ]


#: The states of a shard.
STATES = ("active", "readonly", "inactive", "maintenance", "moving", "invalid", "unreachable")


def digest_metrics(top: Sequence[DigestStats]) -> List[Metric]:
    """Return the metrics of statements, which are labelled by their digest alone."""
    figures = (
        ("dualdb.statement.calls", "", "Calls of a statement", "calls"),
        ("dualdb.statement.time", "s", "Time of the calls of a statement", "total"),
        ("dualdb.statement.errors", "", "Failed calls of a statement", "errors"),
        ("dualdb.statement.rows", "", "Rows read or affected by a statement", "rows"),
    )
    return [
        Metric(
            name,
            "counter",
            unit,
            description,
            {_labels(digest=each.digest): float(getattr(each, field)) for each in top},
        )
        for name, unit, description, field in figures
    ]


def _of_servers(servers: Mapping[str, Any]) -> List[Metric]:
    figures: Tuple[Tuple[str, Literal["counter", "gauge"], str, str], ...] = (
        ("connections", "gauge", "Connections to a server over all databases", "open"),
        ("connections.max", "gauge", "The most connections to a server", "limit"),
        ("connections.pending_requests", "gauge", "Callers that wait to open one", "waiting"),
        ("connections.timeouts", "counter", "Callers that waited to open one in vain", "timeouts"),
        ("connections.taken_over", "counter", "Idle ones closed for others", "taken_over"),
    )
    return [
        Metric(
            f"dualdb.server.{name}",
            kind,
            "",
            description,
            {_labels(server=server): getattr(each, field) for server, each in servers.items()},
        )
        for name, kind, description, field in figures
    ]


def _of_pools(
    name: str,
    kind: Literal["counter", "gauge"],
    description: str,
    stats: Mapping[str, Any],
    field: str,
) -> Metric:
    values = {_labels(target=target): getattr(pool, field) for target, pool in stats.items()}
    return Metric(name, kind, "", description, values)


def _labels(**labels: str) -> Labels:
    return tuple(labels.items())


def _error(error: Optional[BaseException]) -> str:
    return "" if error is None else type(error).__name__
