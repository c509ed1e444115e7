"""Tenants are spread over shards by a plan, which is a job."""

from typing import Any, Dict, Iterator, List

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import LookupTable, ParameterError
from dualdb.operations import JobTaken, RebalancePlan, TenantTable, jobs
from dualdb.operations import move_tables as names

TABLES = [TenantTable("purchase", "owner")]


def clean(databases: Databases) -> None:
    for shard in databases.ids:
        databases.run(shard, f"DROP TABLE IF EXISTS purchase, {', '.join(names.TABLES)}")
    databases.run(
        "global", f"DROP TABLE IF EXISTS table_user_shard_mapping, {names.EPOCHS}, {jobs.TABLE}"
    )


@pytest.fixture
def shop(open_service: Any, databases: Databases, io: IO) -> Iterator[Any]:
    """A service with keys 1 to 4 on shard 1, which have as many rows."""
    clean(databases)
    for shard in databases.ids:
        databases.run(shard, "CREATE TABLE purchase (id INT PRIMARY KEY, owner BIGINT NOT NULL)")
    db = open_service(directory=LookupTable(ttl=0))
    io(db.directory.create_tables())
    for key in range(1, 5):
        io(db.directory.set(key, 1))
        rows = ", ".join([f"({key}{number}, {key})" for number in range(key)])
        databases.run(1, f"INSERT INTO purchase VALUES {rows}")
    io(db.operations.prepare_moves(TABLES))
    yield db
    clean(databases)


def keys(databases: Databases, shard: int) -> List[int]:
    rows = databases.run(shard, "SELECT DISTINCT owner FROM purchase ORDER BY owner")
    return [row["owner"] for row in rows]


def shards(databases: Databases) -> Dict[int, int]:
    rows = databases.run(
        "global", "SELECT account_db_key AS k, shard_id FROM table_user_shard_mapping"
    )
    return {row["k"]: row["shard_id"] for row in rows}


def apply(io: IO, db: Any, plan: RebalancePlan, **options: Any) -> Any:
    return io(db.operations.rebalance_apply(plan, TABLES, settle=0, **options))


def test_a_plan_by_rows_is_made_and_carried_out(shop: Any, io: IO, databases: Databases) -> None:
    plan = io(shop.operations.rebalance_plan(TABLES))
    assert (plan.by, plan.before) == ("rows", {1: 10.0, 2: 0.0})
    assert plan.after == {1: 5.0, 2: 5.0}
    assert plan == io(shop.operations.rebalance_plan(TABLES))
    assert keys(databases, 2) == []
    seen: List[str] = []
    report = apply(io, shop, plan, progress=lambda job: seen.append(job.message))
    assert (report.ok, report.skipped, report.finished) == (True, (), len(plan.moves))
    moved = sorted(each.key for each in plan.moves)
    assert sorted(report.moved) == moved == keys(databases, 2)
    assert {key for key, shard in shards(databases).items() if shard == 2} == set(moved)
    assert io(shop.operations.rebalance_plan(TABLES)).moves == ()
    assert any("shard 1 to 2" in message for message in seen)


@pytest.mark.parametrize(
    ("options", "moved"),
    [
        ({"by": "tenants"}, 2),
        ({"by": "bytes"}, None),
        ({"by": "load", "load": {1: 100, 2: 1, 3: 1, 4: 98}}, 1),
        ({"weights": {1: 9, 2: 1}}, 1),
        ({"drain": [1]}, 4),
        ({"pins": {1: 1, 2: 1, 3: 1, 4: 2}}, 1),
        ({"shards": 1}, 0),
    ],
    ids=str,
)
def test_plans_by_other_measures(
    shop: Any, io: IO, databases: Databases, options: Any, moved: Any
) -> None:
    plan = io(shop.operations.rebalance_plan(TABLES, **options))
    assert moved is None or len(plan.moves) == moved
    assert all((each.source, each.target) == (1, 2) for each in plan.moves)
    assert sum(plan.before.values()) == sum(plan.after.values())


@pytest.mark.slow
def test_a_shard_is_drained_of_all_its_tenants(shop: Any, io: IO, databases: Databases) -> None:
    io(shop.directory.set(99, 1))  # it has no rows yet
    plan = io(shop.operations.rebalance_plan(TABLES, drain=[1]))
    # one of them has moved by other means since the plan was made
    io(shop.operations.move(2, 2, TABLES, settle=0))
    report = apply(io, shop, plan, name="drain-1")
    assert (report.ok, report.skipped) == (True, (2,))
    assert (keys(databases, 1), keys(databases, 2)) == ([], [1, 2, 3, 4])
    assert io(shop.operations.key_counts()).get(1, 0) == 0


@pytest.mark.slow
def test_a_plan_that_was_interrupted_goes_on(shop: Any, io: IO, databases: Databases) -> None:
    plan = io(shop.operations.rebalance_plan(TABLES, drain=[1]))

    def pause(job: Any) -> None:
        if job.done == 1:
            databases.run("global", "UPDATE dualdb_job SET pause_requested = 1 "
                                    "WHERE name = 'rebalance'")  # fmt: skip

    report = apply(io, shop, plan, progress=pause)
    assert (report.ok, report.state) == (False, "paused")
    assert report.finished < len(plan.moves)
    io(shop.operations.jobs.resume("rebalance"))
    # its own plan, whatever is given
    report = apply(io, shop, plan.from_dict({**plan.to_dict(), "moves": []}))
    assert (report.ok, report.finished) == (True, 4)
    assert keys(databases, 1) == []


def test_a_dry_run_says_which_tenants_would_be_moved(
    shop: Any, io: IO, databases: Databases
) -> None:
    plan = io(shop.operations.rebalance_plan(TABLES, drain=[1]))
    keys_of_plan = [each.key for each in plan.moves]
    found = apply(io, shop, plan, dry_run=True)
    assert (found.ok, found.state, found.moved) == (True, "new", tuple(keys_of_plan))
    assert io(shop.operations.jobs.list()) == []

    def pause(job: Any) -> None:
        if job.done == 2:
            databases.run("global", "UPDATE dualdb_job SET pause_requested = 1 "
                                    "WHERE name = 'rebalance'")  # fmt: skip

    done = apply(io, shop, plan, progress=pause)
    assert done.state == "paused"
    io(shop.directory.set(keys_of_plan[-1], 2))  # by other means
    found = apply(io, shop, plan, dry_run=True)
    left = keys_of_plan[done.finished :]
    assert (found.state, found.finished) == ("paused", done.finished)
    assert (found.moved, found.skipped) == (tuple(left[:-1]), tuple(left[-1:]))
    assert len(keys(databases, 1)) == len(left)


@pytest.mark.slow
def test_a_second_plan_is_carried_out_by_the_same_name(
    shop: Any, io: IO, databases: Databases
) -> None:
    for drained in (1, 2):
        plan = io(shop.operations.rebalance_plan(TABLES, drain=[drained]))
        assert len(apply(io, shop, plan, dry_run=True).moved) == 4
        report = apply(io, shop, plan)
        assert (report.ok, len(report.moved), report.finished) == (True, 4, 4)
        assert keys(databases, drained) == []


def test_so_many_moves_an_hour(shop: Any, io: IO, databases: Databases) -> None:
    plan = io(shop.operations.rebalance_plan(TABLES, drain=[1]))
    waits: List[str] = []

    def progress(job: Any) -> None:
        if job.message.startswith("the next move in"):
            waits.append(job.message)
            databases.run("global", "UPDATE dualdb_job SET cancel_requested = 1")

    report = apply(io, shop, plan, max_moves_per_hour=3600, lease=0.3, progress=progress)
    assert (report.state, report.finished) in (("cancelled", 1), ("cancelled", 2))
    assert len(waits) == 1


@pytest.mark.parametrize(
    "options",
    [{"by": "x"}, {"by": "load"}, {"drain": [9]}, {"weights": {9: 1}}, {"weights": {1: 0, 2: 0}}],
    ids=str,
)
def test_plans_that_cannot_be_are_refused(shop: Any, io: IO, options: Any) -> None:
    with pytest.raises(ParameterError):
        io(shop.operations.rebalance_plan(TABLES, **options))


def test_what_somebody_else_carries_out_is_refused(shop: Any, io: IO, databases: Databases) -> None:
    plan = io(shop.operations.rebalance_plan(TABLES))
    with pytest.raises(ParameterError, match="max_moves_per_hour"):
        apply(io, shop, plan, max_moves_per_hour=0)
    databases.run(
        "global",
        jobs.DDL,
        "INSERT INTO dualdb_job (name, kind, state, params, position, message, owner, lease_until, "
        "created_at, updated_at) VALUES ('rebalance', 'rebalance', 'running', '[]', 'null', '', "
        "'x', UTC_TIMESTAMP() + INTERVAL 60 SECOND, UTC_TIMESTAMP(), UTC_TIMESTAMP())",
    )
    for options in ({}, {"wait": 0.1}, {"dry_run": True}):
        with pytest.raises(JobTaken):
            apply(io, shop, plan, **options)
    assert apply(io, shop, plan, wait=1, dry_run=True).state == "running"
    databases.run(
        "global", "UPDATE dualdb_job SET lease_until = UTC_TIMESTAMP(6) + INTERVAL 0.2 SECOND"
    )
    assert apply(io, shop, plan, wait=30).state == "done"


def test_a_move_of_a_plan_waits_for_who_moves_that_tenant(
    shop: Any, io: IO, databases: Databases
) -> None:
    plan = io(shop.operations.rebalance_plan(TABLES))
    key = plan.moves[0].key
    databases.run(
        "global",
        jobs.DDL,
        "INSERT INTO dualdb_job (name, kind, state, params, position, message, owner, lease_until, "
        f"created_at, updated_at) VALUES ('move:{key}', 'move', 'running', "
        "'{\"source\": 1, \"target\": 2}', 'null', '', 'x', "
        "UTC_TIMESTAMP(6) + INTERVAL 0.3 SECOND, UTC_TIMESTAMP(), UTC_TIMESTAMP())",
    )
    report = apply(io, shop, plan, wait=30)
    assert (report.state, len(report.moved)) == ("done", len(plan.moves))
