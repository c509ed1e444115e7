"""How calls to several shards are made. A result never silently lacks a shard."""

import time
from functools import partial
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Literal,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from .. import deadlines, errors
from ..api.identity import database_name
from ..api.reading import ReadRoute
from ..blocks import current_place
from ..execution import execute, observed, steps
from ..execution.alongside import Completion
from ..execution.detached import DetachedRoute
from ..observability.observers import Observers
from ..observability.query_call import ObservedCall
from ..protocol.statements import Call, Statement
from ..results import ScatterResult
from ..sql.parameters import names

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


class Shards:
    """Several shards, and how calls to them are made.

    Args:
        routes: Returns the routes to the shards.
        check: Refuses a call that would leave the caller's transaction.
        policy: The options.
        keys: The keys of each shard, of a target by keys.

    Attributes:
        routes: As given.
        check: As given.
        policy: As given.
        keys: As given.
    """

    def __init__(
        self,
        routes: Callable[[], Routes],
        check: Callable[[], None],
        policy: Policy,
        keys: Optional[Keys] = None,
    ) -> None:
        self.routes = routes
        self.check = check
        self.policy = policy
        self.keys = keys

    def reading(self, route: steps.Route) -> steps.Route:
        """Return the route of a call to a shard, of that to its primary."""
        return route

    def check_statement(self, statement: Union[Statement, Call]) -> None:
        """Refuse a statement that may be sent to none of the shards."""

    def refuse_keys(self) -> None:
        """Refuse what cannot be done by keys.

        Raises:
            ParameterError: The shards are those of keys.
        """
        if self.keys is not None:
            raise errors.ParameterError("db.keys() cannot merge or aggregate: use db.shards([...])")

    def named_routes(self) -> Routes:
        """The routes of the shards, for a transaction on them."""
        if self.keys is not None:
            raise errors.ParameterError(
                "db.keys() has no transaction: use db.shards([...])"
            ).with_context(None, sent=False)
        return self.routes()

    def call(
        self,
        make: Callable[[Any], Any],
        params: object,
        value: Callable[[Any], Any],
        timeout: Optional[float] = None,
        *,
        until: Optional[float] = None,
        routes: Optional[Routes] = None,
    ) -> steps.Plan[ScatterResult[Any, Any]]:
        """Send a statement to each shard.

        Args:
            make: Makes the statement of its parameters.
            params: As the caller gave them.
            value: Makes a shard's part of the result of its result sets.
            timeout: Seconds for each shard.
            until: The deadline of all of them, by time.monotonic().
            routes: The routes to the shards, if they are known.
        """
        # All statements are bound before one is sent, even without keys, so that
        # invalid arguments are always detected.
        whole = make(params) if self.keys is None else _with_keys(make, params, ())
        self.check_statement(whole)
        keys = {} if self.keys is None else self.keys
        if callable(keys):
            self.check()
            keys, routes = yield from keys()
        own = {shard_id: _with_keys(make, params, each) for shard_id, each in keys.items()}
        self.check()
        # the steps may run in threads that are not inside the block
        block = deadlines.deadline_after() if until is None else until
        limit = deadlines.earliest(block, deadlines.deadline_after(timeout))
        found: Dict[int, steps.Executor] = {}
        waiting: Dict[int, steps.Plan[steps.Executor]] = {}
        failed: Dict[int, errors.Error] = {}
        for shard_id, route in (self.routes() if routes is None else routes).items():
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
                route = self.reading(steps.fixed_route(executor))
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
                    tuple([steps.RunPlan(call) for call in calls]), self.policy.max_concurrency
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
        result: ScatterResult[Any, Any]
        result = yield from observed.observe(observers, call, call_shards(call))
        return result

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
        self.policy.check(result, len(answered))
        return result

    def ask(
        self, statement: Statement, until: Optional[float], routes: Optional[Routes] = None
    ) -> steps.Plan[ScatterResult[Any, Any]]:
        """Return the results of a statement on each shard, before ``until``; the
        ParameterError of one is raised unchanged.
        """
        try:
            result = yield from self.call(
                lambda params: statement, None, as_it_is, until=until, routes=routes
            )
        except errors.ScatterError as error:
            result = error.result
            if not any(isinstance(each, errors.ParameterError) for each in result.errors.values()):
                raise
        for each in result.errors.values():
            if isinstance(each, errors.ParameterError):
                raise each
        return result


class ReadShards(Shards):
    """Several shards for reads alone, which their replicas serve."""

    def reading(self, route: steps.Route) -> steps.Route:
        """Return the route to the shard's replicas."""
        return ReadRoute(route)

    def check_statement(self, statement: Union[Statement, Call]) -> None:
        """Refuse what is not known to be a read.

        Raises:
            ReadOnlyTargetError: The statement is not.
        """
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


def as_it_is(result: object) -> Any:
    """Return a shard's results unchanged."""
    return result
