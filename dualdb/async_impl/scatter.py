"""Scatter and merge, in asyncio."""

from typing import Any, Coroutine, List, Optional

from ..coordination.transaction import Distributes
from ..execution import steps
from ..results import CallResult, Row, RowCount, ScatterResult
from ..sharding.merge import BaseMerge
from ..sharding.scatter import (
    BaseScatterReader,
    ReadableScatter,
    ScatterCalls,
    ScatterReads,
    ScatterWrites,
)
from ..sharding.subquery import Subquery
from .coordination import DistributedTransaction
from .results import Rows
from .runner import Tasks
from .stream import Stream


class ShardStream(Stream[Row]):
    """The rows of one shard, for a merge."""

    def __init__(self, route: steps.Route, statement: Subquery, until: Optional[float]) -> None:
        super().__init__(route, statement, None)
        self._until = until

    async def read(self) -> Optional[Row]:
        """Return the next row; None after the last."""
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            return None


class Merge(Tasks, BaseMerge[ShardStream]):
    """The rows of several shards in one order, in asyncio: ``async for row in
    db.shards().merge(...)``, or in an ``async with`` block.
    """

    _stream_class = ShardStream

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

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()


class _Verbs(
    Tasks,
    ScatterReads[
        Coroutine[Any, Any, ScatterResult[List[Row], Row]],
        Coroutine[Any, Any, ScatterResult[Optional[Row]]],
        Coroutine[Any, Any, ScatterResult[Any, Any]],
        Coroutine[Any, Any, ScatterResult[List[Any], Any]],
    ],
    ScatterCalls[Coroutine[Any, Any, ScatterResult[CallResult]]],
):
    """The verbs of a scatter that may read."""

    _merge_class = Merge


class ScatterReader(_Verbs, BaseScatterReader[Rows, Merge]):
    """Several shards for reads alone, in asyncio: ``db.shards().read``."""


class Scatter(
    _Verbs,
    ScatterWrites[Coroutine[Any, Any, ScatterResult[RowCount]]],
    Distributes[DistributedTransaction],
    ReadableScatter[Rows, Merge, ScatterReader],
):
    """Several shards as one target, in asyncio."""

    _reader_class = ScatterReader
    _distributed_class = DistributedTransaction
