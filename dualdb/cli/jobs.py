"""``jobs``: durable jobs, seen and steered."""

import json
from typing import Any, Callable, List, Optional

import click

from .. import errors
from ..operations import Job, JobState, JobStep
from . import settings
from .base import PROBLEM, USAGE, Group, State, command, dry_run_option, fail, pass_state, report
from .operations import note_holder, operations, wait_option
from .output import state, write_json, write_table
from .root import root


@root.group(cls=Group)
def jobs() -> None:
    """See, run, pause and resume durable jobs."""


def _show(found: List[Job]) -> None:
    write_table(
        ("job", "kind", "state", "done", "owner", "lease", "message"),
        [
            [
                each.name,
                each.kind,
                state(each.state.value),
                f"{each.done}" if each.total is None else f"{each.done}/{each.total}",
                each.owner or "",
                _lease(each.lease_seconds_left),
                each.message,
            ]
            for each in found
        ],
    )


def _lease(seconds: Optional[float]) -> str:
    """What is left of a lease; nobody renews one that is over."""
    if seconds is None:
        return ""
    return f"{seconds:.0f} s" if seconds > 0 else "over"


def _write(current: State, job: Job) -> None:
    if current.json:
        write_json(job.to_dict())
    else:
        _show([job])


@command(jobs, "dualdb jobs list\ndualdb jobs list --state failed --json", "list")
@click.option(
    "--state", "state_", type=click.Choice([each.value for each in JobState]), help="Only these."
)
@click.option("--kind", help="Only those of this kind.")
@pass_state
def list_jobs(current: State, state_: Optional[str], kind: Optional[str]) -> None:
    """List all jobs, the newest first."""
    found = list(operations(current).jobs.list(state=state_, kind=kind))
    if current.json:
        write_json([each.to_dict() for each in found])
    else:
        _show(found)


@command(jobs, "dualdb jobs get backfill --json")
@click.argument("name")
@pass_state
def get(current: State, name: str) -> None:
    """Show one job; exit with 1 if there is none."""
    found: Optional[Job] = operations(current).jobs.get(name)
    if found is None:
        fail(f"there is no job {name!r}", PROBLEM)
    _write(current, found)


@command(
    jobs,
    "dualdb jobs run backfill --function app.jobs:backfill_step --dry-run\n"
    "dualdb jobs run backfill --function app.jobs:backfill_step",
)
@click.argument("name")
@click.option(
    "--function",
    required=True,
    metavar="MODULE:FUNCTION",
    help="Does one step: takes the Job, returns a JobStep.",
)
@click.option("--kind", default="", help="A word for what it does.")
@click.option("--params", metavar="JSON", help="For the job's function.")
@click.option(
    "--lease",
    type=click.FloatRange(0.0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds after which somebody else may take it.",
)
@wait_option
@click.option("--throttle", type=click.FloatRange(0.0), help="Seconds between two steps.")
@click.option("--max-steps", type=click.IntRange(1), help="Leave it to others after so many.")
@dry_run_option
@pass_state
@click.pass_context
def run(
    ctx: click.Context,
    current: State,
    /,
    name: str,
    function: str,
    params: Optional[str],
    dry_run: bool,
    **options: Any,
) -> None:
    """Run a job until it is done, making it if there is none of this name.

    It goes on where the last step ended, whoever did that. Exits with 1 if it was
    paused or cancelled.
    """
    step = settings.function(function)
    try:
        value = None if params is None else json.loads(params)
    except ValueError as error:
        fail(f"--params is not JSON: {error}", USAGE)
    if dry_run:
        planned: Job = operations(current).jobs.run(
            name, step, params=value, dry_run=True, **options
        )
        _say_what_would_run(current, planned, function)
        return
    ops = operations(current)
    note_holder(ops, name, options["wait"])
    failed: List[Exception] = []

    def one_step(job: Job) -> JobStep:
        try:
            return step(job)  # type: ignore[no-any-return]
        except Exception as error:
            failed.append(error)
            raise

    try:
        job: Job = ops.jobs.run(name, one_step, params=value, **options)
    except Exception as error:
        if error not in failed or isinstance(error, errors.Error):
            raise
        text = " ".join(str(error).split())
        fail(f"{function} failed, and so has the job: {type(error).__name__}: {text}", PROBLEM)
    _write(current, job)
    if job.state not in (JobState.DONE, JobState.READY):
        ctx.exit(PROBLEM)


def _say_what_would_run(current: State, job: Job, function: str) -> None:
    is_new = job.created_at is None
    actions = []
    if is_new:
        actions.append(f"make the job {job.name} and run it by {function}")
    elif job.state is not JobState.DONE:
        actions.append(f"run {job.name} by {function} from where it is ({job.state.value})")
    elif not current.json:
        click.echo(f"{job.name} is done: nothing would run")
    report(current, actions, dry_run=True, job=None if is_new else job.to_dict())


def _change_job(
    current: State, name: str, dry_run: bool, action: str, change: Callable[[Any], Job]
) -> None:
    ops = operations(current)
    if ops.jobs.get(name) is None:
        fail(f"there is no job {name!r}", PROBLEM)
    found = change(ops.jobs)
    if not dry_run:
        _write(current, found)
    elif current.json:
        write_json({"dry_run": True, "actions": [action], "job": found.to_dict()})
    else:
        click.echo(f"would {action} (it is {found.state.value})")


@command(jobs, "dualdb jobs pause backfill")
@click.argument("name")
@dry_run_option
@pass_state
def pause(current: State, name: str, dry_run: bool) -> None:
    """Have a job stop after the step it is in."""
    _change_job(
        current, name, dry_run, f"pause {name}", lambda found: found.pause(name, dry_run=dry_run)
    )


@command(jobs, "dualdb jobs resume backfill")
@click.argument("name")
@dry_run_option
@pass_state
def resume(current: State, name: str, dry_run: bool) -> None:
    """Make a job ready that was paused, failed or cancelled. `jobs run` runs it."""
    _change_job(
        current, name, dry_run, f"resume {name}", lambda found: found.resume(name, dry_run=dry_run)
    )


@command(jobs, "dualdb jobs cancel backfill")
@click.argument("name")
@dry_run_option
@pass_state
def cancel(current: State, name: str, dry_run: bool) -> None:
    """Have a job end after the step it is in."""
    _change_job(
        current, name, dry_run, f"cancel {name}", lambda found: found.cancel(name, dry_run=dry_run)
    )


@command(jobs, "dualdb jobs throttle backfill 0.5")
@click.argument("name")
@click.argument("seconds", type=click.FloatRange(0.0))
@dry_run_option
@pass_state
def throttle(current: State, name: str, seconds: float, dry_run: bool) -> None:
    """Set how long a job waits between two steps, also while it runs."""
    action = f"have {name} wait {seconds:g} s between two steps"
    _change_job(
        current, name, dry_run, action, lambda found: found.throttle(name, seconds, dry_run=dry_run)
    )


@command(jobs, "dualdb jobs delete backfill")
@click.argument("name")
@dry_run_option
@pass_state
def delete(current: State, name: str, dry_run: bool) -> None:
    """Forget a job that nobody runs."""
    _change_job(
        current, name, dry_run, f"delete {name}", lambda found: found.delete(name, dry_run=dry_run)
    )
