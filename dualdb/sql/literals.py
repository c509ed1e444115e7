"""Conversion of values to SQL literals.

Instances of subclasses are first copied to the built-in base type, with methods of the
base type only, and refused unless the copy equals the value. So pandas' NaT is not
written as the year 1, and no method of a subclass can produce SQL.
"""

import datetime
import decimal
import enum
import math
import re
import time
import uuid
import zoneinfo
from functools import lru_cache
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple, Type

from pymysql.converters import encoders, escape_string

from ..errors import ParameterError


class LiteralStyle(NamedTuple):
    """How a session parses literals.

    Attributes:
        backslash_escapes: A backslash in a literal escapes the next character.
        time_zone: The session's time zone, to which aware datetimes are converted; None
            if it is unknown, so that they are refused.
    """

    backslash_escapes: bool = True
    time_zone: Optional[datetime.tzinfo] = None


DEFAULT_STYLE = LiteralStyle()


def refused_by_style(message: str) -> ParameterError:
    """Return the error for what is invalid in one literal style, but may be valid in
    another.
    """
    error = ParameterError(message)
    error._depends_on_style = True
    return error


def is_refused_by_style(error: Exception) -> bool:
    """Return whether another literal style may accept what an error refuses."""
    return isinstance(error, ParameterError) and error._depends_on_style


#: IN () is a syntax error, and NOT IN (NULL) is never true; an empty subquery is
#: correct for both.
EMPTY_LIST = "(SELECT NULL FROM DUAL WHERE FALSE)"

#: Maximum digits before the decimal point; more become 99999... with a warning.
_MOST_DIGITS = 81
#: Maximum digits after the decimal point; columns round them to far fewer.
_MOST_DECIMALS = 1000

_OFFSET = re.compile(r"([+-])(\d{1,2}):(\d{2})")


@lru_cache(maxsize=64)
def time_zone(name: Optional[str]) -> Optional[datetime.tzinfo]:
    """Return the time zone for a session's ``time_zone``.

    Args:
        name: The value of the variable: an offset such as "+02:00", or a name.

    Returns:
        The time zone; None for None and "SYSTEM", and for a name that is not in
        Python's time zone database.
    """
    offset = _OFFSET.fullmatch(name or "")
    if offset is not None:
        shift = datetime.timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        return datetime.timezone(-shift if offset[1] == "-" else shift)
    if name is None or name.upper() == "SYSTEM":
        return None
    if name.upper() == "UTC":
        return datetime.timezone.utc
    try:
        return zoneinfo.ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        return None


def literal(value: object, style: LiteralStyle = DEFAULT_STYLE) -> str:
    """Return a value as an SQL literal.

    Args:
        value: None, bool, int, float, Decimal, str, bytes, bytearray, memoryview, date,
            time, datetime, timedelta, struct_time, UUID; an Enum member, by its value;
            a numpy scalar; any type with ``__index__``; a tuple, list, set or frozenset
            of these.
        style: How the session parses literals.

    Raises:
        ParameterError: The type is not supported, the number is not finite, or the
            value differs from its copy as a built-in type; or it is an aware datetime,
            and the session's time zone is unknown.

    Example:
        >>> literal(("it's", 5))
        "('it\\\\'s',5)"
    """
    try:
        return write(value, style)
    except RecursionError:
        raise ParameterError("a sequence among the parameters contains itself") from None


def write(value: Any, style: LiteralStyle) -> str:
    """Like ``literal``, but may also raise RecursionError, TypeError or ValueError."""
    kind = type(value)
    if kind is str:
        if style.backslash_escapes:
            return f"'{escape_string(value)}'"
        doubled = value.replace("'", "''")
        return f"'{doubled}'"
    writer = _WRITERS.get(kind)
    if writer is not None:
        return writer(value)
    if kind is datetime.datetime:
        return _moment(value, style)
    if kind in _SEQUENCES:
        texts = [write(item, style) for item in value]
        if EMPTY_LIST in texts:
            raise ParameterError("an empty sequence within another has no place in SQL")
        return f"({','.join(texts)})" if texts else EMPTY_LIST
    return write(_plain(value), style)


_SEQUENCES = frozenset({tuple, list, set, frozenset})


# Conversion of instances of subclasses to the built-in type. Only methods of the
# built-in type itself are called, because a subclass may override them.


def _copy_of(base: Type[Any], *names: str) -> Callable[[Any], Any]:
    """Return a function that copies these fields, read by the base type's
    descriptors.
    """
    getters = [base.__dict__[name].__get__ for name in names]
    return lambda value: base(*[get(value) for get in getters])


_get_uuid = uuid.UUID.__dict__["int"].__get__
_WHOLE = slice(None)

_COPIES: Dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    decimal.Decimal: decimal.Decimal,
    bytes: lambda value: bytes.__getitem__(value, _WHOLE),
    bytearray: lambda value: bytearray.__getitem__(value, _WHOLE),
    datetime.datetime: lambda value: datetime.datetime.combine(
        datetime.datetime.date(value), datetime.datetime.timetz(value)
    ),
    datetime.date: _copy_of(datetime.date, "year", "month", "day"),
    datetime.time: _copy_of(datetime.time, "hour", "minute", "second", "microsecond", "tzinfo"),
    datetime.timedelta: _copy_of(datetime.timedelta, "days", "seconds", "microseconds"),
    uuid.UUID: lambda value: uuid.UUID(int=_get_uuid(value)),
    tuple: lambda value: tuple(tuple.__iter__(value)),
    list: lambda value: list(list.__iter__(value)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
}

#: Results accepted from numpy's ``item()``; for nanoseconds it returns a bare int.
_OF_NUMPY = (bool, float, datetime.datetime, datetime.date, datetime.timedelta)


def _plain(value: object) -> Any:
    """Convert a value to a built-in type.

    Raises:
        ParameterError: It is not possible, or the result does not equal the value.
    """
    kind = type(value)
    try:
        plain, must_equal = _unchecked(value, kind)
        same = not must_equal or bool(plain == value)
    except ParameterError:
        raise
    except Exception as error:  # a method of the value's own
        raise ParameterError(
            f"a {kind.__name__} cannot be a parameter: its own methods failed"
        ) from error
    if not same:
        raise ParameterError(
            f"a {kind.__name__} cannot be a parameter: written as a {type(plain).__name__} it "
            "would be a different value; convert it, or pass None for NULL"
        )
    return plain


def _unchecked(value: Any, kind: Any) -> Tuple[Any, bool]:
    """Return a built-in value, and whether it must equal the original."""
    if issubclass(kind, enum.Enum):
        # A plain Enum member equals only itself; an IntEnum or StrEnum member also
        # equals its value.
        return value.value, any(base in _COPIES for base in kind.__mro__)
    for base in kind.__mro__[1:]:
        if base in _COPIES:
            return _COPIES[base](value), True
    if _is_numpy_scalar(kind):
        plain = kind.item(value)
        if type(plain) in _OF_NUMPY:
            return plain, True
    if hasattr(kind, "__index__"):
        # __index__ promises the exact integer; verified if the type defines __eq__.
        return int.__int__(kind.__index__(value)), kind.__eq__ is not object.__eq__
    raise ParameterError(
        f"a {kind.__name__} cannot be a parameter: convert it to a str, a number, bytes, a date "
        "or a sequence of these"
    )


def _is_numpy_scalar(kind: type) -> bool:
    return any(base.__module__ == "numpy" and base.__name__ == "generic" for base in kind.__mro__)


# Writers for values of exactly these types.


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise ParameterError(f"{value} cannot be a parameter: a number must be finite")
    return str(encoders[float](value))


def _decimal(value: decimal.Decimal) -> str:
    if not value.is_finite():
        raise ParameterError(f"{value} cannot be a parameter: a number must be finite")
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    if value.adjusted() >= _MOST_DIGITS or exponent >= _MOST_DIGITS:
        raise ParameterError("a Decimal has more digits than any column")
    if exponent < -_MOST_DECIMALS:
        raise ParameterError(f"a Decimal has more than {_MOST_DECIMALS} decimals")
    return format(value, "f")


_LARGEST = 10**_MOST_DIGITS


def _whole(value: int) -> str:
    if not -_LARGEST < value < _LARGEST:
        raise ParameterError("an int has more digits than any column: pass a float")
    return repr(value)


def _moment(value: datetime.datetime, style: LiteralStyle) -> str:
    if value.tzinfo is not None:
        if style.time_zone is None:
            raise refused_by_style(
                "a datetime with a time zone requires a configured time zone of the session, as in "
                'DatabaseConfig(time_zone="+00:00"); otherwise pass '
                "value.astimezone(zone).replace(tzinfo=None)"
            )
        value = _in_zone(value, style.time_zone)
    return f"'{value.isoformat(' ')}'"


def _in_zone(value: datetime.datetime, zone: datetime.tzinfo) -> datetime.datetime:
    try:
        if value.utcoffset() is not None:
            return value.astimezone(zone).replace(tzinfo=None)
    except Exception as error:  # its time zone's own, or there is no such year
        raise ParameterError(
            f"a datetime cannot be written in the session's time zone ({error})"
        ) from error
    raise ParameterError("a datetime's time zone does not say its offset: pass another one")


#: A TIME column holds less than this in either direction; more is cut off.
_TIME_LIMIT = datetime.timedelta(hours=839)


def _duration(value: datetime.timedelta) -> str:
    if not -_TIME_LIMIT < value < _TIME_LIMIT:
        raise ParameterError(
            "a timedelta of 839 hours or more has no place in a TIME column: pass a number, as "
            "of value.total_seconds()"
        )
    return str(encoders[datetime.timedelta](value))


def _time(value: datetime.time) -> str:
    if value.tzinfo is not None:
        raise ParameterError(
            "a time with a time zone cannot be a parameter: pass value.replace(tzinfo=None)"
        )
    return f"'{value.isoformat()}'"


_WRITERS: Dict[type, Callable[[Any], str]] = {
    type(None): lambda value: "NULL",
    bool: lambda value: "1" if value else "0",
    int: _whole,
    float: _number,
    decimal.Decimal: _decimal,
    bytes: lambda value: f"_binary X'{value.hex()}'",
    bytearray: lambda value: f"_binary X'{value.hex()}'",
    memoryview: lambda value: f"_binary X'{value.hex()}'",
    datetime.date: lambda value: f"'{value.isoformat()}'",
    datetime.time: _time,
    datetime.timedelta: _duration,
    time.struct_time: encoders[time.struct_time],
    uuid.UUID: lambda value: f"'{value}'",
}
