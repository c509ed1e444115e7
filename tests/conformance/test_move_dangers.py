"""Tenants whose move is disturbed by another mover, and tables that are unusual."""

from typing import Any, Iterator, List

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import LookupTable
from dualdb.directory.lookup import KeyDirectory
from dualdb.operations import TenantTable, jobs
from dualdb.operations import move as moves
from dualdb.operations import move_tables as names

pytestmark = pytest.mark.slow

KEY = 3
CREATE = "CREATE TABLE purse (owner BIGINT, no BIGINT, PRIMARY KEY (owner, no))"
TABLES = [TenantTable("purse", "owner")]


def clean(databases: Databases) -> None:
    for shard in databases.ids:
        databases.run(shard, f"DROP TABLE IF EXISTS purse, {', '.join(names.TABLES)}")
    databases.run(
        "global", f"DROP TABLE IF EXISTS table_user_shard_mapping, {names.EPOCHS}, {jobs.TABLE}"
    )


@pytest.fixture
def shop(open_service: Any, databases: Databases, io: IO) -> Iterator[Any]:
    """A service with one key, on shard 1."""
    clean(databases)
    db = open_service(directory=LookupTable(ttl=3600))
    io(db.directory.create_tables())
    io(db.directory.set(KEY, 1))
    yield db
    clean(databases)


def make(databases: Databases, create: str, *rows: str) -> None:
    for shard in databases.ids:
        databases.run(shard, create)
    databases.run(1, *[f"INSERT INTO purse VALUES {row}" for row in rows])


@pytest.mark.parametrize("then", ["undo", "resume"])
def test_a_mover_that_was_stopped_before_the_switch_does_not_switch(
    shop: Any, open_service: Any, databases: Databases, io: IO, monkeypatch: Any, then: str
) -> None:
    make(databases, CREATE, "(3, 1), (3, 2)")
    io(shop.operations.prepare_moves(TABLES))
    original = KeyDirectory.switch
    stopped: List[int] = []

    def stopping(self: Any, *args: Any) -> Any:
        if not stopped:
            stopped.append(1)
            # meanwhile the lease has ended, and another process has taken the move
            databases.run("global", "UPDATE dualdb_job SET lease_until = '2000-01-01'")
            options = moves.Options(tuple(TABLES), settle=0.0)
            other = shop.operations._databases
            yield from moves.run(other, KEY, None, options, undo=then == "undo")
        return (yield from original(self, *args))

    monkeypatch.setattr(KeyDirectory, "switch", stopping)
    with pytest.raises(moves.MoveTakenOver):
        io(shop.operations.move(KEY, 2, TABLES, settle=0))
    shard = 1 if then == "undo" else 2
    assert databases.value("global", "SELECT shard_id FROM table_user_shard_mapping") == shard
    for each in databases.ids:
        count = databases.value(each, "SELECT COUNT(*) FROM purse")
        assert count == (2 if each == shard else 0)
    databases.run(shard, "INSERT INTO purse VALUES (3, 3)")
