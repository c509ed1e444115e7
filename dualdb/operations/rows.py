"""Differences between the rows of a table in two databases."""

from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from .. import deadlines, errors
from ..execution import steps
from ..results import Row
from ..sql import parameters
from ..sql.identifiers import quoted
from . import row_hashes
from .places import Databases, Session, text_of
from .reports import RowDifference, RowsReport
from .rollout import notify
from .row_hashes import Column


class Options(NamedTuple):
    """The arguments of ``check_rows``."""

    table: str
    between: Tuple[Union[int, str], Union[int, str]]
    where: Optional[str]
    params: Optional[Mapping[str, Any]]
    columns: Optional[Sequence[str]]
    chunk_rows: int
    after: Optional[Sequence[Any]]
    max_differences: int
    throttle: float
    progress: Optional[Callable[[RowsReport], object]]


class Layout(NamedTuple):
    """A table as far as its rows are compared.

    Attributes:
        key: The columns of its primary key.
        columns: All that are compared.
        is_mariadb: Its server is a MariaDB.
    """

    key: Tuple[str, ...]
    columns: Tuple[Column, ...]
    is_mariadb: bool


def run(databases: Databases, options: Options) -> steps.Plan[RowsReport]:
    """Compare rows; see ``Operations.check_rows``."""
    deadlines.seconds(options.throttle)
    if options.chunk_rows < 1 or options.max_differences < 1:
        raise errors.ParameterError("chunk_rows and max_differences are numbers from 1 up")
    left, right = (databases.one(each) for each in options.between)
    layouts = []
    for place in (left, right):
        layouts.append((yield from databases.session(place, lambda s: layout(s, options))))
    _check_same(options.table, layouts[0], layouts[1])

    def on_left(session: Session) -> steps.Plan[RowsReport]:
        def on_right(other: Session) -> steps.Plan[RowsReport]:
            return _Comparison(session, other, layouts[0], layouts[1], options).run()

        return databases.session(right, on_right)

    return (yield from databases.session(left, on_left))


def compare(
    left: Session, right: Session, one: Layout, other: Layout, options: Options
) -> steps.Plan[RowsReport]:
    """Compare a table on two sessions.

    Raises:
        ParameterError: The table has another primary key, or other columns, on one.
    """
    _check_same(options.table, one, other)
    return (yield from _Comparison(left, right, one, other, options).run())


def layout(session: Session, options: Options) -> steps.Plan[Layout]:
    """Read how the table looks in one database."""
    rows = yield from session.query(
        "SELECT COLUMN_NAME AS name, DATA_TYPE AS kind, CHARACTER_SET_NAME AS charset, "
        "COLUMN_KEY AS is_key FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() "
        "AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION",
        (options.table,),
    )
    if not rows:
        raise errors.ParameterError(f"{session.name} has no table {options.table!r}")
    key = yield from session.query(
        "SELECT COLUMN_NAME AS name FROM information_schema.STATISTICS WHERE "
        "TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s AND INDEX_NAME = 'PRIMARY' "
        "ORDER BY SEQ_IN_INDEX",
        (options.table,),
    )
    if not key:
        raise errors.ParameterError(
            f"{options.table!r} has no primary key on {session.name}, along which it is compared"
        )
    json = yield from _json_columns(session, options.table)
    columns = tuple(_column(row, json) for row in rows)
    if options.columns is not None:
        missing = set(options.columns) - {each.name for each in columns}
        if missing:
            raise errors.ParameterError(
                f"{options.table!r} on {session.name} has no column {sorted(missing)[0]!r}"
            )
        columns = tuple(each for each in columns if each.name in options.columns)
    return Layout(tuple(row["name"] for row in key), columns, session.is_mariadb)


def _json_columns(session: Session, table: str) -> steps.Plan[List[str]]:
    """In MariaDB a JSON column is a text with a check."""
    if not session.is_mariadb:
        return []
    rows = yield from session.query(
        "SELECT CHECK_CLAUSE AS clause FROM information_schema.CHECK_CONSTRAINTS "
        "WHERE CONSTRAINT_SCHEMA = DATABASE() AND TABLE_NAME = %s",
        (table,),
    )
    clauses = [text_of(row["clause"]) for row in rows]
    return [text[12:-2] for text in clauses if text.startswith("json_valid(`")]


def _column(row: Row, json: List[str]) -> Column:
    kind = text_of(row["kind"]).lower()
    charset = row["charset"]
    return Column(row["name"], kind, charset, kind == "json" or row["name"] in json)


def _check_same(table: str, left: Layout, right: Layout) -> None:
    if left.key != right.key:
        raise errors.ParameterError(
            f"{table!r} has the primary key {left.key} in one database and {right.key} in the other"
        )
    names = [{each.name for each in side.columns} for side in (left, right)]
    if names[0] != names[1]:
        differing = ", ".join(sorted(names[0] ^ names[1]))
        raise errors.ParameterError(
            f"{table!r} has other columns in one database ({differing}): name those to compare"
        )


class _Comparison:
    def __init__(
        self, left: Session, right: Session, one: Layout, other: Layout, options: Options
    ) -> None:
        self._sides = ((left, one), (right, other))
        self._options = options
        self._key = one.key
        self._parse_json = one.is_mariadb != other.is_mariadb
        self._differences: List[RowDifference] = []
        self._report = RowsReport(options.table, left.place.name, right.place.name)
        condition = options.where or "TRUE"
        self._where = f"({parameters.bind(condition, dict(options.params or {}))})"
        if options.params is None:
            self._where = f"({condition})"

    def run(self) -> steps.Plan[RowsReport]:
        for session, _ in self._sides:
            # what the text of a value depends on
            yield from session.execute("SET SESSION sql_mode = '', time_zone = '+00:00'")
        after = self._options.after
        while True:
            upto = yield from self._end_of_chunk(after)
            complete = yield from self._chunk(after, upto)
            yield from notify(self._options.progress, self._report)
            if upto is None or not complete:
                return self._report
            after = upto
            if self._options.throttle:
                yield steps.Sleep(self._options.throttle)

    def _condition(self, after: Optional[Sequence[Any]], upto: Optional[Sequence[Any]]) -> str:
        text, params = row_hashes.between(self._key, after, upto)
        return f"{parameters.bind(text, params)} AND {self._where}"

    def _end_of_chunk(self, after: Optional[Sequence[Any]]) -> steps.Plan[Optional[Sequence[Any]]]:
        """The last key of the chunk; None where it is the last one."""
        names = ", ".join(quoted(name) for name in self._key)
        rows = yield from self._sides[0][0].query(
            f"SELECT {names} FROM {quoted(self._options.table)} WHERE "
            f"{self._condition(after, None)} ORDER BY {names} "
            f"LIMIT 1 OFFSET {self._options.chunk_rows - 1}"
        )
        return tuple(rows[0][name] for name in self._key) if rows else None

    def _hashed(self, side: Layout) -> List[Column]:
        return [each for each in side.columns if not (each.is_json and self._parse_json)]

    def _chunk(
        self, after: Optional[Sequence[Any]], upto: Optional[Sequence[Any]]
    ) -> steps.Plan[bool]:
        """Compare one chunk; False where no more differences are to be reported."""
        where = self._condition(after, upto)
        asked = tuple(
            steps.RunPlan(
                session.query(
                    row_hashes.chunk_query(self._options.table, self._hashed(side), where)
                )
            )
            for session, side in self._sides
        )
        answers: List[Any] = yield steps.Gather(asked)
        for each in answers:
            if isinstance(each, Exception):
                raise each
        one = answers[0][0]
        other = answers[1][0]
        differs = (one["n"], one["a"], one["b"]) != (other["n"], other["a"], other["b"])
        found: List[RowDifference] = []
        if differs:
            found = yield from self._by_row(where)
        elif self._parse_json and any(each.is_json for each in self._sides[0][1].columns):
            found = yield from self._by_json(where)
        room = self._options.max_differences - len(self._differences)
        self._differences += found[:room]
        report = self._report
        self._report = RowsReport(
            report.table,
            report.left,
            report.right,
            report.rows + int(one["n"]),
            report.chunks + 1,
            report.differing_chunks + bool(found),
            tuple(self._differences),
            len(found) <= room,
            tuple(upto) if upto is not None else report.position,
        )
        return len(found) <= room

    def _by_row(self, where: str) -> steps.Plan[List[RowDifference]]:
        """The rows of a chunk that differ."""
        hashes: List[Mapping[Tuple[Any, ...], Row]] = []
        for session, side in self._sides:
            sql = row_hashes.rows_query(self._options.table, self._key, self._hashed(side), where)
            hashes.append(row_hashes.by_key((yield from session.query(sql)), self._key))
        keys = dict.fromkeys([*hashes[0], *hashes[1]])
        wanted = [
            key
            for key in keys
            if hashes[0].get(key, {}).get("#h") != hashes[1].get(key, {}).get("#h")
        ]
        # one more than there is room for, so that more are known to be there
        found = yield from self._rows(wanted[: self._options.max_differences + 1])
        if self._parse_json:
            known = {tuple(each.key.values()) for each in found}
            json = yield from self._by_json(where)
            found += [each for each in json if tuple(each.key.values()) not in known]
        return found

    def _rows(self, keys: List[Tuple[Any, ...]]) -> steps.Plan[List[RowDifference]]:
        found = []
        for key in keys:
            rows: List[Optional[Row]] = []
            for session, side in self._sides:
                names = ", ".join(quoted(each.name) for each in side.columns)
                equal = " AND ".join(f"{quoted(name)} = %s" for name in self._key)
                got = yield from session.query(
                    f"SELECT {names} FROM {quoted(self._options.table)} WHERE {equal}", key
                )
                rows.append(got[0] if got else None)
            difference = self._difference(key, rows[0], rows[1])
            if difference is not None:
                found.append(difference)
        return found

    def _by_json(self, where: str) -> steps.Plan[List[RowDifference]]:
        """The rows of a chunk whose JSON differs, which one server rewrites and the
        other does not.
        """
        sides: List[Mapping[Tuple[Any, ...], Row]] = []
        json = [each for each in self._sides[0][1].columns if each.is_json]
        names = ", ".join(quoted(name) for name in dict.fromkeys([*self._key, *_names(json)]))
        for session, _ in self._sides:
            rows = yield from session.query(
                f"SELECT {names} FROM {quoted(self._options.table)} WHERE {where}"
            )
            sides.append(row_hashes.by_key(rows, self._key))
        wanted = [
            key
            for key, row in sides[0].items()
            if key in sides[1]
            and row_hashes.differing_columns(row, sides[1][key], json, parse_json=True)
        ]
        return (yield from self._rows(wanted[: self._options.max_differences + 1]))

    def _difference(
        self, key: Tuple[Any, ...], left: Optional[Row], right: Optional[Row]
    ) -> Optional[RowDifference]:
        named: Dict[str, Any] = dict(zip(self._key, key))
        if left is None and right is None:
            return None  # it has gone meanwhile
        if left is None:
            return RowDifference(named, "only right", right=right)
        if right is None:
            return RowDifference(named, "only left", left=left)
        columns = row_hashes.differing_columns(
            left, right, self._sides[0][1].columns, parse_json=self._parse_json
        )
        if not columns:
            return None  # it has become the same meanwhile
        return RowDifference(
            named,
            "differs",
            tuple(columns),
            {name: left[name] for name in columns},
            {name: right[name] for name in columns},
        )


def _names(columns: Sequence[Column]) -> List[str]:
    return [each.name for each in columns]
