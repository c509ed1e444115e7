"""What the status page shows, collected without I/O. It has no secrets: neither
passwords nor values of statements.
"""

import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ... import fork_safety
from ...api.interfaces import database_client_of
from ...api.service_life import AnyService
from ...observability.digests import DigestTable
from ...observability.events import QueryEvent
from ...pooling.base import PoolStats
from ...topology.status import ServiceStatus, ShardStatus

#: Seconds between two samples of the pools, and how many are kept.
SAMPLE_INTERVAL = 2.0
MOST_SAMPLES = 90
#: How many kinds of errors and statements are shown.
MOST_ERRORS = 50
MOST_STATEMENTS = 20


class JobRow(NamedTuple):
    """A job, without its parameters."""

    name: str
    kind: str
    state: str
    done: int
    total: Optional[int]
    updated_at: Optional[str]


class ErrorRow(NamedTuple):
    """Failed calls of one kind: not the error's text, which may have values."""

    at: float
    target: str
    error: str
    code: Optional[int]
    statement: str
    times: int = 1


def job_rows(jobs: Sequence[Any]) -> List[JobRow]:
    """Return what is shown of jobs."""
    return [
        JobRow(
            job.name,
            job.kind,
            str(getattr(job.state, "value", job.state)),
            job.done,
            job.total,
            None if job.updated_at is None else f"{job.updated_at:%Y-%m-%d %H:%M:%S} UTC",
        )
        for job in jobs
    ]


class Recorder:
    """Remembers the last errors, the figures of statements and of the pools.

    Args:
        service: The service; calls are observed from now on.
        clock: Returns seconds.
    """

    def __init__(self, service: AnyService, clock: Callable[[], float] = time.monotonic) -> None:
        self._service = service
        self._clock = clock
        self._digests = DigestTable()
        #: By what they have in common, the last one last.
        self._errors: Dict[Tuple[object, ...], ErrorRow] = {}
        self._samples: Dict[str, Deque[Tuple[int, int]]] = {}
        self._sampled_at = 0.0
        self.calls = self.failures = 0
        #: The jobs as last read, and why they could not be read.
        self.jobs: List[JobRow] = []
        self.jobs_failure: Optional[str] = None
        self._forked()
        fork_safety.register(self)
        service.on("query", self._add)

    def _forked(self) -> None:
        self._lock = threading.Lock()
        self._digests.forked()

    def close(self) -> None:
        """Stop observing."""
        self._service.off("query", self._add)

    def _add(self, event: QueryEvent) -> None:
        self._digests.add(event)
        self.calls += 1
        if event.error is not None:
            self.failures += 1
            self._add_error(_error(event, time.time()))
        if self._clock() - self._sampled_at >= SAMPLE_INTERVAL:
            self._sample(self._service.stats())

    def _add_error(self, row: "ErrorRow") -> None:
        key = (row.target, row.error, row.code, row.statement)
        with self._lock:
            before = self._errors.pop(key, None)
            self._errors[key] = row if before is None else row._replace(times=before.times + 1)
            if len(self._errors) > MOST_ERRORS:
                del self._errors[next(iter(self._errors))]

    def _sample(self, stats: Mapping[Any, PoolStats]) -> None:
        """Add samples of all pools, if it is time; those of idle seconds as well."""
        now = self._clock()
        with self._lock:
            due = int((now - self._sampled_at) / SAMPLE_INTERVAL)
            if due < 1:
                return
            self._sampled_at = now
            gone = self._samples.keys() - {_name(key) for key in stats}
            for name in gone:
                del self._samples[name]
            for key, pool in stats.items():
                samples = self._samples.setdefault(_name(key), deque(maxlen=MOST_SAMPLES))
                samples.extend([(0, 0)] * min(due - 1, MOST_SAMPLES if samples else 0))
                samples.append((pool.in_use, pool.waiting))

    def snapshot(self) -> Dict[str, Any]:
        """Return what the page shows, as plain values."""
        status = self._service.status()
        stats = self._service.stats()
        self._sample(stats)
        databases = [self._database("global", _global_status(self._service, status))]
        databases += [
            self._database(f"shard {shard_id}", shard) for shard_id, shard in status.shards.items()
        ]
        return {
            "at": time.time(),
            "state": _state(status),
            "sample_interval": SAMPLE_INTERVAL,
            "map": {
                "version": status.version,
                "age": status.age,
                "failure": status.failure,
                "problems": list(status.problems),
            },
            "databases": databases,
            "draining": dict(status.draining),
            "calls": self.calls,
            "failures": self.failures,
            "errors": self._error_rows(),
            "statements": [each.as_dict() for each in self._digests.top(MOST_STATEMENTS)],
            "jobs": [job._asdict() for job in self.jobs],
            "jobs_failure": self.jobs_failure,
        }

    def _error_rows(self) -> List[Dict[str, Any]]:
        with self._lock:
            rows = list(self._errors.values())
        return [row._asdict() for row in reversed(rows)]

    def _database(self, name: str, shard: ShardStatus) -> Dict[str, Any]:
        with self._lock:
            samples = list(self._samples.get(name, ()))
        return {
            "name": name,
            "label": shard.name,
            "state": shard.state,
            "reason": shard.reason,
            "address": shard.address,
            "pool": None if shard.pool is None else shard.pool.as_dict(),
            "in_use": [each[0] for each in samples],
            # mostly nobody waits, and there may be many shards
            "waiting": [each[1] for each in samples] if any(each[1] for each in samples) else [],
        }


def _name(key: object) -> str:
    return "global" if key == "global" else f"shard {key}"


def _global_status(service: AnyService, status: ServiceStatus) -> ShardStatus:
    client = service.global_client
    failure = None if client is None else database_client_of(client).failure
    state = "active" if failure is None else "unreachable"
    return ShardStatus(
        "not open" if client is None else state,
        None if failure is None else str(failure.args[-1]),
        None,
        service.global_config.address,
        status.global_pool,
    )


def _state(status: ServiceStatus) -> str:
    if status.global_pool is None:
        return "not open"
    troubled = [s for s in status.shards.values() if s.state in ("unreachable", "invalid")]
    circuits = [status.global_pool.circuit == "open", status.failure is not None]
    return "degraded" if troubled or any(circuits) or status.problems else "ok"


def _error(event: QueryEvent, now: float) -> ErrorRow:
    return ErrorRow(
        now,
        event.target,
        type(event.error).__name__,
        getattr(event.error, "errno", None),
        event.statement,
    )
