"""A service's start and stop, its reports, and the reading of its shard table."""

from typing import Any, Callable, Dict, Generic, Optional, TypeVar, overload

from ..config import DatabaseConfig
from ..deadlines import Deadline
from ..topology.status import Event, EventName, Hook, ServiceStats, ServiceStatus, service_stats
from .service_base import ServicePart
from .typevars import ClientT, IdsR, NoneR, ReportR

HookT = TypeVar("HookT", bound=Hook)
ResultT = TypeVar("ResultT")


class ServiceLife(ServicePart, Generic[NoneR, IdsR, ReportR, ClientT]):
    """What opens, closes, refreshes and reports."""

    def init_service(self) -> NoneR:
        """Connect to the global database, load the shard table, connect to the shards.

        Does nothing where that has been done.

        A shard that cannot be reached is unavailable and is tried again in the
        background; a row that cannot be used hurts its shard alone; without a shard
        table the service runs on the global database and says so in the log.

        Raises:
            ConnectionFailed: The global database cannot be reached.
            Error: The shard table cannot be read, other than by not existing.
        """
        result: NoneR = self._run_exclusive(self._lifecycle.start())
        return result

    def close_service(self, timeout: Optional[float] = None) -> NoneR:
        """Close all pools: idle connections at once, those in use when they come back.

        ``init_service`` opens the service again.

        Args:
            timeout: Seconds to wait for what is in use, which is then aborted; None to
                wait for nothing and abort nothing.
        """
        result: NoneR = self._run_own(self._stop(timeout))
        return result

    def deadline(self, timeout: float) -> Deadline:
        """A limit over all that is done inside a block: ``with db.deadline(1.5):``, in
        asyncio too.

        It covers the waiting for connections, connecting, repeating, and the statements
        with their answers; what is late raises DeadlineExceeded, or WriteTimedOut where
        a write had been sent, and is ended on the server. A single call takes
        ``timeout=``.

        Args:
            timeout: Seconds, from 0 up.

        Raises:
            ParameterError: Not a number from 0 up.
        """
        return Deadline(timeout)

    def stats(self) -> ServiceStats:
        """The figures of every pool, by "global" and shard id, without I/O.

        Empty while the service is not open. ``as_dict()`` gives it ready for JSON.
        """
        return service_stats(self._lifecycle.manager.topology)

    def refresh(self, *, force: bool = False) -> NoneR:
        """Read the shard table now and put it into use; shards that it has not changed
        keep their pools.

        Args:
            force: Believe a table that has lost all its shards at once. Otherwise the
                last map stays in use then, and ``status().problems`` and the log say
                so.

        Raises:
            Error: The table cannot be read, and the last map stays in use.
        """
        result: NoneR = self._run_exclusive(self._lifecycle.refresh(force=force))
        return result

    def status(self) -> ServiceStatus:
        """The service as it knows itself, without I/O: the map's version and age, each
        shard's state, reason and pool figures. ``as_dict()`` gives it ready for JSON.
        """
        return self._lifecycle.status()

    @overload
    def on(
        self, event: EventName, hook: Callable[[Event], ResultT]
    ) -> Callable[[Event], ResultT]: ...

    @overload
    def on(self, event: EventName, hook: None = None) -> Callable[[HookT], HookT]: ...

    def on(self, event: EventName, hook: Optional[Hook] = None) -> Any:
        """Have a function called with an ``Event``: ``db.on("shard_added", show)`` or
        ``@db.on("shard_added")``.

        Hooks are called one after the other, in the order of the events, by whoever
        read the shard table, which is mostly the background; in asyncio they may be
        coroutine functions. One that fails is logged.

        Args:
            event: "shard_added", "shard_removed", "shard_moved", "shard_state_changed"
                and "map_refreshed" for changes of the shard map; "shard_down" when a
                shard's server cannot be reached any more, and "shard_up" when it can
                again.
            hook: The function. Without it a decorator is returned.

        Returns:
            The function, or the decorator.

        Raises:
            ValueError: There is no such event.
        """
        if hook is None:
            return lambda hook: self.on(event, hook)
        self._lifecycle.manager.on(event, hook)
        return hook

    def load_shard_configs(self) -> NoneR:
        """Read the shard table into ``shard_configs``.

        ``init_shard_connections`` puts what was read into use.

        Where the table cannot be read, the last map stays, and the error is raised.
        """
        result: NoneR = self._run_exclusive(self._lifecycle.load())
        return result

    def init_shard_connections(self) -> NoneR:
        """Put the loaded shards into use: open what is new or has moved, close what is
        gone; unchanged shards keep their pools.
        """
        result: NoneR = self._run_exclusive(self._lifecycle.apply())
        return result

    @property
    def global_client(self) -> Optional[ClientT]:
        """The global database's client; None while the service is not open."""
        topology = self._lifecycle.manager.topology
        return None if topology is None else topology.global_client

    @property
    def shard_clients(self) -> Dict[int, ClientT]:
        """The clients of the shards that can be used now, by shard id: a copy."""
        topology = self._lifecycle.manager.topology
        clients = {} if topology is None else topology.clients
        return {
            key: client for key, client in clients.items() if client.pool.breaker.failure is None
        }

    @property
    def shard_configs(self) -> Dict[int, DatabaseConfig]:
        """A copy of the active shards' configurations as last loaded, by shard id."""
        loaded = self._lifecycle.reader.loaded
        configs = {key: loaded.shards[key].config for key in loaded.active}
        return {key: config for key, config in configs.items() if config is not None}

    def get_active_shard_ids(self) -> IdsR:
        """The ids of the active shards by the shard table as it is now, sorted; by the
        last map where the table cannot be read.
        """
        result: IdsR = self._run(self._lifecycle.active_ids())
        return result

    def health_check(self) -> ReportR:
        """Ask every database for an answer, all at the same time.

        Returns:
            ``{"healthy": bool, "global": {...}, "shards": {id: {...}}}``, each part
            with ``healthy``, ``status`` and, where something is wrong, ``error``.
            Healthy means that the global database and every active shard answered.
        """
        result: ReportR = self._run(self._lifecycle.health())
        return result
