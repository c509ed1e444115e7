"""Passwords of shards: which references a row of the shard table may hold."""

import re
from typing import Iterable, List, Optional, Pattern

from pydantic import SecretStr

from ..passwords import KnownPassword, LookedUpPassword, split_reference

#: What rows may refer to if the service is not told otherwise.
DEFAULT_REFERENCES = ("env:DUALDB_*",)


class AllowedReferences:
    """Which ``env:NAME`` and ``file:PATH`` a row may hold in place of a password, so
    that nobody who can write to the shard table can read the process.

    Args:
        references: References in which ``*`` stands for any characters but ``/``, such
            as ``env:DUALDB_*`` and ``file:/run/secrets/shard_*``. A path that has
            ``..`` in it is never allowed. None allows every reference.

    Raises:
        ValueError: One is neither ``env:`` nor ``file:``.
    """

    def __init__(self, references: Optional[Iterable[str]]) -> None:
        if isinstance(references, str):
            raise ValueError(f"allowed_references is a list, not {references!r}")
        self._patterns: Optional[List[Pattern[str]]] = None
        if references is not None:
            self._patterns = [_pattern(reference) for reference in references]

    def allows(self, reference: str) -> bool:
        """Whether a row may hold this reference."""
        if self._patterns is None:
            return True
        if ".." in reference.split("/"):
            return False
        return any(pattern.fullmatch(reference) for pattern in self._patterns)


def _pattern(reference: object) -> Pattern[str]:
    if not isinstance(reference, str) or not all(split_reference(reference)):
        raise ValueError(
            f"allowed_references has {reference!r}, which is neither env:NAME nor file:PATH"
        )
    return re.compile(re.escape(reference).replace(r"\*", "[^/]*"), re.DOTALL)


ALL_REFERENCES = AllowedReferences(None)


def of_row(value: object, allowed: AllowedReferences) -> SecretStr:
    """The password that a row's column holds or refers to, looked up now.

    Args:
        value: The column's value.
        allowed: What it may refer to.

    Raises:
        ValueError: It refers to something that is not allowed, or that is not there.
            The message shows no password.
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
