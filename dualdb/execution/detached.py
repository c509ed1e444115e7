"""Execution on a separate connection, outside the caller's transactions."""

from typing import Any, Callable, Optional, Union

from ..observability.observers import NOBODY, Observers
from ..protocol.statements import Call, Statement
from .steps import Plan, Route


class DetachedExecutor:
    """Executes statements outside the caller's transactions: for statements of the
    service itself, and of calls to several shards.

    Args:
        client: The database's client.
        observers: The hooks and interceptors of its calls; none for the service itself,
            which no interceptor can prevent.
        read_only: Only statements known to be reads are accepted.
        refresh_on_miss: Makes the plan that reads the shard table again, if the
            database is a shard.
    """

    def __init__(
        self,
        client: Any,
        *,
        observers: Observers = NOBODY,
        read_only: bool = False,
        refresh_on_miss: Optional[Callable[..., Any]] = None,
    ) -> None:
        self._client = client
        self.name = client.name
        self.shard_id = client.shard_id
        self._read_only = read_only
        self._reads_only = bool(getattr(client, "_reads_only", False))
        self._observers = observers
        self._refresh_on_miss = refresh_on_miss
        self._replica = getattr(client, "_replica", None)
        #: Makes the error for a write, if the client has its own.
        self.write_refusal = getattr(client, "write_refusal", None)

    def _record_insert_id(self, lastrowid: int) -> None:
        """Ignore the id: ``get_last_insert_id`` is about the caller's own inserts."""

    def _execute(self, statement: Union[Statement, Call], until: Optional[float] = None) -> Any:
        return self._client._execute_on_own_connection(statement, until)

    def _begin(self) -> Any:
        """Check out an idle connection without waiting, or return None.

        Used by threads only; release it with ``_end``.
        """
        return None if self._client.testing is not None else self._client.pool.checkout_idle()

    def _end(self, connection: object) -> None:
        self._client.pool.release(connection)

    def _take_retry_token(self) -> bool:
        return bool(self._client._take_retry_token())


class DetachedRoute:
    """The route of a call to one of several shards, outside the caller's transactions.

    Args:
        route: Chooses the executor of the shard.
    """

    def __init__(self, route: Route) -> None:
        self._route = route
        self._executor: Any = None
        self._detached: Any = None

    def __call__(self, until: Optional[float] = None) -> Plan[Any]:
        executor = yield from self._route(until)
        # The same for the same: who routes again asks whether it leads elsewhere now.
        if executor is not self._executor:
            self._executor = executor
            self._detached = DetachedExecutor(
                executor,
                observers=executor._observers,
                read_only=executor._read_only,
                refresh_on_miss=executor._refresh_on_miss,
            )
        return self._detached
