"""Parameters: placeholders bound, and values written as SQL literals."""

import datetime
import decimal
import enum
import math
import re
import time
import uuid
from functools import lru_cache
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Sequence,
    Tuple,
    Union,
)

from pymysql.converters import encoders, escape_string

from ..errors import ParameterError

#: Parameters of a statement: a tuple or list for ``%s``, a mapping for ``%(name)s``,
#: None for a statement that is sent as it stands.
Params = Union[Sequence[Any], Mapping[str, Any], None]


_PLACEHOLDER = re.compile(r"%(?:\((?P<name>[^()]*)\)s|(?P<plain>s)|(?P<percent>%)|)")


# IN () is a syntax error and IN (NULL) makes NOT IN false as well; an empty subquery is
# right for both.
_AFTER_IN = re.compile(r"(?i)\bIN[\s(]*\Z")


_EMPTY_LIST = "(SELECT NULL FROM DUAL WHERE FALSE)"


def bind(sql: str, params: Params, *, backslash_escapes: bool = True) -> str:
    """The statement with its parameters written in.

    The placeholders are the drivers': ``%s`` with a tuple or list, ``%(name)s`` with a
    mapping. With parameters, even empty ones, a literal percent sign is written ``%%``;
    with ``params=None`` the statement is sent as it stands. A sequence among the
    parameters becomes ``(1,2,3)`` for ``IN``; an empty one matches nothing.

    Raises:
        ParameterError: wrong number, missing name, wrong kind or type of parameter.
            Nothing has been sent.
    """
    if not isinstance(sql, str):
        raise ParameterError(f"a statement is a str, not {type(sql).__name__}")
    if not sql.strip():
        raise ParameterError("the statement is empty")
    if params is None:
        return sql
    names, positions = _placeholders(sql)
    if isinstance(params, (tuple, list)):
        if names:
            raise ParameterError(
                f"the statement names its parameters (%({names[0]})s): pass a mapping, not a {type(params).__name__}"
            )
        if len(params) != positions:
            raise ParameterError(
                f"the statement has {positions} placeholder(s) %s, but {len(params)} parameter(s) were given"
            )
        try:
            texts = tuple([_literal(value, backslash_escapes) for value in params])
        except (TypeError, ValueError, RecursionError) as error:
            raise _refused(error) from None
        if _EMPTY_LIST in texts:
            _check_empty(sql, iter(texts))
        return sql % texts
    if isinstance(params, Mapping):
        if positions:
            raise ParameterError(
                "the statement has %s placeholders: pass a tuple or list, not a mapping"
            )
        missing = [name for name in names if name not in params]
        if missing:
            raise ParameterError(
                f"no parameter named {missing[0]!r}; the names given are {sorted(map(str, params))}"
            )
        named = {}
        for name in names:
            try:
                named[name] = _literal(params[name], backslash_escapes)
            except (TypeError, ValueError, RecursionError) as error:
                raise _refused(error, f"parameter {name!r}: ") from None
        if _EMPTY_LIST in named.values():
            _check_empty(sql, (named[name] for name in names))
        return sql % named
    raise ParameterError(
        f"params is a tuple or list, a mapping, or None, not {type(params).__name__}"
        + (
            "; one parameter is written (value,)"
            if isinstance(params, (str, bytes, int, float))
            else ""
        )
    )


def _check_empty(sql: str, texts: Iterator[str]) -> None:
    """An empty sequence matches nothing after IN; in place of a value it would be NULL."""
    for found in _PLACEHOLDER.finditer(sql):
        if (
            not found["percent"]
            and next(texts) == _EMPTY_LIST
            and not _AFTER_IN.search(sql, 0, found.start())
        ):
            raise ParameterError("an empty sequence is for IN alone, as in 'id IN %s'")


def names(sql: str) -> List[str]:
    """The names of a statement's ``%(name)s`` placeholders."""
    return _placeholders(sql)[0]


def _placeholders(sql: str) -> Tuple[List[str], int]:
    # A long statement is one with its values written in: it will not be seen again, and
    # would be kept for nothing.
    return _kept_placeholders(sql) if len(sql) < 10_000 else _found_placeholders(sql)


def _found_placeholders(sql: str) -> Tuple[List[str], int]:
    """The names of those that have one, and how many have none.

    What is neither, nor ``%%``, is refused: Python's ``%`` can do the rest.
    """
    names: List[str] = []
    positions = 0
    for found in _PLACEHOLDER.finditer(sql):
        if found["plain"]:
            positions += 1
        elif found["name"] is not None:
            names.append(found["name"])
        elif not found["percent"]:
            raise ParameterError(
                f"{sql[found.start() : found.start() + 2]!r} at character {found.start()} is no placeholder: "
                "use %s or %(name)s, and write %% for a percent sign (or pass params=None)"
            )
    if names and positions:
        raise ParameterError("the statement mixes %s and %(name)s")
    return names, positions


_kept_placeholders = lru_cache(maxsize=1024)(_found_placeholders)


def _refused(error: Exception, place: str = "") -> ParameterError:
    # A ParameterError is a TypeError and a ValueError; an int of too many digits or a
    # broken __index__ is one of these.
    itself = isinstance(error, RecursionError)
    return ParameterError(
        f"{place}{'a sequence among the parameters contains itself' if itself else error}"
    )


_Writer = Callable[[Any], str]


def _finite(value: Any) -> str:
    is_decimal = isinstance(value, decimal.Decimal)
    if not (value.is_finite() if is_decimal else math.isfinite(value)):
        raise ParameterError(f"{value} has no place in SQL: a number must be finite")
    # Not the value's own methods: numpy's float64 and other subclasses write themselves
    # in words of their own.
    return (
        decimal.Decimal.__format__(value, "f")
        if is_decimal
        else str(encoders[float](float.__float__(value)))
    )


def _whole(value: int) -> str:
    try:
        return int.__repr__(value)
    except ValueError:  # Python writes no number of more than some thousand digits
        raise ParameterError("an int has more digits than any column") from None


def _moment(value: datetime.datetime) -> str:
    if value.tzinfo is not None:  # which the drivers leave out, too
        value = value.replace(tzinfo=None)
    return f"'{datetime.datetime.isoformat(value, ' ')}'"


_PLAIN: Dict[type, _Writer] = {
    type(None): lambda value: "NULL",
    bool: lambda value: "1" if value else "0",
    int: _whole,
    float: _finite,
    decimal.Decimal: _finite,
    bytes: lambda value: f"_binary X'{bytes.hex(value)}'",
    bytearray: lambda value: f"_binary X'{bytearray.hex(value)}'",
    memoryview: lambda value: f"_binary X'{memoryview.hex(value)}'",
    datetime.datetime: _moment,
    datetime.date: encoders[datetime.date],
    datetime.time: encoders[datetime.time],
    datetime.timedelta: encoders[datetime.timedelta],
    time.struct_time: encoders[time.struct_time],
    uuid.UUID: lambda value: f"'{uuid.UUID.__str__(value)}'",
}


def literal(value: Any, *, backslash_escapes: bool = True) -> str:
    """One value as SQL text.

    Known are None, bool, int, float, Decimal, str, bytes and their like, date, time,
    datetime, timedelta, struct_time, UUID, an Enum (by its value), whatever is an
    integer by ``__index__``, and a tuple, list, set or frozenset of these.

    Raises:
        ParameterError: any other type, or a number that is not finite.
    """
    try:
        return _literal(value, backslash_escapes)
    except RecursionError as error:
        raise _refused(error) from None


def _literal(value: Any, backslash_escapes: bool) -> str:
    kind = type(value)
    if kind is str:
        return "'" + (escape_string(value) if backslash_escapes else value.replace("'", "''")) + "'"
    writer = _PLAIN.get(kind)
    if writer is not None:
        return writer(value)
    if isinstance(value, enum.Enum):
        return _literal(value.value, backslash_escapes)
    if isinstance(value, str):
        return _literal(str.__str__(value), backslash_escapes)
    for base in kind.__mro__[1:]:
        if base in _PLAIN:
            return _PLAIN[base](value)
    if isinstance(value, (tuple, list, set, frozenset)):
        return (
            "(" + ",".join([_literal(item, backslash_escapes) for item in value]) + ")"
            if value
            else _EMPTY_LIST
        )
    if hasattr(value, "__index__"):
        return repr(value.__index__())
    raise ParameterError(
        f"a {kind.__name__} cannot be a parameter: convert it to a str, a number, bytes, a date or a sequence of these"
    )


class Out:
    """An OUT parameter of a procedure: ``call("totals", (7, Out("total")))`` gives
    ``result.out["total"]``.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise ParameterError(
                f"an {type(self).__name__} parameter is named by a str, not {name!r}"
            )
        self.name = name

    #: The value sent to the procedure: None for an OUT parameter, which the server sets
    #: to NULL in any case.
    value: Any = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class InOut(Out):
    """An INOUT parameter of a procedure: sent as ``value`` and read back by name."""

    def __init__(self, name: str, value: Any) -> None:
        super().__init__(name)
        self.value = value
