"""``tenant``: all rows of one tenant, exported or deleted."""

import json
from typing import Any, Callable, List, Optional, Tuple

import click

from ..operations import TenantExport, TenantImport, TenantPurge, TenantTable
from . import settings
from .base import (
    OK,
    USAGE,
    Group,
    State,
    command,
    confirm,
    dry_run_option,
    fail,
    pass_state,
    yes_option,
)
from .keys import key_of, key_type_option
from .operations import account_options, operations, pairs, read_json, replace_file
from .output import counted, note, write_json, write_table
from .root import root


@root.group(cls=Group)
def tenant() -> None:
    """Export, import or delete all rows of a tenant.

    The tables are those of [[tenant.tables]] in the TOML file, or of --table.
    """


def _tables_option(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--global-table",
            "global_tables",
            multiple=True,
            metavar="TABLE:COLUMN",
            help="The same in the global database.",
        ),
        click.option(
            "--table",
            "shard_tables",
            multiple=True,
            metavar="TABLE:COLUMN",
            help="A table of the shard with the column of the tenant's key. May be repeated.",
        ),
    ):
        command = option(command)
    return command


def tables_of(
    current: State, shard_tables: Tuple[str, ...], global_tables: Tuple[str, ...]
) -> List[TenantTable]:
    """The tables of the options, or else of the TOML file."""
    found = [TenantTable(name, column) for name, column in pairs(shard_tables, "--table")]
    found += [
        TenantTable(name, column, on="global")
        for name, column in pairs(global_tables, "--global-table")
    ]
    if not found:
        try:
            found = [TenantTable(**each) for each in current.settings.tenant.get("tables", [])]
        except TypeError as error:
            raise settings.SettingsError(f"[[tenant.tables]]: {error}") from None
    if not found:
        fail("give --table TABLE:COLUMN, or [[tenant.tables]] in the TOML file", USAGE)
    return found


def _database(on: str, shard_id: Optional[int]) -> str:
    return on if on == "global" or shard_id is None else f"shard {shard_id}"


@command(
    tenant,
    "dualdb tenant export 7 --table trades:user_id --global-table accounts:id --output 7.json",
)
@click.argument("key")
@key_type_option
@_tables_option
@click.option("--format", "form", type=click.Choice(["json", "sql"]), default="json")
@click.option(
    "--on",
    type=click.Choice(["shard", "global"]),
    default="shard",
    show_default=True,
    help="Of which database, for --format sql.",
)
@click.option("--output", type=click.Path(dir_okay=False), help="A file in place of the output.")
@account_options
@pass_state
def export(
    current: State,
    key: str,
    key_type: str,
    shard_tables: Tuple[str, ...],
    global_tables: Tuple[str, ...],
    form: str,
    on: str,
    output: Optional[str],
    account: Optional[str],
    account_password: Optional[str],
) -> None:
    """Read all rows of a tenant, on its shard and in the global database."""
    tables = tables_of(current, shard_tables, global_tables)
    ops = operations(current, account, account_password)
    report: TenantExport = ops.tenant_export(key_of(key, key_type), tables)
    if form == "sql" and current.json and output is None:
        fail("give --json or --format sql, or --output for the SQL", USAGE)
    if form == "sql":
        text = report.to_sql(on)
    else:
        text = json.dumps(report.to_dict(), ensure_ascii=False, indent=2) + "\n"
    if output is None:
        click.echo(text, nl=False)
    else:
        replace_file(output, text)
        tables_text = counted(len(report.tables), "table")
        note(f"{counted(report.rows, 'row')} of {tables_text} in {output}")
        if current.json:
            write_json({"key": report.key, "shard_id": report.shard_id, "rows": report.rows,
                        "file": output})  # fmt: skip


@command(tenant, "dualdb tenant import 7.json --dry-run\ndualdb tenant import 7.json", "import")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False))
@click.option("--shard", "shard_id", type=int, help="Another shard than the key's own.")
@account_options
@dry_run_option
@pass_state
def import_rows(
    current: State,
    path: str,
    shard_id: Optional[int],
    account: Optional[str],
    account_password: Optional[str],
    dry_run: bool,
) -> None:
    """Write the rows of a tenant that `tenant export` wrote as JSON.

    Rows that are there already and are the same are left; one that differs is refused.
    """
    ops = operations(current, account, account_password)
    report: TenantImport = ops.tenant_import(read_json(path), shard_id=shard_id, dry_run=dry_run)
    if current.json:
        write_json(report.to_dict())
        return
    write_table(
        ("table", "database", "rows", "would insert" if dry_run else "inserted"),
        [
            [each.table, _database(each.on, report.shard_id), each.rows, each.inserted]
            for each in report.tables
        ],
    )


@command(tenant, "dualdb tenant purge 7 --table trades:user_id --dry-run")
@click.argument("key")
@key_type_option
@_tables_option
@click.option("--shard", "shard_id", type=int, help="Another shard than the key's own.")
@click.option("--chunk-rows", type=click.IntRange(1), default=1000, show_default=True)
@click.option(
    "--throttle", type=click.FloatRange(0.0), default=0.0, help="Seconds between two DELETEs."
)
@account_options
@yes_option
@dry_run_option
@pass_state
def purge(
    current: State,
    /,
    key: str,
    key_type: str,
    shard_tables: Tuple[str, ...],
    global_tables: Tuple[str, ...],
    account: Optional[str],
    account_password: Optional[str],
    yes: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Delete all rows of a tenant, those that refer to others first."""
    tables = tables_of(current, shard_tables, global_tables)
    value = key_of(key, key_type)
    ops = operations(current, account, account_password)
    report: TenantPurge = ops.tenant_purge(value, tables, dry_run=True, **options)
    if not dry_run:
        count = sum(each.found for each in report.tables)
        confirm(f"Delete {counted(count, 'row')} of key {value}", yes)
        report = ops.tenant_purge(value, tables, **options)
    if current.json:
        write_json(report.to_dict())
    else:
        write_table(
            ("table", "database", "found", "deleted"),
            [
                [each.table, _database(each.on, report.shard_id), each.found, each.deleted]
                for each in report.tables
            ],
        )
        if dry_run:
            click.echo("nothing was deleted")
    click.get_current_context().exit(OK)
