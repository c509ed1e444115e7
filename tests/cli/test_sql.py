"""``sql`` and ``schema diff``: what is done where, exit codes, and resuming."""

import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any, Dict

import pytest
from cli_command import Command
from waiting import wait_for

import dualdb

ROOT = pathlib.Path(dualdb.__file__).parents[1]
INSERT = "INSERT INTO trades (user_id, symbol, quantity) VALUES (1, 'ABC', 5)"
COUNT = "SELECT COUNT(*) AS n FROM trades"


def count(cli: Command, shard_id: int) -> int:
    found: int = cli.sandbox.run(shard_id, COUNT)[0]["n"]
    return found


def test_sql_shows_the_rows_of_each_shard(cli: Command) -> None:
    found = cli.json("sql", "-e", COUNT)
    rows = {each["database"]: each["results"][0]["rows"] for each in found["databases"]}
    assert rows == {"1": [{"n": 0}], "2": [{"n": 0}]}
    shown = cli("sql", "--shards", "1", "-e", COUNT)
    assert "shard 1" in shown.stdout
    assert shown.stderr == "done: shard 1\n"


def test_a_dry_run_of_sql_sends_nothing(cli: Command) -> None:
    shown = cli("sql", "-e", INSERT, "--dry-run").stdout
    assert "would perform on shard 1" in shown
    assert (count(cli, 1), count(cli, 2)) == (0, 0)


@pytest.mark.parametrize(
    ("script", "asks"),
    [
        (COUNT, False),
        (f"{COUNT}; SHOW TABLES", False),
        (f"{COUNT}; {INSERT}", True),
        ("ANALYZE TABLE trades", True),
        ("SELECT id FROM trades FOR UPDATE", True),
    ],
)
def test_sql_that_may_change_something_is_asked_for(
    cli: Command, script: str, asks: bool, tmp_path: pathlib.Path
) -> None:
    if not asks:
        assert cli("sql", "-e", script).stderr == "done: shard 1, shard 2\n"
        return
    refused = cli("sql", "-e", script, code=2).stderr
    assert "on 2 databases: give --yes" in refused
    assert (count(cli, 1), count(cli, 2)) == (0, 0)
    report = str(tmp_path / "report.json")
    cli("sql", "-e", script, "--yes", "--report", report)
    cli("sql", "-e", script, "--resume", report)  # nothing is left to ask for


def test_an_error_stops_the_run_and_is_resumed(cli: Command, tmp_path: pathlib.Path) -> None:
    cli.sandbox.run(1, "CREATE TABLE other (a INT)")
    file, report = str(tmp_path / "x.sql"), str(tmp_path / "report.json")
    pathlib.Path(file).write_text(f"{INSERT};\nINSERT INTO other VALUES (1);\n{INSERT};")
    found = cli("sql", "--yes", "--file", file, "--report", report, code=1)
    assert "failed: shard 2" in found.stderr
    assert "statement 2" in found.stderr
    assert (count(cli, 1), count(cli, 2)) == (2, 1)
    cli.sandbox.run(2, "CREATE TABLE other (a INT)")
    cli("sql", "--yes", "--file", file, "--resume", report)
    assert (count(cli, 1), count(cli, 2)) == (2, 2)
    cli("sql", "--yes", "--file", file, "--resume", report)  # all is done
    assert (count(cli, 1), count(cli, 2)) == (2, 2)
    cli("sql", "-e", "SELECT 1", "--resume", report, code=4)  # of another script
    cli("sql", "-e", "SELECT 1", "--resume", file, code=2)


def test_the_canary_goes_first(cli: Command) -> None:
    cli.sandbox.run(1, "CREATE TABLE other (a INT)")
    found = cli.json("sql", "--yes", "-e", "INSERT INTO other VALUES (1)", "--canary", "2", code=1)
    states = {each["database"]: each["state"] for each in found["databases"]}
    assert states == {"1": "not begun", "2": "failed"}
    found = cli.json("sql", "--yes", "-e", "INSERT INTO other VALUES (1)", "--continue", code=1)
    states = {each["database"]: each["state"] for each in found["databases"]}
    assert states == {"1": "done", "2": "failed"}


def test_a_script_has_delimiters(cli: Command) -> None:
    script = "DELIMITER //\nCREATE PROCEDURE two() BEGIN SELECT 1; SELECT 2; END//\nDELIMITER ;\n"
    cli("sql", "--yes", "--file", "-", given=script + "CALL two();")
    cli.sandbox.run(1, "DROP PROCEDURE two")
    cli.sandbox.run(2, "DROP PROCEDURE two")


@pytest.mark.slow
def test_a_run_that_was_killed_is_in_doubt_where_it_was(
    cli: Command, tmp_path: pathlib.Path
) -> None:
    report = tmp_path / "report.json"
    environ: Dict[str, str] = {
        **os.environ,
        "DUALDB_URL": cli.sandbox.url,
        "PYTHONPATH": str(ROOT),
    }
    script = f"{INSERT}; SELECT SLEEP(IF(DATABASE() LIKE '%%2', 60, 0))".replace("%%", "%")
    command = [
        sys.executable,
        "-m",
        "dualdb",
        "sql",
        "--yes",
        "-e",
        script,
        "--report",
        str(report),
    ]
    with subprocess.Popen(command, env=environ) as process:
        sleeping = "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT SLEEP(I%'"
        wait_for(lambda: bool(cli.sandbox.run(2, sleeping)))
        process.send_signal(signal.SIGKILL)
    for each in cli.sandbox.run(2, sleeping):
        cli.sandbox.run(2, f"KILL {each['ID']}")
    left: Any = {each["database"]: each for each in json.loads(report.read_text())["databases"]}
    assert (left["1"]["state"], left["2"]["in_doubt"]) == ("done", True)
    cli("sql", "-e", script, "--resume", str(report), code=4)
    assert (count(cli, 1), count(cli, 2)) == (1, 1)
    cli("sql", "-e", script, "--resume", str(report), "--doubtful", "done", "--dry-run")


def test_schema_diff_finds_what_differs(cli: Command) -> None:
    assert cli.json("schema", "diff")["differences"] == []
    body = "CREATE PROCEDURE total() BEGIN\nSELECT {} FROM trades;\nEND"
    # An account sees the bodies of its own procedures.
    cli("sql", "--yes", "--shards", "1", "-e", body.format("SUM(quantity)"))
    cli("sql", "--yes", "--shards", "2", "-e", body.format("COUNT(*)"))
    cli.sandbox.run(2, "CREATE TABLE extra (a INT)")
    try:
        found = cli.json("schema", "diff", code=1)["differences"]
        assert {(each["kind"], each["name"]) for each in found} == {
            ("procedure", "total"),
            ("table", "extra"),
        }
        shown = cli("schema", "diff", code=1).stdout
        assert "-SELECT SUM(quantity) FROM trades;" in shown
        assert "+SELECT COUNT(*) FROM trades;" in shown
        assert "table extra, not in shard 1" in shown
        assert "table extra, missing" in cli("schema", "diff", "--reference", "2", code=1).stdout
        cli("schema", "diff", "--ignore", "procedure", "--ignore-table", "ext*")
    finally:
        for shard_id in (1, 2):
            cli.sandbox.run(shard_id, "DROP PROCEDURE total")
