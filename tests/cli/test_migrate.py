"""``migrate``: exit codes, dry runs, and going on after a failure or a kill."""

import os
import pathlib
import signal
import subprocess
import sys
from typing import Dict, List

import pytest
from cli_command import Command
from waiting import wait_for

import dualdb

ROOT = pathlib.Path(dualdb.__file__).parents[1]
FILES = {
    "001_notes.sql": "CREATE TABLE notes (id INT PRIMARY KEY, body TEXT);",
    "001_notes.down.sql": "DROP TABLE notes;",
    "002_at.sql": "ALTER TABLE notes ADD COLUMN at DATE NULL;\n"
    "INSERT INTO notes VALUES (1, 'x', NULL);",
    "002_at.down.sql": "DELETE FROM notes WHERE id = 1;\nALTER TABLE notes DROP COLUMN at;",
}  # fmt: skip


@pytest.fixture(autouse=True)
def directory(cli: Command, tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "migrations").mkdir()
    for name, text in FILES.items():
        (tmp_path / "migrations" / name).write_text(text)
    return tmp_path / "migrations"


def tables(cli: Command, shard_id: int) -> List[str]:
    found = cli.sandbox.run(
        shard_id,
        "SELECT TABLE_NAME AS name FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()",
    )
    return sorted(each["name"] for each in found)


def states(cli: Command, code: int) -> Dict[str, List[str]]:
    found = cli.json("migrate", "status", code=code)
    assert found["ok"] is (code == 0)
    return {
        each["database"]: [one["state"] for one in each["migrations"]]
        for each in found["databases"]
    }


def test_up_and_down(cli: Command) -> None:
    assert states(cli, 1) == {"1": ["pending"] * 2, "2": ["pending"] * 2}
    planned = cli("migrate", "up", "--dry-run").stdout
    assert "would apply 001_notes on shard 1" in planned
    assert "notes" not in tables(cli, 1)
    cli("migrate", "up")
    assert states(cli, 0) == {"1": ["applied"] * 2, "2": ["applied"] * 2}
    assert "nothing to do" in cli("migrate", "up").stdout
    cli("migrate", "down", "--to", "1", code=2)  # nobody can be asked
    cli("migrate", "down", "--to", "1", "--dry-run")
    assert states(cli, 0) == {"1": ["applied"] * 2, "2": ["applied"] * 2}
    cli("migrate", "down", "--to", "0", "--yes")
    assert "notes" not in tables(cli, 1)


def test_a_failure_on_a_shard_is_mended_and_resumed(cli: Command) -> None:
    cli.sandbox.run(2, "CREATE TABLE notes (id INT)")
    found = cli("migrate", "up", code=1)
    assert "shard 2: 001: statement 1:" in found.stderr
    assert states(cli, 1)["1"] == ["applied", "applied"]
    cli.sandbox.run(2, "DROP TABLE notes")
    cli("migrate", "up")
    assert states(cli, 0)["2"] == ["applied", "applied"]


def test_a_changed_file_is_refused(cli: Command, directory: pathlib.Path) -> None:
    cli("migrate", "up")
    (directory / "001_notes.sql").write_text("CREATE TABLE notes (id BIGINT PRIMARY KEY);")
    assert states(cli, 1)["1"] == ["changed", "applied"]
    assert cli("migrate", "up", code=1).stderr.startswith("shard 1: ")


@pytest.mark.slow
def test_a_kill_in_the_middle_is_resumed(cli: Command, directory: pathlib.Path) -> None:
    for shard_id, seconds in ((1, 0), (2, 60)):
        cli.sandbox.run(
            shard_id, "CREATE TABLE pause (seconds INT)", f"INSERT INTO pause VALUES ({seconds})"
        )
    (directory / "003_slow.sql").write_text(
        "INSERT INTO notes (id) VALUES (2);\n"
        "INSERT INTO notes (id) SELECT 3 + SLEEP(seconds) FROM pause;\n"
        "INSERT INTO notes (id) VALUES (4);"
    )
    environ: Dict[str, str] = {
        **os.environ,
        "DUALDB_URL": cli.sandbox.url,
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "dualdb", "migrate", "up"]
    sleeping = "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'INSERT%SLEEP(s%'"
    with subprocess.Popen(command, env=environ) as process:
        wait_for(lambda: cli.sandbox.run(2, sleeping), 60)
        process.send_signal(signal.SIGKILL)
    for each in cli.sandbox.run(2, sleeping):
        cli.sandbox.run(2, f"KILL {each['ID']}")
    assert states(cli, 1)["1"] == ["applied"] * 3
    assert states(cli, 1)["2"] == ["applied", "applied", "begun"]
    cli.sandbox.run(2, "UPDATE pause SET seconds = 0")
    cli("migrate", "up")
    assert states(cli, 0)["2"] == ["applied"] * 3
    for shard_id in (1, 2):
        rows = cli.sandbox.run(shard_id, "SELECT id FROM notes ORDER BY id")
        assert [row["id"] for row in rows] == [1, 2, 3, 4]
