"""``rebalance``: a plan of moves, and its moves."""

import json
from typing import Any, Dict, Optional, Tuple

import click

from ..operations import Job, RebalancePlan, RebalanceReport
from .base import (
    OK,
    PROBLEM,
    USAGE,
    Group,
    State,
    command,
    confirm,
    dry_run_option,
    fail,
    pass_state,
    yes_option,
)
from .keys import key_of, key_type_option
from .move import table_option, throttle_options
from .operations import (
    account_options,
    lease_options,
    note_holder,
    operations,
    pairs,
    progress_bar,
    read_json,
    replace_file,
)
from .output import counted, note, write_json, write_table
from .root import root
from .tenant import tables_of


@root.group(cls=Group)
def rebalance() -> None:
    """Spread tenants over shards, by a plan."""


def _show(found: RebalancePlan) -> None:
    write_table(
        ("shard", "has", "would have"),
        [[shard, f"{size:g}", f"{found.after[shard]:g}"] for shard, size in found.before.items()],
    )
    if found.moves:
        write_table(
            ("key", "from", "to", found.by),
            [[each.key, each.source, each.target, f"{each.size:g}"] for each in found.moves],
        )
    else:
        click.echo("nothing is to move")


def _numbers(texts: Tuple[str, ...], option: str) -> Dict[int, float]:
    try:
        return {int(shard): float(value) for shard, value in pairs(texts, option)}
    except ValueError:
        fail(f"{option} is SHARD:NUMBER", USAGE)


@command(
    rebalance,
    "dualdb rebalance plan --by rows --output plan.json\ndualdb rebalance plan --drain 2",
    "plan",
)
@click.option("--by", type=click.Choice(["rows", "bytes", "tenants"]), default="rows",
              show_default=True, help="What is counted.")  # fmt: skip
@table_option
@click.option("--shards", default="all", show_default=True, metavar="WHICH",
              help="all, or ids: to split shard 2, say 2,5 where 5 is empty.")  # fmt: skip
@click.option("--drain", "drained", type=int, multiple=True, metavar="SHARD",
              help="A shard that is to have no tenants. May be repeated.")  # fmt: skip
@click.option("--weight", "weights", multiple=True, metavar="SHARD:NUMBER",
              help="A share, in place of the shard table's. May be repeated.")  # fmt: skip
@click.option("--pin", "pins", multiple=True, metavar="KEY:SHARD",
              help="Where a tenant must be. May be repeated.")  # fmt: skip
@key_type_option
@click.option("--tolerance", type=click.FloatRange(0.0, 1.0, max_open=True), default=0.05,
              show_default=True, help="How far a shard may be from its share.")  # fmt: skip
@click.option("--max-moves", type=click.IntRange(1), help="At most so many.")
@click.option("--output", type=click.Path(dir_okay=False), help="A file for `rebalance apply`.")
@account_options
@pass_state
def make_plan(
    current: State,
    /,
    shard_tables: Tuple[str, ...],
    drained: Tuple[int, ...],
    weights: Tuple[str, ...],
    pins: Tuple[str, ...],
    key_type: str,
    output: Optional[str],
    account: Optional[str],
    account_password: Optional[str],
    **options: Any,
) -> None:
    """Plan which tenants move where, so that each shard has its share."""
    try:
        pinned = {key_of(key, key_type): int(shard) for key, shard in pairs(pins, "--pin")}
    except ValueError:
        fail("--pin is KEY:SHARD", USAGE)
    found: RebalancePlan = operations(current, account, account_password).rebalance_plan(
        tables_of(current, shard_tables, ()),
        drain=drained,
        weights=_numbers(weights, "--weight"),
        pins=pinned,
        **options,
    )
    if output is not None:
        replace_file(output, json.dumps(found.to_dict(), indent=2) + "\n")
        note(f"{counted(len(found.moves), 'move')} in {output}")
    if current.json:
        write_json(found.to_dict())
    elif output is None:
        _show(found)


@command(rebalance, "dualdb rebalance apply plan.json --max-moves-per-hour 60", "apply")
@click.argument("plan", type=click.Path(exists=True, dir_okay=False))
@table_option
@click.option("--name", default="rebalance", show_default=True, help="The job's name.")
@click.option("--max-moves-per-hour", type=click.FloatRange(0.0, min_open=True),
              help="Wait between moves.")  # fmt: skip
@throttle_options
@lease_options
@account_options
@yes_option
@dry_run_option
@pass_state
@click.pass_context
def apply_plan(
    ctx: click.Context,
    current: State,
    /,
    plan: str,
    shard_tables: Tuple[str, ...],
    account: Optional[str],
    account_password: Optional[str],
    yes: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Carry a plan out, or go on with one of this name.

    Exits with 1 if it was paused or cancelled.
    """
    try:
        planned = RebalancePlan.from_dict(read_json(plan))
    except (KeyError, TypeError, ValueError):
        fail(f"{plan} is no plan of `rebalance plan`", USAGE)
    tables = tables_of(current, shard_tables, ())
    ops = operations(current, account, account_password)
    if dry_run:
        _say(current, ops.rebalance_apply(planned, tables, dry_run=True, **options), planned)
        return
    confirm(f"Move {counted(len(planned.moves), 'tenant')}", yes)
    note_holder(ops, options["name"], options["wait"])
    with progress_bar("rebalance", len(planned.moves)) as shown:
        done = [0]

        def report_progress(job: Job) -> None:
            if job.done > done[0]:
                done[0] = job.done
                shown(job.message)

        report: RebalanceReport = ops.rebalance_apply(
            planned, tables, progress=report_progress, **options
        )
    if current.json:
        write_json(report.to_dict())
    else:
        click.echo(
            f"{report.name} is {report.state}: {counted(len(report.moved), 'tenant')} moved, "
            f"{len(report.skipped)} were elsewhere"
        )
    ctx.exit(OK if report.ok else PROBLEM)


def _say(current: State, found: RebalanceReport, planned: RebalancePlan) -> None:
    """Say which moves would be made; a job that is under way has its own."""
    if current.json:
        write_json(found.to_dict())
        return
    if found.state == "new":
        _show(planned)
    click.echo(
        f"would move {counted(len(found.moved), 'tenant')}; {len(found.skipped)} are elsewhere"
    )
