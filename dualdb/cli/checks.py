"""``doctor``, ``schema diff``, ``check-rows`` and ``audit``: what is not as it should
be.
"""

import difflib
import json
from typing import Any, Dict, List, Optional, Tuple

import click
from rich.console import Group as Lines
from rich.text import Text

from ..operations import AuditReport, DoctorReport, RowsReport, SchemaDiff, Severity
from .base import USAGE, Group, State, command, fail, pass_state
from .operations import (
    account_options,
    database_name,
    errors_table,
    finish,
    operations,
    pairs,
    progress_bar,
    shards_option,
)
from .output import cell, console, counted, note, plain, state, table, write_table
from .root import root


@command(root, "dualdb doctor\ndualdb doctor --processes 12 --json | jq -r '.findings[].message'")
@shards_option("everything")
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="How many processes use the databases as this configuration says.",
)
@click.option(
    "--audit",
    multiple=True,
    metavar="TABLE:COLUMN",
    help="A table with its key column, in which misplaced rows are looked for. May be repeated.",
)
@click.option("--skip", multiple=True, metavar="CHECK", help="Leave out a check.")
@account_options
@pass_state
def doctor(
    current: State,
    shards: str,
    processes: int,
    audit: Tuple[str, ...],
    skip: Tuple[str, ...],
    account: Optional[str],
    account_password: Optional[str],
) -> None:
    """Look for what is wrong with servers, accounts and configuration, and say how to
    mend it.

    Reads alone. Exits with 1 if there is an error or a warning.
    """
    ops = operations(current, account, account_password)
    report: DoctorReport = ops.doctor(
        shards=shards, processes=processes, audit=pairs(audit, "--audit"), skip=skip
    )
    finish(current, report, report.ok, lambda: console().print(doctor_screen(report)))


def doctor_screen(report: DoctorReport) -> Lines:
    """A doctor's report for people; a finding on several databases stands once."""
    versions = [[database_name(name), version] for name, version in report.databases.items()]
    parts: List[Any] = [table(("database", "server"), versions), Text("")]
    same: Dict[Tuple[str, str, str, str], List[str]] = {}
    counts = {severity.value: 0 for severity in Severity}
    for each in report.findings:
        counts[each.severity.value] += 1
        what = (each.severity.value, each.check, each.message, each.fix)
        same.setdefault(what, []).append(database_name(each.database))
    for (severity, check, message, fix), databases in same.items():
        head = Text.assemble(state(severity), "  ", (", ".join(databases), "bold"), "  ")
        head.append(check, style="dim")
        parts += [head, cell(f"  {message}"), Text.assemble(("  fix: ", "green"), cell(fix))]
        parts.append(Text(""))
    parts.append(
        Text(
            f"{counted(len(report.checks), 'check')} on "
            f"{counted(len(report.databases), 'database')}: "
            + ", ".join([counted(counts[word], word) for word in counts]),
            style="green" if report.ok else "bold",
        )
    )
    return Lines(*parts)


@root.group(cls=Group)
def schema() -> None:
    """Compare the schemas of the databases."""


@command(schema, "dualdb schema diff\ndualdb schema diff --reference 1 --ignore column.comment")
@click.option(
    "--reference", metavar="DATABASE", help="The one that is right; the default is the first."
)
@shards_option()
@click.option("--ignore", multiple=True, metavar="KIND", help="Such as event, column.comment.")
@click.option("--ignore-table", multiple=True, metavar="TABLE", help="May have * and ?.")
@account_options
@pass_state
def diff(
    current: State,
    reference: Optional[str],
    shards: str,
    ignore: Tuple[str, ...],
    ignore_table: Tuple[str, ...],
    account: Optional[str],
    account_password: Optional[str],
) -> None:
    """Compare schemas: tables, columns, indexes, triggers, procedures and so on.

    Exits with 1 if something differs.
    """
    ops = operations(current, account, account_password)
    report: SchemaDiff = ops.schema_diff(
        reference=_database(reference), shards=shards, ignore=ignore, ignore_tables=ignore_table
    )
    finish(current, report, report.ok, lambda: _show_diff(report))


def _database(text: Optional[str]) -> Any:
    return int(text) if text is not None and text.isdecimal() else text


def difference_lines(report: SchemaDiff) -> List[str]:
    """What differs, for people; the last line says what was not compared."""
    reference = database_name(report.reference)
    lines = [
        f"{database_name(each.database)}: {each.kind} {each.name}, "
        + _what_differs(each.attribute, each.expected, each.found, reference)
        for each in report.differences
        if each.kind != "visibility"
    ]
    hidden: Dict[Tuple[str, str], List[str]] = {}
    for each in report.differences:
        if each.kind == "visibility":
            hidden.setdefault((each.name, each.attribute), []).append(each.database)
    for (kind, privilege), names in hidden.items():
        where = ", ".join([database_name(name) for name in names])
        lines.append(
            f"{kind} were not compared in full: the account lacks the {privilege} ({where}). "
            "Grant it, give another --account, or --ignore visibility"
        )
    return lines


def _show_diff(report: SchemaDiff) -> None:
    reference = database_name(report.reference)
    for line in difference_lines(report):
        click.echo(line)
    errors_table(report.errors)
    differing = [each for each in report.differences if each.kind != "visibility"]
    found = counted(len(differing), "difference")
    click.echo(f"{found} from {reference} in {counted(len(report.compared), 'database')}")


def _what_differs(
    attribute: str, expected: Optional[str], found: Optional[str], reference: str
) -> str:
    if attribute == "exists":
        return "missing" if found == "no" else f"not in {reference}"
    if expected and found and ("\n" in expected or "\n" in found):
        lines = difflib.unified_diff(
            expected.splitlines(), found.splitlines(), reference, "here", lineterm="", n=1
        )
        return f"{attribute}:\n" + "\n".join("    " + line for line in lines)
    return f"{attribute}: {found}, and {expected} in {reference}"


@command(
    root,
    "dualdb check-rows trades --between 1 2\n"
    'dualdb check-rows trades --between 1 2 --where "user_id = 7" --json',
    "check-rows",
)
@click.argument("table_", metavar="TABLE")
@click.option("--between", nargs=2, required=True, metavar="LEFT RIGHT", help="The two databases.")
@click.option("--where", metavar="SQL", help="A condition that the rows must meet.")
@click.option("--column", "columns", multiple=True, help="Compare only this. May be repeated.")
@click.option("--chunk-rows", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--after", metavar="JSON", help="Begin after this primary key: the position.")
@click.option("--max-differences", type=click.IntRange(1), default=100, show_default=True)
@click.option(
    "--throttle", type=click.FloatRange(0.0), default=0.0, help="Seconds between two chunks."
)
@account_options
@pass_state
def check_rows(
    current: State,
    /,
    table_: str,
    between: Tuple[str, str],
    columns: Tuple[str, ...],
    after: Optional[str],
    account: Optional[str],
    account_password: Optional[str],
    **options: Any,
) -> None:
    """Compare the rows of a table in two databases by hashes, and find those that
    differ.

    Exits with 1 if rows differ.
    """
    ops = operations(current, account, account_password)
    with progress_bar("chunks") as advance:

        def progress(found: RowsReport) -> None:
            advance(f"{found.rows} rows, {found.differing_chunks} chunks differ")

        report: RowsReport = ops.check_rows(
            table_,
            between=(_database(between[0]), _database(between[1])),
            columns=columns or None,
            after=_position(after),
            progress=progress,
            **options,
        )
    finish(current, report, report.ok, lambda: _show_rows(report))


def _position(text: Optional[str]) -> Optional[List[Any]]:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list):
        fail(f"--after is a JSON list, the position of a report, not {text!r}", USAGE)
    return found


def _show_rows(report: RowsReport) -> None:
    left = database_name(report.left)
    right = database_name(report.right)
    if report.differences:
        write_table(
            ("key", "difference", left, right),
            [
                [_values(each.key), each.kind, _values(each.left), _values(each.right)]
                for each in report.differences
            ],
        )
    click.echo(
        f"{report.table}: {counted(report.rows, 'row')} in {counted(report.chunks, 'chunk')} "
        f"compared, {counted(len(report.differences), 'difference')} found"
    )
    if not report.complete:
        click.echo(f"there are more: --after '{json.dumps(report.position, default=plain)}'")


def _values(row: Any) -> str:
    if row is None:
        return ""
    return ", ".join(f"{key}={plain(value)}" for key, value in row.items())


@command(root, "dualdb audit trades user_id\ndualdb audit trades user_id --json")
@click.argument("table_", metavar="TABLE")
@click.argument("key_column")
@shards_option()
@click.option("--where", metavar="SQL", help="A condition that the rows must meet.")
@click.option("--batch-keys", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--max-misplaced", type=click.IntRange(1), default=1000, show_default=True)
@click.option(
    "--throttle", type=click.FloatRange(0.0), default=0.0, help="Seconds between two queries."
)
@account_options
@pass_state
def audit(
    current: State,
    /,
    table_: str,
    key_column: str,
    account: Optional[str],
    account_password: Optional[str],
    **options: Any,
) -> None:
    """Find rows that are in another shard than their key belongs to.

    Exits with 1 if there are any.
    """
    ops = operations(current, account, account_password)
    report: AuditReport = ops.audit(table_, key_column, **options)
    finish(current, report, report.ok, lambda: _show_audit(report))


def _show_audit(report: AuditReport) -> None:
    if report.misplaced:
        write_table(
            ("key", "rows", "are in", "belong to"),
            [
                [
                    each.key,
                    each.rows,
                    database_name(each.database),
                    "no shard" if each.belongs_to is None else f"shard {each.belongs_to}",
                ]
                for each in report.misplaced
            ],
        )
    errors_table(report.errors)
    misplaced = sum(each.rows for each in report.misplaced)
    click.echo(
        f"{report.table}: {counted(report.rows, 'row')} of {counted(report.keys, 'key')} looked "
        f"up, {counted(misplaced, 'row')} of {counted(len(report.misplaced), 'key')} misplaced"
    )
    if report.misplaced:
        note(
            "a move deletes what it left behind (`dualdb jobs list --kind move`); where the "
            "directory is wrong, `dualdb keys set` corrects it; other rows are copied to where "
            "they belong, and deleted by `dualdb tenant purge KEY --shard SHARD`"
        )
