"""A shard that cannot be used is left out by no operation on all shards: its row is
wrong, or its server does not answer. The others have their turn.
"""

from typing import Any, Callable, Dict, Iterator

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import ShardUnavailable
from dualdb.coordination.outbox import needed_tables
from dualdb.operations import TenantTable

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
    "spider_ddl": lambda io, db: io(db.operations.spider_ddl(["rates"])).errors,
    "reference_sync": lambda io, db: errors_of(
        io(db.operations.reference_sync(["rates"], dry_run=True)).results
    ),
    "prepare_moves": lambda io, db: (
        io(db.operations.prepare_moves([TenantTable("trades", "user_id")], dry_run=True)).errors
    ),
    "outbox.status": lambda io, db: io(db.outbox.status()).errors,
    "outbox.dead": lambda io, db: io(db.outbox.dead()).errors,
    "outbox.requeue": lambda io, db: io(db.outbox.requeue()).errors,
    "outbox.sweep": lambda io, db: io(db.outbox.sweep()).errors,
    "outbox.sweep dry_run": lambda io, db: io(db.outbox.sweep(dry_run=True)).errors,
    "outbox.consume": lambda io, db: io(db.outbox.consume(print, until_idle=True)).errors,
    "doctor": lambda io, db: {
        each.database: each.message
        for each in io(db.operations.doctor()).findings
        if each.check in ("unusable-row", "reachable")
    },
    "xa.list": lambda io, db: {
        str(shard_id): error for shard_id, error in io(db.coordination.list()).errors.items()
    },
}


@pytest.fixture
def rates(databases: Databases) -> Iterator[None]:
    """A reference table."""
    names = ("global", *databases.ids)
    for name in names:
        databases.run(name, "CREATE TABLE IF NOT EXISTS rates (id INT PRIMARY KEY)")
    yield
    for name in names:
        databases.run(name, "DROP TABLE IF EXISTS rates")


@pytest.fixture
def broken(databases: Databases, open_service: Callable[..., Any], rates: None) -> Any:
    """A service in which shard 3 has a row that cannot be used."""
    databases.set_row(3, password="env:DUALDB_NOT_SET")
    return with_outbox(databases, open_service)


@pytest.fixture
def away(databases: Databases, open_service: Callable[..., Any], rates: None) -> Any:
    """A service in which the server of shard 3 does not answer."""
    databases.set_row(3, port=1)
    return with_outbox(databases, open_service)


def with_outbox(databases: Databases, open_service: Callable[..., Any]) -> Any:
    made = open_service(shard_of_key=lambda key: 1)
    for name in ("global", *databases.ids):
        if name != 3:
            databases.run(name, *[ddl for _, ddl in needed_tables(made.outbox.table).values()])
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_it_is_reported_with_its_reason(broken: Any, io: IO, name: str) -> None:
    found = OPERATIONS[name](io, broken)
    assert REASON in found.pop("3")
    # the accounts on a MySQL may not see prepared transactions
    assert not found or name == "xa.list"


@pytest.mark.slow
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_a_server_that_does_not_answer_is_reported(away: Any, io: IO, name: str) -> None:
    found = OPERATIONS[name](io, away)
    assert "connect" in found.pop("3").lower()
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
