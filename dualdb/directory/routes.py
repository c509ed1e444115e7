"""The mixins of the router for keys, ids and scopes."""

from abc import abstractmethod
from functools import partial
from typing import (
    Any,
    Callable,
    Dict,
    Generic,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
)

from .. import deadlines, errors
from ..api import session_scope
from ..api.typevars import IntR, NoneR, ScatterT, TargetT
from ..errors import ParameterError
from ..execution import steps
from ..sharding.calls import Keys, OnError, Policy
from ..topology import readiness, routing
from ..topology.shard_map import Status
from .explain import RouteExplanation, RouteReason, explain
from .ids import IdGenerator
from .lookup import KeyDirectory, key_not_found
from .placement import Candidate
from .staleness import FrozenExecutor

DirectoryT = TypeVar("DirectoryT")  # the Directory of threads or of asyncio
IdsT = TypeVar("IdsT")  # the Ids of threads or of asyncio
ScopeT = TypeVar("ScopeT")  # the Scope of threads or of asyncio


class KeyRoute:
    """The route of calls for a key.

    Args:
        key: The key.
        route: Finds the executor of its shard.
        identify: Returns the shard id, without I/O.
    """

    def __init__(
        self, key: object, route: steps.Route, identify: Callable[[], Optional[int]]
    ) -> None:
        self.key = key
        self._route = route
        self.identify = identify

    def __call__(self, until: Optional[float] = None) -> steps.Plan[Any]:
        return self._route(until)

    def __str__(self) -> str:
        try:
            return f"key {self.key!r} of shard {self.identify()}"
        except errors.RoutingError:
            return f"key {self.key!r}"


def key_of(route: steps.Route) -> object:
    """Return the key that a route is for; None if it is for none."""
    return route.key if isinstance(route, KeyRoute) else None


class KeyRoutes(Generic[TargetT, ScatterT, IntR, ScopeT]):
    """Targets by key and by scope, and where a call would go."""

    #: None for a service that knows no keys.
    _directory: Optional[KeyDirectory]
    _max_staleness: Optional[float]
    _lifecycle: Any
    absent_shard: routing.AbsentShard

    @abstractmethod
    def _run(self, plan: steps.Plan[Any]) -> Any: ...

    _shard_of_session: Any

    @abstractmethod
    def _shard_route(self, shard_id: int) -> steps.Route: ...

    @abstractmethod
    def _callers_transactions(self) -> Sequence[Any]: ...

    #: The implementation's target, made of a route and an identity.
    _target_class: Callable[..., TargetT]
    #: The implementation's scope; see ``BaseScope``.
    _scope_class: Callable[..., ScopeT]

    @abstractmethod
    def _scatter(
        self, named: Optional[List[int]], policy: Policy, keys: Optional[Keys] = None
    ) -> ScatterT: ...

    @abstractmethod
    def _routes(self, named: Optional[List[int]]) -> Dict[int, steps.Route]: ...

    @abstractmethod
    def session(self, client_session: object) -> TargetT:
        """Return a target for a session's database."""

    @abstractmethod
    def shard(self, shard_id: int) -> TargetT:
        """Return a target for one shard."""

    # Keys.

    def key(self, key: object) -> TargetT:
        """Return a target for the shard of a key, by the service's ``directory`` or
        ``shard_of_key``; otherwise as ``shard``.

        A key of a lookup table is looked up by the first call, and then cached.

        Args:
            key: The key.

        Returns:
            A target; nothing is sent yet.

        Raises:
            ParameterError: The service has neither, the key is not valid, or
                ``shard_of_key`` returns something other than an int. Its own exceptions
                are not caught.
            KeyNotFound: (from the target's methods) The key has no shard.
        """
        directory = self._require_directory()
        shard_id = directory.immediate(key)
        if shard_id is None:
            directory.cached_as(key)
            looked_up = partial(self._route_of_key, key)
            route = KeyRoute(key, looked_up, partial(self._identity_of_key, key))
        else:
            known = partial(self._keyed_route, self._shard_route(shard_id), None)
            route = KeyRoute(key, known, lambda: shard_id)
        return self._target_class(route, route.identify)

    def keys(
        self,
        keys: Iterable[Any],
        *,
        on_error: OnError = "raise",
        min_ok: Optional[int] = None,
        max_concurrency: int = 16,
    ) -> ScatterT:
        """Return a target for the shards of several keys. Each shard is queried for its
        own keys only, with one statement.

        ``%(keys)s`` in the statement stands for them: ``db.keys([1, 2, 9]).query(
        "SELECT * FROM trades WHERE user_id IN %(keys)s")``. Other parameters are a
        mapping. It has ``query`` and ``execute``. A key that is given twice is sent
        once. Keys of a lookup table that are not cached are looked up with one
        statement.

        Args:
            keys: Any iterable of keys.
            on_error: As for ``shards``.
            min_ok: As for ``shards``.
            max_concurrency: As for ``shards``.

        Raises:
            ParameterError: As for ``key``, or ``keys`` is not an iterable of keys.
            KeyNotFound: (from the target's methods) One of them has no shard.
        """
        if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
            raise ParameterError(
                f"keys is an iterable of keys, not {type(keys).__name__}; one key is written [key]"
            )
        directory = self._require_directory()
        try:
            distinct = list(dict.fromkeys(keys))
        except TypeError as error:
            raise ParameterError(f"a key is hashable: {error}") from None
        owned: Dict[int, List[Any]] = {}
        for key in distinct:
            shard_id = directory.immediate(key)
            if shard_id is None:
                directory.cached_as(key)
            else:
                owned.setdefault(shard_id, []).append(key)
        policy = Policy(on_error, max_concurrency, min_ok)
        if distinct and not owned:
            return self._scatter(None, policy, partial(self._lookup_keys, distinct))
        return self._scatter(sorted(owned), policy, owned)

    def shard_id_of(self, key: object) -> IntR:
        """Return the shard id of a key, which is looked up if it is not cached.

        Args:
            key: The key.

        Raises:
            KeyNotFound: It has none.
        """
        return self._run(self._require_directory().shard_id_of(key))

    def _lookup_keys(
        self, keys: List[Any]
    ) -> steps.Plan[Tuple[Mapping[int, List[Any]], Dict[int, Any]]]:
        """Look up keys; return the keys of each shard, and the routes."""
        directory = self._require_directory()
        found = yield from directory.require(keys, deadlines.deadline_after())
        owned: Dict[int, List[Any]] = {}
        for key, shard_id in found.items():
            owned.setdefault(shard_id, []).append(key)
        return owned, {
            shard_id: partial(self._keyed_route, route, owned[shard_id][0])
            for shard_id, route in self._routes(sorted(owned)).items()
        }

    def _require_directory(self) -> KeyDirectory:
        if self._directory is None:
            raise ParameterError(
                "this service does not know the shards of keys: give it shard_of_key=, a function "
                "from a key to a shard_id, or directory=LookupTable()"
            )
        return self._directory

    def _route_of_key(
        self, key: object, until: Optional[float] = None
    ) -> steps.Plan[steps.Executor]:
        self._lifecycle.require_open()
        directory = self._require_directory()
        entry = directory.cached(key)
        if entry is None:
            shard_id: int = (yield from directory.require([key], until))[key]
        elif entry.shard_id is None:
            raise key_not_found(key, directory.where)
        else:
            shard_id = entry.shard_id
        return (yield from self._keyed_route(self._shard_route(shard_id), key, until))

    def _identity_of_key(self, key: object) -> int:
        directory = self._require_directory()
        entry = directory.cached(key)
        if entry is None:
            raise errors.RoutingError(
                f"the shard of the key {key!r} has not been looked up: shard_id_of does so"
            ).with_context(None, sent=False)
        if entry.shard_id is None:
            raise key_not_found(key, directory.where)
        return entry.shard_id

    def _keyed_route(
        self, route: steps.Route, key: object, until: Optional[float] = None
    ) -> steps.Plan[steps.Executor]:
        executor = yield from route(until)
        found: steps.Executor = self._keyed(executor, key)
        return found

    def _keyed(self, executor: steps.Executor, key: object = None) -> Any:
        """Make the executor read-only if the mapping of the key is too old."""
        most = self._max_staleness
        if most is None:
            return executor
        age = self._lifecycle.map_age
        if key is not None:
            age = max(age, self._require_directory().age(key))
        return FrozenExecutor(executor, age, most) if age > most else executor

    def _candidates(self) -> List[Candidate]:
        """Return the shards that accept new keys now."""
        topology = self._lifecycle.require_open()
        return [
            Candidate(shard_id, shard.weight, 0, shard.name)
            for shard_id, shard in sorted(topology.shard_map.shards.items())
            if shard.status is Status.ACTIVE
            and shard.accepts_new
            and shard.weight > 0
            and self._failure_of(shard_id) is None
        ]

    def _failure_of(self, shard_id: int) -> Optional[BaseException]:
        client = self._lifecycle.require_open().clients.get(shard_id)
        failure: Optional[BaseException] = None if client is None else client.failure
        return failure

    # Where a call would go.

    def _identity_of_session(self, client_session: object) -> Optional[int]:
        shard_id = self._shard_of_session(client_session)
        topology = self._lifecycle.topology
        if shard_id is None or topology is None or self.absent_shard != "global":
            return shard_id
        shard = topology.shard_map.shards.get(shard_id)
        absent = shard is None or shard.status is Status.INACTIVE
        return None if absent else shard_id

    def explain_route(
        self, *, session: object = None, shard_id: Optional[int] = None, key: object = None
    ) -> RouteExplanation:
        """Explain the route that a call would take now, without I/O.

        Args:
            session: As for ``session``.
            shard_id: As for ``shard``.
            key: As for ``key``.

        Returns:
            A RouteExplanation. Without arguments it is about the global database. A key
            that is not cached has the reason ``KEY_NOT_CACHED``; ``shard_id_of`` looks
            it up.

        Raises:
            ParameterError: More than one argument, or one that is refused there too.
            ServiceNotOpen: The service is not open.

        Example:
            >>> db.explain_route(shard_id=2).reason
            <RouteReason.ACTIVE: 'active'>
        """
        if sum(each is not None for each in (session, shard_id, key)) > 1:
            raise ParameterError("explain_route takes a session, a shard_id or a key")
        topology = self._lifecycle.require_open()
        version = topology.shard_map.version
        if key is not None:
            asked = self._require_directory().immediate(key)
            if asked is None:
                entry = self._require_directory().cached(key)
                if entry is None or entry.shard_id is None:
                    return _unknown_key(key, entry is None, version)
                asked = entry.shard_id
        elif shard_id is not None:
            asked = routing.shard_id_of(shard_id)
        else:
            asked = self._shard_of_session(session)
        failure = None if asked is None else self._failure_of(asked)
        found = explain(
            None if asked is None else topology.shard_map.shards.get(asked),
            asked,
            version,
            named=session is None,
            absent=self.absent_shard,
            failure=None if failure is None else errors.reason_of(failure),
        )
        return self._as_refused(found)

    def _as_refused(self, found: RouteExplanation) -> RouteExplanation:
        """Correct the explanation if the scope or transaction refuses the call."""
        if found.target in (None, "global") or found.shard_id is None:
            return found
        client = self._lifecycle.require_open().clients[found.shard_id]
        for reason, check in (
            (RouteReason.LOCKED_SCOPE, partial(session_scope.check_lock, self, found.shard_id)),
            (
                RouteReason.OTHER_TRANSACTION,
                partial(client.check_cross_shard, self._callers_transactions()),
            ),
        ):
            try:
                check()
            except errors.CrossShardError as error:
                return found._replace(target=None, reason=reason, detail=errors.reason_of(error))
        return found

    # Scopes.

    def scope(
        self,
        session: object = None,
        *,
        shard_id: Optional[int] = None,
        key: object = None,
        lock: bool = False,
    ) -> ScopeT:
        """Make a block with a current database: ``with db.scope(session):``, in asyncio
        ``async with``. Code inside uses ``db.current`` and needs no session.

        It follows the tasks that are begun inside, and threads that run with a copy of
        the context (``contextvars.copy_context().run``, ``asyncio.to_thread``); other
        threads are outside. When the block ends, it is over for all of them.

        Args:
            session: As for ``session``; without any argument the global database.
            shard_id: As for ``shard``.
            key: As for ``key``; looked up when the block begins.
            lock: Refuse calls to other shards inside the block, however they are made.
                The global database may be used in any case.

        Raises:
            ParameterError: More than one of session, shard_id and key.
            KeyNotFound: (when the block begins) the key has no shard.
            CrossShardError: (when the block begins) a scope around this is locked to
                another shard.

        Example:
            >>> with db.scope(session, lock=True):
            ...     db.current.query("SELECT 1")
        """
        if sum(each is not None for each in (session, shard_id, key)) > 1:
            raise ParameterError("scope takes a session, a shard_id or a key")
        if key is not None:
            find: Any = partial(self._require_directory().shard_id_of, key)
            return self._scope_class(
                self, self.key(key), find, partial(self._identity_in, key), lock=lock
            )
        if shard_id is not None:
            number = routing.shard_id_of(shard_id)
            find = partial(_now, lambda: number)
            return self._scope_class(self, self.shard(number), find, lambda: number, lock=lock)
        identify = partial(self._identity_of_session, session)
        return self._scope_class(
            self, self.session(session), partial(_now, identify), identify, lock=lock
        )

    def _identity_in(self, key: object) -> int:
        shard_id = self._require_directory().immediate(key)
        return self._identity_of_key(key) if shard_id is None else shard_id

    @property
    def current(self) -> TargetT:
        """The database of the innermost scope that the caller is in; see ``scope``.

        Raises:
            InterfaceError: There is none, or it is over.
        """
        target: TargetT = session_scope.current(self).target
        return target


class ServiceRooms(Generic[DirectoryT, IdsT, NoneR]):
    """The directory and the ids of a service, and ``wait_ready``."""

    _lifecycle: Any
    _directory: Optional[KeyDirectory]
    _ids: IdGenerator

    @abstractmethod
    def _run(self, plan: steps.Plan[Any]) -> Any: ...

    @abstractmethod
    def _run_exclusive(self, plan: steps.Plan[Any], wait: Optional[float] = None) -> Any: ...

    #: The implementation's classes, which add the I/O to what the service has.
    _directory_class: Callable[[KeyDirectory], DirectoryT]
    _ids_class: Callable[[IdGenerator], IdsT]

    @property
    def directory(self) -> DirectoryT:
        """The directory, which looks up and assigns keys, and manages aliases.

        Raises:
            ParameterError: The service has no ``directory`` and no ``shard_of_key``.
        """
        if self._directory is None:
            raise ParameterError(
                "this service has no directory: give it directory=LookupTable(), HashBuckets() "
                "or shard_of_key="
            )
        return self._directory_class(self._directory)

    @property
    def ids(self) -> IdsT:
        """Ids that are unique in all databases, ordered by time, and name a shard."""
        return self._ids_class(self._ids)

    def wait_ready(self, timeout: float, require: readiness.Require = "all") -> NoneR:
        """Wait until the databases respond; opens the service if it is not open.

        Args:
            timeout: Seconds.
            require: The shards that must respond beside the global database: ``"all"``
                in service, ``"global"`` for none, a number of shards, or their ids.

        Raises:
            NotReady: They did not respond in time; the message has the reason of each.
            ParameterError: ``timeout`` or ``require`` is wrong.

        Example:
            >>> db.wait_ready(30, require=[1, 2])
        """
        wanted = readiness.checked(require)
        return self._run(
            readiness.wait_ready(
                self._lifecycle,
                lambda plan: steps.Exclusive(self._run_exclusive, plan),
                deadlines.seconds(timeout),
                wanted,
            )
        )


def _unknown_key(key: object, ask: bool, version: int) -> RouteExplanation:
    if ask:
        text = f"the key {key!r} is not cached: the call looks it up"
        return RouteExplanation(None, None, RouteReason.KEY_NOT_CACHED, text, version)
    text = f"the key {key!r} has no shard"
    return RouteExplanation(None, None, RouteReason.KEY_NOT_FOUND, text, version)


def _now(identify: Any) -> steps.Plan[Optional[int]]:
    yield from ()
    shard_id: Optional[int] = identify()
    return shard_id
