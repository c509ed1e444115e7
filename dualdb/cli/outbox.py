"""``outbox``: events that are pending, given up, and delivered."""

import signal
import sys
import threading
from typing import Any, Tuple

import click

from ..coordination.outbox_reports import ConsumeReport, DeadEvents, EventCount, OutboxStatus
from . import settings
from .base import OK, PROBLEM, Group, State, command, dry_run_option, pass_state, report
from .operations import database_name, errors_table, finish, shards_option
from .output import counted, note, write_json, write_table
from .root import root


@root.group(cls=Group)
def outbox() -> None:
    """See and deliver the events that transactions have written."""


@command(outbox, "dualdb outbox status\ndualdb outbox status --json")
@shards_option("everything")
@pass_state
def status(current: State, shards: str) -> None:
    """Show how many events are pending, and how old the oldest is.

    Exits with 1 if events were given up, or a database could not be asked.
    """
    found: OutboxStatus = current.open().outbox.status(shards=shards)
    finish(current, found, found.ok, lambda: _show_status(found))


def _show_status(found: OutboxStatus) -> None:
    write_table(
        ("database", "pending", "oldest", "waiting", "dead"),
        [
            [
                database_name(each.database),
                each.pending,
                "" if each.oldest_seconds is None else f"{each.oldest_seconds} s",
                each.waiting,
                each.dead,
            ]
            for each in found.databases
        ],
    )
    errors_table(found.errors)


@command(outbox, "dualdb outbox dead\ndualdb outbox dead --limit 1000 --json")
@shards_option("everything")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="The most of one database.",
)
@pass_state
def dead(current: State, shards: str, limit: int) -> None:
    """Show the events that were given up.

    Exits with 1 if a database could not be asked.
    """
    found: DeadEvents = current.open().outbox.dead(shards=shards, limit=limit)
    finish(current, found, found.ok, lambda: _show_dead(found))


def _show_dead(found: DeadEvents) -> None:
    if not found and found.ok:
        click.echo("no event was given up")
    if found:
        write_table(
            ("database", "id", "topic", "key", "attempts", "error"),
            [
                [
                    database_name(each.database),
                    each.id,
                    each.topic,
                    each.key or "",
                    "" if each.attempts is None else each.attempts,
                    each.error or "",
                ]
                for each in found
            ],
        )
    errors_table(found.errors)


@command(
    outbox,
    "dualdb outbox requeue --all --dry-run\n"
    "dualdb outbox requeue 5f0e4a52-8f3b-4d3c-9d2a-6f9a4b1c2d3e",
)
@click.argument("event_ids", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All that were given up.")
@shards_option("everything")
@dry_run_option
@pass_state
def requeue(
    current: State,
    event_ids: Tuple[str, ...],
    every: bool,
    shards: str,
    dry_run: bool,
) -> None:
    """Have events delivered that were given up.

    Exits with 1 if one of those that are named was not, or a database could not be
    asked.
    """
    if bool(event_ids) == every:
        raise click.UsageError("give the ids of events, or --all")
    outbox_ = current.open().outbox
    count = outbox_.requeue(None if every else event_ids, shards=shards, dry_run=dry_run)
    absent = max(0, len(set(event_ids)) - count)
    if absent:
        where = " on the databases that could be asked" if count.errors else ""
        note(
            f"{counted(absent, 'event')} of these had not been given up{where}: see "
            "`dualdb outbox dead`"
        )
    _report_count(current, f"requeue {counted(count, 'event')}", dry_run, count, not absent)


@command(
    outbox,
    "dualdb outbox sweep --retention 86400 --dry-run\ndualdb outbox sweep --retention 86400",
)
@click.option(
    "--retention",
    type=click.FloatRange(0.0),
    default=604_800.0,
    show_default=True,
    help="Seconds since they were delivered.",
)
@shards_option("everything")
@dry_run_option
@pass_state
def sweep(current: State, retention: float, shards: str, dry_run: bool) -> None:
    """Delete events that were delivered long ago, as `outbox consume` does.

    Exits with 1 if a database could not be asked.
    """
    count = current.open().outbox.sweep(retention=retention, shards=shards, dry_run=dry_run)
    _report_count(current, f"delete {counted(count, 'event')}", dry_run, count, True)


def _report_count(
    current: State, action: str, dry_run: bool, count: EventCount, as_asked: bool
) -> None:
    """Say what was done; exit with 1 if it was not what was asked for, everywhere."""
    ok = as_asked and not count.errors
    report(current, [action], dry_run=dry_run, ok=ok, events=count, errors=count.errors)
    if not current.json:
        errors_table(count.errors)
    click.get_current_context().exit(OK if ok else PROBLEM)


@command(
    outbox,
    "dualdb outbox consume --handler app.events:handle --dry-run\n"
    "dualdb outbox consume --handler app.events:handle\n"
    "dualdb outbox consume --handler app.events:handle --until-idle --json",
)
@click.option(
    "--handler",
    required=True,
    metavar="MODULE:FUNCTION",
    help="Takes an OutboxEvent; the event is delivered when it returns.",
)
@shards_option("everything")
@click.option("--batch", type=click.IntRange(1), default=100, show_default=True,
              help="The most events that are delivered again if the process dies.")  # fmt: skip
@click.option("--concurrency", type=click.IntRange(1), default=1, show_default=True,
              help="Events that are delivered at the same time.")  # fmt: skip
@click.option("--lease", type=click.FloatRange(1.0), default=30.0, show_default=True,
              help="Seconds after which others take over; longer than the handler.")  # fmt: skip
@click.option("--max-attempts", type=click.IntRange(1), default=25, show_default=True,
              help="Give an event up that has failed so often.")  # fmt: skip
@click.option("--until-idle", is_flag=True, help="End when there is nothing to deliver.")
@dry_run_option
@pass_state
def consume(current: State, /, handler: str, dry_run: bool, **options: Any) -> None:
    """Deliver events to a function until SIGINT or SIGTERM, which end it after the
    event it is at.

    With --until-idle it exits with 1 if events were given up, or a database could not
    be asked.
    """
    function = settings.function(handler)
    if dry_run:
        pending: OutboxStatus = current.open().outbox.status(shards=options["shards"])
        action = f"deliver {counted(pending.pending, 'event')} to {handler}"
        _report_count(current, action, True, EventCount(pending.pending, pending.errors), True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if sys.stderr.isatty():
        note("delivering events; Ctrl-C ends it")
    found: ConsumeReport = current.open().outbox.consume(function, stop=stop.is_set, **options)
    if current.json:
        write_json(found.to_dict())
    else:
        click.echo(f"delivered {found.delivered}, failed {found.failed}, given up {found.dead}")
        errors_table(found.errors)
        if found.dead:
            note("see `dualdb outbox dead`, and `dualdb outbox requeue` once the cause is mended")
    # a consumer that is stopped by a signal has done what was asked of it
    if options["until_idle"] and not found.ok:
        click.get_current_context().exit(PROBLEM)
