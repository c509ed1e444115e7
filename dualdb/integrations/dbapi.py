"""The connections of a service's pools, as object-relational mappers want them.

The driver's own connection, out of the pool of a shard and within its limits, with two
differences: a transaction begins with the first statement and not with the connection,
so that the session stays in autocommit; and the row count of an UPDATE is that of the
rows it found, as with the client flag FOUND_ROWS, which mappers rely on.
"""

import asyncio
import re
from typing import Any, Dict

import aiomysql.cursors
import pymysql.cursors

from .. import errors
from ..async_impl import runner as async_runner
from ..execution import execute, steps
from ..sync_impl import runner as sync_runner

_MATCHED = re.compile(rb"[^\w]?Rows matched: (\d+)")


def _found(result: Any, rowcount: int) -> int:
    """The rows that a statement found; ``rowcount`` where the server does not say."""
    matched = _MATCHED.match(result.message or b"") if result is not None else None
    return rowcount if matched is None else int(matched[1])


class _Pooled:
    """What the connections of both implementations have in common."""

    def __init__(self, client: Any, connection: Any) -> None:
        self._client = client
        self._connection = connection
        self._decoders = dict(connection.decoders)
        self._set_names = f"SET NAMES {client.config.charset}"
        self._autocommit = False
        self._in_transaction = False
        self._abandoned = False

    @property
    def raw(self) -> Any:
        """The driver's connection.

        Raises:
            InterfaceError: This one has been closed.
        """
        if self._connection is None:
            raise errors.InterfaceError("this connection has been given back")
        return self._connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def get_autocommit(self) -> bool:
        """True if each statement is a transaction."""
        return self._autocommit

    def _begins(self, sql: object) -> bool:
        """Whether a transaction is to begin before this statement."""
        return not (self._autocommit or self._in_transaction or sql == self._set_names)

    def is_set_already(self, sql: object) -> bool:
        """Whether a statement sets what the session has been set to."""
        return bool(sql == self._set_names)

    def failed(self, error: BaseException) -> None:
        """End a statement on the server for whose answer nobody waits any more."""
        if not (isinstance(error, errors.Error) or errors.is_server_error(error)):
            self._abandoned = True
            self._client.pool.kill_checked_out(self.raw)

    def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.decoders = self._decoders
        connection.dirty = True  # it is reset: what was sent is not known
        self._client.pool.release(connection)

    def __del__(self) -> None:
        connection = self.__dict__.get("_connection")
        if connection is not None:
            self._client.pool.abandon(connection)


_cursors: Dict[type, type] = {}


def _cursor_class(base: type, mixin: type) -> Any:
    if base not in _cursors:
        _cursors[base] = type(base.__name__, (mixin, base), {})
    return _cursors[base]


# Threads.


class Connection(_Pooled):
    """A connection out of a pool, in threads.

    Args:
        route: Of the database.
    """

    def __init__(self, route: steps.Route) -> None:
        client, connection = sync_runner.run_plan(
            execute.check_out(route, raw=True), sync_runner.run_step
        )
        super().__init__(client, connection)

    def cursor(self, cursor: Any = None) -> Any:
        """Make a cursor of the driver.

        Args:
            cursor: Its class.
        """
        made = _cursor_class(cursor or pymysql.cursors.Cursor, _Cursor)(self.raw)
        made.pooled = self
        return made

    def autocommit(self, value: object) -> None:
        """Choose whether each statement is a transaction; what is open is committed.

        Args:
            value: True, or false for a transaction that ``commit`` or ``rollback``
                ends.
        """
        if value:
            self.commit()
        self._autocommit = bool(value)

    def begin(self) -> None:
        """Begin a transaction now."""
        self.raw.begin()
        self._in_transaction = True

    def before(self, sql: object) -> None:
        """Begin a transaction, if this statement is its first.

        Args:
            sql: The statement.
        """
        if self._begins(sql):
            self.begin()

    def commit(self) -> None:
        """End the transaction, if one has begun."""
        if self._in_transaction:
            self._in_transaction = False
            self.raw.commit()

    def rollback(self) -> None:
        """Undo the transaction, if one has begun."""
        if self._in_transaction:
            self._in_transaction = False
            self.raw.rollback()

    def close(self) -> None:
        """Give the connection back; an open transaction is rolled back."""
        if not self._abandoned and self._connection is not None and self._connection.open:
            try:
                self.rollback()
            except errors.DRIVER_ERRORS:
                self._connection.abort()
        self._give_back()


class _Cursor:
    """Added to the driver's classes."""

    pooled: Connection
    rowcount: int
    _result: Any

    def _query(self, q: object) -> Any:
        if self.pooled.is_set_already(q):
            return 0
        try:
            self.pooled.before(q)
            super()._query(q)  # type: ignore[misc]
        except BaseException as error:
            self.pooled.failed(error)
            raise
        self.rowcount = _found(self._result, self.rowcount)
        return self.rowcount


# asyncio.


class AsyncConnection(_Pooled):
    """A connection out of a pool, in asyncio; made by ``connect``."""

    @classmethod
    async def connect(cls, route: steps.Route) -> "AsyncConnection":
        """Check a connection out.

        Args:
            route: Of the database.
        """
        client, connection = await async_runner.run_plan(
            execute.check_out(route, raw=True), async_runner.run_step
        )
        return cls(client, connection)

    def cursor(self, *cursors: Any) -> Any:
        """Make a cursor of the driver.

        Args:
            cursors: Its class.
        """
        base = cursors[0] if cursors else aiomysql.cursors.Cursor
        made = _cursor_class(base, _AsyncCursor)(self.raw, False)
        made.pooled = self
        return made

    async def autocommit(self, value: object) -> None:
        """Choose whether each statement is a transaction; what is open is committed.

        Args:
            value: True, or false for a transaction that ``commit`` or ``rollback``
                ends.
        """
        if value:
            await self.commit()
        self._autocommit = bool(value)

    async def begin(self) -> None:
        """Begin a transaction now."""
        await self.raw.begin()
        self._in_transaction = True

    async def before(self, sql: object) -> None:
        """Begin a transaction, if this statement is its first.

        Args:
            sql: The statement.
        """
        if self._begins(sql):
            await self.begin()

    async def commit(self) -> None:
        """End the transaction, if one has begun."""
        if self._in_transaction:
            self._in_transaction = False
            await self.raw.commit()

    async def rollback(self) -> None:
        """Undo the transaction, if one has begun."""
        if self._in_transaction:
            self._in_transaction = False
            await self.raw.rollback()

    async def ensure_closed(self) -> None:
        """Give the connection back; an open transaction is rolled back."""
        try:
            if not (self._connection is None or self._connection.closed or self._abandoned):
                try:
                    await self.rollback()
                except errors.DRIVER_ERRORS:
                    self._connection.abort()
        finally:
            self._give_back()

    def close(self) -> None:
        """Give the connection back at once; the pool closes one with an open
        transaction, which the server rolls back.
        """
        self._give_back()


class _AsyncCursor:
    """Added to the driver's classes."""

    pooled: AsyncConnection
    _rowcount: int
    _result: Any

    async def _query(self, q: object) -> None:
        if self.pooled.is_set_already(q):
            return
        # In a task of its own: if this one is cancelled, the driver closes the socket,
        # by which the session is found that must be killed first.
        call = asyncio.ensure_future(self._send(q))
        try:
            await asyncio.shield(call)
        except BaseException as error:
            call.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            self.pooled.failed(error)
            raise
        self._rowcount = _found(self._result, self._rowcount)

    async def _send(self, q: object) -> None:
        await self.pooled.before(q)
        await super()._query(q)  # type: ignore[misc]
