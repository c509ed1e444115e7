"""Calls to several shards at once. A result never silently lacks a shard."""

from abc import ABC, abstractmethod
from typing import (
    Any,
    Callable,
    Coroutine,
    Generic,
    List,
    Optional,
    Sequence,
    Type,
    Union,
    overload,
)

from .. import deadlines, errors
from ..api.frames import Frames
from ..api.typevars import (
    CallR,
    ColumnR,
    CountR,
    InTasks,
    InThreads,
    MadeT,
    MergeT,
    ReaderT,
    RowR,
    RowsR,
    TotalsR,
    ValueR,
)
from ..execution import steps, verbs
from ..protocol.statements import Call, Statement
from ..results import ScatterResult, row_count
from ..sql.parameters import Params
from . import merge, subquery
from .aggregates import Aggregate, AggregateQuery
from .calls import Keys, Policy, ReadShards, Routes, Shards, as_it_is


class _ShardCalls(Frames, ABC):
    """A call to several shards, which the verbs are made of."""

    _shards: Shards

    @abstractmethod
    def _run(self, plan: steps.Plan[Any]) -> Any:
        """Run a plan as the implementation does: its result, or a coroutine of it."""


class ScatterReads(_ShardCalls, Generic[RowsR, RowR, ValueR, ColumnR]):
    """The verbs that return rows of each shard."""

    @overload
    def query(
        self,
        sql: str,
        params: Params = None,
        *,
        idempotent: bool = False,
        read_only: bool = False,
        max_rows: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> RowsR: ...

    @overload
    def query(
        self: InThreads,
        sql: str,
        params: Params = None,
        *,
        as_: Type[MadeT],
        idempotent: bool = False,
        read_only: bool = False,
        max_rows: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> ScatterResult[List[MadeT], MadeT]: ...

    @overload
    def query(
        self: InTasks,
        sql: str,
        params: Params = None,
        *,
        as_: Type[MadeT],
        idempotent: bool = False,
        read_only: bool = False,
        max_rows: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> Coroutine[Any, Any, ScatterResult[List[MadeT], MadeT]]: ...

    def query(
        self,
        sql: str,
        params: Params = None,
        *,
        as_: Optional[Type[Any]] = None,
        idempotent: bool = False,
        read_only: bool = False,
        max_rows: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> Any:
        """Return the rows of a query on each shard; see ``Target.query``.

        Args:
            sql: The statement.
            params: Its parameters.
            as_: The row type; a shard whose rows do not match has failed.
            idempotent: It may be sent again after a lost connection.
            read_only: It is declared to be a read.
            max_rows: More rows of one shard are an error.
            timeout: Seconds for each shard.

        Raises:
            ScatterError: Too few shards succeeded.
        """
        return self._run(
            self._shards.call(
                lambda params: verbs.reading(
                    sql,
                    params,
                    as_,
                    idempotent=idempotent,
                    read_only=read_only,
                    max_rows=max_rows,
                ),
                params,
                lambda results: verbs.rows_of(results[0], as_),
                timeout,
            )
        )

    @overload
    def query_one(
        self,
        sql: str,
        params: Params = None,
        *,
        strict: bool = False,
        idempotent: bool = False,
        read_only: bool = False,
        timeout: Optional[float] = None,
    ) -> RowR: ...

    @overload
    def query_one(
        self: InThreads,
        sql: str,
        params: Params = None,
        *,
        as_: Type[MadeT],
        strict: bool = False,
        idempotent: bool = False,
        read_only: bool = False,
        timeout: Optional[float] = None,
    ) -> ScatterResult[Optional[MadeT]]: ...

    @overload
    def query_one(
        self: InTasks,
        sql: str,
        params: Params = None,
        *,
        as_: Type[MadeT],
        strict: bool = False,
        idempotent: bool = False,
        read_only: bool = False,
        timeout: Optional[float] = None,
    ) -> Coroutine[Any, Any, ScatterResult[Optional[MadeT]]]: ...

    def query_one(
        self,
        sql: str,
        params: Params = None,
        *,
        as_: Optional[Type[Any]] = None,
        strict: bool = False,
        idempotent: bool = False,
        read_only: bool = False,
        timeout: Optional[float] = None,
    ) -> Any:
        """Return the first row on each shard, or None; see ``Target.query_one``.

        Args:
            sql: The statement.
            params: Its parameters.
            as_: The row type; a shard whose row does not match has failed.
            strict: A shard with more than one row has failed.
            idempotent: It may be sent again after a lost connection.
            read_only: It is declared to be a read.
            timeout: Seconds for each shard.

        Raises:
            ScatterError: Too few shards succeeded.
        """
        return self._run(
            self._shards.call(
                lambda params: verbs.reading(
                    sql, params, as_, idempotent=idempotent, read_only=read_only
                ),
                params,
                lambda results: verbs.first_row(results[0], as_, strict=strict),
                timeout,
            )
        )

    def query_value(
        self,
        sql: str,
        params: Params = None,
        *,
        idempotent: bool = False,
        read_only: bool = False,
        timeout: Optional[float] = None,
    ) -> ValueR:
        """Return the first column of the first row on each shard, or None; see
        ``Target.query_value``.

        Args:
            sql: The statement.
            params: Its parameters.
            idempotent: It may be sent again after a lost connection.
            read_only: It is declared to be a read.
            timeout: Seconds for each shard.

        Raises:
            ScatterError: Too few shards succeeded.

        Example:
            >>> sum(db.shards().query_value("SELECT COUNT(*) FROM trades").values)
            3
        """
        return self._run(
            self._shards.call(
                lambda params: verbs.reading(
                    sql, params, idempotent=idempotent, read_only=read_only
                ),
                params,
                lambda results: verbs.first_value(results[0]),
                timeout,
            )
        )

    def query_column(
        self,
        sql: str,
        params: Params = None,
        *,
        idempotent: bool = False,
        read_only: bool = False,
        max_rows: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> ColumnR:
        """Return the values of the first column on each shard; see
        ``Target.query_column``.

        Args:
            sql: The statement.
            params: Its parameters.
            idempotent: It may be sent again after a lost connection.
            read_only: It is declared to be a read.
            max_rows: More rows of one shard are an error.
            timeout: Seconds for each shard.

        Raises:
            ScatterError: Too few shards succeeded.
        """
        return self._run(
            self._shards.call(
                lambda params: verbs.reading(
                    sql, params, idempotent=idempotent, read_only=read_only, max_rows=max_rows
                ),
                params,
                lambda results: verbs.first_column(results[0]),
                timeout,
            )
        )


class ScatterWrites(_ShardCalls, Generic[CountR]):
    """The verbs that return numbers of rows of each shard."""

    def execute(
        self,
        sql: str,
        params: Params = None,
        *,
        idempotent: bool = False,
        timeout: Optional[float] = None,
    ) -> CountR:
        """Return the number of affected rows on each shard; see ``Target.execute``.

        Each shard commits separately: if one fails, the others are not rolled back.

        Args:
            sql: The statement.
            params: Its parameters.
            idempotent: It may be sent again after a lost connection.
            timeout: Seconds for each shard.

        Raises:
            ScatterError: Too few shards succeeded.
        """
        return self._run(
            self._shards.call(
                lambda params: Statement(sql, params, idempotent=idempotent),
                params,
                lambda results: row_count(results[0]),
                timeout,
            )
        )


class ScatterCalls(_ShardCalls, Generic[CallR]):
    """Procedure calls on each shard."""

    def call(
        self,
        procedure: str,
        params: Sequence[Any] = (),
        *,
        idempotent: bool = False,
        read_only: bool = False,
        timeout: Optional[float] = None,
    ) -> CallR:
        """Return the CallResult of a procedure on each shard; see ``Target.call``.

        Not available for ``db.keys()``.

        Args:
            procedure: Its name.
            params: Its parameters.
            idempotent: It may be called twice.
            read_only: It is declared to be a read.
            timeout: Seconds for each shard.

        Raises:
            ScatterError: Too few shards succeeded.
        """

        def make(keys: object) -> Call:
            if keys is not None:
                raise errors.ParameterError(
                    "db.keys() cannot call a procedure: use db.shards([...])"
                )
            return Call(procedure, params, idempotent=idempotent, read_only=read_only)

        return self._run(self._shards.call(make, None, as_it_is, timeout))


class BaseScatter(_ShardCalls, Generic[TotalsR, MergeT]):
    """Several shards as one target: ``db.shards()`` for all that are in the table and
    not inactive, ``db.shards([1, 3])`` for some.

    A call runs on all of them concurrently, ``max_concurrency`` at most. If one fails,
    a ScatterError has the results of the others; with ``on_error="partial"``, or if
    ``min_ok`` of them succeeded, the results are returned, with the errors beside them.
    A shard that is suspended or unreachable is such an error, and never left out.
    These calls cannot be part of a transaction on a shard. For a transaction on
    several shards see ``transaction``.
    """

    def __init__(
        self,
        routes: Callable[[], Routes],
        check: Callable[[], None],
        policy: Policy,
        *,
        keys: Optional[Keys] = None,
    ) -> None:
        self._shards = self._shards_class(routes, check, policy, keys)

    #: How its calls are made.
    _shards_class: Callable[..., Shards] = Shards

    #: The implementation's merge; see ``BaseMerge``.
    _merge_class: Callable[..., MergeT]

    def merge(
        self,
        sql: str,
        params: Params = None,
        *,
        order_by: Union[str, Sequence[str]],
        limit: Optional[int] = None,
        timeout: Optional[float] = None,
        read_only: bool = False,
    ) -> MergeT:
        """Return the rows of a query on all shards as one sorted stream.

        The order is that of a single server that has all the rows; rows that compare
        equal come in the order of their shard ids.

        Each shard sorts its rows and sends them as they are needed. The stream holds
        one row of each shard at a time. Nothing is sent before the first row is
        requested. From then on the stream holds a connection to each shard, until it
        ends or the loop is left. A server closes a connection whose rows are not read
        for longer than its ``net_write_timeout``.

        The query runs on each shard separately: a GROUP BY, DISTINCT, UNION or window
        function in it applies to the rows of one shard.

        Args:
            sql: A query without LIMIT or ORDER BY, whose columns have distinct names.
            params: As for ``query``.
            order_by: Columns of the result, by name: ``"-px, id"``, ``"px DESC, id"``
                or a list of such; a name in backticks may have any characters. Texts
                compare by the collation of their column, and NULL comes first. Texts
                that are equal up to the server's ``max_sort_length`` come in any order,
                as on one server.
            limit: The most rows, in all and of each shard; None for all.
            timeout: Seconds for the whole loop.
            read_only: As for ``query``.

        Returns:
            A stream of dicts, for ``for`` or ``async for``.

        Raises:
            ParameterError: (at once) The query has a LIMIT or ORDER BY, or is no query;
                (with the first row) a column is not in the result, or the order of its
                type is not supported, as of JSON or UUID.
            ScatterError: (with a row) A shard is suspended, unreachable, or failed.
                With ``on_error="partial"`` one that fails before its first row is left
                out; its error is in the stream's ``errors``.
            InterfaceError: (with a row) A column's type or collation is not the same on
                all shards.

        Example:
            >>> for row in db.shards().merge(
            ...     "SELECT id, px FROM trades", order_by="-px, id", limit=10
            ... ):
            ...     print(row)
            {'id': 7, 'px': Decimal('12.50')}
        """
        self._shards.refuse_keys()
        query = (subquery.body(sql), params, read_only)
        return self._merge_class(
            self._shards,
            query,
            merge.ordered(order_by, what="order_by"),
            merge.most(limit),
            deadlines.deadline_after(timeout),
        )

    def aggregate(
        self,
        sql: str,
        params: Params = None,
        *,
        group_by: Union[str, Sequence[str]] = (),
        timeout: Optional[float] = None,
        read_only: bool = False,
        **aggregates: Aggregate,
    ) -> TotalsR:
        """Compute counts, sums, averages and extremes over the rows of all shards.

        The results, and their types, are those of a single server that has all the
        rows: of ``SELECT symbol, COUNT(*) AS n, ... FROM (...) AS q GROUP BY symbol
        ORDER BY symbol`` for the example. Each shard sends one row for each group.

        Floating point sums may differ in their last digits. So may sums of an exact
        expression that divides, because the number of digits that a server keeps
        depends on its query plan: ROUND it.

        Args:
            sql: A query without LIMIT or ORDER BY, which runs on each shard separately;
                see ``merge``.
            params: As for ``query``.
            group_by: Columns of its result, a str with commas or a list. Without any
                there is one group, even of no rows.
            timeout: Seconds for both rounds of queries.
            read_only: As for ``query``.
            aggregates: The aggregates, by their names in the result: Count, Sum, Avg,
                Min and Max of an expression over the columns.

        Returns:
            A list of dicts, sorted by the values of ``group_by``.

        Raises:
            ParameterError: As for ``merge``; also with ``on_error="partial"``, because
                a total of some shards would be wrong.
            ScatterError: A shard is suspended, unreachable, or failed.
            InterfaceError: A type or collation is not the same on all shards.

        Example:
            >>> db.shards().aggregate(
            ...     "SELECT * FROM trades", group_by="symbol", n=Count(), mean=Avg("px")
            ... )
            [{'symbol': 'ABC', 'n': 3, 'mean': Decimal('12.500000')}]
        """
        self._shards.refuse_keys()
        if self._shards.policy.takes_parts:
            raise errors.ParameterError(
                'a total of some shards is not the total: aggregate has no on_error="partial" '
                "and no min_ok"
            )
        asked = AggregateQuery((subquery.body(sql), params, read_only), group_by, aggregates)
        return self._run(
            asked.plan(self._shards.ask, None if timeout is None else deadlines.seconds(timeout))
        )


def shards_of(scatter: BaseScatter[Any, Any]) -> Shards:
    """Return the shards of a target, and how calls to them are made."""
    return scatter._shards


class ReadableScatter(BaseScatter[TotalsR, MergeT], Generic[TotalsR, MergeT, ReaderT]):
    """Several shards whose reads may go to replicas."""

    #: The implementation's reader; see ``BaseScatterReader``.
    _reader_class: Callable[..., ReaderT]

    @property
    def read(self) -> ReaderT:
        """The same shards for reads alone, which the replicas of each serve.

        A statement that is not known to be a read is refused before anything is sent
        (ReadOnlyTargetError). On each shard it is as ``read`` of ``db.shard()``: which
        replica serves it, what it sees inside ``db.causal()``, and the primary while
        the shard has no replica in the rotation.

        Example:
            >>> db.shards().read.query_value("SELECT COUNT(*) FROM trades").values
            [2, 1]
        """
        shards = self._shards
        return self._reader_class(shards.routes, shards.check, shards.policy, keys=shards.keys)


class BaseScatterReader(BaseScatter[TotalsR, MergeT]):
    """Several shards for reads alone, which their replicas serve: ``db.shards().read``.

    It has the verbs of ``db.shards()`` that read; procedures must be declared
    ``read_only``.
    """

    _shards_class = ReadShards
