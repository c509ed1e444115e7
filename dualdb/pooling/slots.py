"""Who may hold a connection: the bookkeeping both pools share.

Pure; the caller brings the lock and does the waiting.
"""

from collections import deque
from typing import Deque, Generic, Hashable, List, Optional, Set, Tuple, TypeVar

from .. import errors

W = TypeVar("W")


class Slots(Generic[W]):
    """At most ``limit`` holders at once; those who wait are served in the order they
    came.

    A slot that is given back while somebody waits passes to the first of them and is
    never free in between, so a newcomer cannot overtake. A slot is its holder's entry
    in a set: to free it twice does nothing. ``W`` is whatever the caller wakes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._holders: Set[Hashable] = set()
        self._waiting: Deque[Tuple[W, Hashable]] = deque()

    @property
    def in_use(self) -> int:
        """How many slots are taken."""
        return len(self._holders)

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._waiting)

    def take(self, holder: Hashable) -> bool:
        """Take a slot if one is free; otherwise ``queue`` for one."""
        if len(self._holders) < self.limit:
            self._holders.add(holder)
            return True
        return False

    def queue(self, waiter: W, holder: Hashable) -> None:
        """Stand in line. The slot is yours when ``give`` has returned this waiter."""
        self._waiting.append((waiter, holder))

    def give(self, holder: Hashable) -> Optional[W]:
        """Give a slot back.

        Returns:
            Who has it now and is to be woken and then passed to ``served``; None where
            the slot is free.
        """
        if not self._waiting or holder not in self._holders:
            self._holders.discard(holder)
            return None
        waiter, next_holder = self._waiting[0]
        self._holders.add(next_holder)
        self._holders.discard(holder)
        return waiter

    def served(self, waiter: W) -> None:
        """The waiter has been woken and leaves the line."""
        if self._waiting and self._waiting[0][0] is waiter:
            self._waiting.popleft()

    def withdraw(self, waiter: W) -> bool:
        """Stop waiting.

        Returns:
            False: too late, the waiter has a slot, which must be used or given back.
        """
        for entry in self._waiting:
            if entry[0] is waiter:
                self._waiting.remove(entry)
                return entry[1] not in self._holders
        return False

    def dismiss(self) -> List[W]:
        """Take everybody who waits out of the line, without a slot: the pool closes."""
        waiters = [waiter for waiter, _ in self._waiting]
        self._waiting.clear()
        return waiters

    def timeout(self, name: str, shard_id: Optional[int], waited: float) -> errors.PoolTimeout:
        """The error for one who has waited too long, with the figures that say why."""
        return errors.PoolTimeout(
            f"no connection to {name} became free within {waited:.2f} s: "
            f"{self.in_use} of {self.limit} are in use, {self.waiting} more callers wait"
        ).with_context(name, shard_id, sent=False)
