"""``sql``: statements on several databases."""

import dataclasses
import json
import pathlib
import sys
import threading
from typing import Any, Dict, List, Optional, Set

import click

from ..operations import DatabaseResult, SqlReport
from ..operations import State as Progress
from ..sql import classify
from .base import (
    USAGE,
    State,
    command,
    confirm,
    dry_run_option,
    fail,
    pass_state,
    yes_option,
)
from .operations import (
    account_options,
    canary_of,
    database_name,
    doubtful_option,
    finish,
    operations,
    progress_bar,
    read_json,
    replace_file,
    run_options,
    shards_option,
)
from .output import counted, note, write_rows
from .root import root


class ReportFile:
    """The report of a run in a file, kept while it runs.

    Databases that may be at work are in doubt in it, so that nothing is done twice in
    silence when the run was killed and is resumed.
    """

    def __init__(self, path: str, planned: SqlReport, parallel: int, canary: bool) -> None:
        self._path = path
        self._planned = planned
        self._parallel = parallel
        self._canary = canary
        self._finished: Dict[str, DatabaseResult] = {}
        self._lock = threading.Lock()
        self.write(self._current())

    def add(self, result: DatabaseResult) -> None:
        """Record the result of a database; called by several threads."""
        with self._lock:
            self._finished[result.database] = result
            self.write(self._current())

    def write(self, report: SqlReport) -> None:
        """Replace the file."""
        text = json.dumps(report.to_dict(), ensure_ascii=False, indent=2)
        replace_file(self._path, text + "\n")

    def _current(self) -> SqlReport:
        may_run = 1 if self._canary and not self._finished else self._parallel
        waiting = [
            each.database
            for each in self._planned.databases
            if each.database not in self._finished and each.state is not Progress.DONE
        ]
        in_doubt: Set[str] = set(waiting[:may_run])
        databases = [self._of(each, in_doubt) for each in self._planned.databases]
        return dataclasses.replace(self._planned, databases=tuple(databases), dry_run=False)

    def _of(self, planned: DatabaseResult, in_doubt: Set[str]) -> DatabaseResult:
        found = self._finished.get(planned.database)
        if found is not None:
            return found
        if planned.database in in_doubt:
            return dataclasses.replace(
                planned, state=Progress.FAILED, error="the run was interrupted", in_doubt=True
            )
        return planned


def _script(statement: Optional[str], file: Optional[str]) -> str:
    if (statement is None) == (file is None):
        fail("give the statements by -e or by --file", USAGE)
    if statement is not None:
        return statement
    if file == "-":
        return sys.stdin.read()
    return pathlib.Path(str(file)).read_text(encoding="utf-8")


@command(
    root,
    'dualdb sql -e "SELECT COUNT(*) AS trades FROM trades"\n'
    "dualdb sql --shards everything --file grants.sql --dry-run\n"
    "dualdb sql --file fix.sql --report fix.json --yes\n"
    "dualdb sql --file fix.sql --resume fix.json --yes",
)
@click.option("-e", "--execute", "statement", metavar="SQL", help="The statements.")
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="A file of statements, with DELIMITER as in the server's client; - is standard input.",
)
@shards_option()
@run_options
@click.option(
    "--continue", "go_on", is_flag=True, help="Do not stop at the first database that fails."
)
@click.option(
    "--report",
    "report_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True),
    help="Keep the report in a file, for --resume.",
)
@click.option(
    "--resume",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Go on where the run of this report ended; the file is kept up to date.",
)
@doubtful_option
@account_options
@yes_option
@dry_run_option
@pass_state
def sql(
    current: State,
    statement: Optional[str],
    file: Optional[str],
    shards: str,
    parallel: int,
    canary: Optional[str],
    no_canary: bool,
    go_on: bool,
    report_file: Optional[str],
    resume: Optional[str],
    doubtful: object,
    account: Optional[str],
    account_password: Optional[str],
    yes: bool,
    dry_run: bool,
) -> None:
    """Perform statements on several databases: one first, then several at once.

    Each statement is committed by itself. After an error no further database is begun.
    Exits with 1 if it is not done everywhere. Asks before it sends what may change
    something.
    """
    script = _script(statement, file)
    former = None if resume is None else _former(resume)
    ops = operations(current, account, account_password)
    options: Dict[str, Any] = {
        "shards": shards,
        "canary": canary_of(canary, no_canary),
        "max_concurrency": parallel,
        "on_error": "continue" if go_on else "stop",
        "resume": former,
        "doubtful": doubtful,
    }
    planned: SqlReport = ops.sql(script, **options, dry_run=True)
    if dry_run:
        finish(current, planned, True, lambda: _show_planned(planned))
        return
    _confirm(planned, yes)
    path = report_file or resume
    kept = None if path is None else ReportFile(path, planned, parallel, bool(options["canary"]))
    with progress_bar("statements", len(planned.databases)) as advance:

        def progress(result: DatabaseResult) -> None:
            advance(f"{database_name(result.database)} {result.state.value}")
            if kept is not None:
                kept.add(result)

        report: SqlReport = ops.sql(script, **options, progress=progress)
    if kept is not None:
        kept.write(report)
    finish(current, report, report.ok, lambda: _show(report))


def _confirm(planned: SqlReport, yes: bool) -> None:
    """Ask, unless all statements are surely reads, or nothing is left to do."""
    begun = [each for each in planned.databases if each.state is not Progress.DONE]
    if begun and not all(map(classify.is_plain_read, planned.statements)):
        what = counted(len(planned.statements), "statement")
        confirm(f"Perform {what} on {counted(len(begun), 'database')}", yes)


def _former(path: str) -> SqlReport:
    try:
        return SqlReport.from_dict(read_json(path))
    except (KeyError, TypeError, ValueError):
        fail(f"{path} is not the report of a run", USAGE)


def _show_planned(report: SqlReport) -> None:
    for each in report.databases:
        left = report.statements[each.completed :]
        if each.state is Progress.DONE:
            click.echo(f"{database_name(each.database)} is done")
            continue
        click.echo(f"would perform on {database_name(each.database)}:")
        for text in left:
            click.echo("  " + text.replace("\n", "\n  ") + ";")


def _show(report: SqlReport) -> None:
    for each in report.databases:
        name = database_name(each.database)
        for result in each.results:
            if result.rows is not None:
                write_rows(list(result.rows), name)
            else:
                click.echo(f"{name}: {counted(result.affected, 'row')} affected")
        if each.error is not None:
            note(f"{name}: statement {each.completed + 1}: {each.error}")
    _show_names("done", report.done)
    _show_names("failed", report.failed)
    _show_names("not begun", report.not_begun)


def _show_names(word: str, databases: List[str]) -> None:
    if databases:
        note(f"{word}: {', '.join(database_name(each) for each in databases)}")
