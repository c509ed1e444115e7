"""When a job should wait for servers: replicas that are behind, and busy primaries."""

import time
from typing import Any, Callable, List, NamedTuple, Optional, Sequence

from ..execution import steps
from ..topology.replicas import NO_REPLICAS, ReplicaSet, ask_positions, position_in
from .places import Databases, Place, Session

#: Seconds that replicas may be behind, and threads that may run on one server, unless
#: another limit is given.
MAX_LAG = 10.0
MAX_THREADS_RUNNING = 100

#: Seconds that a server has to answer.
ASK_TIMEOUT = 2.0


class Limits(NamedTuple):
    """When to wait.

    Attributes:
        max_threads_running: While more threads run on a server; None for no limit.
        max_lag: While replication is more seconds behind; None for no limit.
        lag: Gives the seconds; None to ask the replicas that the service has.
    """

    max_threads_running: Optional[int] = None
    max_lag: Optional[float] = None
    lag: Optional[Callable[[], Any]] = None


class Throttle:
    """Asks whether a job on some databases should wait.

    Args:
        databases: The service's.
        places: The databases.
        limits: When to wait.
        clock: Gives seconds.
    """

    def __init__(
        self,
        databases: Databases,
        places: Sequence[Place],
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._databases = databases
        self._places = places
        self._limits = limits
        self._clock = clock

    def why_wait(self) -> steps.Plan[str]:
        """Why to wait; empty if there is no reason."""
        limits = self._limits
        if limits.max_lag is not None:
            lag = yield from self._lag()
            if lag is not None and lag > limits.max_lag:
                return f"replication is {lag:.1f} s behind"
        if limits.max_threads_running is not None:
            for place in self._places:
                running = yield from self._databases.session(place, _threads_running)
                if running > limits.max_threads_running:
                    return f"{running} threads are running on shard {place.name}"
        return ""

    def _lag(self) -> steps.Plan[Optional[float]]:
        function = self._limits.lag
        if function is not None:
            lag: Optional[float] = yield steps.CallUser(lambda _: function(), None)
            return lag
        found: List[Optional[float]] = []
        lifecycle = self._databases.internals.lifecycle
        topology = lifecycle.require_open()
        sets = NO_REPLICAS if lifecycle.replicas is None else lifecycle.replicas.sets
        for place in self._places:
            replicas = sets.get(place.shard_id)
            primary = None if place.shard_id is None else topology.clients.get(place.shard_id)
            if replicas is not None and primary is not None:
                found.append((yield from replica_lag(replicas, primary, self._clock)))
        return max([each for each in found if each is not None], default=None)


def replica_lag(
    replicas: ReplicaSet, primary: Any, clock: Callable[[], float] = time.monotonic
) -> steps.Plan[Optional[float]]:
    """Ask a primary for its position, and then its replicas for theirs.

    A replica that does not answer is not waited for, nor is one without GTIDs.

    Args:
        replicas: The replicas, with the positions of their primary that are known.
        primary: The client of the primary.
        clock: Gives seconds.

    Returns:
        How many seconds the one is behind that is furthest; None if that is not known.
    """
    (answer,) = yield from ask_positions([primary], clock() + ASK_TIMEOUT)
    now = position_in(answer)
    if now is None:
        return None
    replicas.history.record(clock(), now)
    asked = clock()
    clients = [each.client for each in replicas.replicas]
    answers = yield from ask_positions(clients, asked + ASK_TIMEOUT)
    applied = map(position_in, answers)
    return max(
        [replicas.history.least_lag_of(each, asked) for each in applied if each is not None],
        default=None,
    )


def _threads_running(session: Session) -> steps.Plan[int]:
    rows = yield from session.query("SHOW GLOBAL STATUS LIKE 'Threads_running'")
    return int(rows[0]["Value"])
