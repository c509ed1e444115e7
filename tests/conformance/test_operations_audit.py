"""Rows in the wrong shard, and the sessions on the servers."""

import contextlib
from typing import Any

import pytest

from dualdb import OperationalError, ParameterError


def shard_of(key: int) -> int:
    return key % 2 + 1


@pytest.fixture
def keyed(open_service: Any, databases: Any) -> Any:
    """A service whose shards have rows of their keys, and ten that are misplaced."""
    for shard in databases.ids:
        right = [f"({key}, 'A', 1), ({key}, 'B', 1)" for key in range(60) if shard_of(key) == shard]
        wrong = [f"({key}, 'X', 1)" for key in range(60, 70) if shard_of(key) != shard]
        databases.run(
            shard,
            f"INSERT INTO trades (user_id, symbol, qty) VALUES {', '.join(right + wrong)}",
        )
    return open_service(shard_of_key=shard_of)


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_misplaced_rows_are_found_and_no_others(keyed: Any, io: Any, batch: int) -> None:
    report = io(keyed.operations.audit("trades", "user_id", batch_keys=batch))
    assert (report.ok, report.keys, report.rows) == (False, 70, 130)
    found = {(each.database, each.key, each.rows, each.belongs_to) for each in report.misplaced}
    assert found == {(str(3 - shard_of(k)), k, 1, shard_of(k)) for k in range(60, 70)}


def test_a_condition_and_shards_can_be_given(keyed: Any, io: Any) -> None:
    audit = keyed.operations.audit
    assert io(audit("trades", "user_id", where="symbol LIKE 'A%'")).ok
    report = io(audit("trades", "user_id", shards=2))
    assert {each.database for each in report.misplaced} == {"2"}
    report = io(audit("trades", "user_id", max_misplaced=3))
    assert len(report.misplaced) == 3


def test_rows_without_a_key_are_reported(keyed: Any, io: Any, databases: Any) -> None:
    databases.run(1, "CREATE TABLE loose (id INT PRIMARY KEY, owner INT)")
    databases.run(1, "INSERT INTO loose VALUES (1, NULL), (2, NULL), (3, 2)")
    try:
        report = io(keyed.operations.audit("loose", "owner", shards=1))
        (found,) = report.misplaced
        assert (found.key, found.rows, found.belongs_to) == (None, 2, None)
    finally:
        databases.run(1, "DROP TABLE loose")


def test_what_cannot_be_audited_is_refused_or_reported(keyed: Any, db: Any, io: Any) -> None:
    with pytest.raises(ParameterError, match="shards of keys"):
        io(db.operations.audit("trades", "user_id"))
    with pytest.raises(ParameterError, match="global"):
        io(keyed.operations.audit("trades", "user_id", shards="everything"))
    report = io(keyed.operations.audit("nothing", "user_id"))
    assert (sorted(report.errors), report.ok) == (["1", "2"], False)


def test_a_running_statement_is_seen_and_ended(db: Any, io: Any, databases: Any) -> None:
    operations = db.operations

    def running() -> Any:
        found: Any = []
        while not found:
            report = operations.processes(1)
            found = [p for p in report.processes if "SLEEP(55)" in (p.sql or "")]
        assert operations.kill(1, found[0].id, dry_run=True).process is not None
        return found[0], operations.kill(1, found[0].id)

    async def running_async() -> Any:
        found: Any = []
        while not found:
            report = await operations.processes(1)
            found = [p for p in report.processes if "SLEEP(55)" in (p.sql or "")]
        assert (await operations.kill(1, found[0].id, dry_run=True)).process is not None
        return found[0], await operations.kill(1, found[0].id)

    def slow() -> Any:
        with contextlib.suppress(OperationalError):
            return db.shard(1).query_value("SELECT SLEEP(55)")

    async def slow_async() -> Any:
        with contextlib.suppress(OperationalError):
            return await db.shard(1).query_value("SELECT SLEEP(55)")

    calls = [slow, running] if io.name == "sync" else [slow_async, running_async]
    _, (process, killed) = io.concurrently(calls)
    assert (process.database, process.command) == ("1", "Query")
    assert killed.killed
    assert killed.statement == f"KILL QUERY {process.id}"


def test_each_server_is_asked_once_and_idle_sessions_on_request(
    db: Any, io: Any, databases: Any
) -> None:
    io(db.shard(1).query("SELECT 1"))
    databases.set_row(3)
    io(db.refresh())
    idle = io(db.operations.processes(idle=True)).processes
    assert {each.database for each in idle} <= {"global", "1", "2"}
    assert any(each.command == "Sleep" for each in idle)
    assert not any(each.command == "Sleep" for each in io(db.operations.processes()).processes)


def test_a_session_that_is_gone_is_not_killed(db: Any, io: Any) -> None:
    report = io(db.operations.kill("global", 999_999_999, connection=True))
    assert (report.process, report.killed) == (None, False)
    for wrong in (0, -1, "7", True):
        with pytest.raises(ParameterError):
            io(db.operations.kill("global", wrong))
    with pytest.raises(ParameterError, match="one database"):
        io(db.operations.kill("all", 1))
