"""The main job, shown on private servers: run it with ``scripts/demo``."""

import asyncio
import logging
import os
import sys
import time
from typing import Any, Dict, List

import schema
import script
import web

from dualdb import AsyncDatabaseService, DatabaseService, ShardUnavailable
from dualdb.sandbox import Sandbox

COLOURED = sys.stdout.isatty() and "NO_COLOR" not in os.environ
HOLDINGS = {
    "ann@example.com": {"ABC": 10, "XYZ": 5},
    "bob@example.com": {"ABC": 7},
    "eve@example.com": {"QQQ": 1},
}


def paint(code: int, text: str) -> str:
    return f"\033[{code}m{text}\033[0m" if COLOURED else text


def headline(text: str) -> None:
    print("\n" + paint(1, text))


def show(text: str) -> None:
    print("   " + text)


def good(text: str) -> None:
    show(paint(32, "ok ") + text)


def where_the_rows_are(sandbox: Sandbox) -> None:
    """Count rows as root on every server, past dualdb."""
    for name, server in sandbox.servers.items():
        table = "accounts" if name == "global" else "trades"
        rows = sandbox.run(name, f"SELECT COUNT(*) AS n FROM {table}")[0]["n"]
        show(f"{paint(36, f'{name!s:>6}')}  127.0.0.1:{server.port}  {rows} {table}")


def use_the_script(db: DatabaseService) -> Dict[str, Any]:
    headline("1. A blocking script, through the original service's methods")
    sessions = {}
    for email, holdings in HOLDINGS.items():
        account = script.sign_up(db, email)
        sessions[email] = script.log_in(db, email)
        ids = [
            script.buy(db, sessions[email], symbol, quantity)
            for symbol, quantity in holdings.items()
        ]
        show(
            f"{email} signs up on global, gets shard "
            f"{paint(36, str(account['shard_id']))}, and buys: trades {ids} there"
        )
        assert script.portfolio(db, sessions[email]) == holdings
    return sessions


async def use_the_handler(config: Any) -> None:
    headline("2. An async handler, through the verbs: the same rows")
    async with AsyncDatabaseService(config) as db:

        async def one(email: str) -> Any:
            return email, await web.portfolio(db, await web.log_in(db, email))

        for email, holdings in await asyncio.gather(*[one(email) for email in HOLDINGS]):
            assert holdings == HOLDINGS[email]
            good(f"{email} holds {holdings}")
        ann = await web.log_in(db, "ann@example.com")
        async with db.session(ann).transaction() as tx:
            await tx.execute(
                "UPDATE trades SET quantity = quantity - 1 WHERE symbol = 'ABC' AND user_id = %s",
                (ann.session.user_id,),
            )
            await tx.execute(
                "INSERT INTO trades (user_id, symbol, quantity) VALUES (%s, 'NEW', 1)",
                (ann.session.user_id,),
            )
        good(f"ann swaps one ABC for one NEW in a transaction: {await web.portfolio(db, ann)}")


def suspend_a_shard(sandbox: Sandbox, db: DatabaseService, sessions: Dict[str, Any]) -> None:
    headline("3. Shard 2 goes into maintenance")
    sandbox.set_status(2, "maintenance")
    reload(db)
    for email in HOLDINGS:
        try:
            script.buy(db, sessions[email], "ABC", 1)
            good(f"{email} on shard {sessions[email].session.shard_id} goes on trading")
        except ShardUnavailable as error:
            show(
                f"{paint(33, 'no')} {email}: {error.message} ({error.reason}); nothing was "
                "written anywhere else"
            )
    sandbox.set_status(2, "active")
    reload(db)
    good(
        "back in service: bob's trade "
        f"{script.buy(db, sessions['bob@example.com'], 'ABC', 1)} is on shard 2"
    )


def add_a_shard(sandbox: Sandbox, db: DatabaseService) -> None:
    headline("4. Shard 3 is added: a server, a row in the shard table")
    sandbox.add_shard(3)
    sandbox.run(3, *schema.SHARD)
    reload(db)
    good(f"active shards: {db.get_active_shard_ids()}")
    account = script.sign_up(db, "zoe@example.com")
    script.buy(db, script.log_in(db, "zoe@example.com"), "ABC", 3)
    good(f"zoe@example.com signs up and gets the emptiest, shard {account['shard_id']}")


def reload(db: DatabaseService) -> None:
    db.load_shard_configs()
    db.init_shard_connections()


def main() -> None:
    logging.getLogger("dualdb").setLevel(logging.CRITICAL)
    began = time.monotonic()
    headline("Starting a private global database and two shards")
    with Sandbox(shards=2) as sandbox:
        schema.create(sandbox)
        show(f"three servers in {time.monotonic() - began:.1f} s, data in {sandbox.directory}")
        with DatabaseService(sandbox.config) as db:
            sessions = use_the_script(db)
            where_the_rows_are(sandbox)
            asyncio.run(use_the_handler(sandbox.config))
            suspend_a_shard(sandbox, db, sessions)
            add_a_shard(sandbox, db)
            headline("Where the rows are now")
            where_the_rows_are(sandbox)
        directory = sandbox.directory
    headline("Everything is taken away again")
    gone: List[str] = [] if os.path.exists(directory) else [directory]
    good(f"{gone[0]} is gone; the whole took {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
