"""Reference tables: the same rows in the global database and on every shard."""

from typing import Callable, List, NamedTuple, Optional, Tuple

from .. import errors
from ..execution import steps
from ..results import Row
from ..sql.identifiers import quoted
from . import rows as row_checks
from .places import Databases, Place, Session, Shards
from .reports import ReferenceReport, ReferenceResult, RowDifference, RowsReport
from .rollout import notify
from .tenant_import import STRICT

#: The most rows that are changed in one transaction.
_MOST = 10_000
#: Floating point numbers are read with all of their digits.
_FLOATS = frozenset({"float", "double"})


class Options(NamedTuple):
    """The arguments of ``reference_sync``."""

    tables: Tuple[str, ...]
    shards: Shards
    chunk_rows: int
    delete: bool
    dry_run: bool
    progress: Optional[Callable[[ReferenceResult], object]]


def run(databases: Databases, options: Options) -> steps.Plan[ReferenceReport]:
    """Copy reference tables to shards; see ``Operations.reference_sync``."""
    if not options.tables:
        raise errors.ParameterError("no table is named")
    if options.chunk_rows < 1:
        raise errors.ParameterError("chunk_rows is a number from 1 up")
    source = databases.one("global")
    targets = [each for each in databases.chosen(options.shards) if each.shard_id is not None]
    if not targets:
        raise errors.ParameterError("the tables are copied to shards, and none is named")
    found: List[ReferenceResult] = []
    for table in dict.fromkeys(options.tables):

        def layout(session: Session, table: str = table) -> steps.Plan[_Known]:
            return _layout(session, table, options)

        known = yield from databases.session(source, layout)
        for target in targets:
            result = yield from _one(databases, source, target, known, options)
            found.append(result)
            yield from notify(options.progress, result)
    return ReferenceReport(tuple(found), options.dry_run)


class _Known(NamedTuple):
    """A table as the global database has it."""

    check: row_checks.Options
    layout: row_checks.Layout


def _layout(session: Session, table: str, options: Options) -> steps.Plan[_Known]:
    check = row_checks.Options(
        table, ("global", "global"), None, None, None, options.chunk_rows, None, _MOST, 0.0, None
    )
    found = yield from row_checks.layout(session, check)
    generated = yield from session.query(
        "SELECT COLUMN_NAME AS name FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = "
        "DATABASE() AND TABLE_NAME = %s AND GENERATION_EXPRESSION <> ''",
        (table,),
    )
    names = {row["name"] for row in generated}
    columns = tuple(each for each in found.columns if each.name not in names)
    return _Known(
        check._replace(columns=tuple(each.name for each in columns)),
        found._replace(columns=columns),
    )


def _one(
    databases: Databases, source: Place, target: Place, known: _Known, options: Options
) -> steps.Plan[ReferenceResult]:
    """One table on one shard. What it fails with is part of the result."""

    def on_source(session: Session) -> steps.Plan[ReferenceResult]:
        return databases.session(target, lambda other: _Sync(session, other, known, options).run())

    try:
        return (yield from databases.session(source, on_source))
    except errors.Error as error:
        return ReferenceResult(
            known.check.table, target.name, error=f"{type(error).__name__}: {error}"
        )


class _Sync:
    """The rows of a table, made the same on a shard."""

    def __init__(self, source: Session, target: Session, known: _Known, options: Options) -> None:
        self._source = source
        self._target = target
        self._known = known
        self._options = options
        self._table = quoted(known.check.table)

    def run(self) -> steps.Plan[ReferenceResult]:
        """Compare, and write what differs, until nothing does."""
        layout = yield from row_checks.layout(self._target, self._known.check)
        counts = [0, 0, 0]
        while True:
            found = yield from self._compare(layout)
            wanted = [
                each
                for each in found.differences
                if self._options.delete or each.kind != "only right"
            ]
            counts = [
                before + sum(each.kind == what for each in wanted)
                for before, what in zip(counts, ("only left", "differs", "only right"))
            ]
            if wanted and not self._options.dry_run:
                yield from self._write(wanted, layout)
            if not found.complete and not wanted:
                raise errors.OperationalError(
                    f"more than {_MOST} rows of {self._known.check.table!r} are not in the global "
                    "database, and are kept"
                )
            if found.complete or self._options.dry_run:
                table, database = self._known.check.table, self._target.place.name
                return ReferenceResult(table, database, found.rows, counts[0], counts[1], counts[2])

    def _compare(self, layout: row_checks.Layout) -> steps.Plan[RowsReport]:
        return row_checks.compare(
            self._source, self._target, self._known.layout, layout, self._known.check
        )

    def _write(
        self, differences: List[RowDifference], layout: row_checks.Layout
    ) -> steps.Plan[None]:
        """Make these rows the same in one transaction, which is undone if they are not
        then.
        """
        target = self._target
        yield from target.execute(STRICT)
        yield from target.execute("START TRANSACTION")
        try:
            # rows that go may have unique values which others get
            for each in sorted(differences, key=lambda each: each.kind != "only right"):
                yield from self._change(each)
            left = yield from self._compare(layout)
            keys = [tuple(each.key.values()) for each in differences]
            if any(tuple(each.key.values()) in keys for each in left.differences):
                raise errors.OperationalError(
                    f"{self._known.check.table!r} was written and differs still: a trigger, or "
                    "somebody else, changes it"
                )
            yield from target.execute("COMMIT")
        except errors.Error as error:
            if errors.is_server_error(error) or not error.sent:
                yield from target.execute("ROLLBACK")
            raise

    def _change(self, difference: RowDifference) -> steps.Plan[None]:
        key = difference.key
        where = " AND ".join(f"{quoted(name)} = %s" for name in key)
        if difference.kind == "only right":
            sql = f"DELETE FROM {self._table} WHERE {where}"
            yield from self._target.execute(sql, tuple(key.values()))
            return
        row = yield from self._read(where, tuple(key.values()))
        if row is None:
            return  # it has gone meanwhile
        names = ", ".join(f"{quoted(name)} = %s" for name in row)
        if difference.kind == "only left":
            yield from self._target.execute(
                f"INSERT INTO {self._table} SET {names}", tuple(row.values())
            )
        else:
            yield from self._target.execute(
                f"UPDATE {self._table} SET {names} WHERE {where}", (*row.values(), *key.values())
            )

    def _read(self, where: str, key: Tuple[object, ...]) -> steps.Plan[Optional[Row]]:
        names = ", ".join(
            f"{quoted(each.name)} * 1e0 AS {quoted(each.name)}"
            if each.kind in _FLOATS
            else quoted(each.name)
            for each in self._known.layout.columns
        )
        rows = yield from self._source.query(
            f"SELECT {names} FROM {self._table} WHERE {where}", key
        )
        return rows[0] if rows else None
