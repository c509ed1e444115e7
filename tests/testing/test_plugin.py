"""The pytest plugin, in test suites of its users."""

import pathlib
import subprocess
import sys
from typing import List

import pytest

import dualdb
from dualdb.sandbox import Sandbox

pytestmark = pytest.mark.slow

CONFTEST = """
import pytest

pytest_plugins = ["dualdb.testing.plugin"]


@pytest.fixture(scope="session")
def dualdb_schema():
    def create(sandbox):
        for shard_id in (1, 2):
            sandbox.run(shard_id, "CREATE TABLE notes (id INT AUTO_INCREMENT PRIMARY KEY, x INT)")

    return create


@pytest.fixture
def anyio_backend():
    return "asyncio"
"""

TESTS = """
import threading

import pytest

COUNT = "SELECT COUNT(*) FROM notes"


@pytest.mark.parametrize("number", range(4))
def test_threads(db, number):
    def insert():
        db.shard(1).execute("INSERT INTO notes (x) VALUES (1)")

    threads = [threading.Thread(target=insert) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.shard(1).transaction() as tx:
        tx.execute("INSERT INTO notes (x) VALUES (1)")
    assert db.shard(1).query_value(COUNT) == 5
    assert db.shards().query_value(COUNT).values == [5, 0]


@MARK
@pytest.mark.parametrize("number", range(4))
async def test_asyncio(adb, number):
    await adb.shard(2).execute("INSERT INTO notes (x) VALUES (1)")
    assert await adb.shard(2).query_value(COUNT) == 1


@pytest.mark.parametrize("number", range(2))
def test_sandbox(sandbox, number):
    assert sandbox.run(2, COUNT) == [{"COUNT(*)": 0}]
    sandbox.run(2, "INSERT INTO notes (x) VALUES (1)")
    sandbox.set_status(1, "maintenance")
    sandbox.servers[2].kill()


def test_unchanged(db):
    assert db.get_active_shard_ids() == [1, 2]
    assert db.shards().query_value(COUNT).values == [0, 0]
"""


@pytest.fixture
def suite(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_notes.py").write_text(TESTS.replace("MARK", "pytest.mark.anyio"))
    return tmp_path


def run(suite: pathlib.Path, *arguments: str) -> List[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=suite,
        env={"PYTHONPATH": str(pathlib.Path(dualdb.__file__).parents[1]), "PATH": path()},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def path() -> str:
    import os

    return os.environ["PATH"]


def test_tests_leave_nothing_behind(suite: pathlib.Path) -> None:
    assert run(suite)[-1].startswith("11 passed")


def test_it_runs_under_xdist(suite: pathlib.Path) -> None:
    assert run(suite, "-n", "2")[-1].startswith("11 passed")


def test_a_sandbox_is_as_it_was_made() -> None:
    with Sandbox([1]) as sandbox, dualdb.DatabaseService(sandbox.config) as db:
        sandbox.run(
            1,
            "CREATE TABLE one (id INT AUTO_INCREMENT PRIMARY KEY)",
            "CREATE TABLE two (one_id INT, FOREIGN KEY (one_id) REFERENCES one (id))",
            "CREATE TABLE countries (name TEXT)",
            "INSERT INTO one VALUES (7)",
            "INSERT INTO two VALUES (7)",
            "INSERT INTO countries VALUES ('Korea')",
        )
        sandbox.run("global", "DELETE FROM table_shard_config")
        sandbox.servers[1].pause()
        sandbox.reset(keep=["countries"])
        db.refresh()
        assert db.shard(1).query("SELECT * FROM one JOIN two ON one.id = one_id") == []
        assert db.shard(1).execute("INSERT INTO one VALUES ()").lastrowid == 1
        assert db.shard(1).query_column("SELECT name FROM countries") == ["Korea"]
