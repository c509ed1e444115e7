"""Operations whose process is killed in the middle: what is left is right, and the same
command goes on.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any, Dict, Iterator, List, Literal, Union

import pytest
from waiting import wait_for

from dualdb import MySQLClient
from dualdb.sandbox import Sandbox

pytest.importorskip("click", reason="needs pip install 'dualdb[cli]'")
pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
TRADES = "CREATE TABLE trades (id INT PRIMARY KEY, user_id INT NOT NULL)"
DIRECTORY = '[directory]\nkind = "function"\nfunction = "steps:shard"\n'
STEPS = """\
import time
import dualdb
from dualdb.operations import JobStep

def shard(user_id):
    return 1 if user_id < 10 else 2

def step(job):
    position = job.position or 0
    with dualdb.DatabaseService(dualdb.DatabaseConfig.from_env()) as db:
        db.execute("INSERT INTO performed VALUES (%s)", [position])
        while position == 2 and db.query_value("SELECT stops FROM pause"):
            time.sleep(0.05)
    return JobStep(position + 1 if position < 3 else None, done=1, total=4)
"""


class Commands:
    """The command in processes of its own."""

    def __init__(self, sandbox: Sandbox, directory: pathlib.Path) -> None:
        self.sandbox, self._directory = sandbox, directory
        (directory / "steps.py").write_text(STEPS)
        (directory / "dualdb.toml").write_text(DIRECTORY)
        self._environ: Dict[str, str] = {
            **os.environ,
            "DUALDB_URL": sandbox.url,
            "PYTHONPATH": str(ROOT),
        }

    def begin(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "dualdb", *arguments],
            env=self._environ,
            cwd=self._directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def json(self, *arguments: str, code: int = 0) -> Any:
        """What a command that must end with this exit code writes with ``--json``."""
        with self.begin(*arguments, "--json") as process:
            output, messages = process.communicate(timeout=120)
        assert process.returncode == code, (output, messages)
        return json.loads(output)

    @contextlib.contextmanager
    def killed(self, *arguments: str) -> Iterator[None]:
        """A command that runs, and is killed at the end of the block."""
        with self.begin(*arguments) as process:
            try:
                yield
                assert process.poll() is None, process.communicate()
            finally:
                process.send_signal(signal.SIGKILL)
                process.communicate()

    def sessions(self, shard_id: int) -> List[Any]:
        """The sessions of the application's account on a shard."""
        return self.sandbox.run(
            shard_id,
            "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'app' "
            f"AND DB LIKE '%shard%{shard_id}'",
        )


@pytest.fixture
def commands(tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[Commands]:
    with Sandbox(2, program=request.config.getoption("--server-program")) as sandbox:
        yield Commands(sandbox, tmp_path)


def test_a_drain_is_repeated(commands: Commands) -> None:
    state = "SELECT status FROM table_shard_config WHERE shard_id = 2"
    client = MySQLClient(commands.sandbox.config_of(2))
    with client.transaction() as transaction:  # somebody who does not leave
        transaction.query("SELECT 1")
        with commands.killed("shards", "drain", "2", "--timeout", "100", "--yes"):
            wait_for(
                lambda: commands.sandbox.run("global", state) == [{"status": "inactive"}],
                60,
            )
        shown = {each["shard_id"]: each["state"] for each in commands.json("shards", "list")}
        assert shown == {1: "active", 2: "inactive"}
        again = commands.json("shards", "drain", "2", "--timeout", "1", "--yes", code=1)
        assert again["left"] == 1
    client.close_pool()
    wait_for(lambda: not commands.sessions(2), 30)
    assert commands.json("shards", "drain", "2", "--timeout", "60", "--yes")["left"] == 0
    commands.json("shards", "remove", "2", "--yes")
    assert commands.sandbox.run("global", state) == []


def test_an_audit_leaves_nothing_behind(commands: Commands) -> None:
    for shard_id in (1, 2):
        commands.sandbox.run(
            shard_id, TRADES, "INSERT INTO trades VALUES (1, 3), (2, 4), (3, 13), (4, 14)"
        )
    slowly = ("--batch-keys", "1", "--throttle", "100")
    with commands.killed("audit", "trades", "user_id", *slowly):
        wait_for(lambda: commands.sessions(1) and commands.sessions(2), 60)
    wait_for(lambda: not commands.sessions(1) and not commands.sessions(2), 60)
    found = commands.json("audit", "trades", "user_id", code=1)
    assert (found["keys"], found["rows"]) == (8, 8)
    misplaced = [(each["database"], each["key"]) for each in found["misplaced"]]
    assert misplaced == [("1", 13), ("1", 14), ("2", 3), ("2", 4)]


def test_a_job_goes_on_where_its_last_step_ended(commands: Commands) -> None:
    performed = "SELECT position FROM performed"
    commands.sandbox.run(
        "global",
        "CREATE TABLE performed (position INT)",
        "CREATE TABLE pause (stops INT)",
        "INSERT INTO pause VALUES (1)",
    )
    run = ("jobs", "run", "backfill", "--function", "steps:step", "--lease", "3")
    with commands.killed(*run):
        wait_for(lambda: len(commands.sandbox.run("global", performed)) == 3, 60)
    left = commands.json("jobs", "get", "backfill")
    assert (left["state"], left["position"], left["done"]) == ("running", 2, 2)
    commands.sandbox.run("global", "UPDATE pause SET stops = 0")
    done = commands.json(*run, "--wait", "60")
    assert (done["state"], done["done"], done["owner"]) == ("done", 4, None)
    assert done["epoch"] == left["epoch"] + 1
    rows = commands.sandbox.run("global", performed)
    assert [each["position"] for each in rows] == [0, 1, 2, 2, 3]


def test_a_running_job_is_paused_throttled_and_resumed_from_outside(commands: Commands) -> None:
    commands.sandbox.run(
        "global",
        "CREATE TABLE performed (position INT)",
        "CREATE TABLE pause (stops INT)",
        "INSERT INTO pause VALUES (1)",
    )
    run = ("jobs", "run", "backfill", "--function", "steps:step")
    with commands.begin(*run, "--json") as process:
        try:
            performed = "SELECT 1 FROM performed"
            wait_for(lambda: len(commands.sandbox.run("global", performed)) == 3, 60)
            asked = commands.json("jobs", "pause", "backfill")
            assert (asked["state"], asked["pause_requested"]) == ("running", True)
        finally:
            commands.sandbox.run("global", "UPDATE pause SET stops = 0")
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, "it was paused"
    assert json.loads(output)["state"] == "paused"
    assert commands.json("jobs", "throttle", "backfill", "0.05")["throttle"] == 0.05
    assert commands.json("jobs", "resume", "backfill")["state"] == "ready"
    done = commands.json(*run)
    assert (done["state"], done["done"], done["throttle"]) == ("done", 4, 0.05)


def test_a_sync_of_a_reference_table_is_repeated(commands: Commands) -> None:
    symbols = "CREATE TABLE symbols (id INT PRIMARY KEY, name VARCHAR(20) NOT NULL)"
    commands.sandbox.run(
        "global", symbols, "INSERT INTO symbols VALUES (1, 'a'), (2, 'b'), (3, 'c')"
    )
    commands.sandbox.run(1, symbols)
    commands.sandbox.run(2, symbols, "INSERT INTO symbols VALUES (2, 'old'), (9, 'gone')")
    rows = "SELECT id, name FROM symbols ORDER BY id"
    client = MySQLClient(commands.sandbox.config_of(2))
    with client.transaction() as transaction:
        transaction.execute("UPDATE symbols SET name = 'older' WHERE id = 2")
        with commands.killed("reference", "sync", "symbols"):
            wait_for(lambda: waits_for_locks(commands, 2), 20, every=0.3)
        wait_for(lambda: not commands.sessions(1), 60)
    client.close_pool()
    wait_for(lambda: not commands.sessions(2), 60)
    commands.json("reference", "sync", "symbols")
    expected = commands.sandbox.run("global", rows)
    assert [each["name"] for each in expected] == ["a", "b", "c"]
    assert commands.sandbox.run(1, rows) == commands.sandbox.run(2, rows) == expected
    again = commands.json("reference", "sync", "symbols")["results"]
    assert [(each["inserted"], each["updated"], each["deleted"]) for each in again] == [
        (0, 0, 0), (0, 0, 0),
    ]  # fmt: skip


def waits_for_locks(commands: Commands, shard_id: Union[int, Literal["global"]]) -> List[Any]:
    """The transactions that wait for a lock on the server of a shard.

    InnoDB shows others only if it was not asked for 0.1 s.
    """
    return commands.sandbox.run(
        shard_id, "SELECT 1 FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT'"
    )


def test_an_import_of_shards_is_repeated(commands: Commands, tmp_path: pathlib.Path) -> None:
    rows = commands.sandbox.run("global", "SELECT * FROM table_shard_config ORDER BY shard_id")
    again = [{**row, "shard_id": row["shard_id"] + 2} for row in rows]
    (tmp_path / "shards.json").write_text(json.dumps(again, default=str))
    ids = "SELECT shard_id FROM table_shard_config ORDER BY shard_id"
    columns = ", ".join(name for name in rows[0] if name != "shard_id")
    client = MySQLClient(commands.sandbox.config)
    with client.transaction() as transaction:  # somebody who adds shard 4, and does not
        transaction.execute(
            f"INSERT INTO table_shard_config (shard_id, {columns}) "
            f"SELECT 4, {columns} FROM table_shard_config WHERE shard_id = 2"
        )
        with commands.killed("shards", "import", "shards.json"):
            wait_for(lambda: waits_for_locks(commands, "global"), 60, every=0.3)
        transaction.rollback()
    client.close_pool()
    found = commands.json("shards", "import", "shards.json")
    # The server may still have run the statement whose client was killed.
    assert (found["left"], found["added"]) in (([3], [4]), ([3, 4], []))
    assert [each["shard_id"] for each in commands.sandbox.run("global", ids)] == [1, 2, 3, 4]


@pytest.mark.parametrize("again", ["start", "resume", "undo"])
def test_a_move_goes_on_when_the_lease_of_the_killed_process_is_over(
    commands: Commands, tmp_path: pathlib.Path, again: str
) -> None:
    (tmp_path / "dualdb.toml").write_text("[directory]\nttl = 0\n")
    commands.json("init")
    for shard_id in (1, 2):
        commands.sandbox.run(shard_id, TRADES)
    rows = ", ".join([f"({number}, 7)" for number in range(40)])
    commands.sandbox.run(1, f"INSERT INTO trades VALUES {rows}")
    table = ("--table", "trades:user_id")
    commands.json("keys", "set", "7", "1")
    commands.json("move", "prepare", *table)
    start = ("move", "start", "7", "--to", "2", *table, "--settle", "0", "--yes")
    with commands.killed(*start, "--lease", "5", "--chunk-rows", "1", "--throttle", "0.3"):
        wait_for(lambda: commands.sandbox.run(2, "SELECT id FROM trades"), 60)
    calls = {
        "start": start,
        "resume": ("move", "resume", "7", *table, "--settle", "0"),
        "undo": ("move", "undo", "7", *table, "--yes"),
    }
    refused = commands.json(*calls[again], code=4)
    assert "whose lease is over in" in refused["error"]
    done = commands.json(*calls[again], "--wait", "60")
    counts = [
        commands.sandbox.run(shard_id, "SELECT COUNT(*) AS n FROM trades")[0]["n"]
        for shard_id in (1, 2)
    ]
    expected = ("undone", [40, 0]) if again == "undo" else ("done", [0, 40])
    assert (done["state"], counts) == expected
