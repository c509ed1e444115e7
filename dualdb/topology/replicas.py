"""The replicas of the databases: where they are, which are in the rotation, and which
of them serves a read.
"""

import dataclasses
import logging
import re
import time
from types import MappingProxyType
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .. import deadlines, error_codes, errors
from ..config import DatabaseConfig
from ..endpoints import causal
from ..endpoints.balancing import POLICIES, Balancer, BalancingPolicy, HedgeBudget, Replica
from ..endpoints.gtid import Position
from ..endpoints.lag import ASK_POSITION, PrimaryHistory, read_position
from ..execution import execute, steps
from ..execution.detached import DetachedExecutor
from ..execution.reads import PrimaryReader
from ..hosts import Address, addresses
from ..observability.logs import about
from ..pooling.base import PoolStats
from ..protocol.statements import Statement
from .manager import NewClient, Topology
from .shard_map import RowRules, replica_of_row

log = logging.getLogger("dualdb.topology")

#: The table of the shards' replicas, in the global database. Further columns are
#: allowed.
REPLICA_DDL = """\
CREATE TABLE IF NOT EXISTS {table} (
    replica_id INT AUTO_INCREMENT PRIMARY KEY,
    shard_id INT NOT NULL,
    host VARCHAR(255) NOT NULL,
    port INT NOT NULL DEFAULT 3306,
    weight DOUBLE NOT NULL DEFAULT 1,
    status ENUM('active', 'inactive') NOT NULL DEFAULT 'active',
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    KEY (shard_id)
)"""

DEFAULT_REPLICA_TABLE = "table_shard_replica"

#: Seconds for opening replicas when the service starts, and for asking each of them in
#: the background.
OPEN_TIMEOUT = 2.0
ASK_TIMEOUT = 1.0

#: Asks for a table, without the error of one that is not there.
_EXISTS = """\
SELECT 1 FROM information_schema.TABLES
WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s"""

#: The most rows of the table.
_MAX_ROWS = 100_000


@dataclasses.dataclass(frozen=True)
class ReplicaOptions:
    """How ``target.read`` uses replicas.

    Args:
        table: The table of the shards' replicas in the global database, ``name`` or
            ``schema.name``. There need not be one.
        policy: How reads are spread: "least_in_flight", "round_robin", "weighted" or
            "latency" (of two at random the one with the smaller expected latency).
        max_lag: Seconds; a replica that is further behind leaves the rotation until it
            has caught up. It needs GTIDs. None for no limit.
        fallback: Read from the primary while no replica is in the rotation; False
            raises ShardUnavailable, or ConnectionFailed for the global database.
        causal_timeout: Seconds that a read inside ``db.causal`` waits for a replica,
            before it goes to the primary.
        hedge: Seconds after which a read that has no response is sent to a second
            replica as well, for at most 5 % of all reads; None for never.

    Raises:
        ValueError: One of them is invalid.

    Example:
        >>> ReplicaOptions(policy="latency", max_lag=5)
    """

    table: str = DEFAULT_REPLICA_TABLE
    policy: BalancingPolicy = "least_in_flight"
    max_lag: Optional[float] = None
    fallback: bool = True
    causal_timeout: float = 1.0
    hedge: Optional[float] = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w$]+(\.[\w$]+)?", self.table):
            raise ValueError(f"table must be name or schema.name, not {self.table!r}")
        if self.policy not in POLICIES:
            raise ValueError(f"policy must be one of {', '.join(POLICIES)}, not {self.policy!r}")
        if self.max_lag is not None:
            deadlines.seconds(self.max_lag)
        deadlines.seconds(self.causal_timeout)
        if self.hedge is not None:
            deadlines.seconds(self.hedge)


class ReplicaStatus(NamedTuple):
    """The state of one replica, without I/O.

    Attributes:
        shard_id: Its shard; None for the global database.
        address: ``host:port/database``.
        weight: Its share of the reads beside the others'.
        in_rotation: Reads are sent to it.
        reason: Why not; None if they are.
        lag: Seconds behind its primary; None if that is not measured.
        latency: The moving average of its calls, in seconds; None before the first.
        pool: Its connections.
    """

    shard_id: Optional[int]
    address: str
    weight: float
    in_rotation: bool
    reason: Optional[str]
    lag: Optional[float]
    latency: Optional[float]
    pool: PoolStats


class ReplicaRow(NamedTuple):
    """One replica, as it is configured."""

    shard_id: Optional[int]
    config: DatabaseConfig
    weight: float


class ReplicaSet:
    """The replicas of one database.

    Args:
        replicas: They.
        balancer: Chooses among them.

    Attributes:
        replicas: As given.
        history: The positions of their primary.
    """

    def __init__(self, replicas: Tuple[Replica, ...], balancer: Balancer) -> None:
        self.replicas = replicas
        self.history = PrimaryHistory()
        self._balancer = balancer

    @property
    def why_none(self) -> str:
        """Why each of them is not in the rotation."""
        return "; ".join(
            [f"{each.client.config.address}: {each.why_not}" for each in self.replicas]
        )

    def choose(self, wanted: "causal.Needed") -> Optional[Replica]:
        """Return a replica in the rotation, one that has what is needed if there is
        one; None if none is in the rotation.
        """
        usable = [each for each in self.replicas if each.usable]
        if wanted.position is not None:
            ready = [
                each
                for each in usable
                if each.applied is not None and each.applied.covers(wanted.position)
            ]
            usable = ready or usable
        return self._balancer.choose(usable) if usable else None


NO_REPLICAS: Mapping[Optional[int], ReplicaSet] = MappingProxyType({})


class ReplicaManager:
    """Keeps a client for each replica, and chooses the executor of each read.

    Args:
        options: How they are used.
        rules: Returns the rules for parsing rows.
        new_client: Makes a client, not yet connected.
        topology: Returns the active topology; None while the service is not open.
        clock: Returns seconds.

    Attributes:
        options: As given.
        sets: The replicas by shard id; None is the global database.
    """

    def __init__(
        self,
        options: ReplicaOptions,
        rules: Callable[[], RowRules],
        new_client: NewClient,
        topology: Callable[[], Optional[Topology]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options
        self._rules = rules
        self._new_client = new_client
        self._topology = topology
        self._clock = clock
        self.sets = NO_REPLICAS
        self._rows: Sequence[Mapping[str, Any]] = ()
        self._failing = False
        self._problems: Tuple[str, ...] = ()
        self._hedges = HedgeBudget()

    # The table.

    def refresh(self, timeout: Optional[float] = None) -> steps.Plan[None]:
        """Read the table, connect to new replicas, and close those that are gone.

        If it cannot be read, the last rows stay in use, with a warning.
        """
        topology = self._topology()
        if topology is None:
            return
        yield from self._read(topology, timeout)
        wanted = self._wanted(topology)
        known = {
            (shard_id, each.client.config): each
            for shard_id, each_set in self.sets.items()
            for each in each_set.replicas
        }
        found: Dict[Optional[int], List[Replica]] = {}
        opened: List[Any] = []
        for row in wanted:
            replica = known.pop((row.shard_id, row.config), None)
            if replica is None:
                replica = self._new_replica(row)
                opened.append(replica.client)
            replica.weight = row.weight
            found.setdefault(row.shard_id, []).append(replica)
        self.sets = MappingProxyType(
            {shard_id: self._set_of(shard_id, replicas) for shard_id, replicas in found.items()}
        )
        if known:
            yield steps.Close(tuple([each.client for each in known.values()]))
        if opened:
            until = deadlines.earliest(self._clock() + OPEN_TIMEOUT, deadlines.deadline_after())
            yield steps.Gather(tuple([steps.Open(each, until) for each in opened]))

    def _set_of(self, shard_id: Optional[int], replicas: List[Replica]) -> ReplicaSet:
        before = self.sets.get(shard_id)
        if before is not None and list(before.replicas) == replicas:
            return before
        made = ReplicaSet(tuple(replicas), Balancer(self.options.policy))
        if before is not None:
            made.history = before.history
        return made

    def _new_replica(self, row: ReplicaRow) -> Replica:
        name = "global" if row.shard_id is None else f"shard {row.shard_id}"
        address = Address(row.config.host, row.config.port)
        client = self._new_client(row.config, f"{name} replica {address}", row.shard_id)
        client.shard_read_only = True
        client.replica = replica = Replica(client, row.weight)
        # A new one is not used before its lag is known.
        replica.lagging = self.options.max_lag is not None
        return replica

    def _read(self, topology: Topology, timeout: Optional[float]) -> steps.Plan[None]:
        table = ".".join([f"`{part}`" for part in self.options.table.split(".")])
        statement = Statement(f"SELECT * FROM {table}", max_rows=_MAX_ROWS)
        route = steps.fixed_route(DetachedExecutor(topology.global_client))
        until = deadlines.deadline_after(timeout)
        try:
            if not self._rows:  # most services have no such table
                schema, _, name = self.options.table.rpartition(".")
                asked = Statement(_EXISTS, (schema or None, name))
                found = yield from execute.execute_statement(route, asked, until)
                if not found[0].rows:
                    return
            results = yield from execute.execute_statement(route, statement, until)
        except errors.Error as error:
            if error.errno in error_codes.NO_TABLE_TO_READ:
                self._rows = ()
            elif not self._failing:
                self._failing = True
                log.warning(
                    "the table %s cannot be read; the last known replicas stay in use: %s",
                    self.options.table,
                    error,
                    extra=about("replicas_unreadable"),
                )
            return
        self._failing = False
        self._rows = results[0].rows

    def _wanted(self, topology: Topology) -> List[ReplicaRow]:
        """The replicas of the databases in service."""
        wanted: Dict[Tuple[Optional[int], DatabaseConfig], ReplicaRow] = {}
        problems: List[str] = []
        base = topology.global_client.config
        for address in () if base.replicas is None else addresses(base.replicas, base.port):
            config = replica_config(base, address)
            wanted[None, config] = ReplicaRow(None, config, 1.0)
        for raw in self._rows:
            found = replica_of_row(raw, topology.shard_map, self._rules())
            if found.problem is not None:
                problems.append(found.problem)
            for address in found.addresses:
                assert found.config is not None  # of a row with addresses
                config = replica_config(found.config, address)
                wanted[found.shard_id, config] = ReplicaRow(found.shard_id, config, found.weight)
        for problem in problems:
            if problem not in self._problems:
                log.error(
                    "table %s: %s", self.options.table, problem, extra=about("replica_row_unusable")
                )
        self._problems = tuple(problems)
        return list(wanted.values())

    # In the background.

    def tick(self) -> steps.Plan[None]:
        """Ask replicas that are out of the rotation, and measure lags."""
        sets = list(self.sets.items())
        topology = self._topology()
        if not sets or topology is None:
            return
        measured = self.options.max_lag is not None
        if measured:
            yield from self._ask_primaries(topology, sets)
        asked = [
            (each_set, replica)
            for _, each_set in sets
            for replica in each_set.replicas
            if measured or not replica.reachable
        ]
        now = self._clock()
        answers = yield from ask_positions(
            [replica.client for _, replica in asked], self._clock() + ASK_TIMEOUT
        )
        for (each_set, replica), answer in zip(asked, answers):
            self._judge(each_set, replica, answer, now)
        yield steps.PruneIdle(self.clients)

    def _ask_primaries(
        self, topology: Topology, sets: List[Tuple[Optional[int], ReplicaSet]]
    ) -> steps.Plan[None]:
        clients: Dict[Optional[int], Any] = {None: topology.global_client}
        clients.update(dict(topology.clients.items()))
        asked = [(each, clients[shard_id]) for shard_id, each in sets if shard_id in clients]
        answers = yield from ask_positions(
            [client for _, client in asked], self._clock() + ASK_TIMEOUT
        )
        for (each_set, _), answer in zip(asked, answers):
            position = position_in(answer)
            if position is not None:
                each_set.history.record(self._clock(), position)

    def _judge(self, each_set: ReplicaSet, replica: Replica, answer: Any, now: float) -> None:
        before = replica.usable
        if isinstance(answer, Exception):
            replica.failure = errors.reason_of(answer)
            replica.applied = None
        else:
            replica.failure = None
            replica.applied = position_in(answer)
            limit = self.options.max_lag
            if limit is not None:
                replica.lag = 0.0 if _is_galera(answer) else None
                if replica.applied is not None:
                    replica.lag = each_set.history.lag_of(replica.applied, now)
                replica.lagging = replica.lag is None or replica.lag > limit
        if before is not replica.usable:
            _log_rotation(replica)

    def close(self) -> Tuple[Any, ...]:
        """Forget the replicas; return the clients to close."""
        clients = self.clients
        self.sets = NO_REPLICAS
        self._rows = ()
        return clients

    @property
    def clients(self) -> Tuple[Any, ...]:
        """Their clients."""
        return tuple([each.client for each_set in self.sets.values() for each in each_set.replicas])

    def status(self) -> List[ReplicaStatus]:
        """Return the state of each replica, without I/O."""
        return [
            ReplicaStatus(
                shard_id,
                each.client.config.address,
                each.weight,
                each.usable,
                None if each.usable else each.why_not,
                each.lag,
                each.latency,
                each.client.stats(),
            )
            for shard_id, each_set in self.sets.items()
            for each in each_set.replicas
        ]

    # Reads.

    def executor_for(self, primary: Any, until: Optional[float]) -> steps.Plan[Any]:
        """Choose the executor of a read.

        A transaction that the caller has open on the database has precedence.

        Args:
            primary: The client of the database.
            until: The deadline, by time.monotonic(); None for no limit.

        Raises:
            ShardUnavailable: No replica of a shard is in the rotation, and the primary
                is not to be read.
            ConnectionFailed: The same for the global database.
        """
        if primary.current_transaction() is not None:
            return PrimaryReader(primary)
        each_set = self.sets.get(primary.shard_id)
        if each_set is None:
            return self._fallback(primary, "it has none")
        for replica in each_set.replicas:
            if replica.client.current_transaction() is not None:
                return replica.client
        needed = causal.needed_by(primary.pool.writes)
        if needed.only_primary:
            return PrimaryReader(primary)
        chosen = each_set.choose(needed)
        if chosen is None:
            return self._fallback(primary, each_set.why_none)
        if not needed.anything or (yield from self._has(chosen, needed, until)):
            return chosen.client
        return PrimaryReader(primary)

    def may_hedge(self, client: Any) -> bool:
        """Return whether a read may be sent to a second replica, and count it: not
        inside a transaction or a causal block.

        Args:
            client: The client of the replica that serves it.
        """
        self._hedges.earn()
        alone = client.current_transaction() is None
        return alone and causal.innermost(client.shared) is None

    def hedge_for(self, client: Any) -> Any:
        """Return the client of a second replica for a read; None if there is none, or
        if too many have been asked for.
        """
        each_set = self.sets.get(client.shard_id)
        others = () if each_set is None else each_set.replicas
        usable = [each for each in others if each.usable and each.client is not client]
        if not usable or not self._hedges.spend():
            return None
        return min(usable, key=lambda each: each.expected * (each.in_flight + 1)).client

    def _has(
        self, replica: Replica, needed: "causal.Needed", until: Optional[float]
    ) -> steps.Plan[bool]:
        """Wait until a replica has what is needed; return whether it has."""
        known = replica.applied
        if needed.position is not None and known is not None and known.covers(needed.position):
            return True
        limit = needed.limit if needed.limit is not None else self.options.causal_timeout
        now = self._clock()
        if until is not None:
            limit = max(0.0, min(limit, until - now))
        wait = causal.wait_statement(replica.client.last_profile, needed, limit)
        if wait is None:
            return True
        sql, params = wait
        last = deadlines.earliest(now + limit + ASK_TIMEOUT, until)
        try:
            results = yield steps.Execute(
                DetachedExecutor(replica.client), Statement(sql, params, read_only=True), last
            )
        except errors.Error as error:
            if isinstance(error, (errors.ConnectionLost, errors.ConnectionFailed)):
                replica.failure = errors.reason_of(error)
            return False
        (value,) = results[0].rows[0].values()
        if value is None or int(value) != 0:
            return False
        if needed.position is not None:
            replica.record_applied(needed.position)
        return True

    def _fallback(self, primary: Any, why: str) -> PrimaryReader:
        if self.options.fallback:
            return PrimaryReader(primary)
        if primary.shard_id is not None:
            raise errors.shard_unavailable(
                primary.shard_id, f"no replica is in the rotation: {why}", ASK_TIMEOUT
            )
        raise errors.ConnectionFailed(
            None, f"no replica of the global database is in the rotation: {why}"
        ).with_context(primary.name, None, sent=False)


def replica_config(base: DatabaseConfig, address: Address) -> DatabaseConfig:
    """Return the configuration of a replica at an address.

    Args:
        base: That of its primary, from which it has everything else.
        address: Its own.
    """
    return base.model_copy(
        update={
            "host": address.host,
            "port": address.port,
            "unix_socket": None,
            "endpoint_policy": "any",
            "replicas": None,
        }
    )


def ask_positions(clients: Sequence[Any], until: float) -> steps.Plan[List[Any]]:
    """Ask servers for their positions, at the same time.

    Args:
        clients: Their clients.
        until: When the answers must be there, by time.monotonic().

    Returns:
        What ``position_in`` reads, or the error of each.
    """
    statement = Statement(ASK_POSITION, read_only=True)
    executors = [DetachedExecutor(client) for client in clients]
    asked = tuple([steps.Execute(each, statement, until) for each in executors])
    return (yield steps.Gather(asked)) if asked else []


def position_in(answer: Any) -> Optional[Position]:
    """Return the position in an answer; None if it has none, or is an error."""
    if isinstance(answer, Exception) or not answer[0].rows:
        return None
    row = answer[0].rows[0]
    return read_position(row.get("kind"), row.get("position"))


def _is_galera(answer: Any) -> bool:
    return bool(answer[0].rows) and answer[0].rows[0].get("kind") == "wsrep"


def _log_rotation(replica: Replica) -> None:
    client = replica.client
    extra = about("replica_rotation", client)
    if replica.usable:
        log.info("%s is in the rotation", client.name, extra=extra)
    else:
        log.warning("%s has left the rotation: %s", client.name, replica.why_not, extra=extra)
