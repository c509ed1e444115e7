"""The service, in asyncio."""

import asyncio
from contextvars import ContextVar
from importlib import import_module
from typing import (
    TYPE_CHECKING,
    Any,
    Optional,
)

from ..directory.routes import KeyRoutes, ServiceRooms
from ..execution import steps
from ..router import Legacy, Router, Routing, ServiceLife, ShardAdmin
from .client import DatabaseClient, MySQLClient, Target, TargetVerbs
from .directory import Directory
from .directory import Ids as IdSource
from .results import Count, Done, Drained, Ids, Int, Report, Rows
from .runner import Background, acquire, run_plan, run_step
from .scatter import Scatter
from .scope import Scope
from .testing_transaction import TestingTransaction
from .transaction import Transaction

if TYPE_CHECKING:
    from ..integrations.sqlalchemy import AsyncEngines


class _Section:
    """The exclusive section of a service, such as opening, as seen by the functions
    that are called inside it: they need not wait for its end.
    """

    def __init__(self, service: Any) -> None:
        self.service = service
        self.is_open = True


_section: ContextVar[Optional[_Section]] = ContextVar("dualdb_section", default=None)


class DatabaseService(
    TargetVerbs,
    Router,
    ServiceLife[Done, Ids, Report, MySQLClient],
    ShardAdmin[Done, Drained],
    Routing[Target, Scatter, MySQLClient],
    KeyRoutes[Target, Scatter, Int, Scope],
    ServiceRooms[Directory, IdSource, Done],
    Legacy[Rows, Count, Int, Transaction],
):
    """The sharded database for web handlers and other tasks.

    Made anywhere; opened, used and closed in one event loop.
    """

    _database_client_class = DatabaseClient
    _target_class = Target
    _scatter_class = Scatter
    _scope_class = Scope
    _directory_class = Directory
    _ids_class = IdSource
    _engines: "Optional[AsyncEngines]" = None

    def _init_runtime(self) -> None:
        self._background = Background()
        self._alone: Optional[asyncio.Lock] = None
        self._alone_in: Optional[asyncio.AbstractEventLoop] = None

    async def __aenter__(self) -> "DatabaseService":
        await self.init_service()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close_service()

    def testing_transaction(self) -> TestingTransaction:
        """Open a transaction on every database, in which all calls of this service take
        part, and which is rolled back at the end of its block.

        It is for tests: of any thread and task, in scatters, too. A transaction inside
        is a savepoint, whose options are ignored; its ``on_commit`` functions are
        called. One call is made at a time on each database. A statement that commits,
        such as DDL, is an InterfaceError. Raw connections, ``db.sqlalchemy`` and other
        services are outside.

        Returns:
            A context manager, to be used once.

        Raises:
            InterfaceError: (when the block begins) Another one is open.

        Example:
            >>> with db.testing_transaction():
            ...     db.shard(2).execute("DELETE FROM trades")
        """
        return TestingTransaction(self)

    @property
    def sqlalchemy(self) -> "AsyncEngines":
        """SQLAlchemy's engines and sessions over the service's pools: ``engine(1)`` and
        ``sharded_sessionmaker()``. It needs ``dualdb[sqlalchemy]``.
        """
        if self._engines is None:
            module = import_module("dualdb.integrations.sqlalchemy")
            self._engines = module.AsyncEngines(self)
        return self._engines

    async def _run_exclusive(self, plan: "steps.Plan[Any]", wait: Optional[float] = None) -> Any:
        loop = asyncio.get_running_loop()
        if self._alone is None or self._alone_in is not loop:
            self._alone = asyncio.Lock()
            self._alone_in = loop
        section = _section.get()
        # a hook that calls the service
        if section is not None and section.service is self and section.is_open:
            return await run_plan(plan, self._run_step)
        lock = self._alone
        if not await acquire(lock, wait):
            return plan.close()
        section = _Section(self)
        token = _section.set(section)
        try:
            return await run_plan(plan, self._run_step)
        finally:
            section.is_open = False
            _section.reset(token)
            lock.release()

    async def _run_own(self, plan: "steps.Plan[Any]") -> Any:
        return await run_plan(plan, self._run_step)

    async def _run_step(self, step: steps.Step) -> Any:
        if isinstance(step, steps.Spawn):
            return self._background.spawn(step.plan)
        if isinstance(step, steps.StopBackground):
            return await self._background.halt()
        return await run_step(step)
