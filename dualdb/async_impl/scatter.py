"""Scatter and merge, in asyncio."""

from typing import Any, Coroutine, List, Optional

from ..coordination.transaction import Distributes
from ..execution import steps
from ..results import CallResult, Row, RowCount, ScatterResult
from ..sharding.merge import BaseMerge
from ..sharding.scatter import BaseScatter, ScatterReads, ScatterWrites
from ..sharding.subquery import Subquery
from .coordination import DistributedTransaction
from .results import Rows
from .runner import Tasks
from .stream import Stream


class Merge(Tasks, BaseMerge[Stream[Row]]):
    """The rows of several shards in one order, in asyncio: ``async for row in
    db.shards().merge(...)``, or in an ``async with`` block.
    """

    def _new_stream(self, route: steps.Route, statement: Subquery) -> Stream[Row]:
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

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()


class Scatter(
    Tasks,
    ScatterReads[
        Coroutine[Any, Any, ScatterResult[List[Row], Row]],
        Coroutine[Any, Any, ScatterResult[Optional[Row]]],
        Coroutine[Any, Any, ScatterResult[Any, Any]],
        Coroutine[Any, Any, ScatterResult[List[Any], Any]],
    ],
    ScatterWrites[
        Coroutine[Any, Any, ScatterResult[RowCount]],
        Coroutine[Any, Any, ScatterResult[CallResult]],
    ],
    Distributes[DistributedTransaction],
    BaseScatter[Rows, Merge],
):
    """Several shards as one target, in asyncio."""

    _merge_class = Merge
    _distributed_class = DistributedTransaction
