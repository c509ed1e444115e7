"""Passwords that are resolved when a connection is opened: ``env:NAME``, ``file:PATH``,
or a function.
"""

import inspect
import os
from typing import Any, Callable, Tuple, Union

from pydantic import SecretStr

#: Types of a password in a configuration.
Password = Union[SecretStr, str, Callable[[], Union[str, SecretStr]]]

#: Maximum length of a password file, in characters.
_MAX_FILE_LENGTH = 4096


class PasswordLookupError(ValueError):
    """A password could not be resolved. The message contains no value."""


class LookedUpPassword(SecretStr):
    """A password that is resolved each time it is needed, so that it can be rotated
    without a restart.

    Only ``get_secret_value()`` resolves it. Two are equal if they have the same source.

    Args:
        source: ``env:NAME``, ``file:PATH``, or a function that returns the password.
    """

    def __init__(self, source: Union[str, Callable[[], Any]]) -> None:
        super().__init__("")
        self._source = source

    def get_secret_value(self) -> str:
        """Return the current password.

        Raises:
            PasswordLookupError: There is no such variable or file, or the function
                failed or returned neither a str nor a SecretStr.
        """
        if callable(self._source):
            return _call(self._source)
        return _resolve(self._source)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LookedUpPassword) and self._source == other._source

    def __hash__(self) -> int:
        return hash(self._source)

    def __len__(self) -> int:
        return len(self.get_secret_value())

    def _display(self) -> str:
        return "**********"


class KnownPassword(SecretStr):
    """A literal password, even if its text looks like a reference."""


def as_secret(value: object) -> SecretStr:
    """Wrap a password so that it is never displayed.

    Args:
        value: The password itself; ``env:NAME`` or ``file:PATH``; or a function without
            arguments that returns the password, called for each new connection.

    Raises:
        ValueError: The value is none of these. The message does not contain it.
    """
    if isinstance(value, (LookedUpPassword, KnownPassword)):
        return value
    if isinstance(value, SecretStr):
        return LookedUpPassword(value.get_secret_value()) if is_reference(value) else value
    if isinstance(value, str):
        return LookedUpPassword(value) if is_reference(value) else SecretStr(value)
    if inspect.iscoroutinefunction(value):
        raise ValueError("the function that returns the password must not be a coroutine function")
    if callable(value):
        return LookedUpPassword(value)
    raise ValueError(
        f"password must be a str, a SecretStr or a function that returns one, "
        f"not {type(value).__name__}"
    )


def split_reference(value: object) -> Tuple[str, str]:
    """Return ``("env", NAME)`` or ``("file", PATH)``; ``("", "")`` for other values."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    kind, colon, name = value.partition(":") if isinstance(value, str) else ("", "", "")
    return (kind, name) if colon and kind in ("env", "file") else ("", "")


def is_reference(value: object) -> bool:
    """Return whether the value refers to a password rather than being one."""
    return bool(split_reference(value)[0])


def _resolve(reference: str) -> str:
    kind, name = split_reference(reference)
    if kind == "env":
        found = os.environ.get(name)
        if found is None:
            raise PasswordLookupError(f"password: there is no environment variable {name!r}")
        return found
    if not os.path.isfile(name):  # reading a pipe would block
        raise PasswordLookupError(f"password: there is no file {name!r}")
    failure = None
    try:
        with open(name, encoding="utf-8") as file:
            text = file.read(_MAX_FILE_LENGTH + 1)
    except (OSError, ValueError) as error:
        failure = type(error).__name__
    if failure is not None:
        raise PasswordLookupError(f"password: the file {name!r} cannot be read ({failure})")
    if len(text) > _MAX_FILE_LENGTH:
        del text
        raise PasswordLookupError(
            f"password: the file {name!r} is longer than {_MAX_FILE_LENGTH} characters"
        )
    return text[:-1] if text.endswith("\n") else text


def _call(source: Callable[[], Any]) -> str:
    try:
        found = source()
    except Exception as error:
        raise PasswordLookupError(
            f"password: the function that returns it failed ({type(error).__name__})"
        ) from error
    if isinstance(found, SecretStr):
        return found.get_secret_value()
    if not isinstance(found, str):
        kind = type(found).__name__
        del found
        raise PasswordLookupError(
            f"password: the function that returns it returned {kind}, not a str"
        )
    return found
