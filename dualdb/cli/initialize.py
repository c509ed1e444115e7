"""``init``: the tables that dualdb needs, made or printed."""

from typing import Dict, List, Optional

import click

from ..operations import TablesReport
from ..operations.tables import NeededTable, needed_tables
from .base import OK, PROBLEM, State, command, dry_run_option, pass_state, report
from .operations import account_options, database_name, errors_table, operations
from .output import write_json
from .root import root


def _as_sql(needed: Dict[str, List[NeededTable]]) -> str:
    lines = ["-- In the global database:"]
    for each in needed["global"]:
        lines += ["", f"-- {each.purpose}", f"{each.ddl};"]
    lines += ["", "-- In the database of each shard:"]
    for each in needed["shard"]:
        lines += ["", f"-- {each.purpose}", f"{each.ddl};"]
    return "\n".join(lines)


@command(root, "dualdb init --dry-run\ndualdb init\ndualdb init --print > tables.sql", "init")
@click.option("--print", "print_", is_flag=True, help="Print the SQL, and connect to nothing.")
@account_options
@dry_run_option
@pass_state
@click.pass_context
def initialize(
    ctx: click.Context,
    current: State,
    print_: bool,
    account: Optional[str],
    account_password: Optional[str],
    dry_run: bool,
) -> None:
    """Make the tables that dualdb needs, in the global database and on each shard.

    Tables that exist are not changed, so it can be repeated. Exits with 1 if they could
    not be made on a shard.
    """
    if print_:
        _print(current)
        return
    found: TablesReport = operations(current, account, account_password).create_tables(
        dry_run=dry_run
    )
    actions = [
        f"create {each.name} in {_where(each.database)} ({each.purpose})" for each in found.created
    ]
    if actions or current.json:
        report(current, actions, dry_run=dry_run, ok=found.ok, errors=dict(found.errors))
    elif found.ok:
        click.echo("all tables are there")
    errors_table({} if current.json else found.errors)
    ctx.exit(OK if found.ok else PROBLEM)


def _where(database: str) -> str:
    return "the global database" if database == "global" else database_name(database)


def _print(current: State) -> None:
    needed = needed_tables(current.service())
    if current.json:
        write_json({key: [each._asdict() for each in made] for key, made in needed.items()})
    else:
        click.echo(_as_sql(needed))
