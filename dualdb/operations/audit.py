"""Rows that are in another shard than their key belongs to."""

from typing import Any, List, NamedTuple, Optional, Tuple

from .. import deadlines, errors
from ..execution import steps
from ..sql.identifiers import quoted
from . import rollout
from .keys import shards_of
from .places import Databases, Place, Session, Shards
from .reports import AuditReport, Misplaced


class Options(NamedTuple):
    """The arguments of ``audit``."""

    table: str
    key_column: str
    shards: Shards
    where: Optional[str]
    batch_keys: int
    max_misplaced: int
    throttle: float


class _Counted(NamedTuple):
    keys: int
    rows: int
    misplaced: Tuple[Misplaced, ...]


def run(databases: Databases, options: Options) -> steps.Plan[AuditReport]:
    """Find misplaced rows; see ``Operations.audit``."""
    deadlines.seconds(options.throttle)
    if options.batch_keys < 1 or options.max_misplaced < 1:
        raise errors.ParameterError("batch_keys and max_misplaced are numbers from 1 up")
    yield from shards_of(databases.service, [])
    places = databases.chosen(options.shards)
    if any(place.shard_id is None for place in places):
        raise errors.ParameterError("the global database has no rows that belong to shards")

    def work(session: Session) -> steps.Plan[_Counted]:
        return _on_shard(databases.service, session, session.place, options)

    found = yield from databases.on_each(places, work)
    failed = {p.name: rollout.message(each) for p, each in found if isinstance(each, Exception)}
    counted = [each for _, each in found if not isinstance(each, Exception)]
    misplaced = [each for one in counted for each in one.misplaced]
    return AuditReport(
        options.table,
        options.key_column,
        sum(each.keys for each in counted),
        sum(each.rows for each in counted),
        tuple(misplaced[: options.max_misplaced]),
        failed,
    )


def _on_shard(
    service: Any, session: Session, place: Place, options: Options
) -> steps.Plan[_Counted]:
    name = quoted(options.key_column)
    table = quoted(options.table)
    where = f"({options.where})" if options.where else "TRUE"
    last: Any = None
    keys = rows = 0
    suspects: List[Any] = []
    while len(suspects) <= options.max_misplaced:
        after, params = (f"{name} > %s", [last]) if last is not None else ("TRUE", [])
        batch = yield from session.query(
            f"SELECT {name} AS k, COUNT(*) AS n FROM {table} WHERE {name} IS NOT NULL AND "
            f"{after} AND {_escaped(where)} GROUP BY {name} ORDER BY {name} LIMIT %s",
            (*params, options.batch_keys),
        )
        keys = keys + len(batch)
        rows = rows + sum(int(row["n"]) for row in batch)
        shard_ids = yield from shards_of(service, [row["k"] for row in batch])
        suspects += [row["k"] for row in batch if shard_ids[row["k"]] != place.shard_id]
        if len(batch) < options.batch_keys:
            break
        last = batch[-1]["k"]
        if options.throttle:
            yield steps.Sleep(options.throttle)
    misplaced = yield from _confirm_misplaced(service, session, suspects, options)
    keyless = yield from session.value(
        f"SELECT COUNT(*) FROM {table} WHERE {name} IS NULL AND {where}"
    )
    if keyless:
        misplaced.append(Misplaced(place.name, None, int(keyless), None))
    return _Counted(keys, rows + int(keyless), tuple(misplaced))


def _escaped(condition: str) -> str:
    """A condition in a statement that has parameters."""
    return condition.replace("%", "%%")


def _confirm_misplaced(
    service: Any, session: Session, suspects: List[Any], options: Options
) -> steps.Plan[List[Misplaced]]:
    """Those that are still there, by what the directory says now: a key may have moved
    between the first two questions.
    """
    found: List[Misplaced] = []
    if not suspects:
        return found
    where = f"({options.where})" if options.where else "TRUE"
    sql = (
        f"SELECT COUNT(*) FROM {quoted(options.table)} WHERE {quoted(options.key_column)} = %s "
        f"AND {_escaped(where)}"
    )
    shard_ids = yield from shards_of(service, suspects, fresh=True)
    for key in suspects:
        if shard_ids[key] == session.shard_id:
            continue
        rows = yield from session.value(sql, (key,))
        if rows:
            found.append(Misplaced(session.place.name, key, int(rows), shard_ids[key]))
    return found
