"""``demo``: the main job, shown on private servers."""

import asyncio
from types import SimpleNamespace
from typing import Any, List

from ..config import DatabaseConfig
from ..directory.sources import LookupTable
from ..errors import ShardUnavailable
from ..sandbox import Sandbox
from ..sync_impl import DatabaseService
from .base import State, command, pass_state
from .output import console, note, write_json
from .root import root

_TRADES = """\
CREATE TABLE trades (id BIGINT AUTO_INCREMENT PRIMARY KEY, user_id BIGINT NOT NULL,
    symbol VARCHAR(20) NOT NULL, quantity INT NOT NULL)"""
_BUY = "INSERT INTO trades (user_id, symbol, quantity) VALUES (%s, %s, %s)"


@command(root, "dualdb demo")
@pass_state
def demo(current: State) -> None:
    """Show the main job on private servers, which are gone afterwards."""
    found: List[str] = []

    def report_done(text: str) -> None:
        found.append(text)
        if not current.json:
            console().print(f"[green]ok[/] {text}")

    if not current.json:
        note("starting a global database and two shards")
    with Sandbox(2) as sandbox:
        for shard_id in (1, 2):
            sandbox.run(shard_id, _TRADES)
        with DatabaseService(sandbox.config, directory=LookupTable()) as db:
            _show(sandbox, db, report_done)
    report_done("the servers and their files are gone")
    if current.json:
        write_json(found)


def _show(sandbox: Sandbox, db: DatabaseService, report_done: Any) -> None:
    db.directory.create_tables()
    for user_id in (6, 7):
        shard_id = db.directory.assign(user_id)
        db.key(user_id).execute(_BUY, (user_id, "ABC", user_id))
        report_done(f"user {user_id} is placed on shard {shard_id}, and buys there")
    rows = asyncio.run(_read(sandbox.config))
    report_done(f"asyncio reads both shards: {rows}")
    shard_id = db.shard_id_of(7)
    session = SimpleNamespace(session=SimpleNamespace(shard_id=shard_id))
    db.set_shard_status(shard_id, "maintenance")
    try:
        db.session(session).execute(_BUY, (7, "XYZ", 1))
    except ShardUnavailable as error:
        report_done(f"shard {shard_id} is in maintenance, and its sessions are refused: {error}")
    db.set_shard_status(shard_id, "active")
    sandbox.add_shard(3)
    sandbox.run(3, _TRADES)
    db.refresh()
    report_done(f"shard 3 is added while the service runs: {db.get_active_shard_ids()}")
    report_done(f"the next user is placed on shard {db.directory.assign(8)}")


async def _read(config: DatabaseConfig) -> List[Any]:
    from ..async_impl import DatabaseService as AsyncDatabaseService  # noqa: PLC0415

    async with AsyncDatabaseService(config) as db:
        found = await db.shards().query("SELECT user_id, symbol, quantity FROM trades")
        return found.rows_with_shard()
