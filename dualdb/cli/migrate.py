"""``migrate``: numbered SQL files, applied to every database once."""

from typing import Any, Callable, Dict, Optional, Tuple

import click

from ..operations import DatabaseRun, MigrationReport, MigrationRun
from ..operations import State as Progress
from ..operations.migration_files import title_of
from .base import Group, State, command, confirm, dry_run_option, pass_state, yes_option
from .operations import (
    account_options,
    canary_of,
    database_name,
    doubtful_option,
    finish,
    operations,
    progress_bar,
    run_options,
    shards_option,
)
from .output import note, state, write_table
from .root import root

#: What would be done, and what was.
Words = Tuple[str, str]


@root.group(cls=Group)
def migrate() -> None:
    """Apply numbered SQL files to every database once."""


def _directory_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--dir",
        "directory",
        default="migrations",
        show_default=True,
        type=click.Path(exists=True, file_okay=False),
        help="The files NNN_name.sql, and NNN_name.down.sql.",
    )(command)


def _how_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        dry_run_option,
        account_options,
        doubtful_option,
        click.option(
            "--ddl-timeout",
            type=click.FloatRange(0.0, min_open=True),
            default=10.0,
            show_default=True,
            help="Seconds that an ALTER TABLE may wait for transactions.",
        ),
        click.option(
            "--lock-timeout",
            type=click.FloatRange(0.0),
            default=30.0,
            show_default=True,
            help="Seconds to wait for another runner.",
        ),
        click.option(
            "--allow-blocking",
            is_flag=True,
            help="Run an ALTER TABLE that keeps writers waiting.",
        ),
        run_options,
        shards_option(),
        _directory_option,
    ):
        command = option(command)
    return command


@command(migrate, "dualdb migrate status\ndualdb migrate status --shards everything --json")
@_directory_option
@shards_option()
@account_options
@pass_state
def status(
    current: State,
    directory: str,
    shards: str,
    account: Optional[str],
    account_password: Optional[str],
) -> None:
    """Show what is applied where; exit with 1 if not everything is."""
    ops = operations(current, account, account_password)
    report: MigrationReport = ops.migrate.status(directory, shards=shards)
    finish(current, report, report.ok, lambda: _show_status(report))


def _show_status(report: MigrationReport) -> None:
    rows = [
        [
            database_name(database.database),
            title_of(each.version, each.name),
            state(each.state.value),
            f"{each.completed}/{each.statements}",
            "" if each.applied_at is None else f"{each.applied_at:%Y-%m-%d %H:%M:%S}",
        ]
        for database in report.databases
        for each in database.migrations
    ]
    write_table(("database", "migration", "state", "statements", "applied at (UTC)"), rows)
    for database in report.databases:
        if database.error is not None:
            note(f"{database_name(database.database)}: {database.error}")


def _run(
    current: State, options: Dict[str, Any], perform: Callable[..., MigrationRun], words: Words
) -> None:
    with progress_bar("migrations") as advance:

        def progress(result: DatabaseRun) -> None:
            advance(f"{database_name(result.database)} {result.state.value}")

        report = perform(
            options.pop("directory"),
            canary=canary_of(options.pop("canary"), options.pop("no_canary")),
            max_concurrency=options.pop("parallel"),
            progress=progress,
            **options,
        )
    finish(current, report, report.ok, lambda: _show_run(report, words))


def _where(result: DatabaseRun) -> str:
    version = "" if result.failed_version is None else f"{result.failed_version:03d}: "
    if result.failed_statement is None:
        return version
    return f"{version}statement {result.failed_statement + 1}: "


def _show_run(report: MigrationRun, words: Words) -> None:
    for each in report.databases:
        name = database_name(each.database)
        for step in each.steps:
            migration = title_of(step.version, step.name)
            if report.dry_run:
                click.echo(f"would {words[0]} {migration} on {name}:")
            else:
                click.echo(f"{name}: {words[1]} {migration}")
            if report.dry_run:
                for number, sql in enumerate(step.statements, step.first + 1):
                    click.echo(f"  {number}. " + " ".join(sql.split()))
            for found in step.notes:
                click.echo(f"  {found}")
        if not each.steps and each.state is Progress.DONE:
            click.echo(f"{name}: nothing to do")
        if each.error is not None:
            note(f"{name}: {_where(each)}{each.error}")
        if each.state is Progress.NOT_BEGUN and not report.dry_run:
            note(f"{name}: not begun")
    if report.failed and not report.dry_run:
        note("mend the cause and run it again: it goes on with the statement that failed")


@command(
    migrate,
    "dualdb migrate up --dry-run\ndualdb migrate up --canary 1 --parallel 8\n"
    "dualdb migrate up --account admin --account-password-ref file:/run/secrets/admin",
)
@_how_options
@click.option("--to", type=int, help="The last version to apply.")
@pass_state
def up(
    current: State,
    /,
    account: Optional[str],
    account_password: Optional[str],
    **options: Any,
) -> None:
    """Apply what is pending, and go on with what a former run began.

    One database goes first, alone. After an error no further database is begun, and
    the exit code is 1: run it again when the cause is mended.
    """
    ops = operations(current, account, account_password)
    _run(current, options, ops.migrate.up, ("apply", "applied"))


@command(migrate, "dualdb migrate down --to 2 --dry-run\ndualdb migrate down --to 2 --yes")
@_how_options
@click.option("--to", type=int, required=True, help="The version that stays; 0 for none.")
@yes_option
@pass_state
def down(
    current: State,
    /,
    account: Optional[str],
    account_password: Optional[str],
    yes: bool,
    **options: Any,
) -> None:
    """Take back, newest first, what is applied above a version."""
    if not options["dry_run"]:
        confirm(f"Take back all migrations above {options['to']}", yes)
    ops = operations(current, account, account_password)
    _run(current, options, ops.migrate.down, ("take back", "took back"))
