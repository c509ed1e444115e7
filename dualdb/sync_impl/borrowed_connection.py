"""A raw connection out of the pool, in threads."""

from typing import Any, Optional

from .. import errors
from ..execution import execute, steps
from .connection import Connection
from .pool import Pool
from .runner import run_plan, run_step


class BorrowedConnection:
    """A raw PyMySQL connection out of the pool, until the block ends or ``close()`` is
    called.
    """

    def __init__(self, route: steps.Route) -> None:
        client, connection = run_plan(execute.check_out(route, raw=True), run_step)
        self._pool: Pool = client.pool
        self._connection: Optional[Connection] = connection

    def __enter__(self) -> Connection:
        if self._connection is None:
            raise errors.InterfaceError("this connection has been given back")
        return self._connection

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__enter__(), name)

    def close(self) -> None:
        """Return the connection to the pool, which closes it, because its state is not
        known.
        """
        connection = self._connection
        self._connection = None
        if connection is not None:
            self._pool.record_unreported_write()
            self._pool.discard(connection)

    def __del__(self) -> None:
        connection = self.__dict__.get("_connection")
        if connection is not None:
            self._pool.abandon(connection)
