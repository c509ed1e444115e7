"""Scatter and merge, in asyncio."""

from typing import Optional, Sequence

from ..execution import steps
from ..results import Row
from ..sharding.collation import Order
from ..sharding.merge import BaseMerge
from ..sharding.scatter import BaseScatter
from ..sharding.subquery import Query, Subquery
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


class Scatter(Tasks, BaseScatter[Rows, Merge]):
    """Several shards as one target, in asyncio."""

    def _new_merge(
        self, query: Query, order: Sequence[Order], limit: Optional[int], until: Optional[float]
    ) -> Merge:
        return Merge(self, query, order, limit, until)
