"""What a statement gives back, the same in threads and asyncio."""

from operator import itemgetter
from typing import Any, Dict, Generic, Iterable, Iterator, List, Mapping, NamedTuple, Tuple

import typing_extensions

from . import errors

#: One row: column name to value. A second column of the same name is called
#: ``table.column``, as the drivers' DictCursor has it.
Row = Dict[str, Any]


class RowCount(int):
    """The number of affected rows: an int that carries more.

    Attributes:
        lastrowid: The AUTO_INCREMENT id this statement made, 0 if none.
        warnings: The number of warnings it left.
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
    """The affected rows of a statement, with what else its OK packet says."""
    return RowCount(result.rowcount, result.lastrowid, result.warnings)


class ResultSet(NamedTuple):
    """One result set of one statement.

    A statement without rows (an UPDATE, the end of a procedure) has no columns.

    Attributes:
        rows: Dicts by column name; tuples where they were asked for.
        columns: The names, in order; see ``column_names``.
        rowcount: The number of rows, or of affected rows.
        lastrowid: The AUTO_INCREMENT id that the statement made, 0 if none.
        warnings: The number of warnings it left.
    """

    rows: List[Row]
    columns: Tuple[str, ...]
    rowcount: int
    lastrowid: int
    warnings: int


class CallResult(NamedTuple):
    """What a stored procedure gave back.

    Attributes:
        sets: Every result set with its own columns, in order, empty ones too.
        out: The values of the parameters marked ``Out`` or ``InOut``, by name.
        rowcount: The affected rows of the procedure's last statement.
        warnings: The number of warnings the call left.
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


#: What one shard gave, and a row of it.
GivenT = typing_extensions.TypeVar("GivenT", default=Any)
RowT = typing_extensions.TypeVar("RowT", default=Row)


class ScatterResult(typing_extensions.NamedTuple, Generic[GivenT, RowT]):
    """What several shards gave.

    Attributes:
        by_shard: By shard id, of the shards that answered: the rows of a query, a
            value, a RowCount, a CallResult.
        errors: By shard id, of the others.
    """

    by_shard: Mapping[int, GivenT]
    errors: Mapping[int, errors.Error]

    @property
    def rows(self) -> List[RowT]:
        """The rows of all shards that answered, one shard after the other by their ids;
        of ``query_column`` the values.

        Raises:
            InterfaceError: They gave no rows, but a value or a count.
        """
        return [row for _, row in self._rows()]

    @property
    def values(self) -> List[GivenT]:
        """What each shard that answered gave, by their ids."""
        return [given for _, given in sorted(self.by_shard.items(), key=itemgetter(0))]

    def rows_with_shard(self, name: str = "_shard") -> List[Row]:
        """The same rows, which are dicts, each with its shard's id under this name.

        Args:
            name: The key of the shard's id.

        Raises:
            InterfaceError: They are no dicts: see ``by_shard``.
        """
        rows: List[Row] = []
        for shard_id, row in self._rows():
            if not isinstance(row, dict):
                raise errors.InterfaceError(
                    f"a {type(row).__name__} takes no {name!r}: see by_shard"
                )
            rows.append({**row, name: shard_id})
        return rows

    def _rows(self) -> Iterator[Tuple[int, RowT]]:
        for shard_id, given in sorted(self.by_shard.items(), key=itemgetter(0)):
            rows: Any = given.rows if isinstance(given, CallResult) else given
            if not isinstance(rows, list):
                raise errors.InterfaceError(
                    f"shard {shard_id} gave no rows, but a {type(rows).__name__}: see by_shard"
                )
            for row in rows:
                yield shard_id, row


class Column(NamedTuple):
    """What the server says of a result's column.

    ``charset`` is 63 for what is not text.
    """

    name: str
    type: int
    flags: int
    charset: int
    scale: int


class Described(NamedTuple):
    """The one row of an answer, and its columns."""

    row: Row
    columns: Tuple[Column, ...]


def described(fields: Iterable[Any], result: ResultSet) -> Described:
    """A result of one row, by the column definitions that a driver has made of it."""
    columns = [
        Column(name, field.type_code, field.flags, field.charsetnr, field.scale)
        for name, field in zip(result.columns, fields)
    ]
    return Described(result.rows[0], tuple(columns))


#: A name with more prefixes than this is numbered instead.
_MOST_PREFIXES = 100


def column_names(fields: Iterable[Any]) -> List[str]:
    """The keys of a row: the columns' names, every one another.

    The second column of a name is called ``table.name``, as the drivers' DictCursor has
    it, and the third ``table.table.name``, or its value would take the second one's
    place. From the 102nd on they are numbered, as ``table.name#102``: that many
    prefixes would fill the memory.
    """
    names: Dict[str, None] = {}
    # By table and name, how many other names are known to be in use: the next search
    # begins there.
    in_use: Dict[Tuple[str, str], int] = {}
    for field in fields:
        name = field.name
        if name in names:
            key = (field.table_name, name)
            number = in_use.get(key, 0) + 1
            while _other_name(*key, number) in names:
                number += 1
            in_use[key], name = number, _other_name(*key, number)
        names[name] = None
    return list(names)


def _other_name(table: str, name: str, number: int) -> str:
    if number <= _MOST_PREFIXES:
        return f"{table}." * number + name
    return f"{table}.{name}#{number + 1}"


def result_set(raw: Any, *, tuples: bool = False) -> ResultSet:
    """A driver's ``MySQLResult`` as a ResultSet.

    PyMySQL's and aiomysql's have the same attributes.
    """
    if raw.description is None:
        return ResultSet([], (), raw.affected_rows or 0, raw.insert_id or 0, raw.warning_count)
    names = column_names(raw.fields)
    rows = list(raw.rows) if tuples else [dict(zip(names, row)) for row in raw.rows]
    return ResultSet(rows, tuple(names), len(rows), 0, raw.warning_count)
