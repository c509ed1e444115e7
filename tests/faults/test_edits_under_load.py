"""The shard table is edited again and again while callers read and write: what they
get, and what the servers hold afterwards.
"""

import asyncio
import random
import threading
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Tuple

import pytest
from apis import session
from database_servers import Databases
from io_kinds import IO

from dualdb import DatabaseConfig, ShardNotFound, ShardUnavailable
from dualdb.execution.steps import CallHooks, Close, Sleep
from dualdb.sync_impl.runner import run_plan
from dualdb.topology import shard_map
from dualdb.topology.maintenance import Maintenance, Timing
from dualdb.topology.manager import Topology, TopologyManager

pytestmark = pytest.mark.slow

INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, %s, 1)"
CALLERS = 6
SECONDS = 3.0

Outcomes = List[Tuple[int, int, Any]]


def edit_at_random(databases: Databases, seed: int, seconds: float) -> None:
    """Add shard 3, move it between two servers, suspend it, make it read-only or
    inactive, remove it; shard 2 is never touched.
    """
    chance = random.Random(seed)
    places = [databases.config_of(1), databases.config_of(2)]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(chance.random() * 0.1)
        what = chance.randrange(6)
        if what == 0:
            databases.run("global", "DELETE FROM table_shard_config WHERE shard_id = 3")
        elif what == 1:
            place = chance.choice(places)
            databases.set_row(3, host=place.host, port=place.port, database_name=place.database)
        elif what == 2:
            databases.set_row(3, port="0")
        else:
            databases.set_row(
                3,
                status=chance.choice(
                    ["active", "inactive", "maintenance", "moving", "readonly", "active"]
                ),
            )
    place = places[1]
    databases.set_row(
        3, host=place.host, port=place.port, database_name=place.database, status="active"
    )


class Callers:
    """Write to shards 2 and 3 by session until they are stopped; the outcome of each
    write.
    """

    def __init__(self, db: Any) -> None:
        self.db = db
        self.stopped = False
        self.translated: Outcomes = []

    def numbers(self, caller: int) -> Any:
        number = caller
        while not self.stopped:
            yield number, 2 + number % 2
            number += CALLERS

    def sync(self, caller: int) -> None:
        for number, shard_id in self.numbers(caller):
            try:
                with self.db.session(session(shard_id)).transaction() as tx:
                    tx.execute(INSERT, (number, f"S{shard_id}"))
                self.db.session(session(shard_id)).query_value(
                    "SELECT COUNT(*) FROM trades WHERE user_id = %s", (number,)
                )
                self.translated.append((number, shard_id, None))
            except Exception as error:
                self.translated.append((number, shard_id, error))
                time.sleep(0.001)

    async def asynchronous(self, caller: int) -> None:
        for number, shard_id in self.numbers(caller):
            try:
                async with self.db.session(session(shard_id)).transaction() as tx:
                    await tx.execute(INSERT, (number, f"S{shard_id}"))
                await self.db.session(session(shard_id)).query_value(
                    "SELECT COUNT(*) FROM trades WHERE user_id = %s", (number,)
                )
                self.translated.append((number, shard_id, None))
            except Exception as error:
                self.translated.append((number, shard_id, error))
                await asyncio.sleep(0.001)


def test_edits_cost_no_error_that_was_not_promised(
    open_service: Callable[..., Any], io: IO, databases: Databases, seed: int
) -> None:
    db = open_service(refresh_interval=0.05, absent_shard="error")
    callers = Callers(db)

    def edit() -> None:
        try:
            edit_at_random(databases, seed, SECONDS)
        finally:
            callers.stopped = True

    editor = threading.Thread(target=edit)
    editor.start()
    work = callers.sync if io.name == "sync" else callers.asynchronous
    assert (
        io.concurrently([lambda caller=caller: work(caller) for caller in range(CALLERS)])
        == [None] * CALLERS
    )
    editor.join()
    held = {
        name: [
            (row["user_id"], row["symbol"])
            for row in databases.run(name, "SELECT user_id, symbol FROM trades")
        ]
        for name in (1, 2)
    }
    rows = Counter(held[1] + held[2])
    unpromised = [
        error
        for _, _, error in callers.translated
        if error is not None and not isinstance(error, (ShardUnavailable, ShardNotFound))
    ]
    assert unpromised == []
    assert max(rows.values()) == 1, "a row was written twice"
    for number, shard_id, error in callers.translated:
        assert error is not None or (number, f"S{shard_id}") in rows, (
            "an acknowledged row is missing"
        )
    assert not [
        error for _, shard_id, error in callers.translated if shard_id == 2 and error is not None
    ], "shard 2 was never touched"
    assert {symbol for _, symbol in held[1]} <= {"S3"}, "a row of shard 2 is elsewhere"
    counts = Counter(shard_id for _, shard_id, error in callers.translated if error is None)
    assert min(counts[2], counts[3]) > 20, "the callers have done nothing, which proves nothing"
    io(db.refresh())
    assert io(db.shard(3).query_value("SELECT DATABASE()")) == databases.config_of(2).database
    assert set(db.stats()) == {"global", 1, 2, 3}
    assert {shard.state for shard in db.status().shards.values()} == {"active"}
    io.wait_for(lambda: not db.status().draining)


class Table:
    """The rows of a shard table, and a client that reads them: no server, no loop."""

    def __init__(self) -> None:
        self.rows: Dict[int, Dict[str, Any]] = {}

    def row(self, chance: random.Random, shard_id: int) -> Dict[str, Any]:
        status = chance.choice(
            ["active", "active", "ACTIVE ", "inactive", "maintenance", "readonly", "asleep"]
        )
        port = chance.choice([3306, 3306, 3307, None])
        database = f"d{chance.randrange(2)}"
        # Of one row, all columns belong together: whoever sees half a change sees two
        # that do not.
        named = {
            "database_name": database,
            "host": f"h-{database}-{port}",
            "username": f"u-{database}-{port}",
        }
        return {"shard_id": shard_id, "port": port, "password": "", "status": status, **named}

    def edit(self, chance: random.Random) -> None:
        shard_id = chance.randrange(8)
        if chance.random() < 0.3:
            self.rows.pop(shard_id, None)
        else:
            self.rows[shard_id] = self.row(chance, shard_id)


def client(config: DatabaseConfig, name: str, shard_id: Any) -> Any:
    pool = SimpleNamespace(in_use=0, opened=1, health=SimpleNamespace(failure=None), closed=False)
    client = SimpleNamespace(config=config, name=name, shard_id=shard_id, pool=pool)
    client.has_pool = True
    return client


def performed(step: Any) -> Any:
    assert isinstance(step, (Close, CallHooks, Sleep))
    for each in step.clients if isinstance(step, Close) else ():
        each.pool.closed = True


def test_ten_thousand_edits_show_nobody_half_a_change(seed: int) -> None:
    base = DatabaseConfig(database="g", user="u", password="")
    table, chance = Table(), random.Random(seed)
    manager = TopologyManager(client, drain_timeout=30.0)
    maintenance = Maintenance(
        manager,
        SimpleNamespace(),  # type: ignore[arg-type]
        lambda timeout: Sleep(0),
        None,
        timing=Timing(),
    )
    done, wrong = threading.Event(), []
    looks: Counter[int] = Counter()

    def read() -> None:
        while not done.is_set():
            topology: Any = manager.topology
            before = topology.shard_map.version
            for shard_id, shard in topology.shard_map.shards.items():
                config, found = shard.config, topology.clients.get(shard_id)
                whole = config is None or (
                    config.host == f"h-{config.database}-{config.port}"
                    and config.user == f"u-{config.database}-{config.port}"
                )
                if (
                    not whole
                    or shard.in_service is (found is None)
                    or (found is not None and found.config != config)
                ):
                    wrong.append((before, shard))
            looks[before] += 1
            time.sleep(0.0005)

    manager.topology = Topology(client(base, "global", None), shard_map.EMPTY, {})
    run_plan(manager.activate(shard_map.EMPTY._replace(version=1)), performed)
    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for version in range(2, 10_002):
        table.edit(chance)
        before: Any = manager.topology
        run_plan(
            manager.activate(shard_map.parse_shard_table(list(table.rows.values()), base, version)),
            performed,
        )
        after: Any = manager.topology
        for shard_id, kept in before.clients.items():
            same = after.clients.get(shard_id)
            if (
                shard_id in after.shard_map.shards
                and after.shard_map.shards[shard_id].config == kept.config
                and same is not None
            ):
                assert same is kept, "an unchanged row keeps its very pool"
            else:
                assert kept.pool.closed
        run_plan(maintenance.reap_draining(), performed)
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert len(looks) > 50
    fresh = shard_map.parse_shard_table(list(table.rows.values()), base, 10_001)
    last: Any = manager.topology
    assert last.shard_map == fresh
    assert {key: each.config for key, each in last.clients.items()} == {
        key: shard.config for key, shard in fresh.shards.items() if shard.in_service
    }
    assert manager.draining == ()
