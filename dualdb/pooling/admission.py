"""How many calls of one database are in progress at most; another is refused at once.

One slow database holds only so many threads or tasks of its process, so that the calls
of the others go on. Calls of a lower priority are refused first.
"""

from contextvars import ContextVar
from typing import Literal, Optional, Tuple

from .. import blocks, errors

#: "batch" is refused while half of the limit is in use.
Priority = Literal["normal", "batch"]

#: The share of the limit that calls of the priority "batch" may use.
BATCH_SHARE = 0.5

#: Seconds after which a refused call is worth another attempt.
RETRY_AFTER = 0.1


class PriorityBlock:
    """A block that gives its calls a priority; see ``priority``.

    Args:
        priority: The priority.

    Raises:
        ParameterError: There is no such priority.
    """

    def __init__(self, priority: Priority) -> None:
        if priority not in ("normal", "batch"):
            raise errors.ParameterError(f"priority must be 'normal' or 'batch', not {priority!r}")
        self.priority = priority
        self._open = False

    @property
    def is_open(self) -> bool:
        """It has begun, and not ended, in whichever context."""
        return self._open

    def __enter__(self) -> "PriorityBlock":
        if self._open:
            raise errors.InterfaceError("a priority block cannot be entered while it is open")
        self._open = True
        _priorities.set((*_priorities.get(), self))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._open = False
        _priorities.set(tuple([each for each in _priorities.get() if each.is_open]))


_priorities: ContextVar[Tuple[PriorityBlock, ...]] = blocks.variable("dualdb_priority", ())


def current_priority() -> Priority:
    """Return the priority of the caller's innermost block."""
    found = [each.priority for each in _priorities.get() if each.is_open]
    return found[-1] if found else "normal"


class Admission:
    """The limit of one database.

    Args:
        most: Calls in progress, those included that wait for a connection.

    Attributes:
        refused: How many were refused.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.refused = 0

    def admits(self, load: int) -> bool:
        """Return whether one more call may begin.

        Args:
            load: The calls in progress.
        """
        if load >= self._most:
            return False
        below_batch_share = load < max(1, int(self._most * BATCH_SHARE))
        return below_batch_share or current_priority() != "batch"

    def check(self, load: int, name: str, shard_id: Optional[int]) -> None:
        """Check that one more call may begin.

        Args:
            load: The calls in progress.
            name: The name of the database.
            shard_id: The shard; None for another database.

        Raises:
            Overloaded: It may not.
        """
        if self.admits(load):
            return
        self.refused += 1
        error = errors.Overloaded(
            f"{name} has {load} calls in progress, of {self._most} (max_in_flight); "
            f"this one has the priority {current_priority()}"
        ).with_context(name, shard_id, sent=False)
        error.retry_after = RETRY_AFTER
        raise error
