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
        self.client = client.client
        self.name = client.name
        self.shard_id = client.shard_id
        self.read_only = read_only
        self.reads_only = client.reads_only
        self.observers = observers
        self.refresh_on_miss = refresh_on_miss
        self.replica = client.replica
        #: Makes the error for a write, if the client has its own.
        self.write_refusal = client.write_refusal

    def current_transaction(self) -> None:
        """Return None: it is outside the caller's transactions."""

    def record_insert_id(self, lastrowid: int) -> None:
        """Ignore the id: ``get_last_insert_id`` is about the caller's own inserts."""

    def run_statement(
        self, statement: Union[Statement, Call], until: Optional[float] = None
    ) -> Any:
        return self.client.run_on_own_connection(statement, until)

    def begin(self) -> Any:
        """Check out an idle connection without waiting, or return None.

        Used by threads only; release it with ``end``.
        """
        return None if self.client.testing is not None else self.client.pool.checkout_idle()

    def end(self, connection: object) -> None:
        self.client.pool.release(connection)

    def take_retry_token(self) -> bool:
        return bool(self.client.take_retry_token())


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
                observers=executor.observers,
                read_only=executor.read_only,
                refresh_on_miss=executor.refresh_on_miss,
            )
        return self._detached
