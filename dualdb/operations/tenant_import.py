"""The rows of a tenant, written where they were not exported from."""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from .. import errors
from ..execution import steps
from ..results import Row
from ..sql.identifiers import quoted
from . import row_hashes
from .keys import shards_of
from .places import Databases, Place, Session, text_of
from .reports import TableImport, TenantExport, TenantImport, plain

#: Rows of one statement.
_ROWS = 100
#: What is imported is what was exported, or nothing; an id of 0 stays 0.
STRICT = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO'"

#: Types whose values an export has as hexadecimal digits.
_BYTES = row_hashes.BYTES | {"bit"}

Exported = Union[TenantExport, Mapping[str, Any]]


class _Table(NamedTuple):
    """A table of an export."""

    name: str
    on: str
    rows: Sequence[Row]


def run(
    databases: Databases, exported: Exported, shard_id: Optional[int], *, dry_run: bool
) -> steps.Plan[TenantImport]:
    """Write a tenant's rows; see ``Operations.tenant_import``."""
    key, tables = parse(exported)
    places: Dict[str, Place] = {}
    if any(each.on == "shard" for each in tables):
        if shard_id is None:
            shard_id = (yield from shards_of(databases.service, [key], fresh=True))[key]
        if shard_id is None:
            raise errors.ParameterError(
                f"the key {key!r} has no shard: assign one, or name the shard"
            )
        places["shard"] = databases.one(shard_id)
    if any(each.on == "global" for each in tables):
        places["global"] = databases.one("global")
    done: List[TableImport] = []
    for on, place in places.items():

        def work(session: Session, on: str = on) -> steps.Plan[List[TableImport]]:
            return _write(session, [each for each in tables if each.on == on], dry_run)

        done += yield from databases.session(place, work)
    return TenantImport(key, shard_id, tuple(done), dry_run)


def parse(exported: Exported) -> Tuple[Any, List[_Table]]:
    """The key and the tables of an export.

    Raises:
        ParameterError: It is none.
    """
    document = exported.to_dict() if isinstance(exported, TenantExport) else exported
    try:
        key = document["key"]
        tables = [_Table(each["table"], each["on"], each["rows"]) for each in document["tables"]]
        for table in tables:
            _check(table)
    except (AttributeError, KeyError, TypeError) as error:
        raise errors.ParameterError(f"this is no export of a tenant: {error}") from None
    return key, tables


def _check(table: _Table) -> None:
    if not isinstance(table.name, str) or table.on not in ("shard", "global"):
        raise TypeError(f"{table.name!r} is on 'shard' or 'global', not {table.on!r}")
    if any(row.keys() != table.rows[0].keys() or not row for row in table.rows):
        raise TypeError(f"the rows of {table.name!r} have not the same columns")


class _Columns(NamedTuple):
    """What is known of a table's columns where it is written."""

    kinds: Mapping[str, str]
    key: Sequence[str]


def _write(session: Session, tables: List[_Table], dry_run: bool) -> steps.Plan[List[TableImport]]:
    """Write the rows of one database in one transaction."""
    yield from session.execute(STRICT)
    columns = []
    for table in tables:
        columns.append((yield from _columns(session, table)))
    yield from session.execute("START TRANSACTION")
    try:
        missing = []
        for table, known in zip(tables, columns):
            missing.append((yield from _missing(session, table, known)))
        # all of them were written in one transaction
        keyed = [number for number, known in enumerate(columns) if known.key]
        found = any(tables[each].rows for each in keyed)
        is_there = found and not any(missing[each] for each in keyed)
        done = []
        for table, known, rows in zip(tables, columns, missing):
            new = [] if is_there else rows
            if not dry_run:
                yield from _insert(session, table.name, known, new)
            done.append(TableImport(table.name, table.on, len(table.rows), len(new)))
        yield from session.execute("COMMIT")
        return done
    except errors.Error as error:
        if errors.is_server_error(error) or isinstance(error, errors.ParameterError):
            yield from session.execute("ROLLBACK")
        raise


def _columns(session: Session, table: _Table) -> steps.Plan[_Columns]:
    rows = yield from session.query(
        "SELECT COLUMN_NAME AS name, DATA_TYPE AS kind, COLUMN_KEY AS k "
        "FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s",
        (table.name,),
    )
    kinds = {row["name"]: text_of(row["kind"]).lower() for row in rows}
    absent = [name for name in (table.rows[0] if table.rows else ()) if name not in kinds]
    if not kinds or absent:
        what = f"column {absent[0]!r} in {table.name!r}" if kinds else f"table {table.name!r}"
        raise errors.ParameterError(f"{session.name} has no {what}")
    return _Columns(kinds, [row["name"] for row in rows if text_of(row["k"]) == "PRI"])


def _missing(session: Session, table: _Table, known: _Columns) -> steps.Plan[List[Row]]:
    """The rows that are not there; all, if the table has no primary key."""
    key = [name for name in known.key if table.rows and name in table.rows[0]]
    if not key or len(key) < len(known.key):
        return list(table.rows)
    missing: List[Row] = []
    for start in range(0, len(table.rows), _ROWS):
        chunk = table.rows[start : start + _ROWS]
        there = yield from _present(session, table, known, chunk)
        for row in chunk:
            found = there.get(tuple(str(row[name]) for name in key))
            if found is None:
                missing.append(row)
            elif found != row:
                shown = ", ".join(f"{name}={row[name]}" for name in key)
                raise errors.ParameterError(
                    f"{session.name} has another row {shown} in {table.name!r}"
                )
    return missing


def _present(
    session: Session, table: _Table, known: _Columns, rows: Sequence[Row]
) -> steps.Plan[Mapping[Tuple[str, ...], Row]]:
    """Those rows that are there, as an export has them, by their keys."""
    names = ", ".join(quoted(name) for name in rows[0])
    equal = " AND ".join(f"{quoted(name)} = %s" for name in known.key)
    found = yield from session.query(
        f"SELECT {names} FROM {quoted(table.name)} WHERE "
        + " OR ".join([f"({equal})"] * len(rows))
        + " FOR UPDATE",
        tuple(_value(known, name, row[name]) for row in rows for name in known.key),
    )
    there = [{name: plain(value) for name, value in row.items()} for row in found]
    return {tuple(str(row[name]) for name in known.key): row for row in there}


def _insert(session: Session, table: str, known: _Columns, rows: List[Row]) -> steps.Plan[None]:
    for start in range(0, len(rows), _ROWS):
        chunk = rows[start : start + _ROWS]
        names = ", ".join(quoted(name) for name in chunk[0])
        marks = f"({', '.join(['%s'] * len(chunk[0]))})"
        yield from session.execute(
            f"INSERT INTO {quoted(table)} ({names}) VALUES {', '.join([marks] * len(chunk))}",
            tuple(_value(known, name, value) for row in chunk for name, value in row.items()),
        )


def _value(known: _Columns, name: str, value: Any) -> Any:
    """A value of an export as a parameter."""
    if isinstance(value, str) and known.kinds[name] in _BYTES:
        try:
            return bytes.fromhex(value)
        except ValueError:
            raise errors.ParameterError(f"{name} must be hexadecimal digits") from None
    return value
