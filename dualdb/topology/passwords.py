"""Passwords of shards, and the references that rows of the shard table may contain."""

import re
from typing import Iterable, List, Optional, Pattern

from pydantic import SecretStr

from ..passwords import KnownPassword, LookedUpPassword, split_reference

#: The default of the service's ``allowed_references``.
DEFAULT_REFERENCES = ("env:DUALDB_*",)


class AllowedReferences:
    """The ``env:NAME`` and ``file:PATH`` references that rows may contain, so that
    write access to the shard table does not expose other secrets of the process.

    Args:
        references: References in which ``*`` matches any characters but ``/``, such as
            ``env:DUALDB_*`` and ``file:/run/secrets/shard_*``. A path with ``..`` is
            never allowed. None allows every reference.

    Raises:
        ValueError: An entry is neither ``env:NAME`` nor ``file:PATH``.
    """

    def __init__(self, references: Optional[Iterable[str]]) -> None:
        if isinstance(references, str):
            raise ValueError(f"allowed_references must be a list, not {references!r}")
        self._patterns: Optional[List[Pattern[str]]] = None
        if references is not None:
            self._patterns = [_pattern(reference) for reference in references]

    def allows(self, reference: str) -> bool:
        """Return whether a row may contain this reference."""
        if self._patterns is None:
            return True
        if ".." in reference.split("/"):
            return False
        return any(pattern.fullmatch(reference) for pattern in self._patterns)


def _pattern(reference: object) -> Pattern[str]:
    if not isinstance(reference, str) or not all(split_reference(reference)):
        raise ValueError(f"allowed_references: {reference!r} is neither env:NAME nor file:PATH")
    return re.compile(re.escape(reference).replace(r"\*", "[^/]*"), re.DOTALL)


ALL_REFERENCES = AllowedReferences(None)


def of_row(value: object, allowed: AllowedReferences) -> SecretStr:
    """Return the password of a row, resolving a reference now.

    Args:
        value: The value of the password column.
        allowed: The allowed references.

    Raises:
        ValueError: The reference is not allowed, or cannot be resolved. The message
            contains no password.
    """
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None:
        return KnownPassword("")
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str):
        raise ValueError(f"password is a {type(value).__name__}, not text")
    kind, _ = split_reference(value)
    if not kind:
        return KnownPassword(value)
    if not allowed.allows(value):
        what = "an environment variable" if kind == "env" else "a file"
        raise ValueError(f"password: refers to {what} that allowed_references does not allow")
    return KnownPassword(LookedUpPassword(value).get_secret_value())
