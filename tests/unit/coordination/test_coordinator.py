"""Which servers can take part, when something left is finished, and what may be
deleted.
"""

from typing import Any, Dict, List

import pytest

from dualdb import errors
from dualdb.coordination import decision_log, recovery
from dualdb.coordination.coordinator import Sightings, why_no_xa
from dualdb.coordination.decision_log import Decision, LogRow
from dualdb.coordination.xid import Prepared, Xid
from dualdb.protocol.transaction_commands import TransactionOptions

CLUSTER = "0123456789abcdef"


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"version": "10.11.6-MariaDB", "wsrep_on": "OFF"}, None),
        ({"version": "10.11.6-MariaDB"}, None),
        ({"version": "10.11.6-MariaDB", "wsrep_on": "ON"}, "Galera"),
        ({"version": "8.4.0", "xa_detach_on_prepare": "ON"}, None),
        ({"version": "8.4.0", "xa_detach_on_prepare": "OFF"}, "xa_detach_on_prepare=OFF"),
        ({"version": "8.0.28"}, "8.0.29 or later, not 8.0.28"),
        ({"version": "8.0.11-TiDB-v7.5.0"}, "not 8.0.11-TiDB"),
        ({}, "MariaDB, or MySQL"),
    ],
)
def test_which_servers_can_take_part(facts: Dict[str, str], why: Any) -> None:
    found = why_no_xa(facts)
    assert found is None if why is None else why in str(found)


class Clocks:
    """Two clocks that go together."""

    def __init__(self) -> None:
        self.now = 0.0

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now

    def gtrid(self) -> str:
        return f"{int(self.wall()):08x}" + "0" * 24


def test_what_was_left_is_finished_after_the_grace() -> None:
    clocks = Clocks()
    sightings = Sightings(10.0, lambda: clocks.now, clocks.wall)
    left = clocks.gtrid()
    clocks.now = 8.0
    assert sightings.due([left]) == set()
    clocks.now = 9.5
    assert sightings.due([left]) == set()
    clocks.now = 10.0  # begun 10 seconds ago, and seen for two
    assert sightings.due([left]) == {left}


def test_a_long_transaction_that_is_just_being_committed_is_left_alone() -> None:
    clocks = Clocks()
    sightings = Sightings(10.0, lambda: clocks.now, clocks.wall)
    long = clocks.gtrid()
    clocks.now = 1000.0
    assert sightings.due([long]) == set()
    clocks.now = 1000.5
    assert sightings.due([]) == set()  # committed
    clocks.now = 1002.0
    assert sightings.due([long]) == set()  # seen anew
    clocks.now = 1003.0
    assert sightings.due([long]) == {long}


def test_a_process_whose_clock_is_ahead_is_finished_all_the_same() -> None:
    clocks = Clocks()
    sightings = Sightings(10.0, lambda: clocks.now, lambda: clocks.wall() - 86400)
    left = clocks.gtrid()
    assert sightings.due([left]) == set()
    clocks.now = 9.0
    assert sightings.due([left]) == set()
    clocks.now = 10.0
    assert sightings.due([left]) == {left}


def committed(gtrid: str, *shard_ids: int, age: float = 1000.0) -> LogRow:
    return LogRow(gtrid, Decision.COMMIT, shard_ids, age)


def test_a_row_is_deleted_when_nothing_of_it_is_left() -> None:
    rows = [
        committed("old", 1, 2),
        committed("new", 1, 2, age=decision_log.KEEP_COMMITTED - 1),
        committed("prepared", 1, 2),
        committed("not asked", 1, 3),
        committed("forced"),
        LogRow("aborted", Decision.ABORT, (), 1000.0),
    ]
    found = recovery.Found({1: Prepared([Xid("prepared", CLUSTER, 1)], 0), 2: Prepared([], 5)})
    assert recovery.deletable(rows, found) == ["old", "forced"]
    found.failed[3] = errors.ConnectionFailed("down")
    assert recovery.deletable(rows, found) == ["old"]


@pytest.mark.parametrize(
    ("error", "undecided"),
    [
        (errors.ConnectionLost(2013, "lost").with_context("global", sent=True), True),
        (errors.ConnectionLost(2006, "gone").with_context("global", sent=False), False),
        (errors.DeadlineExceeded(2013, "late").with_context("global", sent=True), True),
        (errors.DeadlineExceeded("late").with_context("global", sent=False), False),
        (errors.OutcomeUnknown(1180, "error during commit").with_context("global"), True),
        (errors.IntegrityError(1062, "duplicate").with_context("global", sent=True), True),
        (errors.ReadOnlyServer(1290, "read-only").with_context("global", sent=True), False),
        (errors.Deadlock(1213, "conflict").with_context("global", sent=True), False),
        (errors.PoolTimeout("full").with_context("global", sent=False), False),
    ],
)
def test_when_the_decision_is_not_known(error: errors.Error, undecided: bool) -> None:
    assert decision_log.is_undecided(error) is undecided


def test_only_names_are_written_into_statements() -> None:
    log = decision_log.DecisionLog("app.dualdb_xa", lambda: None)
    name = "0" * 32
    text = log.commit_row(name, [1, 2]).text
    assert text == (
        f"INSERT INTO `app`.`dualdb_xa` (gtrid, decision, parts) VALUES ('{name}', 'commit', '1,2')"
    )
    with pytest.raises(errors.ParameterError, match="32 hex digits"):
        log.commit_row("' OR 1 -- ", [1])
    plans: List[Any] = [log.settle("x"), log.decision("x"), log.forget(["x"])]
    for plan in plans:
        with pytest.raises(errors.ParameterError):
            next(plan)


def test_the_isolation_level_of_a_branch_is_set_before_it_begins() -> None:
    options = TransactionOptions(isolation="read committed", xid="'g','b',1", distributed=True)
    assert options.commands == [b"SET TRANSACTION ISOLATION LEVEL READ COMMITTED"]
