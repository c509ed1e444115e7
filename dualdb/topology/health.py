"""Checking the health of a service, in a time that no server can extend."""

import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from .. import deadlines, errors
from ..execution import steps
from ..execution.detached import DetachedExecutor
from ..observability.health import (
    DatabaseHealth,
    Facts,
    HealthReport,
    database_health,
    health_report,
)
from ..pooling.base import PoolStats
from ..protocol.statements import Statement
from .lifecycle import ServiceLifecycle
from .manager import Topology
from .readiness import Failures, checked, unmet

#: Seconds for which the outcome of the last probes is used again.
CACHED = 1.0
#: Databases that are probed at the same time.
_CONCURRENCY = 128


class _Probes(NamedTuple):
    """The outcomes of probes.

    Attributes:
        began: When they began, by the clock.
        topology: The topology whose databases were probed.
        outcomes: By shard id (None for the global database): the seconds it took to
            respond, or the exception; nothing without a response in time.
    """

    began: float
    topology: Topology
    outcomes: Dict[Optional[int], Any]


class HealthCheck:
    """Checks the health of a service.

    Args:
        lifecycle: The service's lifecycle.
        clock: Returns seconds.
    """

    def __init__(
        self, lifecycle: ServiceLifecycle, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lifecycle = lifecycle
        self._clock = clock
        self._last: Optional[_Probes] = None

    def check(self, *, deep: bool, timeout: float, require: object) -> steps.Plan[HealthReport]:
        """Return a report.

        Args:
            deep: Ask each database, in place of using what is known of it.
            timeout: Seconds for that.
            require: What has to respond for the service to be ready.

        Raises:
            ParameterError: ``timeout`` or ``require`` is none.
        """
        wanted = checked(require)
        seconds = deadlines.seconds(timeout)
        topology = self._lifecycle.topology
        databases: Dict[str, DatabaseHealth] = {}
        if topology is not None:
            probes = (yield from self._probe(topology, seconds)) if deep else None
            databases = _databases(topology, probes, seconds)
        failures: Failures = {
            None if name == "global" else int(name[len("shard ") :]): each.reason
            for name, each in databases.items()
            if each.state != "suspended" or isinstance(wanted, list)
        }
        status = self._lifecycle.status()
        facts = Facts(
            topology is not None,
            self._lifecycle.maintenance.silent_for(),
            unmet(wanted, failures),
            status.version,
            status.age,
            status.failure,
            deep,
        )
        return health_report(facts, databases)

    def _probe(self, topology: Topology, seconds: float) -> steps.Plan[_Probes]:
        last = self._last
        now = self._clock()
        if last is not None and last.topology is topology and now - last.began < CACHED:
            return last
        probes = _Probes(now, topology, {})
        # a little earlier, so that a probe says why it failed
        limit = now + 0.9 * seconds
        members: List[steps.Step] = [
            steps.RunPlan(_probe_one(DetachedExecutor(each), limit, probes.outcomes, self._clock))
            for each in topology.all_clients
        ]
        # a name server that does not respond could otherwise hold it up
        yield steps.RunWithin(steps.Gather(tuple(members), _CONCURRENCY), now + seconds)
        # a copy: what responds later does not change it
        self._last = probes._replace(outcomes=dict(probes.outcomes))
        return self._last


def _probe_one(
    executor: DetachedExecutor,
    until: float,
    outcomes: Dict[Optional[int], Any],
    clock: Callable[[], float],
) -> steps.Plan[None]:
    began = clock()
    try:
        yield steps.Execute(executor, Statement("SELECT 1"), until)
    except errors.Error as error:
        outcomes[executor.shard_id] = error
    else:
        outcomes[executor.shard_id] = clock() - began


def _databases(
    topology: Topology, probes: Optional[_Probes], timeout: float
) -> Dict[str, DatabaseHealth]:
    found = {"global": _health_of("active", None, topology.global_client, probes, timeout)}
    for shard_id, shard in sorted(topology.shard_map.shards.items()):
        client = topology.clients.get(shard_id)
        found[f"shard {shard_id}"] = _health_of(
            shard.status.value, shard.reason, client, probes, timeout
        )
    return found


def _no_response(pool: PoolStats, timeout: float) -> str:
    if pool.in_use < pool.limit:
        return f"it did not respond within {timeout:g} s"
    return f"no connection was free within {timeout:g} s: all {pool.limit} are in use"


def _health_of(
    status: str, reason: Optional[str], client: Any, probes: Optional[_Probes], timeout: float
) -> DatabaseHealth:
    if client is None:
        return database_health(status, reason or f"it is {status}")
    if probes is None:
        failure = client.failure
        return database_health(status, None if failure is None else errors.reason_of(failure))
    outcome = probes.outcomes.get(client.shard_id)
    if outcome is None:
        return database_health(status, _no_response(client.stats(), timeout))
    if isinstance(outcome, errors.Error):
        return database_health(status, errors.reason_of(outcome))
    return database_health(status, None, outcome)
