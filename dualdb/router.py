"""The abstract router: every public and legacy method of the service, written once."""

import logging
import re
from abc import abstractmethod
from functools import partial
from typing import Any, Callable, Dict, Generic, Iterable, List, Optional, Sequence, Set, Union

from . import deadlines, fork_safety
from .api import membership, session_scope
from .api.client import Shared, last_insert
from .api.membership import ChildTasks, LastInserts
from .api.target import Target
from .api.transaction_state import TransactionState
from .api.typevars import (
    CallR,
    ClientT,
    ColumnR,
    ConnectionT,
    CountR,
    DrainR,
    IdsR,
    IntR,
    NoneR,
    ReportR,
    RowR,
    RowsR,
    ScatterT,
    TargetT,
    TransactionT,
    ValueR,
)
from .config import DatabaseConfig
from .deadlines import Deadline
from .directory import keys as key_types
from .directory.ids import IdGenerator, IdLayout
from .directory.lookup import Environment, KeyDirectory
from .directory.routes import DirectoryT, IdsT, KeyRoutes, ScopeT, ServiceRooms
from .directory.sources import HashBuckets, KeyFunction, LookupTable, Source
from .errors import CrossShardError, RoutingError
from .execution import steps, verbs
from .pooling.base import PoolStats
from .sharding.scatter import OnError, Policy
from .sql.parameters import Params
from .topology import admin, lifecycle, routing
from .topology.allowed_hosts import AllowedHosts
from .topology.shard_map import Status
from .topology.status import EventName, Hook, ServiceStatus

log = logging.getLogger("dualdb")


class Router(
    KeyRoutes[TargetT, ScatterT, IntR, ScopeT],
    ServiceRooms[DirectoryT, IdsT, NoneR],
    Target[RowsR, RowR, ValueR, ColumnR, CountR, CallR, TransactionT, ConnectionT],
    Generic[
        RowsR,
        RowR,
        ValueR,
        ColumnR,
        CountR,
        CallR,
        TransactionT,
        ConnectionT,
        IntR,
        IdsR,
        ReportR,
        DrainR,
        NoneR,
        TargetT,
        ScatterT,
        ClientT,
        DirectoryT,
        IdsT,
        ScopeT,
    ],
):
    """A sharded database behind one object: a global database and the shards in its
    shard table.

    The service is itself a target, the global database. A call for a session goes to
    the session's shard; see ``session``.

    Args:
        global_config: the global database, whose pool settings, timeouts and TLS the
            shards share.
        absent_shard: what a session gets whose shard is not in the table or is
            inactive: "global", as the original service had it, with one warning per
            shard id; or "error", a ShardNotFound.
        shard_table: the shard table in the global database, ``name`` or
            ``schema.name``.
        refresh_interval: seconds within which a change of the shard table is in use,
            without a call by anybody; each reading comes a little earlier, at random.
            None to read it when ``refresh`` is called, and when a call misses its
            shard.
        drain_timeout: seconds that work in progress on a shard which is suspended,
            moved or gone is given, after which it is cut.
        allowed_hosts: the hosts that rows of the shard table may name, so that nobody
            who can write there can have credentials sent elsewhere: names
            (``*.db.internal``), addresses, networks (``10.0.0.0/8``). None for all.
        shard_of_key: gives the shard_id of a key, for ``key`` and ``keys``: ``lambda
            user_id: user_id % 4``. It does no I/O, and gives the same for the same key
            always. In asyncio it may be a coroutine function.
        child_tasks: what becomes of a call that another task or thread makes in a
            context which has a transaction open on the database that is called: "warn"
            (outside, with one WARNING for each place), "error" (InterfaceError), or
            "join" (inside, one at a time).
        directory: where the shards of keys are found instead: a LookupTable,
            HashBuckets, or a KeyFunction.
        max_staleness: seconds after which a process that could not read the shard table
            or the directory refuses writes by key (StaleMap); None to go on with what
            it read last.
        id_layout: how the bits of ``ids`` are shared; the same in all processes.
        worker_table: the table of the processes that make ids.
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
        shard_of_key: Optional[Callable[[Any], Any]] = None,
        child_tasks: ChildTasks = "warn",
        directory: Optional[Source] = None,
        max_staleness: Optional[float] = None,
        id_layout: Optional[IdLayout] = None,
        worker_table: str = "dualdb_worker",
    ) -> None:
        if not isinstance(global_config, DatabaseConfig):
            raise TypeError(
                f"the service is made from a DatabaseConfig, not {type(global_config).__name__}; see DatabaseConfig.from_url"
            )
        if absent_shard not in ("global", "error"):
            raise ValueError(f"absent_shard is 'global' or 'error', not {absent_shard!r}")
        if not re.fullmatch(r"[\w$]+(\.[\w$]+)?", shard_table):
            raise ValueError(f"shard_table is name or schema.name, not {shard_table!r}")
        self.global_config = global_config
        self._max_staleness = _max_staleness(max_staleness, refresh_interval)
        self._directory = self._make_directory(directory, shard_of_key)
        self.absent_shard = absent_shard
        self.shard_table = shard_table
        if refresh_interval is not None and not deadlines.seconds(refresh_interval):
            raise ValueError("refresh_interval is a number of seconds above 0, or None")
        self._lifecycle = lifecycle.ServiceLifecycle(
            global_config,
            shard_table,
            self._new_client,
            self._run_exclusive,
            refresh_interval=refresh_interval,
            drain_timeout=deadlines.seconds(drain_timeout),
            allowed=AllowedHosts(allowed_hosts),
        )
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
            lambda: self._lifecycle.topology,
            self._lifecycle.refresh_on_miss,
            membership.checked(child_tasks),
        )
        self._warned: Set[int] = set()
        self._init_runtime()
        fork_safety.register(self)

    def _make_directory(
        self, source: Optional[Source], shard_of_key: Optional[Callable[[Any], Any]]
    ) -> Optional[KeyDirectory]:
        if shard_of_key is not None:
            if source is not None:
                raise TypeError("give the service shard_of_key or directory, not both")
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

    def _forked(self) -> Any:
        self._init_runtime()
        self._lifecycle.forked()
        self._ids.forked()
        if self._directory is not None:
            self._directory.forked()
        return self._restart_after_fork

    def _restart_after_fork(self) -> None:
        """In a forked child, when its parent's connections and locks have been
        forgotten: run again what ran in the background.
        """

    def __repr__(self) -> str:
        state = (
            "not open"
            if self._lifecycle.topology is None
            else f"{len(self._lifecycle.topology.shard_map.shards)} shards"
        )
        return f"<{type(self).__module__}.{type(self).__qualname__} {self.global_config.address}, {state}>"

    # What a colour adds.

    @abstractmethod
    def _init_runtime(self) -> None:
        """Make what the colour needs beside, without I/O and without a loop."""

    @abstractmethod
    def _new_client(self, config: DatabaseConfig, name: str, shard_id: Optional[int]) -> ClientT:
        """A client with a pool of its own, not yet connected."""

    @abstractmethod
    def _new_target(self, route: Any, identify: Any) -> TargetT:
        """A target that goes where ``route`` says, and is the database whose shard id
        ``identify`` gives without I/O.
        """

    @abstractmethod
    def _new_scatter(self, routes: Any, check: Any, policy: Policy, keys: Any = None) -> ScatterT:
        """A target of several shards, with its own ``keys`` for each of them where it
        is one of keys.
        """

    @abstractmethod
    def _run_exclusive(self, plan: steps.Plan[Any], wait: Optional[float] = None) -> Any:
        """Perform a plan while no other such plan of this service runs: opening,
        loading.

        Another one is waited for, for at most ``wait`` seconds; then nothing is done.
        """

    @abstractmethod
    def _run_own(self, plan: steps.Plan[Any]) -> Any:
        """Perform a plan with the steps that are a service's own, whatever else runs:
        closing waits for nobody who opens or loads.
        """

    # Routing.

    def _route(self) -> steps.Executor:
        return self._lifecycle.require_open().global_client

    def _route_to(
        self, shard_id: Optional[int], *, named: bool, refresh_on_miss: bool = True
    ) -> Any:
        topology, life = self._lifecycle.require_open(), self._lifecycle
        transactions = self._callers_transactions()
        for transaction in transactions:
            # What the caller has begun ends where it began, whatever the map says by
            # now.
            began = transaction._begun
            if began.topology is not topology and self._began_for(began, shard_id):
                return began.client
        if shard_id is not None and shard_id not in topology.shard_map.shards:
            if refresh_on_miss and life.may_refresh_on_miss(shard_id):
                decide = partial(self._route_to, shard_id, named=named, refresh_on_miss=False)
                raise steps.UnknownShard(partial(life.refresh_on_miss, shard_id), decide)
            life.check_known(shard_id)
        chosen = routing.choose(
            topology.shard_map,
            shard_id,
            absent=self.absent_shard,
            named=named,
            retry_after=life.retry_after,
        )
        if chosen is not None:
            session_scope.check_lock(self, chosen)
            client = topology.clients[chosen]
            return client._check_cross_shard(transactions) if transactions else client
        if shard_id is not None and shard_id not in self._warned:
            self._warned.add(shard_id)
            log.warning(
                "shard %d is absent from the shard table or inactive: its sessions use the global database",
                shard_id,
            )
        return topology.global_client

    def _callers_transactions(self) -> Sequence[Any]:
        """The outermost transactions on this service in which the caller takes part."""
        if self._lifecycle.topology is None:
            return ()
        found: Sequence[Any] = self._lifecycle.topology.global_client._callers_transactions()
        return found

    def _began_for(self, began: TransactionState, shard_id: Optional[int]) -> bool:
        """Whether a call for this shard would have gone where the transaction is, when
        it began.
        """
        before = began.topology
        if before is None:
            return False
        try:
            chosen = routing.choose(before.shard_map, shard_id, absent=self.absent_shard)
        except RoutingError:
            return False
        client = before.global_client if chosen is None else before.clients[chosen]
        return bool(client is began.client)

    def shard(self, shard_id: int) -> TargetT:
        """One shard, named outright.

        Its verbs raise ShardUnavailable (``Shard 7 not available``) where it cannot be
        used, whatever ``absent_shard`` says.

        Raises:
            ParameterError: the id is not an int.
        """
        number = routing.shard_id_of(shard_id)
        return self._new_target(lambda: self._route_to(number, named=True), lambda: number)

    def shards(
        self,
        shard_ids: Optional[Iterable[int]] = None,
        *,
        on_error: OnError = "raise",
        min_ok: Optional[int] = None,
        max_concurrency: int = 16,
    ) -> ScatterT:
        """Several shards as one target: all that are in the shard table and not
        inactive, or those that are named.

        Args:
            on_error: what becomes of a call that fails on some of them: "raise" a
                ScatterError that has what the others gave, or "partial", to be given
                that with the errors beside it.
            min_ok: how many shards must answer, where not all must; the others are
                in the result's ``errors``.
            max_concurrency: the most shards that are called at the same time.

        Raises:
            ParameterError: an id is not an int, or one of the others is none of these.
        """
        named = (
            None
            if shard_ids is None
            else sorted({routing.shard_id_of(shard_id) for shard_id in shard_ids})
        )
        return self._scatter(named, Policy(on_error, max_concurrency, min_ok))

    def _scatter(
        self,
        named: Optional[List[int]],
        policy: Policy,
        keys: Any = None,
    ) -> ScatterT:
        return self._new_scatter(
            lambda: self._routes(named),
            self._refuse_inside_transaction,
            policy.checked(named),
            keys,
        )

    def _routes(self, named: Optional[List[int]]) -> Dict[int, steps.Route]:
        known = self._lifecycle.require_open().shard_map.shards
        ids = (
            sorted(key for key, shard in known.items() if shard.status is not Status.INACTIVE)
            if named is None
            else named
        )
        for shard_id in ids:
            session_scope.check_lock(self, shard_id)
        return {shard_id: partial(self._route_to, shard_id, named=True) for shard_id in ids}

    def _refuse_inside_transaction(self) -> None:
        if any(each.shard_id is not None for each in self._callers_transactions()):
            raise CrossShardError(
                "a call to several shards cannot be part of a transaction on one: end it first"
            ).with_context(None, sent=False)

    def session(self, client_session: Any) -> TargetT:
        """The database of a session, by its ``client_session.session.shard_id``, looked
        up at each call.

        No session, no ``.session``, or a ``shard_id`` that is None or missing: the
        global database. A shard that is absent: see ``absent_shard``. A shard that is
        suspended or cannot be reached: ShardUnavailable, never another database.
        """
        return self._new_target(
            lambda: self._route_to(routing.shard_of(client_session), named=False),
            partial(self._identity_of_session, client_session),
        )

    @property
    def name(self) -> str:
        """``"global"``: as a target the service is the global database."""
        return "global"

    @property
    def shard_id(self) -> None:
        """None: as a target the service is the global database."""
        return None

    # Life.

    def init_service(self) -> NoneR:
        """Connect to the global database, load the shard table, connect to the shards.

        Does nothing where that has been done.

        A shard that cannot be reached is unavailable and is tried again in the
        background; a row that cannot be used hurts its shard alone; without a shard
        table the service runs on the global database and says so in the log.

        Raises:
            ConnectionFailed: the global database cannot be reached.
            Error: the shard table cannot be read, other than by not existing.
        """
        return self._run_exclusive(self._lifecycle.start())

    def close_service(self, timeout: Optional[float] = None) -> NoneR:
        """Close all pools: idle connections at once, those in use when they come back.

        ``init_service`` opens the service again.

        With a ``timeout`` in seconds it waits that long for what is in use, and then
        breaks it.
        """
        return self._run_own(self._stop(timeout))

    def _stop(self, timeout: Optional[float]) -> steps.Plan[None]:
        yield from self._ids.release()
        yield from self._lifecycle.stop(timeout)

    def deadline(self, timeout: float) -> Deadline:
        """A limit, in seconds, over all that is done inside a block: ``with
        db.deadline(1.5):``, in asyncio too.

        It covers the waiting for connections, connecting, repeating, and the statements
        with their answers; what is late raises DeadlineExceeded, or WriteTimedOut where
        a write had been sent, and is ended on the server. A single call takes
        ``timeout=``.

        Raises:
            ParameterError: not a number from 0 up.
        """
        return Deadline(timeout)

    def stats(self) -> Dict[Union[str, int], PoolStats]:
        """The figures of every pool, by "global" and shard id, without I/O.

        Empty while the service is not open.
        """
        topology = self._lifecycle.topology
        if topology is None:
            return {}
        return {
            "global": topology.global_client.stats(),
            **{key: client.stats() for key, client in topology.clients.items()},
        }

    def refresh(self) -> NoneR:
        """Read the shard table now and put it into use; shards that it has not changed
        keep their pools.

        Raises:
            Error: the table cannot be read, and the last map stays in use.
        """
        return self._run_exclusive(self._lifecycle.refresh())

    def status(self) -> ServiceStatus:
        """The service as it knows itself, without I/O: the map's version and age, each
        shard's state, reason and pool figures.
        """
        return self._lifecycle.status()

    def on(self, event: EventName, hook: Optional[Hook] = None) -> Any:
        """Have a function called with an ``Event`` when the shard map has changed:
        ``db.on("shard_added", tell)`` or ``@db.on(...)``.

        Hooks are called one after the other, in the order of the versions, by whoever
        read the shard table, which is mostly the background; in asyncio they may be
        coroutine functions. One that fails is logged.

        Raises:
            ValueError: there is no such event.
        """
        if hook is None:
            return lambda hook: self.on(event, hook)
        self._lifecycle.on(event, hook)
        return hook

    def load_shard_configs(self) -> NoneR:
        """Read the shard table into ``shard_configs``.

        ``init_shard_connections`` puts what was read into use.

        Where the table cannot be read, the last map stays, and the error is raised.
        """
        return self._run_exclusive(self._lifecycle.load())

    def init_shard_connections(self) -> NoneR:
        """Put the loaded shards into use: open what is new or has moved, close what is
        gone; unchanged shards keep their pools.
        """
        return self._run_exclusive(self._lifecycle.apply())

    @property
    def global_client(self) -> Optional[ClientT]:
        """The global database's client; None while the service is not open."""
        return None if self._lifecycle.topology is None else self._lifecycle.topology.global_client

    @property
    def shard_clients(self) -> Dict[int, ClientT]:
        """The clients of the shards that can be used now, by shard id: a copy."""
        topology = self._lifecycle.topology
        return (
            {}
            if topology is None
            else {
                key: client
                for key, client in topology.clients.items()
                if client.pool.breaker.failure is None
            }
        )

    @property
    def shard_configs(self) -> Dict[int, DatabaseConfig]:
        """The configurations of the active shards as last loaded, by shard id: a copy."""
        loaded = self._lifecycle.loaded
        configs = {key: loaded.shards[key].config for key in loaded.active}
        return {key: config for key, config in configs.items() if config is not None}

    # The shard table, changed from here.

    def add_shard(
        self,
        shard_id: int,
        *,
        host: str,
        database: str,
        user: str,
        password: str,
        port: int = 3306,
        status: str = "active",
        name: Optional[str] = None,
        max_connections: Optional[int] = None,
        privileges: Sequence[str] = admin.PRIVILEGES,
    ) -> NoneR:
        """Add a shard: it is connected to and the account's ``privileges`` are looked
        at before its row is written; then it is in use.

        Args:
            password: is written as it stands; ``env:NAME`` or ``file:PATH`` keeps the
                secret out of the table.
            name, max_connections: need columns ``shard_name`` and ``max_connections``.
            privileges: what the account must have been granted itself, on the server or
                the database. Give () for one that has them by a role or on single
                tables.

        Raises:
            ParameterError: the row would be unusable, there is one with this id, or a
                privilege is missing.
            ShardUnavailable: it cannot be connected to.
        """
        row = {
            "shard_id": routing.shard_id_of(shard_id),
            "host": host,
            "port": port,
            "database_name": database,
            "username": user,
            "password": password,
            "status": status,
            "shard_name": name,
            "max_connections": max_connections,
        }
        return self._run_exclusive(admin.add(self._lifecycle, row, privileges))

    def set_shard_status(self, shard_id: int, status: str) -> NoneR:
        """Write a shard's status: "active", "readonly", "maintenance" or "inactive".

        In use here at once, elsewhere by refreshing.

        Raises:
            ParameterError: no such status, no such shard, or a status column that does
                not take the word.
        """
        return self._run_exclusive(
            admin.set_status(self._lifecycle, routing.shard_id_of(shard_id), status)
        )

    def drain_shard(self, shard_id: int, timeout: float = 30.0) -> DrainR:
        """Make a shard inactive and wait for its work in progress; what is left of that
        after ``timeout`` seconds is cut.

        Gives a DrainReport. Raises: ParameterError, no such shard.
        """
        number = routing.shard_id_of(shard_id)
        return self._run(
            admin.drain(
                self._lifecycle,
                lambda plan: steps.Exclusive(self._run_exclusive, plan),
                number,
                timeout,
            )
        )

    def remove_shard(self, shard_id: int) -> NoneR:
        """Delete the row of a shard that is out of service.

        Raises:
            ParameterError: no such shard, or it is in service: drain it first.
        """
        return self._run_exclusive(admin.remove(self._lifecycle, routing.shard_id_of(shard_id)))

    # Clients.

    def get_global_client(self) -> ClientT:
        """The global database's client.

        Raises:
            ServiceNotOpen: (a RuntimeError) the service is not open.
        """
        client: ClientT = self._lifecycle.require_open().global_client
        return client

    def get_shard_client(self, shard_id: int) -> Optional[ClientT]:
        """The shard's client, or None where the shard cannot be used now."""
        return self.shard_clients.get(routing.shard_id_of(shard_id))

    def get_client_by_session(self, client_session: Any) -> ClientT:
        """The client of a session's database, by the rule of ``session``.

        Raises: ShardUnavailable, ShardNotFound, ParameterError, ServiceNotOpen.
        """
        client: ClientT = self._route_to(
            routing.shard_of(client_session), named=False, refresh_on_miss=False
        )
        return client

    # The original service's methods. Procedures give the rows of all result sets in one
    # list; queries their rows; updates the number of affected rows. ``params`` is never
    # None by default, so as in the drivers ``%%`` stands for a percent sign.

    def call_global_procedure(self, procedure_name: str, params: Sequence[Any] = ()) -> RowsR:
        """Call a procedure on the global database."""
        return self._run(verbs.call_rows(self._route, procedure_name, params))

    def execute_global_query(self, query: str, params: Params = ()) -> RowsR:
        """The rows of a query on the global database."""
        return self.query(query, params)

    def call_global_procedure_update(self, query: str, params: Params = ()) -> CountR:
        """The affected rows of an update on the global database.

        Takes a statement, whatever its name says.
        """
        return self.execute(query, params)

    def call_global_read_query(self, query: str, params: Params = ()) -> RowsR:
        """The rows of a query on the global database."""
        return self.query(query, params)

    def call_shard_procedure(
        self, shard_id: int, procedure_name: str, params: Sequence[Any] = ()
    ) -> RowsR:
        """Call a procedure on a shard."""
        return self._run(
            verbs.call_rows(
                lambda: self._route_to(routing.shard_id_of(shard_id), named=True),
                procedure_name,
                params,
            )
        )

    def execute_shard_procedure(
        self, shard_id: int, procedure_name: str, params: Sequence[Any] = ()
    ) -> RowsR:
        """Call a procedure on a shard."""
        return self.call_shard_procedure(shard_id, procedure_name, params)

    def execute_shard_query(self, shard_id: int, query: str, params: Params = ()) -> RowsR:
        """The rows of a query on a shard."""
        return self._run(
            verbs.query(
                lambda: self._route_to(routing.shard_id_of(shard_id), named=True), query, params
            )
        )

    def call_shard_procedure_update(self, shard_id: int, query: str, params: Params = ()) -> CountR:
        """The affected rows of an update on a shard.

        Takes a statement, whatever its name says.
        """
        return self._run(
            verbs.execute(
                lambda: self._route_to(routing.shard_id_of(shard_id), named=True), query, params
            )
        )

    def call_shard_read_query(self, shard_id: int, query: str, params: Params = ()) -> RowsR:
        """The rows of a query on a shard."""
        return self.execute_shard_query(shard_id, query, params)

    def call_procedure_by_session(
        self, client_session: Any, procedure_name: str, params: Sequence[Any] = ()
    ) -> RowsR:
        """Call a procedure on a session's database."""
        return self._run(
            verbs.call_rows(
                lambda: self._route_to(routing.shard_of(client_session), named=False),
                procedure_name,
                params,
            )
        )

    def execute_query_by_session(
        self, client_session: Any, query: str, params: Params = ()
    ) -> RowsR:
        """The rows of a query on a session's database."""
        return self._run(
            verbs.query(
                lambda: self._route_to(routing.shard_of(client_session), named=False),
                query,
                params,
            )
        )

    # Older names still, for the global database.

    def call_stored_procedure(self, procedure_name: str, params: Sequence[Any] = ()) -> RowsR:
        """Call a procedure on the global database."""
        return self.call_global_procedure(procedure_name, params)

    def call_procedure(self, procedure_name: str, params: Sequence[Any] = ()) -> RowsR:
        """Call a procedure on the global database."""
        return self.call_global_procedure(procedure_name, params)

    def execute_query(self, query: str, params: Params = ()) -> RowsR:
        """The rows of a query on the global database."""
        return self.query(query, params)

    def execute_non_query(self, query: str, params: Params = ()) -> CountR:
        """The affected rows of an update on the global database."""
        return self.execute(query, params)

    def get_last_insert_id(self) -> IntR:
        """The id of the last insert that this thread or task made through this service,
        on whichever database; 0 where there was none.
        """
        return self._run(last_insert(self._inserts, self._owner))

    @staticmethod
    @abstractmethod
    def _owner() -> Any:
        """The Thread or Task that is calling."""

    # Others.

    def get_active_shard_ids(self) -> IdsR:
        """The ids of the active shards by the shard table as it is now, sorted; by the
        last map where the table cannot be read.
        """
        return self._run(self._lifecycle.active_ids())

    def get_transaction(self) -> TransactionT:
        """A transaction on the global database, under the original's name; see
        ``transaction``.

        In asyncio ``async with await service.get_transaction()`` and ``async with
        service.get_transaction()`` both work.
        """
        return self.transaction()

    def health_check(self) -> ReportR:
        """Ask every database for a sign of life, all at the same time.

        Gives ``{"healthy": bool, "global": {...}, "shards": {id: {...}}}``, each part
        with ``healthy``, ``status`` and, where something is wrong, ``error``. Healthy
        means that the global database and every active shard answered.
        """
        return self._run(self._lifecycle.health())


def _max_staleness(
    max_staleness: Optional[float], refresh_interval: Optional[float]
) -> Optional[float]:
    if max_staleness is None:
        return None
    seconds = deadlines.seconds(max_staleness)
    if refresh_interval is None or seconds <= refresh_interval:
        raise ValueError(
            "max_staleness must be above refresh_interval, within which the map is confirmed"
        )
    return seconds


AnyRouter = Router[
    Any, Any, Any, Any, Any, Any, Any, Any, Any, Any, Any, Any, Any, Any, Any, Any, Any, Any, Any
]
