"""``spider``: a MariaDB server with the Spider engine in front of all shards."""

from typing import Optional, Tuple

import click

from ..operations import SpiderDDL
from .base import Group, State, command, pass_state
from .operations import errors_table, finish, operations
from .root import root


@root.group(cls=Group)
def spider() -> None:
    """Query all shards as one database, through the Spider engine."""


@command(
    spider,
    "dualdb spider ddl trades\ndualdb spider ddl trades orders --by shard_id --head-user spider",
)
@click.argument("tables", metavar="TABLE...", nargs=-1, required=True)
@click.option(
    "--by",
    metavar="COLUMN",
    help="An integer column with the shard id of each row; the tables are partitioned by it. "
    "Without it there is a table for each shard, and a view of all.",
)
@click.option(
    "--head-user",
    metavar="USER",
    help="The account of the head on the shards; the default is the configured one.",
)
@click.option("--passwords", is_flag=True, help="Print the configured passwords, too.")
@pass_state
def ddl(
    current: State,
    tables: Tuple[str, ...],
    by: Optional[str],
    head_user: Optional[str],
    passwords: bool,
) -> None:
    """Print what makes a server a Spider head for tables of the shards.

    Nothing is performed. Without --passwords, give them to the head by ALTER SERVER
    name OPTIONS (PASSWORD '...'). A shard that cannot be read is left out, and named;
    the exit code is 1 then.
    """
    report: SpiderDDL = operations(current).spider_ddl(
        tables, by=by, head_user=head_user, passwords=passwords
    )
    finish(current, report, report.ok, lambda: _show(report))


def _show(report: SpiderDDL) -> None:
    for note in report.notes:
        click.echo(f"-- {note}")
    for statement in report.statements:
        click.echo(f"{statement};")
    errors_table(report.errors)
