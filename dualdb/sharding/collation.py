"""Comparing values in Python in the same order as the server. Pure.

Texts are compared by the server's weights (WEIGHT_STRING). In most collations the
shorter of two texts is padded with spaces (PAD SPACE), and some compare in several
levels (letters, then accents, then case). Both properties are queried for each column.
"""

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from pymysql.constants import FIELD_TYPE, FLAG

from .. import error_codes, errors
from ..errors import ParameterError
from ..protocol.exchange import Exchange, TextEncoding
from ..results import Column
from .subquery import Query, Subquery, missing, select

_BINARY = 63
_TEXTS = {FIELD_TYPE.STRING, FIELD_TYPE.VAR_STRING, FIELD_TYPE.VARCHAR}
_TEXTS |= {FIELD_TYPE.TINY_BLOB, FIELD_TYPE.BLOB, FIELD_TYPE.MEDIUM_BLOB, FIELD_TYPE.LONG_BLOB}
INTEGERS = {
    FIELD_TYPE.TINY,
    FIELD_TYPE.SHORT,
    FIELD_TYPE.INT24,
    FIELD_TYPE.LONG,
    FIELD_TYPE.LONGLONG,
    FIELD_TYPE.YEAR,
}
DECIMALS = {FIELD_TYPE.DECIMAL, FIELD_TYPE.NEWDECIMAL}
FLOATS = {FIELD_TYPE.FLOAT, FIELD_TYPE.DOUBLE}
#: The number of columns that ``probe_terms`` adds for one.
ASKED = 6
#: Servers sort long texts by a prefix only (max_sort_length), so their order is not
#: verified above this number of bytes.
LONG = 64
#: The bytes of each level of a text's weights by which rows are sorted.
ROUND = 512


class Padded:
    """The weights of a text that is padded with ``pad`` to any length."""

    __slots__ = ("pad", "weights")

    def __init__(self, weights: bytes, pad: bytes) -> None:
        while weights.endswith(pad):
            weights = weights[: -len(pad)]
        self.weights = weights
        self.pad = pad

    def __lt__(self, other: "Padded") -> bool:
        length = max(len(self.weights), len(other.weights))
        return self._of(length) < other._of(length)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Padded) and self.weights == other.weights

    def __hash__(self) -> int:
        return hash(self.weights)

    def __len__(self) -> int:
        return len(self.weights)

    def _of(self, length: int) -> bytes:
        return (self.weights + self.pad * ((length - len(self.weights)) // len(self.pad) + 1))[
            :length
        ]


class Descending:
    """A value in descending order."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: "Descending") -> bool:
        return bool(other.value < self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Descending) and bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash(self.value)


class Key:
    """How the values of one expression compare.

    Attributes:
        kind: A description of the comparison; only values of the same kind compare.
        terms: SQL expressions to select in addition to the value, with ``{}`` for the
            column's expression.
        by: SQL expressions to sort by.
    """

    def __init__(
        self,
        kind: str,
        read: Callable[[Any, Sequence[Any]], Any],
        terms: Sequence[str] = (),
        by: Sequence[str] = ("{}",),
    ) -> None:
        self.kind = kind
        self.terms = tuple(terms)
        self.by = tuple(by)
        self._read = read

    def of(self, value: object, beside: Sequence[Any]) -> Tuple[Any, ...]:
        """Return a sort key for a value, in which NULL comes first.

        Args:
            value: The value.
            beside: The values of ``terms``.
        """
        return (0,) if value is None else (1, self._read(value, beside))

    def select(self, expression: str) -> List[str]:
        """Return ``terms`` for an expression."""
        return [term.format(expression) for term in self.terms]


def _value(value: object, beside: Sequence[Any]) -> Any:
    return value


def _first(value: object, beside: Sequence[Any]) -> Any:
    return beside[0]


def _whole(value: object, beside: Sequence[Any]) -> Any:
    # A BIT from a temporary table is an integer.
    return int.from_bytes(value, "big") if isinstance(value, bytes) else value


def _date(value: object, beside: Sequence[Any]) -> Any:
    # A date with a month or day of zero is already a str in the same format.
    return str(value)


def _moment(value: object, beside: Sequence[Any]) -> Any:
    # MariaDB returns NULL for 0000-00-00 00:00:00.
    return beside[0] or 0


def _weights(pads: Sequence[Optional[bytes]]) -> Callable[[Any, Sequence[Any]], Any]:
    def read(value: object, beside: Sequence[Any]) -> Any:
        return tuple(
            [weights if pad is None else Padded(weights, pad) for weights, pad in zip(beside, pads)]
        )

    return read


def _members(what: str, *, single_bits: bool) -> Callable[[Any, Sequence[Any]], Any]:
    """Compare by number; check that a number is the same member on all shards."""
    members: Dict[int, str] = {}
    numbers: Dict[str, int] = {}

    def read(value: Any, beside: Sequence[Any]) -> Any:
        number = int(beside[0])
        if not number or (single_bits and number & (number - 1)):
            return number
        if (
            members.setdefault(number, value) != value
            or numbers.setdefault(value, number) != number
        ):
            raise errors.InterfaceError(
                f"{what} does not have the same members in the same order on all shards"
            )
        return number

    return read


def probe_terms(expression: str) -> List[str]:
    """Return the expressions that probe how an expression compares; see ``key``.

    They are evaluated for one row of NULLs.
    """
    # COALESCE(NULL, ' ') has the expression's collation. Single levels of weights are
    # available, and needed, on MariaDB only.
    space = f"COALESCE({expression}, ' ')"
    return [
        f"COLLATION({expression})",
        f"COALESCE({expression}, 'a') = COALESCE({expression}, 'a ')",
        f"WEIGHT_STRING({space})",
        *[f"WEIGHT_STRING({space} /*M! LEVEL {level} */)" for level in (1, 2, 3)],
    ]


def key(what: str, column: Column, answers: Sequence[Any], *, of_minimum: bool = False) -> Key:
    """Return how the values of a column compare.

    Args:
        what: The column, for messages.
        column: Its definition.
        answers: The values of ``probe_terms``.
        of_minimum: It is a MIN or MAX, which returns a BIT as digits and a member of an
            ENUM as text.

    Raises:
        ParameterError: The order of its type is not supported.
    """
    known = _KEYS.get(column.type)
    if known is not None:
        return known
    probed = _Probed(what, column, answers, of_minimum)
    return _MAKERS.get(column.type, _key_of_text)(probed)


class _Probed(NamedTuple):
    """A column and the server's answers about it; see ``key``."""

    what: str
    column: Column
    answers: Sequence[Any]
    of_minimum: bool


#: Keys of types that always compare in the same way. The text of a FLOAT has only six
#: digits, and that of a DOUBLE(10,2) two decimals; a TIMESTAMP is ambiguous when
#: daylight saving time ends.
_KEYS: Dict[int, Key] = {
    **dict.fromkeys(INTEGERS | DECIMALS, Key("number", _value)),
    **dict.fromkeys(FLOATS, Key("floating point number", _first, ["{}+0e0"])),
    FIELD_TYPE.DATE: Key("DATE", _date),
    FIELD_TYPE.NEWDATE: Key("DATE", _date),
    FIELD_TYPE.TIMESTAMP: Key("timestamp", _moment, ["UNIX_TIMESTAMP({})"]),
    FIELD_TYPE.TIME: Key("time", _value),
    FIELD_TYPE.NULL: Key("binary text", _value),
}


def _key_of_bits(probed: _Probed) -> Key:
    return Key("number", _first, ["{}+0"]) if probed.of_minimum else Key("number", _whole)


def _key_of_datetime(probed: _Probed) -> Key:
    return Key(f"DATETIME({probed.column.scale})", _date)


def _key_of_enum(probed: _Probed) -> Key:
    return Key("ENUM", _members(probed.what, single_bits=False), ["{}+0"])


def _key_of_set(probed: _Probed) -> Key:
    return Key("SET", _members(probed.what, single_bits=True), ["{}+0"])


def _key_of_text(probed: _Probed) -> Key:
    what = probed.what
    column = probed.column
    if column.type in _TEXTS:
        if column.flags & FLAG.ENUM and not probed.of_minimum:
            return _key_of_enum(probed)
        if column.flags & FLAG.SET and not probed.of_minimum:
            return _key_of_set(probed)
        if column.charset == _BINARY:
            return Key("binary text", _value)
    collation, padded, space, *levels = probed.answers
    if column.type not in _TEXTS or padded is None:
        raise ParameterError(f"{what} has a type whose order is not supported: CAST it to another")
    rounds = next((number for number in (1, 2, 3) if b"".join(levels[:number]) == space), 0)
    if not rounds:
        raise ParameterError(
            f"{what} has the collation {collation}, whose order is not supported: use COLLATE"
        )
    pads = [level if padded and level else None for level in levels[:rounds]]
    return _key_of_weights(f"text in {collation}", pads)


def _key_of_weights(kind: str, pads: Sequence[Optional[bytes]]) -> Key:
    """Of a text by the rounds in which its collation compares.

    Args:
        kind: As for ``Key``.
        pads: The padding of each level of weights; None without padding.
    """
    if len(pads) == 1:
        return Key(kind, _weights(pads), ["WEIGHT_STRING({})"])
    # A server sorts by so many bytes for all rounds together (max_sort_length, or fewer
    # with a LIMIT), into which only the first round fits where a column is long:
    # letters without accents and case. So it is made to sort by each round.
    terms = [f"WEIGHT_STRING({{}} /*M! LEVEL {number} */)" for number in range(1, len(pads) + 1)]
    by = [
        term if pad is None else f"RPAD({term}, {ROUND}, X'{pad.hex()}')"
        for term, pad in zip(terms, pads)
    ]
    return Key(kind, _weights(pads), terms, by)


_MAKERS: Dict[int, Callable[[_Probed], Key]] = {
    FIELD_TYPE.BIT: _key_of_bits,
    FIELD_TYPE.DATETIME: _key_of_datetime,
    FIELD_TYPE.ENUM: _key_of_enum,
    FIELD_TYPE.SET: _key_of_set,
}


class ColumnProbe(Subquery):
    """A query for the columns of a query, without running it; returns a Described."""

    __slots__ = ("_columns", "_wanted")

    describes = True

    def __init__(self, what: Sequence[str], query: Query, tail: str, wanted: Sequence[str]) -> None:
        text, params, read_only = query
        # A LIMIT 0 outside keeps the server from making a UNION or groups first, and
        # one inside from making a row without a table; the join makes a row of nothing.
        head = (
            f"SELECT {', '.join(what)} FROM (SELECT 1 AS dualdb_one) AS o LEFT JOIN (SELECT * FROM"
        )
        super().__init__(
            head,
            f"{text}\nLIMIT 0",
            f"AS z LIMIT 0) AS q ON FALSE {tail}".rstrip(),
            params,
            read_only=read_only,
        )
        self._wanted = list(wanted)
        self._columns = select("*", (f"{text}\nLIMIT 0", params, read_only), "LIMIT 0")

    def exchange(self, text_encoding: TextEncoding) -> Exchange:
        """Yield the query; convert an unknown column to a ParameterError."""
        try:
            return (yield from super().exchange(text_encoding))
        except errors.DRIVER_ERRORS as error:
            if errors.code_of(error) != error_codes.NO_SUCH_COLUMN:
                raise
            (answer,) = yield from self._columns.exchange(text_encoding)
            absent = missing(self._wanted, answer.columns)
            why = (
                f"no column {absent!r} in the result" if absent is not None else str(error.args[-1])
            )
            raise ParameterError(
                f"{why}; there are {', '.join(map(repr, answer.columns))}"
            ) from None


class Order(NamedTuple):
    """A column to sort by.

    Attributes:
        column: Its name.
        descending: Descending order.
    """

    column: str
    descending: bool


def require_same_kind(what: str, kinds: Dict[int, str]) -> None:
    """Check that values of all shards compare.

    Args:
        what: The column, for the message.
        kinds: The kind of its ``Key`` on each shard.

    Raises:
        InterfaceError: The kinds differ.
    """
    if len(set(kinds.values())) > 1:
        found = ", ".join(
            [f"{kind} on shard {shard_id}" for shard_id, kind in sorted(kinds.items())]
        )
        raise errors.InterfaceError(
            f"{what} is not the same on all shards, and does not compare: {found}"
        )


def beyond(keys: Sequence[Any]) -> bool:
    """Return whether a text among the keys is so long that the server may have compared
    only a prefix of it.
    """
    for each in keys:
        ranked = each.value if isinstance(each, Descending) else each
        values = ranked[1] if len(ranked) > 1 else ()
        for value in values if isinstance(values, tuple) else (values,):
            if isinstance(value, (bytes, Padded)) and len(value) > LONG:
                return True
    return False
