"""The client of one database, and targets, in asyncio."""

from typing import Any, Awaitable, Callable, Optional

from .. import errors
from ..api.client import BaseClient
from ..api.identity import Identified
from ..api.lock import Locks
from ..api.target import Target as BaseTarget
from ..execution import steps
from ..protocol.exchange import with_session_tracking
from ..protocol.transaction_commands import TransactionOptions
from .borrowed_connection import BorrowedConnection
from .lock import Lock
from .pool import Pool
from .results import Called, Column, Count, Done, Int, OneRow, Rows, Value
from .runner import Tasks, run_plan
from .stream import Stream
from .transaction import Transaction


class _Verbs(Tasks, Locks[Lock]):
    """What a client, a target and the service have in common: where they go is
    ``_route``.
    """

    _route: Callable[..., Any]
    _new_stream = Stream

    def _new_transaction(self, options: TransactionOptions) -> Transaction:
        return Transaction(self._route, options=options)

    def _new_connection(self) -> BorrowedConnection:
        return BorrowedConnection(self._route)

    def _new_lock(self, name: str, timeout: float) -> Lock:
        return Lock(self._route, name, timeout)


class Target(
    _Verbs,
    Identified,
    BaseTarget[Rows, OneRow, Value, Column, Count, Called, Transaction, BorrowedConnection],
):
    """A shard or a session's database, found at each call."""

    def __init__(self, route: steps.Route, identify: Callable[[], Optional[int]]) -> None:
        self._resolve = route
        self._identify = identify

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} {self._resolve}>"

    def _route(self, until: Optional[float] = None) -> steps.Plan[steps.Executor]:
        return self._resolve(until)


class MySQLClient(
    _Verbs,
    BaseClient[
        Rows, OneRow, Value, Column, Count, Called, Transaction, BorrowedConnection, Int, Done
    ],
):
    """The client of one database, in asyncio."""

    pool: Pool

    def _new_pool(self) -> Pool:
        return Pool(self.config, self.name, self.shard_id)

    def _execute(self, statement: Any, until: Optional[float] = None) -> Awaitable[Any]:
        place: Any = self._current_transaction()
        coroutine: Awaitable[Any] = (
            self._execute_on_own_connection(statement, until)
            if place is None
            else place._execute(statement, until)
        )
        return coroutine

    async def _execute_on_own_connection(
        self, statement: Any, until: Optional[float] = None
    ) -> Any:
        connection = await self.pool.checkout(until)
        # Not by _execute_on: one more coroutine takes as long as a tenth of a checkout.
        try:
            return await run_plan(
                with_session_tracking(statement, connection),
                lambda command: connection.run(command, until),
            )
        except BaseException as error:
            errors.raise_translated(
                error, errors.translate_error(error, self.name, self.shard_id, sent=connection.sent)
            )
        finally:
            self.pool.release(connection)

    async def _execute_on(
        self, connection: Any, statement: Any, until: Optional[float] = None
    ) -> Any:
        try:
            return await run_plan(
                with_session_tracking(statement, connection),
                lambda command: connection.run(command, until),
            )
        except BaseException as error:
            errors.raise_translated(
                error, errors.translate_error(error, self.name, self.shard_id, sent=connection.sent)
            )
