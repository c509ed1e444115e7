"""All rows of one tenant."""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from .. import deadlines, errors
from ..execution import steps
from ..results import Row
from ..sql import parameters
from ..sql.identifiers import quoted
from . import row_hashes
from .keys import shards_of
from .places import Databases, Place, Session
from .reports import TablePurge, TableRows, TenantExport, TenantPurge, TenantTable


class PurgeOptions(NamedTuple):
    """The arguments of ``tenant_purge``."""

    shard_id: Optional[int]
    chunk_rows: int
    throttle: float
    dry_run: bool


def export(
    databases: Databases, key: object, tables: Tuple[TenantTable, ...], chunk_rows: int
) -> steps.Plan[TenantExport]:
    """Read a tenant's rows; see ``Operations.tenant_export``."""
    tables = checked(tables, chunk_rows)
    places = yield from _places(databases, key, tables, None)
    found: List[TableRows] = []
    for on, place in places.items():

        def work(session: Session, on: str = on) -> steps.Plan[List[TableRows]]:
            return _read(session, key, [each for each in tables if each.on == on], chunk_rows)

        found += yield from databases.session(place, work)
    shard = places.get("shard")
    return TenantExport(key, None if shard is None else shard.shard_id, tuple(found))


def purge(
    databases: Databases, key: object, tables: Tuple[TenantTable, ...], options: PurgeOptions
) -> steps.Plan[TenantPurge]:
    """Delete a tenant's rows; see ``Operations.tenant_purge``."""
    deadlines.seconds(options.throttle)
    tables = checked(tables, options.chunk_rows)
    places = yield from _places(databases, key, tables, options.shard_id)
    purged: List[TablePurge] = []
    for on in ("shard", "global"):
        if on not in places:
            continue

        def work(session: Session, on: str = on) -> steps.Plan[List[TablePurge]]:
            return _delete(session, key, [each for each in tables if each.on == on], options)

        purged += yield from databases.session(places[on], work)
    shard = places.get("shard")
    return TenantPurge(
        key, None if shard is None else shard.shard_id, tuple(purged), options.dry_run
    )


def checked(tables: Tuple[TenantTable, ...], chunk_rows: int) -> Tuple[TenantTable, ...]:
    """The tables, each with a ``key_column`` or a condition.

    Raises:
        ParameterError: A description is wrong.
    """
    if chunk_rows < 1:
        raise errors.ParameterError(f"chunk_rows is a number from 1 up, not {chunk_rows!r}")
    if not tables:
        raise errors.ParameterError("no table is described")
    seen: Set[Tuple[str, str]] = set()
    for each in tables:
        _check_table(each)
        if (each.on, each.name) in seen:
            raise errors.ParameterError(f"{each.name!r} is described twice")
        seen.add((each.on, each.name))
    return tuple(_with_condition(each, tables) for each in tables)


def _check_table(table: TenantTable) -> None:
    ways = [table.key_column, table.where, table.parent]
    if sum(way is not None for way in ways) != 1:
        raise errors.ParameterError(f"{table.name!r} needs either key_column or where, or a parent")
    if table.where is not None and "%(key)s" not in table.where:
        raise errors.ParameterError(f"the condition of {table.name!r} has no %(key)s")
    if (table.parent is None) != (table.parent_column is None):
        raise errors.ParameterError(f"{table.name!r} needs parent and parent_column together")
    if table.on not in ("shard", "global"):
        raise errors.ParameterError(f"{table.name!r} is on 'shard' or 'global', not {table.on!r}")


def chain_of(table: TenantTable, tables: Sequence[TenantTable]) -> List[TenantTable]:
    """A table, its parent, and so on, up to one without a parent.

    Raises:
        ParameterError: A parent is not described, or the chain is a circle.
    """
    chain = [table]
    while chain[-1].parent is not None:
        last = chain[-1]
        found = [each for each in tables if (each.on, each.name) == (last.on, last.parent)]
        if not found:
            raise errors.ParameterError(f"the parent {last.parent!r} is not described")
        if found[0] in chain:
            raise errors.ParameterError(f"{table.name!r} is its own parent")
        chain.append(found[0])
    return chain


def _with_condition(table: TenantTable, tables: Sequence[TenantTable]) -> TenantTable:
    """The table with a condition in place of a parent."""
    chain = chain_of(table, tables)
    if len(chain) == 1:
        return table
    top = chain[-1]
    where = top.where if top.key_column is None else f"{_escaped(top.key_column)} = %(key)s"
    for child, parent in zip(chain[-2::-1], chain[:0:-1]):
        where = (
            f"{_escaped(child.parent_column or '')} IN (SELECT {_escaped(child.parent_key)} "
            f"FROM {_escaped(parent.name)} WHERE {where})"
        )
    return TenantTable(table.name, where=where, on=table.on)


def _escaped(name: str) -> str:
    """A name in a statement that has parameters."""
    return quoted(name).replace("%", "%%")


def _places(
    databases: Databases, key: object, tables: Sequence[TenantTable], shard_id: Optional[int]
) -> steps.Plan[Dict[str, Place]]:
    """The global database, where it has tables, and the tenant's shard."""
    places: Dict[str, Place] = {}
    if shard_id is None and any(each.on == "global" for each in tables):
        places["global"] = databases.one("global")
    if any(each.on == "shard" for each in tables):
        if shard_id is None:
            shard_id = (yield from shards_of(databases.service, [key], fresh=True))[key]
        if shard_id is None:
            raise errors.ParameterError(f"the key {key!r} has no shard")
        places["shard"] = databases.one(shard_id)
    return places


def condition(table: TenantTable, key: object) -> str:
    """The condition for a tenant's rows."""
    if table.key_column is not None:
        return parameters.bind(f"{quoted(table.key_column)} = %s", (key,))
    return "(" + parameters.bind(table.where or "", {"key": key}) + ")"


def parents_first(
    tables: Sequence[TenantTable], references: Sequence[Tuple[str, str]]
) -> List[TenantTable]:
    """The tables in an order in which their rows can be inserted.

    Args:
        tables: The tables; those that refer to each other in a circle keep their order.
        references: A table, and one that it refers to.
    """
    left = list(tables)
    ordered = []
    while left:
        names = {each.name for each in left}
        free = [
            each
            for each in left
            if not any(
                child == each.name and parent in names and parent != child
                for child, parent in references
            )
        ]
        ordered += free or left[:1]
        left = [each for each in left if each not in ordered]
    return ordered


def _ordered(session: Session, tables: Sequence[TenantTable]) -> steps.Plan[List[TenantTable]]:
    rows = yield from session.query(
        "SELECT TABLE_NAME AS child, REFERENCED_TABLE_NAME AS parent FROM "
        "information_schema.KEY_COLUMN_USAGE WHERE TABLE_SCHEMA = DATABASE() "
        "AND REFERENCED_TABLE_SCHEMA = DATABASE() AND REFERENCED_TABLE_NAME IS NOT NULL"
    )
    return parents_first(tables, [(row["child"], row["parent"]) for row in rows])


class _Columns(NamedTuple):
    stored: Tuple[str, ...]
    key: Tuple[str, ...]


def _columns(session: Session, table: str) -> steps.Plan[_Columns]:
    rows = yield from session.query(
        "SELECT COLUMN_NAME AS name, EXTRA AS extra FROM information_schema.COLUMNS "
        "WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION",
        (table,),
    )
    if not rows:
        raise errors.ParameterError(f"{session.name} has no table {table!r}")
    key = yield from session.query(
        "SELECT COLUMN_NAME AS name FROM information_schema.STATISTICS WHERE "
        "TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s AND INDEX_NAME = 'PRIMARY' "
        "ORDER BY SEQ_IN_INDEX",
        (table,),
    )
    # what is generated cannot be inserted
    stored = [row["name"] for row in rows if not _is_generated(str(row["extra"] or ""))]
    return _Columns(tuple(stored), tuple(row["name"] for row in key))


def _is_generated(extra: str) -> bool:
    return "GENERATED" in extra.upper().replace("DEFAULT_GENERATED", "")


def _read(
    session: Session, key: object, tables: List[TenantTable], chunk_rows: int
) -> steps.Plan[List[TableRows]]:
    yield from session.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    ordered = yield from _ordered(session, tables)
    columns: Dict[str, _Columns] = {}
    for table in ordered:
        columns[table.name] = yield from _columns(session, table.name)
    yield from session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
    found = []
    for table in ordered:
        rows = yield from _rows(session, table, columns[table.name], key, chunk_rows)
        found.append(TableRows(table.name, table.on, tuple(rows)))
    yield from session.execute("COMMIT")
    return found


def _rows(
    session: Session, table: TenantTable, columns: _Columns, key: object, chunk_rows: int
) -> steps.Plan[List[Row]]:
    names = ", ".join(quoted(name) for name in columns.stored)
    sql = f"SELECT {names} FROM {quoted(table.name)} WHERE {condition(table, key)}"
    if not columns.key:
        return (yield from session.query(sql))
    order = ", ".join(quoted(name) for name in columns.key)
    found: List[Row] = []
    after: Optional[Tuple[Any, ...]] = None
    while True:
        text, params = row_hashes.between(columns.key, after, None)
        beyond = parameters.bind(text, params)
        rows = yield from session.query(f"{sql} AND {beyond} ORDER BY {order} LIMIT {chunk_rows}")
        found += rows
        if len(rows) < chunk_rows:
            return found
        after = tuple(rows[-1][name] for name in columns.key)


def _delete(
    session: Session, key: object, tables: List[TenantTable], options: PurgeOptions
) -> steps.Plan[List[TablePurge]]:
    ordered = yield from _ordered(session, tables)
    purged = []
    for table in reversed(ordered):
        yield from _columns(session, table.name)
    for table in reversed(ordered):
        where = condition(table, key)
        found = yield from session.value(f"SELECT COUNT(*) FROM {quoted(table.name)} WHERE {where}")
        deleted = 0
        while not options.dry_run:
            count = yield from session.execute(
                f"DELETE FROM {quoted(table.name)} WHERE {where} LIMIT {options.chunk_rows}"
            )
            deleted += count
            if count < options.chunk_rows:
                break
            if options.throttle:
                yield steps.Sleep(options.throttle)
        purged.append(TablePurge(table.name, table.on, int(found), deleted))
    return purged
