"""The client of one database, as the package itself uses it."""

import logging
from abc import ABC, abstractmethod
from functools import partial
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Set, Tuple, cast

from .. import blocks, errors
from ..config import DatabaseConfig
from ..endpoints.balancing import Replica
from ..endpoints.causal import WriteLog
from ..endpoints.profiles import UNKNOWN, EngineProfile
from ..execution import steps
from ..lazily import made_on_first_use
from ..observability.logs import about
from ..observability.observers import NOBODY, Observers
from ..pooling.base import PoolStats, unused_stats
from ..protocol.connection_state import ConnectionState
from ..protocol.statements import AnyStatement
from ..topology.routing import check_cross_shard
from . import membership, read_blocks
from .membership import ChildTasks, LastInserts

log = logging.getLogger("dualdb.transaction")


class Shared(NamedTuple):
    """What the clients of one service have in common.

    Attributes:
        inserts: The last insert of each caller, on whichever database.
        warned: The places whose calls outside an open transaction were logged.
        topology: Gives what is in use, which a transaction keeps until its end.
        refresh_on_miss: Reads the shard table again.
        child_tasks: See ``ChildTasks``.
        observers: The hooks and interceptors of their calls.
        outbox: Where events are, an OutboxTable.
        forget_keys: Looks the shards of keys up again.
        replicas: The ReplicaManager.
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


class BaseDatabaseClient(ABC):
    """One database and its pool: an executor of statements (``steps.Executor``).

    A topology has one for the global database and one for each shard in service. Users
    hold a MySQLClient over it, which has the verbs.

    Args:
        config: As for MySQLClient.
        name: Of the database, for messages; by default its address.
        shard_id: The shard; None for another database.
        shared: What it has in common with the other clients of its service.
        child_tasks: As for MySQLClient; a service's is in ``shared``.

    Attributes:
        config: Address, account, pool settings, timeouts.
        name: As given.
        shard_id: As given.
        shared: As given.
        child_tasks: As given.
        refresh_on_miss: Makes the plan that reads the shard table again; None where
            there is no such table.
        observers: The hooks and interceptors of its calls.
        closed: Its pool is closed, or closed when it is made.
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
        self.child_tasks = membership.checked(child_tasks if shared is None else shared.child_tasks)
        self._warned: Set[str] = set() if shared is None else shared.warned
        self.config = config
        self.name = name or config.address
        self.shard_id = shard_id
        self.refresh_on_miss = (
            None if shared is None or shard_id is None else shared.refresh_on_miss
        )
        #: Its shard takes reads alone; a transaction ends as it began.
        self.shard_read_only = False
        #: The open transaction that every call takes part in; see
        #: ``testing_transaction``.
        self.testing: Any = None
        self.observers = Observers() if shared is None else shared.observers
        self.shared = shared
        self.closed = False
        #: Called with its shard id and the failure when it becomes unreachable, and
        #: with None when it is reachable again.
        self.on_outage: Optional[Callable[[Any, Optional[Exception]], None]] = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} at {self.config.address}>"

    @property
    def client(self) -> "BaseDatabaseClient":
        """Itself: as an executor it has no other client behind it."""
        return self

    #: What is known of it as a replica; None for a primary.
    replica: Optional[Replica] = None

    #: A write is refused by the rules of the shard, and not by an error of its own.
    write_refusal: Optional[Callable[[], errors.Error]] = None

    #: The implementation's pool.
    _pool_class: Callable[..., Any]

    def _new_pool(self) -> Any:
        """Make a pool for this database, not yet connected."""
        return self._pool_class(self.config, self.name, self.shard_id)

    def make_pool(self) -> Any:
        """Make a pool for this database, not yet connected."""
        pool = self._new_pool()
        pool.observers = self.observers
        pool.writes = WriteLog(self.shard_id, self.config.address, self.shared)
        if self.on_outage is not None:
            pool.on_outage = partial(self.on_outage, self.shard_id)
        return pool

    def _catch_up(self, pool: Any) -> None:
        """Do to the pool what was done to the client while it was made."""
        if self.closed:
            pool.close()
        elif pool.config is not self.config:
            pool.resize(self.config)

    #: Of thousands of shards a process may use few.
    pool: Any = made_on_first_use(lambda client: client.make_pool(), _catch_up)

    @property
    def has_pool(self) -> bool:
        """Whether its pool has been used, by any thread."""
        return "pool" in self.__dict__

    @property
    def failure(self) -> Optional[errors.ConnectionFailed]:
        """The error of the last connect; None if it succeeded, or there was none."""
        return self.pool.breaker.failure if self.has_pool else None

    @property
    def needs_connection(self) -> bool:
        """Whether the background connects it: it could not be reached, or is new and
        not to be opened when it is first used.
        """
        opened = self.has_pool and self.pool.opened
        return self.failure is not None or (self.config.warm_up > 0 and not opened)

    def close(self) -> None:
        """Close the pool, or one that is made from now on."""
        self.closed = True
        if self.has_pool:
            self.pool.close()

    def resize(self, config: DatabaseConfig) -> None:
        """Change the sizes of the pool, or of one that is made from now on."""
        self.config = config
        if self.has_pool:
            self.pool.resize(config)

    @staticmethod
    @abstractmethod
    def caller() -> Any:
        """The thread, task or greenlet that is calling: whose last insert this is, and
        whose transaction a call takes part in.
        """

    @abstractmethod
    def run_statement(self, statement: AnyStatement, until: Optional[float] = None) -> Any:
        """Run a statement on one connection, or in the caller's transaction: what its
        exchange returns.
        """

    @abstractmethod
    def run_on_own_connection(self, statement: AnyStatement, until: Optional[float] = None) -> Any:
        """Run it on a connection of its own, whatever transaction the caller is in."""

    @abstractmethod
    def run_on(
        self, connection: Any, statement: AnyStatement, until: Optional[float] = None
    ) -> Any:
        """Run it on a connection that the caller has checked out."""

    @property
    def read_only(self) -> bool:
        """Only known reads are sent: by the caller's block or transaction, or because
        the shard takes no others.
        """
        if read_blocks.read_only_blocks() and self.reads_only:
            return True
        joined = self.current_transaction()
        return self.shard_read_only if joined is None else bool(joined.read_only)

    @property
    def reads_only(self) -> bool:
        """The caller's calls, and not the shard, are limited to reads."""
        return self.replica is not None or read_blocks.is_limited_to_reads(self.shared)

    @property
    def last_profile(self) -> EngineProfile:
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

    def take_retry_token(self) -> bool:
        """Take one retry from the pool's budget; False if it is exhausted."""
        return bool(self.pool.retry_budget.spend())

    def stats(self) -> PoolStats:
        """The pool's figures, without I/O."""
        if not self.has_pool:
            return unused_stats(self.config)
        figures: PoolStats = self.pool.stats()
        return figures

    def route(self, until: Optional[float] = None) -> steps.Plan[steps.Executor]:
        """The route of the calls on this database."""
        yield from ()
        if self.shared is None:
            return self
        return self.check_cross_shard(self.callers_transactions())

    def callers_transactions(self) -> List[Any]:
        """The outermost transactions on this service in which the caller takes part."""
        found = [
            each
            for each in membership.open_transactions()
            if each.begun.client.shared is self.shared and self._takes_part(each)
        ]
        return found if self.testing is None else found + self._testing_transactions()

    def _testing_transactions(self) -> List[Any]:
        """The testing transactions in which the caller has a transaction of its own."""
        topology = None if self.shared is None else self.shared.topology()
        if topology is None:
            return []
        caller = self.caller()
        testing = [each.testing for each in (topology.global_client, *topology.clients.values())]
        return [
            each
            for each in testing
            if each is not None and each.begun.savepoints.is_entered_by(caller)
        ]

    def check_cross_shard(self, transactions: Sequence[Any]) -> "BaseDatabaseClient":
        """Return the client; refuse a call that would leave the caller's transaction.

        Raises:
            CrossShardError: One of the transactions is on another shard.
        """
        if self.shard_id is not None:
            check_cross_shard(self.shard_id, transactions)
        return self

    @made_on_first_use
    def _inserts(self) -> Tuple[LastInserts, ...]:
        shared = self.shared
        return (LastInserts(),) if shared is None else (LastInserts(), shared.inserts)

    def last_inserts(self) -> LastInserts:
        """The last insert of each caller on this database."""
        return self._inserts[0]

    def record_insert_id(self, lastrowid: int) -> None:
        """Record the caller's last insert, here and for the service."""
        owner = self.caller()
        for inserts in self._inserts:
            inserts.record(owner, lastrowid)

    def current_transaction(self) -> Any:
        """The outermost transaction on this database in which the caller takes part.

        Raises:
            InterfaceError: It is another caller's, and ``child_tasks`` is "error".
        """
        if not membership.references():
            return self.testing
        for found in reversed(membership.open_transactions()):
            if found.begun.client is self:
                if self._takes_part(found):
                    return found
                self._outside(found)
        return self.testing

    def _takes_part(self, transaction: Any) -> bool:
        if self.child_tasks == "join":
            return True
        try:
            caller = self.caller()
        except errors.InterfaceError:  # a callback of a loop is no task
            return False
        return bool(transaction.begun.entry.is_by(caller))

    def _outside(self, transaction: Any) -> None:
        """A call in the context of a transaction that somebody else entered."""
        entered = transaction.begun.entry.place
        message = (
            f"a call on {self.name} by another thread, task or suspended generator than the one "
            f"that opened the transaction at {entered}"
        )
        if self.child_tasks == "error":
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
