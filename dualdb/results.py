"""Results of statements, shared by threads and asyncio."""

from operator import itemgetter
from typing import Any, Dict, Generic, Iterable, Iterator, List, Mapping, NamedTuple, Tuple

import typing_extensions

from . import errors

#: One row: column name to value. A second column of the same name is called
#: ``table.column``, as in the drivers' DictCursor.
Row = Dict[str, Any]


class RowCount(int):
    """The number of affected rows: an int with attributes.

    Attributes:
        lastrowid: The AUTO_INCREMENT id that the statement generated; 0 if none.
        warnings: The number of warnings it produced.
    """

    lastrowid: int
    warnings: int

    def __new__(cls, rowcount: int, lastrowid: int = 0, warnings: int = 0) -> "RowCount":
        self = super().__new__(cls, rowcount)
        self.lastrowid = lastrowid
        self.warnings = warnings
        return self

    def __reduce__(self) -> Tuple[Any, ...]:
        return RowCount, (int(self), self.lastrowid, self.warnings)


def row_count(result: "ResultSet") -> RowCount:
    """Return the affected rows of a statement with the other fields of its OK
    packet.
    """
    return RowCount(result.rowcount, result.lastrowid, result.warnings)


class ResultSet(NamedTuple):
    """One result set of one statement.

    A statement without rows (an UPDATE, the end of a procedure) has no columns.

    Attributes:
        rows: Dicts by column name, or tuples if requested.
        columns: The names, in order; see ``column_names``.
        rowcount: The number of rows, or of affected rows.
        lastrowid: The AUTO_INCREMENT id that the statement generated; 0 if none.
        warnings: The number of warnings it produced.
    """

    rows: List[Row]
    columns: Tuple[str, ...]
    rowcount: int
    lastrowid: int
    warnings: int


class CallResult(NamedTuple):
    """The result of a stored procedure.

    Attributes:
        sets: All result sets in order, including empty ones.
        out: The values of the parameters marked ``Out`` or ``InOut``, by name.
        rowcount: The affected rows of the procedure's last statement.
        warnings: The number of warnings the call produced.
    """

    sets: List[ResultSet]
    out: Mapping[str, Any]
    rowcount: int
    warnings: int

    @property
    def rows(self) -> List[Row]:
        """The rows of all result sets, one after the other, as the original service
        returned them.
        """
        return [row for result in self.sets for row in result.rows]


#: The value of one shard, and the type of its rows.
GivenT = typing_extensions.TypeVar("GivenT", default=Any)
RowT = typing_extensions.TypeVar("RowT", default=Row)


class ScatterResult(typing_extensions.NamedTuple, Generic[GivenT, RowT]):
    """The results of a call to several shards.

    Attributes:
        by_shard: The result of each shard that succeeded, by shard id: a list of rows,
            a value, a RowCount, or a CallResult.
        errors: The error of each shard that failed, by shard id.
    """

    by_shard: Mapping[int, GivenT]
    errors: Mapping[int, errors.Error]

    @property
    def rows(self) -> List[RowT]:
        """The rows of all shards that succeeded, in the order of the shard ids; for
        ``query_column`` the values.

        Raises:
            InterfaceError: The results are not rows, but single values or counts.
        """
        return [row for _, row in self._rows()]

    @property
    def values(self) -> List[GivenT]:
        """The result of each shard that succeeded, in the order of the shard ids."""
        return [given for _, given in sorted(self.by_shard.items(), key=itemgetter(0))]

    def rows_with_shard(self, name: str = "_shard") -> List[Row]:
        """Return the rows as dicts that also contain their shard's id.

        Args:
            name: The key under which the shard's id is added.

        Raises:
            InterfaceError: The rows are not dicts; use ``by_shard``.
        """
        rows: List[Row] = []
        for shard_id, row in self._rows():
            if not isinstance(row, dict):
                raise errors.InterfaceError(
                    f"cannot add {name!r} to a {type(row).__name__}: use by_shard"
                )
            rows.append({**row, name: shard_id})
        return rows

    def _rows(self) -> Iterator[Tuple[int, RowT]]:
        for shard_id, given in sorted(self.by_shard.items(), key=itemgetter(0)):
            rows: Any = given.rows if isinstance(given, CallResult) else given
            if not isinstance(rows, list):
                raise errors.InterfaceError(
                    f"shard {shard_id} returned a {type(rows).__name__}, not rows: use by_shard"
                )
            for row in rows:
                yield shard_id, row


class Column(NamedTuple):
    """A column definition of a result.

    Attributes:
        name: The column's name.
        type: The column type, as in ``pymysql.constants.FIELD_TYPE``.
        flags: The column flags, as in ``pymysql.constants.FLAG``.
        charset: The collation id; 63 (binary) if the column is not text.
        scale: Digits after the decimal point.
    """

    name: str
    type: int
    flags: int
    charset: int
    scale: int


class Described(NamedTuple):
    """A single row and its columns."""

    row: Row
    columns: Tuple[Column, ...]


def described(fields: Iterable[Any], result: ResultSet) -> Described:
    """Combine a single-row result with the driver's column definitions."""
    columns = [
        Column(name, field.type_code, field.flags, field.charsetnr, field.scale)
        for name, field in zip(result.columns, fields)
    ]
    return Described(result.rows[0], tuple(columns))


#: A name that would need more prefixes than this is numbered instead.
_MOST_PREFIXES = 100


def column_names(fields: Iterable[Any]) -> List[str]:
    """Return distinct names for the columns of a result, used as the keys of rows.

    The second column of a name is called ``table.name``, as in the drivers'
    DictCursor, and the third ``table.table.name``, so that it does not replace the
    second. From the 102nd on they are numbered, as in ``table.name#102``, because the
    prefixes would take quadratic memory.
    """
    names: Dict[str, None] = {}
    # The number of names in use by (table, name), where the next search starts.
    in_use: Dict[Tuple[str, str], int] = {}
    for field in fields:
        name = field.name
        if name in names:
            key = (field.table_name, name)
            number = in_use.get(key, 0) + 1
            while _other_name(*key, number) in names:
                number += 1
            name = _other_name(*key, number)
            in_use[key] = number
        names[name] = None
    return list(names)


def _other_name(table: str, name: str, number: int) -> str:
    if number <= _MOST_PREFIXES:
        return f"{table}." * number + name
    return f"{table}.{name}#{number + 1}"


def result_set(raw: Any, *, tuples: bool = False) -> ResultSet:
    """Convert a driver's ``MySQLResult``; PyMySQL's and aiomysql's have the same
    attributes.

    Args:
        raw: The driver's result.
        tuples: Return rows as tuples instead of dicts.
    """
    if raw.description is None:
        return ResultSet([], (), raw.affected_rows or 0, raw.insert_id or 0, raw.warning_count)
    names = column_names(raw.fields)
    rows = list(raw.rows) if tuples else [dict(zip(names, row)) for row in raw.rows]
    return ResultSet(rows, tuple(names), len(rows), 0, raw.warning_count)
