"""Transactions for tests, in asyncio."""

import contextlib
from typing import TYPE_CHECKING, Optional

from .. import errors
from ..api import membership
from ..api.interfaces import block_of, internals_of
from ..execution import steps
from .client import DatabaseClient
from .transaction import Transaction

if TYPE_CHECKING:
    from .service import DatabaseService


class TestingTransaction:
    """A block whose writes vanish: ``async with db.testing_transaction():``."""

    def __init__(self, service: "DatabaseService") -> None:
        self._service = service
        self._stack: Optional[contextlib.AsyncExitStack] = None

    async def __aenter__(self) -> "TestingTransaction":
        if self._stack is not None:
            raise errors.InterfaceError("a testing transaction is used once: ask for a new one")
        topology = internals_of(self._service).lifecycle.require_open()
        async with contextlib.AsyncExitStack() as stack:
            for client in (topology.global_client, *topology.clients.values()):
                await self._begin(stack, client)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._stack is not None:
            await self._stack.aclose()

    @staticmethod
    async def _begin(stack: contextlib.AsyncExitStack, client: DatabaseClient) -> None:
        if client.testing is not None:
            raise errors.InterfaceError("a testing transaction is open on this service")
        tx = Transaction(steps.fixed_route(client))
        block = block_of(tx)
        await tx.__aenter__()
        stack.push_async_callback(tx.__aexit__, errors.Rollback, errors.Rollback(), None)
        # not of this caller alone
        membership.leave(block)
        state = block.begun
        state.testing = True
        state.gate = block.new_gate()
        client.testing = block
        stack.callback(setattr, client, "testing", None)
