"""The directory and the ids, in threads."""

from typing import Any, Optional

from ..directory.ids import BaseIds
from ..directory.surface import BaseDirectory
from .runner import Threads


class Directory(Threads, BaseDirectory[int, Optional[int], Any, None]):
    """Which shard has which key, in threads."""


class Ids(Threads, BaseIds[int]):
    """Ids that are unique in all databases of a service, in threads."""
