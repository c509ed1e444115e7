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
    names = _parts(name) if isinstance(name, str) else ()
    if not names or any(len(part) > LONGEST_NAME for part in names):
        raise ParameterError(
            f"{name!r} is not a procedure name: use name or schema.name, with backticks around a "
            "part that has special characters"
        )
    return names


@lru_cache(maxsize=1024)
def _parts(name: str) -> Tuple[str, ...]:
    """Return the parts of a name; none if it is no such name."""
    found = _PART.findall(name) if _NAME.fullmatch(name) else []
    return tuple([_unquoted(part) for part in found])


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
