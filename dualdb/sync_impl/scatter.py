"""Scatter and merge, in threads."""

from typing import Any, List, Optional

from ..coordination.transaction import Distributes
from ..execution import steps
from ..results import CallResult, Row, RowCount, ScatterResult
from ..sharding.merge import BaseMerge
from ..sharding.scatter import BaseScatter, ScatterReads, ScatterWrites
from ..sharding.subquery import Subquery
from .coordination import DistributedTransaction
from .runner import Threads
from .stream import Stream


class Merge(Threads, BaseMerge[Stream[Row]]):
    """The rows of several shards in one order, in threads: ``for row in
    db.shards().merge(...)``, or in a ``with`` block.
    """

    def _new_stream(self, route: steps.Route, statement: Subquery) -> Stream[Row]:
        return Stream(route, statement, None)

    def __iter__(self) -> "Merge":
        return self

    def __next__(self) -> Row:
        try:
            row: Optional[Row] = self._run(self._next())
        except BaseException:
            self.close()
            raise
        if row is None:
            raise StopIteration
        return row

    def __enter__(self) -> "Merge":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Scatter(
    Threads,
    ScatterReads[
        ScatterResult[List[Row], Row],
        ScatterResult[Optional[Row]],
        ScatterResult[Any, Any],
        ScatterResult[List[Any], Any],
    ],
    ScatterWrites[ScatterResult[RowCount], ScatterResult[CallResult]],
    Distributes[DistributedTransaction],
    BaseScatter[List[Row], Merge],
):
    """Several shards as one target, in threads."""

    _merge_class = Merge
    _distributed_class = DistributedTransaction
