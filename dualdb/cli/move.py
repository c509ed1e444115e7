"""``move``: tenants are moved between shards."""

from typing import Any, Callable, Optional, Tuple

import click

from ..operations import Job, MoveReport, PrepareReport, throttle
from ..operations.move import job_name
from .base import (
    OK,
    PROBLEM,
    Group,
    State,
    command,
    confirm,
    dry_run_option,
    limit,
    pass_state,
    yes_option,
)
from .base import report as write_actions
from .keys import key_of, key_type_option
from .operations import (
    account_options,
    errors_table,
    lease_options,
    note_holder,
    operations,
    progress_bar,
)
from .output import counted, write_json
from .root import root
from .tenant import tables_of


@root.group(cls=Group)
def move() -> None:
    """Move tenants between shards while they are read and written.

    The tables are those of [[tenant.tables]] in the TOML file, or of --table.
    """


def table_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--table``, of the shard."""
    return click.option(
        "--table",
        "shard_tables",
        multiple=True,
        metavar="TABLE:COLUMN",
        help="A table of the shard with the column of the tenant's key. May be repeated.",
    )(command)


def throttle_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How moves give way to others."""
    for option in (
        click.option(
            "--settle",
            type=click.FloatRange(0.0),
            help="Seconds after the switch until the rows are deleted where they were.",
        ),
        click.option(
            "--max-threads-running",
            type=limit(int, 1),
            metavar="NUMBER|off",
            default=throttle.MAX_THREADS_RUNNING,
            show_default=True,
            help="Wait while more threads than this run on one of the two servers; off for no "
            "limit.",
        ),
        click.option(
            "--max-lag",
            type=limit(float, 0),
            metavar="NUMBER|off",
            default=throttle.MAX_LAG,
            show_default=True,
            help="Wait while a replica is more seconds behind; off for no limit.",
        ),
        click.option(
            "--throttle", type=click.FloatRange(0.0), default=0.0, help="Seconds between steps."
        ),
    ):
        command = option(command)
    return command


_chunk_rows_option = click.option(
    "--chunk-rows", type=click.IntRange(1), default=500, show_default=True
)


def show(current: State, found: MoveReport) -> None:
    """Say what came of a move; exit with 1 if it is not over."""
    if current.json:
        write_json(found.to_dict())
    elif found.state == "undone":
        click.echo(f"the move of {found.key} is undone: it is on shard {found.source}")
    elif found.ok:
        waited = (
            ""
            if found.window_seconds is None
            else (f", writes waited for {found.window_seconds * 1000:.0f} ms")
        )
        click.echo(f"{found.key} is on shard {found.target} ({found.rows} rows{waited})")
    else:
        click.echo(f"the move of {found.key} is {found.state} at: {found.step}")
    click.get_current_context().exit(OK if found.ok else PROBLEM)


@command(move, "dualdb move prepare --dry-run\ndualdb move prepare --account admin")
@table_option
@click.option("--shards", default="all", show_default=True, metavar="WHICH")
@click.option("--lock-timeout", type=click.FloatRange(0.0), default=60.0, show_default=True,
              help="Seconds to try for each trigger.")  # fmt: skip
@account_options
@dry_run_option
@pass_state
def prepare(
    current: State,
    /,
    shard_tables: Tuple[str, ...],
    account: Optional[str],
    account_password: Optional[str],
    dry_run: bool,
    **options: Any,
) -> None:
    """Make the tables and triggers that moves need, on every shard.

    Exits with 1 if a shard could not be prepared; it can be repeated.
    """
    tables = tables_of(current, shard_tables, ())
    ops = operations(current, account, account_password)
    found: PrepareReport = ops.prepare_moves(tables, dry_run=dry_run, **options)
    actions = [
        f"{action} on shard {shard}" for shard, done in found.shards.items() for action in done
    ]
    if not actions and found.ok and not current.json:
        click.echo("everything is there")
        return
    write_actions(current, actions, dry_run=dry_run, ok=found.ok, errors=found.errors)
    if not current.json:
        errors_table(found.errors)
    click.get_current_context().exit(OK if found.ok else PROBLEM)


@command(move, "dualdb move start 7 --to 3 --table trades:user_id")
@click.argument("key")
@key_type_option
@click.option("--to", type=int, required=True, help="The shard that it moves to.")
@table_option
@throttle_options
@_chunk_rows_option
@lease_options
@account_options
@yes_option
@dry_run_option
@pass_state
def start(
    current: State,
    /,
    key: str,
    key_type: str,
    to: int,
    shard_tables: Tuple[str, ...],
    account: Optional[str],
    account_password: Optional[str],
    yes: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Move a tenant to another shard, or go on with a move to it."""
    tables = tables_of(current, shard_tables, ())
    value = key_of(key, key_type)
    ops = operations(current, account, account_password)
    if dry_run:
        _say(current, ops.move(value, to, tables, dry_run=True, **options), "go on with")
        return
    confirm(f"Move {value} to shard {to}", yes)
    note_holder(ops, job_name(value), options["wait"])
    _perform(current, f"move {value}", lambda report_progress: ops.move(
        value, to, tables, progress=report_progress, **options
    ))  # fmt: skip


@command(
    move,
    "dualdb move resume 7 --table trades:user_id --dry-run\n"
    "dualdb move resume 7 --table trades:user_id --wait 90",
)
@click.argument("key")
@key_type_option
@table_option
@throttle_options
@_chunk_rows_option
@lease_options
@account_options
@dry_run_option
@pass_state
def resume(
    current: State,
    /,
    key: str,
    key_type: str,
    shard_tables: Tuple[str, ...],
    account: Optional[str],
    account_password: Optional[str],
    dry_run: bool,
    **options: Any,
) -> None:
    """Go on with a move whose process is gone, or that was paused."""
    tables = tables_of(current, shard_tables, ())
    value = key_of(key, key_type)
    ops = operations(current, account, account_password)
    if dry_run:
        _say(current, ops.move(value, None, tables, dry_run=True, **options), "go on with")
        return
    note_holder(ops, job_name(value), options["wait"])
    _perform(current, f"move {value}", lambda report_progress: ops.move(
        value, None, tables, progress=report_progress, **options
    ))  # fmt: skip


@command(
    move,
    "dualdb move undo 7 --table trades:user_id --dry-run\n"
    "dualdb move undo 7 --table trades:user_id --yes",
)
@click.argument("key")
@key_type_option
@table_option
@lease_options
@account_options
@yes_option
@dry_run_option
@pass_state
def undo(
    current: State,
    /,
    key: str,
    key_type: str,
    shard_tables: Tuple[str, ...],
    account: Optional[str],
    account_password: Optional[str],
    yes: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Give up a move that has not switched yet; the tenant stays where it is."""
    tables = tables_of(current, shard_tables, ())
    value = key_of(key, key_type)
    ops = operations(current, account, account_password)
    if dry_run:
        _say(current, ops.undo_move(value, tables, dry_run=True, **options), "undo")
        return
    confirm(f"Undo the move of {value}", yes)
    note_holder(ops, job_name(value), options["wait"])
    show(current, ops.undo_move(value, tables, **options))


def _say(current: State, planned: MoveReport, what: str) -> None:
    """Say what would be done to a move, or that one would be begun."""
    way = f"from shard {planned.source} to shard {planned.target}"
    actions = [f"{what} the move of {planned.key} {way} (it is {planned.state} at: {planned.step})"]
    if planned.state == "done":
        actions = []
        if not current.json:
            click.echo(f"{planned.key} is on shard {planned.target}: nothing would be done")
    elif planned.state == "new":
        actions = [f"move {counted(planned.rows, 'row')} of {planned.key} {way}"]
    write_actions(current, actions, dry_run=True, move=planned.to_dict())


def _perform(
    current: State, title: str, call: Callable[[Callable[[Job], None]], MoveReport]
) -> None:
    with progress_bar(title) as shown:

        def report_progress(job: Job) -> None:
            step = (job.position or {}).get("step", "")
            shown(f"{title}: {step} ({job.done} rows) {job.message}")

        found = call(report_progress)
    show(current, found)
