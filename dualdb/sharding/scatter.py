"""Calls to several shards at once. A result never silently lacks a shard."""

import time
from abc import ABC, abstractmethod
from functools import partial
from typing import (
    Any,
    Callable,
    Coroutine,
    Dict,
    Generic,
    Iterable,
    List,
    Literal,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Type,
    Union,
    overload,
)

from .. import deadlines, errors
from ..api.frames import Frames
from ..api.identity import database_name
from ..api.reading import ReadRoute
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
from ..blocks import current_place
from ..execution import execute, observed, steps, verbs
from ..execution.alongside import Completion
from ..execution.detached import DetachedRoute
from ..observability.observers import Observers
from ..observability.query_call import ObservedCall
from ..protocol.statements import Call, Statement
from ..results import ScatterResult, row_count
from ..sql.parameters import Params, names
from . import merge, subquery
from .aggregates import Aggregate, AggregateQuery

#: The handling of failed shards: raise a ScatterError, or return the other results with
#: the errors.
OnError = Literal["raise", "partial"]

Routes = Mapping[int, steps.Route]

#: The keys of each shard; or what looks them up, with the routes to their shards.
Keys = Union[
    Mapping[int, Sequence[Any]],
    Callable[[], steps.Plan[Tuple[Mapping[int, Sequence[Any]], Routes]]],
]


class Policy(NamedTuple):
    """The options of a call to several shards.

    Attributes:
        on_error: The handling of failed shards.
        max_concurrency: The most shards that are called at the same time.
        min_ok: How many shards must succeed; None for all.
    """

    on_error: OnError = "raise"
    max_concurrency: int = 16
    min_ok: Optional[int] = None

    def checked(self, named: Optional[Sequence[int]] = None) -> "Policy":
        """Validate the policy and return it.

        Args:
            named: The shards, if they are named.

        Raises:
            ParameterError: An option is invalid.
        """
        on_error, most, least = self
        if on_error not in ("raise", "partial"):
            raise errors.ParameterError(f"on_error must be 'raise' or 'partial', not {on_error!r}")
        if not isinstance(most, int) or isinstance(most, bool) or most < 1:
            raise errors.ParameterError(f"max_concurrency must be an int from 1 up, not {most!r}")
        if least is None:
            return self
        if not isinstance(least, int) or isinstance(least, bool) or least < 0:
            raise errors.ParameterError(f"min_ok is a number of shards from 0 up, not {least!r}")
        if named is not None and least > len(named):
            raise errors.ParameterError(
                f"min_ok={least} of {len(named)} shards can never be reached"
            )
        return self

    @property
    def takes_parts(self) -> bool:
        """Some shards may fail without an error."""
        return self.on_error == "partial" or self.min_ok is not None

    def check(self, result: ScatterResult[Any, Any], answered: int) -> None:
        """Check the result of a call.

        Args:
            result: The result, with the errors.
            answered: The number of shards that succeeded.

        Raises:
            ScatterError: Too few shards succeeded.
        """
        of = answered + len(result.errors)
        if self.min_ok is not None:
            if answered < self.min_ok:
                raise errors.scatter_error(result, of, self.min_ok)
        elif result.errors and self.on_error == "raise":
            raise errors.scatter_error(result, of)


class _ShardCalls(Frames, ABC):
    """A call to several shards, which the verbs are made of."""

    @abstractmethod
    def _run(self, plan: steps.Plan[Any]) -> Any:
        """Run a plan as the implementation does: its result, or a coroutine of it."""

    @abstractmethod
    def _plan(
        self,
        make: Callable[[Any], Any],
        params: object,
        value: Callable[[Any], Any],
        timeout: Optional[float] = None,
    ) -> steps.Plan[ScatterResult[Any, Any]]:
        """Send a statement to each shard.

        Args:
            make: Makes the statement of its parameters.
            params: As the caller gave them.
            value: Makes a shard's part of the result of its result sets.
            timeout: Seconds for each shard.
        """


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
            self._plan(
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
            self._plan(
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
            self._plan(
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
            self._plan(
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
            self._plan(
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

        return self._run(self._plan(make, None, _whole, timeout))


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
        self._routes = routes
        self._check = check
        self._policy = policy
        self._keys = keys

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
        self._not_by_keys()
        query = (subquery.body(sql), params, read_only)
        return self._merge_class(
            self,
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
        self._not_by_keys()
        if self._policy.takes_parts:
            raise errors.ParameterError(
                'a total of some shards is not the total: aggregate has no on_error="partial" '
                "and no min_ok"
            )
        asked = AggregateQuery((subquery.body(sql), params, read_only), group_by, aggregates)
        return self._run(
            asked.plan(self._ask, None if timeout is None else deadlines.seconds(timeout))
        )

    def _ask(
        self, statement: Statement, until: Optional[float], routes: Optional[Routes] = None
    ) -> steps.Plan[ScatterResult[Any, Any]]:
        """Return the results of a statement on each shard, before ``until``; the
        ParameterError of one is raised unchanged.
        """
        try:
            result = yield from self._plan(
                lambda params: statement, None, _whole, until=until, routes=routes
            )
        except errors.ScatterError as error:
            result = error.result
            if not any(isinstance(each, errors.ParameterError) for each in result.errors.values()):
                raise
        for each in result.errors.values():
            if isinstance(each, errors.ParameterError):
                raise each
        return result

    def _not_by_keys(self) -> None:
        if self._keys is not None:
            raise errors.ParameterError("db.keys() cannot merge or aggregate: use db.shards([...])")

    def _reading(self, route: steps.Route) -> steps.Route:
        """Return the route of a call to a shard, of that to its primary."""
        return route

    def _check_statement(self, statement: Union[Statement, Call]) -> None:
        """Refuse a statement that may be sent to none of the shards."""

    def _named_routes(self) -> Routes:
        """The routes of the shards, for a transaction on them."""
        if self._keys is not None:
            raise errors.ParameterError(
                "db.keys() has no transaction: use db.shards([...])"
            ).with_context(None, sent=False)
        return self._routes()

    def _plan(
        self,
        make: Callable[[Any], Any],
        params: object,
        value: Callable[[Any], Any],
        timeout: Optional[float] = None,
        *,
        until: Optional[float] = None,
        routes: Optional[Routes] = None,
    ) -> steps.Plan[ScatterResult[Any, Any]]:
        # All statements are bound before one is sent, even without keys, so that
        # invalid arguments are always detected.
        whole = make(params) if self._keys is None else _with_keys(make, params, ())
        self._check_statement(whole)
        keys = {} if self._keys is None else self._keys
        if callable(keys):
            self._check()
            keys, routes = yield from keys()
        own = {shard_id: _with_keys(make, params, each) for shard_id, each in keys.items()}
        self._check()
        # the steps may run in threads that are not inside the block
        block = deadlines.deadline_after() if until is None else until
        limit = deadlines.earliest(block, deadlines.deadline_after(timeout))
        found: Dict[int, steps.Executor] = {}
        waiting: Dict[int, steps.Plan[steps.Executor]] = {}
        failed: Dict[int, errors.Error] = {}
        for shard_id, route in (self._routes() if routes is None else routes).items():
            try:
                executor, later = yield from execute.begin_route(route, limit)
                if executor is not None:
                    found[shard_id] = executor
                elif later is not None:
                    waiting[shard_id] = later
            except errors.Error as error:
                failed[shard_id] = error

        def call_shards(
            parent: Optional[ObservedCall] = None,
        ) -> steps.Plan[ScatterResult[Any, Any]]:
            def run(
                shard_id: int, timeout: Optional[float], until: Optional[float], executor: Any
            ) -> steps.Plan[Any]:
                route = self._reading(steps.fixed_route(executor))
                statement = own.get(shard_id, whole)
                return _run_on_shard(route, statement, timeout, until, parent)

            given_up = Completion()
            calls = [run(shard_id, timeout, block, each) for shard_id, each in found.items()]
            # last, so that they hold up no other
            calls += [
                _run_later(later, given_up, partial(run, shard_id, None, limit))
                for shard_id, later in waiting.items()
            ]
            try:
                outcomes = yield steps.Gather(
                    tuple([steps.RunPlan(call) for call in calls]), self._policy.max_concurrency
                )
            except BaseException:
                given_up.end()
                raise
            return self._result([*found, *waiting], failed, outcomes, value)

        observers = _observers(found.values())
        if observers is None:
            return (yield from call_shards())
        call = ObservedCall("scatter", "shards", None, whole, began=time.monotonic())
        call.place = current_place()
        return (yield from observed.observe(observers, call, call_shards(call)))

    def _result(
        self,
        called: Iterable[int],
        failed: Dict[int, errors.Error],
        outcomes: Sequence[Any],
        value: Callable[[Any], Any],
    ) -> ScatterResult[Any, Any]:
        answered: Dict[int, Any] = {}
        for shard_id, outcome in zip(called, outcomes):
            if isinstance(outcome, errors.Error):
                failed[shard_id] = outcome
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                try:
                    answered[shard_id] = value(outcome)
                except errors.Error as error:  # the rows do not fit
                    failed[shard_id] = error.with_context(
                        database_name(shard_id), shard_id, sent=True
                    )
        result: ScatterResult[Any, Any] = ScatterResult(dict(sorted(answered.items())), failed)
        self._policy.check(result, len(answered))
        return result


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
        return self._reader_class(self._routes, self._check, self._policy, keys=self._keys)


class BaseScatterReader(BaseScatter[TotalsR, MergeT]):
    """Several shards for reads alone, which their replicas serve: ``db.shards().read``.

    It has the verbs of ``db.shards()`` that read; procedures must be declared
    ``read_only``.
    """

    def _reading(self, route: steps.Route) -> steps.Route:
        return ReadRoute(route)

    def _check_statement(self, statement: Union[Statement, Call]) -> None:
        if not statement.reads:
            raise errors.read_only_target("shards", None, statement.why_no_read)


def _with_keys(make: Callable[[Any], Any], params: object, keys: Sequence[Any]) -> Any:
    """Make the statement of one shard, in which ``%(keys)s`` is its keys."""
    if params is not None and not isinstance(params, Mapping):
        raise errors.ParameterError(
            f"with %(keys)s, params must be a mapping or None, not {type(params).__name__}"
        )
    if params is not None and "keys" in params:
        raise errors.ParameterError(
            "the parameter name 'keys' is reserved for the keys of each shard"
        )
    statement = make({**(params or {}), "keys": list(keys)})
    if "keys" not in names(statement.sql):
        raise errors.ParameterError(
            "the statement must use %(keys)s to select the keys of each shard"
        )
    return statement


def _run_on_shard(
    route: steps.Route,
    statement: Union[Statement, Call],
    timeout: Optional[float],
    until: Optional[float],
    parent: Optional[ObservedCall],
) -> steps.Plan[Any]:
    until = deadlines.earliest(until, deadlines.deadline_after(timeout))
    return (
        yield from execute.execute_statement(DetachedRoute(route), statement, until, parent=parent)
    )


def _run_later(
    waiting: steps.Plan[steps.Executor],
    given_up: Completion,
    run: Callable[[steps.Executor], steps.Plan[Any]],
) -> steps.Plan[Any]:
    """Run a statement on a shard that is waited for; unless the caller was interrupted
    meanwhile, while a thread waited for it.
    """
    executor = yield from waiting
    if given_up.ended:
        raise errors.InterfaceError("the call was given up").with_context(
            executor.name, executor.shard_id, sent=False
        )
    return (yield from run(executor))


def _observers(executors: Iterable[steps.Executor]) -> Optional[Observers]:
    for executor in executors:
        if executor.observers.watches_calls:
            return executor.observers
    return None


def _whole(result: object) -> Any:
    return result
