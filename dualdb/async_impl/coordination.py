"""Transactions on several databases, in asyncio."""

from typing import Optional

from ..blocks import ends_block
from ..coordination.transaction import BaseDistributedTransaction, Branch
from ..errors import Rollback
from ..execution import steps
from ..protocol.transaction_commands import TransactionOptions
from .runner import Tasks
from .transaction import Transaction


class PartTransaction(Branch, Transaction):
    """One database's part of a transaction on several, in asyncio."""

    def _new_transaction(self, options: TransactionOptions) -> Transaction:
        state = self._block.check()
        return Transaction(steps.fixed_route(state.client), state, options=options)


class DistributedTransaction(Tasks, BaseDistributedTransaction[PartTransaction]):
    """A transaction on several databases, in asyncio: ``async with db.shards([1,
    2]).transaction() as tx:``.
    """

    def _new_part(self, route: steps.Route, options: TransactionOptions) -> PartTransaction:
        return PartTransaction(route, options=options)

    async def __aenter__(self) -> "DistributedTransaction":
        await self._run(self._begin())
        return self

    @ends_block
    async def __aexit__(
        self, kind: object, error: Optional[BaseException], trace: object
    ) -> Optional[bool]:
        if self._open:
            await self._run(self._finish(error))
        return isinstance(error, Rollback)

    async def rollback(self) -> None:
        """Roll back on every database now.

        The transaction is over then: nothing more can be sent in it, and its block ends
        without an error.

        Raises:
            InterfaceError: It is over already, or has not begun.
        """
        self._check_begun()
        self._rolled_back = True
        await self._run(self._finish(None))
