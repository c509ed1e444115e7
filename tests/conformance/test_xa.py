"""Transactions on several databases: all or nothing, and one after the other."""

import pickle
from typing import Any, Callable, Iterator, List

import pytest
from database_servers import Databases
from io_kinds import IO

import dualdb
from dualdb.api.interfaces import block_of
from dualdb.coordination import XaList, XaRecovery, coordinator
from dualdb.coordination.xid import FORMAT_ID

# Their events are those of the background.
pytestmark = pytest.mark.usefixtures("frequent_maintenance")

NAMES: List[Any] = ["global", 1, 2]
ADD = "UPDATE amounts SET value = value + %s WHERE id = 1"
MADE = "CREATE TABLE amounts (id INT PRIMARY KEY, value INT NOT NULL) ENGINE=InnoDB"


@pytest.fixture
def amounts(databases: Databases) -> Iterator[Callable[[], List[int]]]:
    """The value on the global database and on both shards, past dualdb."""
    for name in NAMES:
        databases.run(name, MADE, "INSERT INTO amounts VALUES (1, 0), (2, 0)")
        if name != "global":
            databases.run(
                name,
                "CREATE PROCEDURE add_and_commit() BEGIN "
                "UPDATE amounts SET value = value + 100 WHERE id = 1; COMMIT; END",
                "CREATE PROCEDURE add_one() UPDATE amounts SET value = value + 1 WHERE id = 1",
            )
    yield lambda: [
        databases.value(name, "SELECT value FROM amounts WHERE id = 1") for name in NAMES
    ]
    for name in NAMES:
        roll_back_prepared(databases, name)
        databases.run(name, "DROP TABLE amounts")
        if name != "global":
            databases.run(name, "DROP PROCEDURE add_and_commit", "DROP PROCEDURE add_one")
    databases.run("global", "DROP TABLE IF EXISTS dualdb_xa, dualdb_xa_lease")


def on_mariadb(databases: Databases, name: Any) -> bool:
    return "MariaDB" in databases.value(name, "SELECT VERSION()")


def prepared(databases: Databases, name: Any) -> List[Any]:
    """The branches of this package that a server has prepared, as XA statements have
    them.
    """
    is_mariadb = on_mariadb(databases, name)
    rows = databases.run(name, "XA RECOVER" if is_mariadb else "XA RECOVER CONVERT XID")
    found = []
    for row in rows:
        data = row["data"] if is_mariadb else bytes.fromhex(row["data"][2:])
        length = row["gtrid_length"]
        if row["formatID"] == FORMAT_ID:
            found.append(f"'{data[:length].decode()}','{data[length:].decode()}',{FORMAT_ID}")
    return found


def roll_back_prepared(databases: Databases, name: Any) -> None:
    for xid in prepared(databases, name):
        databases.run(name, f"XA ROLLBACK {xid}")


def decisions(databases: Databases) -> List[Any]:
    return databases.run("global", "SELECT gtrid, decision, parts FROM dualdb_xa")


def both(tx: Any, amount: int) -> Any:
    """For ``io.function``: write on both shards."""
    yield tx[1].execute(ADD, (amount,))
    yield tx[2].execute(ADD, (-amount,))


def leave_by_rollback() -> None:
    raise dualdb.Rollback


def test_it_commits_on_all(databases: Databases, amounts: Any, db: Any, io: IO) -> None:
    with io.entered(db.shards([1, 2]).transaction(mode="xa")) as tx:
        assert (tx.is_open, tx.shard_ids, len(tx.gtrid)) == (True, (1, 2), 32)
        io(tx[1].execute(ADD, (5,)))
        io(tx[2].execute(ADD, (-5,)))
        assert amounts() == [0, 0, 0]
    assert amounts() == [0, 5, -5]
    assert not tx.is_open
    assert [prepared(databases, name) for name in NAMES] == [[], [], []]
    # the row is deleted soon after, in the background
    io.wait_for(lambda: decisions(databases) == [])


@pytest.mark.parametrize("others", [(), (2,)])
def test_what_a_function_in_a_view_has_written_is_committed(
    databases: Databases, amounts: Any, db: Any, io: IO, others: Any
) -> None:
    databases.run(
        1,
        "CREATE FUNCTION count_read() RETURNS INT MODIFIES SQL DATA BEGIN "
        "UPDATE amounts SET value = value + 7 WHERE id = 1; RETURN 1; END",
        "CREATE VIEW counted AS SELECT count_read() AS n",
    )
    try:
        with io.entered(db.shards([1, 2]).transaction(global_=bool(others))) as tx:
            assert io(tx[1].query_value("SELECT n FROM counted")) == 1
            for shard in others:
                io(tx[shard].execute(ADD, (5,)))
                io(tx.global_.execute(ADD, (5,)))
        assert amounts() == ([5, 7, 5] if others else [0, 7, 0])
        assert [prepared(databases, name) for name in NAMES] == [[], [], []]
    finally:
        databases.run(1, "DROP VIEW counted", "DROP FUNCTION count_read")


def test_xa_is_the_default_and_the_log_is_made(
    databases: Databases, amounts: Any, db: Any, io: IO
) -> None:
    with io.entered(db.shards([1, 2]).transaction()) as tx:
        io(io.function(both)(tx, 3))
    assert amounts() == [0, 3, -3]
    (row,) = databases.run("global", "SELECT id, owner, LENGTH(cluster) AS n FROM dualdb_xa_lease")
    assert (row["id"], row["n"]) == (1, 16)


def test_the_global_database_takes_part(
    databases: Databases, amounts: Any, db: Any, io: IO
) -> None:
    with io.entered(db.shards([1, 2]).transaction(global_=True)) as tx:
        io(tx[1].execute(ADD, (1,)))
        io(tx[2].execute(ADD, (1,)))
        io(tx.global_.execute(ADD, (1,)))
        io(db.execute(ADD, (1,)))  # the same database, the same caller
    assert amounts() == [2, 1, 1]
    with io.entered(db.shards([1]).transaction(global_=True)) as tx:
        io(tx.global_.execute(ADD, (1,)))
    assert amounts() == [3, 1, 1]


def test_nothing_is_left_of_a_block_that_fails(
    databases: Databases, amounts: Any, db: Any, io: IO
) -> None:
    with pytest.raises(ZeroDivisionError):
        with io.entered(db.shards([1, 2]).transaction(global_=True)) as tx:
            io(tx[1].execute(ADD, (1,)))
            io(tx[2].execute(ADD, (1,)))
            io(tx.global_.execute(ADD, (1,)))
            raise ZeroDivisionError
    with io.entered(db.shards([1, 2]).transaction()) as tx:
        io(tx[1].execute(ADD, (1,)))
        leave_by_rollback()
    with io.entered(db.shards([1, 2]).transaction()) as tx:
        io(tx[1].execute(ADD, (1,)))
        io(tx.rollback())
        assert not tx.is_open
    assert amounts() == [0, 0, 0]
    assert [prepared(databases, name) for name in NAMES] == [[], [], []]
    assert decisions(databases) == []
    # the connections are as they were
    assert [io(db.shard(n).query_value("SELECT value FROM amounts")) for n in (1, 2)] == [0, 0]


def test_one_part_with_something_to_commit_needs_no_decision(
    databases: Databases, amounts: Any, db: Any, io: IO
) -> None:
    with io.entered(db.shards([1, 2]).transaction()) as tx:
        io(tx[1].execute(ADD, (1,)))
        assert io(tx[2].query_value("SELECT value FROM amounts WHERE id = 1")) == 0
        assert decisions(databases) == []
    with io.entered(db.shards([1, 2]).transaction(global_=True)) as tx:
        io(tx.global_.execute(ADD, (1,)))
    with io.entered(db.shards([1, 2]).transaction()) as tx:
        pass
    assert amounts() == [1, 1, 0]
    assert decisions(databases) == []


@pytest.mark.parametrize(
    "locks",
    [
        "SELECT value FROM amounts WHERE id = 1 FOR UPDATE",
        "SELECT value FROM amounts WHERE id = 1 LOCK IN SHARE MODE",
    ],
)
def test_a_part_that_has_only_locked_takes_part(
    databases: Databases, amounts: Any, db: Any, io: IO, locks: str
) -> None:
    with io.entered(db.shards([1, 2]).transaction()) as tx:
        io(tx[1].query(locks))
        io(tx[2].execute(ADD, (1,)))
    assert amounts() == [0, 0, 1]
    assert [prepared(databases, name) for name in NAMES] == [[], [], []]


def test_calls_of_the_same_caller_take_part(
    databases: Databases, amounts: Any, db: Any, io: IO
) -> None:
    with pytest.raises(ZeroDivisionError):
        with io.entered(db.shards([1, 2]).transaction()):
            io(db.shard(1).execute(ADD, (1,)))
            io(db.shard(2).execute(ADD, (1,)))
            raise ZeroDivisionError
    assert amounts() == [0, 0, 0]
    with io.entered(db.shards([1]).transaction()):
        with pytest.raises(dualdb.CrossShardError):
            io(db.shard(2).execute(ADD, (1,)))
        with pytest.raises(dualdb.CrossShardError):
            io(db.shards([1, 2]).query("SELECT 1"))
        with pytest.raises(dualdb.CrossShardError):
            with io.entered(db.shards([1, 2]).transaction()):
                pass
    assert amounts() == [0, 0, 0]


def test_not_inside_another_on_the_same_database(amounts: Any, db: Any, io: IO) -> None:
    with io.entered(db.transaction()):
        with pytest.raises(dualdb.InterfaceError, match="cannot take part"):
            with io.entered(db.shards([1]).transaction(global_=True)):
                pass
        with io.entered(db.shards([1]).transaction()) as tx:
            io(tx[1].execute(ADD, (1,)))
    assert amounts() == [0, 1, 0]


def test_a_savepoint_is_rolled_back_alone(amounts: Any, db: Any, io: IO) -> None:
    with io.entered(db.shards([1, 2]).transaction(global_=True)) as tx:
        for part in (tx[1], tx[2], tx.global_):
            io(part.execute(ADD, (1,)))
            with io.entered(part.transaction()) as inner:
                io(inner.execute(ADD, (10,)))
                leave_by_rollback()
        with io.entered(tx[1].transaction()) as inner:
            io(inner.execute(ADD, (10,)))
            io(inner.rollback())
        with io.entered(tx[1].transaction()) as inner:
            io(inner.execute(ADD, (100,)))
    assert amounts() == [1, 101, 1]


def test_a_part_does_not_end_alone(databases: Databases, amounts: Any, db: Any, io: IO) -> None:
    with io.entered(db.shards([1, 2]).transaction(global_=True)) as tx:
        io(io.function(both)(tx, 1))
        for part in (tx[1], tx.global_):
            for statement in ("COMMIT", "ROLLBACK", "XA END 'a'", "BEGIN"):
                with pytest.raises(dualdb.InterfaceError):
                    io(part.execute(statement))
            with pytest.raises(dualdb.InterfaceError, match="DDL"):
                io(part.execute("CREATE TABLE other (a INT)"))
            with pytest.raises(dualdb.InterfaceError, match="the whole"):
                part.rollback()
        with pytest.raises(dualdb.ParameterError, match="shard 3"):
            tx[3]
    assert amounts() == [0, 1, -1]


def test_procedures_take_part_and_may_not_commit(amounts: Any, db: Any, io: IO) -> None:
    with io.entered(db.shards([1, 2]).transaction()) as tx:
        io(tx[1].call("add_one"))
        io(tx[2].call("add_one"))
    assert amounts() == [0, 1, 1]
    with pytest.raises(dualdb.TransactionAborted):
        with io.entered(db.shards([1, 2]).transaction()) as tx:
            io(tx[2].call("add_one"))
            with pytest.raises(dualdb.OperationalError) as refused:
                io(tx[1].call("add_and_commit"))
            assert refused.value.errno == 1399
    assert amounts() == [0, 1, 1]


def test_an_error_of_one_statement_does_not_end_it(amounts: Any, db: Any, io: IO) -> None:
    with io.entered(db.shards([1, 2]).transaction()) as tx:
        io(io.function(both)(tx, 1))
        with pytest.raises(dualdb.IntegrityError):
            io(tx[1].execute("INSERT INTO amounts VALUES (1, 1)"))
        with pytest.raises(dualdb.ProgrammingError):
            io(tx[2].execute("SELECT nothing FROM nowhere"))
    assert amounts() == [0, 1, -1]


@pytest.mark.slow
def test_a_lock_that_was_not_available_ends_the_whole(
    databases: Databases, amounts: Any, db: Any, io: IO
) -> None:
    """Also if the application caught it: the server would keep the other half."""
    holder = io.Client(databases.config_of(1))
    with io.entered(holder.transaction()) as held:
        io(held.execute(ADD, (0,)))
        with pytest.raises(dualdb.TransactionAborted) as aborted:
            with io.entered(db.shards([1, 2]).transaction()) as tx:
                io(tx[2].execute(ADD, (1,)))
                io(tx[1].execute("SET innodb_lock_wait_timeout = 1"))
                io(tx[1].execute("UPDATE amounts SET value = 7 WHERE id = 2"))
                with pytest.raises(dualdb.LockWaitTimeout):
                    io(tx[1].execute(ADD, (1,)))
                with pytest.raises(dualdb.TransactionAborted):
                    io(tx[1].execute("SELECT 1"))
        assert aborted.value.retryable
    io(holder.close_pool())
    assert amounts() == [0, 0, 0]
    assert databases.value(1, "SELECT value FROM amounts WHERE id = 2") == 0


def test_a_deadlock_ends_the_whole(databases: Databases, amounts: Any, db: Any, io: IO) -> None:
    """In an XA branch the server takes nothing but a rollback after it."""
    for n in range(10, 40):
        databases.run(1, f"INSERT INTO amounts VALUES ({n}, 0)")
    other = io.Client(databases.config_of(1))
    two = "UPDATE amounts SET value = value + 1 WHERE id = 2"

    def conflict() -> Any:
        with_locks = io.entered(other.transaction())
        with with_locks as held:
            # more rows, so that this one survives
            io(held.execute("UPDATE amounts SET value = 1 WHERE id >= 10"))
            io(held.execute(two))
            with pytest.raises(dualdb.TransactionAborted):
                with io.entered(db.shards([1, 2]).transaction()) as tx:
                    io(tx[2].execute(ADD, (1,)))
                    io(tx[1].execute(ADD, (1,)))
                    found = io.concurrently(
                        [lambda: held.execute(ADD, (100,)), lambda: tx[1].execute(two)]
                    )
                    assert [type(each) for each in found] == [dualdb.RowCount, dualdb.Deadlock]

    conflict()
    io(other.close_pool())
    assert amounts() == [0, 100, 0]
    assert io(db.shard(1).query_value("SELECT 1")) == 1


def test_hooks_are_called_after_all_have_committed(amounts: Any, db: Any, io: IO) -> None:
    called: List[Any] = []
    with io.entered(db.shards([1, 2]).transaction()) as tx:
        io(io.function(both)(tx, 1))
        tx.on_commit(lambda: called.append(("whole", amounts())))
        tx[2].on_commit(lambda: called.append(("part", amounts())))
        with io.entered(tx[1].transaction()) as inner:
            inner.on_commit(lambda: called.append("rolled back"))
            leave_by_rollback()
    assert called == [("part", [0, 1, -1]), ("whole", [0, 1, -1])]
    with pytest.raises(ZeroDivisionError):
        with io.entered(db.shards([1, 2]).transaction()) as tx:
            tx.on_commit(lambda: called.append("whole"))
            raise ZeroDivisionError
    assert len(called) == 2


def test_each_part_has_an_event(amounts: Any, db: Any, io: IO) -> None:
    found: List[Any] = []
    db.on("transaction", lambda event: found.append((event.target, event.outcome)))
    with io.entered(db.shards([1, 2]).transaction(global_=True)) as tx:
        io(io.function(both)(tx, 1))
    assert found == [("shard 1", "committed"), ("shard 2", "committed"), ("global", "committed")]
    del found[:]
    with pytest.raises(ZeroDivisionError):
        with io.entered(db.shards([1, 2]).transaction()) as tx:
            raise ZeroDivisionError
    assert found == [("shard 1", "rolled_back"), ("shard 2", "rolled_back")]


def test_one_connection_to_each_database_is_enough(
    databases: Databases, amounts: Any, open_service: Callable[..., Any], io: IO
) -> None:
    """The decision is made on the connection of the global database's part."""
    small = databases.config.model_copy(
        update={"pool_size": 1, "max_overflow": 0, "pool_timeout": 2.0}
    )
    db = open_service(small)
    for global_ in (True, False):
        with io.entered(db.shards([1, 2]).transaction(global_=global_)) as tx:
            io(io.function(both)(tx, 1))
            if global_:
                io(tx.global_.execute(ADD, (1,)))
    assert amounts() == [1, 2, -2]


def test_parts_are_used_at_the_same_time(amounts: Any, db: Any, io: IO) -> None:
    with io.entered(db.shards([1, 2]).transaction()) as tx:
        found = io.concurrently(
            [lambda: tx[1].execute(ADD, (1,)), lambda: tx[2].execute(ADD, (2,))]
        )
    assert found == [1, 1]
    assert amounts() == [0, 1, 2]


def test_streams_and_isolation(databases: Databases, amounts: Any, db: Any, io: IO) -> None:
    with io.entered(db.shards([1, 2]).transaction(isolation="READ COMMITTED")) as tx:
        io(tx[2].execute(ADD, (1,)))
        rows = io.collect(tx[1].stream("SELECT id FROM amounts ORDER BY id"))
        assert [row["id"] for row in rows] == [1, 2]
        databases.run(1, "UPDATE amounts SET value = 5 WHERE id = 2")
        assert io(tx[1].query_value("SELECT value FROM amounts WHERE id = 2")) == 5
        for row in io.collect(tx[1].stream("SELECT id FROM amounts WHERE id = 2 FOR UPDATE")):
            io(tx[1].execute("UPDATE amounts SET value = 6 WHERE id = %s", (row["id"],)))
    assert amounts() == [0, 0, 1]
    assert databases.value(1, "SELECT value FROM amounts WHERE id = 2") == 6


@pytest.mark.slow
def test_its_time_is_over(amounts: Any, db: Any, io: IO) -> None:
    with pytest.raises(dualdb.DeadlineExceeded):
        with io.entered(db.shards([1, 2]).transaction(timeout=0.5)) as tx:
            io(io.function(both)(tx, 1))
            io(tx[1].query("SELECT SLEEP(20)"))
    assert amounts() == [0, 0, 0]
    assert [io(db.shard(n).query_value("SELECT 1")) for n in (1, 2)] == [1, 1]


def test_an_interrupted_block_leaves_nothing(
    databases: Databases, amounts: Any, db: Any, io: IO
) -> None:
    def body(tx: Any) -> Any:
        yield tx[1].execute(ADD, (1,))
        yield tx[2].execute(ADD, (1,))
        yield tx[1].query("SELECT SLEEP(20)")

    io.interrupted(io.block(lambda: db.shards([1, 2]).transaction(), body))
    free = "SELECT value FROM amounts WHERE id = 1 FOR UPDATE"
    assert [io(db.shard(n).query_value(free)) for n in (1, 2)] == [0, 0]
    assert [prepared(databases, name) for name in NAMES] == [[], [], []]


def test_what_is_asked_for_is_checked(amounts: Any, db: Any, io: IO) -> None:
    with pytest.raises(dualdb.ParameterError, match="mode"):
        db.shards([1]).transaction(mode="both")
    with pytest.raises(dualdb.ParameterError, match="isolation"):
        db.shards([1]).transaction(isolation="SOME")
    tx = db.shards([1]).transaction()
    with pytest.raises(dualdb.InterfaceError, match="not begun"):
        tx[1]
    with io.entered(tx):
        with pytest.raises(dualdb.InterfaceError, match="global_=True"):
            assert tx.global_
        with pytest.raises(dualdb.InterfaceError, match="used once"):
            io(io.enter(tx))
    with pytest.raises(dualdb.InterfaceError, match="is over"):
        tx[1]


@pytest.mark.without_xa
def test_a_server_without_xa_is_refused_before_anything_is_begun(
    databases: Databases, amounts: Any, db: Any, io: IO, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = databases.profile
    if profile.xa:
        monkeypatch.setattr(coordinator, "why_no_xa", lambda facts: "it has none")
    with pytest.raises(dualdb.NotSupportedByEngine, match="shard 1: .*has no") as caught:
        with io.entered(db.shards([1, 2]).transaction()):
            raise AssertionError("begun")
    error = caught.value
    assert (error.feature, error.engine, error.sent) == ("xa", profile.name, False)
    with io.entered(db.shards([1, 2]).transaction(mode="best_effort")) as tx:
        io(io.function(both)(tx, 1))
    assert amounts() == [0, 1, -1]


# What a coordinator has left.


def leave(databases: Databases, decision: str = "", branches: Any = (1, 2)) -> str:
    """Leave a transaction that is prepared, as a process that was killed does."""
    gtrid = "65000000" + "ab" * 12
    cluster = databases.value("global", "SELECT cluster FROM dualdb_xa_lease")
    for n in branches:
        xid = f"'{gtrid}','{cluster}.{n}',{FORMAT_ID}"
        databases.run(
            n,
            f"XA START {xid}",
            "UPDATE amounts SET value = value + 1 WHERE id = 1",
            f"XA END {xid}",
            f"XA PREPARE {xid}",
        )
    if decision:
        databases.run(
            "global",
            f"INSERT INTO dualdb_xa (gtrid, decision, parts) VALUES "
            f"('{gtrid}', '{decision}', '1,2')",
        )
    return gtrid


@pytest.fixture
def used(databases: Databases, amounts: Any, db: Any, io: IO) -> Any:
    """The log is there, and the account may list what is prepared."""
    for name in (1, 2):
        if not on_mariadb(databases, name):
            user = databases.config_of(name).user
            databases.run(name, f"GRANT XA_RECOVER_ADMIN ON *.* TO '{user}'@'%'")
    with io.entered(db.shards([1, 2]).transaction()) as tx:
        io(io.function(both)(tx, 0))
    return amounts


@pytest.mark.parametrize("decision", ["commit", "abort", ""])
def test_recovery_does_what_was_decided(
    databases: Databases, used: Any, db: Any, io: IO, decision: str
) -> None:
    gtrid = leave(databases, decision)
    listed = io(db.coordination.list())
    (found,) = listed.transactions
    assert (found.gtrid, found.decision, found.shard_ids) == (gtrid, decision or None, (1, 2))
    assert not listed.ok
    commits = decision == "commit"
    done = ((gtrid,), ()) if commits else ((), (gtrid,))
    would = io(db.coordination.recover(grace=0, dry_run=True))
    assert (would.committed, would.rolled_back, would.dry_run) == (*done, True)
    assert used() == [0, 0, 0]
    did = io(db.coordination.recover(grace=0))
    assert (did.committed, did.rolled_back, did.pending, did.errors) == (*done, {}, {})
    assert did.ok
    assert used() == ([0, 1, 1] if commits else [0, 0, 0])
    assert io(db.coordination.list()) == XaList()
    assert io(db.coordination.recover()) == XaRecovery()
    # who is late cannot decide otherwise
    rows = [row["decision"] for row in decisions(databases) if row["gtrid"] == gtrid]
    assert rows == ["commit" if commits else "abort"]


def test_recovery_finishes_a_half(databases: Databases, used: Any, db: Any, io: IO) -> None:
    leave(databases, "commit", branches=(2,))
    assert io(db.coordination.recover(grace=0)).ok
    assert used() == [0, 0, 1]


def test_others_are_never_touched(databases: Databases, used: Any, db: Any, io: IO) -> None:
    cluster = databases.value("global", "SELECT cluster FROM dualdb_xa_lease")
    gtrid = "65000000" + "cd" * 12
    others = [
        ("another program's", f"'{gtrid}','{cluster}.1',7"),
        ("another global database's", f"'{gtrid}','{'0' * 16}.1',{FORMAT_ID}"),
        ("another shard's", f"'{gtrid}','{cluster}.77',{FORMAT_ID}"),
        ("binary", f"X'FF00FE',X'27',{FORMAT_ID}"),
    ]
    row = 10
    for _, xid in others:
        row += 1
        databases.run(
            1,
            f"XA START {xid}",
            f"INSERT INTO amounts VALUES ({row}, 0)",
            f"XA END {xid}",
            f"XA PREPARE {xid}",
        )
    try:
        listed = io(db.coordination.list())
        assert (listed.transactions, listed.errors) == ((), {})
        assert listed.foreign[1] == 3  # that of another shard is its own matter
        assert io(db.coordination.recover(grace=0)) == XaRecovery()
        with pytest.raises(dualdb.ParameterError):
            io(db.coordination.resolve("FF00FE", "abort"))
        assert io(db.coordination.resolve(gtrid, "abort")) == XaRecovery()
    finally:
        for _, xid in others:
            databases.run(1, f"XA ROLLBACK {xid}")  # fails if it is not there any more


def test_resolving_one(databases: Databases, used: Any, db: Any, io: IO) -> None:
    gtrid = leave(databases)
    with pytest.raises(dualdb.ParameterError, match="no decision"):
        io(db.coordination.resolve(gtrid, "commit"))
    would = io(db.coordination.resolve(gtrid, "commit", force=True, dry_run=True))
    assert (would.committed, would.rolled_back) == ((gtrid,), ())
    assert used() == [0, 0, 0]
    assert io(db.coordination.resolve(gtrid, "commit", force=True)).committed == (gtrid,)
    assert used() == [0, 1, 1]
    with pytest.raises(dualdb.ParameterError, match="decided to commit"):
        io(db.coordination.resolve(gtrid, "abort"))
    with pytest.raises(dualdb.ParameterError, match="'commit' or 'abort'"):
        io(db.coordination.resolve(gtrid, "perhaps"))


def test_a_coordinator_that_is_alive_and_slow_finds_that_it_was_rolled_back(
    databases: Databases, used: Any, db: Any, io: IO, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = db._coordinator.log
    decide = log.commit

    def after_a_tombstone(gtrid: str, shard_ids: Any, until: Any = None) -> Any:
        yield from log.settle(gtrid)
        yield from decide(gtrid, shard_ids, until)

    monkeypatch.setattr(log, "commit", after_a_tombstone)
    with pytest.raises(dualdb.TransactionAborted, match="rolled back on all"):
        with io.entered(db.shards([1, 2]).transaction()) as tx:
            io(io.function(both)(tx, 1))
    assert used() == [0, 0, 0]
    assert [prepared(databases, name) for name in NAMES] == [[], [], []]


@pytest.mark.slow
def test_another_process_finishes_in_the_background(
    databases: Databases, used: Any, open_service: Callable[..., Any], io: IO
) -> None:
    other = open_service(xa_grace=1.0)
    seen: List[dualdb.CoordinationEvent] = []
    other.on("xa_in_doubt", seen.append)
    other.on("xa_finished", seen.append)
    gtrid = leave(databases, "commit")
    io.wait_for(lambda: used() == [0, 1, 1])
    io.wait_for(lambda: [prepared(databases, name) for name in NAMES] == [[], [], []])
    finished = io.wait_for(lambda: [each for each in seen if each.name == "xa_finished"])
    assert [(each.subject, each.detail, each.target) for each in finished] == [
        (gtrid, "commit", "shards")
    ]
    doubts = io.wait_for(lambda: [each for each in seen if (each.shard_id, each.number) == (2, 0)])
    assert len(doubts) == 1
    assert {(each.target, each.number) for each in seen if each.name == "xa_in_doubt"} == {
        ("shard 1", 1), ("shard 2", 1), ("shard 1", 0), ("shard 2", 0),
    }  # fmt: skip


@pytest.mark.slow
def test_the_doctor_finds_what_was_left_and_names_what_is_not_ours(
    databases: Databases, used: Any, open_service: Callable[..., Any], io: IO
) -> None:
    db = open_service(xa_grace=None)  # nobody finishes it in the background
    gtrid = leave(databases, "commit")
    databases.run(
        1,
        "XA START 'their own'",
        "UPDATE amounts SET value = 5 WHERE id = 2",
        "XA END 'their own'",
        "XA PREPARE 'their own'",
    )

    def findings(check: str) -> Any:
        report = io(db.operations.doctor())
        return {each.database: each for each in report.findings if each.check == check}

    left = findings("xa-left")
    assert {"1", "2"} == set(left)
    assert all(gtrid in each.message for each in left.values())
    assert {each.fix for each in left.values()} == {"dualdb xa recover"}
    foreign = findings("prepared-xa")
    assert "'their own','',1" in foreign["1"].message
    assert all(gtrid not in each.message for each in foreign.values())
    assert io(db.coordination.recover(grace=0)).ok
    assert findings("xa-left") == {}
    assert set(findings("prepared-xa")) == set(foreign)
    databases.run(1, "XA ROLLBACK 'their own'")
    assert findings("prepared-xa") == {}


# One after the other.


@pytest.mark.without_xa
def test_best_effort_commits_on_all(amounts: Any, db: Any, io: IO) -> None:
    with io.entered(db.shards([1, 2]).transaction(mode="best_effort", global_=True)) as tx:
        io(io.function(both)(tx, 1))
        io(tx.global_.execute(ADD, (1,)))
    assert amounts() == [1, 1, -1]
    with pytest.raises(ZeroDivisionError):
        with io.entered(db.shards([1, 2]).transaction(mode="best_effort")) as tx:
            io(io.function(both)(tx, 1))
            raise ZeroDivisionError
    assert amounts() == [1, 1, -1]


@pytest.mark.without_xa
def test_best_effort_says_what_was_committed_and_what_not(
    databases: Databases, amounts: Any, db: Any, io: IO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(tx: Any, *shard_ids: int) -> None:
        for n in shard_ids:
            session = block_of(tx[n]).begun.connection.session_id
            # found at COMMIT, and not before
            monkeypatch.setattr(
                type(block_of(tx[n]).begun.connection), "is_stale", lambda self: False
            )
            databases.run(n, f"KILL {session}")

    with pytest.raises(dualdb.PartialCommitError) as partial:
        with io.entered(db.shards([1, 2]).transaction(mode="best_effort", global_=True)) as tx:
            io(io.function(both)(tx, 1))
            io(tx.global_.execute(ADD, (1,)))
            kill(tx, 2)
    error = partial.value
    reported = (error.committed, set(error.failed) | set(error.unknown))
    assert reported == ((1,), {2, None})
    assert None in error.failed
    assert amounts() == [0, 1, 0]
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.committed, copy.failed, copy.unknown) == (
        error.committed, error.failed, error.unknown,
    )  # fmt: skip
    assert not error.retryable
