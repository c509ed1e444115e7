"""Routing: the database of a call, by session or by shard id, and the handling of
absent shards.
"""

import datetime
import inspect
import logging
import numbers
import operator
import uuid
from difflib import get_close_matches
from typing import (
    Any,
    Awaitable,
    Callable,
    Iterator,
    List,
    Literal,
    Mapping,
    Optional,
    Protocol,
    Sequence,
    Set,
    Union,
)

from .. import errors
from ..execution import steps
from ..observability.logs import about
from . import moving
from .lifecycle import ServiceLifecycle
from .manager import Topology
from .shard_map import ShardMap, Status

log = logging.getLogger("dualdb.topology")

#: The database of a session whose shard is absent (not in the table, or inactive): the
#: global one, or ShardNotFound.
AbsentShard = Literal["global", "error"]

#: Types that are never sessions, beside the built-in ones.
_NO_SESSIONS = (numbers.Number, datetime.date, datetime.time, uuid.UUID, Iterator, Awaitable)

#: Built-in types that may be sessions.
_HOLDERS = {dict, object}


class ShardIdHolder(Protocol):
    """The type of ``client_session.session``."""

    @property
    def shard_id(self) -> Optional[int]:
        """The session's shard; None for the global database."""


class ClientSession(Protocol):
    """The argument of ``db.session()``, for type checkers.

    A mapping of the same shape, ``{"session": {"shard_id": 1}}``, and None are
    accepted, too.
    """

    @property
    def session(self) -> Optional[ShardIdHolder]:
        """The session with the shard_id; None for the global database."""


def shard_of(client_session: object, *, strict: bool = False) -> Optional[int]:
    """Return the shard of a client session: its ``.session.shard_id``.

    A session, ``.session`` or ``shard_id`` that is None means the global database;
    0 is a valid shard id. Mappings are read by key.

    Args:
        client_session: None, or an object or mapping with ``session``.
        strict: Reject an object without ``.session`` and a session without
            ``shard_id``. Otherwise these mean the global database, as in the original
            service, unless another attribute has a similar name.

    Returns:
        The shard's id, or None for the global database.

    Raises:
        ParameterError: It is not a session, or its shard_id is neither None nor an
            integer. Guessing might use another user's database.
    """
    if client_session is None:
        return None
    session = _read(client_session, "session", ("session", "shard_id"), strict)
    if session is None:
        return None
    value = _read(session, "shard_id", ("shard_id",), strict)
    return None if value is None else shard_id_of(value)


def _read(holder: Any, name: str, expected: Sequence[str], strict: bool) -> Any:
    """Return an attribute or the value of a key; None if it may be missing and is."""
    if not strict and isinstance(holder, (str, bytes, tuple, list)) and not holder:
        return None  # empty, so nothing can be misread
    if isinstance(holder, Mapping):
        if name in holder:
            return holder[name]
    else:
        missing = object()
        value = getattr(holder, name, missing)
        if value is not missing:
            return value
        if _has_key(holder, name):
            return holder[name]
    if _is_no_session(holder):
        raise _shape_error(holder, "")
    similar = _similar_name(holder, name, expected)
    if strict or similar is not None:
        other = similar is not None and similar != name
        hint = f" with {similar!r} and no {name!r}" if other else f" without {name}"
        raise _shape_error(holder, hint)
    return None


def _is_no_session(holder: object) -> bool:
    """Return whether it is a plain value, a function that was not called, or an
    awaitable that was not awaited.
    """
    if isinstance(holder, Mapping):
        return False
    built_in = {base for base in type(holder).__mro__ if base.__module__ == "builtins"}
    return isinstance(holder, _NO_SESSIONS) or not built_in <= _HOLDERS


def _has_key(holder: Any, name: str) -> bool:
    """Return whether a non-Mapping has a key, as sessions of some frameworks do."""
    if not callable(getattr(type(holder), "keys", None)):
        return False
    return callable(getattr(type(holder), "__getitem__", None)) and name in {*holder.keys()}


def _similar_name(holder: object, name: str, expected: Sequence[str]) -> Optional[str]:
    """Return an attribute or key that is probably a misspelling of these names."""
    for found in _names_of(holder):
        word = _word(found)
        if found == name == "session":
            continue  # a property that raised AttributeError
        if word in expected or word.endswith("session") or "shard" in word:
            return str(found)
        if not word.startswith("session_") and get_close_matches(word, expected, 1, 0.75):
            return str(found)
    return None


def _names_of(holder: object) -> List[Any]:
    """Return the names of its attributes or keys, except Python's own."""
    if isinstance(holder, Mapping):
        names = list(holder)
    else:
        names = [*dir(holder), *(getattr(holder, "__pydantic_extra__", None) or ())]
    return [name for name in names if isinstance(name, (str, bytes)) and name[:2] != "__"]


def _word(name: Union[str, bytes]) -> str:
    """Return a name in lower case and without underscores around it; keys of some
    stores are bytes.
    """
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
    return text.strip("_").lower()


def _shape_error(found: object, hint: str) -> errors.ParameterError:
    return errors.ParameterError(
        "a client session must be None or have .session, which must be None or have .shard_id (an "
        f"int or None); got a {type(found).__name__}{hint}. To read another shape, pass the "
        "service session_shard=, a function from a session to its shard_id"
    )


def shard_id_of(value: Any) -> int:
    """Validate a shard's id.

    Returns:
        It as an int; types with ``__index__`` are accepted, except bool, and mocks,
        whose ``__index__`` is 1.

    Raises:
        ParameterError: It is not an integer.
    """
    if type(value) is int:
        return value
    try:
        if isinstance(value, bool) or not inspect.isroutine(type(value).__index__):
            raise TypeError
        return operator.index(value)
    except (AttributeError, TypeError):
        raise errors.ParameterError(
            f"shard_id must be an int, not {value!r} ({type(value).__name__})"
        ) from None


def choose(
    shard_map: ShardMap,
    shard_id: Optional[int],
    *,
    absent: AbsentShard,
    named: bool = False,
    retry_after: Optional[float] = None,
) -> Optional[int]:
    """Select the database of a call.

    Args:
        shard_map: The active map.
        shard_id: The requested shard; None for the global database.
        absent: The database of a session whose shard is absent.
        named: The caller named the shard explicitly, so no other database may be used.
        retry_after: Seconds after which a suspended shard may be available again.

    Returns:
        The shard's id, or None for the global database.

    Raises:
        ShardUnavailable: The shard is suspended or moving, has an unusable row, or was
            named and does not exist.
        ShardNotFound: The session's shard is absent and ``absent`` is "error".
    """
    if shard_id is None:
        return None
    shard = shard_map.shards.get(shard_id)
    if shard is None or shard.status is Status.INACTIVE:
        reason = "it is not in the shard table" if shard is None else "it is inactive"
        if named:
            raise errors.shard_unavailable(shard_id, reason)
        if absent == "error":
            raise errors.ShardNotFound(f"Shard {shard_id} not found: {reason}").with_context(
                f"shard {shard_id}", shard_id, sent=False
            )
        return None
    if shard.status is Status.MAINTENANCE:
        raise errors.shard_unavailable(shard_id, "it is in maintenance", retry_after)
    if shard.status is Status.MOVING:
        raise moving.refused(shard_id)
    if shard.status is Status.INVALID:
        raise errors.shard_unavailable(
            shard_id, f"its row cannot be used: {shard.reason}", retry_after
        )
    return shard_id


def check_cross_shard(shard_id: int, transactions: Sequence[Any]) -> None:
    """Check a call's shard against the caller's transactions on its service.

    Args:
        shard_id: The shard.
        transactions: The outermost transactions in which the caller takes part.

    Raises:
        CrossShardError: One of them is on another shard, and does not allow that.
    """
    others = [
        each.shard_id
        for each in transactions
        if each.shard_id is not None and not each.begun.options.other_shards
    ]
    if not others or shard_id in others:
        return
    raise errors.CrossShardError(
        f"shard {shard_id} is another database than shard {others[-1]}, on which a transaction is "
        "open that cannot cover both: "
        "end it first, or open it with other_shards=True"
    ).with_context(f"shard {shard_id}", shard_id, sent=False)


class RouteResolver:
    """Selects the client for each call of a service.

    Args:
        lifecycle: The service's lifecycle.
        absent: The database of a session whose shard is absent.
        transactions: Returns the caller's outermost open transactions on the service.
        check: Raises if a locked scope around the call excludes the shard.
    """

    def __init__(
        self,
        lifecycle: ServiceLifecycle,
        absent: AbsentShard,
        transactions: Callable[[], Sequence[Any]],
        check: Callable[[int], None] = lambda shard_id: None,
    ) -> None:
        self._lifecycle = lifecycle
        self._absent = absent
        self._transactions = transactions
        self._check = check
        self._warned: Set[int] = set()

    def resolve(
        self, shard_id: Optional[int], *, named: bool, until: Optional[float] = None
    ) -> steps.Plan[Any]:
        """Select the client of a call.

        A client on which the caller's transaction is open has precedence. Otherwise the
        active map decides, after a refresh if it does not know the shard, and after a
        wait if the shard is moving. The call is refused if the caller has a transaction
        open on another shard.

        Args:
            shard_id: The requested shard; None for the global database.
            named: The caller named the shard explicitly.
            until: The deadline, by time.monotonic(); None for no limit.

        Raises:
            RoutingError: There is no such database, or it cannot be used.
            DeadlineExceeded: The deadline passed while the call waited.
            ServiceNotOpen: The service is not open.
        """
        manager = self._lifecycle.manager
        topology = manager.require_open()
        if shard_id is not None:
            shard = topology.shard_map.shards.get(shard_id)
            if shard is None or shard.status is Status.MOVING:
                transactions = self._transactions()
                if self._pinned(shard_id, transactions) is None:
                    return (yield from self._resolve_later(shard_id, transactions, named, until))
        return self._find(shard_id, topology, self._transactions(), named=named)

    def _resolve_later(
        self, shard_id: int, transactions: Sequence[Any], named: bool, until: Optional[float]
    ) -> steps.Plan[Any]:
        """Select the client of a shard that is not known or is moving.

        What depends on the caller comes first: another thread or task may continue.
        """
        manager = self._lifecycle.manager
        shard = manager.require_open().shard_map.shards.get(shard_id)
        if shard is None:
            yield from self._lifecycle.refresh_on_miss(shard_id, until)
        else:
            self._check(shard_id)
            check_cross_shard(shard_id, transactions)
        while True:
            topology = manager.require_open()
            shard = topology.shard_map.shards.get(shard_id)
            if shard is None or shard.status is not Status.MOVING:
                return self._find(shard_id, topology, transactions, named=named)
            yield from self._lifecycle.moving.wait(shard_id, until)

    def find(self, shard_id: Optional[int], *, named: bool) -> Any:
        """Do the same with the active map, without a refresh or a wait."""
        topology = self._lifecycle.manager.require_open()
        return self._find(shard_id, topology, self._transactions(), named=named)

    def _find(
        self,
        shard_id: Optional[int],
        topology: Topology,
        transactions: Sequence[Any],
        *,
        named: bool,
    ) -> Any:
        client = self._pinned(shard_id, transactions)
        if client is not None:
            return client
        client = self._by_map(shard_id, topology, named)
        if transactions and client.shard_id is not None:
            check_cross_shard(client.shard_id, transactions)
        return client

    def _by_map(self, shard_id: Optional[int], topology: Topology, named: bool) -> Any:
        lifecycle = self._lifecycle
        if shard_id is not None:
            lifecycle.check_known(shard_id)
        chosen = choose(
            topology.shard_map,
            shard_id,
            absent=self._absent,
            named=named,
            retry_after=lifecycle.retry_after,
        )
        if chosen is not None:
            self._check(chosen)
            return topology.clients[chosen]
        if shard_id is not None and shard_id not in self._warned:
            self._warned.add(shard_id)
            log.warning(
                "shard %d is absent from the shard table or inactive: "
                "its sessions use the global database",
                shard_id,
                extra=about("shard_absent"),
            )
        return topology.global_client

    def _pinned(self, shard_id: Optional[int], transactions: Sequence[Any]) -> Any:
        """Return the client on which the caller's transaction is open, if a call for
        this shard was routed to it by the map at the time the transaction began.

        A transaction stays on its database even if the map has changed since.
        """
        topology = self._lifecycle.manager.topology
        for transaction in transactions:
            began = transaction.begun
            before = began.topology
            if before is None or before is topology:
                continue
            try:
                chosen = choose(before.shard_map, shard_id, absent=self._absent)
            except errors.RoutingError:
                continue
            client = before.global_client if chosen is None else before.clients[chosen]
            if client is began.client:
                return client
        return None


class ShardRoute:
    """The route of calls that name a shard explicitly."""

    def __init__(self, resolver: RouteResolver, shard_id: int) -> None:
        self._resolver = resolver
        self._shard_id = shard_id

    def __call__(self, until: Optional[float] = None) -> steps.Plan[Any]:
        return self._resolver.resolve(shard_id_of(self._shard_id), named=True, until=until)

    def __str__(self) -> str:
        return f"shard {self._shard_id}"


class SessionRoute:
    """The route of calls for a session, which is read at each call."""

    def __init__(
        self,
        resolver: RouteResolver,
        client_session: object,
        shard_of_session: Callable[[Any], Optional[int]],
    ) -> None:
        self._resolver = resolver
        self._session = client_session
        self._shard_of = shard_of_session

    def __call__(self, until: Optional[float] = None) -> steps.Plan[Any]:
        return self._resolver.resolve(self.requested_shard(), named=False, until=until)

    def requested_shard(self) -> Optional[int]:
        """Return the session's shard id, which the map may not have; None for the
        global database.
        """
        return self._shard_of(self._session)

    def __str__(self) -> str:
        try:
            shard_id = self._shard_of(self._session)
        except Exception:
            return "session of an unknown shape"
        return "session without a shard" if shard_id is None else f"session of shard {shard_id}"


def session_reader(
    session_shard: Optional[Callable[[Any], Optional[int]]], *, strict: bool
) -> Callable[[Any], Optional[int]]:
    """Return the function that reads the shard_id of a session.

    Args:
        session_shard: The application's function from a session to its shard_id; None
            for ``shard_of``. It is not called with None.
        strict: See ``shard_of``.
    """
    if session_shard is None:
        return lambda client_session: shard_of(client_session, strict=strict)

    def read(client_session: object) -> Optional[int]:
        value = None if client_session is None else session_shard(client_session)
        return None if value is None else shard_id_of(value)

    return read


def scatter_ids(shard_map: ShardMap, named: Optional[List[int]]) -> List[int]:
    """Return the sorted ids of the shards of a call to several.

    Args:
        shard_map: The active map.
        named: The shards that the caller named; None for all that are not inactive,
            each database once.
    """
    if named is not None:
        return named
    return sorted(
        shard_id
        for shard_id, shard in shard_map.shards.items()
        if shard.status is not Status.INACTIVE and shard_id not in shard_map.repeats
    )
