"""A raw connection out of the pool, in threads."""

from typing import Any, Optional

from .. import errors
from ..execution import execute, steps
from .connection import Connection
from .pool import Pool
from .runner import drive, perform


class BorrowedConnection:
    """A raw PyMySQL connection out of the pool, until the block ends or ``close()`` is
    called.
    """

    def __init__(self, route: steps.Route) -> None:
        client, raw = drive(execute.check_out(route, raw=True), perform)
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
        """Give the connection back.

        It is closed, because nobody can say what state it was left in.
        """
        raw, self._raw = self._raw, None
        if raw is not None:
            self._pool.discard(raw)

    def __del__(self) -> None:
        raw = self.__dict__.get("_raw")
        if raw is not None:
            self._pool.abandon(raw)
