"""Rows as Arrow record batches, for Arrow, pandas and polars."""

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Generic,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
)

import pyarrow
from pymysql.constants import FIELD_TYPE, FLAG

from .. import errors
from ..api.interfaces import awaits, route_of
from ..async_impl import Stream as AsyncStream
from ..protocol.statements import Statement
from ..results import ScatterResult, column_names
from ..sharding.scatter import BaseScatter, shards_of
from ..sql.parameters import Params
from ..sync_impl import Stream

if TYPE_CHECKING:
    import pandas
    import polars

__all__ = ["ArrowBatches", "AsyncArrowBatches"]

StreamT = TypeVar("StreamT", bound="Any")
FrameT = TypeVar("FrameT")

_BINARY = 63
_INTEGERS = frozenset(
    {
        FIELD_TYPE.TINY,
        FIELD_TYPE.SHORT,
        FIELD_TYPE.LONG,
        FIELD_TYPE.INT24,
        FIELD_TYPE.LONGLONG,
        FIELD_TYPE.YEAR,
    }
)
_TYPES: Dict[int, pyarrow.DataType] = {
    FIELD_TYPE.FLOAT: pyarrow.float64(),
    FIELD_TYPE.DOUBLE: pyarrow.float64(),
    FIELD_TYPE.DATE: pyarrow.date32(),
    FIELD_TYPE.NEWDATE: pyarrow.date32(),
    FIELD_TYPE.DATETIME: pyarrow.timestamp("us"),
    FIELD_TYPE.TIMESTAMP: pyarrow.timestamp("us"),
    FIELD_TYPE.TIME: pyarrow.duration("us"),
    FIELD_TYPE.NULL: pyarrow.null(),
    FIELD_TYPE.JSON: pyarrow.string(),
    FIELD_TYPE.BIT: pyarrow.binary(),
    FIELD_TYPE.GEOMETRY: pyarrow.binary(),
}
#: The most digits of Arrow's two decimal types.
_DIGITS = (38, 76)


class Query(NamedTuple):
    """A query whose rows become record batches.

    Attributes:
        sql: As for ``query``.
        params: As for ``query``.
        read_only: As for ``query``.
        timeout: Seconds for all rows of one database; None for no limit.
        batch_rows: The most rows of a batch.
        shard_column: The name of a column with the shard id, added at the end; None for
            none.
    """

    sql: str
    params: Params
    read_only: bool
    timeout: Optional[float]
    batch_rows: int
    shard_column: Optional[str]

    def check(self) -> "Query":
        """Return the query.

        Raises:
            ParameterError: ``batch_rows`` is not an int from 1 up.
        """
        if type(self.batch_rows) is not int or self.batch_rows < 1:
            raise errors.ParameterError(
                f"batch_rows must be an int from 1 up, not {self.batch_rows!r}"
            )
        return self

    def statement(self) -> Statement:
        """Make the statement.

        Raises:
            ParameterError: It is invalid.
        """
        return Statement(self.sql, self.params, read_only=self.read_only)


def arrow_type(field: Any) -> pyarrow.DataType:
    """Choose the type of a column.

    Args:
        field: The column's definition, as the server sent it.
    """
    code: int = field.type_code
    if code in _INTEGERS:
        unsigned = code == FIELD_TYPE.LONGLONG and field.flags & FLAG.UNSIGNED
        return pyarrow.uint64() if unsigned else pyarrow.int64()
    if code in (FIELD_TYPE.DECIMAL, FIELD_TYPE.NEWDECIMAL):
        digits = _DIGITS[0] if field.length <= _DIGITS[0] else _DIGITS[1]
        make = pyarrow.decimal128 if digits == _DIGITS[0] else pyarrow.decimal256
        return make(digits, field.scale)
    if code in _TYPES:
        return _TYPES[code]
    return pyarrow.binary() if field.charsetnr == _BINARY else pyarrow.string()


class _Schema:
    """Makes the batches of one database.

    Args:
        fields: The definitions of its columns.
        shard_id: Of the database.
        shard_column: See ``Query``.
    """

    def __init__(
        self, fields: Sequence[Any], shard_id: Optional[int], shard_column: Optional[str]
    ) -> None:
        columns = list(zip(column_names(fields), map(arrow_type, fields)))
        self._types = [each for _, each in columns]
        self._shard_id = shard_id
        self._has_shard = shard_column is not None
        if shard_column is not None:
            columns.append((shard_column, pyarrow.int64()))
        self.schema = pyarrow.schema(columns)

    def batch(self, rows: List[Tuple[Any, ...]]) -> pyarrow.RecordBatch:
        """Make a batch.

        Raises:
            RowError: A value is none of its column, such as the date 0000-00-00.
        """
        arrays = [
            self._array(number, values, each)
            for number, (values, each) in enumerate(
                zip(zip(*rows) if rows else [()] * len(self._types), self._types)
            )
        ]
        if self._has_shard:
            arrays.append(pyarrow.array([self._shard_id] * len(rows), pyarrow.int64()))
        return pyarrow.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _array(self, number: int, values: Any, kind: pyarrow.DataType) -> pyarrow.Array:
        try:
            return pyarrow.array(values, kind)
        except (pyarrow.ArrowException, OverflowError) as error:
            name = self.schema.field(number).name
            wrong = errors.RowError(f"column {name!r}: a value is no {kind} ({error})")
            wrong.columns = (name,)
            raise wrong.with_context(None, self._shard_id, sent=True) from error


class _Batches(Generic[StreamT]):
    """What the batches of both implementations have in common."""

    _stream_class: Callable[..., StreamT]

    def __init__(self, sources: "_Sources", query: Query) -> None:
        self._sources = list(sources)
        self._query = query.check()
        # bound before anything is sent, so that wrong arguments are always found
        self._query.statement()
        self._stream: Optional[StreamT] = None
        self._shard_id: Optional[int] = None
        self._schema: Optional[_Schema] = None
        self._rows: List[Tuple[Any, ...]] = []
        self._begun = False

    def _open_next(self) -> bool:
        """Go on to the next database; False after the last."""
        if not self._sources:
            return False
        self._shard_id, route = self._sources.pop(0)
        self._stream = self._stream_class(
            route, self._query.statement(), self._query.timeout, tuple
        )
        self._schema = None
        self._begun = False
        return True

    def _is_full(self) -> bool:
        return len(self._rows) >= self._query.batch_rows

    def _made_schema(self) -> _Schema:
        if self._schema is None:
            assert self._stream is not None
            self._schema = _Schema(self._stream.fields, self._shard_id, self._query.shard_column)
        return self._schema

    def _take(self) -> pyarrow.RecordBatch:
        most = self._query.batch_rows
        rows, self._rows = self._rows[:most], self._rows[most:]
        self._begun = True
        return self._made_schema().batch(rows)

    def close(self) -> None:
        """End it: free the connection, and abort the query on the server."""
        self._sources = []
        self._rows = []
        if self._stream is not None:
            self._stream.close()
            self._stream = None


_Sources = Sequence[Tuple[Optional[int], Any]]


# Threads.


class _TupleStream(Stream[Tuple[Any, ...]]):
    fields: Sequence[Any] = ()

    def _start(self) -> None:
        super()._start()
        self.fields = self._connection.column_definitions()

    def take(self) -> List[Tuple[Any, ...]]:
        """Return the rows that have come; none after the last."""
        rows: List[Tuple[Any, ...]] = list(self._rows)
        if not rows:
            self._fetch()
            rows = list(self._rows)
        self._rows = iter(())
        return rows


class ArrowBatches(_Batches[_TupleStream]):
    """Record batches as the rows arrive, in constant memory: ``for batch in
    db.shards().arrow_batches(...)``, or in a ``with`` block.

    A database with no rows gives one empty batch.
    """

    _stream_class = _TupleStream

    def __iter__(self) -> "ArrowBatches":
        return self

    def __next__(self) -> pyarrow.RecordBatch:
        try:
            while self._stream is not None or self._open_next():
                assert self._stream is not None
                ended = False
                while not (ended or self._is_full()):
                    rows = self._stream.take()
                    self._rows += rows
                    ended = not rows
                if self._rows or not self._begun:
                    return self._take()
                self._stream = None
        except BaseException:
            self.close()
            raise
        raise StopIteration

    def __enter__(self) -> "ArrowBatches":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


# asyncio.


class _AsyncTupleStream(AsyncStream[Tuple[Any, ...]]):
    fields: Sequence[Any] = ()

    async def _start(self) -> None:
        await super()._start()
        self.fields = self._connection.column_definitions()

    async def take(self) -> List[Tuple[Any, ...]]:
        """Return the rows that have come; none after the last."""
        rows: List[Tuple[Any, ...]] = list(self._rows)
        if not rows:
            await self._fetch()
            rows = list(self._rows)
        self._rows = iter(())
        return rows


class AsyncArrowBatches(_Batches[_AsyncTupleStream]):
    """As ArrowBatches, in asyncio: ``async for``, or in an ``async with`` block."""

    _stream_class = _AsyncTupleStream

    def __aiter__(self) -> "AsyncArrowBatches":
        return self

    async def __anext__(self) -> pyarrow.RecordBatch:
        try:
            while self._stream is not None or self._open_next():
                assert self._stream is not None
                ended = False
                while not (ended or self._is_full()):
                    rows = await self._stream.take()
                    self._rows += rows
                    ended = not rows
                if self._rows or not self._begun:
                    return self._take()
                self._stream = None
        except BaseException:
            self.close()
            raise
        raise StopAsyncIteration

    async def __aenter__(self) -> "AsyncArrowBatches":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()


# What targets and scatters call.


def batches(source: Any, query: Query) -> Any:
    """Make the batches of a target or scatter.

    Args:
        source: It.
        query: The query.
    """
    kind = AsyncArrowBatches if _is_async(source) else ArrowBatches
    return kind(_sources(source, query), query)


def table(source: Any, query: Query, make: Callable[[pyarrow.Table], FrameT]) -> Any:
    """Read all rows, of several shards at the same time.

    Args:
        source: A target or scatter.
        query: The query.
        make: Makes the result.

    Returns:
        The result; in asyncio a coroutine of it.
    """
    sources = _sources(source, query)
    most = shards_of(source).policy.max_concurrency if _is_scatter(source) else 1
    if _is_async(source):
        return _table_in_tasks(sources, query, make, most)
    return make(_table_in_threads(sources, query, most))


def to_pandas(found: pyarrow.Table) -> "pandas.DataFrame":
    """Make a pandas DataFrame.

    Args:
        found: The rows.
    """
    return found.to_pandas()


def to_polars(found: pyarrow.Table) -> "polars.DataFrame":
    """Make a polars DataFrame.

    Args:
        found: The rows.
    """
    import polars  # noqa: PLC0415 - of those who call it

    made = polars.from_arrow(found)
    assert isinstance(made, polars.DataFrame)
    return made


def _is_scatter(source: object) -> bool:
    return isinstance(source, BaseScatter)


def _is_async(source: object) -> bool:
    return awaits(source)


def _sources(source: Any, query: Query) -> _Sources:
    """The route of each database that the query is for, with its shard id."""
    if not _is_scatter(source):
        return [(None, route_of(source))]
    shards = shards_of(source)
    if shards.keys is not None or shards.policy.takes_parts:
        raise errors.ParameterError(
            "rows of several shards become a frame for db.shards() without on_error= and "
            "min_ok=, and not for db.keys()"
        )
    shards.check_statement(query.statement())
    shards.check()
    return [(shard_id, shards.reading(route)) for shard_id, route in shards.routes().items()]


def _table_in_threads(sources: _Sources, query: Query, most: int) -> pyarrow.Table:
    def one(each: Tuple[Optional[int], Any]) -> Any:
        try:
            return list(ArrowBatches([each], query))
        except errors.Error as error:
            return error

    if len(sources) < 2 or most == 1:
        return _whole(sources, [one(each) for each in sources])
    with ThreadPoolExecutor(min(most, len(sources))) as executor:
        calls = [partial(contextvars.copy_context().run, one, each) for each in sources]
        return _whole(sources, list(executor.map(lambda call: call(), calls)))


async def _table_in_tasks(
    sources: _Sources, query: Query, make: Callable[[pyarrow.Table], FrameT], most: int
) -> FrameT:
    turns = asyncio.Semaphore(most)

    async def one(each: Tuple[Optional[int], Any]) -> Any:
        async with turns, AsyncArrowBatches([each], query) as batches:
            try:
                return [batch async for batch in batches]
            except errors.Error as error:
                return error

    if len(sources) < 2:  # in the caller's own task, and so in its transaction
        found = [await one(each) for each in sources]
    else:
        found = await asyncio.gather(*[one(each) for each in sources])
    return make(_whole(sources, found))


def _whole(sources: _Sources, found: Sequence[Any]) -> pyarrow.Table:
    failed = {
        shard_id: each
        for (shard_id, _), each in zip(sources, found)
        if isinstance(each, errors.Error)
    }
    if failed:
        if len(sources) == 1:
            raise next(iter(failed.values()))
        ids = {shard_id: each for shard_id, each in failed.items() if shard_id is not None}
        raise errors.scatter_error(ScatterResult({}, ids), len(sources))
    tables = [pyarrow.Table.from_batches(each) for each in found]
    if not tables:
        return pyarrow.table({})
    return pyarrow.concat_tables(tables, promote_options="permissive").combine_chunks()
