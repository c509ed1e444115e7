"""Reports of a service: status, events, statistics and health."""

from collections import Counter
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from .. import deadlines, errors
from ..execution import fences, steps
from ..execution.detached import DetachedExecutor
from ..observability.events import Event, ShardEventName
from ..observability.health import SUSPENDED
from ..pooling.base import PoolStats
from ..pooling.server_budget import ServerStats
from ..protocol.row_decoder import DecoderName
from ..protocol.statements import Statement
from .shard_map import EMPTY, Shard, ShardMap, Status

if TYPE_CHECKING:
    from .manager import Topology, TopologyManager
    from .table_reader import TableReader

#: Timeout of the health check, in seconds.
HEALTH_TIMEOUT = 5.0


class ShardStatus(NamedTuple):
    """One shard at one moment.

    Attributes:
        state: Its status, "active", "readonly", "inactive", "maintenance", "moving" or
            "invalid"; or "unreachable" if the last connect failed.
        reason: Why it cannot be used; None if it can.
        name: The name in its row, or None.
        address: ``host:port/database``; None if the row is unusable or inactive.
        pool: The statistics of its pool; None if it has none.
    """

    state: str
    reason: Optional[str] = None
    name: Optional[str] = None
    address: Optional[str] = None
    pool: Optional[PoolStats] = None

    def as_dict(self) -> Dict[str, Any]:
        """Return it as dicts and plain values, for ``json.dumps``."""
        return {**self._asdict(), "pool": None if self.pool is None else self.pool._asdict()}


class ServiceStatus(NamedTuple):
    """The status of a service at one moment, collected without I/O.

    Attributes:
        version: The version of the active shard map; it increases with every change.
        age: Seconds since the shard table was last read; None if it never was.
        failure: The error of the last attempt to read it; None if it succeeded.
        problems: Descriptions of unusable and suspicious rows: shards on one database,
            a table that has lost all its rows.
        global_pool: The statistics of the global database's pool.
        shards: The status of each shard, by shard id.
        draining: The connections still in use of each pool that is being drained, by
            address.
        row_decoder: The decoder of rows: "compiled", "python" or "driver"; None while
            the service is not open.
        servers: This process's connections to each server whose number is limited, by
            address; see ``max_connections_per_server``.
        buffered: The number of calls that wait, before they are sent, for a primary, a
            shard that is moving, or the end of a tenant's move, by database ("global",
            "shard 3"), where there are any; see ``buffer_size``.
    """

    version: int
    age: Optional[float]
    failure: Optional[str]
    problems: Tuple[str, ...]
    global_pool: Optional[PoolStats]
    shards: Mapping[int, ShardStatus]
    draining: Mapping[str, int]
    row_decoder: Optional[DecoderName]
    servers: Mapping[str, ServerStats] = MappingProxyType({})
    buffered: Mapping[str, int] = MappingProxyType({})

    def as_dict(self) -> Dict[str, Any]:
        """Return it as dicts, lists and plain values, for ``json.dumps``."""
        return {
            **self._asdict(),
            "problems": list(self.problems),
            "global_pool": None if self.global_pool is None else self.global_pool._asdict(),
            "shards": {str(key): shard.as_dict() for key, shard in self.shards.items()},
            "draining": dict(self.draining),
            "servers": {server: each.as_dict() for server, each in self.servers.items()},
            "buffered": dict(self.buffered),
        }


class ServiceStats(Dict[Union[str, int], PoolStats]):
    """The statistics of every pool, by "global" and shard id."""

    def as_dict(self) -> Dict[str, Dict[str, Any]]:
        """Return it as dicts of plain values, for ``json.dumps``."""
        return {str(key): figures._asdict() for key, figures in self.items()}


def events(before: ShardMap, after: ShardMap) -> List[Event]:
    """Return the events when one map follows another, ordered by shard id."""
    found: List[Event] = []
    for shard_id in sorted({*before.shards, *after.shards}):
        found += shard_events(before, after, shard_id)
    if before.version != after.version:
        found.append(Event("map_refreshed", after.version))
    return found


def shard_events(before: ShardMap, after: ShardMap, shard_id: int) -> List[Event]:
    """Return the events of one shard when one map follows another."""
    old = before.shards.get(shard_id)
    new = after.shards.get(shard_id)
    names: List[ShardEventName] = []
    if old is None:
        names = [] if new is None else ["shard_added"]
    elif new is None:
        names = ["shard_removed"]
    else:
        if old.config is not None and new.config is not None and old.config != new.config:
            names.append("shard_moved")
        if old.status is not new.status:
            names.append("shard_state_changed")
    return [Event(name, after.version, shard_id, old, new) for name in names]


def shard_status(shard: Shard, client: Any) -> ShardStatus:
    """Return the status of a shard and its pool."""
    failure = None if client is None else client.failure
    return ShardStatus(
        "unreachable" if failure is not None else shard.status.value,
        shard.reason if failure is None else errors.reason_of(failure),
        shard.name,
        None if shard.config is None else shard.config.address,
        None if client is None else client.stats(),
    )


def service_status(
    manager: "TopologyManager", reader: "TableReader", others: Sequence[Any], now: float
) -> ServiceStatus:
    """Return the status of a service.

    Args:
        manager: Its topology manager.
        reader: Its table reader.
        others: The clients of its replicas and engines.
        now: The current time, by their clock.
    """
    topology = manager.topology
    shard_map = EMPTY if topology is None else topology.shard_map
    clients: Mapping[int, Any] = {} if topology is None else topology.clients
    in_service = () if topology is None else topology.all_clients
    draining = [each.client for each in manager.draining]
    used = [client for client in (*in_service, *draining, *others) if client.has_pool]
    pools = [client.pool for client in used]
    suspicious = () if reader.warning is None else (reader.warning,)
    return ServiceStatus(
        version=shard_map.version,
        age=None if reader.read_at is None else now - reader.read_at,
        failure=reader.failure,
        problems=(*shard_map.problems, *shard_map.warnings, *suspicious),
        global_pool=None if topology is None else topology.global_client.stats(),
        shards={
            shard_id: shard_status(shard, clients.get(shard_id))
            for shard_id, shard in sorted(shard_map.shards.items())
        },
        draining={each.client.config.address: each.in_use for each in manager.draining},
        row_decoder=None if topology is None else topology.global_client.pool.row_decoder,
        servers=_servers(pools),
        buffered=_buffered(manager, pools),
    )


def _servers(pools: Sequence[Any]) -> Dict[str, ServerStats]:
    budgets = {budget for pool in pools for budget in pool.budgets.all}
    return {each.server: each.stats() for each in sorted(budgets, key=lambda each: each.server)}


def _buffered(manager: "TopologyManager", pools: Sequence[Any]) -> Dict[str, int]:
    found: Counter[str] = Counter()
    for shard_id, count in manager.waiting.counts().items():
        found[f"shard {shard_id}"] += count
    at_fences = fences.waiting()
    for pool in pools:
        found[pool.name] += at_fences.get(pool, 0) + pool.endpoints.buffer.waiting
    return {name: count for name, count in sorted(found.items()) if count}


def service_stats(topology: "Optional[Topology]") -> ServiceStats:
    """Return the statistics of every pool; empty while the service is not open."""
    stats = ServiceStats()
    if topology is not None:
        stats["global"] = topology.global_client.stats()
        stats.update({key: client.stats() for key, client in topology.clients.items()})
    return stats


def health(topology: "Topology") -> steps.Plan[Dict[str, Any]]:
    """Probe every database concurrently; return the report of ``health_check``."""
    until = deadlines.deadline_after(HEALTH_TIMEOUT)
    probes = tuple(
        [
            steps.Execute(DetachedExecutor(client), Statement("SELECT 1"), until)
            for client in topology.all_clients
        ]
    )
    answers = dict(zip((None, *topology.clients), (yield steps.Gather(probes))))
    parts = {
        shard_id: _part_of_health(shard, answers.get(shard_id))
        for shard_id, shard in sorted(topology.shard_map.shards.items())
    }
    whole = _part_of_health(Shard(0, Status.ACTIVE), answers[None])
    healthy = whole["healthy"] and all(
        part["healthy"] or part["status"] in SUSPENDED for part in parts.values()
    )
    return {"healthy": healthy, "global": whole, "shards": parts}


def _part_of_health(shard: Shard, answer: object) -> Dict[str, Any]:
    reason = shard.reason
    if shard.in_service:
        if not isinstance(answer, Exception):
            return {"healthy": True, "status": shard.status.value}
        reason = errors.reason_of(answer)
    found: Dict[str, Any] = {"healthy": False, "status": shard.status.value}
    return {**found, "error": reason} if reason else found
