"""The asyncio service, its clients, targets and transactions: what they do with a connection."""

import asyncio
import time
from contextvars import ContextVar
from typing import Any, Awaitable, Callable, Coroutine, Dict, Generator, List, Optional, Sequence, Type, TypeVar, overload

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
from .driver import Background, Tasks, drive, perform
from .pool import Pool

T = TypeVar("T")

Rows = Coroutine[Any, Any, List[Row]]
OneRow = Coroutine[Any, Any, Optional[Row]]
Value = Coroutine[Any, Any, Any]
Column = Coroutine[Any, Any, List[Any]]
Count = Coroutine[Any, Any, RowCount]
Called = Coroutine[Any, Any, CallResult]
Int = Coroutine[Any, Any, int]
Ids = Coroutine[Any, Any, List[int]]
Report = Coroutine[Any, Any, Dict[str, Any]]
Scattered = Coroutine[Any, Any, ScatterResult]
Drained = Coroutine[Any, Any, DrainReport]
Done = Coroutine[Any, Any, None]


class BorrowedConnection:
    """A raw aiomysql connection out of the pool, until the block ends or ``close()`` is called.

    ``async with client.connection() as conn:`` or ``conn = await client.connection()``.
    """

    def __init__(self, route: plans.Route) -> None:
        self._route = route
        self._pool: Optional[Pool] = None
        self._raw: Optional[Connection] = None

    def __await__(self) -> Generator[Any, None, "BorrowedConnection"]:
        yield from self._check_out().__await__()
        return self

    async def __aenter__(self) -> Connection:
        return await self._check_out()

    async def __aexit__(self, *exc_info: Any) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        if self._raw is None:
            raise errors.InterfaceError("this connection has not been awaited, or has been given back")
        return getattr(self._raw, name)

    async def _check_out(self) -> Connection:
        if self._raw is None:
            client, raw = await drive(plans.check_out(self._route, raw=True), perform)
            self._raw, self._pool = raw, client.pool
        assert self._raw is not None
        return self._raw

    def close(self) -> None:
        """Give the connection back. It is closed, because nobody can say what state it was left in."""
        raw, self._raw = self._raw, None
        if raw is not None and self._pool is not None:
            self._pool.discard(raw)

    def __del__(self) -> None:
        raw = self.__dict__.get("_raw")
        if raw is not None and self._pool is not None:
            self._pool.abandon(raw)


class Lock(BaseLock):
    """An advisory lock, in asyncio: ``async with db.lock("rebalance", timeout=5) as lock:``."""

    async def __aenter__(self) -> "Lock":
        self._unused()
        until = deadlines.until()
        self._client, raw = await drive(plans.check_out(self._route, until=until), perform)
        try:
            await drive(self._taking(raw), lambda command: raw.run(command, until))
        except BaseException as error:
            told = self._told(error, raw)
            self._client.pool.release(raw)
            if told is error:
                raise
            raise told from error
        self._raw = raw
        return self

    async def check(self) -> None:
        """Ask the server whether the lock is still held. Raises: LockLost."""
        raw = self._held()
        if not await self._answer(self._checking(raw), raw):
            raise self._lost()

    async def __aexit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> None:
        raw = self._held()
        self._raw = None
        try:
            kept = (error is None or isinstance(error, Exception)) and await self._answer(self._letting_go(raw), raw)
        except errors.Error:
            if error is None:
                raise
        else:
            if error is None and not kept:
                raise self._lost()
        finally:
            self._client.pool.release(raw)

    async def _answer(self, talk: Talk, raw: Connection) -> Any:
        try:
            return await drive(talk, lambda command: raw.run(command, deadlines.until()))
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
    """Rows as they come, in asyncio: ``async for row in db.stream(...)``, or in an ``async with`` block."""

    def __aiter__(self) -> "Stream[MadeT]":
        return self

    async def __anext__(self) -> MadeT:
        values = next(self._rows, None)
        if values is None:
            await self._fetch()
            values = next(self._rows, None)
        if values is None:
            raise StopAsyncIteration
        row: MadeT = self._row(values)
        return row

    async def _fetch(self) -> None:
        """More rows; none where it is over."""
        if self._over:
            return
        try:
            if self._raw is None:
                await self._start()
            rows = await self._raw.next_rows()
        except BaseException as error:
            told = self._told(error)
            self._end()
            if told is error:
                raise
            raise told from error
        self._rows = self._in_time(rows)
        if not rows:
            self._end()

    async def _read(self) -> Optional[MadeT]:
        """The next row for a merge; None after the last."""
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            return None

    async def _start(self) -> None:
        if not self._joins(await drive(plans.find(self._route), perform)):
            self._client, self._raw = await drive(plans.check_out(self._route, until=self._until), perform)
        self._named(await self._raw.start_stream(self._command(), self._until))

    def close(self) -> None:
        """Leave it before its end."""
        self._leave()

    async def __aenter__(self) -> "Stream[MadeT]":
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self.close()

    def __del__(self) -> None:
        if self.__dict__.get("_raw") is not None:
            self._end(forgotten=True)


class Merge(Tasks, BaseMerge[Stream[Row]]):
    """The rows of several shards in one order, in asyncio: ``async for row in db.shards().merge(...)``, or in an ``async with`` block."""

    def _new_stream(self, route: plans.Route, statement: Derived) -> Stream[Row]:
        return Stream(route, statement, None)

    def __aiter__(self) -> "Merge":
        return self

    async def __anext__(self) -> Row:
        try:
            row: Optional[Row] = await self._run(self._next())
        except BaseException:
            self.close()
            raise
        if row is None:
            raise StopAsyncIteration
        return row

    async def __aenter__(self) -> "Merge":
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self.close()


class _Runs(Tasks):
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

    async def run(
        self,
        function: Callable[["Transaction"], Awaitable[T]],
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
                async with transaction as tx:
                    return await function(tx)
            except errors.Error as error:
                left = None if until is None else max(0.0, until - time.monotonic())
                pause = None if transaction._outer is not None else plans.pause_before_run(error, attempt, attempts, left)
                if pause is None:
                    raise
            await asyncio.sleep(pause)
            attempt, left = attempt + 1, None if until is None else max(0.0, until - time.monotonic())


class Transaction(_Runs, BaseTransaction[Rows, OneRow, Value, Column, Count, Called, "Transaction", BorrowedConnection, Int]):
    """A transaction, in asyncio: ``async with db.transaction() as tx:``."""

    def __await__(self) -> Generator[Any, None, "Transaction"]:
        """``async with await db.get_transaction()``: the original service's way."""
        yield from ()
        return self

    def _new_transaction(self, mode: Mode) -> "Transaction":
        self._check()
        return Transaction(lambda: self._client, self, mode=mode)  # type: ignore[arg-type, return-value]

    async def _say(self, statement: Any, until: Optional[float] = None) -> Any:
        self._check()
        until = self._within(until)
        try:
            return await drive(self._talk(statement, until), lambda command: self._raw.run(command, until))
        except BaseException as error:
            told = self._told(error)
            if told is error:
                raise
            raise told from error

    async def __aenter__(self) -> "Transaction":
        route, until = self._unused(), self._within(deadlines.until())
        client = await self._run(plans.find(route, until))
        outer = self._begin(client)
        if outer is not None:
            raw = outer._raw
        else:
            self._client, raw = await self._run(plans.check_out(route, until=until))
        try:
            await drive(self._opening(raw), lambda command: raw.run(command, until))
        except BaseException as error:
            self._give_back(raw)
            told = errors.told(error, self.name, self.shard_id, sent=raw.sent)
            if told is error:
                raise
            raise told from error
        self._begun(raw)
        return self

    async def __aexit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> None:
        unknown = None
        try:
            for command in self._ending(error):
                await self._raw.run(command, deadlines.until())
        except errors.DRIVER_ERRORS as failure:
            unknown = self._ended_by(failure, error)
        finally:
            raw, self._raw = self._raw, None
            self._give_back(raw)
        if unknown is not None:
            await self._run(self._settle(unknown))
        else:
            await self._run(self._closing(error))

    def _set_timer(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._time_over)

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


class Target(_Verbs, BaseTarget[Rows, OneRow, Value, Column, Count, Called, Transaction, BorrowedConnection]):
    """A shard or a session's database, found at each call."""

    def __init__(self, route: Callable[[], Any]) -> None:
        self._find = route

    def _route(self) -> plans.Place:
        place: plans.Place = self._find()
        return place


class Scatter(Tasks, BaseScatter[Scattered, Rows, Merge]):
    """Several shards as one target, in asyncio."""

    def _new_merge(self, query: Query, order: Sequence[Order], limit: Optional[int], until: Optional[float]) -> Merge:
        return Merge(self, query, order, limit, until)


class MySQLClient(_Verbs, BaseClient[Rows, OneRow, Value, Column, Count, Called, Transaction, BorrowedConnection, Int, Done]):
    """The client of one database, in asyncio."""

    pool: Pool

    def _new_pool(self) -> Pool:
        return Pool(self.config, self.name, self.shard_id)

    async def _say(self, statement: Any, until: Optional[float] = None) -> Any:
        transaction = self._joined()
        if transaction is not None:
            return await transaction._say(statement, until)
        return await self._say_apart(statement, until)

    async def _say_apart(self, statement: Any, until: Optional[float] = None) -> Any:
        connection = await self.pool.checkout(until)
        try:
            return await drive(settled(statement, connection), lambda command: connection.run(command, until))
        except BaseException as error:
            told = errors.told(error, self.name, self.shard_id, sent=connection.sent)
            if told is error:
                raise
            raise told from error
        finally:
            self.pool.release(connection)


class _Section:
    """What a service performs alone, as those see it that are called from inside: they need not wait for its end."""

    def __init__(self, service: Any) -> None:
        self.service, self.is_open = service, True


_section: ContextVar[Optional[_Section]] = ContextVar("dualdb_section", default=None)


class DatabaseService(
    _Verbs,
    Router[
        Rows,
        OneRow,
        Value,
        Column,
        Count,
        Called,
        Transaction,
        BorrowedConnection,
        Int,
        Ids,
        Report,
        Drained,
        Done,
        Target,
        Scatter,
        MySQLClient,
    ],
):
    """The sharded database for web handlers and other tasks. Made anywhere; opened, used and closed in one event loop."""

    def _equip(self) -> None:
        self._background = Background()
        self._alone: Optional[asyncio.Lock] = None
        self._alone_in: Optional[asyncio.AbstractEventLoop] = None

    async def __aenter__(self) -> "DatabaseService":
        await self.init_service()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self.close_service()

    def _new_client(self, config: DatabaseConfig, name: str, shard_id: Optional[int]) -> MySQLClient:
        return MySQLClient(config, name=name, shard_id=shard_id, shared=self._shared())

    def _new_target(self, route: Callable[[], Any]) -> Target:
        return Target(route)

    def _new_scatter(self, routes: Any, check: Any, on_error: OnError, at_once: int, keys: Any = None) -> Scatter:
        return Scatter(routes, check, on_error, at_once, keys=keys)

    async def _run_alone(self, plan: "plans.Plan[Any]", wait: Optional[float] = None) -> Any:
        loop = asyncio.get_running_loop()
        if self._alone is None or self._alone_in is not loop:
            self._alone, self._alone_in = asyncio.Lock(), loop
        section = _section.get()
        if section is not None and section.service is self and section.is_open:  # a hook that calls the service
            return await drive(plan, self._perform)
        until = None if wait is None else loop.time() + wait
        while until is not None and self._alone.locked():
            if loop.time() >= until:
                return plan.close()
            await asyncio.sleep(0.005)
        async with self._alone:
            section = _Section(self)
            token = _section.set(section)
            try:
                return await drive(plan, self._perform)
            finally:
                section.is_open = False
                _section.reset(token)

    async def _run_own(self, plan: "plans.Plan[Any]") -> Any:
        return await drive(plan, self._perform)

    async def _perform(self, step: plans.Step) -> Any:
        if isinstance(step, plans.Spawn):
            return self._background.spawn(step.plan)
        if isinstance(step, plans.Halt):
            return await self._background.halt()
        return await perform(step)
