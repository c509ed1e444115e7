"""Reads from replicas, blocks without writes, read-your-writes, and priorities."""

from abc import abstractmethod
from typing import Any, Generic, List, Optional

from ..endpoints import causal
from ..execution import steps
from ..execution.reads import PrimaryReader, is_reader
from ..pooling.admission import Priority, PriorityBlock
from ..topology.lifecycle import ServiceLifecycle
from ..topology.replicas import ReplicaStatus
from .read_blocks import ReadOnlyBlock
from .target import BaseTarget
from .typevars import TargetT


class ReadRoute:
    """The route of reads that replicas may serve.

    Args:
        route: The route to the primary.
    """

    def __init__(self, route: steps.Route) -> None:
        self._route = route

    def __call__(self, until: Optional[float] = None) -> steps.Plan[Any]:
        executor: Any = yield from self._route(until)
        if is_reader(executor):
            return executor
        # One that refuses writes by itself; reads need only what is behind it.
        client = executor.client
        shared = client.shared
        if shared is None or shared.replicas is None:
            return PrimaryReader(client)
        return (yield from shared.replicas.executor_for(client, until))

    def __str__(self) -> str:
        return f"{self._route}, reads"


class Readable(BaseTarget, Generic[TargetT]):
    """A target whose reads may go to replicas."""

    @abstractmethod
    def _target_on(self, route: steps.Route) -> TargetT:
        """Make a target for the same database with another route."""

    @property
    def read(self) -> TargetT:
        """The same database for reads alone, which its replicas serve.

        A statement that is not known to be a read is refused before it is sent
        (ReadOnlyTargetError). A read whose replica is lost is sent to another one,
        once. While no replica is in the rotation, the primary is read; see
        ``ReplicaOptions``. Inside a transaction that the caller has open on the
        database, a read is part of it. ``read.transaction()`` is READ ONLY. For a
        single call ``role="replica"`` of the verbs that read is the same.

        Example:
            >>> db.shard(2).read.query("SELECT symbol FROM trades")
            [{'symbol': 'ABC'}]
        """
        return self._target_on(self._read_route())

    def _read_route(self) -> steps.Route:
        return ReadRoute(self._route)


class ReadAdmin:
    """A service's replicas, and the blocks around reads."""

    _shared: Any
    _lifecycle: ServiceLifecycle

    def replicas(self) -> List[ReplicaStatus]:
        """Return the state of each replica, without I/O.

        Example:
            >>> {each.shard_id: each.in_rotation for each in db.replicas()}
            {1: True, 2: True}
        """
        manager = self._lifecycle.replicas
        return [] if manager is None else manager.status()

    def read_only(self) -> ReadOnlyBlock:
        """Refuse whatever is not known to be a read inside a block.

        It holds for all databases of the service, and for tasks and threads that
        inherit the context. A transaction that begins inside is READ ONLY.

        Returns:
            A context manager: ``with``, in asyncio, too.

        Raises:
            ReadOnlyTargetError: (from calls inside) It is not known to be a read.

        Example:
            >>> with db.read_only():
            ...     db.shard(2).query("SELECT symbol FROM trades")
            [{'symbol': 'ABC'}]
        """
        return ReadOnlyBlock(self._shared)

    def causal(
        self, token: Optional[str] = None, *, timeout: Optional[float] = None
    ) -> causal.CausalBlock:
        """Let the reads inside a block see the writes of a token, and those that are
        made inside it.

        A read that a replica serves waits until the replica has them, and goes to the
        primary if that takes too long. The block's ``token`` is for whoever continues.

        Args:
            token: Of ``causal_token``, from any process; None or an empty text for
                none.
            timeout: Seconds that a read waits; None for the ``causal_timeout`` of
                ``ReplicaOptions``.

        Returns:
            A context manager: ``with``, in asyncio, too.

        Raises:
            ParameterError: It is no such token.

        Example:
            >>> with db.causal(request.cookies.get("dualdb_causal")) as causal:
            ...     orders = db.shard(2).read.query("SELECT id FROM orders")
            >>> response.set_cookie("dualdb_causal", causal.token)
        """
        return causal.CausalBlock(self._shared, token, timeout)

    def priority(self, priority: Priority) -> PriorityBlock:
        """Give the calls inside a block a priority, which matters where a database has
        ``max_in_flight``.

        Args:
            priority: "normal", or "batch": refused while half of ``max_in_flight`` is
                in use.

        Returns:
            A context manager: ``with``, in asyncio, too.

        Raises:
            ParameterError: There is no such priority.
            Overloaded: (from calls inside) The call was refused.

        Example:
            >>> with db.priority("batch"):
            ...     db.shard(2).execute("UPDATE trades SET quantity = 0")
            1
        """
        return PriorityBlock(priority)

    def causal_token(self) -> str:
        """Return a text that stands for what was written, for ``causal`` in any
        process.

        Inside a block of ``causal`` it is that block's token. Otherwise it stands for
        all writes of this service.

        Returns:
            At most 3,600 characters of a URL; empty if nothing was written.

        Example:
            >>> db.shard(2).execute("INSERT INTO trades (symbol) VALUES ('A')")
            1
            >>> token = db.causal_token()
        """
        block = causal.innermost(self._shared)
        if block is not None:
            return block.token
        topology = self._shared.topology()
        clients = () if topology is None else topology.all_clients
        logs = [client.pool.writes for client in clients if client.has_pool]
        entries = [(log.key, log.entry) for log in logs]
        return causal.token_of([(key, entry) for key, entry in entries if entry is not None])
