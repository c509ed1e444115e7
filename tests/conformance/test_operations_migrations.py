"""Migrations: applied once, resumed, refused, taken back."""

import contextlib
import hashlib
import json
import subprocess
import sys
from typing import Any, Dict, Iterator, List, Optional

import pymysql
import pytest
from database_servers import Databases

from dualdb import ParameterError
from dualdb.operations import MigrationError, MigrationState, State, migration_lock

#: They make and compare many tables.
pytestmark = pytest.mark.slow

FILES = {
    "001_stock.sql": """
        CREATE TABLE stock (id INT PRIMARY KEY, qty INT NOT NULL);
        INSERT INTO stock VALUES (1, 10), (2, 20);
        ALTER TABLE stock ADD COLUMN note VARCHAR(20) NOT NULL DEFAULT '';
    """,
    "001_stock.down.sql": "DROP TABLE stock",
    "002_take.sql": """
        DELIMITER $$
        CREATE PROCEDURE take(p INT) BEGIN
            UPDATE stock SET qty = qty - 1 WHERE id = p;
        END$$
        DELIMITER ;
        CREATE INDEX by_qty ON stock (qty);
        SET @more = 5;
        UPDATE stock SET qty = qty + @more;
    """,
    "002_take.down.sql": "DROP PROCEDURE take; DROP INDEX by_qty ON stock;"
    "UPDATE stock SET qty = qty - 5",
}
CLEAN = (
    "DROP TABLE IF EXISTS dualdb_migration, stock, other",
    "DROP PROCEDURE IF EXISTS take",
    "DROP PROCEDURE IF EXISTS doubtful",
)


@pytest.fixture
def shards(databases: Any) -> Iterator[Any]:
    for shard in databases.ids:
        databases.run(shard, *CLEAN)
    yield databases
    for shard in databases.ids:
        databases.run(shard, *CLEAN)


def quantities(databases: Any, shard: int) -> List[int]:
    return [row["qty"] for row in databases.run(shard, "SELECT qty FROM stock ORDER BY id")]


def states(report: Any) -> Dict[str, List[MigrationState]]:
    return {each.database: [m.state for m in each.migrations] for each in report.databases}


APPLIED, PENDING = MigrationState.APPLIED, MigrationState.PENDING


def test_they_are_applied_once_everywhere(db: Any, io: Any, shards: Any) -> None:
    migrate = db.operations.migrate
    assert states(io(migrate.status(FILES))) == {"1": [PENDING] * 2, "2": [PENDING] * 2}
    run = io(migrate.up(FILES))
    assert run.ok, run
    assert [[s.version for s in each.steps] for each in run.databases] == [[1, 2], [1, 2]]
    assert quantities(shards, 1) == quantities(shards, 2) == [15, 25]
    again = io(migrate.up(FILES))
    assert again.ok
    assert [each.steps for each in again.databases] == [(), ()]
    report = io(migrate.status(FILES))
    assert (report.ok, states(report)) == (True, {"1": [APPLIED] * 2, "2": [APPLIED] * 2})
    assert report.databases[0].migrations[0].applied_at is not None
    assert io(db.operations.schema_diff(ignore=["visibility"])).compared == ("2",)


def test_a_dry_run_changes_nothing(db: Any, io: Any, shards: Any) -> None:
    run = io(db.operations.migrate.up(FILES, dry_run=True, to=1))
    assert (run.ok, run.dry_run) == (True, True)
    (step,) = run.databases[0].steps
    assert (step.version, len(step.statements)) == (1, 3)
    for shard in shards.ids:
        assert not shards.run(shard, "SHOW TABLES LIKE 'dualdb_migration'")
        assert not shards.run(shard, "SHOW TABLES LIKE 'stock'")


def test_one_that_fails_on_a_shard_is_resumed(db: Any, io: Any, shards: Any) -> None:
    shards.run(2, "CREATE TABLE other (id INT)")
    files = {
        **FILES,
        "003_other.sql": "UPDATE stock SET qty = 0; CREATE TABLE other (id INT PRIMARY KEY);"
        "INSERT INTO other VALUES (3)",
    }
    migrate = db.operations.migrate
    run = io(migrate.up(files))
    assert (run.ok, run.failed) == (False, ["2"])
    failed = run.databases[1]
    assert (failed.state, failed.failed_version, failed.failed_statement) == (State.FAILED, 3, 1)
    assert failed.errno == 1050
    report = io(migrate.status(files))
    assert states(report)["2"] == [APPLIED, APPLIED, MigrationState.BEGUN]
    assert report.databases[1].pending == [3]
    shards.run(2, "DROP TABLE other", "UPDATE stock SET qty = 1")
    run = io(migrate.up(files))
    assert run.ok
    assert [len(each.steps) for each in run.databases] == [0, 1]
    assert run.databases[1].steps[0].first == 1
    # what had been performed was not performed again
    assert quantities(shards, 2) == [1, 1]
    assert shards.value(2, "SELECT id FROM other") == 3


def test_a_canary_that_fails_keeps_the_others_as_they_are(db: Any, io: Any, shards: Any) -> None:
    run = io(db.operations.migrate.up({"1_x.sql": "CREATE TABL x (id INT)"}, canary=2))
    assert (run.failed, run.not_begun) == (["2"], ["1"])
    assert run.databases[0].errno == 1064
    assert not shards.run(1, "SHOW TABLES LIKE 'dualdb_migration'")


def test_a_file_may_be_mended_after_the_statement_that_failed(
    db: Any, io: Any, shards: Any
) -> None:
    create = "CREATE TABLE other (id INT PRIMARY KEY);"
    migrate = db.operations.migrate
    assert not io(migrate.up({"1_x.sql": f"{create} INSERT INTO oter VALUES (1)"})).ok
    changed = {"1_x.sql": "CREATE TABLE other (id BIGINT PRIMARY KEY); SELECT 1"}
    run = io(migrate.up(changed))
    assert "were performed" in run.databases[0].error
    run = io(migrate.up({"1_x.sql": f"{create} INSERT INTO other VALUES (1)"}))
    assert run.ok, run
    assert shards.value(1, "SELECT COUNT(*) FROM other") == 1


def test_an_applied_file_that_was_changed_is_refused(db: Any, io: Any, shards: Any) -> None:
    migrate = db.operations.migrate
    io(migrate.up(FILES))
    changed = {**FILES, "001_stock.sql": FILES["001_stock.sql"].replace("20)", "21)", 1)}
    run = io(migrate.up(changed))
    assert not run.ok
    assert "changed after it was applied" in run.databases[0].error
    assert states(io(migrate.status(changed)))["1"][0] is MigrationState.CHANGED
    # comments and spaces are not statements
    commented = {**FILES, "001_stock.sql": "-- what it is for\n" + FILES["001_stock.sql"] + "\n"}
    assert io(migrate.up(commented)).ok


def test_down_takes_back_the_newest_first(db: Any, io: Any, shards: Any) -> None:
    migrate = db.operations.migrate
    io(migrate.up(FILES))
    planned = io(migrate.down(FILES, to=0, dry_run=True))
    assert [s.version for s in planned.databases[0].steps] == [2, 1]
    assert quantities(shards, 1) == [15, 25]
    assert io(migrate.down(FILES, to=1)).ok
    assert quantities(shards, 1) == quantities(shards, 2) == [10, 20]
    assert states(io(migrate.status(FILES)))["1"] == [APPLIED, PENDING]
    assert io(migrate.down(FILES, to=0)).ok
    assert not shards.run(1, "SHOW TABLES LIKE 'stock'")
    assert io(migrate.up(FILES)).ok


def test_an_alter_that_blocks_is_refused_unless_allowed(db: Any, io: Any, shards: Any) -> None:
    files = {"1_a.sql": "CREATE TABLE other (id INT PRIMARY KEY, n INT); INSERT INTO other "
             "VALUES (1, 1)", "2_b.sql": "ALTER TABLE other MODIFY n BIGINT"}  # fmt: skip
    migrate = db.operations.migrate
    run = io(migrate.up(files, shards=1))
    assert "writers of other wait" in run.databases[0].error
    assert run.databases[0].failed_version == 2
    assert io(migrate.up(files, shards=1, allow_blocking=True)).ok
    kind = shards.value(1, "SELECT DATA_TYPE FROM information_schema.COLUMNS WHERE "
                        "TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'other' "
                        "AND COLUMN_NAME = 'n'")  # fmt: skip
    assert kind in ("bigint", b"bigint")


def test_the_way_that_keeps_nobody_waiting_is_taken(db: Any, io: Any, shards: Any) -> None:
    files = {
        "1_a.sql": "CREATE TABLE other (id INT PRIMARY KEY, n INT); INSERT INTO other "
        "VALUES (1, 1); ALTER TABLE other ADD COLUMN m INT; ALTER TABLE other ADD INDEX (n);"
        "ALTER TABLE other DROP COLUMN m, ALGORITHM=COPY"
    }
    run = io(db.operations.migrate.up(files, shards=1))
    assert run.ok, run
    sent = run.databases[0].steps[0].statements
    assert sent[2].endswith("ALGORITHM=INSTANT")
    assert sent[3].endswith("ALGORITHM=INPLACE, LOCK=NONE")
    assert sent[4].endswith("ALGORITHM=COPY")


def test_two_runners_at_once_apply_each_once(
    db: Any, io: Any, shards: Any, open_service: Any
) -> None:
    other = open_service()
    runs = io.concurrently(
        [
            lambda: db.operations.migrate.up(FILES, canary=False),
            lambda: other.operations.migrate.up(FILES, canary=False),
        ]
    )
    assert [run.ok for run in runs] == [True, True], runs
    assert quantities(shards, 1) == quantities(shards, 2) == [15, 25]
    applied = [step.version for run in runs for step in run.databases[0].steps]
    assert sorted(applied) == [1, 2]


def end_lease(databases: Databases) -> None:
    """Let the time pass for which a runner has shard 1, where that is a lease."""
    if databases.profile.row_locks:
        with contextlib.suppress(pymysql.err.ProgrammingError):  # there is no table yet
            databases.run(1, f"UPDATE {migration_lock.TABLE} SET lease_until = '1970-01-01'")


def test_a_lock_that_is_not_free_ends_the_run(db: Any, io: Any, shards: Any) -> None:
    digest = hashlib.sha256(shards.config_of(1).database.encode()).hexdigest()
    name = f"dualdb_migrate_{digest[:16]}"
    if shards.profile.row_locks:  # another runner has a lease
        shards.run(
            1,
            migration_lock.DDL,
            f"REPLACE INTO {migration_lock.TABLE} VALUES "
            "('runner', 'another', 'x', UTC_TIMESTAMP(6) + INTERVAL 1 HOUR)",
        )
        run = io(db.operations.migrate.up(FILES, shards=1, lock_timeout=0))
        end_lease(shards)
    else:
        with io.entered(db.shard(1).lock(name, timeout=0)):
            run = io(db.operations.migrate.up(FILES, shards=1, lock_timeout=0))
    assert "LockNotAvailable" in run.databases[0].error
    assert io(db.operations.migrate.up(FILES, shards=1)).ok


@pytest.mark.parametrize("doubtful", ["repeat", "done"])
def test_what_the_schema_does_not_show_is_asked_for(
    db: Any, io: Any, shards: Any, doubtful: Any
) -> None:
    files = {"1_a.sql": "CREATE TABLE other (id INT); CALL doubtful()"}
    shards.run(1, "CREATE PROCEDURE doubtful() INSERT INTO other VALUES (1)")
    migrate = db.operations.migrate
    assert io(migrate.up(files, shards=1)).ok
    # as a runner leaves it that dies in the middle of the CALL
    from dualdb.operations import script

    shards.run(
        1,
        "UPDATE dualdb_migration SET state = 'applying', completed = 1, applied_at = NULL, "
        f"prefix = '{script.digest(['CREATE TABLE other (id INT)'])}', "
        f"sent = '{script.digest(['CALL doubtful()'])}'",
    )
    assert states(io(migrate.status(files, shards=1)))["1"] == [MigrationState.IN_DOUBT]
    run = io(migrate.up(files, shards=1))
    assert "may or may not" in run.databases[0].error
    assert io(migrate.up(files, shards=1, doubtful=doubtful)).ok
    assert shards.value(1, "SELECT COUNT(*) FROM other") == (2 if doubtful == "repeat" else 1)


def test_files_that_are_not_in_order_are_refused(db: Any, io: Any, shards: Any) -> None:
    with pytest.raises(MigrationError):
        io(db.operations.migrate.up({"x.sql": "SELECT 1"}))
    with pytest.raises(ParameterError):
        io(db.operations.migrate.down(FILES, to=-1))
    with pytest.raises(ParameterError):
        io(db.operations.migrate.up(FILES, doubtful="x"))


def test_a_shard_that_is_away_is_reported(db: Any, io: Any, shards: Any) -> None:
    shards.set_row(2, password="wrong")
    io(db.refresh())
    report = io(db.operations.migrate.status(FILES))
    assert report.databases[1].error is not None
    assert not report.ok
    assert io(db.operations.migrate.up(FILES)).failed == ["2"]


KILLED = """
import asyncio, json, os, signal, sys
import dualdb
from dualdb.operations import places

kind, config, files, at, when = sys.argv[1], *map(json.loads, sys.argv[2:])
seen = 0

def counted(perform):
    def die(moment):
        if seen == at and moment == when:
            os.kill(os.getpid(), signal.SIGKILL)
    def step(self, statement, until=None):
        global seen
        seen += 1
        die("before")
        result = perform(self, statement, until)
        die("after")
        return result
    async def async_step(self, statement, until=None):
        global seen
        seen += 1
        die("before")
        result = await perform(self, statement, until)
        die("after")
        return result
    return step if kind == "sync" else async_step

places.Session.run_statement = counted(places.Session.run_statement)
config = dualdb.DatabaseConfig(**config)

def run_sync():
    with dualdb.DatabaseService(config) as db:
        return db.operations.migrate.up(files, shards=1)

async def run_async():
    async with dualdb.AsyncDatabaseService(config) as db:
        return await db.operations.migrate.up(files, shards=1)

run = run_sync() if kind == "sync" else asyncio.run(run_async())
print(json.dumps({"ok": run.ok, "seen": seen}))
"""


def killed_at(io: Any, databases: Any, at: int, when: str) -> Optional[Dict[str, Any]]:
    """What a runner reports that is killed at this statement; None if it was."""
    config = databases.config
    address = {
        **config.model_dump(include={"host", "port", "user", "database"}),
        "password": config.password.get_secret_value(),
    }
    arguments = [json.dumps(each) for each in (address, FILES, at, when)]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, io.name, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        found: Dict[str, Any] = json.loads(done.stdout)
        return found
    assert done.returncode == -9, done.stderr
    return None


#: The kills are shared out among this many tests.
PARTS = 6


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_runner_that_is_killed_at_any_statement_is_resumed(
    db: Any, io: Any, shards: Any, when: str, part: int
) -> None:
    at, whole = 1 + part, None
    while whole is None:
        shards.run(1, *CLEAN)
        whole = killed_at(io, shards, at, when)
        end_lease(shards)
        run = io(db.operations.migrate.up(FILES, shards=1))
        assert run.ok, (at, when, run)
        assert quantities(shards, 1) == [15, 25], (at, when)
        assert shards.run(1, "SHOW INDEX FROM stock WHERE Key_name = 'by_qty'")
        assert states(io(db.operations.migrate.status(FILES, shards=1)))["1"] == [APPLIED] * 2
        at += PARTS
    assert at > 40
