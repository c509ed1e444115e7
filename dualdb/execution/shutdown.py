"""Closing pools, with or without waiting for the work in progress."""

import time
from typing import Callable, Optional, Tuple

from .. import deadlines
from .steps import AbortInUse, Close, Plan, Pooled, WaitForKills, WaitUnused

#: Seconds that closing waits for what callers have given up to be ended on the server.
KILL_GRACE = 2.0


def closing(
    clients: Tuple[Pooled, ...],
    timeout: Optional[float],
    clock: Callable[[], float] = time.monotonic,
) -> Plan[None]:
    """Close pools.

    With a ``timeout`` in seconds, wait that long for the work in progress and then
    break what is left of it.
    """
    until = None if timeout is None else clock() + deadlines.seconds(timeout)
    # First what cannot be interrupted: a task that is cancelled while it waits has
    # closed its pools.
    yield Close(clients)
    if until is not None:
        yield WaitUnused(clients, until)
        yield AbortInUse(clients)
        yield WaitUnused(clients, clock() + KILL_GRACE)
    yield WaitForKills(clients)
