"""Explanations of routing decisions."""

import enum
from typing import NamedTuple, Optional

from ..api.identity import database_name
from ..topology.routing import AbsentShard
from ..topology.shard_map import Shard, Status


class RouteReason(enum.Enum):
    """The reason for the route of a call, or for refusing it."""

    #: No shard was requested: no session, no shard_id in it, or no argument at all.
    NO_SHARD = "no_shard"
    #: The shard is active.
    ACTIVE = "active"
    #: The shard takes known reads.
    READ_ONLY = "read_only"
    #: The last attempt to connect failed; the call tries again.
    UNREACHABLE = "unreachable"
    #: The shard is not in the map, or inactive, and sessions of such shards use the
    #: global database (``absent_shard="global"``).
    ABSENT = "absent"
    #: The same, and the call is refused.
    ABSENT_REFUSED = "absent_refused"
    #: The shard is suspended.
    MAINTENANCE = "maintenance"
    #: The shard is moving: the call waits until it has moved.
    MOVING = "moving"
    #: The row of the shard cannot be used.
    INVALID = "invalid"
    #: A transaction on another shard is open.
    OTHER_TRANSACTION = "other_transaction"
    #: A scope around this is locked to another database.
    LOCKED_SCOPE = "locked_scope"
    #: The key has not been looked up, or not lately: the call does so.
    KEY_NOT_CACHED = "key_not_cached"
    #: The key is known to have no shard.
    KEY_NOT_FOUND = "key_not_found"


class RouteExplanation(NamedTuple):
    """The route that a call would take now.

    Attributes:
        target: ``"global"`` or ``"shard 7"``; None if the call would wait or be
            refused, or if it is unknown without I/O.
        shard_id: The shard that was requested, or found by the key; None for none.
        reason: The reason.
        detail: The reason as text.
        map_version: The version of the shard map that was used.
    """

    target: Optional[str]
    shard_id: Optional[int]
    reason: RouteReason
    detail: str
    map_version: int


_STATUS_REASONS = {
    Status.ACTIVE: RouteReason.ACTIVE,
    Status.READONLY: RouteReason.READ_ONLY,
    Status.MAINTENANCE: RouteReason.MAINTENANCE,
    Status.MOVING: RouteReason.MOVING,
    Status.INVALID: RouteReason.INVALID,
}


def explain(
    shard: Optional[Shard],
    shard_id: Optional[int],
    version: int,
    *,
    named: bool,
    absent: AbsentShard,
    failure: Optional[str],
) -> RouteExplanation:
    """Explain a route, by the rules of ``routing.choose``.

    Args:
        shard: The shard; None if the map does not have it.
        shard_id: The requested shard.
        version: The version of the map.
        named: The caller named the shard explicitly.
        absent: The database of a session whose shard is absent.
        failure: The error of the last connect to the shard; None if it succeeded.
    """
    if shard_id is None:
        return RouteExplanation(
            "global", None, RouteReason.NO_SHARD, "no shard is requested", version
        )
    if shard is None or shard.status is Status.INACTIVE:
        state = "is not in the shard table" if shard is None else "is inactive"
        text = f"shard {shard_id} {state}"
        if named or absent == "error":
            return RouteExplanation(None, shard_id, RouteReason.ABSENT_REFUSED, text, version)
        text += ", and sessions of absent shards use the global database"
        return RouteExplanation("global", shard_id, RouteReason.ABSENT, text, version)
    reason = _STATUS_REASONS[shard.status]
    name: Optional[str] = database_name(shard_id)
    text = f"shard {shard_id} is {shard.status.value}"
    if not shard.in_service:
        name = None
        text += f": {shard.reason}" if shard.reason else ""
        text += ": the call waits" if shard.status is Status.MOVING else ""
    elif failure is not None:
        reason = RouteReason.UNREACHABLE
        text = f"{text}, but cannot be reached: {failure}"
    return RouteExplanation(name, shard_id, reason, text, version)
