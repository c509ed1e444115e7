"""One hash for many rows, as a server computes it.

A row is encoded so that NULL is not an empty text and no value runs into the next, and
hashed with SHA-256; the two halves of a row's hash are combined over the rows by XOR.
CRC32 would not do: two values that change places leave the XOR of it as it was. MD5
does not exist on every server. What a server calls a column's text is the same in MySQL
and in MariaDB, but for FLOAT (six digits), TIMESTAMP (the session's time zone), and
JSON, whose texts are compared when they have come.
"""

import decimal
import json
from typing import Any, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ..results import Row
from ..sql.identifiers import quoted

_TEXTS = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set"})
#: Types whose values are bytes.
BYTES = frozenset(
    {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "geometry", "point",
     "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
     "geometrycollection", "geomcollection", "vector"}
)  # fmt: skip
_FLOATS = frozenset({"float", "double"})


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: Its name.
        kind: The type's name, in lower case.
        charset: The character set of a text.
        is_json: It holds JSON; MariaDB knows that by a check alone.
    """

    name: str
    kind: str
    charset: Optional[str] = None
    is_json: bool = False


def encoded(column: Column) -> str:
    """An expression that gives a column's value as ASCII text, and ``n`` for NULL."""
    name = quoted(column.name)
    if column.kind in BYTES:
        text = f"HEX({name})"
    elif column.kind == "bit":
        text = f"HEX(CAST({name} + 0 AS CHAR))"
    elif column.kind == "timestamp":
        # not a function of the session's time zone
        text = f"HEX(CAST(UNIX_TIMESTAMP({name}) AS CHAR))"
    elif column.kind in _FLOATS:
        # with all of its digits; HEX of a number would round it
        text = f"HEX(CAST({name} * 1e0 AS CHAR))"
    elif column.kind in _TEXTS or column.is_json:
        text = f"HEX(CONVERT({name} USING utf8mb4))"
    else:
        text = f"HEX(CAST({name} AS CHAR))"
    return f"IFNULL(CONCAT('v', {text}), 'n')"


def row_hash(columns: Iterable[Column]) -> str:
    """An expression that gives the hash of a row, 64 hexadecimal digits."""
    return f"SHA2(CONCAT_WS('|', {', '.join(encoded(each) for each in columns)}), 256)"


def _half(start: int) -> str:
    part = f"CONV(SUBSTRING(h, {start}, 16), 16, 10)"
    return f"COALESCE(BIT_XOR(CAST({part} AS UNSIGNED)), 0)"


def chunk_query(table: str, columns: Sequence[Column], where: str) -> str:
    """A query for the number of rows and the two halves of their hash."""
    return (
        f"SELECT COUNT(*) AS n, {_half(1)} AS a, {_half(17)} AS b "
        f"FROM (SELECT {row_hash(columns)} AS h FROM {quoted(table)} WHERE {where}) AS hashed"
    )


def rows_query(table: str, key: Sequence[str], columns: Sequence[Column], where: str) -> str:
    """A query for the key and the hash of every row."""
    names = ", ".join(quoted(name) for name in key)
    return f"SELECT {names}, {row_hash(columns)} AS `#h` FROM {quoted(table)} WHERE {where}"


def between(
    key: Sequence[str], after: Optional[Sequence[Any]], upto: Optional[Sequence[Any]]
) -> Tuple[str, List[Any]]:
    """A condition for the rows after one key, up to another one, and its parameters."""
    parts = []
    params = []
    for bound, compare in ((after, ">"), (upto, "<")):
        if bound is not None:
            text, values = _beyond(key, bound, compare)
            parts.append(text)
            params += values
    return " AND ".join(parts) or "TRUE", params


def _beyond(key: Sequence[str], bound: Sequence[Any], compare: str) -> Tuple[str, List[Any]]:
    """``(a, b) > (x, y)`` in a form for which the servers use an index; "<" includes
    the bound itself.
    """
    cases = []
    params = []
    for number, name in enumerate(key):
        equal = [f"{quoted(each)} = %s" for each in key[:number]]
        last = number == len(key) - 1
        sign = "<=" if compare == "<" and last else compare
        cases.append(" AND ".join([*equal, f"{quoted(name)} {sign} %s"]))
        params += [*bound[:number], bound[number]]
    first = f"{quoted(key[0])} {compare}= %s"
    return f"({first} AND ({' OR '.join(f'({case})' for case in cases)}))", [bound[0], *params]


def same_json(left: object, right: object) -> bool:
    """Whether two texts are the same JSON: MySQL rewrites it, MariaDB keeps it."""
    if left is None or right is None:
        return left is right
    try:
        return bool(_parsed(left) == _parsed(right))
    except ValueError:
        return bool(left == right)


def _parsed(text: Any) -> Any:
    return json.loads(text, parse_float=decimal.Decimal, parse_int=decimal.Decimal)


def differing_columns(
    left: Row, right: Row, columns: Sequence[Column], *, parse_json: bool
) -> List[str]:
    """The names of the columns in which two rows differ."""
    found = []
    for column in columns:
        one = left[column.name]
        other = right[column.name]
        is_same = same_json(one, other) if column.is_json and parse_json else one == other
        if not is_same:
            found.append(column.name)
    return found


def by_key(rows: Iterable[Row], key: Sequence[str]) -> Mapping[Tuple[Any, ...], Row]:
    """Rows by the values of their key."""
    return {tuple(row[name] for name in key): row for row in rows}
