"""The doctor on servers, with as many misconfigurations as can be made there."""

from typing import Any, Dict, Iterator, List, Set

import pytest
from database_servers import Databases

from dualdb import ParameterError
from dualdb.operations import Severity

#: They make and compare many tables.
pytestmark = pytest.mark.slow


def findings(io: Any, db: Any, **arguments: Any) -> Dict[str, Set[str]]:
    found: Dict[str, Set[str]] = {}
    for each in io(db.operations.doctor(**arguments)).findings:
        found.setdefault(each.check, set()).update(each.database.split(", "))
    return found


SETTINGS = {
    "sql_mode-strict": ("sql_mode", "''"),
    "sql_mode-parity": ("sql_mode", "''"),
    "time_zone-parity": ("time_zone", "'+03:00'"),
    "wait_timeout": ("wait_timeout", "60"),
    "connection-budget": ("max_connections", "20"),
    "autocommit": ("autocommit", "0"),
    "init_connect": ("init_connect", "'SET @a = 1'"),
    "completion_type": ("completion_type", "'CHAIN'"),
    "max_allowed_packet": ("max_allowed_packet", "1048576"),
    "durability": ("innodb_flush_log_at_trx_commit", "0"),
    "read_only": ("read_only", "1"),
    "local_infile": ("local_infile", "1"),
}


#: Of those that the tests' own servers have otherwise.
SOUND = {"durability": "1", "local_infile": "0"}


@pytest.fixture
def setting(databases: Any) -> Iterator[Any]:
    """A function that sets a global variable of shard 2's server; all are set back."""
    before: List[str] = []

    def set_global(name: str, value: str) -> None:
        was = databases.value(2, f"SELECT @@GLOBAL.{name}")
        text = str(was) if isinstance(was, int) else f"'{was}'"
        before.append(f"SET GLOBAL {name} = {text}")
        databases.run(2, f"SET GLOBAL {name} = {value}")

    yield set_global
    for statement in reversed(before):
        databases.run(2, statement)


@pytest.mark.parametrize("check", list(SETTINGS))
def test_a_setting_is_found(
    db: Any, io: Any, databases: Databases, setting: Any, check: str
) -> None:
    if check in SOUND:
        setting(SETTINGS[check][0], SOUND[check])
    assert "2" not in findings(io, db).get(check, set())
    setting(*SETTINGS[check])
    found = findings(io, db).get(check, set())
    if check.endswith("-parity") and databases.share_one_server:
        assert not found, "what one server has does not differ"
    else:
        assert found & {"2", "all"}


def test_what_is_left_behind_and_odd_tables_are_found(db: Any, io: Any, databases: Any) -> None:
    databases.drop_leftovers()
    databases.run(
        2,
        "CREATE TABLE keyless (a INT) ENGINE=MyISAM",
        "CREATE TABLE dualdb_commit (token CHAR(32) PRIMARY KEY, at TIMESTAMP NOT NULL)",
        "INSERT INTO dualdb_commit VALUES ('x', NOW() - INTERVAL 9 DAY)",
    )
    databases.run("global", "DROP TABLE IF EXISTS dualdb_job")
    try:
        found = findings(io, db)
        assert found["primary-keys"] == {"2"}
        assert found["engines"] == {"2"}
        assert found["commit-markers"] == {"2"}
    finally:
        databases.run(2, "DROP TABLE keyless, dualdb_commit")


def test_a_prepared_transaction_is_found(db: Any, io: Any, databases: Databases) -> None:
    if not databases.profile.xa:
        assert "prepared-xa" not in findings(io, db), "it has none"
        return
    databases.run(
        2,
        "XA START 'left'",
        "INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1)",
        "XA END 'left'",
        "XA PREPARE 'left'",
    )
    try:
        found = findings(io, db)
        if io(db.operations.doctor()).facts["2"]["prepared"] is None:
            assert "prepared-xa" not in found, "the account may not see them"
        else:
            assert "2" in found["prepared-xa"]
    finally:
        databases.run(2, "XA ROLLBACK 'left'")


def test_two_shards_on_one_database_and_one_that_is_away_are_found(
    db: Any, io: Any, databases: Any
) -> None:
    databases.set_row(3)
    databases.set_row(4, password="wrong")
    io(db.refresh())
    report = io(db.operations.doctor())
    errors = {(e.check, e.database) for e in report.findings if e.severity is Severity.ERROR}
    assert {("same-database", "3"), ("reachable", "4")} <= errors
    assert not report.ok


def test_misplaced_rows_are_found_where_they_are_looked_for(
    open_service: Any, io: Any, databases: Any
) -> None:
    databases.run(2, "INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1)")
    db = open_service(shard_of_key=lambda key: 1)
    assert findings(io, db, audit=[("trades", "user_id")])["misplaced-rows"] == {"2"}
    assert "misplaced-rows" not in findings(io, db)


def test_the_budget_is_that_of_all_processes(db: Any, io: Any) -> None:
    assert "connection-budget" in findings(io, db, processes=1000)


def test_a_check_can_be_left_out(db: Any, io: Any, setting: Any) -> None:
    setting("init_connect", "'SET @a = 1'")
    assert "init_connect" not in findings(io, db, skip=["init_connect"])
    with pytest.raises(ParameterError, match="no check 'x'"):
        io(db.operations.doctor(skip=["x"]))
