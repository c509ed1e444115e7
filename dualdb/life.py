"""The life of a service, as plans: start, load, apply, look again for shards that are down, stop."""

import logging
import threading
from types import MappingProxyType
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from . import errors, plans, shards
from .config import DatabaseConfig
from .results import ResultSet, Row
from .statements import Statement

log = logging.getLogger("dualdb")

#: How often the background looks after the pools.
TEND_SECONDS = 1.0


class Topology(NamedTuple):
    """What is in use at one moment: a map, a client for each of its active shards, and why some of these have no connection.

    Replaced as a whole and never changed, so that a call sees one state and not half of two.
    """

    global_client: Any
    shard_map: shards.ShardMap
    clients: Mapping[int, Any]
    down: Mapping[int, str]


class Life:
    """The state of a service and the plans that change it.

    Args:
        config: the global database.
        shard_table: the shard table's name there.
        new_client: makes a client for (configuration, name, shard id), not yet connected.
    """

    def __init__(self, config: DatabaseConfig, shard_table: str, new_client: Callable[[DatabaseConfig, str, Optional[int]], Any]) -> None:
        self._config, self._shard_table, self._new_client = config, shard_table, new_client
        #: What is in use; None while the service is not open.
        self.topology: Optional[Topology] = None
        #: The map as last loaded, which ``apply`` puts into use.
        self.loaded = shards.EMPTY
        self.forked()

    def forked(self) -> None:
        """As in a process where no other thread is: no lock is held and nothing runs in the background."""
        self._swap = threading.Lock()
        self._tended = False

    def opened(self) -> Topology:
        """Raises: ServiceNotOpen."""
        if self.topology is None:
            raise errors.ServiceNotOpen("Global database not initialized: call init_service() first, or use the service in a with block")
        return self.topology

    def start(self) -> plans.Plan[None]:
        if self.topology is not None:
            yield from self.watch()
            return
        client = self._new_client(self._config, "global", None)
        alone = Topology(client, shards.EMPTY, MappingProxyType({}), MappingProxyType({}))
        try:
            yield plans.Open(client)
            log.info("global database initialized: %s", client.config.address)
            self.loaded = yield from self._read(alone)
            topology = yield from self._opened(alone, self.loaded)
        except BaseException:
            yield plans.Close((client,))
            raise
        self.topology = topology
        yield from self.watch()

    def stop(self, timeout: Optional[float] = None) -> plans.Plan[None]:
        with self._swap:
            topology, self.topology, self.loaded, self._tended = self.topology, None, shards.EMPTY, False
        if topology is None:
            return
        try:
            yield from plans.closing((topology.global_client, *topology.clients.values()), timeout)
        finally:
            yield plans.Halt()

    def load(self) -> plans.Plan[None]:
        self.loaded = yield from self._read(self.opened())

    def apply(self) -> plans.Plan[None]:
        before = self.opened()
        after = yield from self._opened(before, self.loaded)
        with self._swap:
            self.topology = after
        yield plans.Close(tuple(client for shard_id, client in before.clients.items() if after.clients.get(shard_id) is not client))
        yield from self.watch()

    def _read(self, topology: Topology) -> plans.Plan[shards.ShardMap]:
        """The shard table as a map.

        Only a table that does not exist means "no shards", and only to a service that has seen none: taking anything else for that would
        send the sessions of every shard to the global database.
        """
        version = self.loaded.version + 1
        try:
            rows = yield from self._rows(topology)
        except errors.ProgrammingError as error:
            if error.errno != errors.NO_SUCH_TABLE or self.loaded.shards:
                raise
            log.warning("there is no shard table %s: the service runs on the global database alone", self._shard_table)
            return shards.EMPTY._replace(version=version)
        shard_map = shards.parse(rows, self._config, version)
        for problem in shard_map.problems:
            log.error("shard table %s: %s", self._shard_table, problem)
        return shard_map

    def _rows(self, topology: Topology) -> plans.Plan[List[Row]]:
        table = ".".join([f"`{part}`" for part in self._shard_table.split(".")])
        statement = Statement(f"SELECT * FROM {table} ORDER BY shard_id")
        results: List[ResultSet] = yield from plans.perform(lambda: topology.global_client, statement)
        return results[0].rows

    def _opened(self, before: Topology, shard_map: shards.ShardMap) -> plans.Plan[Topology]:
        """The topology for a map: unchanged shards keep their clients, new and moved ones are connected to at the same time."""
        changes = shards.changes(before.shard_map, shard_map)
        clients: Dict[int, Any] = {shard_id: client for shard_id, client in before.clients.items() if shard_id not in changes.close}
        down: Dict[int, str] = {shard_id: reason for shard_id, reason in before.down.items() if shard_id in clients}
        for shard_id in changes.open:
            config = shard_map.shards[shard_id].config
            assert config is not None
            clients[shard_id] = self._new_client(config, f"shard {shard_id}", shard_id)
        try:
            failures = yield from _connect([(shard_id, clients[shard_id]) for shard_id in changes.open])
        except BaseException:
            yield plans.Close(tuple(clients[shard_id] for shard_id in changes.open))
            raise
        for shard_id in changes.open:
            failure = failures[shard_id]
            if failure is None:
                log.info("shard %d database initialized: %s", shard_id, clients[shard_id].config.address)
            else:
                down[shard_id] = str(getattr(failure, "reason", None) or failure)
                log.error("shard %d cannot be reached and is tried again in the background: %s", shard_id, down[shard_id])
        return Topology(before.global_client, shard_map, MappingProxyType(clients), MappingProxyType(down))

    def watch(self) -> plans.Plan[None]:
        """See to it that exactly one plan in the background tends the open service."""
        with self._swap:
            needed = not self._tended and self.topology is not None
            self._tended = self._tended or needed
        if needed:
            yield plans.Spawn(self._tend())

    def _tend(self) -> plans.Plan[None]:
        """Try the shards that are down again and again, and keep the pools tidy, until the service is closed."""
        attempt = 0
        try:
            while self.topology is not None:
                down = bool(self.topology.down)
                attempt = attempt + 1 if down else 0
                yield plans.Sleep(plans.backoff(attempt, base=0.25, cap=5.0) if down else TEND_SECONDS)
                topology = self.topology
                if topology is not None:
                    yield from self._reconnect(topology)
                    yield plans.Tidy((topology.global_client, *topology.clients.values()))
        except BaseException:
            self._tended = False
            raise

    def _reconnect(self, topology: Topology) -> plans.Plan[None]:
        tried = {shard_id: topology.clients[shard_id] for shard_id in topology.down}
        failures = yield from _connect(list(tried.items()))
        up = {shard_id: tried[shard_id] for shard_id, failure in failures.items() if failure is None}
        with self._swap:
            now = self.topology
            if up and now is not None:
                down = {key: reason for key, reason in now.down.items() if now.clients[key] is not up.get(key)}
                self.topology = now._replace(down=MappingProxyType(down))
        for shard_id in up:
            log.info("shard %d can be reached again", shard_id)

    def active_ids(self) -> plans.Plan[List[int]]:
        topology = self.opened()
        try:
            rows = yield from self._rows(topology)
        except errors.DatabaseError as error:
            log.error("the shard table cannot be read, so the active shards are those last known: %s", error)
            return topology.shard_map.active
        return shards.parse(rows, self._config).active

    def health(self) -> plans.Plan[Dict[str, Any]]:
        topology = self.opened()
        usable = [shard_id for shard_id in topology.shard_map.active if shard_id not in topology.down]
        clients = [topology.global_client, *(topology.clients[shard_id] for shard_id in usable)]
        answers = yield plans.Gather(tuple(plans.Execute(client, Statement("SELECT 1")) for client in clients))
        asked = [_sign_of_life(answer) for answer in answers]
        report: Dict[int, Dict[str, Any]] = {}
        for shard_id, shard in sorted(topology.shard_map.shards.items()):
            if shard_id in usable:
                report[shard_id] = asked[1 + usable.index(shard_id)]
            else:
                report[shard_id] = {"healthy": False, "status": shard.status.value}
                reason = topology.down.get(shard_id, shard.reason)
                if reason:
                    report[shard_id]["error"] = reason
        suspended = (shards.Status.INACTIVE.value, shards.Status.MAINTENANCE.value)
        healthy = asked[0]["healthy"] and all(part["healthy"] or part["status"] in suspended for part in report.values())
        return {"healthy": healthy, "global": asked[0], "shards": report}


def _connect(clients: List[Tuple[int, Any]]) -> plans.Plan[Dict[int, Optional[Exception]]]:
    outcomes = yield plans.Gather(tuple(plans.Open(client) for _, client in clients))
    return {shard_id: outcome for (shard_id, _), outcome in zip(clients, outcomes)}


def _sign_of_life(answer: Any) -> Dict[str, Any]:
    if isinstance(answer, Exception):
        return {"healthy": False, "status": "active", "error": str(getattr(answer, "reason", None) or answer)}
    return {"healthy": True, "status": "active"}
