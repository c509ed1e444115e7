"""Rows as Arrow tables, and as frames of pandas and polars."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Coroutine, Optional, overload

from ..sql.parameters import Params
from .typevars import InTasks, InThreads

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    from ..integrations.dataframes import ArrowBatches, AsyncArrowBatches


class Frames:
    """The methods of a target, and of several shards, that give frames."""

    @overload
    def to_arrow(
        self: InThreads,
        sql: str,
        params: Params = None,
        *,
        read_only: bool = False,
        timeout: Optional[float] = None,
        shard_column: Optional[str] = None,
    ) -> "pyarrow.Table": ...

    @overload
    def to_arrow(
        self: InTasks,
        sql: str,
        params: Params = None,
        *,
        read_only: bool = False,
        timeout: Optional[float] = None,
        shard_column: Optional[str] = None,
    ) -> "Coroutine[Any, Any, pyarrow.Table]": ...

    def to_arrow(
        self,
        sql: str,
        params: Params = None,
        *,
        read_only: bool = False,
        timeout: Optional[float] = None,
        shard_column: Optional[str] = None,
    ) -> Any:
        """Return the rows of a query as an Arrow table; it needs ``dualdb[arrow]``.

        Columns have the types that the server declares: 64-bit integers, decimals with
        their scale, timestamps and durations in microseconds, text, bytes.

        Args:
            sql: As for ``query``.
            params: As for ``query``.
            read_only: As for ``query``.
            timeout: Seconds for the rows of each database.
            shard_column: The name of a column to add, with the shard id.

        Returns:
            The table; of several shards the rows of all, in the order of the shard ids.

        Raises:
            ScatterError: A shard failed; of several.
            RowError: A value has no place in its column's type, as the date 0000-00-00.

        Example:
            >>> db.shards().to_arrow("SELECT symbol, quantity FROM trades").num_rows
            3
        """
        return _table(self, None, sql, params, read_only, timeout, shard_column)

    @overload
    def to_pandas(
        self: InThreads,
        sql: str,
        params: Params = None,
        *,
        read_only: bool = False,
        timeout: Optional[float] = None,
        shard_column: Optional[str] = None,
    ) -> "pandas.DataFrame": ...

    @overload
    def to_pandas(
        self: InTasks,
        sql: str,
        params: Params = None,
        *,
        read_only: bool = False,
        timeout: Optional[float] = None,
        shard_column: Optional[str] = None,
    ) -> "Coroutine[Any, Any, pandas.DataFrame]": ...

    def to_pandas(
        self,
        sql: str,
        params: Params = None,
        *,
        read_only: bool = False,
        timeout: Optional[float] = None,
        shard_column: Optional[str] = None,
    ) -> Any:
        """Return the rows of a query as a pandas DataFrame; it needs
        ``dualdb[pandas]``.

        Args:
            sql: As for ``to_arrow``.
            params: As there.
            read_only: As there.
            timeout: As there.
            shard_column: As there.

        Example:
            >>> db.shards().to_pandas("SELECT quantity FROM trades")["quantity"].sum()
            24
        """
        return _table(self, "to_pandas", sql, params, read_only, timeout, shard_column)

    @overload
    def to_polars(
        self: InThreads,
        sql: str,
        params: Params = None,
        *,
        read_only: bool = False,
        timeout: Optional[float] = None,
        shard_column: Optional[str] = None,
    ) -> "polars.DataFrame": ...

    @overload
    def to_polars(
        self: InTasks,
        sql: str,
        params: Params = None,
        *,
        read_only: bool = False,
        timeout: Optional[float] = None,
        shard_column: Optional[str] = None,
    ) -> "Coroutine[Any, Any, polars.DataFrame]": ...

    def to_polars(
        self,
        sql: str,
        params: Params = None,
        *,
        read_only: bool = False,
        timeout: Optional[float] = None,
        shard_column: Optional[str] = None,
    ) -> Any:
        """Return the rows of a query as a polars DataFrame; it needs
        ``dualdb[polars]``.

        Args:
            sql: As for ``to_arrow``.
            params: As there.
            read_only: As there.
            timeout: As there.
            shard_column: As there.

        Example:
            >>> db.shards().to_polars("SELECT quantity FROM trades")["quantity"].sum()
            24
        """
        return _table(self, "to_polars", sql, params, read_only, timeout, shard_column)

    @overload
    def arrow_batches(
        self: InThreads,
        sql: str,
        params: Params = None,
        *,
        batch_rows: int = 65_536,
        read_only: bool = False,
        timeout: Optional[float] = None,
        shard_column: Optional[str] = None,
    ) -> "ArrowBatches": ...

    @overload
    def arrow_batches(
        self: InTasks,
        sql: str,
        params: Params = None,
        *,
        batch_rows: int = 65_536,
        read_only: bool = False,
        timeout: Optional[float] = None,
        shard_column: Optional[str] = None,
    ) -> "AsyncArrowBatches": ...

    def arrow_batches(
        self,
        sql: str,
        params: Params = None,
        *,
        batch_rows: int = 65_536,
        read_only: bool = False,
        timeout: Optional[float] = None,
        shard_column: Optional[str] = None,
    ) -> Any:
        """Iterate over the rows of a query as Arrow record batches, in constant memory.

        Several shards are read one after the other. Leaving a ``with`` block over it
        frees the connection and ends the query on the server.

        Args:
            sql: As for ``to_arrow``.
            params: As there.
            batch_rows: The most rows of a batch.
            read_only: As there.
            timeout: As there.
            shard_column: As there.

        Returns:
            An iterator of ``pyarrow.RecordBatch``, which is also a context manager.

        Example:
            >>> with db.shard(1).arrow_batches("SELECT * FROM trades") as batches:
            ...     for batch in batches:
            ...         print(batch.num_rows)
            2
        """
        module = import_module("dualdb.integrations.dataframes")
        query = module.Query(sql, params, read_only, timeout, batch_rows, shard_column)
        return module.batches(self, query)


def _table(source: object, make: Optional[str], sql: str, *rest: Any) -> Any:
    """The table, or the frame that a function of the integration makes of it."""
    params, read_only, timeout, shard_column = rest
    module = import_module("dualdb.integrations.dataframes")
    query = module.Query(sql, params, read_only, timeout, 65_536, shard_column)
    return module.table(source, query, getattr(module, make) if make else _itself)


def _itself(found: Any) -> Any:
    return found
