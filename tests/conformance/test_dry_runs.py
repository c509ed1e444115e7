"""Changes with ``dry_run``: they check the same, and change nothing."""

from typing import Any, Callable, List

import pytest
from database_servers import Databases
from io_kinds import IO
from shard_rows import new_shard

from dualdb import HashBuckets, LookupTable, ParameterError, ShardUnavailable
from dualdb.operations import JobState, JobStep, JobTaken

TABLE = "SELECT * FROM table_shard_config ORDER BY shard_id"


@pytest.fixture
def shop(databases: Databases, open_service: Callable[..., Any], io: IO) -> Any:
    """A service with a lookup table, in which key 7 is on shard 2."""
    databases.drop_leftovers()
    db = open_service(directory=LookupTable(), refresh_interval=None)
    io(db.directory.create_tables())
    io(db.directory.set(7, 2))
    return db


#: Changes that can be made.
CHANGES: List[Callable[[Any, Databases], Any]] = [
    lambda db, databases: db.add_shard(3, **new_shard(databases), dry_run=True),
    lambda db, databases: db.set_shard_status(1, "maintenance", dry_run=True),
    lambda db, databases: db.resize_shard(1, 5, dry_run=True),
    lambda db, databases: db.drain_shard(1, dry_run=True),
    lambda db, databases: db.directory.set(7, 1, dry_run=True),
    lambda db, databases: db.directory.forget(7, dry_run=True),
    lambda db, databases: db.directory.assign(8, dry_run=True),
]


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_changed(shop: Any, io: IO, databases: Databases, change: Any) -> None:
    if "max_connections" not in databases.run("global", TABLE)[0]:
        databases.run("global", "ALTER TABLE table_shard_config ADD max_connections INT NULL")
    before = databases.run("global", TABLE)
    io(change(shop, databases))
    assert databases.run("global", TABLE) == before
    shop.directory.clear_cache()
    assert [io(shop.directory.get(key)) for key in (7, 8)] == [2, None]
    assert io(shop.shard(1).query_value("SELECT 1")) == 1


#: Changes that are refused, by dry_run as well.
REFUSED: List[Callable[[Any, Databases], Any]] = [
    lambda db, databases: db.add_shard(2, **new_shard(databases), dry_run=True),
    lambda db, databases: db.add_shard(3, **new_shard(databases, host=""), dry_run=True),
    lambda db, databases: db.add_shard(
        3, **new_shard(databases, password="env:HOME"), dry_run=True
    ),
    lambda db, databases: db.add_shard(
        3, **new_shard(databases), privileges=["SHUTDOWN"], dry_run=True
    ),
    lambda db, databases: db.set_shard_status(9, "active", dry_run=True),
    lambda db, databases: db.set_shard_status(1, "nonsense", dry_run=True),
    lambda db, databases: db.resize_shard(9, 5, dry_run=True),
    lambda db, databases: db.resize_shard(1, 0, dry_run=True),
    lambda db, databases: db.drain_shard(9, dry_run=True),
    lambda db, databases: db.remove_shard(9, dry_run=True),
    lambda db, databases: db.remove_shard(1, dry_run=True),
    lambda db, databases: db.directory.set(7, 9, dry_run=True),
    lambda db, databases: db.directory.set("seven", 1, dry_run=True),
    lambda db, databases: db.directory.forget("seven", dry_run=True),
]


@pytest.mark.parametrize("change", REFUSED)
def test_what_would_be_refused_is_refused(
    shop: Any, io: IO, databases: Databases, change: Any
) -> None:
    with pytest.raises(ParameterError):
        io(change(shop, databases))


def test_a_new_shard_is_connected_to(shop: Any, io: IO, databases: Databases) -> None:
    with pytest.raises(ShardUnavailable):
        io(shop.add_shard(3, **new_shard(databases, password="wrong"), dry_run=True))


def test_a_shard_with_keys_is_removed_only_if_they_may_be_left(
    shop: Any, io: IO, databases: Databases
) -> None:
    databases.set_row(2, status="inactive")
    with pytest.raises(ParameterError, match="1 key on shard 2"):
        io(shop.remove_shard(2, dry_run=True))
    with pytest.raises(ParameterError, match="1 key on shard 2"):
        io(shop.remove_shard(2))
    io(shop.remove_shard(2, leave_keys=True, dry_run=True))
    assert databases.value("global", "SELECT COUNT(*) FROM table_shard_config") == 2
    io(shop.remove_shard(2, leave_keys=True))
    assert databases.value("global", "SELECT COUNT(*) FROM table_shard_config") == 1


def test_assign_names_the_shard_that_it_has_or_would_have(shop: Any, io: IO) -> None:
    assert io(shop.directory.assign(7, dry_run=True)) == 2
    assert io(shop.directory.assign(8, dry_run=True)) in (1, 2)
    assert io(shop.directory.get(8)) is None


def test_a_bucket_stays(open_service: Callable[..., Any], io: IO, databases: Databases) -> None:
    databases.drop_leftovers()
    db = open_service(directory=HashBuckets(4))
    io(db.directory.create_tables())
    before = databases.run("global", "SELECT * FROM dualdb_bucket ORDER BY 1")
    io(db.directory.set_bucket(3, 1, dry_run=True))
    io(db.directory.set_bucket(3, 2, dry_run=True))
    assert databases.run("global", "SELECT * FROM dualdb_bucket ORDER BY 1") == before
    with pytest.raises(ParameterError):
        io(db.directory.set_bucket(4, 1, dry_run=True))


def test_a_job_is_not_made_and_one_that_runs_is_refused(shop: Any, io: IO) -> None:
    jobs = shop.operations.jobs
    seen: List[Any] = []

    def body(job: Any) -> Any:
        with pytest.raises(JobTaken, match="whose lease is over in"):
            yield jobs.run("one", step, dry_run=True)
        waiting = yield jobs.run("one", step, wait=True, dry_run=True)
        seen.append(waiting.state)
        return JobStep(None, done=1)

    step = io.function(body)
    planned = io(jobs.run("one", step, kind="test", params=[1], dry_run=True))
    assert (planned.state, planned.kind, planned.params) == (JobState.READY, "test", [1])
    assert (planned.created_at, io(jobs.get("one")), seen) == (None, None, [])
    assert io(jobs.run("one", step)).state is JobState.DONE
    assert seen == [JobState.RUNNING]
    assert io(jobs.run("one", step, dry_run=True)).state is JobState.DONE


def test_dead_events_are_counted_and_stay(shop: Any, io: IO, databases: Databases) -> None:
    io(shop.outbox.create_tables())
    with io.entered(shop.shard(1).transaction()) as tx:
        ids = [io(tx.outbox("t", number)) for number in range(3)]
    databases.run(1, "UPDATE dualdb_outbox SET status = 'dead'")
    assert io(shop.outbox.requeue(dry_run=True)) == 3
    assert io(shop.outbox.requeue([ids[0], "other"], dry_run=True)) == 1
    assert len(io(shop.outbox.dead())) == 3
    assert io(shop.outbox.requeue(ids[:1])) == 1
    assert len(io(shop.outbox.dead())) == 2


@pytest.mark.slow
def test_tables_are_made_on_every_shard_suspended_ones_too(
    shop: Any, io: IO, databases: Databases
) -> None:
    databases.drop_leftovers()
    databases.set_row(2, status="maintenance")
    io(shop.refresh())
    create = shop.operations.create_tables
    planned = io(create(dry_run=True))
    names = {(each.database, each.name) for each in planned.created}
    assert {("global", "dualdb_job"), ("1", "dualdb_outbox"), ("2", "dualdb_outbox")} <= names
    assert "table_user_shard_mapping" in {each.name for each in planned.created}
    assert (planned.ok, planned.dry_run) == (True, True)
    assert io(create(dry_run=True)) == planned
    assert io(create()).created == planned.created
    assert io(create()).created == ()
