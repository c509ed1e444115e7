"""Durable jobs: a row with a lease, and a function that does a step of it."""

from typing import Any, Callable, NamedTuple, Optional, Sequence

from .. import errors
from ..execution import steps
from .places import Databases
from .reports import Job


class JobTaken(errors.LockNotAvailable):
    """Somebody else runs the job."""


class JobLost(errors.LockLost):
    """The job's lease was over, and somebody else has taken it."""


class Options(NamedTuple):
    """The arguments of ``jobs.run``."""

    kind: str
    params: Any
    lease: float
    wait: bool
    throttle: Optional[float]
    max_steps: Optional[int]


def run(
    databases: Databases, name: str, function: Callable[[Job], Any], options: Options
) -> steps.Plan[Job]:
    raise NotImplementedError


def list_jobs(
    databases: Databases, state: Optional[str], kind: Optional[str]
) -> steps.Plan[Sequence[Job]]:
    raise NotImplementedError


def get(databases: Databases, name: str) -> steps.Plan[Optional[Job]]:
    raise NotImplementedError


def pause(databases: Databases, name: str) -> steps.Plan[Job]:
    raise NotImplementedError


def resume(databases: Databases, name: str) -> steps.Plan[Job]:
    raise NotImplementedError


def cancel(databases: Databases, name: str) -> steps.Plan[Job]:
    raise NotImplementedError


def throttle(databases: Databases, name: str, seconds: float) -> steps.Plan[Job]:
    raise NotImplementedError


def delete(databases: Databases, name: str, dry_run: bool) -> steps.Plan[Job]:
    raise NotImplementedError
