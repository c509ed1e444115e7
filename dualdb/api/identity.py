"""Which database a target means, without asking it."""

from typing import Callable, Optional


def database_name(shard_id: Optional[int]) -> str:
    """``"global"`` or ``"shard 7"``."""
    return "global" if shard_id is None else f"shard {shard_id}"


class Identified:
    """A target that can say which database it means."""

    _identify: Callable[[], Optional[int]]

    @property
    def shard_id(self) -> Optional[int]:
        """The shard that a call would go to by the map as it is now; None for the
        global database. No I/O.

        Raises:
            RoutingError: The target is a key that has not been looked up yet: see
                ``shard_id_of``; or it has no shard.
        """
        return self._identify()

    @property
    def name(self) -> str:
        """``"global"`` or ``"shard 7"``; as ``shard_id``."""
        return database_name(self._identify())
