"""``status`` and ``check``: how the shards are."""

import dataclasses
import signal
import time
from typing import Any, Dict, List, Optional

import click
from rich.console import Group as Lines
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..errors import Error, NotReady
from ..pooling.base import PoolStats
from ..sync_impl import DatabaseService
from ..topology.status import ServiceStatus
from .base import PROBLEM, State, command, pass_state
from .operations import database_name
from .output import console, counted, state, table, write_json, write_json_line, write_table
from .root import root

_SERVER_COLUMNS = ("open", "waiting", "timeouts", "taken over")
_POOL_COLUMNS = ("in use", "idle", "waiting", "limit", "timeouts", "circuit")


def as_dict(status: ServiceStatus) -> Dict[str, Any]:
    """A ServiceStatus as JSON has it."""
    shards = [
        {
            "shard_id": shard_id,
            "state": each.state,
            "reason": each.reason,
            "name": each.name,
            "address": each.address,
            "pool": None if each.pool is None else each.pool._asdict(),
        }
        for shard_id, each in status.shards.items()
    ]
    return {
        "version": status.version,
        "age": status.age,
        "failure": status.failure,
        "problems": list(status.problems),
        "global_pool": None if status.global_pool is None else status.global_pool._asdict(),
        "shards": shards,
        "draining": dict(status.draining),
        "row_decoder": status.row_decoder,
        "servers": [
            {"server": server, **each.as_dict()} for server, each in status.servers.items()
        ],
        "buffered": dict(status.buffered),
    }


@dataclasses.dataclass(frozen=True)
class View:
    """What the screen of ``status`` shows.

    Attributes:
        address: Of the global database.
        status: Of the service.
        statements: The statements that have run longest, as rows of a table.
        moment: The time of day.
    """

    address: str
    status: ServiceStatus
    statements: List[Dict[str, Any]]
    moment: str


def screen(view: View) -> Lines:
    """The status for people."""
    status = view.status
    age = "never read" if status.age is None else f"read {status.age:.1f} s ago"
    head = Text.assemble(
        ("dualdb ", "bold"), view.address, ("   ", ""), (view.moment, "dim"), no_wrap=True
    )
    counts: Dict[str, int] = {}
    for each in status.shards.values():
        counts[each.state] = counts.get(each.state, 0) + 1
    summary = Text(
        f"shard map version {status.version}, {age};  {counted(len(status.shards), 'shard')}: "
    )
    for number, word in enumerate(sorted(counts)):
        summary.append(", " if number else "")
        summary.append_text(state(word)).append(f" {counts[word]}")
    parts: List[Any] = [head, summary, Text(""), _shards(view)]
    if status.servers:
        rows = [[server, *each] for server, each in status.servers.items()]
        parts += [Text(""), table(("server", "limit", *_SERVER_COLUMNS), rows)]
    if view.statements:
        columns = list(view.statements[0])
        rows = [list(row.values()) for row in view.statements]
        title = Text("Statements that have run longest", style="bold")
        parts += [Text(""), title, table(columns, rows)]
    parts += [Text(""), _problems(status)]
    return Lines(*parts)


def _shards(view: View) -> Table:
    rows: List[List[Any]] = [
        ["global", "", state("active"), view.address, *_pool(view.status.global_pool)]
    ]
    for shard_id, each in view.status.shards.items():
        rows.append(
            [
                f"shard {shard_id}",
                each.name or "",
                state(each.state),
                each.address or "",
                *_pool(each.pool),
            ]
        )
    return table(("database", "name", "state", "address", *_POOL_COLUMNS), rows)


def _pool(stats: Optional[PoolStats]) -> List[Any]:
    if stats is None:
        return ["", "", "", "", "", ""]
    return [
        stats.in_use,
        stats.idle,
        stats.waiting,
        stats.limit,
        stats.timeouts,
        state(stats.circuit),
    ]


def _problems(status: ServiceStatus) -> Text:
    found = list(status.problems)
    if status.failure is not None:
        found.insert(0, f"the shard table cannot be read: {status.failure}")
    found += [
        f"shard {shard_id}: {shard.reason}"
        for shard_id, shard in status.shards.items()
        if shard.state == "unreachable"
    ]
    found += [
        f"{name}: {counted(count, 'call')} in the buffer" for name, count in status.buffered.items()
    ]
    found += [f"draining {address}: {used} in use" for address, used in status.draining.items()]
    if not found:
        return Text("No problems.", style="green")
    lines = Text("Problems", style="bold")
    for each in found:
        lines.append("\n  " + " ".join(str(each).split()), style="not bold red")
    return lines


def longest_statements(db: DatabaseService) -> List[Dict[str, Any]]:
    """The five statements that have run longest, over all databases."""
    rows: List[Dict[str, Any]] = []
    try:
        found = db.operations.processes()
    except Error:
        return rows  # what is wrong is among the problems
    for each in found.processes[:5]:
        if each.sql:
            rows.append(
                {
                    "database": database_name(each.database),
                    "id": each.id,
                    "seconds": round(each.seconds, 1),
                    "statement": " ".join(each.sql.split())[:120],
                }
            )
    return rows


def _view(db: DatabaseService) -> View:
    return View(
        db.global_config.address, db.status(), longest_statements(db), time.strftime("%H:%M:%S")
    )


@command(root, "dualdb status\ndualdb status --watch\ndualdb status --json | jq '.shards[].state'")
@click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--count", type=click.IntRange(1), help="End after so many looks.")
@pass_state
def status(current: State, watch: bool, interval: float, count: Optional[int]) -> None:
    """Show the shards, their states and pools, and the age of the shard map.

    The pools are this process's own. With --watch and --json each look is one line.
    """
    db = current.open()
    if not watch:
        if current.json:
            write_json(as_dict(db.status()))
        else:
            console().print(screen(_view(db)))
        return
    try:
        _watch(current, db, interval, count)
    except KeyboardInterrupt:
        return


def _watch(current: State, db: DatabaseService, interval: float, count: Optional[int]) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    looks = 0
    if current.json:
        while True:
            write_json_line(as_dict(db.status()))
            looks += 1
            if looks == count:
                return
            time.sleep(interval)
    view = _view(db)
    with Live(screen(view), console=console(), screen=True, auto_refresh=False) as live:
        while True:
            live.update(screen(view), refresh=True)
            looks += 1
            if looks == count:
                return
            time.sleep(interval)
            view = _view(db)


@command(root, "dualdb check && deploy\ndualdb check --wait 30\ndualdb check --json")
@click.option(
    "--wait",
    type=click.FloatRange(0.0, 86_400),
    metavar="SECONDS",
    help="Wait so long for all databases to answer.",
)
@pass_state
@click.pass_context
def check(ctx: click.Context, current: State, wait: Optional[float]) -> None:
    """Ask every database for an answer; exit with 1 if one does not give it."""
    db = current.service() if wait is not None else current.open()
    if wait is not None:
        current.stack.callback(db.close_service)
        try:
            db.wait_ready(wait)
        except NotReady:
            # Which do not answer is shown below, if the global database does.
            db.init_service()
    found = db.health_check()
    databases = [{"database": "global", **found["global"]}]
    databases += [{"database": f"shard {key}", **part} for key, part in found["shards"].items()]
    if current.json:
        write_json({"healthy": found["healthy"], "databases": databases})
    else:
        write_table(
            ("database", "healthy", "status", "error"),
            [
                [
                    each["database"],
                    state("ok") if each["healthy"] else state("failed"),
                    state(each["status"]),
                    each.get("error") or "",
                ]
                for each in databases
            ],
        )
    if not found["healthy"]:
        ctx.exit(PROBLEM)
