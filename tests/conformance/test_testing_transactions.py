"""A transaction that stands for the databases in a test: everything joins it, and it
vanishes.
"""

from typing import Any

import pytest

from dualdb import CrossShardError, InterfaceError

INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, 'TEST', 1)"
COUNT = "SELECT COUNT(*) FROM trades"


@pytest.fixture
def testing(db: Any, io: Any) -> Any:
    with io.entered(db.testing_transaction()) as block:
        yield block


def counts(databases: Any) -> Any:
    return [databases.value(shard_id, COUNT) for shard_id in (1, 2)]


def test_what_is_written_vanishes(db: Any, io: Any, databases: Any) -> None:
    with io.entered(db.testing_transaction()):
        io(db.shard(1).execute(INSERT, (1,)))
        io(db.call("sign_up", ("ann@x", 2)))
        io(db.shard(2).executemany(INSERT, [(1,), (2,)]))
        assert io(db.shards().query_value(COUNT)).values == [1, 2]
        assert io.collect(db.shard(2).stream("SELECT user_id FROM trades")) == [
            {"user_id": 1},
            {"user_id": 2},
        ]
        merged = db.shards().merge("SELECT user_id FROM trades", order_by="user_id")
        assert len(io.collect(merged)) == 3
        assert counts(databases) == [0, 0]
    assert counts(databases) == [0, 0]
    assert databases.value("global", "SELECT COUNT(*) FROM accounts") == 0
    assert io(db.shards().query_value(COUNT)).values == [0, 0]
    assert all(each.in_use == 0 for each in db.stats().values())


def test_every_caller_joins(db: Any, io: Any, testing: Any, databases: Any) -> None:
    shard = db.shard(1)
    found = io.concurrently([lambda: shard.execute(INSERT, (1,)) for _ in range(8)])
    assert found == [1] * 8
    assert io(shard.query_value(COUNT)) == 8
    assert counts(databases) == [0, 0]


def test_a_transaction_inside_is_rolled_back_alone(db: Any, io: Any, testing: Any) -> None:
    io(db.shard(1).execute(INSERT, (1,)))
    done = []

    def fails() -> Any:
        with io.entered(db.shard(1).transaction(isolation="READ COMMITTED")) as tx:
            io(tx.execute(INSERT, (2,)))
            tx.on_commit(lambda: done.append("never"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    with io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (3,)))
        with io.entered(tx.transaction()):
            tx.on_commit(lambda: done.append("inner"))
        tx.on_commit(lambda: done.append("outer"))
        assert done == []
    assert done == ["inner", "outer"]
    rows = io(db.shard(1).query_column("SELECT user_id FROM trades ORDER BY id"))
    assert rows == [1, 3]


def test_statements_that_commit_are_refused(db: Any, io: Any, testing: Any) -> None:
    with pytest.raises(InterfaceError, match="this statement commits"):
        io(db.shard(1).execute("CREATE TABLE nothing (id INT)"))
    with pytest.raises(InterfaceError):
        io(db.shard(1).execute("COMMIT"))
    assert io(db.shard(1).query_value(COUNT)) == 0


def test_it_is_one_at_a_time(db: Any, io: Any, testing: Any) -> None:
    with pytest.raises(InterfaceError, match="is open on this service"):
        io(io.enter(db.testing_transaction()))


def test_transactions_on_two_shards_still_exclude_each_other(
    db: Any, io: Any, testing: Any
) -> None:
    with io.entered(db.shard(1).transaction()), pytest.raises(CrossShardError):
        io(db.shard(2).query("SELECT 1"))
    assert io(db.shard(2).query_value("SELECT 1")) == 1
