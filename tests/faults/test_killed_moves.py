"""Movers that are killed at every step, under writers: another process goes on, or
undoes it, and no row is lost, doubled or misplaced.
"""

import contextlib
import os
import pathlib
import subprocess
import sys
import threading
from typing import Any, Dict, Iterator, List

import pymysql
import pytest

from dualdb import DatabaseService, LookupTable, TenantFenced
from dualdb.operations import JobState, TenantTable
from dualdb.sandbox import Sandbox

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
KEY = 3
SCHEMA = [
    "CREATE TABLE bill (id BIGINT PRIMARY KEY, owner BIGINT NOT NULL, KEY (owner))",
    "CREATE TABLE line (bill_id BIGINT, no INT, PRIMARY KEY (bill_id, no), "
    "FOREIGN KEY (bill_id) REFERENCES bill (id) ON DELETE CASCADE)",
    "CREATE TABLE account (owner BIGINT PRIMARY KEY, balance BIGINT NOT NULL)",
]
TABLES = [
    TenantTable("line", parent="bill", parent_column="bill_id"),
    TenantTable("bill", "owner"),
    TenantTable("account", "owner"),
]
MOVER = """\
import os, signal, sys
from dualdb import DatabaseConfig, DatabaseService, LookupTable
from dualdb.directory.lookup import KeyDirectory
from dualdb.operations import TenantTable, move

point, to = sys.argv[1], int(sys.argv[2])
tables = [
    TenantTable("line", parent="bill", parent_column="bill_id"),
    TenantTable("bill", "owner"),
    TenantTable("account", "owner"),
]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def dying(owner, name, when, number=1):
    original, calls = getattr(owner, name), []

    def patched(self, *args, **options):
        calls.append(args)
        if when == "before" and len(calls) == number:
            die()
        result = yield from original(self, *args, **options)
        if when == "after" and len(calls) == number:
            die()
        return result

    setattr(owner, name, patched)

def progress(job):
    if point == "step " + (job.position or {}).get("step", ""):
        die()

if not point.startswith("step "):
    name, when, number = point.split()
    dying(KeyDirectory if name == "switch" else move._Move, name, when, int(number))
with DatabaseService(DatabaseConfig.from_env(), directory=LookupTable(ttl=0)) as db:
    db.operations.move(3, to, tables, settle=0.2, chunk_rows=20, lease=30, progress=progress)
print("done")
"""
POINTS = [
    *[f"step {name}" for name in (
        "mark", "close target", "clear target", "log", "wait for prepared", "copy", "delta",
        "cut over", "settle", "purge",
    )],
    "_put after 2",
    "_carry_over before 1",
    "_carry_over after 1",
    "_first_state after 1",
    "_first_state after 2",
    "_set_state before 1",
    "_set_state after 1",
    "_catch_up after 1",
    "_verify after 1",
    "switch after 1",
    "_set_state after 2",
    "_set_state after 3",
    "_delete_chunk after 2",
]  # fmt: skip


class Shop:
    """A tenant with writers, by the package and not."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.db = DatabaseService(sandbox.config, directory=LookupTable(ttl=3600))
        self.db.init_service()
        self.mover = DatabaseService(sandbox.config, directory=LookupTable(ttl=0))
        self.mover.init_service()
        self._done = threading.Event()
        self._lock = threading.Lock()
        self.accepted = 0
        self.errors: List[BaseException] = []
        self._threads = [
            threading.Thread(target=target) for target in (self._write, self._write, self._strange)
        ]

    def __enter__(self) -> "Shop":
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._done.set()
        for each in self._threads:
            each.join()
        self.db.close_service()
        self.mover.close_service()

    def _count(self, number: int) -> None:
        with self._lock:
            self.accepted += number

    def _write(self) -> None:
        def body(tx: Any) -> None:
            tx.execute("UPDATE account SET balance = balance + 1 WHERE owner = 3")
            number = tx.query_value("SELECT balance FROM account WHERE owner = 3")
            tx.execute("INSERT INTO bill VALUES (%s, 3)", (number,))
            tx.execute("INSERT INTO line VALUES (%s, 1)", (number,))
            if number % 2:
                tx.execute("DELETE FROM bill WHERE id = %s", (number - 4,))

        while not self._done.wait(0.01):
            try:
                self.db.key(KEY).run(body, attempts=50)
                self._count(1)
            except TenantFenced:
                continue  # nobody has gone on with the move yet
            except Exception as error:
                self.errors.append(error)

    def _strange(self) -> None:
        """A program that knows nothing of the package but its lookup table."""
        sessions: Dict[Any, Any] = {}
        for name in ("global", 1, 2):
            config = self.sandbox.config_of(name)
            sessions[name] = pymysql.connect(
                host=config.host, port=config.port, user=config.user, database=config.database,
                password=config.reveal_password(), autocommit=True, ssl_disabled=True,
            ).cursor()  # fmt: skip
        while not self._done.wait(0.005):
            sessions["global"].execute(
                "SELECT shard_id FROM table_user_shard_mapping WHERE account_db_key = 3"
            )
            cursor = sessions[sessions["global"].fetchone()[0]]
            with contextlib.suppress(pymysql.err.OperationalError):
                changed = cursor.execute("UPDATE account SET balance = balance + 1 WHERE owner = 3")
                self._count(changed)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(2) as made:
        for shard in (1, 2):
            made.run(shard, *SCHEMA)
        made.run(1, "INSERT INTO account VALUES (3, 1000)")
        with DatabaseService(made.config, directory=LookupTable()) as db:
            db.directory.create_tables()
            db.directory.set(KEY, 1)
            db.operations.prepare_moves(TABLES)
        yield made


def check(sandbox: Sandbox, shard: int, balance: int) -> None:
    """All rows are on one shard, whole, and none is on the other."""
    assert sandbox.run(shard, "SELECT balance FROM account") == [{"balance": balance}]
    bills = "SELECT COUNT(*) AS n FROM bill WHERE id NOT IN (SELECT bill_id FROM line)"
    lines = "SELECT COUNT(*) AS n FROM line WHERE bill_id NOT IN (SELECT id FROM bill)"
    assert [sandbox.run(shard, sql)[0]["n"] for sql in (bills, lines)] == [0, 0]
    for table in ("account", "bill", "line"):
        assert sandbox.run(3 - shard, f"SELECT COUNT(*) AS n FROM {table}") == [{"n": 0}], table


#: Where it is undone, too: before the switch.
UNDONE = [
    "step clear target",
    "step wait for prepared",
    "step delta",
    "_put after 2",
    "_carry_over after 1",
    "_set_state after 1",
    "_verify after 1",
]


@pytest.mark.parametrize(
    ("point", "then"),
    [*[(point, "resume") for point in POINTS], *[(point, "undo") for point in UNDONE]],
)
def test_a_mover_is_killed(sandbox: Sandbox, point: str, then: str) -> None:
    where = "SELECT shard_id FROM table_user_shard_mapping"
    source = sandbox.run("global", where)[0]["shard_id"]
    balance = sandbox.run(source, "SELECT balance FROM account")[0]["balance"]
    environ = {**os.environ, "DUALDB_URL": sandbox.url, "PYTHONPATH": str(ROOT)}
    with Shop(sandbox) as shop:
        killed = subprocess.run(
            [sys.executable, "-c", MOVER, point, str(3 - source)],
            env=environ, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert killed.returncode == -9, (killed.stdout, killed.stderr)
        sandbox.run("global", "UPDATE dualdb_job SET lease_until = '2000-01-01'")
        moves = shop.mover.operations
        switched = sandbox.run("global", where)[0]["shard_id"] != source
        if then == "undo" and not switched:
            assert moves.undo_move(KEY, TABLES).state == "undone"
        else:
            assert moves.move(KEY, None, TABLES, settle=0.2, chunk_rows=20).ok
        job = moves.jobs.get(f"move:{KEY}")
        assert job is not None
        assert job.state is JobState.DONE
    assert shop.errors == []
    now = sandbox.run("global", where)[0]["shard_id"]
    assert now == (3 - source if then == "resume" or switched else source)
    check(sandbox, now, balance + shop.accepted)
