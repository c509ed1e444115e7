"""Parsing and quoting of procedure names."""

import re
from functools import lru_cache
from typing import Tuple

from ..errors import ParameterError

_QUOTED = r"`(?:[^`\x00]|``)+`"
# Any characters of a name except those with a meaning in SQL; inner spaces are allowed.
_BARE = r"(?![\s`])[^.;(),'\"\\\x00-\x1f\x7f\U00010000-\U0010ffff]+(?<!\s)"
_PART = re.compile(f"{_QUOTED}|{_BARE}")
_NAME = re.compile(rf"(?:{_QUOTED}|{_BARE})(?:\.(?:{_QUOTED}|{_BARE}))?")

#: Characters of a name (MySQL manual, "Identifier Length Limits").
LONGEST_NAME = 64
# Two parts in backticks, in which each character may be a doubled one.
_LONGEST_TEXT = 2 * (2 + 2 * LONGEST_NAME) + 1


def parts(name: str) -> Tuple[str, ...]:
    """Split a procedure's name, ``name`` or ``schema.name``, into its parts.

    A part with special characters must be in backticks, with backticks in it doubled,
    as in SQL.

    Raises:
        ParameterError: It is not such a name.

    Example:
        >>> parts("shop.`end of.day`")
        ('shop', 'end of.day')
    """
    # A str subclass may be equal to another text, or not hashable.
    text = str.__str__(name) if isinstance(name, str) else ""
    names = _parts(text) if len(text) <= _LONGEST_TEXT else ()
    if not names:
        raise ParameterError(
            f"{name!r:.200} is not a procedure name: use name or schema.name, with backticks "
            "around a part that has special characters"
        )
    return names


@lru_cache(maxsize=1024)
def _parts(name: str) -> Tuple[str, ...]:
    """Return the parts of a name; none if it is no such name."""
    found = _PART.findall(name) if _NAME.fullmatch(name) else []
    names = tuple([_unquoted(part) for part in found])
    return () if any(len(part) > LONGEST_NAME for part in names) else names


def procedure(name: str) -> str:
    """Return a procedure's name, ``name`` or ``schema.name``, quoted.

    Raises:
        ParameterError: It is not such a name.
    """
    return ".".join([quoted(part) for part in parts(name)])


def quoted(part: str) -> str:
    """Return a name in backticks."""
    return "`" + part.replace("`", "``") + "`"


def _unquoted(part: str) -> str:
    if re.fullmatch(_QUOTED, part):
        return part[1:-1].replace("``", "`")
    return part
