"""What the commands write: tables and lines for people, JSON for scripts."""

import datetime
import decimal
import json
import sys
from typing import Any, Iterable, List, Mapping, Optional, Sequence

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..operations.reports import time_text

#: How states are coloured.
STYLES = {
    "active": "green",
    "ok": "green",
    "closed": "green",
    "readonly": "yellow",
    "maintenance": "yellow",
    "moving": "yellow",
    "warning": "yellow",
    "inactive": "dim",
    "unreachable": "bold red",
    "invalid": "bold red",
    "open": "bold red",
    "error": "bold red",
    "failed": "bold red",
}


def console() -> Console:
    """Standard output; made at each call, because tests and pipes replace it."""
    # Into a pipe or a file, lines are as long as they are.
    width = None if sys.stdout.isatty() else 10_000
    return Console(file=sys.stdout, width=width, highlight=False)


def plain(value: object) -> Any:
    """A value that JSON has no word for: times in ISO 8601 (a TIME as MySQL has it),
    decimals as text, bytes as ``0x`` and hex digits.
    """
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return f"0x{bytes(value).hex()}"
    if isinstance(value, datetime.timedelta):
        return time_text(value)
    if isinstance(value, (decimal.Decimal, BaseException)):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(getattr(value, "value", value))


def write_json(value: object) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, default=plain, ensure_ascii=False, indent=2))


def write_json_line(value: object) -> None:
    """One JSON document in one line, for output that goes on."""
    click.echo(json.dumps(value, default=plain, ensure_ascii=False))


def state(word: object) -> Text:
    """A state, coloured."""
    return Text(str(word), style=STYLES.get(str(word), ""))


def cell(value: object) -> Any:
    """A value in a table."""
    if isinstance(value, Text):
        return value
    if value is None:
        return Text("NULL", style="dim")
    text = value if isinstance(value, str) else str(plain(value))
    # Control characters of data must not reach the terminal.
    return Text(
        "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A table of rows."""
    made = Table(box=box.SIMPLE_HEAD)
    made.show_edge = made.pad_edge = False
    listed = [list(row) for row in rows]
    for number, name in enumerate(columns):
        right = _are_numbers([row[number] for row in listed])
        made.add_column(Text(name), justify="right" if right else "left")
    for row in listed:
        made.add_row(*[cell(value) for value in row])
    return made


def _are_numbers(values: List[Any]) -> bool:
    given = [value for value in values if value is not None and value != ""]
    return bool(given) and all(isinstance(value, (int, float, decimal.Decimal)) for value in given)


def counted(number: int, what: str) -> str:
    """A number of things: ``1 row``, ``2 rows``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def write_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], title: Optional[str] = None
) -> None:
    """A table on standard output, as wide as it needs if that is not a terminal."""
    screen = console()
    if title is not None:
        screen.print(Text(title, style="bold"))
    screen.print(table(columns, rows))


def write_rows(rows: List[Mapping[str, Any]], title: Optional[str] = None) -> None:
    """The rows of a query."""
    if not rows:
        click.echo(f"{title}: no rows" if title else "no rows")
        return
    write_table(list(rows[0]), [list(row.values()) for row in rows], title)


def note(text: str) -> None:
    """A line for people on standard error, so that standard output stays data."""
    click.echo(text, err=True)
