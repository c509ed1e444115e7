"""The loggers, and what log records have beside their text.

There is one logger for each room: ``dualdb.pool``, ``dualdb.topology``,
``dualdb.query`` and so on. Each record has the attribute ``event``, a name that does
not change, and where it is about one database ``target`` and ``shard_id``. No record
has parameters or literals of a statement.
"""

from typing import Any, Dict, Optional, Protocol


class Named(Protocol):
    """What has the name and the shard id of a database."""

    @property
    def name(self) -> str:
        """The name."""
        ...

    @property
    def shard_id(self) -> Optional[int]:
        """The shard id; None for another database."""
        ...


def about(event: str, place: Optional[Named] = None) -> Dict[str, Any]:
    """Return the ``extra`` of a log call.

    Args:
        event: The name of what has happened.
        place: What has the ``name`` and ``shard_id`` of a database: a client, a pool,
            an executor. None if it is not about one database.

    Example:
        >>> about("map_unreadable")
        {'event': 'map_unreadable'}
    """
    if place is None:
        return {"event": event}
    return {"event": event, "target": place.name, "shard_id": place.shard_id}
