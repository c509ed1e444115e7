"""Names of procedures, quoted."""

import re
from typing import Tuple

from ..errors import ParameterError

_QUOTED = r"`(?:[^`\x00]|``)+`"
# Whatever a name may have but what belongs to another statement; a space within it.
_BARE = r"(?![\s`])[^.;(),'\"\\\x00-\x1f\x7f\U00010000-\U0010ffff]+(?<!\s)"
_PART = re.compile(f"{_QUOTED}|{_BARE}")
_NAME = re.compile(rf"(?:{_QUOTED}|{_BARE})(?:\.(?:{_QUOTED}|{_BARE}))?")

#: Characters of a name (MySQL manual, "Identifier Length Limits").
LONGEST_NAME = 64


def parts(name: str) -> Tuple[str, ...]:
    """A procedure's name, ``name`` or ``schema.name``, as its one or two parts.

    A part with a dot, a parenthesis or the like in it is written in backticks, and a
    backtick in such a part twice, as in SQL.

    Raises:
        ParameterError: anything that is not such a name.

    Example:
        >>> parts("shop.`end of.day`")
        ('shop', 'end of.day')
    """
    found = _PART.findall(name) if isinstance(name, str) and _NAME.fullmatch(name) else []
    names = tuple([_unquoted(part) for part in found])
    if not names or any(len(part) > LONGEST_NAME for part in names):
        raise ParameterError(
            f"{name!r} is no procedure name: use name or schema.name, and put a part with "
            "a dot, a parenthesis, a quotation mark or the like in backticks"
        )
    return names


def procedure(name: str) -> str:
    """A procedure's name, ``name`` or ``schema.name``, quoted. Raises: as ``parts``."""
    return ".".join([quoted(part) for part in parts(name)])


def quoted(part: str) -> str:
    """One name as SQL text."""
    return "`" + part.replace("`", "``") + "`"


def _unquoted(part: str) -> str:
    if re.fullmatch(_QUOTED, part):
        return part[1:-1].replace("``", "`")
    return part
