"""Which replica serves a read. Pure: the random number is an argument."""

import itertools
import random
import threading
from typing import Any, Callable, Literal, Optional, Sequence

from .. import fork_safety
from .gtid import Position

#: How reads are spread over replicas. "least_in_flight": to the one with the fewest
#: calls in progress for its weight; "round_robin": in turn; "weighted": at random, by
#: weight; "latency": of two at random the one with the smaller expected latency.
BalancingPolicy = Literal["least_in_flight", "round_robin", "weighted", "latency"]

POLICIES = ("least_in_flight", "round_robin", "weighted", "latency")

#: The share of reads that may be sent to a second replica, and how many at once after
#: a time without any.
HEDGE_SHARE = 0.05
MOST_HEDGES = 5.0

#: The share of the last call in a replica's average latency.
_LAST = 0.2
#: The latency of a replica that has served no call, in seconds.
_UNMEASURED = 1e-4


class Replica:
    """What is known of one replica.

    Args:
        client: Its client; its pool says how many calls are in progress.
        weight: Its share of the reads beside the others'.

    Attributes:
        latency: The moving average of its calls, in seconds; None before the first.
        lag: How many seconds it is behind its primary; None if that is not known.
        lagging: It is too far behind.
        applied: What it is known to have applied.
        failure: Why it has left the rotation until it responds again; None if it has
            not.
    """

    __slots__ = ("applied", "client", "failure", "lag", "lagging", "latency", "weight")

    def __init__(self, client: Any, weight: float = 1.0) -> None:
        self.client = client
        self.weight = weight
        self.latency: Optional[float] = None
        self.lag: Optional[float] = None
        self.lagging = False
        self.applied: Optional[Position] = None
        self.failure: Optional[str] = None

    @property
    def reachable(self) -> bool:
        """It responded last time."""
        pool = self.client.pool
        return self.failure is None and pool.opened > 0 and pool.breaker.failure is None

    @property
    def usable(self) -> bool:
        """It is in the rotation."""
        return not self.lagging and self.weight > 0 and self.reachable

    @property
    def why_not(self) -> str:
        """Why it is not in the rotation."""
        if self.failure is not None:
            return self.failure
        if self.lagging:
            return "its lag is not known" if self.lag is None else f"it is {self.lag:.1f} s behind"
        if self.weight <= 0:
            return "its weight is 0"
        failure = self.client.pool.breaker.failure
        return "it has not been reached yet" if failure is None else str(failure)

    @property
    def in_flight(self) -> int:
        """Its calls in progress, and those that wait for a connection to it."""
        return int(self.client.pool.load)

    @property
    def expected(self) -> float:
        """Its average latency in seconds, or a small number."""
        return _UNMEASURED if self.latency is None else max(self.latency, 1e-6)

    def record_latency(self, seconds: float) -> None:
        """Record how long a call took."""
        known = self.latency
        self.latency = seconds if known is None else known + _LAST * (seconds - known)

    def record_applied(self, position: Position) -> None:
        """Record what it has applied at least."""
        known = self.applied
        self.applied = position if known is None else known.joined(position)


class HedgeBudget:
    """Limits how many reads are sent to a second replica."""

    def __init__(self) -> None:
        self._left = 0.0
        self._forked()
        fork_safety.register(self)

    def _forked(self) -> None:
        self._lock = threading.Lock()

    def earn(self) -> None:
        """Add the share of one read."""
        self._left = min(MOST_HEDGES, self._left + HEDGE_SHARE)

    def spend(self) -> bool:
        """Take one; False if the budget is exhausted."""
        with self._lock:
            if self._left < 1.0:
                return False
            self._left -= 1.0
            return True


class Balancer:
    """Chooses among replicas.

    Args:
        policy: How.
        spread: Returns a random number from 0 to 1.
    """

    def __init__(
        self, policy: BalancingPolicy, spread: Callable[[], float] = random.random
    ) -> None:
        if policy not in POLICIES:
            raise ValueError(f"policy must be one of {', '.join(POLICIES)}, not {policy!r}")
        self.policy = policy
        self._spread = spread
        self._turns = itertools.count()

    def choose(self, replicas: Sequence[Replica]) -> Replica:
        """Return the replica for a call.

        Args:
            replicas: Those in the rotation; at least one.
        """
        if len(replicas) == 1:
            return replicas[0]
        if self.policy == "round_robin":
            return replicas[next(self._turns) % len(replicas)]
        if self.policy == "weighted":
            return self._at_random(replicas, lambda each: each.weight)
        if self.policy == "latency":
            two = self._two_of(replicas)
            return min(two, key=lambda each: each.expected * (each.in_flight + 1))
        # Where equally many are in progress, slow ones get fewer.
        loads = [each.in_flight / each.weight for each in replicas]
        least = min(loads)
        idlest = [each for each, load in zip(replicas, loads) if load <= least]
        return self._at_random(idlest, lambda each: each.weight / each.expected)

    def _two_of(self, replicas: Sequence[Replica]) -> Sequence[Replica]:
        first = int(self._spread() * len(replicas)) % len(replicas)
        second = int(self._spread() * (len(replicas) - 1)) % (len(replicas) - 1)
        return replicas[first], replicas[second + (second >= first)]

    def _at_random(self, replicas: Sequence[Replica], share: Callable[[Replica], float]) -> Replica:
        shares = [share(each) for each in replicas]
        at = self._spread() * sum(shares)
        for each, size in zip(replicas, shares):
            at -= size
            if at < 0:
                return each
        return replicas[-1]
