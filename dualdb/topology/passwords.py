"""Passwords that the shard table names and does not hold: ``env:NAME`` and
``file:PATH``.
"""

import os
from typing import Any, Mapping

#: A file with a password is not longer than this.
_LONGEST = 4096


def resolve(password: Any, environ: Mapping[str, str] = os.environ) -> Any:
    """The password itself: the variable's value, or the file's text without a line end
    at its end. Anything else is a password already.

    Raises:
        ValueError: there is no such variable, or the file cannot be read. The message
            tells the reference and no value.
    """
    if not isinstance(password, str):
        return password
    kind, _, name = password.partition(":")
    if kind == "env":
        if name not in environ:
            raise ValueError(f"password: there is no environment variable {name!r}")
        return environ[name]
    if kind == "file":
        if not os.path.isfile(name):  # a pipe would be waited for
            raise ValueError(f"password: there is no file {name!r}")
        try:
            with open(name, encoding="utf-8") as file:
                text = file.read(_LONGEST + 1)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"password: the file {name!r} cannot be read ({type(error).__name__})"
            ) from None
        if len(text) > _LONGEST:
            raise ValueError(f"password: the file {name!r} is longer than {_LONGEST} characters")
        return text[:-1] if text.endswith("\n") else text
    return password
