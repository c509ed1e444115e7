"""Names of procedures, quoted."""

import re

from ..errors import ParameterError

_IDENTIFIER = re.compile(r"[\w$]{1,64}(?:\.[\w$]{1,64})?")


def procedure(name: str) -> str:
    """A procedure's name, ``name`` or ``schema.name``, quoted.

    Raises:
        ParameterError: anything that is not such a name.
    """
    if not isinstance(name, str) or not _IDENTIFIER.fullmatch(name):
        raise ParameterError(
            f"{name!r} is no procedure name: use name or schema.name, of letters, digits, _ and $"
        )
    return ".".join([f"`{part}`" for part in name.split(".")])
