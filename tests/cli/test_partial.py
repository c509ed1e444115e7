"""Commands on all shards while one is away: it is named, the others have their turn,
the exit code is not 0, and ``--json`` is one document.
"""

import json
import pathlib
from typing import Iterator, List

import pytest
from cli_command import Command

#: Every command that visits all shards and can go on without one.
COMMANDS = [
    "check",
    "doctor",
    "shards check",
    "schema diff",
    "sql --yes --continue -e DO@0",
    "sql --no-canary --continue --shards everything -e SELECT@1",
    "migrate status",
    "migrate up --dry-run",
    "migrate up --no-canary",
    "migrate down --to 0 --dry-run",
    "audit trades user_id",
    "reference sync rates",
    "reference sync rates --dry-run",
    "spider ddl trades",
    "ps",
    "ps --idle",
    "init",
    "init --dry-run",
    "outbox status",
    "outbox dead",
    "outbox requeue --all",
    "outbox requeue --all --dry-run",
    "outbox sweep",
    "outbox sweep --dry-run",
    "outbox consume --handler handlers:handle --until-idle",
    "outbox consume --handler handlers:handle --dry-run",
    "move prepare --table trades:user_id",
    "move prepare --table trades:user_id --dry-run",
    "xa list",
    "xa recover",
    "xa recover --dry-run",
]


def words(command: str) -> List[str]:
    return [each.replace("@", " ") for each in command.split()]


@pytest.fixture
def shop(cli: Command, tmp_path: pathlib.Path) -> Command:
    (tmp_path / "handlers.py").write_text("def handle(event):\n    pass\n")
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "001_notes.sql").write_text("CREATE TABLE notes (id INT)")
    (tmp_path / "migrations" / "001_notes.down.sql").write_text("DROP TABLE notes")
    (tmp_path / "dualdb.toml").write_text("[directory]\nttl = 0\n")
    cli("init")
    for name in ("global", 1, 2):
        cli.sandbox.run(name, "CREATE TABLE rates (id INT PRIMARY KEY)")
    return cli


@pytest.fixture
def killed(shop: Command) -> Iterator[Command]:
    """The server of shard 2 was killed."""
    shop.sandbox.servers[2].kill()
    yield shop
    shop.sandbox.servers[2].start()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_shard_that_is_away_is_named_and_the_others_have_their_turn(
    killed: Command, command: str
) -> None:
    shown = killed(*words(command), code=1)
    assert "shard 2" in (shown.stdout + shown.stderr).lower()
    assert "a fault of dualdb" not in shown.stderr
    document = json.dumps(killed.json(*words(command), code=1))
    assert "2003" in document or "connect" in document
    assert '"exit_code"' not in document  # it is a result, and no error


@pytest.mark.parametrize("command", ["rebalance plan --table trades:user_id"])
def test_what_needs_every_shard_names_the_one_that_is_away(killed: Command, command: str) -> None:
    found = killed.json(*words(command), code=3)
    assert "Shard 2 not available" in found["error"]
    killed(*words(command), "--shards", "1")
