"""Durable jobs: a row with a lease, and a function that does a step of it."""

import dataclasses
import inspect
import json
import logging
import math
import os
import secrets
import time
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple, TypeVar, Union

from .. import deadlines, errors
from ..execution import alongside, steps, verbs
from ..execution.detached import DetachedExecutor
from ..observability.logs import about
from ..results import Row, RowCount
from .leases import JobLease, lost
from .places import Databases
from .reports import Job, JobState, JobStep

T = TypeVar("T")

log = logging.getLogger("dualdb.operations")

TABLE = "dualdb_job"

DDL = f"""CREATE TABLE IF NOT EXISTS {TABLE} (
    name VARCHAR(190) PRIMARY KEY,
    kind VARCHAR(64) NOT NULL,
    state VARCHAR(10) NOT NULL,
    params LONGTEXT NOT NULL,
    position LONGTEXT NOT NULL,
    done BIGINT NOT NULL DEFAULT 0,
    total BIGINT NULL,
    message TEXT NOT NULL,
    owner VARCHAR(255) NULL,
    epoch BIGINT UNSIGNED NOT NULL DEFAULT 0,
    throttle DOUBLE NOT NULL DEFAULT 0,
    lease_until DATETIME(6) NULL,
    pause_requested TINYINT NOT NULL DEFAULT 0,
    cancel_requested TINYINT NOT NULL DEFAULT 0,
    created_at DATETIME(6) NOT NULL,
    updated_at DATETIME(6) NOT NULL
)"""

_NO_SUCH_TABLE = 1146
_NOW = "UTC_TIMESTAMP(6)"
#: Somebody runs the job, by the server's clock.
_IS_HELD = f"(state = 'running' AND lease_until >= {_NOW})"
#: The longest wait before a job that somebody else runs is looked at again, in seconds.
_LOOK_AGAIN = 1.0
#: The longest message, in characters.
_MESSAGE = 2000

#: Seconds to wait for a job that somebody else runs. True for no limit, False for none.
Wait = Union[bool, float]


class JobTaken(errors.LockNotAvailable):
    """Somebody else runs the job."""


class Options(NamedTuple):
    """The arguments of ``jobs.run``."""

    kind: str
    params: Any
    lease: float
    wait: Wait
    throttle: Optional[float]
    max_steps: Optional[int]
    dry_run: bool = False


class _Table:
    """The rows of the jobs, outside of whatever transaction the caller is in."""

    def __init__(self, databases: Databases) -> None:
        self._lifecycle = databases.internals.lifecycle

    def _route(self, until: Optional[float] = None) -> steps.Plan[steps.Executor]:
        yield from ()
        return DetachedExecutor(self._lifecycle.require_open().global_client)

    def make(self, name: str, kind: str, params: str) -> steps.Plan[None]:
        """Make a job, if there is none of its name, and the table if it is missing."""
        sql = (
            f"INSERT IGNORE INTO {TABLE} (name, kind, state, params, position, message, "
            f"created_at, updated_at) VALUES (%s, %s, 'ready', %s, 'null', '', {_NOW}, {_NOW})"
        )
        try:
            yield from self.execute(sql, name, kind, params)
        except errors.ProgrammingError as error:
            if error.errno != _NO_SUCH_TABLE:
                raise
            yield from self.execute(DDL)
            yield from self.execute(sql, name, kind, params)

    def execute(self, sql: str, *params: object) -> steps.Plan[RowCount]:
        return (yield from verbs.execute(self._route, sql, params))

    def rows(self, condition: str, *params: object) -> steps.Plan[List[Job]]:
        sql = (
            f"SELECT *, TIMESTAMPDIFF(MICROSECOND, {_NOW}, lease_until) AS lease_left "
            f"FROM {TABLE} WHERE {condition} ORDER BY created_at DESC, name"
        )
        try:
            found = yield from verbs.query(self._route, sql, params)
        except errors.ProgrammingError as error:
            if error.errno != _NO_SUCH_TABLE:
                raise
            return []
        return [_job(row) for row in found]

    def job(self, name: str) -> steps.Plan[Optional[Job]]:
        found = yield from self.rows("name = %s", name)
        return found[0] if found else None

    def known(self, name: str) -> steps.Plan[Job]:
        job = yield from self.job(name)
        if job is None:
            raise errors.ParameterError(f"there is no job {name!r}")
        return job


def _job(row: Row) -> Job:
    left = row["lease_left"]
    state = JobState(row["state"])
    return Job(
        row["name"],
        row["kind"],
        state,
        json.loads(row["params"]),
        json.loads(row["position"]),
        row["done"],
        row["total"],
        row["message"],
        row["owner"],
        row["epoch"],
        row["throttle"],
        float(left) / 1e6 if left is not None and state is JobState.RUNNING else None,
        bool(row["pause_requested"]),
        row["created_at"],
        row["updated_at"],
    )


def _encoded(value: object, what: str) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise errors.ParameterError(f"a job's {what} must be what JSON can hold: {error}") from None


def run(
    databases: Databases,
    name: str,
    function: Callable[[Job], Any],
    options: Options,
    *,
    is_plan: bool = False,
) -> steps.Plan[Job]:
    """Run a job; see ``Jobs.run``. With ``is_plan`` the function makes a plan of the
    step.
    """
    if not isinstance(name, str) or not 0 < len(name) <= 190:
        raise errors.ParameterError(f"a job's name is a str of 1 to 190 characters, not {name!r}")
    if not deadlines.seconds(options.lease):
        raise errors.ParameterError("lease must be a number of seconds above 0")
    wait_seconds(options.wait)
    table = _Table(databases)
    params = _encoded(options.params, "params")
    if options.dry_run:
        return (yield from _planned(table, name, options))
    yield from table.make(name, options.kind, params)
    job = yield from when_free(
        databases, name, options.wait, lambda: _take(table, name, options.lease)
    )
    worked = 0
    while job.state is JobState.RUNNING:
        job = dataclasses.replace(job, lease=JobLease(name, options.lease))
        if options.max_steps is not None and worked >= options.max_steps:
            return (yield from _leave(table, job, "ready", job.message))
        if worked:
            pause = job.throttle if options.throttle is None else options.throttle
            if pause:
                yield steps.Sleep(pause)
        try:
            work = function(job) if is_plan else _step(function, job)
            step = yield from _renewing(table, job, options, work)
            _encoded(step.position, "position")
        except Exception as error:
            text = f"{type(error).__name__}: {error}"[:_MESSAGE]
            yield from _leave(table, job, "failed", text)
            raise
        job = yield from _record(table, job, step, options)
        worked += 1
    return job


def _planned(table: _Table, name: str, options: Options) -> steps.Plan[Job]:
    """The job that would be run, as it is or would be made."""
    job = yield from table.job(name)
    if job is None:
        return Job(name, options.kind, JobState.READY, options.params)
    require_free(job, options.wait)
    return job


def _take(table: _Table, name: str, lease: float) -> steps.Plan[Job]:
    """Take the lease. Gives the job; not RUNNING if it is not to be run.

    Raises:
        JobTaken: Somebody else runs it.
    """
    owner = f"{os.uname().nodename}:{os.getpid()}:{secrets.token_hex(4)}"
    taken = yield from table.execute(
        f"UPDATE {TABLE} SET owner = %s, epoch = epoch + 1, "
        f"lease_until = {_NOW} + INTERVAL %s SECOND, updated_at = {_NOW}, state = 'running' "
        f"WHERE name = %s AND (state IN ('ready', 'failed') "
        f"OR (state = 'running' AND NOT {_IS_HELD}))",
        owner,
        lease,
        name,
    )
    job = yield from table.known(name)
    if not taken and job.state is JobState.RUNNING:
        raise _taken(job)
    return job


def wait_seconds(wait: Wait) -> float:
    """Seconds to wait for a job that somebody else runs.

    Raises:
        ParameterError: ``wait`` is no number of seconds, True or False.
    """
    if isinstance(wait, bool):
        return math.inf if wait else 0.0
    return deadlines.seconds(wait)


def when_free(
    databases: Databases, name: str, wait: Wait, attempt: Callable[[], steps.Plan[T]]
) -> steps.Plan[T]:
    """Perform a plan that takes a job, again and again while somebody else runs that.

    Args:
        databases: Where the job is.
        name: The job's name.
        wait: How long.
        attempt: Makes the plan. Where it raises JobTaken it has done nothing.

    Raises:
        JobTaken: Somebody still runs the job.
    """
    until = time.monotonic() + wait_seconds(wait)
    table = _Table(databases)
    while True:
        try:
            return (yield from attempt())
        except JobTaken:
            if time.monotonic() >= until:
                raise
        yield from _until_free(table, name, until)


def _until_free(table: _Table, name: str, until: float) -> steps.Plan[None]:
    """Wait until nobody runs a job, or until the time is over."""
    while True:
        job = yield from table.job(name)
        left = until - time.monotonic()
        if job is None or not _is_run(job) or left <= 0:
            return
        yield steps.Sleep(min(_LOOK_AGAIN, max(0.01, job.lease_seconds_left or 0.0), left))


def is_held(name: str, epoch: int) -> Tuple[str, Tuple[Any, ...]]:
    """A condition for a statement in the global database: nobody has taken the job over
    since it had this epoch, and nobody does before the statement's end. With its
    parameters.
    """
    condition = f"EXISTS (SELECT 1 FROM {TABLE} WHERE name = %s AND epoch = %s LOCK IN SHARE MODE)"
    return condition, (name, epoch)


def _step(function: Callable[[Job], Any], job: Job) -> steps.Plan[JobStep]:
    answer = function(job)
    if inspect.isawaitable(answer):
        answer = yield steps.AwaitUser(answer)
    if not isinstance(answer, JobStep):
        raise errors.ParameterError(
            f"a job's function returns a JobStep, not {type(answer).__name__}"
        )
    return answer


def _renewing(
    table: _Table, job: Job, options: Options, work: steps.Plan[JobStep]
) -> steps.Plan[JobStep]:
    """Perform a step, and renew the lease meanwhile."""
    lease = job.lease
    assert lease is not None

    def renew() -> steps.Plan[bool]:
        try:
            held = yield from table.execute(
                f"UPDATE {TABLE} SET lease_until = {_NOW} + INTERVAL %s SECOND "
                "WHERE name = %s AND epoch = %s AND state = 'running'",
                options.lease,
                job.name,
                job.epoch,
            )
        except errors.Error as error:
            log.warning(
                "the lease of the job %r was not renewed: %s",
                job.name,
                error,
                extra=about("job_not_renewed"),
            )
            return not lease.lost
        if held:
            lease.renewed()
        else:
            lease.taken()
        return bool(held)

    return (yield from alongside.repeated(work, renew, options.lease / 3))


def _record(table: _Table, job: Job, step: JobStep, options: Options) -> steps.Plan[Job]:
    """Record a step, renew the lease, and obey what somebody asked for meanwhile."""
    pause = job.throttle if options.throttle is None else options.throttle
    recorded = yield from table.execute(
        f"UPDATE {TABLE} SET position = %s, done = done + %s, total = COALESCE(%s, total), "
        f"message = %s, lease_until = {_NOW} + INTERVAL %s SECOND, updated_at = {_NOW}, "
        "state = CASE WHEN %s THEN 'done' WHEN cancel_requested THEN 'cancelled' "
        "WHEN pause_requested THEN 'paused' ELSE 'running' END, "
        "cancel_requested = 0, pause_requested = 0, owner = IF(state = 'running', owner, NULL) "
        "WHERE name = %s AND epoch = %s AND state = 'running'",
        _encoded(step.position, "position"),
        step.done,
        step.total,
        step.message[:_MESSAGE],
        options.lease + pause,
        step.position is None,
        job.name,
        job.epoch,
    )
    if not recorded:
        raise lost(job.name)
    return (yield from table.known(job.name))


def _leave(table: _Table, job: Job, state: str, message: str) -> steps.Plan[Job]:
    left = yield from table.execute(
        f"UPDATE {TABLE} SET state = %s, message = %s, owner = NULL, updated_at = {_NOW} "
        "WHERE name = %s AND epoch = %s AND state = 'running'",
        state,
        message,
        job.name,
        job.epoch,
    )
    if not left and state == "ready":
        raise lost(job.name)
    return (yield from table.known(job.name))


def give_up(databases: Databases, name: str, epoch: int) -> steps.Plan[None]:
    """Leave a job of this epoch to whoever goes on with it. When this is over, no
    statement has an effect that ``is_held`` guards.
    """
    yield from _Table(databases).execute(
        f"UPDATE {TABLE} SET epoch = epoch + 1, state = 'failed', owner = NULL, "
        f"message = 'interrupted', updated_at = {_NOW} WHERE name = %s AND epoch = %s",
        name,
        epoch,
    )


def list_jobs(
    databases: Databases, state: Optional[str], kind: Optional[str]
) -> steps.Plan[Sequence[Job]]:
    """Jobs; see ``Jobs.list``."""
    return (
        yield from _Table(databases).rows(
            "(%s IS NULL OR state = %s) AND (%s IS NULL OR kind = %s)", state, state, kind, kind
        )
    )


def get(databases: Databases, name: str) -> steps.Plan[Optional[Job]]:
    """One job; see ``Jobs.get``."""
    return (yield from _Table(databases).job(name))


def require_free(job: Job, wait: Wait) -> None:
    """Check that a job can be taken, now or after a wait.

    Raises:
        JobTaken: Somebody runs it, and is not waited for.
    """
    if not wait and _is_run(job):
        raise _taken(job)


def _taken(job: Job) -> JobTaken:
    left = max(0.0, job.lease_seconds_left or 0.0)
    return JobTaken(
        f"the job {job.name!r} is run by {job.owner}, whose lease is over in {left:.0f} s, unless "
        "it is renewed: wait for that (wait=, --wait on the command line), or pause the job"
    )


def _is_run(job: Job) -> bool:
    return job.lease_seconds_left is not None and job.lease_seconds_left >= 0


def pause(databases: Databases, name: str, dry_run: bool) -> steps.Plan[Job]:
    """Have a job pause; see ``Jobs.pause``."""
    return (yield from _ask(databases, name, _PAUSE, dry_run))


def cancel(databases: Databases, name: str, dry_run: bool) -> steps.Plan[Job]:
    """Have a job end; see ``Jobs.cancel``."""
    return (yield from _ask(databases, name, _CANCEL, dry_run))


class _Request(NamedTuple):
    """What somebody asks of a job: the column that says so while it runs, its state
    afterwards, and the states in which it is too late.
    """

    column: str
    state: str
    over: Tuple[str, ...]


_PAUSE = _Request("pause_requested", "paused", ("done", "cancelled"))
_CANCEL = _Request("cancel_requested", "cancelled", ("done",))


def _ask(databases: Databases, name: str, request: _Request, dry_run: bool) -> steps.Plan[Job]:
    """Ask whoever runs a job, or say it of one that nobody runs."""
    table = _Table(databases)
    job = yield from table.known(name)
    if job.state.value in request.over:
        raise errors.ParameterError(f"the job {name!r} is {job.state.value}")
    if dry_run:
        return job
    # an UPDATE sees what it has set before, so the state comes last
    yield from table.execute(
        f"UPDATE {TABLE} SET {request.column} = {_IS_HELD}, updated_at = {_NOW}, "
        f"state = IF({_IS_HELD}, state, %s) WHERE name = %s AND state NOT IN %s",
        request.state,
        name,
        request.over,
    )
    return (yield from table.known(name))


def resume(databases: Databases, name: str, dry_run: bool = False) -> steps.Plan[Job]:
    """Make a job ready; see ``Jobs.resume``."""
    table = _Table(databases)
    job = yield from table.known(name)
    if job.state is JobState.DONE:
        raise errors.ParameterError(f"the job {name!r} is done")
    if dry_run:
        return job
    yield from table.execute(
        f"UPDATE {TABLE} SET pause_requested = 0, cancel_requested = 0, updated_at = {_NOW}, "
        "state = IF(state = 'running', state, 'ready') WHERE name = %s AND state <> 'done'",
        name,
    )
    return (yield from table.known(name))


def throttle(databases: Databases, name: str, seconds: float, dry_run: bool) -> steps.Plan[Job]:
    """Set a job's throttle; see ``Jobs.throttle``."""
    deadlines.seconds(seconds)
    table = _Table(databases)
    job = yield from table.known(name)
    if dry_run:
        return job
    yield from table.execute(f"UPDATE {TABLE} SET throttle = %s WHERE name = %s", seconds, name)
    return (yield from table.known(name))


def delete(databases: Databases, name: str, dry_run: bool) -> steps.Plan[Job]:
    """Forget a job; see ``Jobs.delete``."""
    table = _Table(databases)
    job = yield from table.known(name)
    is_free = not _is_run(job)
    if not dry_run:
        sql = f"DELETE FROM {TABLE} WHERE name = %s AND NOT COALESCE({_IS_HELD}, 0)"
        is_free = bool((yield from table.execute(sql, name)))
    if not is_free:
        raise errors.ParameterError(f"the job {name!r} is run by {job.owner}")
    return job
