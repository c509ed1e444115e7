"""The log of slow calls."""

import logging

from ..blocks import current_place
from .events import QueryEvent
from .query_call import ObservedCall

log = logging.getLogger("dualdb.query")


class SlowQueryLog:
    """Logs each call that takes long, with its statement and the line of its caller.

    Args:
        threshold: The seconds from which on a call is logged.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def add(self, event: QueryEvent) -> None:
        """Log a call if it was slow."""
        if event.seconds < self.threshold:
            return
        place = _place(event.call)
        outcome = f"{event.rows} rows" if event.error is None else type(event.error).__name__
        log.warning(
            "slow query on %s: %.3f s (%.3f s waiting for a connection), attempts: %d, %s, "
            "at %s: %s",
            event.target,
            event.seconds,
            event.waited,
            event.attempts,
            outcome,
            place,
            event.statement,
            extra={
                "event": "slow_query",
                "target": event.target,
                "shard_id": event.shard_id,
                "digest": event.digest,
                "waited": event.waited,
                "ran": event.ran,
                "attempts": event.attempts,
                "rows": event.rows,
                "place": place,
            },
        )


def _place(call: object) -> str:
    """Return the caller's file and line, found where the call was made."""
    found = None
    while isinstance(call, ObservedCall) and found is None:
        found = call.place
        call = call.parent
    return found or current_place()
