"""Which shard a session or an id means, and what an absent shard means."""

import operator
from typing import Any, Literal, Optional

from .. import errors
from .shard_map import ShardMap, Status

#: What a session whose shard is absent (not in the table, or inactive) gets: the global
#: database, or ShardNotFound.
AbsentShard = Literal["global", "error"]


def shard_of(client_session: Any) -> Optional[int]:
    """The shard a client session means: its ``.session.shard_id``; None where there is
    no session, no ``.session`` or no shard.

    Told by type and not by truth: 0 is a shard like any other.

    Raises:
        ParameterError: the shard_id is neither None nor a whole number. Guessing would
            send a user's rows to another's database.
    """
    session = getattr(client_session, "session", None)
    value = getattr(session, "shard_id", None)
    return None if value is None else shard_id_of(value)


def shard_id_of(value: Any) -> int:
    """A shard's id as an int; anything that is an integer by ``__index__`` is taken,
    except a bool.

    Raises:
        ParameterError: anything else.
    """
    if type(value) is int:
        return value
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise errors.ParameterError(
            f"a shard_id is an int, not {value!r} ({type(value).__name__})"
        ) from None


def choose(
    shard_map: ShardMap,
    shard_id: Optional[int],
    *,
    absent: AbsentShard,
    named: bool = False,
    retry_after: Optional[float] = None,
) -> Optional[int]:
    """Where a call for ``shard_id`` goes: that shard's id, or None for the global
    database.

    Args:
        absent: what becomes of a session whose shard is absent.
        named: True if the caller named the shard outright and so can mean no other
            database.
        retry_after: seconds after which a suspended shard may be back.

    Raises:
        ShardUnavailable: the shard is suspended or its row cannot be used, or it was
            named and does not exist.
        ShardNotFound: the session's shard is absent and ``absent`` is "error".
    """
    if shard_id is None:
        return None
    shard = shard_map.shards.get(shard_id)
    if shard is None or shard.status is Status.INACTIVE:
        reason = "it is not in the shard table" if shard is None else "it is inactive"
        if named:
            raise errors.shard_unavailable(shard_id, reason)
        if absent == "error":
            raise errors.ShardNotFound(f"Shard {shard_id} not found: {reason}").with_context(
                f"shard {shard_id}", shard_id, sent=False
            )
        return None
    if shard.status is Status.MAINTENANCE:
        raise errors.shard_unavailable(shard_id, "it is in maintenance", retry_after)
    if shard.status is Status.INVALID:
        raise errors.shard_unavailable(
            shard_id, f"its row cannot be used: {shard.reason}", retry_after
        )
    return shard_id
