"""Who may hold a connection: the bookkeeping both pools share.

Pure; the caller brings the lock and does the waiting.
"""

from collections import deque
from typing import Deque, Generic, List, Optional, TypeVar

from .. import errors

W = TypeVar("W")


class Slots(Generic[W]):
    """At most ``limit`` holders at once; those who wait are served in the order they
    came.

    A slot that is given back while somebody waits passes to the first of them and is
    never free in between, so a newcomer cannot
    overtake. ``W`` is whatever the caller wakes: an event in threads, a future in
        asyncio.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_use = 0
        self._waiting: Deque[W] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._waiting)

    def take(self) -> bool:
        """True: the slot is yours. False: none is free; ``queue`` for one."""
        if self.in_use < self.limit:
            self.in_use += 1
            return True
        return False

    def queue(self, waiter: W) -> None:
        """Stand in line. The slot is yours when ``give`` has returned this waiter."""
        self._waiting.append(waiter)

    def give(self) -> Optional[W]:
        """Give a slot back: to the waiter returned, who is to be woken, or to nobody."""
        if self._waiting:
            return self._waiting.popleft()
        self.in_use -= 1
        return None

    def withdraw(self, waiter: W) -> bool:
        """Stop waiting.

        False: too late, the slot has been given to this waiter, who must use it or give
        it back.
        """
        try:
            self._waiting.remove(waiter)
        except ValueError:
            return False
        return True

    def dismiss(self) -> List[W]:
        """Everybody who waits, taken out of the line without a slot: for a pool that
        closes.
        """
        waiters = list(self._waiting)
        self._waiting.clear()
        return waiters

    def timeout(self, name: str, shard_id: Optional[int], waited: float) -> errors.PoolTimeout:
        """The error for one who has waited too long, with the figures that say why."""
        return errors.PoolTimeout(
            f"no connection to {name} became free within {waited:.2f} s: "
            f"{self.in_use} of {self.limit} are in use, {self.waiting} more callers wait"
        ).with_context(name, shard_id, sent=False)
