"""A service's start and stop, its reports, and the reading of its shard table."""

from typing import Any, Dict, Generic, Optional

from ..config import DatabaseConfig
from ..deadlines import Deadline
from ..topology.status import ServiceStats, ServiceStatus, service_stats
from .observed import Observed
from .typevars import ClientT, IdsR, NoneR, ReportR


class ServiceLife(Observed, Generic[NoneR, IdsR, ReportR, ClientT]):
    """Opening, closing, refreshing and reporting."""

    global_config: DatabaseConfig

    def init_service(self) -> NoneR:
        """Connect to the global database, load the shard table, connect to the shards.

        Does nothing if the service is open. A shard that cannot be reached is
        unavailable and is retried in the background; an unusable row affects only its
        shard; without a shard table the service uses the global database alone and logs
        a warning.

        Raises:
            ConnectionFailed: The global database cannot be reached.
            Error: The shard table exists but cannot be read.
        """
        result: NoneR = self._run_exclusive(self._lifecycle.start())
        return result

    def close_service(self, timeout: Optional[float] = None) -> NoneR:
        """Close all pools: idle connections now, the others when they are released.

        ``init_service`` opens the service again.

        Args:
            timeout: Seconds to wait for connections in use, which are then aborted;
                None neither waits nor aborts.
        """
        result: NoneR = self._run_own(self._stop(timeout))
        return result

    def deadline(self, timeout: float) -> Deadline:
        """Limit the time of all calls inside a block.

        It covers waiting for connections, connecting, retries, and the statements with
        their responses. A late call raises DeadlineExceeded, or WriteTimedOut if a
        write had been sent, and its statement is killed on the server. For a single
        call use ``timeout=``.

        Args:
            timeout: Seconds, from 0 up.

        Raises:
            ParameterError: It is not a number from 0 up.

        Example:
            >>> with db.deadline(1.5):  # "with" in asyncio, too
            ...     db.query_value("SELECT 1")
            1
        """
        return Deadline(timeout)

    def stats(self) -> ServiceStats:
        """Return the statistics of every pool, without I/O.

        Returns:
            PoolStats by "global" and shard id; empty while the service is not open.
            ``as_dict()`` converts it for JSON.
        """
        return service_stats(self._lifecycle.manager.topology)

    def refresh(self, *, force: bool = False) -> NoneR:
        """Read the shard table now and activate it; unchanged shards keep their pools.

        Args:
            force: Accept a table that has lost all its shards at once. Otherwise the
                last map stays in use then, which is logged and reported by
                ``status().problems``.

        Raises:
            Error: The table cannot be read; the last map stays in use.
        """
        result: NoneR = self._run_exclusive(self._lifecycle.refresh(force=force))
        return result

    def status(self) -> ServiceStatus:
        """Return the state of the service, without I/O.

        Returns:
            The map's version and age, and the state, reason and pool statistics of each
            shard. ``as_dict()`` converts it for JSON.
        """
        return self._lifecycle.status()

    def load_shard_configs(self) -> NoneR:
        """Read the shard table into ``shard_configs``.

        ``init_shard_connections`` activates it.

        Raises:
            Error: The table cannot be read; the last map stays.
        """
        result: NoneR = self._run_exclusive(self._lifecycle.load())
        return result

    def init_shard_connections(self) -> NoneR:
        """Activate the loaded shards: open pools of new and moved shards, close those
        of removed ones. Unchanged shards keep their pools.
        """
        result: NoneR = self._run_exclusive(self._lifecycle.apply())
        return result

    @property
    def global_client(self) -> Optional[ClientT]:
        """The global database's client; None while the service is not open."""
        topology = self._lifecycle.manager.topology
        return None if topology is None else topology.global_client.facade

    @property
    def shard_clients(self) -> Dict[int, ClientT]:
        """A copy of the clients of all shards that can be used now, by shard id."""
        topology = self._lifecycle.manager.topology
        clients = {} if topology is None else topology.clients
        return {key: client.facade for key, client in clients.items() if client.failure is None}

    @property
    def shard_configs(self) -> Dict[int, DatabaseConfig]:
        """A copy of the active shards' configurations as last loaded, by shard id."""
        loaded = self._lifecycle.reader.loaded
        configs = {key: loaded.shards[key].config for key in loaded.active}
        return {key: config for key, config in configs.items() if config is not None}

    def get_active_shard_ids(self) -> IdsR:
        """Return the sorted ids of the active shards.

        The shard table is read for it; if that fails, the last map is used.
        """
        result: IdsR = self._run(self._lifecycle.active_ids())
        return result

    def health_check(self) -> ReportR:
        """Send a probe to every database, concurrently.

        Returns:
            ``{"healthy": bool, "global": {...}, "shards": {id: {...}}}``, each part
            with ``healthy``, ``status`` and, if it failed, ``error``. The service is
            healthy if the global database and every active shard responded.
        """
        result: ReportR = self._run(self._lifecycle.health())
        return result


AnyService = ServiceLife[Any, Any, Any, Any]
