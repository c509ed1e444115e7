"""A service's start, reading of the shard table, and stop, as plans."""

import logging
import time
from typing import Any, Callable, Dict, List, Optional

from .. import deadlines, errors
from ..config import DatabaseConfig
from ..execution import shutdown, steps
from .allowed_hosts import ALL_HOSTS, AllowedHosts
from .maintenance import Maintenance, Timing
from .manager import NewClient, Topology, TopologyManager
from .passwords import ALL_REFERENCES, AllowedReferences
from .shard_map import RowRules, ShardMap
from .status import ServiceStatus, health, service_status
from .table_reader import DEFAULT_MAX_SHARDS, TableReader

log = logging.getLogger("dualdb")

#: How often the background looks after the pools.
MAINTENANCE_INTERVAL = 1.0

#: A call that misses its shard has the shard table read again: so many seconds after
#: the last time for that shard at the earliest, and waiting no longer than this for it,
#: or for somebody else who is reading it.
MISS_REFRESH_INTERVAL = 1.0
MISS_REFRESH_TIMEOUT = 2.0

#: So many shards that are not there are remembered to have been looked for.
MISSES_REMEMBERED = 10_000


class ServiceLifecycle:
    """A service from its start to its stop: puts the table reader, the manager and the
    maintenance together.

    Args:
        config: The global database.
        shard_table: The shard table's name there.
        new_client: Makes a client, not yet connected.
        run_exclusive: The service's way of running a plan while no other such plan
            runs.
        refresh_interval: Seconds between two readings of the shard table; None for none
            by itself.
        drain_timeout: Seconds that a pool which is not used any more is given for the
            work in progress.
        allowed: The hosts that rows may name.
        references: The references that rows may hold in place of a password.
        max_shards: The most rows of the shard table.
        clock: Seconds from any start.

    Attributes:
        manager: What is in use.
        reader: The shard table.
        maintenance: The background.
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
    ) -> None:
        self._config = config
        self._run_exclusive = run_exclusive
        self._clock = clock
        self._refresh_interval = refresh_interval
        self.manager = TopologyManager(new_client, drain_timeout, clock)
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
        self._misses: Dict[Optional[int], float] = {}

    def forked(self) -> None:
        """As in a process without other threads and without a background."""
        self.manager.forked()
        self.reader.forget_readings()
        self.maintenance.forked()
        self._misses = {}

    def exclusive(self, plan: steps.Plan[Any], wait: Optional[float] = None) -> steps.Exclusive:
        """The step that runs a plan while no other such plan of this service runs."""
        return steps.Exclusive(self._run_exclusive, plan, wait)

    @property
    def retry_after(self) -> Optional[float]:
        """Seconds after which the map may say something else."""
        return self._refresh_interval

    @property
    def topology(self) -> Optional[Topology]:
        """What is in use; None while the service is not open."""
        return self.manager.topology

    def require_open(self) -> Topology:
        """What is in use.

        Raises:
            ServiceNotOpen: Nothing is.
        """
        return self.manager.require_open()

    @property
    def loaded(self) -> ShardMap:
        """The map as last read."""
        return self.reader.loaded

    @property
    def map_age(self) -> float:
        """Seconds since the shard table was last read; infinite if it never was."""
        return self._clock() - self.reader.confirmed_at

    # Start and stop.

    def start(self) -> steps.Plan[None]:
        """Connect to the global database, read the shard table, connect to the shards.

        Raises:
            Error: The global database cannot be reached, or the table not be read.
        """
        if self.manager.topology is not None:
            yield from self.maintenance.ensure()
            return
        client = self.manager.new_client(self._config, "global", None)
        try:
            yield steps.Open(client, deadlines.deadline_after())
            log.info("global database initialized: %s", client.config.address)
            yield from self.reader.read(client)
            self.manager.open(client)
            yield from self.apply()
        except BaseException:
            self.reader.reset()
            yield steps.Close(self.manager.close() or (client,))
            raise

    def stop(self, timeout: Optional[float] = None) -> steps.Plan[None]:
        """Close all pools; with a ``timeout`` in seconds, wait for what is in use."""
        clients = self.manager.close()
        self.maintenance.stop()
        self.reader.reset()
        if not clients:
            return
        try:
            # First, so that what it breaks off is ended on the servers with all the
            # rest.
            yield steps.StopBackground()
        finally:
            yield from shutdown.closing(clients, timeout)

    # The shard table.

    def load(self, timeout: Optional[float] = None, *, force: bool = False) -> steps.Plan[None]:
        """Read the shard table, and put nothing into use."""
        topology = self.manager.require_open()
        yield from self.reader.read(topology.global_client, timeout, force=force)

    def apply(self) -> steps.Plan[None]:
        """Put into use what was loaded, and connect to what is new in it."""
        new = yield from self.manager.activate(self.reader.loaded)
        yield from self.maintenance.connect(new, deadlines.deadline_after())
        yield from self.maintenance.ensure()

    def refresh(self, timeout: Optional[float] = None, *, force: bool = False) -> steps.Plan[None]:
        """Read the shard table, within ``timeout`` seconds, and put it into use."""
        yield from self.load(timeout, force=force)
        yield from self.manager.activate(self.reader.loaded)
        yield from self.maintenance.ensure()

    # A call for a shard that the map does not have.

    def may_refresh_on_miss(self, missing: Optional[int] = None) -> bool:
        """Whether to read the shard table for a call that it may help: not if that was
        just done for it, or has just failed.
        """
        reader = self.reader
        if reader.failures:
            return self._clock() - reader.ended >= self.maintenance.next_refresh_delay()
        return self._clock() - self._misses.get(missing, float("-inf")) >= MISS_REFRESH_INTERVAL

    def refresh_on_miss(
        self, missing: Optional[int], until: Optional[float] = None
    ) -> steps.Plan[None]:
        """Read the shard table for a call that it may help.

        All that ask at the same time are served by one reading.

        Args:
            missing: The shard that is asked for; None if an account was refused.
            until: When it must be over, by time.monotonic(); None for no limit of its
                own.

        Raises:
            ShardUnavailable: It is not known whether there is such a shard.
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
            log.warning("the shard table cannot be read for a shard that it may know: %s", error)
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
            yield from self.refresh(wait)

    def check_known(self, shard_id: int) -> None:
        """Check that an absent shard is known to be absent.

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
        """The service as it knows itself, without I/O."""
        return service_status(self.manager, self.reader, self._clock())

    def active_ids(self) -> steps.Plan[List[int]]:
        """The shards in service by the table as it is now; by the last map where it
        cannot be read.
        """
        topology = self.manager.require_open()
        try:
            rows = yield from self.reader.rows(topology.global_client)
        except errors.DatabaseError as error:
            log.error(
                "the shard table cannot be read, so the active shards are those last known: %s",
                error,
            )
            return topology.shard_map.active
        return self.reader.parse(rows).active

    def health(self) -> steps.Plan[Dict[str, Any]]:
        """Ask every database for an answer."""
        return (yield from health(self.manager.require_open()))
