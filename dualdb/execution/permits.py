"""Waiting for the permits of servers' budgets, before a host is connected to."""

from typing import Any, Callable, List, Optional, Tuple

from ..endpoints.state import Endpoint
from ..pooling.server_budget import Permit
from .steps import AwaitPermit, Plan, Pool

#: Seconds after which a call that waits looks for what an interrupted caller has left.
RECHECK_INTERVAL = 0.5


class Permits:
    """The permits of one call that opens a connection: at most one is held at a time,
    for the host that is connected to.

    Args:
        pool: The pool that needs the connection.
        until: The deadline, by ``clock``; None for no limit.
        clock: Returns seconds.

    Attributes:
        held: The permit of the host that is connected to; None without a budget.
        reused: A connection that came back to the pool meanwhile and is used instead.
    """

    def __init__(self, pool: Pool, until: Optional[float], clock: Callable[[], float]) -> None:
        self._pool = pool
        self._until = until
        self._clock = clock
        self._left = pool.config.pool_timeout
        self._full: List[Endpoint] = []
        self._requested: Tuple[Permit, ...] = ()
        self.held: Optional[Permit] = None
        self.reused: Any = None

    @property
    def lacking(self) -> bool:
        """Whether a host has been passed over, because its budget is used up."""
        return bool(self._full) and self.reused is None

    def take(self, endpoint: Endpoint) -> bool:
        """Return whether a host may be connected to now; it holds the permit then.

        Otherwise a connection that came back is ``reused``, or the host is one of those
        that ``wait`` waits for.
        """
        budget = self._pool.budgets.at(endpoint)
        if self.held is not None and self.held.budget is budget:
            return True
        self.give_back()
        if budget is None:
            return True
        self._requested = (budget.request(self._pool),)
        self._choose()
        if self.held is None and self.reused is None:
            self._full.append(endpoint)
        return self.held is not None

    def forget_lacking(self) -> None:
        """A host has been connected to: forget those that were passed over."""
        self._full = []

    def wait(self) -> Plan[float]:
        """Wait until one of the hosts that were passed over may be connected to, a
        connection has come back, or the pool has found another host.

        Returns:
            How long that took, in seconds.

        Raises:
            PoolTimeout: ``pool_timeout`` is over, all waits of the call together.
            DeadlineExceeded: The deadline has passed.
            ServiceNotOpen: The pool was closed.
        """
        pool, now = self._pool, self._clock()
        found = [pool.budgets.at(endpoint) for endpoint in self._full]
        self._full = []
        self._requested = tuple(
            [budget.request(pool) for budget in dict.fromkeys(found) if budget is not None]
        )
        began, ends = now, now + self._left
        late = self._until is not None and self._until < ends
        ends = ends if self._until is None else min(ends, self._until)
        while not any(permit.decided for permit in self._requested) and not pool.closed:
            if now >= ends:
                self.withdraw()  # the error counts the others that wait
                raise pool.permit_refused(self._requested[0], now - began, late=late)
            pause = min(RECHECK_INTERVAL, ends - now)
            yield AwaitPermit(self._requested, pause)
            now = self._clock()
            if now >= began + pause:
                self._recheck()
        self._left -= now - began
        first = self._requested[0]
        self._choose()
        if pool.closed and self.reused is None:
            raise pool.permit_refused(first, now - began, late=False)
        return now - began

    def give_back(self) -> None:
        """Give the permit back that is held, for another caller."""
        held = self.held
        self.held = None
        if held is not None:
            held.withdraw()
            held.budget.changed()

    def withdraw(self) -> None:
        """End, with a connection, which counts by itself, or without one. Takes no
        lock: the plan may be garbage-collected.
        """
        for permit in (self.held, *self._requested):
            if permit is not None:
                permit.withdraw()

    def _choose(self) -> None:
        """Keep the connection or the permit that was given first, and give back the
        others.
        """
        requested = self._requested
        for permit in requested:
            if self.reused is None:
                self.reused = permit.take_reused()
        granted = [permit for permit in requested if permit.granted]
        if granted and self.reused is None:
            self.held = granted[0]
        self._requested = ()
        for permit in requested:
            if permit is not self.held:
                permit.withdraw()
                permit.budget.changed()

    def _recheck(self) -> None:
        for permit in self._requested:
            permit.confirm()
            permit.budget.changed()
