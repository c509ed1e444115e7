"""Plans, run against scripts of (the step that must come, what it gives): no server, no
loop, no mocks.
"""

from types import SimpleNamespace
from typing import Any, Callable, List, Tuple

from dualdb.errors import (
    ConnectionFailed,
    ConnectionLost,
)
from dualdb.observability.observers import Observers
from dualdb.results import ResultSet

ROWS = [ResultSet([{"a": 1, "b": 2}, {"a": 3, "b": 4}], ("a", "b"), 2, 0, 0)]
NONE = [ResultSet([], ("a",), 0, 0, 0)]
UPDATED = [ResultSet([], (), 5, 0, 0)]


def follow(plan: Any, script: List[Tuple[Any, Any]]) -> Any:
    """Run a plan to its end: each step must be of the script's type, and gets the
    script's answer.
    """
    try:
        step = next(plan)
        for kind, response in script:
            assert isinstance(step, kind), step
            step = plan.throw(response) if isinstance(response, Exception) else plan.send(response)
    except StopIteration as done:
        return done.value
    raise AssertionError(f"one step more than the script has: {step}")


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
