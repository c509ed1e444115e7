"""Migrations of a Galera cluster: one runner at a time, on whichever nodes."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any, Iterator, List

import pytest
from io_kinds import IO
from waiting import wait_for

import dualdb
from dualdb.integrations.alembic import migrate_shards
from dualdb.operations import State, migration_lock
from dualdb.sandbox import Sandbox

pytestmark = pytest.mark.slow

FILES = {
    "001_notes.sql": "CREATE TABLE notes (id INT PRIMARY KEY, n INT NOT NULL);"
    "INSERT INTO notes VALUES (1, 0), (2, 0)",
    "002_more.sql": "UPDATE notes SET n = n + 1; ALTER TABLE notes ADD COLUMN note TEXT;"
    "UPDATE notes SET n = n + 10",
}
SLOW = {**FILES, "003_slow.sql": "UPDATE notes SET n = n + 100 WHERE SLEEP({seconds}) = 0"}

RUNNER = """
import sys
import dualdb
from dualdb.operations import migration_lock
migration_lock.LEASE = 2.0
files = {files!r}
with dualdb.DatabaseService(dualdb.DatabaseConfig.from_env()) as db:
    db.operations.migrate.up(files, shards="global")
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Sandbox]:
    with Sandbox(0, galera=2) as sandbox:
        yield sandbox


@pytest.fixture
def services(cluster: Sandbox, io: IO, monkeypatch: pytest.MonkeyPatch) -> Iterator[List[Any]]:
    """A service on each node."""
    monkeypatch.setattr(migration_lock, "LEASE", 2.0)
    cluster.run("global", "DROP TABLE IF EXISTS notes, dualdb_migration, dualdb_migration_lock")
    made = [io.Service(cluster.config_of("global", node)) for node in range(2)]
    for service in made:
        io(service.init_service())
    yield made
    for service in made:
        io(service.close_service())


def numbers(cluster: Sandbox) -> List[int]:
    rows = cluster.members["global"][1].run(
        "SET SESSION wsrep_sync_wait = 1", "SELECT n FROM app_global.notes ORDER BY id"
    )
    return [row["n"] for row in rows]


def running(cluster: Sandbox) -> bool:
    """Whether the slow migration's statement runs on the first node."""
    sql = "SELECT 1 FROM information_schema.PROCESSLIST WHERE INFO LIKE 'UPDATE notes%SLEEP%'"
    return bool(cluster.run("global", sql))


def up(service: Any, files: Any, **options: Any) -> Any:
    return service.operations.migrate.up(files, shards="global", **options)


def slow(seconds: float) -> Any:
    return {name: text.format(seconds=seconds) for name, text in SLOW.items()}


def test_two_runners_on_two_nodes_apply_each_migration_once(
    cluster: Sandbox, services: List[Any], io: IO
) -> None:
    runs = io.concurrently([lambda each=each: up(each, FILES) for each in services])
    assert [run.ok for run in runs] == [True, True], runs
    applied = [step.version for run in runs for step in run.databases[0].steps]
    assert sorted(applied) == [1, 2]
    assert numbers(cluster) == [11, 11]


def test_the_lease_is_renewed_while_a_statement_runs(
    cluster: Sandbox, services: List[Any], io: IO
) -> None:
    def other() -> Any:
        while not running(cluster):
            yield io.pause(0.05)
        yield io.pause(3.0)  # beyond the lease
        return (yield up(services[1], FILES, lock_timeout=0))

    runs = io.concurrently([lambda: up(services[0], slow(3)), io.function(other)])
    assert runs[0].ok, runs[0]
    assert "migrates this database" in str(runs[1].databases[0].error)
    assert numbers(cluster) == [111, 111]


def test_a_lost_lease_is_an_error_and_nothing_is_recorded(
    cluster: Sandbox, services: List[Any], io: IO
) -> None:
    def thief() -> Any:
        while not running(cluster):
            yield io.pause(0.05)
        cluster.members["global"][1].run(
            "UPDATE app_global.dualdb_migration_lock SET token = 'other', "
            "lease_until = UTC_TIMESTAMP(6) + INTERVAL 60 SECOND"
        )

    runs = io.concurrently([lambda: up(services[0], slow(1.5)), io.function(thief)])
    result = runs[0].databases[0]
    assert (result.state, result.failed_version) == (State.FAILED, 3)
    assert "LockLost" in result.error
    assert numbers(cluster) == [11, 11], "its transaction was rolled back"
    late = io(up(services[1], slow(0), lock_timeout=0))
    assert "LockNotAvailable" in late.databases[0].error
    cluster.run("global", "UPDATE dualdb_migration_lock SET lease_until = '1970-01-01'")
    assert io(up(services[1], slow(0))).ok
    assert numbers(cluster) == [111, 111]


def test_a_runner_that_is_killed_is_followed_by_one_on_another_node(
    cluster: Sandbox, services: List[Any], io: IO
) -> None:
    environ = {
        **os.environ,
        "DUALDB_URL": cluster.url,
        "PYTHONPATH": str(pathlib.Path(dualdb.__file__).parents[1]),
    }
    script = RUNNER.format(files=slow(30))
    with subprocess.Popen([sys.executable, "-c", script], env=environ) as process:
        wait_for(lambda: running(cluster), 60)
        process.send_signal(signal.SIGKILL)
        process.wait()
    began = time.monotonic()
    run = io(up(services[1], slow(0), lock_timeout=20))
    assert run.ok, run
    assert time.monotonic() - began < 20
    assert numbers(cluster) == [111, 111]


def test_alembic_runs_on_one_node_at_a_time(cluster: Sandbox) -> None:
    with contextlib.ExitStack() as stack:
        first, second = [
            stack.enter_context(dualdb.DatabaseService(cluster.config_of("global", node)))
            for node in range(2)
        ]
        excluded: List[Any] = []

        def migrate(connection: Any) -> None:
            with pytest.raises(dualdb.LockNotAvailable):
                migrate_shards(second, print, shards="global", lock_timeout=0)
            excluded.append(connection)

        assert migrate_shards(first, migrate, shards="global") == ["global"]
        assert len(excluded) == 1
        assert migrate_shards(second, bool, shards="global", lock_timeout=0) == ["global"]
