"""What the application registers to observe a service's work."""

from typing import Any, Callable, Coroutine, List, Literal, Optional, TypeVar, get_args, overload

from .. import errors
from ..observability.digests import DigestOrder, DigestStats
from ..observability.events import (
    CoordinationEvent,
    CoordinationEventName,
    Event,
    EventName,
    PoolEvent,
    PoolEventName,
    QueryEvent,
    QueryEventName,
    ShardEventName,
    TransactionEvent,
)
from ..observability.health import HealthReport
from ..observability.observers import Interceptor, Observers
from ..observability.query_call import QueryCall
from ..topology.health import HealthCheck
from ..topology.readiness import Require
from .service_base import ServicePart
from .typevars import InTasks, InThreads

HookT = TypeVar("HookT", bound=Callable[[Any], Any])
InterceptorT = TypeVar("InterceptorT", bound=Callable[[QueryCall], Any])
ResultT = TypeVar("ResultT")


class Observed(ServicePart):
    """Hooks and interceptors."""

    _observers: Observers
    _health: HealthCheck

    @overload
    def on(
        self, event: ShardEventName, hook: Callable[[Event], ResultT]
    ) -> Callable[[Event], ResultT]: ...

    @overload
    def on(
        self, event: QueryEventName, hook: Callable[[QueryEvent], ResultT]
    ) -> Callable[[QueryEvent], ResultT]: ...

    @overload
    def on(
        self, event: Literal["transaction"], hook: Callable[[TransactionEvent], ResultT]
    ) -> Callable[[TransactionEvent], ResultT]: ...

    @overload
    def on(
        self, event: PoolEventName, hook: Callable[[PoolEvent], ResultT]
    ) -> Callable[[PoolEvent], ResultT]: ...

    @overload
    def on(
        self, event: CoordinationEventName, hook: Callable[[CoordinationEvent], ResultT]
    ) -> Callable[[CoordinationEvent], ResultT]: ...

    @overload
    def on(self, event: EventName, hook: None = None) -> Callable[[HookT], HookT]: ...

    def on(self, event: EventName, hook: Optional[Callable[[Any], Any]] = None) -> Any:
        """Register a hook, which is called with the event.

        In asyncio hooks may be coroutine functions. Exceptions of a hook never affect a
        call; the first of each hook is logged.

        Hooks of "query", "scatter" and "transaction" are called by the thread or task
        that made the call, before the call returns. The others are called one after the
        other, in the order of the events, by the thread or task that read the shard
        table, usually the background one, about a second after the event at most.

        Args:
            event: "query" for each call to one database that has ended, well or not;
                "scatter" for each call to several shards, after the "query" of each
                (both with a ``QueryEvent``); "transaction" (``TransactionEvent``);
                "connect", "pool_wait", "retry", "kill", "circuit_opened" and
                "circuit_closed" (``PoolEvent``); "shard_added", "shard_removed",
                "shard_moved", "shard_state_changed" and "map_refreshed" for changes of
                the shard map, "shard_down" when a shard's server becomes unreachable,
                "shard_up" when it is reachable again (``Event``); "xa_in_doubt",
                "xa_finished", "outbox_lag", "outbox_delivered", "outbox_failed",
                "outbox_dead", "idempotency_hit", "move_started", "move_step",
                "move_fenced" and "move_finished" (``CoordinationEvent``).
            hook: The function; without it a decorator is returned.

        Returns:
            The function, or the decorator.

        Raises:
            ValueError: There is no such event.

        Example:
            >>> @db.on("shard_down")
            ... def alert(event):
            ...     print(event.shard_id, event.reason)
        """
        if hook is None:
            return lambda hook: self.on(event, hook)
        self._observers.on(event, hook)
        return hook

    def off(self, event: EventName, hook: Callable[..., Any]) -> None:
        """Remove a hook; nothing happens if it is not registered.

        Args:
            event: As for ``on``.
            hook: The function.

        Raises:
            ValueError: There is no such event.
        """
        self._observers.off(event, hook)

    @overload
    def health(
        self: InThreads,
        *,
        deep: bool = False,
        timeout: float = 2.0,
        require: Require = "global",
    ) -> HealthReport: ...

    @overload
    def health(
        self: InTasks,
        *,
        deep: bool = False,
        timeout: float = 2.0,
        require: Require = "global",
    ) -> Coroutine[Any, Any, HealthReport]: ...

    def health(
        self,
        *,
        deep: bool = False,
        timeout: float = 2.0,
        require: Require = "global",
    ) -> Any:
        """Return whether the process works, whether it can serve calls, and which
        databases respond.

        It never fails because of a database, and never takes longer than ``timeout``,
        whatever the servers do. ``live`` does not depend on any database.

        Args:
            deep: Ask each database, all at the same time; the outcome is used again for
                a second. Otherwise what is known of it is used, without I/O: a server
                counts as down from the first failed connect to the next that succeeds.
            timeout: Seconds for asking.
            require: What has to respond for ``ready``: "global", "all" (and all shards
                in service), a number of shards, or shard ids, always together with the
                global database.

        Returns:
            A HealthReport. ``as_dict()`` converts it for JSON.

        Raises:
            ParameterError: ``timeout`` or ``require`` is none.

        Example:
            >>> db.health(deep=True).state
            'ok'
        """
        return self._run(self._health.check(deep=deep, timeout=timeout, require=require))

    def top(self, limit: int = 20, *, by: DigestOrder = "total") -> List[DigestStats]:
        """Return the statements that have taken the most time, without I/O.

        Statements that differ in literals, parameters and comments count as one. At
        most a thousand are counted separately, and further ones together.

        Args:
            limit: The most statements.
            by: The figure by which they are sorted, one of those of ``DigestStats``.

        Returns:
            The figures of each statement, since the service was made.

        Raises:
            InterfaceError: The service was made without ``digests=True``.
            ParameterError: There is no such figure.

        Example:
            >>> for each in db.top(3):
            ...     print(f"{each.calls} calls, {each.mean:.4f} s: {each.statement}")
        """
        table = self._observers.digests
        if table is None:
            raise errors.InterfaceError(
                "statements are not counted: pass digests=True to the service"
            )
        if by not in get_args(DigestOrder):
            orders = ", ".join(get_args(DigestOrder))
            raise errors.ParameterError(f"by must be one of {orders}, not {by!r}")
        return table.top(limit, by)

    def add_interceptor(self, interceptor: InterceptorT) -> InterceptorT:
        """Register a function that is called with each ``QueryCall`` before it is sent.

        It may add ``tags``, which are appended to the statement as a comment, and
        prevent the call by raising an exception, which the caller gets. Interceptors
        are called in the order of their registration, by the thread or task that makes
        the call. A "query" hook gets the same QueryCall as the event's ``call``.

        Args:
            interceptor: The function; in asyncio it may be a coroutine function.

        Returns:
            The function.

        Example:
            >>> @db.add_interceptor
            ... def tag(call):
            ...     call.tags["route"] = "/trades"
        """
        self._observers.add_interceptor(interceptor)
        return interceptor

    def remove_interceptor(self, interceptor: Interceptor) -> None:
        """Remove an interceptor; nothing happens if it is not registered."""
        self._observers.remove_interceptor(interceptor)
