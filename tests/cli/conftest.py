"""The command on private servers, in this process."""

from typing import Any, Iterator, List

import pytest
from cli_command import TRADES, Command

from dualdb.sandbox import Sandbox


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    """What needs servers of its own is slow."""
    for item in items:
        if "cli_servers" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def cli_servers(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox(2, program=request.config.getoption("--server-program")) as made:
        yield made


@pytest.fixture
def sandbox(cli_servers: Sandbox) -> Iterator[Sandbox]:
    """A global database and two shards, each with an empty table ``trades``."""
    for name in ("global", 1, 2):
        tables = cli_servers.run(
            name,
            "SELECT TABLE_NAME AS name FROM information_schema.TABLES "
            "WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME <> 'table_shard_config'",
        )
        for each in tables:
            cli_servers.run(name, f"DROP TABLE `{each['name']}`")
    for shard_id in (1, 2):
        cli_servers.run(shard_id, TRADES)
    cli_servers.run(
        "global",
        "DELETE FROM table_shard_config WHERE shard_id > 2",
        "UPDATE table_shard_config SET status = 'active'",
    )
    yield cli_servers


@pytest.fixture
def cli(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Command:
    """The command, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return Command(sandbox)
