"""Scopes, in threads."""

from ..api.session_scope import BaseScope
from .client import Target
from .runner import Threads


class Scope(Threads, BaseScope[Target]):
    """A block with a current database, in threads: ``with db.scope(s):``."""

    def __enter__(self) -> "Scope":
        self._run(self._prepare())
        self._enter()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._exit()
