"""The service, in threads."""

import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from ..directory.routes import KeyRoutes, ServiceRooms
from ..execution import steps
from ..results import Row, RowCount
from ..router import Legacy, Router, Routing, ServiceLife, ShardAdmin
from ..topology.admin import DrainReport
from .client import DatabaseClient, MySQLClient, Target, TargetVerbs
from .concurrency import workers
from .directory import Directory, Ids
from .runner import Background, run_plan, run_step
from .scatter import Scatter
from .scope import Scope
from .testing_transaction import TestingTransaction
from .transaction import Transaction

if TYPE_CHECKING:
    from ..integrations.sqlalchemy import Engines


class DatabaseService(
    TargetVerbs,
    Router,
    ServiceLife[None, List[int], Dict[str, Any], MySQLClient],
    ShardAdmin[None, DrainReport],
    Routing[Target, Scatter, MySQLClient],
    KeyRoutes[Target, Scatter, int, Scope],
    ServiceRooms[Directory, Ids, None],
    Legacy[List[Row], RowCount, int, Transaction],
):
    """The sharded database for scripts, Celery workers and other threads.

    One for all threads of a process.
    """

    _database_client_class = DatabaseClient
    _target_class = Target
    _scatter_class = Scatter
    _scope_class = Scope
    _directory_class = Directory
    _ids_class = Ids
    _engines: "Optional[Engines]" = None

    def _init_runtime(self) -> None:
        self._background = Background()
        self._alone = threading.RLock()

    def _restart_after_fork(self) -> None:
        run_plan(self._lifecycle.maintenance.ensure(), self._run_step)

    def __enter__(self) -> "DatabaseService":
        self.init_service()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close_service()

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
    def sqlalchemy(self) -> "Engines":
        """SQLAlchemy's engines and sessions over the service's pools: ``engine(1)`` and
        ``sharded_sessionmaker()``. It needs ``dualdb[sqlalchemy]``.
        """
        if self._engines is None:
            module = import_module("dualdb.integrations.sqlalchemy")
            self._engines = module.Engines(self)
        return self._engines

    def _run_exclusive(self, plan: "steps.Plan[Any]", wait: Optional[float] = None) -> Any:
        if not self._alone.acquire(timeout=-1 if wait is None else wait):
            return plan.close()
        try:
            return run_plan(plan, self._run_step)
        finally:
            self._alone.release()

    def _run_own(self, plan: "steps.Plan[Any]") -> Any:
        return run_plan(plan, self._run_step)

    def _run_step(self, step: steps.Step) -> Any:
        if isinstance(step, steps.Spawn):
            return self._background.spawn(step.plan)
        if isinstance(step, steps.StopBackground):
            workers.dismiss()
            return self._background.halt()
        return run_step(step)
