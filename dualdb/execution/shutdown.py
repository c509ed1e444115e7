"""Closing pools, optionally after waiting for the work in progress."""

import time
from typing import Callable, Optional, Tuple

from .. import deadlines
from .steps import AbortInUse, Close, Plan, Pooled, WaitForKills, WaitUnused

#: Seconds that closing waits for abandoned statements to be killed on the server.
KILL_GRACE = 2.0


def closing(
    clients: Tuple[Pooled, ...],
    timeout: Optional[float],
    clock: Callable[[], float] = time.monotonic,
) -> Plan[None]:
    """Close pools.

    Args:
        clients: The clients whose pools are closed.
        timeout: Seconds to wait for the work in progress, which is then aborted; None
            neither waits nor aborts.
        clock: Returns seconds.
    """
    until = None if timeout is None else clock() + deadlines.seconds(timeout)
    # Uninterruptible step first: a task cancelled while waiting has closed its pools.
    yield Close(clients)
    clients = tuple([client for client in clients if client.has_pool])
    if until is not None:
        yield WaitUnused(clients, until)
        yield AbortInUse(clients)
        yield WaitUnused(clients, clock() + KILL_GRACE)
    yield WaitForKills(clients)
