"""Transactions and savepoints, as users hold them."""

from typing import (
    Any,
    Callable,
    Coroutine,
    Generic,
    Iterable,
    List,
    Optional,
    cast,
    overload,
)

from .. import errors
from ..blocks import EndedBlock
from ..execution import execute, steps
from ..execution import pipeline as pipelines
from ..protocol.transaction_commands import DEFAULT_OPTIONS, TransactionOptions
from .membership import LastInserts
from .target import Blocks
from .transaction_block import BaseTransactionBlock
from .transaction_state import TransactionState
from .typevars import ConnectionT, InTasks, InThreads, TransactionT


class BaseTransaction(
    EndedBlock, Blocks[TransactionT, ConnectionT], Generic[TransactionT, ConnectionT]
):
    """A transaction on one database, or a savepoint inside one.

    Used once, as a context manager.
    """

    #: The implementation's TransactionBlock.
    _block_class: Callable[..., BaseTransactionBlock]

    def __init__(
        self,
        route: steps.Route,
        outer: Optional[TransactionState] = None,
        *,
        options: TransactionOptions = DEFAULT_OPTIONS,
    ) -> None:
        self._block = self._block_class(route, outer, options=options)

    def __repr__(self) -> str:
        state = self._block.state
        if state is None:
            return f"<{type(self).__name__}, not begun>"
        return (
            f"<{type(self).__name__} on {state.client.name}, {'open' if self.is_open else 'over'}>"
        )

    @property
    def _entered(self) -> bool:
        return self._block.state is not None

    def _abandon(self) -> None:
        self._block.abandon()

    @property
    def is_open(self) -> bool:
        """True from the beginning of its block to its end."""
        return self._block.is_open

    @property
    def name(self) -> str:
        """The database it is on: "global", "shard 7", or the client's address."""
        return self._block.name

    @property
    def shard_id(self) -> Optional[int]:
        """The shard it is on; None for the global database."""
        return self._block.shard_id

    def _route(self, until: Optional[float] = None) -> steps.Plan[steps.Executor]:
        return self._block.route(until)

    def _last_inserts(self) -> LastInserts:
        return self._block.check().client.last_inserts()

    @overload
    def pipeline(
        self: InThreads, statements: Iterable[pipelines.Piped], *, timeout: Optional[float] = None
    ) -> List[Any]: ...

    @overload
    def pipeline(
        self: InTasks, statements: Iterable[pipelines.Piped], *, timeout: Optional[float] = None
    ) -> Coroutine[Any, Any, List[Any]]: ...

    def pipeline(
        self, statements: Iterable[pipelines.Piped], *, timeout: Optional[float] = None
    ) -> Any:
        """Run several statements, many in one round trip.

        It is as if they were run one after the other: the first that fails is the last
        that is run. Statements that read or write rows are sent together, up to 256 in
        a command; others, such as calls, each by itself.

        Args:
            statements: A str, or a pair of a str and its parameters, for each.
            timeout: Seconds for all together.

        Returns:
            For each statement its rows, or if it returns none a RowCount.

        Raises:
            ParameterError: One is invalid; nothing was sent.
            Error: The server's error of a statement, whose number, from 0, is in
                ``rows``, twice. What came before it has been done in the transaction.
                If the connection was lost, the first and the last number of those that
                were sent together.

        Example:
            >>> with db.shard(2).transaction() as tx:
            ...     tx.pipeline(
            ...         [
            ...             ("UPDATE trades SET quantity = 0 WHERE user_id = %s", (7,)),
            ...             "SELECT COUNT(*) AS n FROM trades WHERE quantity = 0",
            ...         ]
            ...     )
            [1, [{'n': 1}]]
        """
        return self._run(pipelines.pipeline(self._block.route, statements, timeout))

    def cursor(self, *args: Any) -> Any:
        """Make a cursor of the driver on this transaction's connection.

        For code that is written for the driver. What is sent through it is not checked,
        and it must not be used after the block.

        Args:
            args: The cursor's class, as for the driver's own method.

        Returns:
            The driver's cursor; in asyncio its methods are awaited.

        Raises:
            ShardReadOnly: The shard accepts only reads.
            ReadOnlyTargetError: The transaction does.
        """
        block = self._block
        state = block.check()
        block.check_caller(state)
        if block.read_only:
            why = "what a cursor sends is not known to be a read"
            raise execute.write_refusal(block, why)
        state.connection.dirty = True  # what is sent through it is not known here
        state.wrote = True
        return state.connection.cursor(*args)

    def _new_transaction(self, options: TransactionOptions) -> TransactionT:
        """Make a savepoint."""
        state = self._block.check()
        savepoint = type(self)(steps.fixed_route(state.client), state, options=options)
        return cast(TransactionT, savepoint)

    def _new_connection(self) -> ConnectionT:
        raise errors.InterfaceError(
            "a transaction does not hand out its connection: "
            "use cursor(), or connection() of the database itself"
        )

    def on_commit(self, function: Callable[[], Any]) -> None:
        """Call a function after the outermost transaction has been committed.

        It is called outside the transaction, and not if this one is rolled back. Such
        functions are called in their order. An exception that one raises is logged: the
        transaction is committed all the same.

        Args:
            function: Takes nothing; in asyncio it may be a coroutine function.

        Raises:
            InterfaceError: The block has ended, or has not begun.

        Example:
            >>> tx.on_commit(lambda: print("committed"))
        """
        self._block.check().savepoints.add_hook(self._block.number, function)


AnyTransaction = BaseTransaction[Any, Any]
