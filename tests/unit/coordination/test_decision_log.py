"""The statements of the decision log, against scripted responses."""

from typing import Any, List, Tuple

import pytest
from scripted_plans import executor

from dualdb import errors
from dualdb.coordination.decision_log import BATCH, Decision, DecisionLog, Lease, LogRow
from dualdb.execution.steps import Execute
from dualdb.results import ResultSet

GTRID = "0" * 32
CLIENT = executor(name="global", shard_id=None)
LOG = DecisionLog("dualdb_xa", lambda: CLIENT)

READ_LEASE = (
    "SELECT cluster, owner IS NULL OR owner = '' OR lease_until < UTC_TIMESTAMP(6) AS free "
    "FROM `dualdb_xa_lease` WHERE id = 1"
)
NO_TABLE = errors.ProgrammingError(1146, "no such table")
DENIED = errors.ProgrammingError(1142, "CREATE command denied", sqlstate="42000")
UNKNOWN = errors.ProgrammingError(1054, "no such column")


def rows(*found: Any) -> List[ResultSet]:
    return [ResultSet(list(found), (), len(found), 0, 0)]


def changed(count: int) -> List[ResultSet]:
    return [ResultSet([], (), count, 0, 0)]


def follow(plan: Any, script: List[Tuple[str, Any]]) -> Any:
    """Run a plan against a script of (beginning of the statement, response)."""
    try:
        step = next(plan)
        for expected, response in script:
            assert isinstance(step, Execute)
            statement: Any = step.statement
            assert statement.text.startswith(expected)
            step = plan.throw(response) if isinstance(response, Exception) else plan.send(response)
    except StopIteration as done:
        return done.value
    raise AssertionError(f"one step more than the script has: {step}")


@pytest.mark.parametrize("free", [0, 1])
def test_the_lease_is_read(free: int) -> None:
    row = {"cluster": "c" * 16, "free": free}
    assert follow(LOG.lease(), [(READ_LEASE, rows(row))]) == Lease("c" * 16, bool(free))
    assert follow(LOG.lease(), [(READ_LEASE, rows())]) is None
    assert follow(LOG.lease(), [(READ_LEASE, NO_TABLE)]) is None
    with pytest.raises(errors.ProgrammingError, match="no such column"):
        follow(LOG.lease(), [(READ_LEASE, UNKNOWN)])


@pytest.mark.parametrize(("count", "taken"), [(0, False), (1, True)])
def test_the_lease_is_taken_where_it_is_free(count: int, taken: bool) -> None:
    statement = (
        "UPDATE `dualdb_xa_lease` SET owner = 'me', lease_until = UTC_TIMESTAMP(6) + "
        "INTERVAL 1500000 MICROSECOND WHERE id = 1 "
        "AND (owner IS NULL OR owner = 'me' OR lease_until < UTC_TIMESTAMP(6))"
    )
    assert follow(LOG.take_lease("me", 1.5), [(statement, changed(count))]) is taken


def test_a_cluster_that_is_known_is_not_created() -> None:
    assert follow(LOG.cluster(), [(READ_LEASE, rows({"cluster": "c", "free": 1}))]) == "c"


def test_missing_tables_are_created() -> None:
    script = [
        (READ_LEASE, NO_TABLE),
        ("INSERT IGNORE INTO `dualdb_xa_lease` (id, cluster) VALUES (1, '", NO_TABLE),
        ("CREATE TABLE IF NOT EXISTS `dualdb_xa` (", changed(0)),
        ("CREATE TABLE IF NOT EXISTS `dualdb_xa_lease` (", changed(0)),
        ("INSERT IGNORE INTO `dualdb_xa_lease` (id, cluster) VALUES (1, '", changed(1)),
        (READ_LEASE, rows({"cluster": "c", "free": 1})),
    ]
    assert follow(LOG.cluster(), script) == "c"


def test_tables_that_may_not_be_created_are_named() -> None:
    script = [(READ_LEASE, NO_TABLE), ("INSERT", NO_TABLE), ("CREATE TABLE", DENIED)]
    with pytest.raises(errors.ProgrammingError, match="dualdb_xa is missing.*denied") as caught:
        follow(LOG.cluster(), script)
    assert caught.value.errno == 1142
    lost = errors.ConnectionLost(2013, "lost")
    with pytest.raises(errors.ConnectionLost):
        follow(LOG.cluster(), [(READ_LEASE, NO_TABLE), ("INSERT", lost)])


def test_a_row_that_is_deleted_meanwhile_is_an_error() -> None:
    script = [(READ_LEASE, rows()), ("INSERT", changed(1)), (READ_LEASE, rows())]
    with pytest.raises(errors.OperationalError, match="row of dualdb_xa_lease was deleted"):
        follow(LOG.cluster(), script)
    script = [("INSERT IGNORE", changed(0)), ("SELECT decision", rows())]
    with pytest.raises(errors.OperationalError, match="was deleted just now"):
        follow(LOG.settle(GTRID), script)


@pytest.mark.parametrize(
    ("inserted", "row", "decision"),
    [
        (1, None, Decision.ABORT),
        (0, {"decision": "commit"}, Decision.COMMIT),
        (0, {"decision": "abort"}, Decision.ABORT),
    ],
)
def test_a_transaction_without_a_decision_is_aborted(
    inserted: int, row: Any, decision: Decision
) -> None:
    insert = (
        f"INSERT IGNORE INTO `dualdb_xa` (gtrid, decision, parts) VALUES ('{GTRID}', 'abort', '')"
    )
    script = [(insert, changed(inserted))]
    if row is not None:
        script.append((f"SELECT decision FROM `dualdb_xa` WHERE gtrid = '{GTRID}'", rows(row)))
    assert follow(LOG.settle(GTRID), script) is decision


@pytest.mark.parametrize(
    ("committed", "condition"), [(True, "WHERE decision = 'commit' "), (False, "")]
)
def test_the_oldest_rows_are_listed(committed: bool, condition: str) -> None:
    statement = (
        "SELECT gtrid, decision, parts, UNIX_TIMESTAMP() - UNIX_TIMESTAMP(at) AS age "
        f"FROM `dualdb_xa` {condition}ORDER BY at LIMIT {BATCH}"
    )
    row = {"gtrid": GTRID, "decision": "commit", "parts": "1,2", "age": 3}
    plan = LOG.rows(committed=committed)
    assert follow(plan, [(statement, rows(row))]) == [LogRow(GTRID, Decision.COMMIT, (1, 2), 3.0)]
    assert follow(LOG.rows(), [("SELECT", NO_TABLE)]) == []
    with pytest.raises(errors.ProgrammingError):
        follow(LOG.rows(), [("SELECT", DENIED)])


def test_rows_are_deleted_in_batches() -> None:
    names = [f"{number:032x}" for number in range(BATCH + 1)]
    first = f"DELETE FROM `dualdb_xa` WHERE decision = 'commit' AND gtrid IN ('{names[0]}',"
    second = f"DELETE FROM `dualdb_xa` WHERE decision = 'commit' AND gtrid IN ('{names[-1]}')"
    follow(LOG.forget(names), [(first, changed(BATCH)), (second, changed(1))])
