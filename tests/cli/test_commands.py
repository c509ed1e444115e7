"""What every command has: --json, an example, and --dry-run if it changes something."""

import json
import os
import subprocess
import sys
from typing import Iterator, List, Optional, Tuple

import click
import pytest
from cli_command import runner
from click.testing import CliRunner

from dualdb.cli.app import dualdb

#: Commands that change nothing in the databases, or are a session of their own.
READS = {
    "audit", "check", "check-rows", "completion", "doctor", "jobs get", "jobs list", "keys get",
    "keys move-plan", "locate", "migrate status", "outbox dead", "outbox status", "ps",
    "rebalance plan", "route", "schema diff", "shards check", "shards list",
    "spider ddl", "status", "tenant export", "xa list",
}  # fmt: skip
SESSIONS = {"demo", "sandbox", "shell"}


def commands(
    command: click.Command, path: Tuple[str, ...] = ()
) -> Iterator[Tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands(child, (*path, name))
    else:
        yield " ".join(path), command


COMMANDS = dict(commands(dualdb))


def test_the_lists_name_commands_that_there_are() -> None:
    assert set(COMMANDS) >= READS | SESSIONS


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_has_json_an_example_and_dry_run_if_it_changes_something(name: str) -> None:
    command = COMMANDS[name]
    options = {text for each in command.params for text in each.opts}
    assert "--json" in options
    assert ("--dry-run" in options) == (name not in READS | SESSIONS)
    found = CliRunner().invoke(dualdb, [*name.split(), "--help"])
    assert found.exit_code == 0
    assert f"dualdb {name}" in found.output.partition("Example:")[2]


#: Commands on databases for which the service's own accounts always do: they read and
#: write what the service itself does, or are about the process.
OWN_ACCOUNT = {
    "check", "completion", "demo", "jobs", "keys", "locate", "outbox", "route", "sandbox",
    "shards", "shell", "spider", "status",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_operation_may_use_another_account(name: str) -> None:
    options = {text for each in COMMANDS[name].params for text in each.opts}
    assert ("--account" in options) == (name.partition(" ")[0] not in OWN_ACCOUNT)


UNREACHABLE = "mysql://u:p@127.0.0.1:1/x"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_an_error_is_json_too(name: str) -> None:
    found = runner().invoke(dualdb, [*name.split(), "--json", "--no-such-option"])
    assert found.exit_code == 2
    error = json.loads(found.stdout)
    assert error["exit_code"] == 2
    assert "--no-such-option" in error["error"]


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["--json", "status", "--url", UNREACHABLE], 3, "ConnectionFailed"),
        (["status", "--json", "--url", "nonsense"], 2, None),
        (["--json", "nonsense"], 2, None),
        (["keys", "set", "--json", "7"], 2, None),
    ],
)
def test_an_error_has_its_class_and_exit_code(
    arguments: List[str], code: int, kind: Optional[str]
) -> None:
    found = runner().invoke(dualdb, arguments)
    assert found.exit_code == code
    error = json.loads(found.stdout)
    assert (error["type"], error["exit_code"]) == (kind, code)
    assert error["error"] in found.stderr


def test_an_error_without_json_leaves_standard_output_empty() -> None:
    found = runner().invoke(dualdb, ["status", "--url", "nonsense"])
    assert (found.exit_code, found.stdout) == (2, "")


def run_without_reader(arguments: List[str]) -> Tuple[int, str]:
    """Run the command with an output that nobody reads: its exit code and errors."""
    read, write = os.pipe()
    os.close(read)
    try:
        found = subprocess.run(
            [sys.executable, "-m", "dualdb", *arguments],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(write)
    return found.returncode, found.stderr


def test_an_error_has_its_exit_code_even_if_nobody_reads_the_output() -> None:
    code, shown = run_without_reader(["status", "--json", "--url", UNREACHABLE])
    assert code == 3
    assert len(shown.splitlines()) == 1
    assert shown.startswith("dualdb: global: Can't connect")
