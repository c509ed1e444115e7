"""What is in use: a shard map, and a client for each of its shards in service."""

import logging
import threading
import time
from collections import deque
from functools import partial
from types import MappingProxyType
from typing import Any, Callable, Deque, Dict, List, Mapping, NamedTuple, Optional, Tuple

from .. import errors
from ..config import DatabaseConfig
from ..execution import steps
from .shard_map import EMPTY, Shard, ShardMap, Status, change_of
from .slices import in_slices
from .status import EVENTS, Event, EventName, Hook, shard_events

log = logging.getLogger("dualdb")

#: Makes a client for (configuration, name, shard id), not yet connected.
NewClient = Callable[[DatabaseConfig, str, Optional[int]], Any]


class Topology(NamedTuple):
    """What is in use at one moment.

    Replaced as a whole and never changed, so that a call sees one state and not half of
    two.
    """

    global_client: Any
    shard_map: ShardMap
    clients: Mapping[int, Any]

    @property
    def all_clients(self) -> Tuple[Any, ...]:
        """The global database's client and those of the shards."""
        return (self.global_client, *self.clients.values())


class DrainingClient(NamedTuple):
    """A client whose shard has moved or is out of service: work in progress finishes,
    until a time at which it is aborted.
    """

    client: Any
    until: float


class TopologyManager:
    """Puts maps into use, and calls the hooks.

    Args:
        new_client: Makes a client, not yet connected.
        drain_timeout: Seconds that a pool which is not used any more is given for the
            work in progress.
        clock: Seconds from any start.

    Attributes:
        topology: What is in use; None while the service is not open.
        draining: The clients of shards that have moved or are out of service, as long
            as they have work in progress.
    """

    def __init__(
        self,
        new_client: NewClient,
        drain_timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.new_client = new_client
        self._drain_timeout = drain_timeout
        self._clock = clock
        self.topology: Optional[Topology] = None
        self.draining: Tuple[DrainingClient, ...] = ()
        self._hooks: Dict[EventName, List[Hook]] = {name: [] for name in EVENTS}
        self.forked()

    def forked(self) -> None:
        """As in a process where no other thread is: no lock is held."""
        self._swap = threading.Lock()
        self._pending_events: Deque[Event] = deque()
        self._dispatching = False

    def require_open(self) -> Topology:
        """What is in use.

        Raises:
            ServiceNotOpen: Nothing is.
        """
        if self.topology is None:
            raise errors.ServiceNotOpen(
                "Global database not initialized: call init_service() first, "
                "or use the service in a with block"
            )
        return self.topology

    def knows(self, shard_id: int) -> bool:
        """Whether the map in use has this shard."""
        return self.topology is not None and shard_id in self.topology.shard_map.shards

    def open(self, global_client: object) -> None:
        """Put the global database into use, without shards."""
        self.topology = Topology(global_client, EMPTY, MappingProxyType({}))

    def close(self) -> Tuple[Any, ...]:
        """Put everything out of use; the clients to close."""
        with self._swap:
            topology = self.topology
            self.topology = None
            draining = self.draining
            self.draining = ()
        if topology is None:
            return ()
        return (*topology.all_clients, *[each.client for each in draining])

    def activate(self, shard_map: ShardMap) -> steps.Plan[Tuple[int, ...]]:
        """Put a map into use.

        Returns:
            The ids of the shards that have a new pool.
        """
        before = self.topology
        if before is None or before.shard_map is shard_map:
            return ()
        change = _Change(before, shard_map)
        shard_ids = sorted({**before.shard_map.shards, **shard_map.shards})
        yield from in_slices(shard_ids, change.compare)
        for shard_id in change.closed:
            del change.clients[shard_id]
        yield from in_slices(change.opened, partial(self._add_client, change))
        after = Topology(before.global_client, shard_map, MappingProxyType(change.clients))
        if not self._replace(before, after, change):
            return ()  # closed meanwhile
        try:
            yield steps.Close(tuple([before.clients[shard_id] for shard_id in change.closed]))
        finally:
            found = change.events
            if before.shard_map.version != shard_map.version:
                found.append(Event("map_refreshed", shard_map.version))
            yield from in_slices(found, _log_event)
            self._pending_events.extend(found)
            yield from self.dispatch()
        return tuple(change.opened)

    def _add_client(self, change: "_Change", shard_id: int) -> None:
        config = change.after.shards[shard_id].config
        assert config is not None  # of a shard in service
        client = self.new_client(config, f"shard {shard_id}", shard_id)
        client.pool.on_outage = partial(self._on_outage, shard_id)
        change.clients[shard_id] = client

    def _replace(self, before: Topology, after: Topology, change: "_Change") -> bool:
        with self._swap:
            if self.topology is not before:
                return False
            for shard_id in change.shard_ids:
                if shard_id in after.clients:
                    status = after.shard_map.shards[shard_id].status
                    after.clients[shard_id]._shard_read_only = status is Status.READONLY
            until = self._clock() + self._drain_timeout
            self.draining += tuple(
                [DrainingClient(before.clients[shard_id], until) for shard_id in change.closed]
            )
            self.topology = after
        return True

    # Draining.

    def set_drain_deadline(self, client: object, until: float) -> None:
        """Abort what a client that is leaving has in progress at another time."""
        with self._swap:
            self.draining = tuple(
                [
                    each._replace(until=until) if each.client is client else each
                    for each in self.draining
                ]
            )

    def drop_drained(self, late: Tuple[Any, ...], until: float) -> None:
        """Forget the draining clients whose work is done; give the ``late`` ones, which
        have just been aborted, until another time.
        """
        with self._swap:
            self.draining = tuple(
                [
                    each._replace(until=until) if each.client in late else each
                    for each in self.draining
                    if each.client.pool.in_use
                ]
            )

    # Events.

    def on(self, event: EventName, hook: Hook) -> None:
        """Have a hook called for an event.

        Raises:
            ValueError: There is no such event.
        """
        if event not in self._hooks:
            raise ValueError(f"there is no event {event!r}; there are {', '.join(EVENTS)}")
        self._hooks[event].append(hook)

    def dispatch(self) -> steps.Plan[None]:
        """Call the hooks for the events so far, in their order, also where one of them
        causes another event.
        """
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while self._pending_events:
                event = self._pending_events.popleft()
                for hook in self._hooks[event.name]:
                    yield steps.CallHooks((partial(hook, event),))
        finally:
            self._dispatching = False

    def _on_outage(self, shard_id: int, failure: Optional[Exception]) -> None:
        """A shard's server cannot be reached any more, or can again (None).

        Called by whoever connected; the background calls the hooks.
        """
        topology = self.topology
        if topology is None:
            return
        shard: Optional[Shard] = topology.shard_map.shards.get(shard_id)
        name: EventName = "shard_up" if failure is None else "shard_down"
        reason = None if failure is None else str(failure)
        version = topology.shard_map.version
        self._pending_events.append(Event(name, version, shard_id, shard, shard, reason))


class _Change:
    """What changes from the map in use to another."""

    def __init__(self, topology: Topology, after: ShardMap) -> None:
        self.before = topology.shard_map
        self.after = after
        self.clients = dict(topology.clients)
        self.shard_ids: List[int] = []
        self.opened: List[int] = []
        self.closed: List[int] = []
        self.events: List[Event] = []

    def compare(self, shard_id: int) -> None:
        """Note what changes for a shard; the same object means that nothing does."""
        if self.before.shards.get(shard_id) is self.after.shards.get(shard_id):
            return
        self.shard_ids.append(shard_id)
        opens, closes = change_of(self.before, self.after, shard_id)
        self.opened += [shard_id] * opens
        self.closed += [shard_id] * closes
        self.events += shard_events(self.before, self.after, shard_id)


def _log_event(event: Event) -> None:
    if event.shard_id is not None:
        what = event.name[len("shard_") :].replace("_", " ")
        log.info("shard %d: %s (map version %d)", event.shard_id, what, event.version)
