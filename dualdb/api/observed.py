"""What the application registers to observe a service's work."""

from typing import Any, Callable, Optional, TypeVar, overload

from ..observability.events import Event, QueryEvent, QueryEventName, ShardEventName
from ..observability.observers import Interceptor, Observers
from ..observability.query_call import QueryCall
from .service_base import ServicePart

HookT = TypeVar("HookT", bound=Callable[[Any], Any])
InterceptorT = TypeVar("InterceptorT", bound=Callable[[QueryCall], Any])
ResultT = TypeVar("ResultT")


class Observed(ServicePart):
    """Hooks and interceptors."""

    _observers: Observers

    @overload
    def on(
        self, event: ShardEventName, hook: Callable[[Event], ResultT]
    ) -> Callable[[Event], ResultT]: ...

    @overload
    def on(
        self, event: QueryEventName, hook: Callable[[QueryEvent], ResultT]
    ) -> Callable[[QueryEvent], ResultT]: ...

    @overload
    def on(self, event: ShardEventName, hook: None = None) -> Callable[[HookT], HookT]: ...

    @overload
    def on(self, event: QueryEventName, hook: None = None) -> Callable[[HookT], HookT]: ...

    def on(self, event: Any, hook: Optional[Callable[[Any], Any]] = None) -> Any:
        """Register a hook, which is called with an ``Event`` or a ``QueryEvent``.

        In asyncio hooks may be coroutine functions. Exceptions of a hook never affect a
        call; the first of each hook is logged.

        Hooks of "query" and "scatter" are called by the thread or task that made the
        call, before the call returns. The others are called one after the other, in the
        order of the events, by the thread or task that read the shard table, usually
        the background one, at most a second after the event.

        Args:
            event: "query" for each call to one database that has ended, well or not;
                "scatter" for each call to several shards, after the "query" of each;
                "shard_added", "shard_removed", "shard_moved", "shard_state_changed" and
                "map_refreshed" for changes of the shard map; "shard_down" when a
                shard's server becomes unreachable, "shard_up" when it is reachable
                again.
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

    def off(self, event: "ShardEventName | QueryEventName", hook: Callable[..., Any]) -> None:
        """Remove a hook; nothing happens if it is not registered.

        Args:
            event: As for ``on``.
            hook: The function.

        Raises:
            ValueError: There is no such event.
        """
        self._observers.off(event, hook)

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
