"""Waiting until the databases of a service answer."""

import time
from typing import Any, Callable, Dict, Iterable, List, Literal, Optional, Union

from .. import deadlines, errors
from ..execution import retry, steps
from ..execution.detached import DetachedExecutor
from ..protocol.statements import Statement
from . import routing
from .lifecycle import ServiceLifecycle

#: What must answer: all shards in service, none of them, so many, or these.
Require = Union[Literal["all", "global"], int, Iterable[int]]

#: Seconds that one attempt may take, after which the others are looked at again.
ATTEMPT_TIMEOUT = 5.0


def checked(require: Any) -> Union[str, int, List[int]]:
    """What must answer, as a word, a number or a sorted list of shard ids.

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
    require: Any,
    clock: Callable[[], float] = time.monotonic,
) -> steps.Plan[None]:
    """Open the service if it is not open, and wait until what is required answers.

    Raises:
        NotReady: It did not within ``timeout`` seconds.
    """
    wanted, until, attempt = checked(require), clock() + deadlines.seconds(timeout), 0
    while True:
        limit = min(until, clock() + ATTEMPT_TIMEOUT)
        failures = yield from _failures(lifecycle, exclusive, wanted, limit)
        missing = unmet(wanted, failures)
        if missing is None:
            return
        if clock() >= until:
            raise errors.NotReady(f"not ready after {timeout:g} s: {missing}")
        yield steps.Sleep(min(retry.backoff(attempt, base=0.1, cap=1.0), max(0.0, until - clock())))
        attempt += 1


def _failures(
    lifecycle: ServiceLifecycle,
    exclusive: Callable[[steps.Plan[None]], steps.Step],
    wanted: Union[str, int, List[int]],
    until: float,
) -> steps.Plan[Dict[Optional[int], Optional[str]]]:
    """Why a database does not answer, None for one that does, by shard id; the global
    one's is None.
    """
    try:
        if lifecycle.topology is None:
            yield exclusive(lifecycle.start())
        elif isinstance(wanted, list) and not set(wanted) <= set(lifecycle.loaded.shards):
            yield exclusive(lifecycle.refresh(ATTEMPT_TIMEOUT))
        topology = lifecycle.require_open()
    except errors.Error as error:
        return {None: str(error)}
    clients: Dict[Optional[int], Any] = {None: topology.global_client}
    for each in topology.clients.values():
        clients[each.shard_id] = each
    probe = Statement("SELECT 1")
    outcomes = yield steps.Gather(
        tuple([steps.Execute(DetachedExecutor(each), probe, until) for each in clients.values()])
    )
    found: Dict[Optional[int], Optional[str]] = {
        shard_id: f"it is {shard.status.value}"
        for shard_id, shard in topology.shard_map.shards.items()
        if isinstance(wanted, list)
    }
    for shard_id, outcome in zip(clients, outcomes):
        failed = isinstance(outcome, BaseException)
        found[shard_id] = (getattr(outcome, "reason", None) or str(outcome)) if failed else None
    return found


def unmet(
    wanted: Union[str, int, List[int]], failures: Dict[Optional[int], Optional[str]]
) -> Optional[str]:
    """What is wanted and does not answer, in words; None if all of it does.

    ``failures`` has the reason of each database that does not answer, None for one that
    does; the global database's key is None.
    """
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


def _shards(failures: Dict[Optional[int], Optional[str]]) -> Dict[int, Optional[str]]:
    return {key: reason for key, reason in failures.items() if key is not None}
