"""Which database a call goes to: by a session, by a shard id, and what an absent shard
means.
"""

import logging
import operator
from difflib import get_close_matches
from typing import Any, Callable, List, Literal, Mapping, Optional, Protocol, Sequence, Set

from .. import errors
from ..execution import steps
from .lifecycle import ServiceLifecycle
from .shard_map import ShardMap, Status

log = logging.getLogger("dualdb")

#: What a session whose shard is absent (not in the table, or inactive) gets: the global
#: database, or ShardNotFound.
AbsentShard = Literal["global", "error"]

#: Types of which nothing is a session.
_NO_SESSIONS = (bool, int, float, complex, str, bytes, bytearray, list, tuple, set, frozenset)


class ShardIdHolder(Protocol):
    """What ``client_session.session`` is."""

    @property
    def shard_id(self) -> Optional[int]:
        """The session's shard; None for the global database."""


class ClientSession(Protocol):
    """What ``db.session()`` takes, for type checkers; also a mapping of the same shape,
    ``{"session": {"shard_id": 1}}``, and None.
    """

    @property
    def session(self) -> Optional[ShardIdHolder]:
        """The session proper; None for the global database."""


def shard_of(client_session: object, *, strict: bool = False) -> Optional[int]:
    """The shard of a client session: its ``.session.shard_id``.

    None for the global database: no session, ``.session`` is None, or ``shard_id`` is
    None. Decided by type and not by truth: 0 is a shard like any other. Mappings are
    read like attributes.

    Args:
        client_session: None, or an object or mapping with ``session``.
        strict: Refuse an object without ``.session`` and a session without
            ``shard_id``. Otherwise these mean the global database, as in the original
            service, unless something in them looks like a shard under another name.

    Returns:
        The shard's id, or None for the global database.

    Raises:
        ParameterError: It is nothing like a session, or its shard_id is neither None
            nor a whole number. Guessing would send a user's rows to another's database.
    """
    if client_session is None:
        return None
    session = _read(client_session, "session", ("session", "shard_id"), strict)
    if session is None:
        return None
    value = _read(session, "shard_id", ("shard_id",), strict)
    return None if value is None else shard_id_of(value)


def _read(holder: Any, name: str, expected: Sequence[str], strict: bool) -> Any:
    """An attribute or a key; None where it is missing and may be."""
    if not strict and isinstance(holder, (str, bytes, tuple, list)) and not holder:
        return None  # says nothing that could be misread
    if isinstance(holder, _NO_SESSIONS):
        raise _shape_error(holder, "")
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
    similar = _similar_name(holder, expected)
    if strict or similar is not None:
        hint = f" without {name}" if similar is None else f" with {similar!r} and no {name!r}"
        raise _shape_error(holder, hint)
    return None


def _has_key(holder: Any, name: str) -> bool:
    """Whether it is read by keys without being a Mapping: some frameworks' sessions."""
    if not callable(getattr(type(holder), "keys", None)):
        return False
    return callable(getattr(type(holder), "__getitem__", None)) and name in {*holder.keys()}


def _similar_name(holder: object, expected: Sequence[str]) -> Optional[str]:
    """An attribute or key that may be meant for one of these names."""
    keys = list(holder) if isinstance(holder, Mapping) else dir(holder)
    names = [key for key in keys if isinstance(key, str) and not key.startswith("_")]
    for name in names:
        word = name.lower()
        if word == "session" or word.startswith("session_"):
            continue  # a property that fails as if it were missing, or another thing
        if "shard" in word or get_close_matches(word, expected, 1, 0.75):
            return name
    return None


def _shape_error(found: object, hint: str) -> errors.ParameterError:
    return errors.ParameterError(
        "a client session is None or has .session, which is None or has .shard_id (an int or "
        f"None); this is a {type(found).__name__}{hint}. Give the service session_shard=, a "
        "function from a session to its shard_id, to read another shape"
    )


def shard_id_of(value: Any) -> int:
    """A shard's id as an int; anything that is an integer by ``__index__`` is taken,
    except a bool.

    Raises:
        ParameterError: Anything else.
    """
    if type(value) is int:
        return value
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise errors.ParameterError(
            f"a shard_id is an int, not {value!r} ({type(value).__name__})"
        ) from None


def choose(
    shard_map: ShardMap,
    shard_id: Optional[int],
    *,
    absent: AbsentShard,
    named: bool = False,
    retry_after: Optional[float] = None,
) -> Optional[int]:
    """Where a call for ``shard_id`` goes.

    Args:
        shard_map: The map in use.
        shard_id: The shard that is asked for; None for the global database.
        absent: What becomes of a session whose shard is absent.
        named: True if the caller named the shard outright and so can mean no other
            database.
        retry_after: Seconds after which a suspended shard may be back.

    Returns:
        The shard's id, or None for the global database.

    Raises:
        ShardUnavailable: The shard is suspended or its row cannot be used, or it was
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
    if shard.status is Status.INVALID:
        raise errors.shard_unavailable(
            shard_id, f"its row cannot be used: {shard.reason}", retry_after
        )
    return shard_id


class RouteResolver:
    """Decides for each call of a service which database's client it goes to.

    Args:
        lifecycle: Has what is in use, and reads the shard table again.
        absent: What becomes of a session whose shard is absent.
        transactions: Gives the outermost transactions that the caller has open on the
            service.
        check: Refuses a shard that the scope around a call is not locked to.
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
        """The client of a call's database.

        In this order: where the caller's transaction has begun; by the map; by the map
        once more after the shard table was read again; and refused if the caller has a
        transaction open on another shard.

        Args:
            shard_id: The shard that is asked for; None for the global database.
            named: True if the caller named the shard outright.
            until: When it must be over, by time.monotonic(); None for no limit.

        Raises:
            RoutingError: There is no such database, or it cannot be used.
            ServiceNotOpen: The service is not open.
        """
        manager = self._lifecycle.manager
        manager.require_open()
        unknown = shard_id is not None and not manager.knows(shard_id)
        if unknown and self._pinned(shard_id, self._transactions()) is None:
            yield from self._lifecycle.refresh_on_miss(shard_id, until)
        return self.find(shard_id, named=named)

    def find(self, shard_id: Optional[int], *, named: bool) -> Any:
        """The same by the map in use, without reading the table again."""
        transactions = self._transactions()
        client = self._pinned(shard_id, transactions)
        if client is not None:
            return client
        client = self._by_map(shard_id, named)
        if transactions and client.shard_id is not None:
            client._check_cross_shard(transactions)
        return client

    def _by_map(self, shard_id: Optional[int], named: bool) -> Any:
        life = self._lifecycle
        topology = life.manager.require_open()
        if shard_id is not None:
            life.check_known(shard_id)
        chosen = choose(
            topology.shard_map,
            shard_id,
            absent=self._absent,
            named=named,
            retry_after=life.retry_after,
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
            )
        return topology.global_client

    def _pinned(self, shard_id: Optional[int], transactions: Sequence[Any]) -> Any:
        """The client of a transaction of the caller's that a call for this shard would
        have gone to when it began: what has begun ends where it began, whatever the map
        says by now.
        """
        topology = self._lifecycle.manager.topology
        for transaction in transactions:
            began = transaction._begun
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
    """The route of calls that name a shard outright."""

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
        shard_id = self._shard_of(self._session)
        return self._resolver.resolve(shard_id, named=False, until=until)

    def __str__(self) -> str:
        try:
            shard_id = self._shard_of(self._session)
        except Exception:
            return "session of an unknown shape"
        return "session without a shard" if shard_id is None else f"session of shard {shard_id}"


def session_reader(
    session_shard: Optional[Callable[[Any], Optional[int]]], *, strict: bool
) -> Callable[[Any], Optional[int]]:
    """The function by which a service reads sessions.

    Args:
        session_shard: The application's own, from a session to its shard_id; None for
            ``shard_of``. It is not called for None.
        strict: See ``shard_of``.
    """
    if session_shard is None:
        return lambda client_session: shard_of(client_session, strict=strict)

    def read(client_session: object) -> Optional[int]:
        value = None if client_session is None else session_shard(client_session)
        return None if value is None else shard_id_of(value)

    return read


def scatter_ids(shard_map: ShardMap, named: Optional[List[int]]) -> List[int]:
    """The shards of a call to several, sorted.

    Args:
        shard_map: The map in use.
        named: Those that the caller named; None for all that are not inactive, each
            database once.
    """
    if named is not None:
        return named
    return sorted(
        shard_id
        for shard_id, shard in shard_map.shards.items()
        if shard.status is not Status.INACTIVE and shard_id not in shard_map.repeats
    )
