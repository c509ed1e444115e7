"""The life of a service, as plans: start, read the shard table, put it into use, look
after what is in use, stop.
"""

import logging
import random
import sys
import threading
import time
from collections import deque
from functools import partial
from types import MappingProxyType
from typing import Any, Callable, Deque, Dict, List, Mapping, NamedTuple, Optional, Tuple

from .. import deadlines, error_codes, errors
from ..config import DatabaseConfig
from ..execution import execute, retry, shutdown, steps
from ..execution.detached import DetachedExecutor
from ..protocol.statements import Statement
from ..results import ResultSet, Row
from . import allowed_hosts
from .shard_map import EMPTY, Shard, ShardMap, Status, changes_between, parse_shard_table
from .status import EVENTS, EventName, Hook, ServiceStatus, events, shard_statuses

log = logging.getLogger("dualdb")

#: How often the background looks after the pools.
MAINTENANCE_INTERVAL = 1.0

#: How long the background waits for a server that does not answer, while everything
#: else it does waits too.
RECONNECT_TIMEOUT = 1.0

#: A call that misses its shard has the shard table read again: so many seconds after
#: the last time for that shard at the earliest, and waiting no longer than this for it,
#: or for somebody else who is reading it.
MISS_REFRESH_INTERVAL, MISS_REFRESH_TIMEOUT = 1.0, 2.0

#: So many shards that are not there are remembered to have been looked for.
MISSES_REMEMBERED = 10_000

#: How long a sign of life may take.
HEALTH_TIMEOUT = 5.0

#: How long the background tries to read the shard table.
REFRESH_TIMEOUT = 5.0

#: The longest pause between attempts to read a shard table that cannot be read.
MAX_REFRESH_PAUSE = 10.0


class Topology(NamedTuple):
    """What is in use at one moment: a map, and a client for each of its shards in
    service.

    Replaced as a whole and never changed, so that a call sees one state and not half of
    two.
    """

    global_client: Any
    shard_map: ShardMap
    clients: Mapping[int, Any]

    @property
    def all_clients(self) -> Tuple[Any, ...]:
        return (self.global_client, *self.clients.values())


class DrainingClient(NamedTuple):
    """A client whose shard has moved or is out of service: open work finishes, until a
    time at which it is cut.
    """

    client: Any
    until: float


class ServiceLifecycle:
    """The state of a service and the plans that change it.

    Args:
        config: the global database.
        shard_table: the shard table's name there.
        new_client: makes a client for (configuration, name, shard id), not yet
            connected.
        run_alone: the service's way of performing a plan while no other such plan runs.
        refresh_interval: seconds between two readings of the shard table; None for none
            by itself.
        drain_timeout: seconds that a pool which is not used any more is given for the
            work in progress.
        allowed: the hosts that rows may name.
    """

    def __init__(
        self,
        config: DatabaseConfig,
        shard_table: str,
        new_client: Callable[[DatabaseConfig, str, Optional[int]], Any],
        run_exclusive: Callable[..., Any],
        *,
        refresh_interval: Optional[float] = None,
        drain_timeout: float = 30.0,
        allowed: allowed_hosts.AllowedHosts = allowed_hosts.ALL_HOSTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self.shard_table, self.new_client, self._run_exclusive = (
            config,
            shard_table,
            new_client,
            run_exclusive,
        )
        self._refresh_interval, self._drain_timeout, self._allowed, self._clock = (
            refresh_interval,
            drain_timeout,
            allowed,
            clock,
        )
        self._hooks: Dict[EventName, List[Hook]] = {name: [] for name in EVENTS}
        #: What is in use; None while the service is not open.
        self.topology: Optional[Topology] = None
        #: The map as last loaded, which ``apply`` puts into use.
        self.loaded = EMPTY
        #: When the shard table was last read, by the clock; a forked child keeps it.
        self._confirmed_at = float("-inf")
        #: The clients of shards that have moved or are out of service, as long as they
        #: have work in progress.
        self.draining: Tuple[DrainingClient, ...] = ()
        self.forked()

    def forked(self) -> None:
        """As in a process where no other thread is: no lock is held and nothing runs in
        the background.
        """
        self._swap = threading.Lock()
        self._maintained_by: Optional[object] = None  # by the background plan with this mark
        # Of the reading of the shard table: when it was last begun and last done, and
        # how it failed since.
        self._begun = self._ended = float("-inf")
        self._read_at: Optional[float] = None
        self._failure: Optional[str] = None
        self._failures = 0
        self._misses: Dict[Optional[int], float] = {}
        self._pending_events: Deque[Callable[[], Any]] = deque()
        self._dispatching = False

    def require_open(self) -> Topology:
        """Raises: ServiceNotOpen."""
        if self.topology is None:
            raise errors.ServiceNotOpen(
                "Global database not initialized: call init_service() first, or use the service in a with block"
            )
        return self.topology

    @property
    def table(self) -> str:
        """The shard table's name, quoted."""
        return ".".join([f"`{part}`" for part in self.shard_table.split(".")])

    def parse(self, rows: List[Row]) -> ShardMap:
        """What rows mean to this service, as a map with the next version."""
        return parse_shard_table(rows, self._config, self.loaded.version + 1, self._allowed)

    @property
    def map_age(self) -> float:
        """Seconds since the shard table was last read; infinite if it never was."""
        return self._clock() - self._confirmed_at

    @property
    def retry_after(self) -> Optional[float]:
        """Seconds after which the map may say something else."""
        return self._refresh_interval

    # Start and stop.

    def start(self) -> steps.Plan[None]:
        if self.topology is not None:
            yield from self.ensure_maintenance()
            return
        client = self.new_client(self._config, "global", None)
        try:
            yield steps.Open(client, deadlines.deadline_after())
            log.info("global database initialized: %s", client.config.address)
            self.loaded = yield from self._read(client)
            self.topology = Topology(client, EMPTY, MappingProxyType({}))
            yield from self.apply()
        except BaseException:
            topology, self.topology, self.loaded = self.topology, None, EMPTY
            yield steps.Close((client,) if topology is None else topology.all_clients)
            raise

    def stop(self, timeout: Optional[float] = None) -> steps.Plan[None]:
        with self._swap:
            topology, self.topology, self.loaded, self._maintained_by = (
                self.topology,
                None,
                EMPTY,
                None,
            )
            draining, self.draining = self.draining, ()
        if topology is None:
            return
        try:
            # first, so that what it breaks off is ended on the servers with all the
            # rest
            yield steps.StopBackground()
        finally:
            yield from shutdown.closing(
                (*topology.all_clients, *[each.client for each in draining]), timeout
            )

    # The shard table.

    def load(self, timeout: Optional[float] = None) -> steps.Plan[None]:
        """Read the shard table, and put nothing into use."""
        topology = self.require_open()
        self._begun = self._clock()
        try:
            self.loaded = yield from self._read(topology.global_client, timeout)
        except errors.Error as error:
            self._failures += 1
            self._failure = str(error)
            raise
        finally:
            self._ended = self._clock()

    def apply(self) -> steps.Plan[None]:
        """Put into use what was loaded, and connect to what is new in it."""
        new = yield from self._activate(self.loaded)
        yield from self._connect(new, deadlines.deadline_after())
        yield from self.ensure_maintenance()

    def refresh(self, timeout: Optional[float] = None) -> steps.Plan[None]:
        """Read the shard table, within ``timeout`` seconds, and put it into use."""
        yield from self.load(timeout)
        yield from self._activate(self.loaded)
        yield from self.ensure_maintenance()

    def may_refresh_on_miss(self, missing: Optional[int] = None) -> bool:
        """Whether to read the shard table for a call that it may help: not when that
        was just done for it, or has just failed.
        """
        if self._failures:
            return self._clock() - self._ended >= self._next_refresh_delay()
        return self._clock() - self._misses.get(missing, float("-inf")) >= MISS_REFRESH_INTERVAL

    def refresh_on_miss(
        self, missing: Optional[int], until: Optional[float] = None
    ) -> steps.Plan[None]:
        """Read the shard table for a call that it may help, before ``until``.

        All that ask at the same time are served by one reading.

        ``missing`` is the shard that is asked for; None where another's account was
        refused.

        Raises:
            ShardUnavailable: it is not known whether there is such a shard.
        """
        if not self.may_refresh_on_miss(missing):
            return
        asked = self._clock()
        patience = (
            MISS_REFRESH_TIMEOUT
            if until is None
            else max(0.0, min(MISS_REFRESH_TIMEOUT, until - asked))
        )
        try:
            yield steps.Exclusive(
                self._run_exclusive, self._refresh_on_miss(asked, missing, patience), patience
            )
        except errors.Error as error:
            log.warning("the shard table cannot be read for a shard that it may know: %s", error)
        if len(self._misses) > MISSES_REMEMBERED:
            self._misses.clear()
        self._misses[missing] = self._clock()
        if missing is not None and self._ended < asked and not self._knows(missing):
            raise errors.shard_unavailable(
                missing,
                "it is not known, and the shard table is still being read",
                self.retry_after,
            )

    def check_known(self, shard_id: int) -> None:
        """Raises: ShardUnavailable where a shard that is not in the map may be in the
        table, which cannot be read.
        """
        if self._failures and not self._knows(shard_id):
            raise errors.shard_unavailable(
                shard_id,
                f"it is not known, and the shard table cannot be read: {self._failure}",
                self.retry_after,
            )

    def _knows(self, shard_id: int) -> bool:
        return self.topology is not None and shard_id in self.topology.shard_map.shards

    def _refresh_on_miss(
        self, asked: float, missing: Optional[int], patience: float
    ) -> steps.Plan[None]:
        if self._begun < asked and not (missing is not None and self._knows(missing)):
            yield from self.refresh(patience)

    def _read(self, client: Any, timeout: Optional[float] = None) -> steps.Plan[ShardMap]:
        """The shard table as a map, which is the one before where nothing has changed.

        The whole table is its own probe: it has a row for each shard, and nothing less
        would do. MAX(updated_at) is when a row was written, and not when that was
        committed.

        Only a table that does not exist means "no shards", and only to a service that
        has seen none: taking anything else for that would send the sessions of every
        shard to the global database.
        """
        before, began = self.loaded, self._clock()
        try:
            rows = yield from self._rows(client, timeout)
        except errors.ProgrammingError as error:
            if error.errno != error_codes.NO_SUCH_TABLE or before.shards:
                raise
            if not before.version:
                log.warning(
                    "there is no shard table %s: the service runs on the global database alone",
                    self.shard_table,
                )
            rows = []
        found = self.parse(rows)
        if self._failure is not None:
            log.info("the shard table can be read again")
        self._read_at, self._failure, self._failures = self._clock(), None, 0
        self._confirmed_at = began
        if before.version and found == before._replace(version=found.version):
            return before
        for problem in found.problems:
            if problem not in before.problems:
                log.error("shard table %s: %s", self.shard_table, problem)
        return found

    def _rows(self, client: Any, timeout: Optional[float] = None) -> steps.Plan[List[Row]]:
        statement = Statement(f"SELECT * FROM {self.table} ORDER BY shard_id", max_rows=sys.maxsize)
        results: List[ResultSet] = yield from execute.execute_statement(
            lambda: DetachedExecutor(client), statement, timeout
        )
        return results[0].rows

    def _activate(self, shard_map: ShardMap) -> steps.Plan[Tuple[int, ...]]:
        """Put a map into use. Gives the ids of the shards that have a new pool."""
        new, changed_events = self._swap_topology(shard_map)
        try:
            yield steps.Close(tuple(each.client for each in self.draining))
        finally:
            yield from self._dispatch(changed_events)
        return new

    def _dispatch(self, changed_events: List[Any]) -> steps.Plan[None]:
        """Call the hooks in the order of the versions, also where one of them has the
        table read again.
        """
        self._pending_events.extend(
            [partial(hook, event) for event in changed_events for hook in self._hooks[event.name]]
        )
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while self._pending_events:
                yield steps.CallHooks((self._pending_events.popleft(),))
        finally:
            self._dispatching = False

    def _swap_topology(self, shard_map: ShardMap) -> Tuple[Tuple[int, ...], List[Any]]:
        with self._swap:
            before = self.topology
            if before is None or before.shard_map is shard_map:
                return (), []
            changes = changes_between(before.shard_map, shard_map)
            clients = {
                shard_id: client
                for shard_id, client in before.clients.items()
                if shard_id not in changes.close
            }
            for shard_id in changes.open:
                config = shard_map.shards[shard_id].config
                assert config is not None  # of an active shard
                clients[shard_id] = self.new_client(config, f"shard {shard_id}", shard_id)
            for shard_id, client in clients.items():
                client._shard_read_only = shard_map.shards[shard_id].status is Status.READONLY
            until = self._clock() + self._drain_timeout
            self.draining += tuple(
                [DrainingClient(before.clients[shard_id], until) for shard_id in changes.close]
            )
            self.topology = Topology(before.global_client, shard_map, MappingProxyType(clients))
        changed_events = events(before.shard_map, shard_map)
        for event in changed_events:
            if event.shard_id is not None:
                log.info(
                    "shard %d: %s (map version %d)",
                    event.shard_id,
                    event.name[len("shard_") :].replace("_", " "),
                    event.version,
                )
        return changes.open, changed_events

    def set_drain_deadline(self, client: Any, until: float) -> None:
        """Cut what a client that is leaving has in progress at another time."""
        with self._swap:
            self.draining = tuple(
                [
                    each._replace(until=until) if each.client is client else each
                    for each in self.draining
                ]
            )

    # The background.

    def ensure_maintenance(self) -> steps.Plan[None]:
        """See to it that exactly one plan in the background tends the open service."""
        mark = object()
        with self._swap:
            if self._maintained_by is not None or self.topology is None:
                return
            self._maintained_by = mark
        yield steps.Spawn(self._maintenance_loop(mark))

    def _maintenance_loop(self, mark: object) -> steps.Plan[None]:
        """Keep the map true, try again what cannot be reached, and keep the pools tidy,
        until the service is closed.
        """
        attempt, retry_at, refresh_at = 0, float("inf"), self._clock() + self._next_refresh_delay()
        try:
            while self.topology is not None and self._maintained_by is mark:
                yield steps.Sleep(
                    max(
                        0.0,
                        min(
                            MAINTENANCE_INTERVAL,
                            refresh_at - self._clock(),
                            retry_at - self._clock(),
                        ),
                    )
                )
                if self._clock() >= refresh_at:
                    yield from self._refresh_in_background()
                    refresh_at = self._clock() + self._next_refresh_delay()
                away = self._unreachable_shards()
                if away and (attempt == 0 or self._clock() >= retry_at):
                    yield from self._connect(away, self._clock() + RECONNECT_TIMEOUT)
                    attempt += 1
                    retry_at = self._clock() + retry.backoff(attempt, base=0.25, cap=5.0)
                elif not away:
                    attempt, retry_at = 0, float("inf")
                topology = self.topology
                if topology is not None:
                    yield steps.PruneIdle(topology.all_clients)
                yield from self._reap_draining()
        finally:
            with self._swap:
                self._maintained_by = None if self._maintained_by is mark else self._maintained_by

    def _unreachable_shards(self) -> Tuple[int, ...]:
        """The shards that have no connection: new, or not to be reached the last time."""
        clients = {} if self.topology is None else self.topology.clients
        return tuple(
            [
                key
                for key, client in clients.items()
                if client.pool.breaker.failure is not None or not client.pool.opened
            ]
        )

    def _next_refresh_delay(self) -> float:
        """Seconds until the shard table is read again; spread, lest all processes of an
        application read it at once.
        """
        if self._refresh_interval is None:
            return float("inf") if not self._failures else MAX_REFRESH_PAUSE
        longest = min(
            self._refresh_interval * 2.0 ** min(self._failures, 16),
            max(MAX_REFRESH_PAUSE, self._refresh_interval),
        )
        return longest * random.uniform(0.75, 1.0)

    def _refresh_in_background(self) -> steps.Plan[None]:
        known = self._failure
        try:
            yield steps.Exclusive(self._run_exclusive, self.refresh(REFRESH_TIMEOUT), 0.0)
        except errors.ServiceNotOpen:
            pass
        except errors.Error as error:
            if known is None:
                log.warning(
                    "the shard table cannot be read, so the last map stays in use: %s", error
                )

    def _connect(self, shard_ids: Tuple[int, ...], until: Optional[float]) -> steps.Plan[None]:
        """Connect to shards, all at the same time, and say which can be reached and
        which cannot.
        """
        topology = self.topology
        if topology is None:
            return
        clients = [
            topology.clients[shard_id] for shard_id in shard_ids if shard_id in topology.clients
        ]
        known = [client.pool.breaker.failure for client in clients]
        outcomes = yield steps.Gather(tuple(steps.Open(client, until) for client in clients))
        for client, failure, outcome in zip(clients, known, outcomes):
            if outcome is None:
                log.info(
                    "%s %s: %s",
                    client.name,
                    "can be reached again" if failure else "database initialized",
                    client.config.address,
                )
            elif failure is None and not isinstance(outcome, errors.ServiceNotOpen):
                reason = getattr(outcome, "reason", None) or outcome
                log.error(
                    "%s cannot be reached and is tried again in the background: %s",
                    client.name,
                    reason,
                )

    def _reap_draining(self) -> steps.Plan[None]:
        """Let go of pools whose work is done, and cut what others have not finished in
        time.
        """
        now, late = (
            self._clock(),
            tuple(
                [
                    each.client
                    for each in self.draining
                    if each.client.pool.in_use and self._clock() >= each.until
                ]
            ),
        )
        if late:
            yield steps.AbortInUse(late)
        with self._swap:
            self.draining = tuple(
                [
                    each._replace(until=now + MAX_REFRESH_PAUSE) if each.client in late else each
                    for each in self.draining
                    if each.client.pool.in_use
                ]
            )

    # What there is to tell.

    def on(self, event: EventName, hook: Hook) -> None:
        """Raises: ValueError for an event that there is not."""
        if event not in self._hooks:
            raise ValueError(f"there is no event {event!r}; there are {', '.join(EVENTS)}")
        self._hooks[event].append(hook)

    def status(self) -> ServiceStatus:
        topology, now = self.topology, self._clock()
        return ServiceStatus(
            version=0 if topology is None else topology.shard_map.version,
            age=None if self._read_at is None else now - self._read_at,
            failure=self._failure,
            problems=() if topology is None else topology.shard_map.problems,
            global_pool=None if topology is None else topology.global_client.stats(),
            shards={} if topology is None else shard_statuses(topology.shard_map, topology.clients),
            draining={
                each.client.config.address: each.client.pool.in_use for each in self.draining
            },
            row_decoder=None if topology is None else topology.global_client.pool.row_decoder,
        )

    def active_ids(self) -> steps.Plan[List[int]]:
        topology = self.require_open()
        try:
            rows = yield from self._rows(topology.global_client)
        except errors.DatabaseError as error:
            log.error(
                "the shard table cannot be read, so the active shards are those last known: %s",
                error,
            )
            return topology.shard_map.active
        return self.parse(rows).active

    def health(self) -> steps.Plan[Dict[str, Any]]:
        topology = self.require_open()
        until = deadlines.deadline_after(HEALTH_TIMEOUT)
        probes = tuple(
            steps.Execute(DetachedExecutor(client), Statement("SELECT 1"), until)
            for client in topology.all_clients
        )
        asked = dict(zip((None, *topology.clients), (yield steps.Gather(probes))))
        parts = {
            shard_id: _sign_of_life(shard, asked.get(shard_id))
            for shard_id, shard in sorted(topology.shard_map.shards.items())
        }
        whole = _sign_of_life(Shard(0, Status.ACTIVE), asked[None])
        suspended = (Status.INACTIVE.value, Status.MAINTENANCE.value)
        healthy = whole["healthy"] and all(
            part["healthy"] or part["status"] in suspended for part in parts.values()
        )
        return {"healthy": healthy, "global": whole, "shards": parts}


def _sign_of_life(shard: Shard, answer: Any) -> Dict[str, Any]:
    if shard.in_service and not isinstance(answer, Exception):
        return {"healthy": True, "status": shard.status.value}
    found: Dict[str, Any] = {"healthy": False, "status": shard.status.value}
    reason = (getattr(answer, "reason", None) or str(answer)) if shard.in_service else shard.reason
    return {**found, "error": reason} if reason else found
