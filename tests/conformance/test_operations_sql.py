"""SQL on several databases: in which order, how far, and how it is resumed."""

from typing import Any, List

import pytest

from dualdb import ParameterError
from dualdb.operations import SqlReport, State

TWO = "INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1); UPDATE trades SET qty = 2"


def counts(databases: Any) -> List[int]:
    return [databases.value(shard, "SELECT COUNT(*) FROM trades") for shard in (1, 2)]


def test_a_statement_is_performed_on_every_shard(db: Any, io: Any, databases: Any) -> None:
    report = io(db.operations.sql("INSERT INTO trades VALUES (%s, 1, 'A', 2)", params=(5,)))
    assert report.ok
    assert (report.done, report.failed, report.not_begun) == (["1", "2"], [], [])
    assert [each.results[0].affected for each in report.databases] == [1, 1]
    assert counts(databases) == [1, 1]
    report = io(db.operations.sql("SELECT id, qty FROM trades WHERE symbol LIKE 'A%'"))
    assert report.databases[1].results[0].rows == ({"id": 5, "qty": 2},)


@pytest.mark.parametrize(
    ("shards", "names"),
    [
        ("all", ["1", "2"]),
        ("global", ["global"]),
        ("everything", ["global", "1", "2"]),
        (2, ["2"]),
        ([2, "global", 2], ["2", "global"]),
        ("2, 1", ["2", "1"]),
    ],
)
def test_databases_are_named(db: Any, io: Any, shards: Any, names: List[str]) -> None:
    report = io(db.operations.sql("SELECT DATABASE() AS name", shards=shards))
    assert report.done == names


@pytest.mark.parametrize("shards", [7, "x", [], [1.5], "", True])
def test_databases_that_are_none_are_refused(db: Any, io: Any, shards: Any) -> None:
    with pytest.raises(ParameterError):
        io(db.operations.sql("SELECT 1", shards=shards))


def test_a_script_with_a_procedure_runs_whole(db: Any, io: Any, databases: Any) -> None:
    source = """
        -- what the client knows
        DELIMITER $$
        DROP PROCEDURE IF EXISTS put$$
        CREATE PROCEDURE put(p INT) BEGIN
            INSERT INTO trades (user_id, symbol, qty) VALUES (p, 'it''s; %', p);
            SELECT p AS given;
        END$$
        DELIMITER ;
        CALL put(4); SET @x = 7; SELECT @x AS x;
        DROP PROCEDURE put;
    """
    report = io(db.operations.sql(source, shards=1))
    assert report.ok, report.databases[0].error
    results = report.databases[0].results
    assert results[2].rows == ({"given": 4},)
    assert results[4].rows == ({"x": 7},)
    assert counts(databases) == [1, 0]


def test_a_canary_that_fails_keeps_the_others_as_they_are(db: Any, io: Any, databases: Any) -> None:
    databases.run(2, "INSERT INTO trades VALUES (9, 1, 'X', 1)")
    report = io(db.operations.sql("INSERT INTO trades VALUES (9, 1, 'A', 1)", canary=2))
    assert (report.ok, report.failed, report.not_begun) == (False, ["2"], ["1"])
    assert report.databases[0].errno == 1062
    assert "IntegrityError" in str(report.databases[0].error)
    assert counts(databases) == [0, 1]


@pytest.mark.parametrize("on_error", ["stop", "continue"])
def test_an_error_on_one_stops_the_next(db: Any, io: Any, databases: Any, on_error: Any) -> None:
    databases.run(1, "INSERT INTO trades VALUES (9, 1, 'X', 1)")
    report = io(
        db.operations.sql(
            "INSERT INTO trades VALUES (9, 1, 'A', 1)",
            canary=False,
            max_concurrency=1,
            on_error=on_error,
        )
    )
    assert report.failed == ["1"]
    assert report.not_begun == (["2"] if on_error == "stop" else [])
    assert counts(databases) == [1, 0 if on_error == "stop" else 1]


def test_a_report_is_resumed_where_it_failed(db: Any, io: Any, databases: Any) -> None:
    source = f"{TWO}; INSERT INTO trades VALUES (77, 1, 'B', 1)"
    databases.run(2, "INSERT INTO trades VALUES (77, 1, 'X', 1)")
    report = io(db.operations.sql(source))
    assert (report.done, report.failed) == (["1"], ["2"])
    assert report.databases[1].completed == 2
    databases.run(2, "DELETE FROM trades WHERE id = 77")
    kept = SqlReport.from_dict(report.to_dict())
    resumed = io(db.operations.sql(source, resume=kept))
    assert resumed.ok
    assert [len(each.results) for each in resumed.databases] == [0, 1]
    assert counts(databases) == [2, 2]
    with pytest.raises(ParameterError, match="another script"):
        io(db.operations.sql(TWO, resume=kept))


def test_a_transaction_of_the_script_is_resumed_from_its_beginning(
    db: Any, io: Any, databases: Any
) -> None:
    source = f"BEGIN; {TWO}; INSERT INTO trades VALUES (77, 1, 'B', 1); COMMIT"
    databases.run(1, "INSERT INTO trades VALUES (77, 1, 'X', 1)")
    report = io(db.operations.sql(source, shards=1))
    assert report.databases[0].completed == 0
    assert counts(databases) == [1, 0]
    databases.run(1, "DELETE FROM trades")
    assert io(db.operations.sql(source, shards=1, resume=report)).ok
    assert counts(databases) == [2, 0]
    report = io(db.operations.sql(f"BEGIN; {TWO}", shards=2))
    assert "transaction open" in str(report.databases[0].error)
    assert counts(databases) == [2, 0]


def test_a_statement_whose_connection_is_lost_is_in_doubt(db: Any, io: Any, databases: Any) -> None:
    source = f"{TWO}; UPDATE trades SET qty = 5 WHERE SLEEP(60) = 0"
    other = io.Client(databases.config_of(1))

    def cut() -> None:
        rows: Any = ()
        while not rows:
            rows = databases.run(
                1, "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'UPDATE%SLEEP%'"
            )
        databases.run(1, f"KILL {rows[0]['ID']}")

    async def cut_beside() -> None:
        import asyncio

        await asyncio.to_thread(cut)

    calls = [
        lambda: db.operations.sql(source, shards=1),
        cut if io.name == "sync" else cut_beside,
    ]
    report, _ = io.concurrently(calls)
    io(other.close_pool())
    (found,) = report.databases
    assert (found.state, found.completed, found.in_doubt) == (State.FAILED, 2, True)
    with pytest.raises(ParameterError, match="doubtful"):
        io(db.operations.sql(source, shards=1, resume=report))
    assert io(db.operations.sql(source, shards=1, resume=report, doubtful="done")).ok
    assert counts(databases) == [1, 0]


def test_a_dry_run_sends_nothing(db: Any, io: Any, databases: Any) -> None:
    report = io(db.operations.sql(TWO, dry_run=True, canary=2))
    assert (report.ok, report.not_begun) == (True, ["2", "1"])
    assert len(report.statements) == 2
    assert counts(databases) == [0, 0]


def test_progress_is_reported_for_each_database(db: Any, io: Any) -> None:
    seen: List[str] = []

    async def late(result: Any) -> None:
        seen.append(result.database)

    progress = late if io.name == "async" else lambda result: seen.append(result.database)
    io(db.operations.sql("SELECT 1", progress=progress))
    assert sorted(seen) == ["1", "2"]


@pytest.mark.slow
def test_it_is_apart_from_the_callers_transaction_and_read_timeout(
    databases: Any, io: Any, open_service: Any
) -> None:
    db = open_service(databases.config_of("global", read_timeout=0.4))
    with io.entered(db.shard(1).transaction()):
        report = io(db.operations.sql("DO SLEEP(0.6); " + TWO, shards=1))
    assert report.ok, report.databases[0].error
    assert counts(databases) == [1, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"script": " ; -- x"}, "no statement"),
        ({"script": "SELECT 1; SELECT 2", "params": (1,)}, "one statement"),
        ({"script": "SELECT 1", "canary": 9}, "canary"),
        ({"script": "SELECT 1", "on_error": "x"}, "on_error"),
        ({"script": "SELECT 1", "max_concurrency": 0}, "max_concurrency"),
    ],
)
def test_bad_arguments_are_refused(db: Any, io: Any, arguments: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        io(db.operations.sql(**arguments))


def test_a_shard_that_is_away_fails_alone(db: Any, io: Any, databases: Any) -> None:
    databases.set_row(2, password="wrong")
    io(db.refresh())
    report = io(db.operations.sql(TWO))
    assert (report.done, report.failed) == (["1"], ["2"])
    assert counts(databases) == [1, 0]
