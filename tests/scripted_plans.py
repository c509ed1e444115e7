"""Plans, run against scripts of (the step that must come, what it gives): no server, no
loop, no mocks.
"""

from types import SimpleNamespace
from typing import Any, Callable, List, Tuple

from dualdb.errors import (
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    Error,
    PoolTimeout,
)
from dualdb.execution.steps import Connect
from dualdb.observability.observers import NOBODY, Observers
from dualdb.pooling.retry_budget import RetryBudget
from dualdb.pooling.server_budget import Permit, PoolBudgets
from dualdb.results import ResultSet

ROWS = [ResultSet([{"a": 1, "b": 2}, {"a": 3, "b": 4}], ("a", "b"), 2, 0, 0)]
NONE = [ResultSet([], ("a",), 0, 0, 0)]
UPDATED = [ResultSet([], (), 5, 0, 0)]


class StepClock:
    """A clock on which each connect takes a while, and nothing else does.

    Args:
        seconds: How long.
    """

    def __init__(self, seconds: float) -> None:
        self.now = 0.0
        self._seconds = seconds

    def __call__(self) -> float:
        return self.now

    def run(self, step: Any) -> None:
        """Let the time of a step pass."""
        if isinstance(step, Connect):
            self.now += self._seconds


def follow(
    plan: Any, script: List[Tuple[Any, Any]], run: Callable[[Any], None] = lambda step: None
) -> Any:
    """Run a plan to its end: each step must be of the script's type, is given to
    ``run``, and gets the script's answer.
    """
    try:
        step = next(plan)
        for kind, response in script:
            assert isinstance(step, kind), step
            run(step)
            step = plan.throw(response) if isinstance(response, Exception) else plan.send(response)
    except StopIteration as done:
        return done.value
    raise AssertionError(f"one step more than the script has: {step}")


class PoolDouble:
    """What ``connecting`` sees of a pool that has no idle connections."""

    def __init__(self, config: Any, endpoints: Any, breaker: Any, shard_id: Any = 1) -> None:
        self.config = config
        self.endpoints = endpoints
        self.breaker = breaker
        self.name = "it"
        self.shard_id = shard_id
        self.on_outage = None
        self.observers = NOBODY
        self.retry_budget = RetryBudget()
        self.closed = False
        self.budgets = PoolBudgets(self)

    def take_idle(self) -> Any:
        return None

    def oldest_idle_at(self, budget: Any) -> Any:
        return None

    def take_oldest_idle(self, budget: Any) -> Any:
        return None

    def permit_refused(self, permit: Permit, waited: float, *, late: bool) -> Error:
        kind = DeadlineExceeded if late else PoolTimeout
        return kind(f"{permit.budget.server} is full")


def executor(**names: Any) -> Any:
    """A database's client, as far as plans use it."""
    made = SimpleNamespace(
        name="shard 1",
        shard_id=1,
        read_only=False,
        reads_only=False,
        write_refusal=None,
        replica=None,
        refresh_on_miss=None,
        observers=Observers(),
        current_transaction=lambda: None,
        record_insert_id=lambda lastrowid: None,
        take_retry_token=lambda: True,
    )
    vars(made).update(names)
    made.client = made
    return made


def place(inserted: Any = None) -> Any:
    return executor() if inserted is None else executor(record_insert_id=inserted)


def lost(in_transaction: bool = False, *, sent: bool = True) -> ConnectionLost:
    error = ConnectionLost(2013, "Lost connection").with_context("shard 1", 1, sent=sent)
    error.in_transaction = in_transaction
    return error


READ, WRITE = "SELECT 1", "UPDATE t SET a = 1"
DENIED = ConnectionFailed(1045, "denied")


def routed(find: Callable[[], Any]) -> Any:
    """The route that asks ``find`` for each call."""

    def route(until: Any = None) -> Any:
        yield from ()
        return find()

    return route
