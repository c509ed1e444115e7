"""The base of the services, shared by threads and asyncio."""

import re
from abc import abstractmethod
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Generic,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
)

from . import deadlines, fork_safety
from .api import membership, session_scope
from .api.database_client import Shared
from .api.interfaces import ServiceInternals
from .api.legacy import Legacy
from .api.membership import ChildTasks, LastInserts
from .api.reading import Readable, ReadAdmin
from .api.service_base import ServicePart
from .api.service_life import ServiceLife
from .api.shard_admin import ShardAdmin
from .api.typevars import ClientT, ScatterT, TargetT
from .config import DatabaseConfig
from .coordination.coordinator import Coordinator
from .coordination.decision_log import TABLE
from .coordination.outbox import OutboxTable
from .coordination.recovery import GRACE
from .directory import keys as key_types
from .directory.ids import IdGenerator, IdLayout
from .directory.lookup import Environment, KeyDirectory
from .directory.sources import HashBuckets, KeyFunction, LookupTable, Source
from .errors import CrossShardError
from .execution import steps
from .execution.reads import PrimaryReader
from .observability.observers import Observers
from .sharding.calls import Keys, OnError, Policy
from .topology import passwords, routing
from .topology.allowed_hosts import AllowedHosts
from .topology.health import HealthCheck
from .topology.lifecycle import ServiceLifecycle
from .topology.replicas import ReplicaOptions
from .topology.table_reader import DEFAULT_MAX_SHARDS

if TYPE_CHECKING:
    from .coordination.facade import Coordination
    from .coordination.outbox_facade import Outbox
    from .operations.facade import Operations
    from .operations.kinds import KindT, ServiceOf

__all__ = ["Legacy", "Router", "Routing", "ServiceLife", "ShardAdmin"]

SessionShard = Callable[[Any], Optional[int]]


class Routing(ServicePart, Readable[TargetT], Generic[TargetT, ScatterT, ClientT]):
    """Selection of databases by shard, key and session, and access to their clients."""

    _shard_of_session: SessionShard

    #: The implementation's target, made of the route of its calls and a function that
    #: returns the shard id of its database without I/O.
    _target_class: Callable[..., TargetT]
    #: The implementation's target of several shards; see ``BaseScatter``.
    _scatter_class: Callable[..., ScatterT]
    _coordinator: Coordinator

    _identity_of_session: Callable[..., Optional[int]]

    @abstractmethod
    def _callers_transactions(self) -> Sequence[Any]:
        """Return the outermost transactions the caller has open on this service."""

    def _target_on(self, route: steps.Route) -> TargetT:
        return self._target_class(route, lambda: None)

    def _shard_route(self, shard_id: int) -> steps.Route:
        return routing.ShardRoute(self._resolver, shard_id)

    def _session_route(self, client_session: object) -> steps.Route:
        return routing.SessionRoute(self._resolver, client_session, self._shard_of_session)

    def shard(self, shard_id: int) -> TargetT:
        """Return a target for one shard.

        Its methods raise ShardUnavailable (``Shard 7 not available``) if the shard
        cannot be used, regardless of ``absent_shard``.

        Args:
            shard_id: The shard's id.

        Returns:
            A target; nothing is sent and the id is not looked up yet.

        Raises:
            ParameterError: The id is not an int.

        Example:
            >>> db.shard(2).query("SELECT symbol FROM trades WHERE user_id = %s", (7,))
            [{'symbol': 'ABC'}]
        """
        number = routing.shard_id_of(shard_id)
        return self._target_class(self._shard_route(number), lambda: number)

    def shards(
        self,
        shard_ids: Optional[Iterable[int]] = None,
        *,
        on_error: OnError = "raise",
        min_ok: Optional[int] = None,
        max_concurrency: int = 16,
    ) -> ScatterT:
        """Return a target for several shards.

        Args:
            shard_ids: The shards' ids; by default all shards in the shard table that
                are not inactive. By default, if several rows name one database, only
                the one with the smallest id is used, so that nothing is counted twice.
            on_error: If a call fails on some shards, "raise" a ScatterError that has
                the other results, or return a "partial" result that has the errors.
            min_ok: How many shards must succeed, if not all; the errors of the others
                are in the result's ``errors``.
            max_concurrency: The most shards that are called at the same time.

        Returns:
            A target whose methods return a ScatterResult.

        Raises:
            ParameterError: An id is not an int, or another argument is invalid.

        Example:
            >>> sum(db.shards().query_value("SELECT COUNT(*) FROM trades").values)
            3
        """
        named = (
            None
            if shard_ids is None
            else sorted({routing.shard_id_of(shard_id) for shard_id in shard_ids})
        )
        return self._scatter(named, Policy(on_error, max_concurrency, min_ok))

    def session(self, client_session: object) -> TargetT:
        """Return a target for a session's database.

        ``client_session.session.shard_id`` is read at each call. If the session,
        ``.session`` or ``shard_id`` is None, it is the global database; for a shard
        that is absent see ``absent_shard``. A shard that is suspended or unreachable
        raises ShardUnavailable; its calls never use another database.

        Args:
            client_session: None, an object with ``.session`` (see ``ClientSession``),
                or a mapping of the same shape; or anything that the service's
                ``session_shard`` accepts. If ``.session`` or ``shard_id`` is missing,
                it is the global database, as in the original service, or an error with
                ``absent_shard="error"``.

        Returns:
            A target; nothing is sent yet.

        Raises:
            ParameterError: (From its methods.) It is not a session, or its shard_id is
                neither None nor an int.

        Example:
            >>> db.session(client_session).call("get_portfolio", (7,)).rows
            [{'symbol': 'ABC', 'quantity': 10}]
        """
        return self._target_class(
            self._session_route(client_session),
            partial(self._identity_of_session, client_session),
        )

    def engine(self, name: str) -> TargetT:
        """Return a database beside the shards, for reads alone: a Spider head, for
        instance, that queries all shards as one.

        It is connected to by the first call. A statement that is not known to be a read
        is refused before it is sent (ReadOnlyTargetError).

        Args:
            name: A name of ``engines``.

        Raises:
            ParameterError: There is no such name.
            ServiceNotOpen: (from calls) The service is not open.

        Example:
            >>> db.engine("analytics").query_value("SELECT COUNT(*) FROM trades")
            42
        """
        self._lifecycle.engines.require(name)

        def route(until: Optional[float] = None) -> steps.Plan[Any]:
            yield from ()
            self._lifecycle.require_open()
            return PrimaryReader(self._lifecycle.engines.client(name))

        return self._target_on(route)

    def get_global_client(self) -> ClientT:
        """Return the global database's client.

        Raises:
            ServiceNotOpen: (A RuntimeError.) The service is not open.
        """
        client: ClientT = self._lifecycle.manager.require_open().global_client.facade
        return client

    def get_shard_client(self, shard_id: int) -> Optional[ClientT]:
        """Return a shard's client, or None if the shard cannot be used now.

        Args:
            shard_id: The shard's id.

        Raises:
            ParameterError: The id is not an int.
        """
        number = routing.shard_id_of(shard_id)
        topology = self._lifecycle.manager.topology
        client = None if topology is None else topology.clients.get(number)
        return None if client is None or client.failure is not None else client.facade

    def get_client_by_session(self, client_session: object) -> ClientT:
        """Return the client of a session's database, selected as by ``session``.

        Args:
            client_session: As for ``session``.

        Raises:
            ShardUnavailable: The shard is suspended, or its row cannot be used.
            ShardNotFound: The shard is absent, with ``absent_shard="error"``.
            ParameterError: It is not a session.
            ServiceNotOpen: The service is not open.
        """
        found = self._resolver.find(self._shard_of_session(client_session), named=False)
        client: ClientT = found.facade
        return client

    def _scatter(
        self,
        named: Optional[List[int]],
        policy: Policy,
        keys: Optional[Keys] = None,
    ) -> ScatterT:
        return self._scatter_class(
            self._coordinator,
            lambda: self._routes(named),
            self._refuse_inside_transaction,
            policy.checked(named),
            keys=keys,
        )

    def _routes(self, named: Optional[List[int]]) -> Dict[int, steps.Route]:
        shard_map = self._lifecycle.manager.require_open().shard_map
        ids = routing.scatter_ids(shard_map, named)
        for shard_id in ids:
            session_scope.check_lock(self, shard_id)
        return {shard_id: self._shard_route(shard_id) for shard_id in ids}

    def _refuse_inside_transaction(self) -> None:
        if any(each.shard_id is not None for each in self._callers_transactions()):
            raise CrossShardError(
                "a call to several shards cannot be part of a transaction on one shard"
            ).with_context(None, sent=False)


class Router(ReadAdmin, ServicePart):
    """A sharded database behind one object: a global database and the shards in its
    shard table.

    The service is itself a target, the global database. A call for a session goes to
    the session's shard; see ``session``.

    Args:
        global_config: The global database. Shards inherit its pool settings, timeouts
            and TLS.
        absent_shard: The database of a session whose shard is not in the table or is
            inactive: "global", as in the original service, with one warning per shard
            id; or "error", a ShardNotFound. With "error", an object without
            ``.session`` and a session without ``shard_id`` are errors, too.
        shard_table: The shard table in the global database, ``name`` or
            ``schema.name``.
        refresh_interval: Seconds within which changes of the shard table take effect;
            each interval is shortened randomly by up to a quarter. None to read the
            table only when ``refresh`` is called or a call misses its shard.
        drain_timeout: Seconds until work in progress is aborted on a shard that was
            suspended, moved or removed.
        allowed_hosts: The hosts that rows of the shard table may name, so that write
            access to the table does not allow redirecting credentials: names
            (``*.db.internal``), addresses, networks (``10.0.0.0/8``), each optionally
            with a port (``db1:3306``). None allows all.
        allowed_references: The password references that rows may contain: ``env:NAME``
            and ``file:PATH``, in which ``*`` matches any characters but ``/``. None
            allows all.
        max_shards: The maximum number of rows of the shard table; if there are more,
            reading fails and the last map stays in use.
        session_shard: Returns the shard_id of a session that has another shape than
            ``client_session.session.shard_id``, or None for the global database.
        shard_of_key: Returns the shard_id of a key, for ``key`` and ``keys``: ``lambda
            user_id: user_id % 4``. It must do no I/O and be deterministic. In asyncio
            it may be a coroutine function.
        directory: A LookupTable, HashBuckets or KeyFunction that maps keys to shards,
            in place of ``shard_of_key``.
        max_staleness: Seconds after which a process that could not read the shard table
            or the directory refuses writes by key (StaleMap); None to continue with the
            last known mapping.
        id_layout: The bit layout of ``ids``; must be the same in all processes.
        worker_table: The table that registers the processes which generate ids.
        child_tasks: Handling of a call that a child task or thread makes in a context
            with an open transaction on the called database: "warn" (it runs outside the
            transaction, with one WARNING per code location), "error" (InterfaceError),
            or "join" (it runs inside, one call at a time).
        slow_threshold: The seconds from which on a call is logged as slow, with its
            statement, without values, and the line of its caller; None for no log.
        digests: Count calls by statement, for ``top``.
        xa_table: The table with the decisions about XA transactions, in the global
            database; a second one has ``_lease`` after its name.
        xa_grace: Seconds after which an XA transaction that its process has left is
            finished in the background by another; None for no such work.
        outbox: The table of events, if it is not ``dualdb_outbox``; see ``tx.outbox``.
        replicas: How ``read`` uses replicas, if not by the defaults.
        engines: Databases that ``engine`` queries, by their names.

    Attributes:
        global_config: As given.
        absent_shard: As given.
        shard_table: As given.
    """

    def __init__(
        self,
        global_config: DatabaseConfig,
        *,
        absent_shard: routing.AbsentShard = "global",
        shard_table: str = "table_shard_config",
        refresh_interval: Optional[float] = 5.0,
        drain_timeout: float = 30.0,
        allowed_hosts: Optional[Iterable[str]] = None,
        allowed_references: Optional[Iterable[str]] = passwords.DEFAULT_REFERENCES,
        max_shards: int = DEFAULT_MAX_SHARDS,
        session_shard: Optional[SessionShard] = None,
        shard_of_key: Optional[Callable[[Any], Any]] = None,
        directory: Optional[Source] = None,
        max_staleness: Optional[float] = None,
        id_layout: Optional[IdLayout] = None,
        worker_table: str = "dualdb_worker",
        child_tasks: ChildTasks = "warn",
        slow_threshold: Optional[float] = None,
        digests: bool = False,
        xa_table: str = TABLE,
        xa_grace: Optional[float] = GRACE,
        outbox: Optional[OutboxTable] = None,
        replicas: Optional[ReplicaOptions] = None,
        engines: Optional[Mapping[str, DatabaseConfig]] = None,
    ) -> None:
        if not isinstance(global_config, DatabaseConfig):
            raise TypeError(
                f"global_config must be a DatabaseConfig, not {type(global_config).__name__}; "
                "see DatabaseConfig.from_url"
            )
        _check_options(absent_shard, shard_table, refresh_interval, max_shards)
        if session_shard is not None and not callable(session_shard):
            raise TypeError(f"session_shard must be a function, not {type(session_shard).__name__}")
        self.global_config = global_config
        self.absent_shard = absent_shard
        self.shard_table = shard_table
        self._max_staleness = _max_staleness(max_staleness, refresh_interval)
        self._shard_of_session = routing.session_reader(
            session_shard, strict=absent_shard == "error"
        )
        self._observers = Observers(
            awaits=self._awaits,
            slow_threshold=None if slow_threshold is None else deadlines.seconds(slow_threshold),
            digests=digests,
        )
        self._lifecycle = ServiceLifecycle(
            global_config,
            shard_table,
            self._new_client,
            self._run_exclusive,
            refresh_interval=refresh_interval,
            drain_timeout=deadlines.seconds(drain_timeout),
            allowed=AllowedHosts(allowed_hosts),
            references=passwords.AllowedReferences(allowed_references),
            max_shards=max_shards,
            observers=self._observers,
        )
        replica_manager = self._lifecycle.use_replicas(_replica_options(replicas))
        self._lifecycle.use_engines(engines or {})
        self._health = HealthCheck(self._lifecycle)
        self._resolver = routing.RouteResolver(
            self._lifecycle,
            absent_shard,
            self._callers_transactions,
            partial(session_scope.check_lock, self),
        )
        self._directory = self._make_directory(directory, shard_of_key)
        self._ids = IdGenerator(
            id_layout or IdLayout(),
            key_types.table_name(worker_table, "worker_table"),
            lambda: self._lifecycle.require_open().global_client,
            self._run_exclusive,
        )
        self._inserts = LastInserts()
        self._shared = Shared(
            self._inserts,
            set(),
            lambda: self._lifecycle.manager.topology,
            self._lifecycle.refresh_on_miss,
            membership.checked(child_tasks),
            self._observers,
            _outbox_table(outbox),
            None if self._directory is None else self._directory.cache.clear,
            replica_manager,
        )
        self._coordinator = Coordinator(
            key_types.table_name(xa_table, "xa_table"),
            xa_grace,
            self._lifecycle.require_open,
            self._callers_transactions,
        )
        self._lifecycle.maintenance.add_chore("finishing XA transactions", self._coordinator.tick)
        self._internals = ServiceInternals(
            self._lifecycle,
            self._directory,
            self._observers,
            self._shared,
            self._coordinator,
            self._ids.table,
            self._new_client,
            self._shard_of_session,
        )
        self._init_runtime()
        fork_safety.register(self)

    def _forked(self) -> Any:
        self._init_runtime()
        self._lifecycle.forked()
        self._ids.forked()
        self._coordinator.forked()
        if self._directory is not None:
            self._directory.forked()
        return self._restart_after_fork

    def _restart_after_fork(self) -> None:
        """Restart the background work in a forked child, after inherited connections
        and locks have been discarded.
        """

    def __repr__(self) -> str:
        topology = self._lifecycle.manager.topology
        state = "not open" if topology is None else f"{len(topology.shard_map.shards)} shards"
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return f"<{name} {self.global_config.address}, {state}>"

    @abstractmethod
    def _init_runtime(self) -> None:
        """Create the implementation's own state, without I/O and without a loop."""

    #: The implementation's DatabaseClient.
    _database_client_class: Callable[..., Any]

    def _new_client(self, config: DatabaseConfig, name: str, shard_id: Optional[int]) -> Any:
        """Make a client with its own pool, not yet connected."""
        return self._database_client_class(
            config, name=name, shard_id=shard_id, shared=self._shared
        )

    def _make_directory(
        self, source: Optional[Source], shard_of_key: Optional[Callable[[Any], Any]]
    ) -> Optional[KeyDirectory]:
        if shard_of_key is not None:
            if source is not None:
                raise TypeError("shard_of_key and directory exclude each other")
            source = KeyFunction(shard_of_key)
        if source is None:
            return None
        if not isinstance(source, (LookupTable, HashBuckets, KeyFunction)):
            raise TypeError(
                "directory must be a LookupTable, HashBuckets or KeyFunction, "
                f"not {type(source).__name__}"
            )
        environment = Environment(
            lambda: self._lifecycle.require_open().global_client,
            self._candidates,
            lambda: self._lifecycle.require_open().shard_map.shards,
            self._awaits,
            self._max_staleness,
        )
        return KeyDirectory(source, environment)

    @property
    def name(self) -> str:
        """``"global"``: as a target the service is the global database."""
        return "global"

    @property
    def shard_id(self) -> None:
        """None: as a target the service is the global database."""
        return None

    @property
    def operations(self: "ServiceOf[KindT]") -> "Operations[KindT]":
        """What is done to many databases at once: SQL on all shards, migrations, the
        comparison of schemas and rows, jobs, the doctor.
        """
        # imported when it is asked for: most processes never do
        from .operations.facade import Operations  # noqa: PLC0415
        from .operations.places import Databases  # noqa: PLC0415

        return Operations(Databases(self))

    @property
    def coordination(self: "ServiceOf[KindT]") -> "Coordination[KindT]":
        """The XA transactions of this service: what is in doubt, and finishing it."""
        from .coordination.facade import Coordination  # noqa: PLC0415
        from .operations.places import Databases  # noqa: PLC0415

        return Coordination(Databases(self))

    @property
    def outbox(self: "ServiceOf[KindT]") -> "Outbox[KindT]":
        """The events that transactions have written with ``tx.outbox``: consume them,
        and see how many are pending.
        """
        from .coordination.outbox_facade import Outbox  # noqa: PLC0415
        from .operations.places import Databases  # noqa: PLC0415

        return Outbox(Databases(self))

    def _stop(self, timeout: Optional[float]) -> steps.Plan[None]:
        yield from self._ids.release()
        yield from self._coordinator.close()
        yield from self._lifecycle.stop(timeout)

    _awaits: bool

    _candidates: Callable[..., Any]

    def _route(self, until: Optional[float] = None) -> steps.Plan[steps.Executor]:
        yield from ()
        client: steps.Executor = self._lifecycle.manager.require_open().global_client
        return client

    def _callers_transactions(self) -> Sequence[Any]:
        """Return the outermost transactions on this service that the caller is in."""
        topology = self._lifecycle.manager.topology
        if topology is None:
            return ()
        found: Sequence[Any] = topology.global_client.callers_transactions()
        return found


def _check_options(
    absent_shard: str, shard_table: str, refresh_interval: Optional[float], max_shards: int
) -> None:
    if absent_shard not in ("global", "error"):
        raise ValueError(f"absent_shard must be 'global' or 'error', not {absent_shard!r}")
    if not re.fullmatch(r"[\w$]+(\.[\w$]+)?", shard_table):
        raise ValueError(f"shard_table must be name or schema.name, not {shard_table!r}")
    if refresh_interval is not None and not deadlines.seconds(refresh_interval):
        raise ValueError("refresh_interval must be a number of seconds above 0, or None")
    if type(max_shards) is not int or max_shards < 1:
        raise ValueError(f"max_shards must be an int from 1 up, not {max_shards!r}")


def _outbox_table(outbox: Optional[OutboxTable]) -> OutboxTable:
    if outbox is not None and not isinstance(outbox, OutboxTable):
        raise TypeError(f"outbox must be an OutboxTable, not {type(outbox).__name__}")
    return outbox or OutboxTable()


def _replica_options(replicas: Optional[ReplicaOptions]) -> ReplicaOptions:
    if replicas is not None and not isinstance(replicas, ReplicaOptions):
        raise TypeError(f"replicas must be ReplicaOptions, not {type(replicas).__name__}")
    return replicas or ReplicaOptions()


def _max_staleness(
    max_staleness: Optional[float], refresh_interval: Optional[float]
) -> Optional[float]:
    if max_staleness is None:
        return None
    seconds = deadlines.seconds(max_staleness)
    if refresh_interval is None or seconds <= refresh_interval:
        raise ValueError("max_staleness must be greater than refresh_interval")
    return seconds
