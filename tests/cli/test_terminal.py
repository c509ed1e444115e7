"""The command as real processes, and in a terminal."""

import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any, Callable, Dict, Iterator, List

import pytest
from cli_command import Command
from terminal import Terminal
from waiting import wait_for

import dualdb

ROOT = pathlib.Path(dualdb.__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture
def environ(cli: Command, tmp_path: pathlib.Path) -> Dict[str, str]:
    names = ("PATH", "HOME", "LANG", "TMPDIR")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {
        **kept,
        "DUALDB_URL": cli.sandbox.url,
        "PYTHONPATH": str(ROOT),
        "TERM": "xterm-256color",
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }


@pytest.fixture
def terminal(environ: Dict[str, str]) -> Iterator[Callable[..., Terminal]]:
    """A function that runs the command in a terminal."""
    opened: List[Terminal] = []

    def run(*arguments: str) -> Terminal:
        opened.append(Terminal(list(arguments), environ))
        return opened[-1]

    yield run
    for each in opened:
        each.close()


def run(environ: Dict[str, str], *arguments: str, given: str = "") -> Any:
    return subprocess.run(
        [sys.executable, "-m", "dualdb", *arguments],
        env=environ,
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_process_writes_json_and_has_exit_codes(environ: Dict[str, str]) -> None:
    found = run(environ, "check", "--json")
    assert (found.returncode, found.stderr) == (0, "")
    assert json.loads(found.stdout)["healthy"] is True
    assert run(environ, "shards", "set-status", "9", "active").returncode == 4
    assert run(environ, "nonsense").returncode == 2
    assert run({**environ, "DUALDB_URL": "mysql://u:p@127.0.0.1:1/x"}, "check").returncode == 3


def test_the_extra_is_asked_for_where_it_is_missing(environ: Dict[str, str]) -> None:
    hide = (
        "import sys, importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'rich' else find(name, *more)\n"
        "from dualdb.cli import main\n"
        "main()\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", hide], env=environ, capture_output=True, text=True, check=False
    )
    assert found.returncode == 2
    assert "pip install 'dualdb[cli]'" in found.stderr


def test_importing_the_package_does_not_import_the_extra(environ: Dict[str, str]) -> None:
    check = "import dualdb, dualdb.cli, sys; print(sorted({'click', 'rich'} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", check], env=environ, capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"


def test_a_sandbox_for_one_command(environ: Dict[str, str]) -> None:
    del environ["DUALDB_URL"]
    inner = [sys.executable, "-m", "dualdb", "status", "--json"]
    found = run(environ, "sandbox", "--shards", "1", "--", *inner)
    assert found.returncode == 0, found.stderr
    assert len(json.loads(found.stdout)["shards"]) == 1
    assert run(environ, "sandbox", "--shards", "0", "--", "sh", "-c", "exit 7").returncode == 7


def test_a_sandbox_is_gone_after_sigterm(environ: Dict[str, str]) -> None:
    command = [sys.executable, "-m", "dualdb", "sandbox", "--shards", "1", "--json"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        shown = json.loads(process.stdout.readline())
        assert os.path.isdir(shown["directory"])
        assert run(environ, "check", "--url", shown["url"]).returncode == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert not os.path.exists(shown["directory"])


def test_the_demo_ends_well(environ: Dict[str, str]) -> None:
    found = run(environ, "demo", "--json")
    assert found.returncode == 0, found.stderr
    steps = json.loads(found.stdout)
    assert "the servers and their files are gone" in steps[-1]
    assert any("shard 3 is added" in step for step in steps)


def test_status_is_watched_until_ctrl_c(cli: Command, terminal: Callable[..., Terminal]) -> None:
    shown = terminal("status", "--watch", "--interval", "0.2")
    shown.expect("active 2")
    cli.sandbox.set_status(2, "maintenance")
    shown.expect("maintenance 1")
    shown.send("\x03")
    assert shown.wait() == 0
    assert "Traceback" not in shown.output


def test_ctrl_c_ends_a_command_and_its_statement(
    cli: Command, terminal: Callable[..., Terminal]
) -> None:
    shown = terminal("sql", "--yes", "--shards", "2", "-e", "SELECT SLEEP(60)")
    wait_for_sleep(cli)
    shown.send("\x03")
    assert shown.wait() == 130
    assert "dualdb: interrupted" in shown.output
    assert "Traceback" not in shown.output
    wait_for(lambda: not cli.sandbox.run(2, SLEEPING))


def test_the_shell_keeps_a_session(cli: Command, terminal: Callable[..., Terminal]) -> None:
    shell = terminal("shell", "--shard", "1")
    shell.expect("shard 1>")
    shell.send("SELECT 40 +\r")
    shell.expect("->")
    shell.send("2 AS answer;\r")
    shell.expect("42", "1 row", "shard 1>")
    shell.send("BEGIN; INSERT INTO trades (user_id, symbol, quantity) VALUES (1, 'ABC', 5);\r")
    shell.expect("1 row affected", "shard 1>")
    shell.send("ROLLBACK; SELECT CONCAT('left ', COUNT(*)) AS n FROM trades\\G\r")
    shell.expect("n: left 0", "shard 1>")
    shell.send("SELECT bogus;\r")
    shell.expect("Unknown column", "shard 1>")
    shell.send("\\shard 2\r")
    shell.expect("shard 2>")
    shell.send("\\d\r")
    shell.expect("trades", "1 row", "shard 2>")
    shell.send("SELECT SLEEP(60);\r")
    shell.expect("\n")
    wait_for_sleep(cli)
    shell.send("\x03")
    shell.expect("interrupted", "shard 2>")
    shell.send("SELECT 'still ' 'here';\r")
    shell.expect("still here", "1 row", "shard 2>")
    shell.send("\x04")
    assert shell.wait() == 0
    assert "Traceback" not in shell.output


SLEEPING = "SELECT 1 FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT SLEEP%'"


def wait_for_sleep(cli: Command) -> None:
    wait_for(lambda: cli.sandbox.run(2, SLEEPING))


def test_the_shell_remembers_no_passwords(
    environ: Dict[str, str], terminal: Callable[..., Terminal]
) -> None:
    shell = terminal("shell")
    shell.expect("global>")
    shell.send("SELECT 'kept';\r")
    shell.expect("1 row", "global>")
    shell.send("SET PASSWORD = 'h1dden' -- no\r;\r")
    shell.expect("dualdb: ", "global>")
    shell.send("\\q\r")
    assert shell.wait() == 0
    history = pathlib.Path(environ["XDG_STATE_HOME"], "dualdb", "history")
    assert "kept" in history.read_text()
    assert "h1dden" not in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_the_shell_reads_a_pipe(environ: Dict[str, str]) -> None:
    script = "DELIMITER //\nSELECT 1 AS a; //\nDELIMITER ;\nSELECT ';' AS b; SELECT 2 AS a;"
    found = run(environ, "shell", "--shard", "2", "--json", given=script)
    assert found.returncode == 0, found.stderr
    rows = [json.loads(line)["rows"] for line in found.stdout.splitlines()]
    assert rows == [[[1]], [[";"]], [[2]]]
    failed = run(environ, "shell", given="SELECT bogus; SELECT 2;")
    assert failed.returncode == 4
    assert failed.stdout == ""
    assert failed.stderr.count("\n") == 1


def test_a_password_is_asked_for_without_being_shown(
    cli: Command, terminal: Callable[..., Terminal]
) -> None:
    config = cli.sandbox.config_of(2)
    cli("shards", "drain", "2", "--yes")
    cli("shards", "remove", "2", "--yes")
    shown = terminal(
        "shards", "add", "2", "--host", config.host, "--port", str(config.port),
        "--database", config.database, "--user", config.user,
    )  # fmt: skip
    shown.expect("Password of the shard's account:")
    shown.send(config.reveal_password() + "\r")
    assert shown.wait() == 0
    assert config.reveal_password() not in shown.output
    assert cli.json("shards", "list")[1]["state"] == "active"
