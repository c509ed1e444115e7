"""Alembic itself, on the shards of private servers."""

import contextlib
import io
import pathlib
from typing import Any, Iterator, List

import pymysql
import pytest

from dualdb import DatabaseConfig, DatabaseService, errors
from dualdb.sandbox import Sandbox

pytest.importorskip("alembic", reason="needs pip install 'dualdb[alembic]'")

import alembic.command
import alembic.config
import sqlalchemy

from dualdb.integrations.alembic import engine, migrate_shards

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]

REVISIONS = {
    "one": (None, "op.create_table('notes', sa.Column('id', sa.Integer, primary_key=True))"),
    "two": ("one", 'op.execute("INSERT INTO notes (id) VALUES (1)")'),
}


def env_py() -> str:
    """The recipe of the documents."""
    page = (ROOT / "docs" / "migrations.md").read_text(encoding="utf-8")
    (found,) = [part for part in page.split("```text\n") if part.startswith("# env.py")]
    return found.partition("```")[0]


@pytest.fixture(scope="module")
def servers() -> Iterator[Sandbox]:
    with Sandbox(3) as made:
        yield made


@pytest.fixture
def sandbox(servers: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    for shard_id in (1, 2, 3):
        servers.run(shard_id, "DROP TABLE IF EXISTS notes, alembic_version")
    monkeypatch.setenv("DUALDB_URL", servers.url)
    return servers


@pytest.fixture
def config(sandbox: Sandbox, tmp_path: pathlib.Path) -> alembic.config.Config:
    (tmp_path / "env.py").write_text(env_py())
    (tmp_path / "script.py.mako").write_text("")
    (tmp_path / "versions").mkdir()
    for name, (before, upgrade) in REVISIONS.items():
        (tmp_path / "versions" / f"{name}.py").write_text(
            f"import sqlalchemy as sa\nfrom alembic import op\nrevision = {name!r}\n"
            f"down_revision = {before!r}\n\ndef upgrade():\n    {upgrade}\n\n"
            "def downgrade():\n    pass\n"
        )
    made = alembic.config.Config()
    made.set_main_option("script_location", str(tmp_path))
    made.set_main_option("path_separator", "os")
    return made


def versions(sandbox: Sandbox) -> List[Any]:
    found: List[Any] = []
    for shard_id in (1, 2, 3):
        try:
            rows = sandbox.run(shard_id, "SELECT version_num FROM alembic_version")
        except pymysql.err.ProgrammingError:  # no such table
            rows = []
        found.append(rows[0]["version_num"] if rows else None)
    return found


def test_every_shard_is_migrated_once(config: Any, sandbox: Sandbox) -> None:
    alembic.command.upgrade(config, "head")
    alembic.command.upgrade(config, "head")
    assert versions(sandbox) == ["two", "two", "two"]
    assert [sandbox.run(n, "SELECT id FROM notes") for n in (1, 2, 3)] == [[{"id": 1}]] * 3


def test_a_failure_stops_it_and_is_resumed(config: Any, sandbox: Sandbox) -> None:
    sandbox.run(2, "CREATE TABLE notes (id INT)")
    with pytest.raises(errors.OperationalError, match=r"failed on 2 \(done: 1; not begun: 3\)"):
        alembic.command.upgrade(config, "head")
    assert versions(sandbox) == ["two", None, None]
    sandbox.run(2, "DROP TABLE notes")
    alembic.command.upgrade(config, "head")
    assert versions(sandbox) == ["two", "two", "two"]


def test_shards_and_the_canary_are_arguments(config: Any, sandbox: Sandbox) -> None:
    config.cmd_opts = type("Options", (), {"x": ["shards=1,3", "canary=3"]})()
    sandbox.run(3, "CREATE TABLE notes (id INT)")
    with pytest.raises(errors.OperationalError, match=r"failed on 3 \(done: none; not begun: 1\)"):
        alembic.command.upgrade(config, "head")
    sandbox.run(3, "DROP TABLE notes")
    alembic.command.upgrade(config, "head")
    assert versions(sandbox) == ["two", None, "two"]


def test_one_runs_at_a_time(sandbox: Sandbox) -> None:
    with DatabaseService(sandbox.config) as db:

        def migrate(connection: Any) -> None:
            with pytest.raises(errors.LockNotAvailable):
                migrate_shards(db, print, lock_timeout=0)

        assert migrate_shards(db, migrate, canary=2) == ["2", "1", "3"]
        with pytest.raises(errors.ParameterError):
            migrate_shards(db, print, shards=[1], canary=2)


def test_a_transaction_is_rolled_back(sandbox: Sandbox) -> None:
    sandbox.run(1, "CREATE TABLE notes (id INT)")
    with DatabaseService(sandbox.config) as db, contextlib.suppress(io.UnsupportedOperation):
        made = engine(db.shard_configs[1])
        with made.begin() as connection:
            connection.execute(sqlalchemy.text("INSERT INTO notes VALUES (1)"))
            raise io.UnsupportedOperation
    assert sandbox.run(1, "SELECT * FROM notes") == []


def test_it_connects_as_this_package_does(sandbox: Sandbox, tmp_path: pathlib.Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(sandbox.config.reveal_password())
    changes = {"password": f"file:{secret}", "sql_mode": "ANSI", "time_zone": "+03:00"}
    config: DatabaseConfig = sandbox.config.model_copy(update=changes)
    with engine(config).connect() as connection:
        found = connection.execute(sqlalchemy.text("SELECT @@sql_mode, @@time_zone")).one()
    assert "ANSI_QUOTES" in found[0]
    assert found[1] == "+03:00"
    secret.write_text("wrong")
    with pytest.raises(sqlalchemy.exc.OperationalError) as caught:
        engine(config).connect()
    assert isinstance(caught.value.orig, errors.ConnectionFailed)
    secret.write_text(sandbox.config.reveal_password())
    required = config.model_copy(update={"ssl_mode": "verify_ca", "ssl_ca": str(secret)})
    with pytest.raises((errors.ConnectionFailed, OSError)):
        engine(required).connect()
