"""The client of one database, and targets, in asyncio."""

from typing import Any, Awaitable, Callable, Optional

from .. import errors
from ..api.client import BaseClient, client_over
from ..api.database_client import BaseDatabaseClient
from ..api.identity import Identified
from ..api.legacy import ClientMethods
from ..api.lock import Locks
from ..api.read_blocks import limited_to_reads
from ..api.reading import Readable, ReadRoute
from ..api.target import Blocks
from ..directory.routes import key_of
from ..execution import steps
from ..lazily import made_on_first_use
from ..protocol.exchange import with_session_tracking
from ..protocol.statements import AnyStatement
from ..protocol.transaction_commands import TransactionOptions
from .borrowed_connection import BorrowedConnection
from .lock import Lock
from .pool import Pool
from .results import Count, Done, Int, Rows
from .runner import caller, run_plan
from .transaction import Transaction
from .verbs import Verbs


class TargetVerbs(Verbs, Blocks[Transaction, BorrowedConnection], Locks[Lock]):
    """The verbs of a client, a target and the service; where they go is ``_route``."""

    _transaction_class = Transaction
    _connection_class = BorrowedConnection
    _lock_class = Lock


class Target(TargetVerbs, Identified, Readable["Target"]):
    """A shard or a session's database, found at each call."""

    def __init__(self, route: steps.Route, identify: Callable[[], Optional[int]]) -> None:
        self._route = route
        self._identify = identify
        self._key = key_of(route)

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} {self._route}>"

    def _target_on(self, route: steps.Route) -> "Target":
        return Target(route, self._identify)

    def _new_transaction(self, options: TransactionOptions) -> Transaction:
        if isinstance(self._route, ReadRoute):
            options = limited_to_reads(options)
        return super()._new_transaction(options)


class DatabaseClient(BaseDatabaseClient):
    """The client of one database as the package itself uses it, in asyncio."""

    pool: Pool
    _pool_class = Pool
    caller = staticmethod(caller)

    def run_statement(
        self, statement: AnyStatement, until: Optional[float] = None
    ) -> Awaitable[Any]:
        place: Any = self.current_transaction()
        coroutine: Awaitable[Any] = (
            self.run_on_own_connection(statement, until)
            if place is None
            else place.run_statement(statement, until)
        )
        return coroutine

    async def run_on_own_connection(
        self, statement: AnyStatement, until: Optional[float] = None
    ) -> Any:
        if self.testing is not None:
            return await self.testing.run_statement(statement, until)
        connection = await self.pool.checkout(until)
        # Not by run_on: one more coroutine takes as long as a tenth of a checkout.
        try:
            return await run_plan(
                with_session_tracking(statement, connection),
                lambda command: connection.run(command, until),
            )
        except BaseException as error:
            errors.raise_translated(error, self._translate_error(error, connection))
        finally:
            self.pool.release(connection)

    async def run_on(
        self, connection: Any, statement: AnyStatement, until: Optional[float] = None
    ) -> Any:
        try:
            return await run_plan(
                with_session_tracking(statement, connection),
                lambda command: connection.run(command, until),
            )
        except BaseException as error:
            errors.raise_translated(error, self._translate_error(error, connection))

    @made_on_first_use
    def facade(self) -> "MySQLClient":
        """What users hold of it."""
        return client_over(MySQLClient, self)


class MySQLClient(
    TargetVerbs,
    BaseClient[Transaction, BorrowedConnection, Done],
    ClientMethods[Rows, Count, Int],
):
    """The client of one database, in asyncio."""

    _database_client_class = DatabaseClient

    @property
    def pool(self) -> Pool:
        """The pool, which is made when it is first used."""
        pool: Pool = self._database.pool
        return pool
