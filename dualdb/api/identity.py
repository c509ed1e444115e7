"""The name and shard id of a target's database, without I/O."""

from typing import Callable, Optional


def database_name(shard_id: Optional[int]) -> str:
    """Return ``"global"`` or ``"shard 7"``."""
    return "global" if shard_id is None else f"shard {shard_id}"


class Identified:
    """A target with a name and a shard id."""

    _identify: Callable[[], Optional[int]]

    @property
    def shard_id(self) -> Optional[int]:
        """The shard id a call would be routed to now; None for the global database.

        Raises:
            RoutingError: The target is a key that has no shard, or has not been looked
                up yet; see ``shard_id_of``.
        """
        return self._identify()

    @property
    def name(self) -> str:
        """``"global"`` or ``"shard 7"``; as ``shard_id``."""
        return database_name(self._identify())
