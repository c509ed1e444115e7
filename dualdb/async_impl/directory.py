"""The directory and the ids, in asyncio."""

from typing import Any, Coroutine, Optional

from ..directory.ids import BaseIds
from ..directory.surface import BaseDirectory
from .results import Done, Int, Value
from .runner import Tasks

OptionalInt = Coroutine[Any, Any, Optional[int]]


class Directory(Tasks, BaseDirectory[Int, OptionalInt, Value, Done]):
    """Which shard has which key, in asyncio."""


class Ids(Tasks, BaseIds[Int]):
    """Ids that are unique in all databases of a service, in asyncio."""
