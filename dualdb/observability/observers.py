"""The hooks and interceptors of a service."""

import logging
from collections import deque
from typing import Any, Callable, Deque, Dict, Optional, Protocol, Tuple

from ..results import CallResult
from .digests import DigestTable
from .events import (
    EVENTS,
    BackgroundEvent,
    CoordinationEvent,
    CoordinationEventName,
    EventName,
    Hook,
    PoolEvent,
    PoolEventName,
)
from .logs import about
from .query_call import QueryCall
from .slow_log import SlowQueryLog

log = logging.getLogger("dualdb.hooks")

#: Is called with a call before it is sent; may add tags, or raise to prevent it. In
#: asyncio it may be a coroutine function.
Interceptor = Callable[[QueryCall], Any]


class ObservedPool(Protocol):
    """The part of a pool that its events use."""

    @property
    def name(self) -> str:
        """The database's name."""
        ...

    @property
    def shard_id(self) -> Optional[int]:
        """The shard's id; None for another database."""
        ...


class RegisteredHook:
    """A hook, and whether it has failed.

    Args:
        function: The application's.
    """

    __slots__ = ("failed", "function")

    def __init__(self, function: Hook) -> None:
        self.function = function
        self.failed = False

    def __call__(self, event: object) -> Any:
        return self.function(event)

    def __repr__(self) -> str:
        return repr(self.function)


class Observers:
    """The hooks and interceptors of one service.

    Args:
        awaits: Hooks and interceptors may be coroutine functions.
        slow_threshold: The seconds from which on a call is logged; None for no log.
        digests: Count calls by statement.

    Attributes:
        awaits: As given.
        watches_calls: Whether a call is of interest to anybody; looked at by each.
        interceptors: The interceptors, in the order of their registration.
        digests: The figures of each statement, if they are counted.
        pending: The events whose hooks are to be called by the background plan.
    """

    #: The most events that wait for their hooks; more drop the oldest.
    MOST_PENDING = 10_000

    def __init__(
        self,
        *,
        awaits: bool = False,
        slow_threshold: Optional[float] = None,
        digests: bool = False,
    ) -> None:
        self.awaits = awaits
        self.watches_calls = False
        self.interceptors: Tuple[Interceptor, ...] = ()
        self._hooks: Dict[EventName, Tuple[RegisteredHook, ...]] = dict.fromkeys(EVENTS, ())
        self.digests: Optional[DigestTable] = DigestTable() if digests else None
        if self.digests is not None:
            self.on("query", self.digests.add)
        if slow_threshold is not None:
            self.on("query", SlowQueryLog(slow_threshold).add)
        self.forked()

    def forked(self) -> None:
        """Forget the events of the parent process."""
        self.pending: Deque[BackgroundEvent] = deque(maxlen=self.MOST_PENDING)
        if self.digests is not None:
            self.digests.forked()

    def on(self, event: EventName, hook: Hook) -> None:
        """Register a hook for an event.

        Raises:
            ValueError: There is no such event.
        """
        self._hooks[self._checked(event)] += (RegisteredHook(hook),)
        self._update()

    def off(self, event: EventName, hook: Hook) -> None:
        """Remove a hook; nothing happens if it is not registered.

        Raises:
            ValueError: There is no such event.
        """
        before = self._hooks[self._checked(event)]
        self._hooks[event] = tuple([each for each in before if each.function != hook])
        self._update()

    def add_interceptor(self, interceptor: Interceptor) -> None:
        """Register an interceptor."""
        self.interceptors += (interceptor,)
        self._update()

    def remove_interceptor(self, interceptor: Interceptor) -> None:
        """Remove an interceptor; nothing happens if it is not registered."""
        self.interceptors = tuple([each for each in self.interceptors if each != interceptor])
        self._update()

    def hooks(self, event: EventName) -> Tuple[RegisteredHook, ...]:
        """Return the hooks of an event."""
        return self._hooks[event]

    def post(self, *events: BackgroundEvent) -> None:
        """Queue events whose hooks the background plan calls."""
        self.pending.extend([event for event in events if self._hooks[event.name]])

    def post_pool(self, name: PoolEventName, pool: "ObservedPool", **fields: Any) -> None:
        """Queue a PoolEvent, if there is a hook for it.

        Args:
            name: Its name.
            pool: The pool.
            fields: Its other fields.
        """
        if self._hooks[name]:
            self.pending.append(PoolEvent(name, pool.name, pool.shard_id, **fields))

    def post_coordination(
        self, name: CoordinationEventName, target: str, shard_id: Optional[int], **fields: Any
    ) -> None:
        """Queue a CoordinationEvent, if there is a hook for it.

        Args:
            name: Its name.
            target: The name of its database.
            shard_id: The shard's id, or None.
            fields: Its other fields.
        """
        if self._hooks[name]:
            self.pending.append(CoordinationEvent(name, target, shard_id, **fields))

    @staticmethod
    def _checked(event: EventName) -> EventName:
        if event not in EVENTS:
            raise ValueError(f"event must be one of {', '.join(EVENTS)}, not {event!r}")
        return event

    def _update(self) -> None:
        self.watches_calls = bool(
            self.interceptors or self._hooks["query"] or self._hooks["scatter"]
        )


#: Hears of nothing.
NOBODY = Observers()


def log_failure(hook: Callable[[], Any], error: BaseException) -> None:
    """Log the exception of a hook: each of a function, the first of a registered hook.

    Args:
        hook: As called; for a registered hook, a partial of it.
        error: What it raised.
    """
    registered = getattr(hook, "func", None)
    if not isinstance(registered, RegisteredHook):
        log.error("the hook %r failed", hook, exc_info=error, extra=about("hook_failed"))
    elif not registered.failed:
        registered.failed = True
        log.error(
            "the hook %r failed; its further failures are not logged",
            registered,
            exc_info=error,
            extra=about("hook_failed"),
        )


def rows_of(result: object) -> int:
    """Return the number of rows that a result has, or that were affected.

    Args:
        result: A list of result sets, a CallResult, or a statement's other result.
    """
    sets = result.sets if isinstance(result, CallResult) else result
    if not isinstance(sets, list):
        return 0
    return sum([len(each.rows) if each.columns else max(0, each.rowcount) for each in sets])
