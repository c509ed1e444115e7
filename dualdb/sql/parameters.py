"""Binding of parameters to placeholders."""

import re
from datetime import timezone
from functools import lru_cache
from typing import Any, Dict, FrozenSet, List, Mapping, NamedTuple, Sequence, Tuple, Union

from ..errors import ParameterError
from . import lexer
from .literals import (
    DEFAULT_STYLE,
    EMPTY_LIST,
    LiteralStyle,
    is_refused_by_style,
    refused_by_style,
    write,
)

#: Parameters of a statement: a tuple or list for ``%s``, a mapping for ``%(name)s``,
#: None to send the statement unchanged.
Params = Union[Sequence[Any], Mapping[str, Any], None]


_PLACEHOLDER = re.compile(r"%(?:\((?P<name>[^()]*)\)s|(?P<plain>s)|(?P<percent>%)|)")
_AFTER_IN = re.compile(r"(?i)\bIN[\s(]*\Z")
_NUMBER = re.compile(r"-?[0-9][0-9.e+-]*")


def text_of(sql: str) -> str:
    """Return the text of a statement as a plain str: the methods of a subclass may do
    otherwise, as those of a template engine's, which escape for HTML.

    Raises:
        ParameterError: It is no str.
    """
    if not isinstance(sql, str):
        raise ParameterError(f"sql must be str, not {type(sql).__name__}")
    return str.__str__(sql)


def bind(sql: str, params: Params, style: LiteralStyle = DEFAULT_STYLE) -> str:
    """Write the parameters into a statement.

    The placeholders are the drivers': ``%s`` with a tuple or list, ``%(name)s`` with a
    mapping. With parameters, even empty ones, a literal percent sign is written ``%%``;
    with ``params=None`` the statement is sent unchanged. A sequence among the
    parameters becomes ``(1,2,3)`` for ``IN``; an empty one matches nothing. Within
    quotes or a comment a placeholder takes a number alone: anything else would end the
    quoted text.

    Args:
        sql: The statement.
        params: Its parameters.
        style: How the session parses literals.

    Raises:
        ParameterError: The number, a name, or the type of a parameter is wrong; perhaps
            only in this style (``is_refused_by_style``).

    Example:
        >>> bind("SELECT %s, %s", (1, "a"))
        "SELECT 1, 'a'"
    """
    if type(sql) is not str:
        sql = text_of(sql)
    if not sql or sql.isspace():
        raise ParameterError("sql is empty")
    if params is None:
        return sql
    found = _placeholders(sql, style.backslash_escapes)
    if isinstance(params, (tuple, list)):
        texts = _positional(found, params, style)
        if found.quoted or EMPTY_LIST in texts:
            _check_places(sql, found, texts)
        return sql % texts
    if isinstance(params, Mapping):
        named = _named(found, params, style)
        if found.quoted or EMPTY_LIST in named.values():
            _check_places(sql, found, [named[name] for name in found.names])
        return sql % named
    hint = ""
    if isinstance(params, (str, bytes, int, float)):
        hint = "; for one parameter write (value,)"
    raise ParameterError(
        f"params must be a tuple, list, mapping or None, not {type(params).__name__}{hint}"
    )


def bind_early(sql: str, params: Params) -> Tuple[str, bool]:
    """Write the parameters into a statement before the session's style is known.

    Args:
        sql: The statement.
        params: Its parameters.

    Returns:
        The statement in the usual style, and whether it depends on the style.

    Raises:
        ParameterError: It is invalid in every style.
    """
    try:
        return bind(sql, params), False
    except ParameterError as error:
        if not is_refused_by_style(error):
            raise
        refused = error
    for backslash_escapes in (True, False):
        try:
            return bind(sql, params, LiteralStyle(backslash_escapes, timezone.utc)), True
        except ParameterError as error:
            if not is_refused_by_style(error):
                raise
    raise refused


def names(sql: str) -> List[str]:
    """Return the names of a statement's ``%(name)s`` placeholders."""
    return list(_placeholders(sql, True).names)


def has_placeholders(sql: str) -> bool:
    """Return whether a statement has placeholders.

    Raises:
        ParameterError: There is a percent sign that is neither one nor written ``%%``.
    """
    found = _placeholders(sql, True)
    return bool(found.names or found.positions)


class _Placeholders(NamedTuple):
    """The placeholders of a statement.

    Attributes:
        names: The names of those that have one, in order.
        positions: How many have none.
        quoted: The numbers, from 0, of those within quotes or a comment.
    """

    names: Tuple[str, ...]
    positions: int
    quoted: FrozenSet[int]


def _positional(
    found: _Placeholders, params: Sequence[Any], style: LiteralStyle
) -> Tuple[str, ...]:
    if found.names:
        raise ParameterError(
            f"the statement names its parameters (%({found.names[0]})s): pass a mapping, "
            f"not a {type(params).__name__}"
        )
    values = params
    if type(params) is not tuple and type(params) is not list:
        # A subclass may override __len__ and __iter__.
        iterate: Any = tuple.__iter__ if isinstance(params, tuple) else list.__iter__
        values = list(iterate(params))
    if len(values) != found.positions:
        raise ParameterError(
            f"the statement has {found.positions} placeholder(s) %s, but {len(values)} "
            "parameter(s) were given"
        )
    try:
        return tuple([write(value, style) for value in values])
    except (TypeError, ValueError, RecursionError) as error:
        raise _refused(error) from error.__cause__


def _named(found: _Placeholders, params: Mapping[str, Any], style: LiteralStyle) -> Dict[str, str]:
    if found.positions:
        raise ParameterError(
            "the statement has %s placeholders: pass a tuple or list, not a mapping"
        )
    missing = [name for name in found.names if name not in params]
    if missing:
        raise ParameterError(
            f"no parameter named {missing[0]!r}; the names given are {sorted(map(str, params))}"
        )
    texts: Dict[str, str] = {}
    for name in found.names:
        try:
            texts[name] = write(params[name], style)
        except (TypeError, ValueError, RecursionError) as error:
            raise _refused(error, f"parameter {name!r}: ") from error.__cause__
    return texts


def _refused(error: Exception, place: str = "") -> ParameterError:
    # A ParameterError is a TypeError and a ValueError.
    if isinstance(error, RecursionError):
        return ParameterError(f"{place}a sequence among the parameters contains itself")
    make = refused_by_style if is_refused_by_style(error) else ParameterError
    return make(f"{place}{error}")


def _check_places(sql: str, found: _Placeholders, texts: Sequence[str]) -> None:
    """An empty sequence matches nothing after IN; in place of a value it would be NULL.
    Within quotes a value with quotes of its own would be SQL.
    """
    places = [place for place in _PLACEHOLDER.finditer(sql) if not place["percent"]]
    for number, (place, text) in enumerate(zip(places, texts)):
        if number in found.quoted and not _NUMBER.fullmatch(text):
            raise refused_by_style(
                f"{place[0]!r} at character {place.start()} is within quotes or a comment: a "
                "parameter brings its own quotes (only a number may stand there)"
            )
        if text == EMPTY_LIST and not _AFTER_IN.search(sql, 0, place.start()):
            raise ParameterError("an empty sequence is for IN alone, as in 'id IN %s'")


def _placeholders(sql: str, backslash_escapes: bool) -> _Placeholders:
    # Long statements usually contain their values, so caching them is useless.
    find = _kept_placeholders if len(sql) < 10_000 else _found_placeholders
    return find(sql, backslash_escapes)


def _found_placeholders(sql: str, backslash_escapes: bool) -> _Placeholders:
    """Find the placeholders; refuse any other use of ``%`` but ``%%``."""
    names: List[str] = []
    starts: List[int] = []
    for found in _PLACEHOLDER.finditer(sql):
        if found["percent"]:
            continue
        if found["name"] is not None:
            names.append(found["name"])
        elif not found["plain"]:
            raise ParameterError(
                f"{sql[found.start() : found.start() + 2]!r} at character {found.start()} is not "
                "a placeholder: use %s or %(name)s, and write %% for a percent sign (or pass "
                "params=None)"
            )
        starts.append(found.start())
    if names and len(names) < len(starts):
        raise ParameterError("the statement mixes %s and %(name)s")
    quoted = _within(sql, starts, backslash_escapes) if starts else frozenset()
    return _Placeholders(tuple(names), len(starts) - len(names), quoted)


def _within(sql: str, starts: List[int], backslash_escapes: bool) -> FrozenSet[int]:
    """Return the numbers of the positions that are within a token."""
    inside: List[int] = []
    number = 0
    for token in lexer.tokens(sql, backslash_escapes=backslash_escapes):
        while number < len(starts) and starts[number] < token.start:
            number += 1
        while number < len(starts) and starts[number] < token.stop:
            inside.append(number)
            number += 1
    return frozenset(inside)


_kept_placeholders = lru_cache(maxsize=1024)(_found_placeholders)


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

    def __init__(self, name: str, value: object) -> None:
        super().__init__(name)
        self.value = value
