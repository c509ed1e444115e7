"""The active topology: a shard map, and a client for each of its shards in service."""

import logging
import threading
import time
from functools import partial
from types import MappingProxyType
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from .. import errors
from ..buffer import Buffers
from ..config import DatabaseConfig
from ..execution import steps
from ..observability.events import Event, ShardEventName
from ..observability.logs import about
from ..observability.observers import Observers
from .shard_map import EMPTY, Shard, ShardMap, Status, change_of, resized_pool
from .slices import Slices, in_slices
from .status import shard_events

log = logging.getLogger("dualdb.topology")

#: Makes a client for (configuration, name, shard id), not yet connected.
NewClient = Callable[[DatabaseConfig, str, Optional[int]], Any]


class Topology(NamedTuple):
    """The active shard map and its clients.

    Immutable and replaced as a whole, so that a call sees a consistent state.

    Attributes:
        global_client: The client of the global database.
        shard_map: The shard map.
        clients: The clients of the shards in service, by shard id.
    """

    global_client: Any
    shard_map: ShardMap
    clients: Mapping[int, Any]

    @property
    def all_clients(self) -> Tuple[Any, ...]:
        """The clients of the global database and of the shards."""
        return (self.global_client, *self.clients.values())


class DrainingClient(NamedTuple):
    """A client whose shard has moved or is out of service.

    Attributes:
        client: The client.
        until: When its work in progress is aborted, by the manager's clock.
    """

    client: Any
    until: float

    @property
    def in_use(self) -> int:
        """The number of its connections in use."""
        return self.client.pool.in_use if self.client.has_pool else 0


class TopologyManager:
    """Activates shard maps, and calls the hooks.

    Args:
        new_client: Makes a client, not yet connected.
        drain_timeout: Seconds until work in progress on a removed pool is aborted.
        clock: Returns seconds.
        observers: The hooks.

    Attributes:
        observers: As given.
        topology: The active topology; None while the service is not open.
        draining: The clients of shards that have moved or are out of service, as long
            as they have work in progress.
        waiting: The calls that wait for another map, by the shard that they are for.
    """

    def __init__(
        self,
        new_client: NewClient,
        drain_timeout: float,
        clock: Callable[[], float] = time.monotonic,
        observers: Optional[Observers] = None,
    ) -> None:
        self.observers = observers or Observers()
        self.new_client = new_client
        self._drain_timeout = drain_timeout
        self._outage_hook = self._on_outage  # one bound method for all clients
        self._clock = clock
        self.topology: Optional[Topology] = None
        self.draining: Tuple[DrainingClient, ...] = ()
        self.waiting = Buffers()
        self.forked()

    def forked(self) -> None:
        """Reset the locks and queues in a forked child."""
        self._swap = threading.Lock()
        self.waiting.forget_callers()
        self.observers.forked()
        self._dispatching = False

    def require_open(self) -> Topology:
        """Return the active topology.

        Raises:
            ServiceNotOpen: The service is not open.
        """
        if self.topology is None:
            raise errors.ServiceNotOpen(
                "Global database not initialized: call init_service() first, "
                "or use the service in a with block"
            )
        return self.topology

    def knows(self, shard_id: int) -> bool:
        """Return whether the active map has this shard."""
        return self.topology is not None and shard_id in self.topology.shard_map.shards

    def open(self, global_client: object) -> None:
        """Activate the global database, without shards."""
        self.topology = Topology(global_client, EMPTY, MappingProxyType({}))

    def close(self) -> Tuple[Any, ...]:
        """Deactivate everything; return the clients to close."""
        with self._swap:
            topology = self.topology
            self.topology = None
            draining = self.draining
            self.draining = ()
        self.waiting.wake()
        if topology is None:
            return ()
        return (*topology.all_clients, *[each.client for each in draining])

    def activate(self, shard_map: ShardMap) -> steps.Plan[Tuple[int, ...]]:
        """Activate a map.

        Returns:
            The ids of the shards that have a new pool.
        """
        before = self.topology
        if before is None or before.shard_map is shard_map:
            return ()
        yield steps.Sleep(0.0)  # to free what reading the table took has held up the loop
        change = _Change(before, shard_map)
        shard_ids = sorted({*before.shard_map.shards, *shard_map.shards})
        yield from in_slices(shard_ids, change.compare)
        change.drain_until = self._clock() + self._drain_timeout
        yield from in_slices(change.closed, change.close)
        yield from in_slices(change.opened, partial(self._add_client, change))
        after = Topology(before.global_client, shard_map, MappingProxyType(change.clients))
        if not self._replace(before, after, change):
            return ()  # closed meanwhile
        try:
            yield steps.Close(tuple([each.client for each in change.draining]))
            self._drop_unused()
            slices = Slices()
            for shard_id, config in change.resized.items():
                yield steps.Resize(after.clients[shard_id], config)
                if slices.ends_with_item():
                    yield steps.Sleep(0.0)
        finally:
            found = change.events
            if before.shard_map.version != shard_map.version:
                found.append(Event("map_refreshed", shard_map.version))
            yield from in_slices(found, _log_event)
            self.observers.post(*found)
            yield from self.dispatch()
        return tuple(change.opened)

    def _add_client(self, change: "_Change", shard_id: int) -> None:
        shard = change.after.shards[shard_id]
        assert shard.config is not None  # of a shard in service
        client = self.new_client(shard.config, f"shard {shard_id}", shard_id)
        client.on_outage = self._outage_hook
        client.shard_read_only = shard.status is Status.READONLY
        change.clients[shard_id] = client

    def _replace(self, before: Topology, after: Topology, change: "_Change") -> bool:
        with self._swap:
            if self.topology is not before:
                return False
            for client, read_only in change.limited:
                client.shard_read_only = read_only
            self.draining += tuple(change.draining)
            self.topology = after
        self.waiting.wake(*change.shard_ids)
        return True

    # Draining.

    def _drop_unused(self) -> None:
        """Forget the draining clients that no caller has used: they are closed, and
        get no open pool any more.
        """
        with self._swap:
            self.draining = tuple([each for each in self.draining if each.client.has_pool])

    def draining_of(self, shard_id: int) -> Tuple[DrainingClient, ...]:
        """The clients of a shard that are being drained."""
        return tuple([each for each in self.draining if each.client.shard_id == shard_id])

    def set_drain_deadline(self, clients: Tuple[Any, ...], until: float) -> None:
        """Change the time at which draining clients are aborted."""
        with self._swap:
            self.draining = tuple(
                [
                    each._replace(until=until) if each.client in clients else each
                    for each in self.draining
                ]
            )

    def drop_drained(self, late: Tuple[Any, ...], until: float) -> None:
        """Forget the draining clients without work in progress.

        Args:
            late: Clients that have just been aborted, which are checked again.
            until: When they are aborted again, by the manager's clock.
        """
        with self._swap:
            self.draining = tuple(
                [
                    each._replace(until=until) if each.client in late else each
                    for each in self.draining
                    if each.in_use
                ]
            )

    # Events.

    def dispatch(self) -> steps.Plan[None]:
        """Call the hooks for all pending events in order, including events that hooks
        cause.
        """
        if self._dispatching:
            return
        self._dispatching = True
        try:
            pending = self.observers.pending
            slices = Slices()
            while pending:
                event = pending.popleft()
                for hook in self.observers.hooks(event.name):
                    yield steps.CallHooks((partial(hook, event),))
                if slices.ends_with_item():
                    yield steps.Sleep(0.0)
        finally:
            self._dispatching = False

    def _on_outage(self, shard_id: int, failure: Optional[Exception]) -> None:
        """Queue an event for a shard that became unreachable, or reachable (None).

        Called where the connect was made; the background plan calls the hooks.
        """
        topology = self.topology
        if topology is None:
            return
        shard: Optional[Shard] = topology.shard_map.shards.get(shard_id)
        name: ShardEventName = "shard_up" if failure is None else "shard_down"
        reason = None if failure is None else errors.reason_of(failure)
        version = topology.shard_map.version
        self.observers.post(Event(name, version, shard_id, shard, shard, reason))


class _Change:
    """The differences between the active map and the next."""

    def __init__(self, topology: Topology, after: ShardMap) -> None:
        self.before = topology.shard_map
        self.after = after
        self.clients = dict(topology.clients)
        self.shard_ids: List[int] = []
        self.opened: List[int] = []
        self.closed: List[int] = []
        self.drain_until = 0.0
        self.draining: List[DrainingClient] = []
        #: Clients that stay, and whether their shards take reads alone.
        self.limited: List[Tuple[Any, bool]] = []
        self.resized: Dict[int, DatabaseConfig] = {}
        self.events: List[Event] = []

    def compare(self, shard_id: int) -> None:
        """Add the changes of one shard; an identical object means none."""
        if self.before.shards.get(shard_id) is self.after.shards.get(shard_id):
            return
        self.shard_ids.append(shard_id)
        opens, closes = change_of(self.before, self.after, shard_id)
        if shard_id in self.clients and not closes:
            status = self.after.shards[shard_id].status
            self.limited.append((self.clients[shard_id], status is Status.READONLY))
        self.opened += [shard_id] * opens
        self.closed += [shard_id] * closes
        resized = resized_pool(self.before, self.after, shard_id)
        if resized is not None:
            self.resized[shard_id] = resized
        self.events += shard_events(self.before, self.after, shard_id)

    def close(self, shard_id: int) -> None:
        """Take a closed client out, which is drained."""
        self.draining.append(DrainingClient(self.clients.pop(shard_id), self.drain_until))


def _log_event(event: Event) -> None:
    if event.shard_id is not None:
        what = event.name[len("shard_") :].replace("_", " ")
        log.info(
            "shard %d: %s (map version %d)",
            event.shard_id,
            what,
            event.version,
            extra=about(event.name),
        )
