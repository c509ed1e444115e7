"""The threaded service, its clients, targets and transactions: what they do with a connection."""

import threading
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Type, TypeVar, overload

from .. import deadlines, errors, plans
from ..admin import DrainReport
from ..client import BaseClient
from ..config import DatabaseConfig
from ..derived import Derived, Query
from ..locks import BaseLock
from ..merge import BaseMerge
from ..ordering import Order
from ..results import CallResult, Row, RowCount, ScatterResult
from ..router import Router
from ..scatter import BaseScatter, OnError
from ..shapes import MadeT
from ..sql import Params
from ..statements import Mode, Statement, Talk, settled
from ..stream import BaseStream
from ..target import Target as BaseTarget
from ..transaction import BaseTransaction
from .connection import Connection
from .driver import Background, Threads, drive, perform
from .gather import workers
from .pool import Pool

T = TypeVar("T")


class BorrowedConnection:
    """A raw PyMySQL connection out of the pool, until the block ends or ``close()`` is called."""

    def __init__(self, route: plans.Route) -> None:
        client, raw = drive(plans.check_out(route, raw=True), perform)
        self._pool: Pool = client.pool
        self._raw: Optional[Connection] = raw

    def __enter__(self) -> Connection:
        if self._raw is None:
            raise errors.InterfaceError("this connection has been given back")
        return self._raw

    def __exit__(self, *exc_info: Any) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__enter__(), name)

    def close(self) -> None:
        """Give the connection back. It is closed, because nobody can say what state it was left in."""
        raw, self._raw = self._raw, None
        if raw is not None:
            self._pool.discard(raw)

    def __del__(self) -> None:
        raw = self.__dict__.get("_raw")
        if raw is not None:
            self._pool.abandon(raw)


class Lock(BaseLock):
    """An advisory lock, in threads: ``with db.lock("rebalance", timeout=5) as lock:``."""

    def __enter__(self) -> "Lock":
        self._unused()
        until = deadlines.until()
        self._client, raw = drive(plans.check_out(self._route, until=until), perform)
        try:
            drive(self._taking(raw), lambda command: raw.run(command, until))
        except BaseException as error:
            told = self._told(error, raw)
            self._client.pool.release(raw)
            if told is error:
                raise
            raise told from error
        self._raw = raw
        return self

    def check(self) -> None:
        """Ask the server whether the lock is still held. Raises: LockLost."""
        raw = self._held()
        if not self._answer(self._checking(raw), raw):
            raise self._lost()

    def __exit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> None:
        raw = self._held()
        self._raw = None
        try:
            kept = (error is None or isinstance(error, Exception)) and self._answer(self._letting_go(raw), raw)
        except errors.Error:
            if error is None:
                raise
        else:
            if error is None and not kept:
                raise self._lost()
        finally:
            self._client.pool.release(raw)

    def _answer(self, talk: Talk, raw: Connection) -> Any:
        try:
            return drive(talk, lambda command: raw.run(command, deadlines.until()))
        except BaseException as error:
            told = self._told_while_held(error, raw)
            if told is error:
                raise
            raise told from error

    def __del__(self) -> None:
        raw = self.__dict__.get("_raw")
        if raw is not None:
            self._client.pool.abandon(raw)


class Stream(BaseStream[MadeT]):
    """Rows as they come, in threads: ``for row in db.stream(...)``, or in a ``with`` block."""

    def __iter__(self) -> "Stream[MadeT]":
        return self

    def __next__(self) -> MadeT:
        values = next(self._rows, None)
        if values is None:
            self._fetch()
            values = next(self._rows, None)
        if values is None:
            raise StopIteration
        row: MadeT = self._row(values)
        return row

    def _fetch(self) -> None:
        """More rows; none where it is over."""
        if self._over:
            return
        try:
            if self._raw is None:
                self._start()
            rows = self._raw.next_rows()
        except BaseException as error:
            told = self._told(error)
            self._end()
            if told is error:
                raise
            raise told from error
        self._rows = self._in_time(rows)
        if not rows:
            self._end()

    def _read(self) -> Optional[MadeT]:
        """The next row for a merge, which may be closed meanwhile by another thread; None after the last."""
        self._read_elsewhere = True
        try:
            return next(self, None)
        finally:
            self._read_elsewhere = False
            if self._over:
                self._end()

    def _start(self) -> None:
        if not self._joins(drive(plans.find(self._route), perform)):
            self._client, self._raw = drive(plans.check_out(self._route, until=self._until), perform)
        self._named(self._raw.start_stream(self._command(), self._until))

    def close(self) -> None:
        """Leave it before its end."""
        self._leave()

    def __enter__(self) -> "Stream[MadeT]":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()

    def __del__(self) -> None:
        if self.__dict__.get("_raw") is not None:
            self._end(forgotten=True)


class Merge(Threads, BaseMerge[Stream[Row]]):
    """The rows of several shards in one order, in threads: ``for row in db.shards().merge(...)``, or in a ``with`` block."""

    def _new_stream(self, route: plans.Route, statement: Derived) -> Stream[Row]:
        return Stream(route, statement, None)

    def __iter__(self) -> "Merge":
        return self

    def __next__(self) -> Row:
        try:
            row: Optional[Row] = self._run(self._next())
        except BaseException:
            self.close()
            raise
        if row is None:
            raise StopIteration
        return row

    def __enter__(self) -> "Merge":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()


class _Runs(Threads):
    """Whatever a transaction can be begun on."""

    _new_transaction: Callable[[Mode], Any]
    _route: Callable[[], Any]

    @overload
    def stream(self, sql: str, params: Params = None, *, read_only: bool = False, timeout: Optional[float] = None) -> Stream[Row]: ...

    @overload
    def stream(
        self, sql: str, params: Params = None, *, as_: Type[MadeT], read_only: bool = False, timeout: Optional[float] = None
    ) -> Stream[MadeT]: ...

    def stream(
        self,
        sql: str,
        params: Params = None,
        *,
        as_: Optional[Type[Any]] = None,
        read_only: bool = False,
        timeout: Optional[float] = None,
    ) -> Stream[Any]:
        """The rows of a query as they come, in constant memory: ``for row in db.stream(...)``, with asyncio's own loop there.

        The connection is the loop's until its end. Leaving the loop early frees it at once and ends the query on the server. Nothing is
        sent before the first row is asked for, and nothing a second time.

        Args:
            as_, read_only, timeout: as for ``query``; the time is for the whole loop.
        """
        return Stream(self._route, Statement(sql, params, read_only=read_only), timeout, as_)

    def run(
        self,
        function: Callable[["Transaction"], T],
        *,
        attempts: int = plans.RUN_ATTEMPTS,
        commit_marker: bool = False,
        isolation: Optional[str] = None,
        timeout: Optional[float] = None,
    ) -> T:
        """Call a function with a transaction, and begin again as a whole where the server has rolled it back for a conflict.

        After a deadlock, a lock that was not free in time, a conflict between nodes at COMMIT, or a connection that was lost before COMMIT,
        nothing of it is applied: the function is called again, after a random pause, ``attempts`` times at most and as long as the deadline
        of the block is not over. So it must do nothing else that counts; see ``on_commit``. What it gives is given. Inside another
        transaction it is called once, in a savepoint: only the whole can begin again.

        Args:
            function: takes the transaction; in asyncio a coroutine function.
            commit_marker, isolation: as for ``transaction``.
            timeout: seconds for all of it, with every attempt and pause; see ``transaction``.

        Raises: what the function raises, and what COMMIT says; after the last attempt, what that ended with.
        """
        attempt, left = 0, timeout
        until = None if timeout is None else time.monotonic() + deadlines.seconds(timeout)
        while True:
            transaction = self._new_transaction(Mode(commit_marker, isolation, timeout=left).checked())
            try:
                with transaction as tx:
                    return function(tx)
            except errors.Error as error:
                left = None if until is None else max(0.0, until - time.monotonic())
                pause = None if transaction._outer is not None else plans.pause_before_run(error, attempt, attempts, left)
                if pause is None:
                    raise
            time.sleep(pause)
            attempt, left = attempt + 1, None if until is None else max(0.0, until - time.monotonic())


class Transaction(
    _Runs, BaseTransaction[List[Row], Optional[Row], Any, List[Any], RowCount, CallResult, "Transaction", BorrowedConnection, int]
):
    """A transaction, in threads: ``with db.transaction() as tx:``."""

    def _new_transaction(self, mode: Mode) -> "Transaction":
        self._check()
        return Transaction(lambda: self._client, self, mode=mode)  # type: ignore[arg-type, return-value]

    def _say(self, statement: Any, until: Optional[float] = None) -> Any:
        self._check()
        until = self._within(until)
        try:
            return drive(self._talk(statement, until), lambda command: self._raw.run(command, until))
        except BaseException as error:
            told = self._told(error)
            if told is error:
                raise
            raise told from error

    def __enter__(self) -> "Transaction":
        route, until = self._unused(), self._within(deadlines.until())
        client = self._run(plans.find(route, until))
        outer = self._begin(client)
        if outer is not None:
            raw = outer._raw
        else:
            self._client, raw = self._run(plans.check_out(route, until=until))
        try:
            drive(self._opening(raw), lambda command: raw.run(command, until))
        except BaseException as error:
            self._give_back(raw)
            told = errors.told(error, self.name, self.shard_id, sent=raw.sent)
            if told is error:
                raise
            raise told from error
        self._begun(raw)
        return self

    def __exit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> None:
        unknown = None
        try:
            for command in self._ending(error):
                self._raw.run(command, deadlines.until())
        except errors.DRIVER_ERRORS as failure:
            unknown = self._ended_by(failure, error)
        finally:
            raw, self._raw = self._raw, None
            self._give_back(raw)
        if unknown is not None:
            self._run(self._settle(unknown))
        else:
            self._run(self._closing(error))

    def _set_timer(self, seconds: float) -> None:
        self._timer = timer = threading.Timer(seconds, self._time_over)
        timer.name, timer.daemon = "dualdb-limit", True
        timer.start()

    def _give_back(self, raw: Connection) -> None:
        if self._outer is None and self._client is not None:
            self._client.pool.release(raw)


class _Verbs(_Runs):
    """What a client, a target and the service have in common: where they go is ``_route``."""

    _route: Callable[[], Any]

    def _new_transaction(self, mode: Mode) -> Transaction:
        return Transaction(self._route, mode=mode)

    def _new_connection(self) -> BorrowedConnection:
        return BorrowedConnection(self._route)

    def lock(self, name: str, *, timeout: float) -> Lock:
        """An advisory lock of this database's server: ``with db.lock("rebalance", timeout=5):``, with asyncio's own block there.

        Nobody else holds a lock of that name on that server meanwhile, by dualdb or by GET_LOCK. It is held by a session of its own, one of
        the pool's: what the block does to the database is committed or rolled back apart from it, and a second lock of the same name waits
        for the first, even in the same thread or task. Where that session ends, the lock does: ``lock.check()`` asks the server whether it
        is still held, and so does the end of the block.

        Args:
            name: 1 to 64 characters; MySQL takes upper and lower case for the same, MariaDB does not.
            timeout: seconds to wait for whoever has it, 0 not at all; MySQL counts in whole ones.

        Raises:
            LockNotFree: (when it begins) somebody had it all the time.
            NotSupportedError: (when it begins) the server is a node of a Galera cluster, whose locks exclude nobody on another.
            LockLost: (from ``check()``, and at the end of a block that ended well) it was gone before.
        """
        return Lock(self._route, name, timeout)


class Target(_Verbs, BaseTarget[List[Row], Optional[Row], Any, List[Any], RowCount, CallResult, Transaction, BorrowedConnection]):
    """A shard or a session's database, found at each call."""

    def __init__(self, route: Callable[[], Any]) -> None:
        self._find = route

    def _route(self) -> plans.Place:
        place: plans.Place = self._find()
        return place


class Scatter(Threads, BaseScatter[ScatterResult, List[Row], Merge]):
    """Several shards as one target, in threads."""

    def _new_merge(self, query: Query, order: Sequence[Order], limit: Optional[int], until: Optional[float]) -> Merge:
        return Merge(self, query, order, limit, until)


class MySQLClient(
    _Verbs, BaseClient[List[Row], Optional[Row], Any, List[Any], RowCount, CallResult, Transaction, BorrowedConnection, int, None]
):
    """The client of one database, in threads."""

    pool: Pool

    def _new_pool(self) -> Pool:
        return Pool(self.config, self.name, self.shard_id)

    def _say(self, statement: Any, until: Optional[float] = None) -> Any:
        transaction = self._joined()
        if transaction is not None:
            return transaction._say(statement, until)
        return self._say_apart(statement, until)

    def _say_apart(self, statement: Any, until: Optional[float] = None) -> Any:
        connection = None
        try:
            connection = self.pool.checkout(until)
            return drive(settled(statement, connection), lambda command: connection.run(command, until))
        except BaseException as error:
            told = errors.told(error, self.name, self.shard_id, sent=connection is not None and connection.sent)
            if told is error:
                raise
            raise told from error
        finally:
            if connection is not None:
                self.pool.release(connection)


class DatabaseService(
    _Verbs,
    Router[
        List[Row], Optional[Row], Any, List[Any], RowCount, CallResult, Transaction, BorrowedConnection,
        int, List[int], Dict[str, Any], DrainReport, None, Target, Scatter, MySQLClient,
    ],
):  # fmt: skip
    """The sharded database for scripts, Celery workers and other threads. One for all threads of a process."""

    def _equip(self) -> None:
        self._background = Background()
        self._alone = threading.RLock()

    def _begin_anew(self) -> None:
        drive(self._life.watch(), self._perform)

    def __enter__(self) -> "DatabaseService":
        self.init_service()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close_service()

    def _new_client(self, config: DatabaseConfig, name: str, shard_id: Optional[int]) -> MySQLClient:
        return MySQLClient(config, name=name, shard_id=shard_id, shared=self._shared())

    def _new_target(self, route: Callable[[], Any]) -> Target:
        return Target(route)

    def _new_scatter(self, routes: Any, check: Any, on_error: OnError, at_once: int, keys: Any = None) -> Scatter:
        return Scatter(routes, check, on_error, at_once, keys=keys)

    def _run_alone(self, plan: "plans.Plan[Any]", wait: Optional[float] = None) -> Any:
        if not self._alone.acquire(timeout=-1 if wait is None else wait):
            return plan.close()
        try:
            return drive(plan, self._perform)
        finally:
            self._alone.release()

    def _run_own(self, plan: "plans.Plan[Any]") -> Any:
        return drive(plan, self._perform)

    def _perform(self, step: plans.Step) -> Any:
        if isinstance(step, plans.Spawn):
            return self._background.spawn(step.plan)
        if isinstance(step, plans.Halt):
            workers.dismiss()
            return self._background.halt()
        return perform(step)
