"""What a service says of itself without asking anybody, and what it tells those who
listen.
"""

from typing import Any, Callable, Dict, List, Literal, Mapping, NamedTuple, Optional, Tuple

from ..pooling.base import PoolStats
from ..protocol.row_decoder import DecoderName
from .shard_map import Shard, ShardMap

#: What can be listened to with ``on``.
EventName = Literal[
    "shard_added", "shard_removed", "shard_moved", "shard_state_changed", "map_refreshed"
]
EVENTS: Tuple[EventName, ...] = (
    "shard_added",
    "shard_removed",
    "shard_moved",
    "shard_state_changed",
    "map_refreshed",
)


class Event(NamedTuple):
    """A change of the shard map, told when it is in use.

    Attributes:
        name: "shard_added" and "shard_removed" for rows; "shard_moved" for another
            address, account or pool setting; "shard_state_changed" for another status;
            "map_refreshed" once for every new version, after the others.
        version: of the map that is in use now.
        shard_id: None for "map_refreshed".
        before, after: the shard's row as it was and as it is; None where there was or
            is none.
    """

    name: EventName
    version: int
    shard_id: Optional[int] = None
    before: Optional[Shard] = None
    after: Optional[Shard] = None


Hook = Callable[[Event], Any]


class ShardStatus(NamedTuple):
    """One shard at one moment.

    Attributes:
        state: its status, "active", "readonly", "inactive", "maintenance" or "invalid";
            or "unreachable" if the last connect failed.
        reason: why it cannot be used, where it cannot.
        name, address: as its row has them.
        pool: its pool's figures; None where it has none.
    """

    state: str
    reason: Optional[str] = None
    name: Optional[str] = None
    address: Optional[str] = None
    pool: Optional[PoolStats] = None


class ServiceStatus(NamedTuple):
    """A service at one moment, told without I/O.

    Attributes:
        version: of the shard map in use; it grows with every change.
        age: seconds since the shard table was last read; None if it never was.
        failure: why it could not be read the last time; None if it could.
        problems: what is wrong with which row.
        global_pool: the figures of the global database's pool.
        shards: by shard id.
        draining: what is left of pools that are not used any more, by address: how many
            connections are still in use.
        row_decoder: what decodes the rows of results: "compiled", "python" or "driver";
            None while the service is not open.
    """

    version: int
    age: Optional[float]
    failure: Optional[str]
    problems: Tuple[str, ...]
    global_pool: Optional[PoolStats]
    shards: Mapping[int, ShardStatus]
    draining: Mapping[str, int]
    row_decoder: Optional[DecoderName]


def events(before: ShardMap, after: ShardMap) -> List[Event]:
    """What there is to tell when one map follows another, by shard id."""
    changed_events: List[Event] = []
    for shard_id in sorted({*before.shards, *after.shards}):
        old, new = before.shards.get(shard_id), after.shards.get(shard_id)
        if old is None:
            changed_events.append(Event("shard_added", after.version, shard_id, old, new))
        elif new is None:
            changed_events.append(Event("shard_removed", after.version, shard_id, old, new))
        else:
            if old.config != new.config and old.config is not None and new.config is not None:
                changed_events.append(Event("shard_moved", after.version, shard_id, old, new))
            if old.status is not new.status:
                changed_events.append(
                    Event("shard_state_changed", after.version, shard_id, old, new)
                )
    if before.version != after.version:
        changed_events.append(Event("map_refreshed", after.version))
    return changed_events


def shard_status(shard: Shard, client: Any) -> ShardStatus:
    failure = None if client is None else client.pool.breaker.failure
    return ShardStatus(
        "unreachable" if failure is not None else shard.status.value,
        shard.reason if failure is None else str(failure),
        shard.name,
        None if shard.config is None else shard.config.address,
        None if client is None else client.stats(),
    )


def shard_statuses(shard_map: ShardMap, clients: Mapping[int, Any]) -> Dict[int, ShardStatus]:
    return {
        shard_id: shard_status(shard, clients.get(shard_id))
        for shard_id, shard in sorted(shard_map.shards.items())
    }
