"""Waiting until the databases of a service respond."""

import time
from typing import Any, Callable, Dict, Iterable, List, Literal, Optional, Union

from .. import deadlines, errors
from ..execution import retry, steps
from ..execution.detached import DetachedExecutor
from ..protocol.statements import Statement
from . import routing
from .lifecycle import ServiceLifecycle

#: What must respond: all shards in service, no shard, a number of shards, or these ids.
Require = Union[Literal["all", "global"], int, Iterable[int]]

#: Why a database does not respond, or None if it does, by shard id; the key of the
#: global database is None.
Failures = Dict[Optional[int], Optional[str]]

#: Timeout of one round of probes, in seconds.
ATTEMPT_TIMEOUT = 5.0


def checked(require: object) -> Union[str, int, List[int]]:
    """Validate ``require``.

    Returns:
        It as a word, a number or a sorted list of shard ids.

    Raises:
        ParameterError: It is none of these.
    """
    if require in ("all", "global"):
        return str(require)
    if isinstance(require, int) and not isinstance(require, bool) and require >= 0:
        return require
    if isinstance(require, (str, bytes, bool, int)) or not isinstance(require, Iterable):
        raise errors.ParameterError(
            f"require must be 'all', 'global', a number of shards or shard ids, not {require!r}"
        )
    return sorted({routing.shard_id_of(each) for each in require})


def wait_ready(
    lifecycle: ServiceLifecycle,
    exclusive: Callable[[steps.Plan[None]], steps.Step],
    timeout: float,
    require: object,
    clock: Callable[[], float] = time.monotonic,
) -> steps.Plan[None]:
    """Open the service if it is not open, and wait until the required databases
    respond.

    Args:
        lifecycle: The service's lifecycle.
        exclusive: Makes the step that runs a plan under the service's lock.
        timeout: Seconds to wait.
        require: What must respond, as for ``checked``.
        clock: Returns seconds.

    Raises:
        NotReady: They did not respond in time.
    """
    wanted = checked(require)
    until = clock() + deadlines.seconds(timeout)
    attempt = 0
    failures: Failures = {}
    while True:
        limit = min(until, clock() + ATTEMPT_TIMEOUT)
        found = yield from _outcomes(lifecycle, exclusive, wanted, limit)
        failures = reasons_of(found, failures if limit == until else {})
        missing = unmet(wanted, failures)
        if missing is None:
            return
        if clock() >= until:
            raise errors.NotReady(f"not ready after {timeout:g} s: {missing}")
        yield steps.Sleep(min(retry.backoff(attempt, base=0.1, cap=1.0), max(0.0, until - clock())))
        attempt += 1


def _outcomes(
    lifecycle: ServiceLifecycle,
    exclusive: Callable[[steps.Plan[None]], steps.Step],
    wanted: Union[str, int, List[int]],
    until: float,
) -> steps.Plan[Dict[Optional[int], Any]]:
    """Probe each database; return the results or exceptions by shard id (None for the
    global database).
    """
    try:
        if lifecycle.topology is None:
            yield exclusive(lifecycle.start())
        elif isinstance(wanted, list) and not set(wanted) <= set(lifecycle.loaded.shards):
            yield exclusive(lifecycle.refresh(ATTEMPT_TIMEOUT))
        topology = lifecycle.require_open()
    except errors.Error as error:
        return {None: error}
    found: Dict[Optional[int], Any] = {
        shard_id: errors.shard_unavailable(shard_id, f"it is {shard.status.value}")
        for shard_id, shard in topology.shard_map.shards.items()
        if isinstance(wanted, list)
    }
    probe = Statement("SELECT 1")
    clients = topology.all_clients
    outcomes = yield steps.Gather(
        tuple([steps.Execute(DetachedExecutor(each), probe, until) for each in clients])
    )
    found.update({client.shard_id: each for client, each in zip(clients, outcomes)})
    return found


def reasons_of(outcomes: Dict[Optional[int], Any], before: Failures) -> Failures:
    """Return why each database does not respond, or None if it does.

    Args:
        outcomes: The results or exceptions of the probes.
        before: The previous reasons, which are kept where a probe ran into the overall
            deadline and so has no result of its own.
    """
    found: Failures = {}
    for shard_id, outcome in outcomes.items():
        late = isinstance(outcome, errors.DeadlineExceeded)
        failed_before = before.get(shard_id) is not None
        if isinstance(outcome, BaseException) and shard_id in before and (late or failed_before):
            found[shard_id] = before[shard_id]
        elif isinstance(outcome, BaseException):
            found[shard_id] = getattr(outcome, "reason", None) or str(outcome)
        else:
            found[shard_id] = None
    return found


def unmet(wanted: Union[str, int, List[int]], failures: Failures) -> Optional[str]:
    """Return the required databases that do not respond, as text; None if all do."""
    reasons = [f"global: {failures[None]}"] if failures.get(None) else []
    shards = dict(sorted(_shards(failures).items()))
    if isinstance(wanted, int):
        answering = sum(reason is None for reason in shards.values())
        if answering < wanted:
            reasons.append(f"{answering} of {wanted} shards answer")
            reasons += [f"shard {key}: {reason}" for key, reason in shards.items() if reason]
    elif wanted != "global":
        for shard_id in shards if isinstance(wanted, str) else wanted:
            reason = shards.get(shard_id, "it is not in the shard table")
            if reason is not None:
                reasons.append(f"shard {shard_id}: {reason}")
    return "; ".join(reasons) or None


def _shards(failures: Failures) -> Dict[int, Optional[str]]:
    return {key: reason for key, reason in failures.items() if key is not None}
