"""What the commands over ``db.operations`` share."""

import json
import os
import pathlib
import sys
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List, Mapping, Optional, Tuple

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..deadlines import LONGEST
from ..operations import Job, Operations, Report
from ..passwords import as_secret, is_reference
from .base import PROBLEM, USAGE, State, fail
from .output import note, write_json

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def operations(
    current: State, account: Optional[str] = None, account_password: Optional[str] = None
) -> "Operations[Any]":
    """The operations of the service that the command opens, by another account if one
    is given.
    """
    db = current.open()
    if account is None:
        return db.operations
    return db.operations.with_account(account, password_of(account, account_password))


def password_of(account: str, account_password: Optional[str]) -> str:
    """The password of ``--account``, which is asked for if there is no reference."""
    if account_password is None:
        if not sys.stdin.isatty():
            fail("--account needs --account-password-ref where nobody can be asked", USAGE)
        return str(click.prompt(f"Password of {account}", hide_input=True, err=True))
    if not is_reference(account_password):
        fail("--account-password-ref is env:NAME or file:PATH", USAGE)
    return as_secret(account_password).get_secret_value()


def account_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--account``, for what the application's own account may not do."""
    for option in (
        click.option(
            "--account-password-ref",
            "account_password",
            metavar="REF",
            help="env:NAME or file:PATH; without it the password is asked for.",
        ),
        click.option(
            "--account", metavar="USER", help="Another account, which has the privileges."
        ),
    ):
        command = option(command)
    return command


def shards_option(default: str = "all") -> Decorator:
    """``--shards``, the databases that a command is about."""
    return click.option(
        "--shards",
        default=default,
        show_default=True,
        metavar="WHICH",
        help="all; global; everything, which is both; or ids: 1,3.",
    )


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """In which order databases have their turn."""
    for option in (
        click.option("--no-canary", is_flag=True, help="Begin with several databases at once."),
        click.option(
            "--canary", metavar="DATABASE", help="Goes first, alone; the default is the first one."
        ),
        click.option(
            "--parallel",
            type=click.IntRange(1),
            default=4,
            show_default=True,
            help="The most databases at the same time.",
        ),
    ):
        command = option(command)
    return command


def canary_of(canary: Optional[str], no_canary: bool) -> Any:
    """What ``canary=`` of an operation takes."""
    if canary is not None and no_canary:
        fail("give --canary or --no-canary, not both", USAGE)
    if no_canary:
        return False
    if canary is None:
        return True
    return int(canary) if canary.isdecimal() else canary


def wait_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--wait``, for a job that somebody else runs."""
    return click.option(
        "--wait",
        type=click.FloatRange(0.0, LONGEST),
        default=0.0,
        metavar="SECONDS",
        help="Seconds to wait while another process runs it, or until the lease of one that is "
        "gone is over; without it the command is refused.",
    )(command)


def lease_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--lease`` and ``--wait``, of moves."""
    return click.option(
        "--lease",
        type=click.FloatRange(5.0, LONGEST),
        default=60.0,
        show_default=True,
        help="Seconds after which another process may take over if this one dies.",
    )(wait_option(command))


def note_holder(ops: "Operations[Any]", name: str, wait: float) -> None:
    """Say whom the command waits for, before it does."""
    job: Optional[Job] = ops.jobs.get(name) if wait else None
    if job is not None and job.lease_seconds_left is not None and job.lease_seconds_left > 0:
        note(
            f"waiting up to {wait:g} s for {job.owner}, which runs the job {name} and whose lease "
            f"is over in {job.lease_seconds_left:.0f} s, unless it is renewed"
        )


def doubtful_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--doubtful``, for a statement that may or may not have been performed."""
    return click.option(
        "--doubtful",
        type=click.Choice(["repeat", "done"]),
        help="Where a statement may or may not have been performed: repeat it, or take it as done.",
    )(command)


def database_name(database: str) -> str:
    """A database of a report, for people."""
    return f"shard {database}" if database.isdecimal() else database


@contextmanager
def progress_bar(title: str, total: Optional[int] = None) -> Iterator[Callable[[str], None]]:
    """A bar on standard error if that is a terminal: gives a function that takes the
    name of what is done now.
    """
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    shown = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with shown:
        task = shown.add_task(title, total=total)
        yield lambda text: shown.update(task, advance=1, description=text)


def finish(current: State, report: Report, ok: bool, show: Callable[[], None]) -> None:
    """Write a report, and exit with 1 if it is not ``ok``."""
    if current.json:
        write_json(report.to_dict())
    else:
        show()
    if not ok:
        click.get_current_context().exit(PROBLEM)


def errors_table(errors: Mapping[str, str]) -> None:
    """Why databases could not be asked."""
    for database, error in errors.items():
        click.echo(f"{database_name(database)}: {error}", err=True)


def read_json(path: str) -> Any:
    """A JSON file.

    Raises:
        Failure: It is none.
    """
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fail(f"{path} cannot be read as JSON: {error}", USAGE)


def replace_file(path: str, text: str) -> None:
    """Write a file as a whole: whoever reads it sees the old text or the new one."""
    beside = f"{path}.{os.getpid()}.tmp"
    with open(beside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def pairs(texts: Tuple[str, ...], option: str) -> List[Tuple[str, str]]:
    """``table:column`` arguments.

    Raises:
        Failure: One is none.
    """
    found = []
    for text in texts:
        name, colon, column = text.partition(":")
        if not (name and colon and column):
            fail(f"{option} is TABLE:COLUMN, not {text!r}", USAGE)
        found.append((name, column))
    return found
