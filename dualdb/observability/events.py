"""The events that hooks are called with."""

from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Literal,
    NamedTuple,
    Optional,
    Tuple,
    Union,
    get_args,
)

if TYPE_CHECKING:
    from ..topology.shard_map import Shard
    from .query_call import QueryCall

#: Changes of the shard map, and outages of shards.
ShardEventName = Literal[
    "shard_added",
    "shard_removed",
    "shard_moved",
    "shard_state_changed",
    "map_refreshed",
    "shard_down",
    "shard_up",
]
#: Calls.
QueryEventName = Literal["query", "scatter"]
#: Connections and their pools.
PoolEventName = Literal["connect", "pool_wait", "retry", "kill", "circuit_opened", "circuit_closed"]

#: Transactions on several databases, the outbox, idempotency keys, and moves.
CoordinationEventName = Literal[
    "xa_in_doubt",
    "xa_finished",
    "outbox_lag",
    "outbox_delivered",
    "outbox_failed",
    "outbox_dead",
    "idempotency_hit",
    "move_started",
    "move_step",
    "move_fenced",
    "move_finished",
]

EventName = Union[
    ShardEventName,
    QueryEventName,
    Literal["transaction"],
    PoolEventName,
    CoordinationEventName,
]

SHARD_EVENTS: Tuple[ShardEventName, ...] = get_args(ShardEventName)
POOL_EVENTS: Tuple[PoolEventName, ...] = get_args(PoolEventName)
COORDINATION_EVENTS: Tuple[CoordinationEventName, ...] = get_args(CoordinationEventName)
EVENTS: Tuple[EventName, ...] = (
    *SHARD_EVENTS,
    *get_args(QueryEventName),
    "transaction",
    *POOL_EVENTS,
    *COORDINATION_EVENTS,
)


class Event(NamedTuple):
    """A change of the active shard map, or the beginning or end of an outage.

    Attributes:
        name: "shard_added" and "shard_removed" for rows; "shard_moved" for another
            address, account or pool setting; "shard_state_changed" for another status;
            "map_refreshed" once for every new version, after the others; "shard_down"
            when a shard's server becomes unreachable, "shard_up" when it is reachable
            again.
        version: The version of the active map.
        shard_id: The shard's id; None for "map_refreshed".
        before: The shard before the change; None if it is new.
        after: The shard after the change; None if it was removed.
        reason: For "shard_down", why the server is unreachable.
    """

    name: ShardEventName
    version: int
    shard_id: Optional[int] = None
    before: "Optional[Shard]" = None
    after: "Optional[Shard]" = None
    reason: Optional[str] = None


class QueryEvent(NamedTuple):
    """A call that has ended, well or not.

    It has no values: neither parameters nor literals of the statement.

    Attributes:
        name: "query" for a call to one database, "scatter" for one to several shards.
        target: "global", "shard 7", or "shards" for a scatter.
        shard_id: The shard's id; None for the global database and for a scatter.
        statement: The statement with ``?`` in place of its values, a list of values
            being one; ``CALL name`` for a procedure.
        digest: Identifies ``statement``: 16 hexadecimal digits.
        waited: Seconds of waiting for a connection, connecting included.
        ran: The other seconds: sending the statement, and its response.
        rows: The number of rows that were read, or affected; None after an error.
        attempts: How many times it was sent.
        error: What it raised; None if it succeeded.
        in_transaction: It was part of a transaction.
        call: The call, as interceptors have seen it.
    """

    name: QueryEventName
    target: str
    shard_id: Optional[int]
    statement: str
    digest: str
    waited: float
    ran: float
    rows: Optional[int]
    attempts: int
    error: Optional[BaseException]
    in_transaction: bool
    call: "QueryCall"

    @property
    def seconds(self) -> float:
        """The seconds of the whole call."""
        return self.waited + self.ran

    def as_dict(self) -> Dict[str, Any]:
        """Return it as plain values, for ``json.dumps``: the error as its class."""
        fields = self._asdict()
        del fields["call"]
        return {**fields, "error": _class_name(self.error), "seconds": self.seconds}


class TransactionEvent(NamedTuple):
    """A transaction that has ended; savepoints have no events.

    Attributes:
        name: "transaction".
        target: "global" or "shard 7".
        shard_id: The shard's id, or None.
        outcome: "committed"; "rolled_back", by its block or because its connection was
            lost; "unknown" if the connection was lost at COMMIT.
        seconds: Since the checkout of its connection.
        error: What its block raised, or its end; None if it was committed, or rolled
            back by ``rollback()``.
    """

    name: Literal["transaction"]
    target: str
    shard_id: Optional[int]
    outcome: Literal["committed", "rolled_back", "unknown"]
    seconds: float
    error: Optional[BaseException]

    def as_dict(self) -> Dict[str, Any]:
        """Return it as plain values, for ``json.dumps``: the error as its class."""
        return {**self._asdict(), "error": _class_name(self.error)}


class PoolEvent(NamedTuple):
    """What has happened to a pool or one of its connections.

    Attributes:
        name: "connect" for each attempt to connect; "pool_wait" for each caller that
            had to wait for a connection; "retry" for each statement that is sent again,
            and each further attempt to connect; "kill" for each session to be killed,
            at its end; "circuit_opened" when calls begin to fail at once because the
            server cannot be reached, and "circuit_closed" when that is over.
        target: "global" or "shard 7".
        shard_id: The shard's id, or None.
        seconds: How long it took; 0.0 for "retry", "circuit_opened" and
            "circuit_closed".
        error: Why it failed, or what it is a consequence of; None if it succeeded.
        detail: "statement" or "connect" for "retry"; for "kill" what came of it:
            "ended", "not found", "unproven" or "failed".
    """

    name: PoolEventName
    target: str
    shard_id: Optional[int]
    seconds: float = 0.0
    error: Optional[BaseException] = None
    detail: Optional[str] = None

    def as_dict(self) -> Dict[str, Any]:
        """Return it as plain values, for ``json.dumps``: the error as its class."""
        return {**self._asdict(), "error": _class_name(self.error)}


class CoordinationEvent(NamedTuple):
    """What has happened to a transaction on several databases, to events of the outbox,
    an idempotency key or a move.

    It has no payloads of events and no idempotency keys.

    Attributes:
        name: "xa_in_doubt" after each look that found prepared transactions of this
            service on a shard, and once when there are none any more; "xa_finished"
            for each transaction that its process had left; "outbox_lag" now and then
            for each database that is consumed; "outbox_delivered", "outbox_failed" and
            "outbox_dead" after each batch; "idempotency_hit" for each call that got an
            earlier call's result; "move_started" when a process begins a move or goes
            on with one; "move_step" for each new step of it; "move_fenced" after the
            switch; "move_finished" when the process is done with it.
        target: "global" or "shard 7"; for a move the shard that it is from, for
            "xa_finished" "shards".
        shard_id: The shard's id, or None.
        number: How many transactions are prepared, or events pending, delivered, failed
            or given up; 1 for the others.
        seconds: For "outbox_lag" the age of the oldest pending event, for "move_fenced"
            how long writes waited; otherwise 0.0.
        subject: The key of a tenant as text, or the name of an XA transaction.
        detail: For "xa_finished" "commit" or "abort", for "move_step" the step, for
            "move_finished" the state: "done", "undone", "paused", "cancelled", "failed"
            or "interrupted".
        error: Why a move has failed.
    """

    name: CoordinationEventName
    target: str
    shard_id: Optional[int]
    number: int = 1
    seconds: float = 0.0
    subject: Optional[str] = None
    detail: Optional[str] = None
    error: Optional[BaseException] = None

    def as_dict(self) -> Dict[str, Any]:
        """Return it as plain values, for ``json.dumps``: the error as its class."""
        return {**self._asdict(), "error": _class_name(self.error)}


def _class_name(error: Optional[BaseException]) -> Optional[str]:
    return None if error is None else type(error).__name__


AnyEvent = Union[Event, QueryEvent, TransactionEvent, PoolEvent, CoordinationEvent]
#: The events whose hooks the background plan calls; of queries only those of streams.
BackgroundEvent = Union[Event, QueryEvent, PoolEvent, CoordinationEvent]
Hook = Callable[[Any], Any]
