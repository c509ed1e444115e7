"""A raw connection out of the pool, in asyncio."""

from typing import Any, Generator, Optional

from .. import errors
from ..execution import execute, steps
from .connection import Connection
from .pool import Pool
from .runner import run_plan, run_step


class BorrowedConnection:
    """A raw aiomysql connection out of the pool, until the block ends or ``close()`` is
    called.

    ``async with client.connection() as conn:`` or ``conn = await client.connection()``.
    """

    def __init__(self, route: steps.Route) -> None:
        self._route = route
        self._pool: Optional[Pool] = None
        self._connection: Optional[Connection] = None

    def __await__(self) -> Generator[Any, None, "BorrowedConnection"]:
        yield from self._check_out().__await__()
        return self

    async def __aenter__(self) -> Connection:
        return await self._check_out()

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        if self._connection is None:
            raise errors.InterfaceError(
                "this connection has not been awaited, or has been given back"
            )
        return getattr(self._connection, name)

    async def _check_out(self) -> Connection:
        if self._connection is None:
            client, connection = await run_plan(execute.check_out(self._route, raw=True), run_step)
            self._connection = connection
            self._pool = client.pool
        assert self._connection is not None
        return self._connection

    def close(self) -> None:
        """Return the connection to the pool, which closes it, because its state is not
        known.
        """
        connection = self._connection
        self._connection = None
        if connection is not None and self._pool is not None:
            self._pool.record_unreported_write()
            self._pool.discard(connection)

    def __del__(self) -> None:
        connection = self.__dict__.get("_connection")
        if connection is not None and self._pool is not None:
            self._pool.abandon(connection)
