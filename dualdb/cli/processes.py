"""``ps`` and ``kill``: the sessions on all servers."""

import dataclasses
from typing import Any, List, Optional

import click

from ..operations import KillReport, ProcessReport
from .base import OK, PROBLEM, State, command, confirm, dry_run_option, pass_state, yes_option
from .operations import (
    account_options,
    database_name,
    errors_table,
    operations,
    shards_option,
)
from .output import write_json, write_table
from .root import root


def process_rows(report: ProcessReport) -> List[List[Any]]:
    """The sessions as rows of a table."""
    return [
        [
            database_name(each.database),
            each.id,
            each.user,
            each.host,
            each.command,
            f"{each.seconds:.1f}",
            " ".join((each.sql or each.state or "").split())[:200],
        ]
        for each in report.processes
    ]


@command(root, "dualdb ps\ndualdb ps --idle --shards 1,3\ndualdb ps --json | jq '.processes[0]'")
@shards_option("everything")
@click.option("--idle", is_flag=True, help="Sessions that wait for a statement, too.")
@account_options
@pass_state
@click.pass_context
def ps(
    ctx: click.Context,
    current: State,
    shards: str,
    idle: bool,
    account: Optional[str],
    account_password: Optional[str],
) -> None:
    """Show the sessions on all servers, the longest statement first.

    An account without the privilege PROCESS sees its own sessions alone. Exits with 1
    if a server could not be asked.
    """
    ops = operations(current, account, account_password)
    report: ProcessReport = ops.processes(shards, idle=idle)
    if current.json:
        write_json(report.to_dict())
    else:
        rows = process_rows(report)
        if rows:
            columns = ("database", "id", "user", "host", "command", "seconds", "statement")
            write_table(columns, rows)
        else:
            click.echo("no session runs a statement" if not idle else "no sessions")
        errors_table(report.errors)
    ctx.exit(PROBLEM if report.errors else OK)


@command(root, "dualdb kill 2 4711 --dry-run\ndualdb kill global 4711 --connection --yes")
@click.argument("database")
@click.argument("session_id", type=int)
@click.option("--connection", is_flag=True, help="End the session, and not only its statement.")
@account_options
@yes_option
@dry_run_option
@pass_state
@click.pass_context
def kill(
    ctx: click.Context,
    current: State,
    database: str,
    session_id: int,
    connection: bool,
    account: Optional[str],
    account_password: Optional[str],
    yes: bool,
    dry_run: bool,
) -> None:
    """End the statement of a session, or the session; DATABASE is a shard id or global.

    Exits with 1 if it was gone already.
    """
    ops = operations(current, account, account_password)
    where: Any = int(database) if database.isdecimal() else database
    found: KillReport = ops.kill(where, session_id, connection=connection, dry_run=True)
    text = _describe(found, database, "session" if connection else "statement of session")
    if not dry_run and found.process is not None:
        confirm(f"End {text}", yes)
        found = ops.kill(where, session_id, connection=connection)
    elif not dry_run:
        found = dataclasses.replace(found, dry_run=False)
    if current.json:
        write_json(found.to_dict())
    elif found.process is None:
        click.echo(
            f"{database_name(database)} has no session {session_id}, or not one that the account "
            "may see: `dualdb ps --idle` lists those"
        )
    else:
        click.echo(f"would end {text}" if dry_run else f"ended {text}")
    ctx.exit(PROBLEM if found.process is None else OK)


def _describe(found: KillReport, database: str, what: str) -> str:
    if found.process is None:
        return what
    each = found.process
    sql = " ".join((each.sql or each.command).split())[:200]
    return (
        f"the {what} {each.id} of {each.user} in {database_name(database)} "
        f"({each.seconds:.1f} s): {sql}"
    )
