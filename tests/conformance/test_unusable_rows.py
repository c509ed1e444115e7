"""A shard whose row cannot be used is left out by no operation on all shards."""

from typing import Any, Callable, Dict

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import ShardUnavailable

FILES = {"001_one.sql": "SELECT 1"}
REASON = "'DUALDB_NOT_SET'"


def errors_of(results: Any) -> Dict[str, str]:
    return {each.database: each.error for each in results if each.error is not None}


#: What each operation says of the databases on which it could not work.
OPERATIONS: Dict[str, Callable[[IO, Any], Dict[str, str]]] = {
    "sql": lambda io, db: errors_of(io(db.operations.sql("SELECT 1")).databases),
    "status": lambda io, db: errors_of(io(db.operations.migrate.status(FILES)).databases),
    "up": lambda io, db: errors_of(io(db.operations.migrate.up(FILES, dry_run=True)).databases),
    "create_tables": lambda io, db: io(db.operations.create_tables(dry_run=True)).errors,
    "schema_diff": lambda io, db: io(db.operations.schema_diff()).errors,
    "processes": lambda io, db: io(db.operations.processes()).errors,
    "audit": lambda io, db: io(db.operations.audit("trades", "user_id")).errors,
    "outbox.status": lambda io, db: io(db.outbox.status()).errors,
    "doctor": lambda io, db: {
        each.database: each.message
        for each in io(db.operations.doctor()).findings
        if each.check == "unusable-row"
    },
    "xa.list": lambda io, db: {
        str(shard_id): error for shard_id, error in io(db.coordination.list()).errors.items()
    },
}


@pytest.fixture
def broken(databases: Databases, io: IO, open_service: Callable[..., Any]) -> Any:
    """A service in which shard 3 has a row that cannot be used."""
    databases.set_row(3, password="env:DUALDB_NOT_SET")
    made = open_service(shard_of_key=lambda key: 1)
    io(made.outbox.create_tables())
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_it_is_reported_with_its_reason(broken: Any, io: IO, name: str) -> None:
    found = OPERATIONS[name](io, broken)
    assert REASON in found.pop("3")
    # the accounts on a MySQL may not see prepared transactions
    assert not found or name == "xa.list"


def test_it_is_refused_where_one_database_is_named(broken: Any, io: IO) -> None:
    with pytest.raises(ShardUnavailable, match=REASON):
        io(broken.operations.check_rows("trades", between=(1, 3)))


def test_an_inactive_one_is_left_out(broken: Any, io: IO, databases: Databases) -> None:
    databases.set_row(3, status="inactive")
    io(broken.refresh())
    assert io(broken.operations.sql("SELECT 1")).done == ["1", "2"]
    assert io(broken.operations.sql("SELECT 1")).ok
    assert 3 not in io(broken.coordination.list()).errors
    assert io(broken.outbox.status()).errors == {}
    (named,) = io(broken.operations.sql("SELECT 1", shards=3)).databases
    assert "Shard 3 not available: it is inactive" in named.error
