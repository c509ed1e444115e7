"""``move``: tenants are moved between shards."""

from typing import Any, Callable, List, Optional, Tuple

import click

from ..operations import (
    Job,
    MoveReport,
    Operations,
    PrepareReport,
    TenantTable,
    throttle,
)
from ..operations import move as moving
from .base import (
    OK,
    PROBLEM,
    Group,
    State,
    command,
    confirm,
    dry_run_option,
    pass_state,
    yes_option,
)
from .base import report as write_actions
from .keys import key_of, key_type_option
from .operations import account_options, operations, progress_bar
from .output import write_json
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
            type=click.IntRange(1),
            default=throttle.MAX_THREADS_RUNNING,
            show_default=True,
            help="Wait while more threads than this run on one of the two servers.",
        ),
        click.option(
            "--max-lag",
            type=click.FloatRange(0.0),
            default=throttle.MAX_LAG,
            show_default=True,
            help="Wait while a replica is more seconds behind.",
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
@click.option("--patience", type=click.FloatRange(0.0), default=60.0, show_default=True,
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
    """Make the tables and triggers that moves need, on every shard."""
    tables = tables_of(current, shard_tables, ())
    ops = operations(current, account, account_password)
    found: PrepareReport = ops.prepare_moves(tables, dry_run=dry_run, **options)
    actions = [
        f"{action} on shard {shard}" for shard, done in found.shards.items() for action in done
    ]
    if not actions and not current.json:
        click.echo("everything is there")
        return
    write_actions(current, actions, dry_run=dry_run)


@command(move, "dualdb move start 7 --to 3 --table trades:user_id")
@click.argument("key")
@key_type_option
@click.option("--to", type=int, required=True, help="The shard that it moves to.")
@table_option
@throttle_options
@_chunk_rows_option
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
        planned = ops.tenant_purge(value, _of_shards(tables), dry_run=True)
        count = sum(each.found for each in planned.tables)
        action = f"move {count} rows of {value} from shard {planned.shard_id} to shard {to}"
        write_actions(current, [action], dry_run=True)
        return
    confirm(f"Move {value} to shard {to}", yes)
    _perform(current, f"move {value}", lambda told: ops.move(
        value, to, tables, progress=told, **options
    ))  # fmt: skip


@command(
    move,
    "dualdb move resume 7 --table trades:user_id --dry-run\n"
    "dualdb move resume 7 --table trades:user_id",
)
@click.argument("key")
@key_type_option
@table_option
@throttle_options
@_chunk_rows_option
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
        job = _under_way(ops, value)
        action = f"go on with the move of {value} {_way(job)}"
        write_actions(current, [action], dry_run=True, job=job.to_dict())
        return
    _perform(current, f"move {value}", lambda told: ops.move(
        value, None, tables, progress=told, **options
    ))  # fmt: skip


@command(
    move,
    "dualdb move undo 7 --table trades:user_id --dry-run\n"
    "dualdb move undo 7 --table trades:user_id --yes",
)
@click.argument("key")
@key_type_option
@table_option
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
) -> None:
    """Give up a move that has not switched yet; the tenant stays where it is."""
    tables = tables_of(current, shard_tables, ())
    value = key_of(key, key_type)
    ops = operations(current, account, account_password)
    if dry_run:
        job = _under_way(ops, value)
        where = current.open().shard_id_of(value)
        moving.require_not_switched(value, where, job.params["target"])
        action = f"undo the move of {value} {_way(job)}"
        write_actions(current, [action], dry_run=True, job=job.to_dict())
        return
    confirm(f"Undo the move of {value}", yes)
    show(current, ops.undo_move(value, tables))


def _under_way(ops: "Operations[Any]", key: Any) -> Job:
    return moving.require_under_way(ops.jobs.get(moving.job_name(key)), key)


def _way(job: Job) -> str:
    step = (job.position or {}).get("step", "check")
    return (
        f"from shard {job.params['source']} to shard {job.params['target']} "
        f"(it is {job.state.value} at: {step})"
    )


def _of_shards(tables: List[TenantTable]) -> List[TenantTable]:
    return [each for each in tables if each.on == "shard"]


def _perform(
    current: State, title: str, call: Callable[[Callable[[Job], None]], MoveReport]
) -> None:
    with progress_bar(title) as shown:

        def told(job: Job) -> None:
            step = (job.position or {}).get("step", "")
            shown(f"{title}: {step} ({job.done} rows) {job.message}")

        found = call(told)
    show(current, found)
