"""Scopes, in asyncio."""

from ..api.session_scope import BaseScope
from .client import Target
from .runner import Tasks


class Scope(Tasks, BaseScope[Target]):
    """A block with a current database, in asyncio: ``async with db.scope(s):``."""

    async def __aenter__(self) -> "Scope":
        await self._run(self._prepare())
        self._enter()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._exit()
