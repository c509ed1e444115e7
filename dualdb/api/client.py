"""The client of one database: the target under the original service's old name, with
that service's methods.
"""

from typing import Any, Callable, Generic, Optional, Type, TypeVar

from .. import deadlines
from ..config import DatabaseConfig
from ..execution import shutdown, steps
from ..pooling.base import PoolStats
from .database_client import BaseDatabaseClient
from .membership import ChildTasks, LastInserts
from .target import Blocks
from .typevars import ConnectionT, NoneR, TransactionT


class BaseClient(Blocks[TransactionT, ConnectionT], Generic[TransactionT, ConnectionT, NoneR]):
    """One database and its pool.

    ``MySQLClient(config)`` stands alone; a service makes one for itself and one for
    each shard.

    The pool connects when it is first used; ``init_pool()`` makes it do so now.

    Args:
        config: Address, account, pool settings, timeouts.
        name: Of the database, for messages and metrics; by default its address.
        shard_id: The shard that it is, if it is one.
        child_tasks: What becomes of a call that another task or thread makes in a
            context which has a transaction open on this database: "warn" (outside,
            with one WARNING for each place), "error" (InterfaceError), or "join"
            (inside, one at a time).
    """

    #: The implementation's DatabaseClient.
    _database_client_class: Callable[..., BaseDatabaseClient]

    def __init__(
        self,
        config: DatabaseConfig,
        *,
        name: Optional[str] = None,
        shard_id: Optional[int] = None,
        child_tasks: ChildTasks = "warn",
    ) -> None:
        self._database = self._database_client_class(
            config, name=name, shard_id=shard_id, child_tasks=child_tasks
        )

    def __repr__(self) -> str:
        return (
            f"<{type(self).__module__}.{type(self).__qualname__} {self.name} at "
            f"{self.config.address}>"
        )

    @property
    def config(self) -> DatabaseConfig:
        """Address, account, pool settings, timeouts."""
        return self._database.config

    @config.setter
    def config(self, config: DatabaseConfig) -> None:
        # Subclasses of the original client assign it, some before its __init__.
        if "_database" in self.__dict__:
            self._database.config = config

    @property
    def name(self) -> str:
        """The database: "global", "shard 7", or its address."""
        return self._database.name

    @property
    def shard_id(self) -> Optional[int]:
        """The shard; None for another database."""
        return self._database.shard_id

    @property
    def pool(self) -> Any:
        """The pool, which is made when it is first used."""
        return self._database.pool

    def _route(self, until: Optional[float] = None) -> steps.Plan[steps.Executor]:
        return self._database.route(until)

    def _last_inserts(self) -> LastInserts:
        return self._database.last_inserts()

    def stats(self) -> PoolStats:
        """The pool's figures, without I/O."""
        return self._database.stats()

    def resize(
        self, *, pool_size: Optional[int] = None, max_overflow: Optional[int] = None
    ) -> NoneR:
        """Change the sizes of the pool. Connections in use stay; those that are too
        many are closed when they come back, and callers who wait are served at once
        if there is room.

        A shard's sizes are those of its row again when the row's ``max_connections``
        changes, or when the service is resized.

        Args:
            pool_size: Connections kept open when idle; None leaves it.
            max_overflow: Connections beyond these under load; None leaves it.

        Raises:
            ValueError: A size is out of range.

        Example:
            >>> client = db.get_shard_client(1)
            >>> client.resize(pool_size=20, max_overflow=0)
            >>> client.stats().limit
            20
        """
        config = self.config.with_sizes(pool_size, max_overflow)
        result: NoneR = self._run(steps.single(steps.Resize(self._database, config)))
        return result

    # The original client's methods.

    def init_pool(self) -> NoneR:
        """Open the pool and make its first connection.

        Does nothing where that has been done.

        Raises:
            ConnectionFailed: It could not be connected.
            ShardUnavailable: The same, for a service's shard.
        """
        return self._run(_open(self._database))

    def close_pool(self, timeout: Optional[float] = None) -> NoneR:
        """Close the pool: idle connections at once, those in use when they come back.

        ``init_pool`` opens it again.

        Args:
            timeout: Seconds to wait for what is in use, which is then aborted; None
                does not wait.
        """
        return self._run(shutdown.closing((self._database,), timeout))

    def get_connection(self) -> ConnectionT:
        """The same as ``connection()``; its ``close()`` gives it back."""
        return self.connection()


AnyClient = BaseClient[Any, Any, Any]

ClientT = TypeVar("ClientT", bound=AnyClient)


def client_over(cls: Type[ClientT], database: BaseDatabaseClient) -> ClientT:
    """Make the client that users hold for a database of a service."""
    made = cls.__new__(cls)
    made._database = database
    return made


def _open(client: BaseDatabaseClient) -> steps.Plan[None]:
    if client.closed or client.pool.closed:
        client.closed = False
        client.pool = client.make_pool()
    yield steps.Open(client, deadlines.deadline_after())
