"""Scatter and merge, in threads."""

from typing import Any, List, Optional

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
from .runner import Threads
from .stream import Stream


class ShardStream(Stream[Row]):
    """The rows of one shard, for a merge."""

    def __init__(self, route: steps.Route, statement: Subquery, until: Optional[float]) -> None:
        super().__init__(route, statement, None)
        self._until = until

    def read(self) -> Optional[Row]:
        """Return the next row; None after the last. Another thread may close the stream
        meanwhile.
        """
        self._read_elsewhere = True
        try:
            return next(self, None)
        finally:
            self._read_elsewhere = False
            if self._closed:
                self._end()


class Merge(Threads, BaseMerge[ShardStream]):
    """The rows of several shards in one order, in threads: ``for row in
    db.shards().merge(...)``, or in a ``with`` block.
    """

    _stream_class = ShardStream

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


class _Verbs(
    Threads,
    ScatterReads[
        ScatterResult[List[Row], Row],
        ScatterResult[Optional[Row]],
        ScatterResult[Any, Any],
        ScatterResult[List[Any], Any],
    ],
    ScatterCalls[ScatterResult[CallResult]],
):
    """The verbs of a scatter that may read."""

    _merge_class = Merge


class ScatterReader(_Verbs, BaseScatterReader[List[Row], Merge]):
    """Several shards for reads alone, in threads: ``db.shards().read``."""


class Scatter(
    _Verbs,
    ScatterWrites[ScatterResult[RowCount]],
    Distributes[DistributedTransaction],
    ReadableScatter[List[Row], Merge, ScatterReader],
):
    """Several shards as one target, in threads."""

    _reader_class = ScatterReader
    _distributed_class = DistributedTransaction
