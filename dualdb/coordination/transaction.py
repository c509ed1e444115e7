"""A transaction on several databases, without the I/O."""

import logging
import time
from abc import ABC, abstractmethod
from typing import (
    Any,
    Callable,
    Dict,
    Generic,
    List,
    Literal,
    Mapping,
    NamedTuple,
    NoReturn,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
)

from .. import deadlines, errors
from ..api.database_client import BaseDatabaseClient
from ..api.interfaces import block_of
from ..api.transaction_block import BaseTransactionBlock
from ..blocks import EndedBlock
from ..execution import steps
from ..execution.execute import outcome_unknown, resolve_route
from ..protocol.transaction_commands import TransactionOptions, Verdict
from ..sharding.calls import Shards
from . import protocol
from .commands import PinnedExecutor
from .coordinator import Coordinator
from .xid import Xid, new_gtrid

log = logging.getLogger("dualdb.coordination")

#: How the parts are committed: all or nothing, or one after the other.
Mode = Literal["xa", "best_effort"]

PartT = TypeVar("PartT")  # the implementation's transaction on one of the databases


class Branch:
    """Mixin for the transaction on one of several databases, which ends with the
    whole.
    """

    def rollback(self) -> NoReturn:
        """Refuse: a part cannot be rolled back alone.

        Raises:
            InterfaceError: Always.
        """
        raise errors.InterfaceError(
            "a part of a transaction on several databases is not rolled back alone: roll back "
            "the whole, or use a savepoint (a transaction() of the part)"
        )


class DistributedOptions(NamedTuple):
    """The options of a transaction on several databases; see
    ``Distributes.transaction``.
    """

    mode: Mode = "xa"
    global_: bool = False
    isolation: Optional[str] = None
    timeout: Optional[float] = None

    def checked(self) -> "DistributedOptions":
        """Validate the options.

        Raises:
            ParameterError: The mode, the isolation level or the timeout is invalid.
        """
        if self.mode not in ("xa", "best_effort"):
            raise errors.ParameterError(f"mode must be 'xa' or 'best_effort', not {self.mode!r}")
        TransactionOptions(isolation=self.isolation, timeout=self.timeout).checked()
        return self


class BaseDistributedTransaction(EndedBlock, ABC, Generic[PartT]):
    """A transaction on several databases.

    Used once, as a context manager: ``tx[1]`` is the part on shard 1, with all verbs;
    ``tx.global_`` that on the global database.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        routes: Callable[[], Mapping[int, steps.Route]],
        check: Callable[[], None],
        options: DistributedOptions,
    ) -> None:
        self._coordinator = coordinator
        self._routes = routes
        self._check_caller = check
        self._options = options
        self._parts: Dict[Optional[int], Any] = {}
        self._blocks: Dict[Optional[int], BaseTransactionBlock] = {}
        self._xids: Dict[Optional[int], Xid] = {}
        self._hooks: List[Callable[[], Any]] = []
        self._gtrid = ""
        self._begun_at = 0.0
        self._open = self._rolled_back = False

    def __repr__(self) -> str:
        state = "open" if self._open else "not open"
        return f"<{type(self).__name__} {self._options.mode} {self._gtrid} {state}>"

    @abstractmethod
    def _new_part(self, route: steps.Route, options: TransactionOptions) -> Any:
        """Make the implementation's transaction on one of the databases."""

    # What the application uses.

    def __getitem__(self, shard_id: int) -> PartT:
        """The part on a shard.

        Args:
            shard_id: One of ``shard_ids``.

        Raises:
            ParameterError: The shard does not take part.
            InterfaceError: The block has not begun.
        """
        self._check_begun()
        if shard_id is None or shard_id not in self._parts:
            raise errors.ParameterError(
                f"shard {shard_id!r} is not part of this transaction, which is on "
                f"{', '.join(map(str, self.shard_ids))}"
            )
        part: PartT = self._parts[shard_id]
        return part

    @property
    def global_(self) -> PartT:
        """The part on the global database.

        Raises:
            InterfaceError: The transaction was opened without ``global_=True``, or has
                not begun.
        """
        self._check_begun()
        if None not in self._parts:
            raise errors.InterfaceError(
                "the global database is not part of this transaction: open it with global_=True"
            )
        part: PartT = self._parts[None]
        return part

    @property
    def shard_ids(self) -> Tuple[int, ...]:
        """The shards that take part."""
        return tuple([shard_id for shard_id in self._parts if shard_id is not None])

    @property
    def gtrid(self) -> str:
        """The transaction's name in the servers' lists and in ``dualdb xa list``; empty
        before its block.
        """
        return self._gtrid

    @property
    def is_open(self) -> bool:
        """True from the beginning of its block to its end."""
        return self._open

    def on_commit(self, function: Callable[[], Any]) -> None:
        """Call a function after the whole has been committed.

        Args:
            function: Takes nothing; in asyncio it may be a coroutine function.

        Raises:
            InterfaceError: The block has ended, or has not begun.
        """
        self._check_begun()
        self._hooks.append(function)

    def _check_begun(self) -> None:
        if not self._open:
            state = "is over" if self._gtrid else "has not begun: use it in a with block"
            raise errors.InterfaceError(f"this transaction {state}")

    # How it begins.

    @property
    def _entered(self) -> bool:
        return bool(self._gtrid)

    def _abandon(self) -> None:
        """Close the sessions of a block that was not left properly."""
        self._open = False
        for part in self._blocks.values():
            part.abandon()

    def _begin(self) -> steps.Plan[None]:
        """Begin on every database, one after the other.

        Raises:
            NotSupportedByEngine: A server cannot take part; nothing was begun.
            Error: One cannot be reached; what was begun is rolled back.
        """
        if self._gtrid:
            raise errors.InterfaceError("a transaction is used once: ask for a new one")
        self._check_caller()
        if self._options.global_:
            self._coordinator.refuse_inside_transaction()
        self._begun_at = time.monotonic()
        options = TransactionOptions(
            isolation=self._options.isolation, timeout=self._options.timeout, distributed=True
        ).begun()
        clients: Dict[Optional[int], Any] = {}
        for shard_id, route in self._routes().items():
            clients[shard_id] = yield from resolve_route(route, options.until)
        cluster = ""
        if self._options.mode == "xa":
            for client in clients.values():
                yield from self._coordinator.check_server(client)
            cluster = yield from self._coordinator.cluster()
        if self._options.global_:
            clients[None] = yield from resolve_route(self._coordinator.global_route)
        self._gtrid = new_gtrid()
        try:
            for key, client in clients.items():
                yield from self._begin_part(key, client, options, cluster)
            branches = [self._part(key, self._blocks[key]) for key in self._xids]
            until = deadlines.earliest(options.until, deadlines.deadline_after())
            yield from protocol.start(branches, until)
            self._open = True
        except GeneratorExit:
            self._abandon()
            raise
        except BaseException as error:
            yield from self._finish(error)
            raise

    def _begin_part(
        self,
        shard_id: Optional[int],
        client: BaseDatabaseClient,
        options: TransactionOptions,
        cluster: str,
    ) -> steps.Plan[None]:
        if cluster and shard_id is not None:
            xid = self._xids[shard_id] = Xid(self._gtrid, cluster, shard_id)
            options = options._replace(xid=xid.sql)
        part = self._new_part(steps.fixed_route(client), options)
        yield steps.EnterBlock(part)
        self._parts[shard_id] = part
        self._blocks[shard_id] = block_of(part)

    # How it ends.

    def _finish(self, error: Optional[BaseException]) -> steps.Plan[None]:
        """End it on every database.

        Args:
            error: What the block ended with.

        Raises:
            TransactionAborted: It was not committed anywhere.
            OutcomeUnknown: The decision could not be read.
            PartialCommitError: (``best_effort``) It was committed on some databases.
        """
        self._open = False
        failed: Optional[Any] = None
        until = float("inf")
        parts: Dict[Optional[int], protocol.Part] = {}
        committed: Sequence[Optional[int]] = ()
        problem: Optional[errors.Error] = None
        try:
            for shard_id, transaction in self._blocks.items():
                verdict = transaction.end(error)
                until = min(until, transaction.begun.end_until())
                parts[shard_id] = self._part(shard_id, transaction)
                if verdict is not Verdict.COMMIT and failed is None:
                    failed = transaction
            commits = error is None and not self._rolled_back and failed is None
            committed, problem = yield from self._end_parts(
                list(parts.values()), until, commits=commits
            )
        finally:
            self._release(parts)
        if failed is not None and error is None and not self._rolled_back:
            problem = _part_was_lost(failed)
        yield from self._after_end(error, committed, problem)

    def _part(self, shard_id: Optional[int], transaction: BaseTransactionBlock) -> protocol.Part:
        """Return a part for the protocol; if its session is not idle, the part is
        lost.
        """
        state = transaction.begun
        executor = PinnedExecutor(state.client, state.connection)
        part = protocol.Part(
            executor,
            self._xids.get(shard_id),
            wrote=state.wrote,
            compound="MariaDB" in state.connection.server_version,
        )
        if not state.connection.idle:
            part.state = protocol.PartState.LOST
        return part

    def _end_parts(
        self, parts: List[protocol.Part], until: float, *, commits: bool
    ) -> steps.Plan[Tuple[Sequence[Optional[int]], Optional[errors.Error]]]:
        """Return the databases where it is committed, and the error to raise."""
        on = protocol.Coordination(self._gtrid, self._coordinator.log, self._begun_at, until)
        if not commits:
            outcome = yield from protocol.roll_back(parts, on, None)
            self._coordinator.record_outcome(self._gtrid, outcome)
            return (), None
        if self._options.mode == "best_effort":
            in_order = yield from protocol.commit_in_order(parts, until)
            return in_order.committed, _in_order_error(in_order)
        outcome = yield from protocol.commit(parts, on)
        self._coordinator.record_outcome(self._gtrid, outcome)
        if outcome.committed:
            return list(self._parts), None
        return (), self._not_committed(outcome)

    def _not_committed(self, outcome: protocol.Outcome) -> errors.Error:
        """Return the error for an outcome other than a commit."""
        cause = outcome.cause
        assert isinstance(cause, errors.Error)
        if outcome.committed is None:
            unknown = outcome_unknown(cause, f"the COMMIT of {self._gtrid}")
            unknown.__cause__ = cause
            return unknown
        aborted = errors.TransactionAborted(
            f"the transaction was rolled back on all of its databases: {cause.summary}"
        ).with_context(cause.target, cause.shard_id, sent=True)
        aborted.__cause__ = cause
        return aborted

    def _release(self, parts: Mapping[Optional[int], protocol.Part]) -> None:
        """Release the connections. A session whose part has not ended is closed,
        because resetting it with a branch would corrupt the server's list of branches.
        """
        for shard_id, transaction in self._blocks.items():
            part = parts.get(shard_id)
            if part is None or part.state is not protocol.PartState.ENDED:
                transaction.begun.connection.idle = False
            transaction.block_left(finished=True)
        left = [key for key, part in parts.items() if key is not None and part.in_doubt]
        if left:  # also if an interrupt aborted the end
            self._coordinator.record_left(self._gtrid, left)

    def _after_end(
        self,
        error: Optional[BaseException],
        committed: Sequence[Optional[int]],
        problem: Optional[errors.Error],
    ) -> steps.Plan[None]:
        """Call the hooks, and raise the error of the end."""
        hooks: List[Callable[[], Any]] = []
        for shard_id, part in self._blocks.items():
            state = part.begun
            if state.failure is not None:
                # The error would keep the frames of this block alive.
                state.failure = errors.OperationalError("the transaction is over")
            hooks += state.savepoints.hooks
            if part.observers.hooks("transaction"):
                is_committed = shard_id in committed
                verdict = Verdict.COMMIT if is_committed else Verdict.ROLLBACK
                yield from part.post_end(verdict, None if is_committed else problem or error)
        if problem is not None:
            errors.cut_own_frames(problem)
            raise problem
        if committed and (hooks or self._hooks):
            yield steps.CallHooks((*hooks, *self._hooks))


def _part_was_lost(part: BaseTransactionBlock) -> errors.Error:
    """Return the error of a block that ended normally although one of its parts was
    lost.
    """
    try:
        part.raise_if_aborted()
    except errors.Error as error:
        return error
    return errors.TransactionAborted(
        "the transaction was rolled back on all of its databases: "
        f"its part on {part.name} was over before its block ended"
    ).with_context(part.name, part.shard_id, sent=True)


def _in_order_error(ended: protocol.InOrder) -> Optional[errors.Error]:
    if ended.cause is None:
        return None
    if not ended.committed and not ended.unknown:
        return ended.cause
    return errors.partial_commit(ended.committed, ended.failed, ended.unknown, ended.cause)


DistributedT = TypeVar("DistributedT")  # the implementation's DistributedTransaction


class Distributes(ABC, Generic[DistributedT]):
    """Mixin for a target of several shards: a transaction on all of them. It precedes
    the target's base class.

    Args:
        coordinator: The service's.
        scatter: The arguments of the target.
        options: Its further arguments.
    """

    #: Makes the implementation's transaction.
    _distributed_class: Callable[..., DistributedT]

    _shards: Shards

    def __init__(self, coordinator: Coordinator, *scatter: Any, **options: Any) -> None:
        super().__init__(*scatter, **options)
        self._coordinator = coordinator

    def transaction(
        self,
        *,
        mode: Mode = "xa",
        global_: bool = False,
        isolation: Optional[str] = None,
        timeout: Optional[float] = None,
    ) -> DistributedT:
        """Open a transaction on these shards: committed on all of them if its block
        ends normally, on none if it raises.

        ``with db.shards([1, 2]).transaction() as tx:``, in asyncio ``async with``.
        ``tx[1]`` and ``tx[2]`` have the verbs; calls that the same thread or task makes
        to these shards inside the block take part, too. A transaction inside a part is
        a savepoint. DDL and COMMIT are refused.

        Args:
            mode: ``"xa"`` for all or nothing, also if the process or a server dies at
                any moment: the decision is a row in the global database, and whoever
                finds something unfinished finishes it. ``"best_effort"`` commits one
                shard after the other, which costs less and can end in between with a
                PartialCommitError.
            global_: The global database takes part, as ``tx.global_``.
            isolation: "READ COMMITTED" and its like, for this transaction alone.
            timeout: Seconds for the whole block; see ``Target.transaction``.

        Returns:
            A context manager, to be used once.

        Raises:
            ParameterError: There is no such mode, isolation level or time.
            NotSupportedByEngine: (when the block begins) A server cannot do XA: one of
                a Galera cluster, or a MySQL with ``xa_detach_on_prepare=OFF``. Nothing
                was begun.
            TransactionAborted: (at its end) It was rolled back on all shards.
            OutcomeUnknown: (at its end) Neither the decision nor the global database
                could be reached any more; recovery will finish it one way or the other.
            PartialCommitError: (at its end, with ``"best_effort"``) Some shards have
                committed, others have not.

        Example:
            >>> with db.shards([1, 2]).transaction(mode="xa") as tx:
            ...     tx[1].execute("UPDATE trades SET qty = qty - 1 WHERE id = 7")
            ...     tx[2].execute("UPDATE trades SET qty = qty + 1 WHERE id = 7")
        """
        return self._distributed_class(
            self._coordinator,
            self._shards.named_routes,
            self._shards.check,
            DistributedOptions(mode, global_, isolation, timeout).checked(),
        )
