"""The lifecycle of a service, as plans: start, reading the shard table, stop."""

import logging
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from .. import deadlines, errors
from ..config import DatabaseConfig
from ..execution import shutdown, steps
from ..observability.logs import about
from ..observability.observers import Observers
from .allowed_hosts import ALL_HOSTS, AllowedHosts
from .engines import Engines
from .maintenance import Maintenance, Timing
from .manager import NewClient, Topology, TopologyManager
from .moving import MovingShards
from .passwords import ALL_REFERENCES, AllowedReferences
from .replicas import ReplicaManager, ReplicaOptions
from .shard_map import RowRules, ShardMap
from .status import ServiceStatus, health, service_status
from .table_reader import DEFAULT_MAX_SHARDS, TableReader

log = logging.getLogger("dualdb.topology")

#: Seconds between two rounds of pool maintenance.
MAINTENANCE_INTERVAL = 1.0

#: A call for an unknown shard triggers a refresh of the shard table: at most once per
#: interval for each shard id, with this timeout for the refresh or for a concurrent
#: one.
MISS_REFRESH_INTERVAL = 1.0
MISS_REFRESH_TIMEOUT = 2.0

#: The most unknown shard ids whose last refresh is remembered.
MISSES_REMEMBERED = 10_000


class ServiceLifecycle:
    """Combines table reader, topology manager and maintenance into a service.

    Args:
        config: The global database.
        shard_table: The shard table's name there.
        new_client: Makes a client, not yet connected.
        run_exclusive: Runs a plan under the service's lock.
        refresh_interval: Seconds between two periodic refreshes of the shard table;
            None for none.
        drain_timeout: Seconds until work in progress on a removed pool is aborted.
        allowed: The hosts that rows may name.
        references: The password references that rows may contain.
        max_shards: The most rows of the shard table.
        clock: Returns seconds.
        observers: The service's hooks and interceptors.

    Attributes:
        manager: The active topology.
        reader: The reader of the shard table.
        maintenance: The background plan.
        moving: Has calls wait for shards that are moving.
    """

    def __init__(
        self,
        config: DatabaseConfig,
        shard_table: str,
        new_client: NewClient,
        run_exclusive: Callable[..., Any],
        *,
        refresh_interval: Optional[float] = None,
        drain_timeout: float = 30.0,
        allowed: AllowedHosts = ALL_HOSTS,
        references: AllowedReferences = ALL_REFERENCES,
        max_shards: int = DEFAULT_MAX_SHARDS,
        clock: Callable[[], float] = time.monotonic,
        observers: Optional[Observers] = None,
    ) -> None:
        self._config = config
        self._run_exclusive = run_exclusive
        self._clock = clock
        self._refresh_interval = refresh_interval
        self.manager = TopologyManager(new_client, drain_timeout, clock, observers)
        rules = RowRules(config, allowed, references)
        self.reader = TableReader(shard_table, rules, max_shards=max_shards, clock=clock)
        self.maintenance = Maintenance(
            self.manager,
            self.reader,
            lambda timeout: self.exclusive(self.refresh(timeout), 0.0),
            refresh_interval,
            timing=Timing(interval=MAINTENANCE_INTERVAL),
            clock=clock,
        )
        self.moving = MovingShards(self, clock)
        self._misses: Dict[Optional[int], float] = {}
        self.replicas: Optional[ReplicaManager] = None
        self.engines = Engines({}, self.manager.new_client)

    def use_replicas(self, options: ReplicaOptions) -> ReplicaManager:
        """Have replicas found and observed.

        Args:
            options: How they are used.
        """
        manager = self.manager
        self.replicas = ReplicaManager(
            options,
            lambda: self.reader.rules,
            manager.new_client,
            lambda: manager.topology,
            self._clock,
        )
        self.maintenance.add_chore("asking replicas", self.replicas.tick)
        return self.replicas

    def use_engines(self, configs: Mapping[str, DatabaseConfig]) -> None:
        """Have databases that are queried by name.

        Args:
            configs: How each is reached, by its name.
        """
        self.engines = Engines(configs, self.manager.new_client)

    def forked(self) -> None:
        """Reset to the state of a process without other threads or background plan."""
        self.manager.forked()
        self.reader.forget_readings()
        self.maintenance.forked()
        self.moving.forked()
        self._misses = {}

    def exclusive(self, plan: steps.Plan[Any], wait: Optional[float] = None) -> steps.Exclusive:
        """Return the step that runs a plan under the service's lock."""
        return steps.Exclusive(self._run_exclusive, plan, wait)

    @property
    def retry_after(self) -> Optional[float]:
        """Seconds after which the map may have changed."""
        return self._refresh_interval

    @property
    def topology(self) -> Optional[Topology]:
        """The active topology; None while the service is not open."""
        return self.manager.topology

    def require_open(self) -> Topology:
        """Return the active topology.

        Raises:
            ServiceNotOpen: The service is not open.
        """
        return self.manager.require_open()

    @property
    def loaded(self) -> ShardMap:
        """The map as last read, possibly not active yet."""
        return self.reader.loaded

    @property
    def map_age(self) -> float:
        """Seconds since the shard table was last read; infinite if it never was."""
        return self._clock() - self.reader.confirmed_at

    # Start and stop.

    def start(self) -> steps.Plan[None]:
        """Connect to the global database, read the shard table, connect to the shards.

        Raises:
            Error: The global database cannot be reached, or the table cannot be read.
        """
        if self.manager.topology is not None:
            yield from self.maintenance.ensure()
            return
        client = self.manager.new_client(self._config, "global", None)
        try:
            yield steps.Open(client, deadlines.deadline_after())
            log.info(
                "global database initialized: %s",
                client.config.address,
                extra=about("database_initialized", client),
            )
            yield from self.reader.read(client)
            self.manager.open(client)
            yield from self.apply()
        except BaseException:
            self.reader.reset()
            yield steps.Close(self.manager.close() or (client,))
            yield steps.Close(self._close_replicas())
            raise

    def _close_replicas(self) -> Tuple[Any, ...]:
        return () if self.replicas is None else self.replicas.close()

    def _refresh_replicas(self, timeout: Optional[float] = None) -> steps.Plan[None]:
        if self.replicas is not None:
            yield from self.replicas.refresh(timeout)

    def stop(self, timeout: Optional[float] = None) -> steps.Plan[None]:
        """Close all pools; with a ``timeout`` in seconds, wait for those in use."""
        clients = (*self.manager.close(), *self._close_replicas(), *self.engines.close())
        self.maintenance.stop()
        self.reader.reset()
        if not clients:
            return
        try:
            # First, so that the statements it cancels are killed with all others.
            yield steps.StopBackground()
        finally:
            yield from shutdown.closing(clients, timeout)

    # The shard table.

    def load(self, timeout: Optional[float] = None, *, force: bool = False) -> steps.Plan[None]:
        """Read the shard table without activating it."""
        topology = self.manager.require_open()
        yield from self.reader.read(topology.global_client, timeout, force=force)

    def apply(self) -> steps.Plan[None]:
        """Activate the loaded map, and connect to its new shards."""
        new = yield from self.manager.activate(self.reader.loaded)
        until = deadlines.deadline_after()
        # The start does not wait for thousands of servers that do not respond.
        begin_until = self._clock() + self._config.connect_timeout
        yield from self.maintenance.connect(
            new, until, begin_until if until is None else min(until, begin_until)
        )
        yield from self._refresh_replicas()
        yield from self.maintenance.ensure()

    def refresh(self, timeout: Optional[float] = None, *, force: bool = False) -> steps.Plan[None]:
        """Read the shard table, within ``timeout`` seconds, and activate it; then the
        table of replicas.
        """
        yield from self._refresh_map(timeout, force=force)
        yield from self._refresh_replicas(timeout)

    def _refresh_map(
        self, timeout: Optional[float] = None, *, force: bool = False
    ) -> steps.Plan[None]:
        yield from self.load(timeout, force=force)
        yield from self.manager.activate(self.reader.loaded)
        yield from self.maintenance.ensure()

    def resize(self, config: DatabaseConfig) -> steps.Plan[None]:
        """Change the pool sizes of the global database, and of all shards with it.

        Args:
            config: The global database's configuration with other sizes.
        """
        topology = self.manager.require_open()
        self._config = config
        self.reader.rebase(config)
        yield steps.Resize(topology.global_client, config)
        yield from self.refresh()

    # Calls for unknown shards.

    def may_refresh_on_miss(self, missing: Optional[int] = None) -> bool:
        """Return whether a call for an unknown shard may trigger a refresh: not if that
        was done for this shard, or failed, a short time ago.
        """
        reader = self.reader
        if reader.failures:
            return self._clock() - reader.ended >= self.maintenance.next_refresh_delay()
        return self._clock() - self._misses.get(missing, float("-inf")) >= MISS_REFRESH_INTERVAL

    def refresh_on_miss(
        self, missing: Optional[int], until: Optional[float] = None
    ) -> steps.Plan[None]:
        """Refresh the shard table for a call to an unknown shard.

        Concurrent requests share one refresh.

        Args:
            missing: The unknown shard; None after a denied login.
            until: The deadline, by time.monotonic(); None for no limit of its own.

        Raises:
            ShardUnavailable: It could not be determined whether the shard exists.
        """
        if not self.may_refresh_on_miss(missing):
            return
        asked = self._clock()
        wait = MISS_REFRESH_TIMEOUT
        if until is not None:
            wait = max(0.0, min(wait, until - asked))
        try:
            yield self.exclusive(self._refresh_for(missing, asked, wait), wait)
        except errors.Error as error:
            log.warning(
                "the shard table cannot be read for a call to an unknown shard: %s",
                error,
                extra=about("map_unreadable"),
            )
        if len(self._misses) > MISSES_REMEMBERED:
            self._misses.clear()
        self._misses[missing] = self._clock()
        if missing is not None and self.reader.ended < asked and not self.manager.knows(missing):
            raise errors.shard_unavailable(
                missing,
                "it is not known, and the shard table is still being read",
                self.retry_after,
            )

    def _refresh_for(self, missing: Optional[int], asked: float, wait: float) -> steps.Plan[None]:
        known = missing is not None and self.manager.knows(missing)
        if self.reader.begun < asked and not known:
            yield from self._refresh_map(wait)

    def check_known(self, shard_id: int) -> None:
        """Check that an unknown shard is known to be absent.

        Raises:
            ShardUnavailable: It may be in the table, which cannot be read.
        """
        if self.reader.failures and not self.manager.knows(shard_id):
            raise errors.shard_unavailable(
                shard_id,
                f"it is not known, and the shard table cannot be read: {self.reader.failure}",
                self.retry_after,
            )

    # Reports.

    def status(self) -> ServiceStatus:
        """Return the service's status, without I/O."""
        replicas = () if self.replicas is None else self.replicas.clients
        others = (*replicas, *self.engines.clients)
        return service_status(self.manager, self.reader, others, self._clock())

    def active_ids(self) -> steps.Plan[List[int]]:
        """Read the ids of the shards in service; fall back to the last map."""
        topology = self.manager.require_open()
        try:
            rows = yield from self.reader.rows(topology.global_client)
        except errors.DatabaseError as error:
            log.error(
                "the shard table cannot be read; using the last known active shards: %s",
                error,
                extra=about("map_unreadable"),
            )
            return topology.shard_map.active
        return self.reader.parse(rows).active

    def health(self) -> steps.Plan[Dict[str, Any]]:
        """Probe every database."""
        return (yield from health(self.manager.require_open()))
