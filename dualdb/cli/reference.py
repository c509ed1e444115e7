"""``reference``: tables that have the same rows everywhere."""

from typing import Optional, Tuple

import click

from ..operations import ReferenceReport, ReferenceResult
from .base import Group, State, command, dry_run_option, pass_state
from .operations import (
    account_options,
    database_name,
    finish,
    operations,
    progress_bar,
    shards_option,
)
from .output import write_table
from .root import root


@root.group(cls=Group)
def reference() -> None:
    """Keep reference tables the same on all shards."""


@command(
    reference,
    "dualdb reference sync symbols --dry-run\ndualdb reference sync symbols currencies",
)
@click.argument("tables", metavar="TABLE...", nargs=-1, required=True)
@shards_option()
@click.option("--chunk-rows", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--keep", is_flag=True, help="Leave rows that the global database has not.")
@account_options
@dry_run_option
@pass_state
def sync(
    current: State,
    tables: Tuple[str, ...],
    shards: str,
    chunk_rows: int,
    keep: bool,
    account: Optional[str],
    account_password: Optional[str],
    dry_run: bool,
) -> None:
    """Make tables of the shards the same as in the global database.

    Only rows that differ are written. Exits with 1 if that failed on a shard.
    """
    ops = operations(current, account, account_password)
    with progress_bar("sync") as shown:

        def report_progress(result: ReferenceResult) -> None:
            shown(f"{result.table} on {database_name(result.database)}")

        report: ReferenceReport = ops.reference_sync(
            tables,
            shards=shards,
            chunk_rows=chunk_rows,
            delete=not keep,
            dry_run=dry_run,
            progress=report_progress,
        )
    finish(current, report, report.ok, lambda: _show(report))


def _show(report: ReferenceReport) -> None:
    write_table(
        ("table", "database", "rows", "inserted", "updated", "deleted", "error"),
        [
            [
                each.table,
                database_name(each.database),
                each.rows,
                each.inserted,
                each.updated,
                each.deleted,
                each.error or "",
            ]
            for each in report.results
        ],
    )
    if report.dry_run:
        click.echo("nothing was written")
