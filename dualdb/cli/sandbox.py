"""``sandbox``: a private sharded database to play with."""

import os
import signal
import subprocess
import sys
import threading
from typing import Any, Optional, Tuple

import click

from ..sandbox import Sandbox
from .base import State, pass_state
from .output import note, write_json_line
from .root import root


@root.command(
    example=(
        "dualdb sandbox --shards 3\ndualdb sandbox --shards 1 --replicas 1\n"
        "dualdb sandbox --shards 1 --galera 3\ndualdb sandbox -- pytest tests/"
    ),
    context_settings={"allow_interspersed_args": False},
)
@click.option(
    "--shards", type=click.IntRange(0, 20), default=2, show_default=True, help="How many shards."
)
@click.option(
    "--replicas", type=click.IntRange(0, 5), default=0, help="Replicas of each database, by GTID."
)
@click.option(
    "--galera",
    type=click.IntRange(2, 5),
    is_flag=False,
    flag_value=2,
    metavar="[NODES]",
    help="Put each database on a Galera cluster, of 2 nodes if no number is given.",
)
@click.option("--program", help="The server program; the default is mariadbd or mysqld.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_state
@click.pass_context
def sandbox(
    ctx: click.Context,
    current: State,
    shards: int,
    replicas: int,
    galera: Optional[int],
    program: Optional[str],
    command: Tuple[str, ...],
) -> None:
    """Start private servers on loopback, and print the URL of the global database.

    They are gone, with all their files, when the command ends: by Ctrl-C, or when
    COMMAND does, which is run with DUALDB_URL set.
    """
    # SystemExit ends the block below, and with it the servers.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if replicas and galera:
        raise click.UsageError("--replicas and --galera exclude each other")
    with Sandbox(shards, program=program, replicas=replicas, galera=galera or 0) as made:
        if command:
            ctx.exit(_run(command, made))
        _show(current, made)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            note("the servers are stopped and their files removed")


def _run(command: Tuple[str, ...], made: Sandbox) -> int:
    environ = {**os.environ, "DUALDB_URL": made.url}
    try:
        with subprocess.Popen(command, env=environ) as process:
            while True:
                try:
                    return process.wait()
                except KeyboardInterrupt:
                    pass  # the command has it too, and decides
    except OSError as error:
        note(f"dualdb: {command[0]}: {error.strerror}")
        return 127


def _show(current: State, made: Sandbox) -> None:
    members: Any = {
        str(name): [f"{each.host}:{each.port}" for each in servers]
        for name, servers in made.members.items()
    }
    if current.json:
        servers = {name: addresses[0] for name, addresses in members.items()}
        root_options = {str(name): each.root_options for name, each in made.servers.items()}
        write_json_line(
            {
                "url": made.url,
                "servers": servers,
                "members": members,
                "root_options": root_options,
                "directory": made.directory,
            }
        )
        return
    click.echo(f"export DUALDB_URL='{made.url}'")
    sys.stdout.flush()
    for name, addresses in members.items():
        note(f"{name if name == 'global' else f'shard {name}'}: {', '.join(addresses)}")
    note(f"As root: mariadb --defaults-file={made.servers['global'].root_options}")
    note("Set DUALDB_URL as above in another terminal, and try: dualdb status. Ctrl-C ends it.")
