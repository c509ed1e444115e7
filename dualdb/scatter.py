"""The same call to several shards at once, and what came of it: nothing is ever silently short."""

import time
from abc import ABC, abstractmethod
from typing import Any, Callable, Dict, Generic, List, Literal, Mapping, NamedTuple, Optional, Sequence

from . import deadlines, errors, plans
from .results import Row, RowCount
from .shapes import ScatterR
from .sql import Params, names
from .statements import Call, Statement

#: What becomes of a scatter of which a part has failed: a ScatterError, or the rest with the errors beside it.
OnError = Literal["raise", "partial"]


class ScatterResult(NamedTuple):
    """What several shards gave.

    Attributes:
        by_shard: by shard id: the rows of a query, a RowCount, a CallResult; of the shards that answered.
        errors: by shard id, of the others.
    """

    by_shard: Mapping[int, Any]
    errors: Mapping[int, errors.Error]

    @property
    def rows(self) -> List[Row]:
        """The rows of all shards that answered, one shard after the other by their ids."""
        return [row for shard_id in sorted(self.by_shard) for row in getattr(self.by_shard[shard_id], "rows", self.by_shard[shard_id])]


class BaseScatter(ABC, Generic[ScatterR]):
    """Several shards as one target: ``db.shards()`` for all that are in the table and not inactive, ``db.shards([1, 3])`` for some.

    A call is made on all of them at the same time, ``at_once`` at most. Where one fails, a ScatterError carries what the others gave;
    with ``on_error="partial"`` they are given, with the errors beside them. A shard that is suspended or cannot be reached is such an
    error, and never left out. There is no transaction over several shards, and none of these calls is taken inside one.
    """

    def __init__(
        self,
        routes: Callable[[], Mapping[int, plans.Route]],
        check: Callable[[], None],
        on_error: OnError,
        at_once: int,
        *,
        keys: Optional[Mapping[int, Sequence[Any]]] = None,
    ) -> None:
        self._routes, self._check, self._on_error, self._at_once, self._keys = routes, check, on_error, at_once, keys

    @abstractmethod
    def _run(self, plan: plans.Plan[Any]) -> Any:
        """Perform a plan the colour's way: its result, or a coroutine of it."""

    def query(
        self, sql: str, params: Params = None, *, idempotent: bool = False, read_only: bool = False, timeout: Optional[float] = None
    ) -> ScatterR:
        """The rows of a query on each; see ``Target.query``. The timeout is each shard's own."""
        return self._run(
            self._plan(lambda params: Statement(sql, params, idempotent=idempotent, read_only=read_only), params, _rows, timeout)
        )

    def execute(self, sql: str, params: Params = None, *, idempotent: bool = False, timeout: Optional[float] = None) -> ScatterR:
        """The affected rows on each; see ``Target.execute``. Each shard commits by itself: where one fails, the others are not undone."""
        return self._run(self._plan(lambda params: Statement(sql, params, idempotent=idempotent), params, _count, timeout))

    def call(
        self,
        procedure: str,
        params: Sequence[Any] = (),
        *,
        idempotent: bool = False,
        read_only: bool = False,
        timeout: Optional[float] = None,
    ) -> ScatterR:
        """A procedure's CallResult on each; see ``Target.call``. Not of ``db.keys()``."""

        def make(keys: Any) -> Call:
            if keys is not None:
                raise errors.ParameterError("a procedure is not called by keys: call it on their shards, db.shards([...])")
            return Call(procedure, params, idempotent=idempotent, read_only=read_only)

        return self._run(self._plan(make, None, _whole, timeout))

    def _plan(
        self, make: Callable[[Any], Any], params: Any, value: Callable[[Any], Any], timeout: Optional[float]
    ) -> plans.Plan[ScatterResult]:
        # All are bound before any is sent; those of no keys at all too, for what is wrong with them.
        whole = make(params) if self._keys is None else _with_keys(make, params, ())
        own = {shard_id: _with_keys(make, params, keys) for shard_id, keys in (self._keys or {}).items()}
        self._check()
        found: Dict[int, Any] = {}
        answered: Dict[int, Any] = {}
        failed: Dict[int, errors.Error] = {}
        for shard_id, route in self._routes().items():
            try:
                found[shard_id] = yield from plans.find(route)
            except errors.Error as error:
                failed[shard_id] = error
        block = deadlines.until()  # the steps may be performed by threads that are in no block
        steps = tuple([plans.Perform(_there(place, own.get(shard_id, whole), timeout, block)) for shard_id, place in found.items()])
        outcomes = yield plans.Gather(steps, self._at_once)
        for shard_id, outcome in zip(found, outcomes):
            if isinstance(outcome, errors.Error):
                failed[shard_id] = outcome
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                answered[shard_id] = value(outcome)
        result = ScatterResult(answered, failed)
        if failed and self._on_error == "raise":
            raise _error(result)
        return result


def _error(result: ScatterResult) -> errors.ScatterError:
    failed = ", ".join(
        [f"shard {shard_id}: {getattr(error, 'reason', None) or error}" for shard_id, error in sorted(result.errors.items())]
    )
    error = errors.ScatterError(f"{len(result.errors)} of {len(result.errors) + len(result.by_shard)} shards failed: {failed}")
    error.result = result
    return error


def _with_keys(make: Callable[[Any], Any], params: Any, keys: Sequence[Any]) -> Any:
    """A shard's own statement, in which ``%(keys)s`` are its keys."""
    if params is not None and not isinstance(params, Mapping):
        raise errors.ParameterError(f"beside %(keys)s a statement's params are a mapping or None, not {type(params).__name__}")
    if params is not None and "keys" in params:
        raise errors.ParameterError("the parameter named 'keys' is each shard's own keys: give yours another name")
    statement = make({**(params or {}), "keys": list(keys)})
    if "keys" not in names(statement.sql):
        raise errors.ParameterError("the statement nowhere says %(keys)s, so it would not be about the keys alone")
    return statement


def _there(place: Any, statement: Any, timeout: Optional[float], block: Optional[float]) -> plans.Plan[Any]:
    if block is not None:
        left = max(0.0, block - time.monotonic())
        timeout = left if timeout is None else min(left, timeout)
    return (yield from plans.perform(lambda: place, statement, timeout))


def _rows(results: Any) -> Any:
    return results[0].rows


def _count(results: Any) -> Any:
    return RowCount(results[0].rowcount, results[0].lastrowid)


def _whole(result: Any) -> Any:
    return result
