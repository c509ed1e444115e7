"""The connection slots of a pool and their wait queue, shared by both implementations.

Pure: the caller holds the lock and does the waiting.
"""

from collections import OrderedDict
from typing import Generic, Hashable, List, Optional, Set, TypeVar

from .. import errors

W = TypeVar("W", bound=Hashable)


class Slots(Generic[W]):
    """A semaphore of ``limit`` slots with a first-in, first-out wait queue.

    A slot released while there are waiters passes directly to the first of them, so a
    newcomer cannot overtake. A slot is its holder's entry in a set, so releasing it
    twice has no effect. ``W`` is the type of the waiters, which the caller wakes.

    Args:
        limit: The number of slots.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._holders: Set[Hashable] = set()
        self._waiting: OrderedDict[W, Hashable] = OrderedDict()

    @property
    def in_use(self) -> int:
        """The number of taken slots."""
        return len(self._holders)

    @property
    def waiting(self) -> int:
        """The number of waiters."""
        return len(self._waiting)

    def has(self, holder: Hashable) -> bool:
        """Return whether a holder has a slot."""
        return holder in self._holders

    def take(self, holder: Hashable) -> bool:
        """Take a slot if one is free.

        Returns:
            False if none is free; then ``queue`` for one.
        """
        if len(self._holders) < self.limit:
            self._holders.add(holder)
            return True
        return False

    def queue(self, waiter: W, holder: Hashable) -> None:
        """Append a waiter. Its holder has the slot when ``give`` returns the waiter."""
        self._waiting[waiter] = holder

    def give(self, holder: Hashable) -> Optional[W]:
        """Release a slot.

        Returns:
            The waiter that has the slot now, to be woken and then passed to ``served``;
            None if the slot is free.
        """
        is_over = len(self._holders) > self.limit  # it was made smaller
        if not self._waiting or holder not in self._holders or is_over:
            self._holders.discard(holder)
            return None
        waiter = next(iter(self._waiting))
        self._holders.add(self._waiting[waiter])
        self._holders.discard(holder)
        return waiter

    def fill(self) -> Optional[W]:
        """Give a free slot to the first waiter, after the limit was made larger.

        Returns:
            The waiter, to be woken and then passed to ``served``; None if nobody waits
            or no slot is free.
        """
        if not self._waiting or len(self._holders) >= self.limit:
            return None
        waiter = next(iter(self._waiting))
        self._holders.add(self._waiting[waiter])
        return waiter

    def forget(self, holder: Hashable) -> Optional[W]:
        """Release the slot of a holder that is gone, who may still wait for one.

        Returns:
            As ``give``.
        """
        for waiter in [each for each, owner in self._waiting.items() if owner is holder]:
            self._waiting.pop(waiter, None)
        return self.give(holder)

    def served(self, waiter: W) -> None:
        """Remove a waiter that has been woken."""
        self._waiting.pop(waiter, None)

    def withdraw(self, waiter: W) -> bool:
        """Remove a waiter that stops waiting.

        Returns:
            False if it already has a slot, which must be used or released.
        """
        holder = self._waiting.pop(waiter, None)
        return holder is not None and holder not in self._holders

    def dismiss(self) -> List[W]:
        """Remove and return all waiters, without a slot, when the pool closes."""
        waiters = list(self._waiting)
        self._waiting.clear()
        return waiters

    def waiters(self) -> List[W]:
        """Return all waiters, in their order."""
        return list(self._waiting)

    def timeout(self, name: str, shard_id: Optional[int], waited: float) -> errors.PoolTimeout:
        """Make the error for a timed-out waiter, with the pool's usage."""
        return errors.PoolTimeout(
            f"no connection to {name} became free within {waited:.2f} s: "
            f"{self.in_use} of {self.limit} are in use, {self.waiting} more callers are waiting"
        ).with_context(name, shard_id, sent=False)
