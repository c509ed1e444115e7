"""Producers and consumers of the outbox, and callers with idempotency keys, that are
killed anywhere: nothing is lost, nothing is done twice, the order of keys holds.
"""

import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
from collections import defaultdict
from typing import Any, Dict, Iterator, List, Tuple

import pytest
from waiting import wait_for

from dualdb import DatabaseService
from dualdb.coordination import idempotency
from dualdb.sandbox import Sandbox

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
KEYS = 6
COUNTERS = [
    "CREATE TABLE counter (k INT PRIMARY KEY, n INT NOT NULL)",
    f"INSERT INTO counter VALUES {', '.join([f'({key}, 0)' for key in range(KEYS)])}",
    "CREATE TABLE effect (request VARCHAR(40) NOT NULL, k INT NOT NULL, n INT NOT NULL)",
]
PRODUCER = """\
import random, sys
from dualdb import DatabaseConfig, DatabaseService

def produce(tx):
    key = random.randrange(6)
    tx.execute("UPDATE counter SET n = n + 1 WHERE k = %s", (key,))
    n = tx.query_value("SELECT n FROM counter WHERE k = %s", (key,))
    tx.outbox("counted", [key, n], key=key)

with DatabaseService(DatabaseConfig.from_env()) as db:
    print("ready", flush=True)
    while True:
        db.shard(random.choice((1, 2))).run(produce, attempts=50)
"""
CONSUMER = """\
import os, sys, time
from dualdb import DatabaseConfig, DatabaseService

def write(event):
    os.write(file, f"{event.id} {event.shard_id} {event.key} {event.payload[1]}\\n".encode())
    time.sleep(0.005)

file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
with DatabaseService(DatabaseConfig.from_env()) as db:
    print("ready", flush=True)
    db.outbox.consume(write, batch=10, lease=1.0, poll_interval=0.05, concurrency=2)
"""
CONSUMER_IN_TASKS = """\
import asyncio, os, sys
from dualdb import AsyncDatabaseService, DatabaseConfig

async def write(event):
    os.write(file, f"{event.id} {event.shard_id} {event.key} {event.payload[1]}\\n".encode())
    await asyncio.sleep(0.005)

async def main():
    async with AsyncDatabaseService(DatabaseConfig.from_env()) as db:
        print("ready", flush=True)
        await db.outbox.consume(write, batch=10, lease=1.0, poll_interval=0.05, concurrency=2)

file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
asyncio.run(main())
"""
CALLER = """\
import os, random, sys
from dualdb import DatabaseConfig, DatabaseService

def effect(request):
    def body(tx):
        tx.execute("UPDATE counter SET n = n + 1 WHERE k = 0")
        n = tx.query_value("SELECT n FROM counter WHERE k = 0")
        tx.execute("INSERT INTO effect VALUES (%s, 0, %s)", (request, n))
        return n
    return body

file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
with DatabaseService(DatabaseConfig.from_env()) as db:
    print("ready", flush=True)
    while True:
        request = f"request-{random.randrange(int(sys.argv[2]))}"
        n = db.shard(1).run(effect(request), idempotency_key=request, attempts=50)
        os.write(file, f"{request} {n}\\n".encode())
"""


class Processes:
    """Scripts in processes of their own, which are killed and begun again."""

    def __init__(self, sandbox: Sandbox, directory: pathlib.Path) -> None:
        self._directory = directory
        self._environ = {**os.environ, "DUALDB_URL": sandbox.url, "PYTHONPATH": str(ROOT)}
        self.running: List[Tuple[List[str], subprocess.Popen[str]]] = []

    def begin(self, script: str, *arguments: str) -> None:
        """Begin a script, and wait until it is ready."""
        command = [sys.executable, "-c", script, *arguments]
        process = subprocess.Popen(
            command, env=self._environ, cwd=self._directory, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "it has not begun"
        self.running.append((command, process))

    def kill(self, number: int) -> None:
        _, process = self.running.pop(number)
        assert process.poll() is None, "it ended by itself"
        process.send_signal(signal.SIGKILL)
        process.communicate()

    def replace(self, number: int) -> None:
        command, _ = self.running[number]
        self.kill(number)
        self.begin(command[2], *command[3:])

    def kill_all(self) -> None:
        while self.running:
            self.kill(0)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(2) as made:
        for shard_id in (1, 2):
            made.run(shard_id, *COUNTERS, idempotency.DDL)
        with DatabaseService(made.config) as db:
            db.outbox.create_tables()
        yield made


@pytest.fixture
def processes(sandbox: Sandbox, tmp_path: pathlib.Path) -> Iterator[Processes]:
    made = Processes(sandbox, tmp_path)
    yield made
    with contextlib.suppress(AssertionError):
        made.kill_all()


def lines(path: pathlib.Path) -> List[List[str]]:
    """What was written; a line that a kill has cut short is none."""
    text = path.read_text() if path.exists() else ""
    return [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]


def counters(sandbox: Sandbox) -> Dict[Tuple[str, str], int]:
    return {
        (str(shard_id), str(row["k"])): row["n"]
        for shard_id in (1, 2)
        for row in sandbox.run(shard_id, "SELECT k, n FROM counter")
    }


@pytest.mark.parametrize("consumer", [CONSUMER, CONSUMER_IN_TASKS], ids=["sync", "async"])
def test_events_survive_kills_in_their_order(
    sandbox: Sandbox, processes: Processes, tmp_path: pathlib.Path, seed: int, consumer: str
) -> None:
    chance = random.Random(seed)
    path = tmp_path / "delivered"
    processes.begin(PRODUCER)
    for _ in range(3):
        processes.begin(consumer, str(path))
    for _ in range(8):
        before = len(lines(path))
        wait_for(lambda before=before: len(lines(path)) > before + chance.randrange(20), 60)
        processes.replace(chance.randrange(len(processes.running)))
    processes.kill_all()
    with DatabaseService(sandbox.config) as db:
        found: List[List[str]] = []

        def take(event: Any) -> None:
            found.append([event.id, str(event.shard_id), event.key, str(event.payload[1])])

        def all_is_delivered() -> bool:
            db.outbox.consume(take, until_idle=True)
            return db.outbox.status().pending == 0

        wait_for(all_is_delivered, 30)
        assert db.outbox.status().dead == 0
    seen: Dict[Tuple[str, str], List[int]] = defaultdict(list)
    ids: Dict[str, List[str]] = {}
    for event_id, *rest in [*lines(path), *found]:
        if event_id in ids:
            assert ids[event_id] == rest, "the same id is the same event"
            continue
        ids[event_id] = rest
        shard_id, key, number = rest
        seen[shard_id, key].append(int(number))
    committed = counters(sandbox)
    assert sum(committed.values()) > 100
    for name, count in committed.items():
        assert seen[name] == list(range(1, count + 1)), name
    delivered = len(lines(path)) + len(found)
    print(f"{len(ids)} events, {delivered - len(ids)} delivered again")  # noqa: T201


def test_effects_of_callers_that_are_killed_are_there_once(
    sandbox: Sandbox, processes: Processes, tmp_path: pathlib.Path, seed: int
) -> None:
    chance = random.Random(seed)
    path = tmp_path / "results"
    for _ in range(4):
        processes.begin(CALLER, str(path), "400")
    for _ in range(8):
        before = len(lines(path))
        wait_for(lambda before=before: len(lines(path)) > before + chance.randrange(30), 60)
        processes.replace(chance.randrange(len(processes.running)))
    processes.kill_all()
    rows = sandbox.run(1, "SELECT request, n FROM effect")
    effects = {row["request"]: row["n"] for row in rows}
    assert len(effects) == len(rows) > 50
    assert sorted(effects.values()) == list(range(1, len(rows) + 1))
    for request, number in lines(path):
        assert effects[request] == int(number)
    stored = sandbox.run(1, f"SELECT idempotency_key AS k, result FROM {idempotency.TABLE}")
    assert {row["k"].decode(): json.loads(row["result"]) for row in stored} == effects
