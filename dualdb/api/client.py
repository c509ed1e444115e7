"""The client of one database: the target under the original service's old name, with
that service's methods.
"""

import logging
from abc import abstractmethod
from functools import partial
from typing import Any, Callable, Generic, List, NamedTuple, Optional, Sequence, Set, Tuple, cast

from .. import blocks, deadlines, errors
from ..config import DatabaseConfig
from ..endpoints.balancing import Replica
from ..endpoints.causal import WriteLog
from ..endpoints.profiles import UNKNOWN, EngineProfile
from ..execution import shutdown, steps
from ..lazily import made_on_first_use
from ..observability.logs import about
from ..observability.observers import NOBODY, Observers
from ..pooling.base import PoolStats, unused_stats
from ..protocol.connection_state import ConnectionState
from ..protocol.statements import AnyStatement
from ..topology.routing import check_cross_shard
from . import membership, read_blocks
from .membership import ChildTasks, LastInserts
from .target import Blocks
from .typevars import ConnectionT, NoneR, TransactionT

log = logging.getLogger("dualdb.transaction")


class Shared(NamedTuple):
    """What the clients of one service have in common.

    Attributes:
        inserts: the last insert of each caller, on whichever database.
        warned: the places whose calls outside an open transaction were logged.
        topology: gives what is in use, which a transaction keeps until its end.
        refresh_on_miss: reads the shard table again.
        child_tasks: see ``ChildTasks``.
        observers: The hooks and interceptors of their calls.
        outbox: where events are, an OutboxTable.
        forget_keys: looks the shards of keys up again.
        replicas: the ReplicaManager.
    """

    inserts: LastInserts
    warned: Set[str]
    topology: Callable[[], Any]
    refresh_on_miss: Callable[..., steps.Plan[None]]
    child_tasks: ChildTasks = "warn"
    observers: Observers = NOBODY
    outbox: Any = None
    forget_keys: Optional[Callable[[], None]] = None
    replicas: Any = None


class BaseClient(Blocks[TransactionT, ConnectionT], Generic[TransactionT, ConnectionT, NoneR]):
    """One database and its pool.

    ``MySQLClient(config)`` stands alone; a service makes one for itself and one for
    each shard.

    The pool connects when it is first used; ``init_pool()`` makes it do so now.

    Args:
        config: address, account, pool settings, timeouts.
        child_tasks: what becomes of a call that another task or thread makes in a
            context which has a transaction open on this database: "warn" (outside,
            with one WARNING for each place), "error" (InterfaceError), or "join"
            (inside, one at a time).
    """

    def __init__(
        self,
        config: DatabaseConfig,
        *,
        name: Optional[str] = None,
        shard_id: Optional[int] = None,
        shared: Optional[Shared] = None,
        child_tasks: ChildTasks = "warn",
    ) -> None:
        if not isinstance(config, DatabaseConfig):
            raise TypeError(f"a client is made from a DatabaseConfig, not {type(config).__name__}")
        self._child_tasks = membership.checked(
            child_tasks if shared is None else shared.child_tasks
        )
        self._warned: Set[str] = set() if shared is None else shared.warned
        self.config = config
        self.name = name or config.address
        self.shard_id = shard_id
        self._refresh_on_miss = (
            None if shared is None or shard_id is None else shared.refresh_on_miss
        )
        #: Its shard takes reads alone; a transaction ends as it began.
        self._shard_read_only = False
        #: The open transaction that every call takes part in; see
        #: ``testing_transaction``.
        self.testing: Any = None
        self._observers = Observers() if shared is None else shared.observers
        self._shared = shared
        self._closed = False
        #: Called with its shard id and the failure when it becomes unreachable, and
        #: with None when it is reachable again.
        self._on_outage: Optional[Callable[[Any, Optional[Exception]], None]] = None

    def __repr__(self) -> str:
        return (
            f"<{type(self).__module__}.{type(self).__qualname__} {self.name} at "
            f"{self.config.address}>"
        )

    #: What is known of it as a replica; None for a primary.
    _replica: Optional[Replica] = None

    #: The implementation's pool.
    _pool_class: Callable[..., Any]

    def _new_pool(self) -> Any:
        """Make a pool for this database, not yet connected."""
        return self._pool_class(self.config, self.name, self.shard_id)

    def _make_pool(self) -> Any:
        """Make a pool for this database, not yet connected."""
        pool = self._new_pool()
        pool.observers = self._observers
        pool.writes = WriteLog(self.shard_id, self.config.address, self._shared)
        if self._on_outage is not None:
            pool.on_outage = partial(self._on_outage, self.shard_id)
        return pool

    def _catch_up(self, pool: Any) -> None:
        """Do to the pool what was done to the client while it was made."""
        if self._closed:
            pool.close()
        elif pool.config is not self.config:
            pool.resize(self.config)

    #: Of thousands of shards a process may use few.
    pool: Any = made_on_first_use(lambda client: client._make_pool(), _catch_up)

    @property
    def _has_pool(self) -> bool:
        """Whether its pool has been used, by any thread."""
        return "pool" in self.__dict__

    @property
    def _failure(self) -> Optional[errors.ConnectionFailed]:
        """The error of the last connect; None if it succeeded, or there was none."""
        return self.pool.breaker.failure if self._has_pool else None

    @property
    def _needs_connection(self) -> bool:
        """Whether the background connects it: it could not be reached, or is new and
        not to be opened when it is first used.
        """
        opened = self._has_pool and self.pool.opened
        return self._failure is not None or (self.config.warm_up > 0 and not opened)

    def _close_now(self) -> None:
        """Close the pool, or one that is made from now on."""
        self._closed = True
        if self._has_pool:
            self.pool.close()

    def _resize_now(self, config: DatabaseConfig) -> None:
        """Change the sizes of the pool, or of one that is made from now on."""
        self.config = config
        if self._has_pool:
            self.pool.resize(config)

    @staticmethod
    @abstractmethod
    def _owner() -> Any:
        """The thread, task or greenlet that is calling: whose last insert this is, and
        whose transaction a call takes part in.
        """

    @abstractmethod
    def _execute(self, statement: AnyStatement, until: Optional[float] = None) -> Any:
        """Run a statement on one connection, or in the caller's transaction: what its
        exchange returns.
        """

    @abstractmethod
    def _execute_on_own_connection(
        self, statement: AnyStatement, until: Optional[float] = None
    ) -> Any:
        """Run it on a connection of its own, whatever transaction the caller is in."""

    @property
    def _read_only(self) -> bool:
        if read_blocks.read_only_blocks() and self._reads_only:
            return True
        joined = self._current_transaction()
        return self._shard_read_only if joined is None else bool(joined._read_only)

    @property
    def _reads_only(self) -> bool:
        """The caller's calls, and not the shard, are limited to reads."""
        return self._replica is not None or read_blocks.is_limited_to_reads(self._shared)

    @property
    def _last_profile(self) -> EngineProfile:
        """What its server could do at the last connect; of several, the first."""
        node = self.pool.endpoints.all[0].node
        return UNKNOWN if node is None else cast(EngineProfile, node.profile)

    def _translate_error(self, error: BaseException, connection: ConnectionState) -> BaseException:
        """What to raise for the error of a statement outside a transaction."""
        translated = errors.translate_error(error, self.name, self.shard_id, sent=connection.sent)
        if isinstance(translated, errors.NotPrimary):
            several = self.pool.endpoints.several
            translated.elsewhere = several and errors.means_not_primary(error)
        return translated

    def _take_retry_token(self) -> bool:
        return bool(self.pool.retry_budget.spend())

    def stats(self) -> PoolStats:
        """The pool's figures, without I/O."""
        if not self._has_pool:
            return unused_stats(self.config)
        figures: PoolStats = self.pool.stats()
        return figures

    def _route(self, until: Optional[float] = None) -> steps.Plan[steps.Executor]:
        yield from ()
        if self._shared is None:
            return self
        return self._check_cross_shard(self._callers_transactions())

    def _callers_transactions(self) -> List[Any]:
        """The outermost transactions on this service in which the caller takes part."""
        found = [
            each
            for each in membership.open_transactions()
            if each._begun.client._shared is self._shared and self._takes_part(each)
        ]
        return found if self.testing is None else found + self._testing_transactions()

    def _testing_transactions(self) -> List[Any]:
        """The testing transactions in which the caller has a transaction of its own."""
        topology = None if self._shared is None else self._shared.topology()
        if topology is None:
            return []
        caller = self._owner()
        testing = [each.testing for each in (topology.global_client, *topology.clients.values())]
        return [
            each
            for each in testing
            if each is not None and each._begun.savepoints.is_entered_by(caller)
        ]

    def _check_cross_shard(self, transactions: Sequence[Any]) -> "AnyClient":
        """Return the client; refuse a call that would leave the caller's transaction.

        Raises:
            CrossShardError: One of the transactions is on another shard.
        """
        if self.shard_id is not None:
            check_cross_shard(self.shard_id, transactions)
        return self

    @made_on_first_use
    def _inserts(self) -> Tuple[LastInserts, ...]:
        shared = self._shared
        return (LastInserts(),) if shared is None else (LastInserts(), shared.inserts)

    def _last_inserts(self) -> LastInserts:
        return self._inserts[0]

    def _record_insert_id(self, lastrowid: int) -> None:
        owner = self._owner()
        for inserts in self._inserts:
            inserts.record(owner, lastrowid)

    def _current_transaction(self) -> Any:
        """The outermost transaction on this database in which the caller takes part.

        Raises:
            InterfaceError: it is another caller's, and ``child_tasks`` is "error".
        """
        if not membership.references():
            return self.testing
        for found in reversed(membership.open_transactions()):
            if found._begun.client is self:
                if self._takes_part(found):
                    return found
                self._outside(found)
        return self.testing

    def _takes_part(self, transaction: Any) -> bool:
        if self._child_tasks == "join":
            return True
        try:
            caller = self._owner()
        except errors.InterfaceError:  # a callback of a loop is no task
            return False
        return bool(transaction._begun.entry.is_by(caller))

    def _outside(self, transaction: Any) -> None:
        """A call in the context of a transaction that somebody else entered."""
        entered = transaction._begun.entry.place
        message = (
            f"a call on {self.name} by another thread, task or suspended generator than the one "
            f"that opened the transaction at {entered}"
        )
        if self._child_tasks == "error":
            raise errors.InterfaceError(
                f'{message}: use the transaction itself, or child_tasks="join"'
            ).with_context(self.name, self.shard_id, sent=False)
        place = blocks.current_place()
        if f"{place} {entered}" not in self._warned:
            self._warned.add(f"{place} {entered}")
            log.warning(
                "%s goes outside the transaction (at %s); use the transaction itself, "
                'or child_tasks="join"',
                message,
                place,
                extra=about("call_outside_transaction", self),
            )

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
        result: NoneR = self._run(steps.single(steps.Resize(self, config)))
        return result

    # The original client's methods.

    def init_pool(self) -> NoneR:
        """Open the pool and make its first connection.

        Does nothing where that has been done.

        Raises: ConnectionFailed, or ShardUnavailable for a service's shard.
        """
        return self._run(_open(self))

    def close_pool(self, timeout: Optional[float] = None) -> NoneR:
        """Close the pool: idle connections at once, those in use when they come back.

        ``init_pool`` opens it again.

        With a ``timeout`` in seconds it waits that long for what is in use, and then
        breaks it.
        """
        return self._run(shutdown.closing((self,), timeout))

    def get_connection(self) -> ConnectionT:
        """The same as ``connection()``; its ``close()`` gives it back."""
        return self.connection()


AnyClient = BaseClient[Any, Any, Any]


def _open(client: AnyClient) -> steps.Plan[None]:
    if client._closed or client.pool.closed:
        client._closed = False
        client.pool = client._make_pool()
    yield steps.Open(client, deadlines.deadline_after())
