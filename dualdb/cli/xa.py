"""``xa``: transactions on several databases that have not ended, seen and finished."""

from typing import Any, Dict, Literal, Optional

import click

from ..coordination.facade import Coordination
from ..coordination.reports import XaList, XaRecovery
from .base import Group, State, command, confirm, dry_run_option, pass_state, yes_option
from .operations import account_options, finish, password_of
from .output import write_table
from .root import root


@root.group(cls=Group)
def xa() -> None:
    """See and finish XA transactions that were left."""


def _coordination(
    current: State, account: Optional[str], account_password: Optional[str]
) -> "Coordination[Any]":
    db = current.open()
    if account is None:
        return db.coordination
    return db.coordination.with_account(account, password_of(account, account_password))


def _show_errors(errors: Dict[int, str]) -> None:
    for shard_id, message in errors.items():
        click.echo(f"shard {shard_id} cannot be asked: {message}", err=True)


@command(xa, "dualdb xa list\ndualdb xa list --json", "list")
@account_options
@pass_state
def list_transactions(
    current: State, account: Optional[str], account_password: Optional[str]
) -> None:
    """List what has not ended on all shards; exit with 1 if there is anything."""
    found: XaList = _coordination(current, account, account_password).list()
    finish(current, found, found.ok, lambda: _show(found))


def _show(found: XaList) -> None:
    write_table(
        ("transaction", "decision", "prepared on", "age"),
        [
            [
                each.gtrid,
                each.decision or "none: will be rolled back",
                ", ".join(map(str, each.shard_ids)),
                f"{each.age:.0f} s",
            ]
            for each in found.transactions
        ],
    )
    for shard_id, count in found.foreign.items():
        click.echo(f"shard {shard_id}: {count} of other programs, which are left alone")
    _show_errors(found.errors)


@command(xa, "dualdb xa recover --dry-run\ndualdb xa recover --grace 5")
@click.option(
    "--grace",
    type=click.FloatRange(0.0),
    default=1.0,
    show_default=True,
    help="Seconds to wait for those that are just being committed.",
)
@dry_run_option
@account_options
@pass_state
def recover(
    current: State,
    grace: float,
    dry_run: bool,
    account: Optional[str],
    account_password: Optional[str],
) -> None:
    """Commit what was decided to be committed, and roll back the rest.

    Exits with 1 if something is left.
    """
    coordination = _coordination(current, account, account_password)
    _write(current, coordination.recover(grace=grace, dry_run=dry_run))


@command(xa, "dualdb xa resolve 6b0926d526dffa80c85f254f8b3b87d8 abort")
@click.argument("gtrid")
@click.argument("decision", type=click.Choice(["commit", "abort"]))
@click.option(
    "--force",
    is_flag=True,
    help="Commit although no decision is recorded: only if it was prepared on all of its shards, "
    "and its process is dead.",
)
@dry_run_option
@yes_option
@account_options
@pass_state
def resolve(
    current: State,
    gtrid: str,
    decision: Literal["commit", "abort"],
    force: bool,
    dry_run: bool,
    yes: bool,
    account: Optional[str],
    account_password: Optional[str],
) -> None:
    """Finish one transaction now; exit with 1 if something of it is left."""
    coordination = _coordination(current, account, account_password)
    if force and not dry_run:
        confirm(f"This may commit a part of {gtrid} alone", yes)
    _write(current, coordination.resolve(gtrid, decision, force=force, dry_run=dry_run))


def _write(current: State, found: XaRecovery) -> None:
    finish(current, found, found.ok, lambda: _show_recovery(found))


def _show_recovery(found: XaRecovery) -> None:
    committed, rolled_back = ("committed", "rolled back")
    if found.dry_run:
        committed, rolled_back = ("would commit", "would roll back")
    for gtrid in found.committed:
        click.echo(f"{committed} {gtrid}")
    for gtrid in found.rolled_back:
        click.echo(f"{rolled_back} {gtrid}")
    for gtrid, why in found.pending.items():
        click.echo(f"still prepared: {gtrid} on {why}", err=True)
    _show_errors(found.errors)
    if found.ok and not found.committed and not found.rolled_back:
        click.echo("nothing is left to be done")
