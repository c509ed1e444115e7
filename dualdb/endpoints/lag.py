"""How far replicas are behind, by the positions of their primary at known times.

No clock of a server is compared, nothing is written, and an ordinary account may ask.
"""

from collections import deque
from typing import Deque, Optional, Tuple

from .gtid import GtidKind, Position, parse_position

#: Asks any server for its position. MariaDB skips the first comment, MySQL the second.
ASK_POSITION = (
    "SELECT CONNECTION_ID() AS id /*!80000 , 'gtid' AS kind, @@global.gtid_executed AS position */ "
    "/*M!100000 , IF(@@wsrep_on, 'wsrep', 'mariadb_gtid') AS kind, "
    "@@global.gtid_current_pos AS position */"
)

#: The most positions of a primary that are kept.
_MOST = 900


class PrimaryHistory:
    """When a primary was at which position."""

    def __init__(self) -> None:
        self._known: Deque[Tuple[float, Position]] = deque(maxlen=_MOST)

    def record(self, at: float, position: Position) -> None:
        """Record a position.

        Args:
            at: The time after the primary has responded.
            position: Its position then.
        """
        if not self._known or self._known[-1][1] != position:
            self._known.append((at, position))

    def lag_of(self, applied: Position, now: float) -> Optional[float]:
        """Return how many seconds a replica is behind.

        Args:
            applied: What it has applied.
            now: The time before it was asked.

        Returns:
            The time since the primary was first seen at a position that the replica has
            not reached; 0 if it has reached the last. None if it has reached none that
            is known.
        """
        missing = now
        for at, position in reversed(self._known):
            if applied.covers(position):
                return max(0.0, now - missing)
            missing = at
        return None

    def least_lag_of(self, applied: Position, now: float) -> float:
        """Return how many seconds a replica is behind at least.

        Args:
            applied: What it has applied.
            now: The time before it was asked.

        Returns:
            As ``lag_of``; the time since the primary was first asked if the replica has
            reached no position that is known.
        """
        lag = self.lag_of(applied, now)
        if lag is not None:
            return lag
        return max(0.0, now - self._known[0][0]) if self._known else 0.0


def read_position(kind: object, text: object) -> Optional[Position]:
    """Return the position in an answer to ``ASK_POSITION``; None if the server has
    none.
    """
    if kind not in ("gtid", "mariadb_gtid"):
        return None
    known: GtidKind = "gtid" if kind == "gtid" else "mariadb_gtid"
    return parse_position(known, str(text or "").replace("\n", ""))
