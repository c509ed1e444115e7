"""The events that hooks are called with."""

from typing import TYPE_CHECKING, Any, Callable, Dict, Literal, NamedTuple, Optional, Tuple, Union

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
#: Calls; their hooks are called by the caller, before the call returns.
QueryEventName = Literal["query", "scatter"]

EventName = Union[ShardEventName, QueryEventName]

SHARD_EVENTS: Tuple[ShardEventName, ...] = (
    "shard_added",
    "shard_removed",
    "shard_moved",
    "shard_state_changed",
    "map_refreshed",
    "shard_down",
    "shard_up",
)
EVENTS: Tuple[EventName, ...] = (*SHARD_EVENTS, "query", "scatter")


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
        error = None if self.error is None else type(self.error).__name__
        return {**fields, "error": error, "seconds": self.seconds}


AnyEvent = Union[Event, QueryEvent]
Hook = Callable[[Any], Any]
