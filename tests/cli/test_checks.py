"""``check-rows``, ``audit``, ``doctor``, ``ps``, ``kill``, ``jobs`` and ``tenant``."""

import contextlib
import json
import pathlib
import threading
from typing import Any, Iterator, List

import pymysql
import pytest
from cli_command import Command
from waiting import wait_for


def insert(cli: Command, shard_id: int, *rows: Any) -> None:
    for user_id, symbol, quantity in rows:
        cli.sandbox.run(
            shard_id,
            "INSERT INTO trades (user_id, symbol, quantity) "
            f"VALUES ({user_id}, '{symbol}', {quantity})",
        )


def test_check_rows_finds_swapped_values(cli: Command) -> None:
    insert(cli, 1, (1, "A", 10), (2, "B", 20))
    insert(cli, 2, (1, "A", 20), (2, "B", 10))
    found = cli.json("check-rows", "trades", "--between", "1", "2", code=1)
    assert [each["key"] for each in found["differences"]] == [{"id": 1}, {"id": 2}]
    shown = cli("check-rows", "trades", "--between", "1", "2", code=1).stdout
    assert "quantity=10" in shown
    assert cli.json("check-rows", "trades", "--between", "1", "2", "--column", "user_id")
    where = ("--where", "user_id = 3")
    assert cli.json("check-rows", "trades", "--between", "1", "2", *where)["rows"] == 0
    cli("check-rows", "trades", "--between", "1", "2", "--after", "x", code=2)
    cli("check-rows", "nothing", "--between", "1", "2", code=4)


def test_audit_finds_misplaced_rows(cli: Command) -> None:
    cli("init")
    cli("keys", "set", "1", "1")
    cli("keys", "set", "2", "2")
    insert(cli, 1, (1, "A", 10))
    insert(cli, 2, (2, "B", 20))
    assert cli.json("audit", "trades", "user_id")["misplaced"] == []
    insert(cli, 2, (1, "A", 30), (1, "A", 31))
    found = cli.json("audit", "trades", "user_id", code=1)["misplaced"]
    assert found == [{"database": "2", "key": 1, "rows": 2, "belongs_to": 1}]
    assert "shard 1" in cli("audit", "trades", "user_id", code=1).stdout


def test_doctor_names_checks_and_fixes(cli: Command) -> None:
    found = cli.json("doctor", code=1)
    assert set(found["databases"]) == {"global", "1", "2"}
    assert found["findings"]
    assert all(each["fix"] for each in found["findings"])
    names = {each["check"] for each in found["findings"] if each["severity"] != "note"}
    arguments: List[str] = []
    for name in sorted(names):
        arguments += ["--skip", name]
    left = cli.json("doctor", *arguments)
    assert names & set(left["checks"]) == set()
    shown = cli("doctor", code=1).stdout
    assert "fix: " in shown
    cli("doctor", "--audit", "trades", code=2)


@contextlib.contextmanager
def sleeping(cli: Command, shard_id: int) -> Iterator[Any]:
    """A session that sleeps on a shard."""
    config = cli.sandbox.config_of(shard_id)
    connection: Any = pymysql.connect(
        host=config.host,
        port=config.port,
        user=config.user,
        password=config.reveal_password(),
        database=config.database,
    )

    def sleep() -> None:
        with contextlib.suppress(pymysql.err.MySQLError), connection.cursor() as cursor:
            cursor.execute("SELECT SLEEP(60)")

    thread = threading.Thread(target=sleep)
    thread.start()
    session_id = connection.thread_id()
    running = "SELECT 1 FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT SLEEP(6%' "
    try:
        wait_for(lambda: cli.sandbox.run(shard_id, f"{running} AND ID = {session_id}"))
        yield session_id
    finally:
        with contextlib.suppress(pymysql.err.MySQLError):
            cli.sandbox.run(shard_id, f"KILL {session_id}")
        thread.join()
        connection.close()


def test_ps_and_kill(cli: Command) -> None:
    with sleeping(cli, 2) as session_id:
        found = cli.json("ps")["processes"]
        assert next((each["database"], each["id"]) for each in found if each["sql"]) == (
            "2",
            session_id,
        )
        assert "SELECT SLEEP(60)" in cli("ps", "--shards", "2").stdout
        assert "SELECT SLEEP(60)" in cli("status").stdout
        cli("kill", "2", str(session_id), code=2)  # nobody can be asked
        planned = cli("kill", "2", str(session_id), "--dry-run").stdout
        assert f"would end the statement of session {session_id}" in planned
        whole = cli("kill", "2", str(session_id), "--dry-run", "--connection").stdout
        assert f"would end the session {session_id}" in whole
        assert "SELECT SLEEP(60)" in planned
        assert any(each["id"] == session_id for each in cli.json("ps")["processes"])
        cli("kill", "2", str(session_id), "--connection", "--yes")
        wait_for(
            lambda: all(each["id"] != session_id for each in cli.json("ps", "--idle")["processes"])
        )
        gone = cli.json("kill", "2", str(session_id), "--yes", code=1)
        assert (gone["process"], gone["killed"], gone["dry_run"]) == (None, False, False)
        assert "dualdb ps --idle" in cli("kill", "2", str(session_id), "--yes", code=1).stdout


STEP = """
from dualdb.operations import JobStep

def step(job):
    position = (job.position or 0) + 1
    return JobStep(position if position < job.params["steps"] else None, done=1, total=3)
"""


def test_a_job_is_run_paused_and_resumed(
    cli: Command, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "steps_of_cli_test.py").write_text(STEP)
    run = ("jobs", "run", "fill", "--function", "steps_of_cli_test:step")
    assert cli.json("jobs", "list") == []
    cli("jobs", "get", "fill", code=1)
    assert "would make the job fill" in cli(*run, "--dry-run").stdout
    cli("jobs", "get", "fill", code=1)
    cli("jobs", "pause", "fill", code=1)
    found = cli.json(*run, "--params", '{"steps": 3}', "--max-steps", "1")
    assert (found["state"], found["done"]) == ("ready", 1)
    assert "would pause" in cli("jobs", "pause", "fill", "--dry-run").stdout
    assert cli.json("jobs", "get", "fill")["state"] == "ready"
    assert cli.json("jobs", "pause", "fill")["state"] == "paused"
    assert cli.json("jobs", "resume", "fill")["state"] == "ready"
    assert cli.json("jobs", "throttle", "fill", "0.01")["throttle"] == 0.01
    assert "from where it is (ready)" in cli(*run, "--dry-run").stdout
    assert cli.json("jobs", "get", "fill")["done"] == 1
    found = cli.json(*run)
    assert (found["state"], found["done"]) == ("done", 3)
    assert cli.json(*run, "--dry-run")["actions"] == []
    assert "nothing would run" in cli(*run, "--dry-run").stdout
    assert "done" in cli("jobs", "list").stdout
    assert [each["name"] for each in cli.json("jobs", "list", "--state", "done")] == ["fill"]
    cli("jobs", "delete", "fill")
    assert cli.json("jobs", "list") == []
    cli(*run, "--params", "{", code=2)
    cli("jobs", "run", "x", "--function", "nowhere_at_all:step", code=2)


def test_a_tenant_is_exported_and_purged(cli: Command, tmp_path: pathlib.Path) -> None:
    cli("init")
    cli("keys", "set", "1", "2")
    insert(cli, 2, (1, "A", 10), (1, "B", 20), (9, "C", 30))
    tables = ("--table", "trades:user_id", "--global-table", "accounts:id")
    cli.sandbox.run("global", "CREATE TABLE accounts (id INT PRIMARY KEY)")
    cli.sandbox.run("global", "INSERT INTO accounts VALUES (1), (9)")
    found = cli.json("tenant", "export", "1", *tables)
    assert {each["table"]: len(each["rows"]) for each in found["tables"]} == {
        "trades": 2,
        "accounts": 1,
    }
    cli("tenant", "export", "1", *tables, "--output", "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == found
    written = cli.json("tenant", "export", "1", *tables, "--output", "out.json")
    assert (written["rows"], written["file"]) == (3, "out.json")
    cli("tenant", "export", "1", *tables, "--format", "sql", "--json", code=2)
    script = cli("tenant", "export", "1", *tables, "--format", "sql").stdout
    assert "INSERT INTO" in script
    rows = "SELECT COUNT(*) AS n FROM trades"
    planned = cli.json("tenant", "purge", "1", *tables, "--dry-run")
    assert sum(each["found"] for each in planned["tables"]) == 3
    cli("tenant", "purge", "1", *tables, code=2)  # nobody can be asked
    assert cli.sandbox.run(2, rows)[0]["n"] == 3
    cli("tenant", "purge", "1", *tables, "--yes")
    assert cli.sandbox.run(2, rows)[0]["n"] == 1
    assert cli.sandbox.run("global", "SELECT id FROM accounts")[0]["id"] == 9
    cli("sql", "--yes", "--shards", "2", "--file", "-", given=script)
    assert cli.sandbox.run(2, rows)[0]["n"] == 3


def test_the_tables_of_tenants_may_be_in_the_file(cli: Command, tmp_path: pathlib.Path) -> None:
    cli("init")
    cli("keys", "set", "1", "2")
    cli("tenant", "export", "1", code=2)
    text = '[[tenant.tables]]\nname = "trades"\nkey_column = "user_id"\n'
    (tmp_path / "dualdb.toml").write_text(text)
    assert [each["table"] for each in cli.json("tenant", "export", "1")["tables"]] == ["trades"]
    (tmp_path / "dualdb.toml").write_text('[[tenant.tables]]\nnam = "trades"\n')
    cli("tenant", "export", "1", code=2)


def test_a_job_s_function_that_fails_is_no_fault_of_the_command(cli: Command) -> None:
    pathlib.Path("failing.py").write_text(
        "def wrong(job): raise ValueError('boom\\nline 2')\nasync def coroutine(job): pass\n"
    )
    failed = cli("jobs", "run", "j", "--function", "failing:wrong", code=1)
    assert "failing:wrong failed, and so has the job: ValueError: boom line 2" in failed.stderr
    assert cli.json("jobs", "get", "j")["state"] == "failed"
    refused = cli("jobs", "run", "j", "--function", "failing:coroutine", code=4)
    assert "asyncio service" in refused.stderr
