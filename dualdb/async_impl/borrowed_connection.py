"""A raw connection out of the pool, in asyncio."""

from typing import Any, Generator, Optional

from .. import errors
from ..execution import execute, steps
from .connection import Connection
from .pool import Pool
from .runner import drive, perform


class BorrowedConnection:
    """A raw aiomysql connection out of the pool, until the block ends or ``close()`` is
    called.

    ``async with client.connection() as conn:`` or ``conn = await client.connection()``.
    """

    def __init__(self, route: steps.Route) -> None:
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
            raise errors.InterfaceError(
                "this connection has not been awaited, or has been given back"
            )
        return getattr(self._raw, name)

    async def _check_out(self) -> Connection:
        if self._raw is None:
            client, raw = await drive(execute.check_out(self._route, raw=True), perform)
            self._raw, self._pool = raw, client.pool
        assert self._raw is not None
        return self._raw

    def close(self) -> None:
        """Give the connection back.

        It is closed, because nobody can say what state it was left in.
        """
        raw, self._raw = self._raw, None
        if raw is not None and self._pool is not None:
            self._pool.discard(raw)

    def __del__(self) -> None:
        raw = self.__dict__.get("_raw")
        if raw is not None and self._pool is not None:
            self._pool.abandon(raw)
