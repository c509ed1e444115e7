"""Which tenants move where, so that each shard has its share: a plan, and its moves.

The plan is a function of what was counted: the same figures give the same plan. It
moves from the shards that have too much to those that have too little, the tenant that
fits best first, so that few move.
"""

import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from .. import deadlines, errors
from ..execution import steps
from ..sql.identifiers import quoted
from . import jobs, move
from .keys import shards_of
from .places import Databases, Session
from .reports import (
    Job,
    JobState,
    JobStep,
    PlannedMove,
    RebalancePlan,
    RebalanceReport,
    TenantTable,
)
from .rollout import notify
from .tenant import checked

KIND = "rebalance"

#: Steps of a move after which the lease of the whole is renewed. The first two of each
#: time take the move over.
MOVE_STEPS = 5

#: What a plan is made by.
MEASURES = ("rows", "bytes", "load", "tenants")


class Tenant(NamedTuple):
    """A tenant, as far as it weighs on its shard."""

    key: Any
    shard_id: int
    size: float


def plan(
    tenants: Sequence[Tenant],
    weights: Mapping[int, float],
    *,
    pins: Optional[Mapping[Any, int]] = None,
    tolerance: float = 0.05,
    max_moves: Optional[int] = None,
) -> List[PlannedMove]:
    """The moves that give each shard its share, as few as are found.

    Args:
        tenants: All tenants of the shards.
        weights: The share of each shard; 0 for one that is to have no tenants.
        pins: Where tenants must be, whatever that does to the shares.
        tolerance: How far a shard may be from its share, as a part of it.
        max_moves: At most so many; the most useful first.

    Raises:
        ParameterError: A weight is wrong, or a pin names a shard without one.
    """
    pins = pins or {}
    _check(weights, pins, tolerance)
    state = _Balance(tenants, weights, pins, tolerance)
    state.move_pinned()
    state.drain()
    state.even_out()
    return state.moves if max_moves is None else state.moves[:max_moves]


def _check(weights: Mapping[int, float], pins: Mapping[Any, int], tolerance: float) -> None:
    for shard_id, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or weight < 0:
            raise errors.ParameterError(f"the weight of shard {shard_id} is {weight!r}")
    if not any(weights.values()):
        raise errors.ParameterError("no shard has a weight above 0")
    if not 0 <= tolerance < 1:
        raise errors.ParameterError(f"tolerance is from 0 to 1, not {tolerance!r}")
    for key, shard_id in pins.items():
        if shard_id not in weights:
            raise errors.ParameterError(f"the key {key!r} is pinned to shard {shard_id}, which "
                                        "is not one of the shards")  # fmt: skip


class _Balance:
    """What each shard would have after the moves that were chosen."""

    def __init__(
        self,
        tenants: Sequence[Tenant],
        weights: Mapping[int, float],
        pins: Mapping[Any, int],
        tolerance: float,
    ) -> None:
        self.moves: List[PlannedMove] = []
        self._pins = pins
        self._weights = weights
        self._left: Dict[int, List[Tenant]] = {shard_id: [] for shard_id in sorted(weights)}
        self._sizes: Dict[int, float] = dict.fromkeys(sorted(weights), 0.0)
        for each in sorted(tenants, key=lambda tenant: (-tenant.size, str(tenant.key))):
            if each.shard_id in self._left:
                self._left[each.shard_id].append(each)
                self._sizes[each.shard_id] += each.size
        total = sum(self._sizes.values())
        shares = sum(weights.values())
        self._goals = {shard_id: total * weights[shard_id] / shares for shard_id in self._sizes}
        self._slack = {shard_id: goal * tolerance for shard_id, goal in self._goals.items()}

    def _excess(self, shard_id: int) -> float:
        return self._sizes[shard_id] - self._goals[shard_id]

    def _move(self, tenant: Tenant, target: int) -> None:
        self.moves.append(PlannedMove(tenant.key, tenant.shard_id, target, tenant.size))
        self._left[tenant.shard_id].remove(tenant)
        self._sizes[tenant.shard_id] -= tenant.size
        self._sizes[target] += tenant.size

    def _emptiest(self) -> int:
        """The shard that lacks most of its share."""
        able = [shard_id for shard_id in self._sizes if self._weights[shard_id]]
        return min(able, key=lambda shard_id: (self._excess(shard_id), shard_id))

    def move_pinned(self) -> None:
        """Move tenants to where they are pinned; they stay there."""
        for shard_id in self._left:
            for each in list(self._left[shard_id]):
                if each.key in self._pins and self._pins[each.key] != shard_id:
                    self._move(each, self._pins[each.key])

    def drain(self) -> None:
        """Move all tenants from shards that are to have none, the largest first."""
        for shard_id in self._left:
            if not self._weights[shard_id]:
                for each in list(self._left[shard_id]):
                    if each.key not in self._pins:
                        self._move(each, self._emptiest())

    def even_out(self) -> None:
        """Move from the fullest shard to the emptiest one while that helps."""
        while True:
            source = max(self._sizes, key=lambda shard_id: (self._excess(shard_id), -shard_id))
            target = self._emptiest()
            surplus = self._excess(source)
            room = -self._excess(target)
            if surplus <= self._slack[source] and room <= self._slack[target]:
                return
            found = self._best(source, min(surplus, room))
            if found is None:
                return
            self._move(found, target)

    def _best(self, source: int, wanted: float) -> Optional[Tenant]:
        """The tenant whose move leaves the least to do: the largest that fits, or the
        smallest one that overshoots by less than it helps.
        """
        free = [each for each in self._left[source] if each.key not in self._pins and each.size > 0]
        helps = [each for each in free if abs(wanted - each.size) < wanted]
        if not helps:
            return None
        return min(helps, key=lambda each: (abs(wanted - each.size), str(each.key)))


# Counting.


class PlanOptions(NamedTuple):
    """The arguments of ``rebalance_plan``."""

    by: str
    tables: Tuple[TenantTable, ...]
    weights: Optional[Mapping[int, float]]
    pins: Optional[Mapping[Any, int]]
    shards: Any
    drain: Sequence[int]
    load: Optional[Mapping[Any, float]]
    tolerance: float
    max_moves: Optional[int]


def make_plan(databases: Databases, options: PlanOptions) -> steps.Plan[RebalancePlan]:
    """Count, and plan; see ``Operations.rebalance_plan``."""
    if options.by not in MEASURES:
        raise errors.ParameterError(f"by is one of {', '.join(MEASURES)}, not {options.by!r}")
    if options.by == "load" and options.load is None:
        raise errors.ParameterError("by='load' needs load, a mapping from key to load")
    places = [place for place in databases.chosen(options.shards) if place.shard_id is not None]
    weights = _weights(databases, [place.shard_id or 0 for place in places], options)
    sizes: Dict[Any, float] = {}
    for place in places:

        def count(session: Session) -> steps.Plan[Dict[Any, float]]:
            return _sizes(session, options)

        for key, size in (yield from databases.session(place, count)).items():
            sizes[key] = sizes.get(key, 0.0) + size
    directory = databases.internals.directory
    if directory is not None:  # also those that have no rows leave a drained shard
        for key in (yield from directory.keys_on(options.drain)):
            sizes.setdefault(key, 0.0)
    known = yield from shards_of(databases.service, list(sizes), fresh=True)
    tenants = [
        Tenant(key, shard_id, _size(options, key, sizes[key]))
        for key, shard_id in known.items()
        if shard_id is not None and shard_id in weights
    ]
    moves = plan(
        tenants, weights, pins=options.pins, tolerance=options.tolerance,
        max_moves=options.max_moves,
    )  # fmt: skip
    before = dict.fromkeys(weights, 0.0)
    for each in tenants:
        before[each.shard_id] += each.size
    after = dict(before)
    for planned in moves:
        after[planned.source] -= planned.size
        after[planned.target] += planned.size
    return RebalancePlan(options.by, tuple(moves), before, after)


def _size(options: PlanOptions, key: object, counted: float) -> float:
    if options.by == "tenants":
        return 1.0
    if options.by == "load":
        return float((options.load or {}).get(key, 0.0))
    return counted


def _weights(databases: Databases, shard_ids: List[int], options: PlanOptions) -> Dict[int, float]:
    known = databases.internals.lifecycle.require_open().shard_map.shards
    weights = {shard_id: float(known[shard_id].weight) for shard_id in shard_ids}
    for shard_id, weight in (options.weights or {}).items():
        if shard_id not in weights:
            raise errors.ParameterError(f"shard {shard_id} is not one of the shards")
        weights[shard_id] = weight
    for shard_id in options.drain:
        if shard_id not in weights:
            raise errors.ParameterError(f"shard {shard_id} is not one of the shards")
        weights[shard_id] = 0.0
    return weights


def _sizes(session: Session, options: PlanOptions) -> steps.Plan[Dict[Any, float]]:
    """How much of the tables of a shard each key has."""
    described = {each.name: each for each in checked(options.tables, 1)}
    sizes: Dict[Any, float] = {}
    for table in options.tables:
        if table.on != "shard" or described[table.name].key_column is None:
            continue  # rows of a parent are not counted apart from it
        column = quoted(table.key_column or "")
        factor = 1.0
        if options.by == "bytes":
            rows = yield from session.query(
                "SELECT (DATA_LENGTH + INDEX_LENGTH) / GREATEST(TABLE_ROWS, 1) AS b FROM "
                "information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s",
                (table.name,),
            )
            factor = float(rows[0]["b"] or 1.0) if rows else 1.0
        counted = yield from session.query(
            f"SELECT {column} AS k, COUNT(*) AS n FROM {quoted(table.name)} "
            f"WHERE {column} IS NOT NULL GROUP BY {column}"
        )
        for row in counted:
            sizes[row["k"]] = sizes.get(row["k"], 0.0) + row["n"] * factor
    return sizes


# Carrying it out.


class ApplyOptions(NamedTuple):
    """The arguments of ``rebalance_apply``."""

    name: str
    tables: Tuple[TenantTable, ...]
    max_moves_per_hour: Optional[float]
    settle: Optional[float]
    throttle: float
    max_threads_running: Optional[int]
    max_lag: Optional[float]
    lease: float
    wait: jobs.Wait
    dry_run: bool
    progress: Optional[Callable[[Job], object]]


def apply_plan(
    databases: Databases, planned: RebalancePlan, options: ApplyOptions
) -> steps.Plan[RebalanceReport]:
    """Carry a plan out; see ``Operations.rebalance_apply``."""
    hourly = options.max_moves_per_hour
    if hourly is not None and (isinstance(hourly, bool) or hourly <= 0):
        raise errors.ParameterError(f"max_moves_per_hour is a number above 0, not {hourly!r}")
    deadlines.seconds(options.throttle)
    move.check_settle(move.lookup_table(databases), options.settle)
    known = yield from jobs.get(databases, options.name)
    is_over = known is not None and known.state is JobState.DONE
    params = [[each.key, each.source, each.target] for each in planned.moves]
    if options.dry_run:
        return (yield from _planned(databases, params, None if is_over else known, options))
    if is_over:
        yield from jobs.delete(databases, options.name, dry_run=False)
    moved: List[Any] = []
    skipped: List[Any] = []

    def step(job: Job) -> steps.Plan[JobStep]:
        yield from notify(options.progress, job)
        position: Dict[str, Any] = dict(job.position or {"next": 0, "at": 0.0})
        todo = job.params
        if position["next"] >= len(todo):
            return JobStep(None, total=len(todo))
        wait = position["at"] - time.time()
        if wait > 0:
            yield steps.Sleep(min(wait, options.lease / 3))
            return JobStep(position, total=len(todo), message=f"the next move in {wait:.0f} s")
        key, source, target = todo[position["next"]]
        began = position.setdefault("began", time.time())
        done = yield from _one(databases, key, source, target, options)
        if done is None:
            return JobStep(position, total=len(todo), message=f"moving {key}")
        (moved if done else skipped).append(key)
        at = began + 3600.0 / hourly if hourly is not None and done else 0.0
        following = {"next": position["next"] + 1, "at": at}
        message = f"{key}: shard {source} to {target}" if done else f"{key} is not on {source}"
        return JobStep(
            following if following["next"] < len(todo) else None,
            done=1,
            total=len(todo),
            message=message,
        )

    job = yield from jobs.run(
        databases,
        options.name,
        step,
        jobs.Options(KIND, params, options.lease, options.wait, None, None),
        is_plan=True,
    )
    return RebalanceReport(options.name, job.state.value, tuple(moved), tuple(skipped), job.done)


def _planned(
    databases: Databases, params: List[Any], under_way: Optional[Job], options: ApplyOptions
) -> steps.Plan[RebalanceReport]:
    """What would be done. Of the moves between two shards the first is checked."""
    first = 0
    if under_way is not None:
        jobs.require_free(under_way, options.wait)
        first = (under_way.position or {"next": 0})["next"]
        params = under_way.params
    moves_under_way = yield from jobs.list_jobs(databases, None, move.KIND)
    begun = {each.name for each in moves_under_way if each.state is not JobState.DONE}
    todo = params[first:]
    where = yield from shards_of(databases.service, [key for key, _, _ in todo], fresh=True)
    moved: List[Any] = []
    skipped: List[Any] = []
    checked: Set[Tuple[int, int]] = set()
    for key, source, target in todo:
        if where[key] != source and move.job_name(key) not in begun:
            skipped.append(key)
            continue
        moved.append(key)
        if (source, target) not in checked:
            checked.add((source, target))
            first_of_them = move.Options(options.tables, wait=options.wait, dry_run=True)
            yield from move.run(databases, key, target, first_of_them)
    state = "new" if under_way is None else under_way.state.value
    return RebalanceReport(options.name, state, tuple(moved), tuple(skipped), first, dry_run=True)


def _one(
    databases: Databases, key: object, source: int, target: int, options: ApplyOptions
) -> steps.Plan[Optional[bool]]:
    """Do some steps of a move. Gives True when it is over, None before, and False for a
    tenant that is elsewhere.
    """
    known = yield from jobs.get(databases, move.job_name(key))
    is_over = known is None or known.state is JobState.DONE
    where = (yield from shards_of(databases.service, [key], fresh=True))[key]
    if is_over and where != source:
        return False
    found = yield from move.run(
        databases,
        key,
        target,
        move.Options(
            options.tables, throttle=options.throttle, settle=options.settle,
            max_threads_running=options.max_threads_running, max_lag=options.max_lag,
            max_steps=MOVE_STEPS, lease=max(5.0, options.lease / 4), wait=options.wait,
        ),
    )  # fmt: skip
    if found.state == "paused":
        raise move.MoveError(f"the move of {key!r} is paused at: {found.step}")
    return True if found.ok else None
