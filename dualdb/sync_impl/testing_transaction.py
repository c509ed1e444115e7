"""Transactions for tests, in threads."""

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
    """A block whose writes vanish: ``with db.testing_transaction():``."""

    def __init__(self, service: "DatabaseService") -> None:
        self._service = service
        self._stack: Optional[contextlib.ExitStack] = None

    def __enter__(self) -> "TestingTransaction":
        if self._stack is not None:
            raise errors.InterfaceError("a testing transaction is used once: ask for a new one")
        topology = internals_of(self._service).lifecycle.require_open()
        with contextlib.ExitStack() as stack:
            for client in (topology.global_client, *topology.clients.values()):
                self._begin(stack, client)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._stack is not None:
            self._stack.close()

    @staticmethod
    def _begin(stack: contextlib.ExitStack, client: DatabaseClient) -> None:
        if client.testing is not None:
            raise errors.InterfaceError("a testing transaction is open on this service")
        tx = Transaction(steps.fixed_route(client))
        block = block_of(tx)
        tx.__enter__()
        stack.callback(tx.__exit__, errors.Rollback, errors.Rollback(), None)
        # not of this caller alone
        membership.leave(block)
        state = block.begun
        state.testing = True
        state.gate = block.new_gate()
        client.testing = block
        stack.callback(setattr, client, "testing", None)
