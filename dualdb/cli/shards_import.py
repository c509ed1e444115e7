"""``shards import``: shards from a file, all of them checked before one is written."""

import csv
import importlib
import io
import json
import pathlib
import sys
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

import click

from ..errors import ParameterError
from ..sync_impl import DatabaseService
from . import settings
from .base import State, command, dry_run_option, pass_state, report
from .shards import STATUSES, compare_schema, config_of, shards

#: The columns of the shard table by what they are called in files.
_NAMES = {
    "shard_id": "shard_id",
    "host": "host",
    "port": "port",
    "database": "database",
    "database_name": "database",
    "user": "user",
    "username": "user",
    "password": "password",
    "status": "status",
    "name": "name",
    "shard_name": "name",
    "max_connections": "max_connections",
}
#: Columns of the table that the database fills in.
_IGNORED = {"created_at", "updated_at"}
_NEEDED = ("shard_id", "host", "database", "user", "password")
_NUMBERS = ("shard_id", "port", "max_connections")
_FORMATS = ("toml", "json", "csv")


class ShardRow(NamedTuple):
    """A shard of a file, as ``add_shard`` takes it."""

    shard_id: int
    fields: Mapping[str, Any]

    def address(self, db: DatabaseService) -> str:
        """Where its database is."""
        return config_of(db.global_config, self.fields).address


def parse(text: str, form: str) -> List[ShardRow]:
    """The shards of a file.

    Args:
        text: ``[[shards]]`` in TOML; in JSON a list of objects, or an object with the
            list ``shards``; in CSV a line of column names, and a line for each shard.
        form: "toml", "json" or "csv".

    Raises:
        SettingsError: The text is not of this form, or a shard is described wrongly;
            no password is shown.
    """
    found = [_row(number, raw) for number, raw in enumerate(_listed(text, form), 1)]
    if not found:
        raise settings.SettingsError("there is no shard in the file")
    ids = [each.shard_id for each in found]
    twice = sorted({each for each in ids if ids.count(each) > 1})
    if twice:
        raise settings.SettingsError(f"shard {twice[0]} is in the file twice")
    return found


def _listed(text: str, form: str) -> List[Any]:
    try:
        if form == "csv":
            return list(csv.DictReader(io.StringIO(text), strict=True))
        document = json.loads(text) if form == "json" else _toml().loads(text)
    except (ValueError, csv.Error) as error:
        raise settings.SettingsError(f"the file is not {form.upper()}: {error}") from None
    if isinstance(document, dict):
        document = document.get("shards")
    if not isinstance(document, list):
        raise settings.SettingsError(
            "the file has no list of shards: [[shards]] in TOML, a list of objects in JSON"
        )
    return document


def _toml() -> Any:
    return importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


def _row(number: int, raw: object) -> ShardRow:
    where = f"shard number {number} of the file"
    if not isinstance(raw, dict):
        raise settings.SettingsError(f"{where} is not described by names and values")
    fields: Dict[str, Any] = {"port": 3306, "status": "active"}
    for name, value in raw.items():
        if name in _IGNORED or value is None or value == "":
            continue
        known = _NAMES.get(name) if isinstance(name, str) else None
        if known is None:
            raise settings.SettingsError(
                f"{where}: {'there are more values than columns' if name is None else name!r} "
                f"is no column; there are {', '.join(_NAMES)}"
            )
        fields[known] = _number(where, known, value) if known in _NUMBERS else value
    missing = [name for name in _NEEDED if name not in fields]
    if missing:
        raise settings.SettingsError(f"{where} has no {missing[0]}")
    wrong = [name for name, value in fields.items() if type(value) not in (int, str)]
    wrong += [each for each in fields if each not in _NUMBERS and type(fields[each]) is not str]
    if wrong:
        raise settings.SettingsError(f"{where}: {wrong[0]} must be a text")
    fields["host"] = fields["host"].strip().lower()
    fields["status"] = fields["status"].strip().lower()
    if fields["status"] not in STATUSES:
        raise settings.SettingsError(f"{where}: status is one of {', '.join(STATUSES)}")
    return ShardRow(fields.pop("shard_id"), fields)


def _number(where: str, name: str, value: object) -> int:
    text = str(value).strip()
    if isinstance(value, bool) or not (text.isascii() and text.isdigit()):
        raise settings.SettingsError(f"{where}: {name} must be a number, not {value!r}")
    return int(text)


def _format_of(path: str, form: Optional[str]) -> str:
    found = form or pathlib.Path(path).suffix[1:].lower()
    if found not in _FORMATS:
        raise settings.SettingsError(f"{path}: give --format, for its name does not say it")
    return found


@command(
    shards,
    "dualdb shards import shards.toml --dry-run\ndualdb shards import shards.csv",
    "import",
)
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False))
@click.option("--format", "form", type=click.Choice(_FORMATS), help="If not as FILE is named.")
@click.option("--any-schema", is_flag=True, help="Do not compare schemas with another shard's.")
@click.option("--any-privileges", is_flag=True, help="Do not look at the accounts' privileges.")
@dry_run_option
@pass_state
def import_shards(
    current: State,
    path: str,
    form: Optional[str],
    any_schema: bool,
    any_privileges: bool,
    dry_run: bool,
) -> None:
    """Add all shards of a file: TOML, JSON or CSV, as of the shard table.

    Every new shard is connected to before the first row is written. What is in the
    shard table already is left as it is, so that an import that ended early is begun
    again; a shard that is there with another address is refused.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise settings.SettingsError(f"{path} cannot be read: {error}") from None
    found = parse(text, _format_of(path, form))
    db = current.open()
    new = [each for each in found if not _is_there(db, each)]
    options: Dict[str, Any] = {"privileges": ()} if any_privileges else {}
    for each in new:
        db.add_shard(each.shard_id, **each.fields, **options, dry_run=True)
        if not any_schema:
            compare_schema(db, each.shard_id, each.fields)
    actions = []
    for each in found:
        if each not in new:
            actions.append(f"leave shard {each.shard_id} at {each.address(db)} as it is")
            continue
        if not dry_run:
            db.add_shard(each.shard_id, **each.fields, connect=False)
        actions.append(
            f"add shard {each.shard_id} at {each.address(db)} as {each.fields['user']}, "
            f"{each.fields['status']}"
        )
    report(
        current,
        actions,
        dry_run=dry_run,
        added=[each.shard_id for each in new],
        left=[each.shard_id for each in found if each not in new],
    )


def _is_there(db: DatabaseService, row: ShardRow) -> bool:
    """Whether the shard is in the shard table, at the same address.

    Raises:
        ParameterError: It is there with another one.
    """
    known = db.status().shards.get(row.shard_id)
    if known is None:
        return False
    if known.address is not None and known.address != row.address(db):
        raise ParameterError(
            f"shard {row.shard_id} is in the shard table at {known.address}, "
            f"and at {row.address(db)} in the file"
        )
    return True
