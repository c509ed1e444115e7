"""Reads through ``read`` and with a role, of databases that have no replica: what is
refused. Which replica serves a read is in ``tests/faults/test_replicas.py``.
"""

from typing import Any, Callable, Dict

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import Count, ParameterError, ReadOnlyTargetError, ScatterError

COUNT = "SELECT COUNT(*) AS n FROM trades"
INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1)"


def reading_verbs(target: Any, io: IO, sql: str, **options: Any) -> Dict[str, Callable[[], Any]]:
    """Calls of every verb that reads, by its name."""
    return {
        "query": lambda: io(target.query(sql, **options)),
        "query_one": lambda: io(target.query_one(sql, **options)),
        "query_value": lambda: io(target.query_value(sql, **options)),
        "query_column": lambda: io(target.query_column(sql, **options)),
        "stream": lambda: io.collect(target.stream(sql, **options)),
    }


VERBS = ("query", "query_one", "query_value", "query_column", "stream")


@pytest.mark.parametrize("verb", VERBS)
def test_a_role_reads_what_read_reads(db: Any, io: IO, verb: str) -> None:
    io(db.shard(1).execute(INSERT))
    by_role = reading_verbs(db.shard(1), io, COUNT, role="replica")
    assert by_role[verb]() == reading_verbs(db.shard(1).read, io, COUNT)[verb]()
    assert by_role[verb]() in ([{"n": 1}], {"n": 1}, 1, [1])


def test_a_procedure_that_reads(db: Any, io: IO) -> None:
    found = io(db.shard(1).call("portfolio", (1,), role="replica", read_only=True))
    assert found.rows[0] == {"ErrorCode": 0, "trades": 0}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("of", ["service", "shard", "session", "read"])
def test_a_write_with_the_role_is_refused(
    db: Any, io: IO, databases: Databases, of: str, verb: str
) -> None:
    targets: Dict[str, Any] = {
        "service": db,
        "shard": db.shard(1),
        "session": db.session({"session": {"shard_id": 1}}),
        "read": db.shard(1).read,
    }
    target = targets[of]
    with pytest.raises(ReadOnlyTargetError) as caught:
        reading_verbs(target, io, INSERT, role="replica")[verb]()
    assert caught.value.sent is False
    assert caught.value.shard_id == (None if of == "service" else 1)
    assert databases.value(1, COUNT) == 0


def test_a_procedure_with_the_role_is_refused(db: Any, io: IO, databases: Databases) -> None:
    with pytest.raises(ReadOnlyTargetError, match="not declared read_only"):
        io(db.shard(1).call("buy", (1, "A", 1), role="replica"))
    assert databases.value(1, COUNT) == 0


def test_verbs_that_only_write_have_no_role(db: Any, databases: Databases) -> None:
    with pytest.raises(TypeError, match="role"):
        db.shard(1).execute(INSERT, role="replica")
    with pytest.raises(TypeError, match="role"):
        db.shard(1).executemany(INSERT, [], role="replica")
    assert databases.value(1, COUNT) == 0


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("word", ["primary", "reader", "REPLICA", "", True, 0])
def test_other_words_are_no_role(db: Any, io: IO, verb: str, word: Any) -> None:
    with pytest.raises(ParameterError, match="role must be 'replica' or None"):
        reading_verbs(db.shard(1), io, COUNT, role=word)[verb]()


@pytest.mark.parametrize("verb", VERBS)
def test_a_transaction_and_a_client_have_no_replicas(db: Any, io: IO, verb: str) -> None:
    with pytest.raises(ParameterError, match="own connection"):
        reading_verbs(db.get_shard_client(1), io, COUNT, role="replica")[verb]()
    for target in (db.shard(1), db.shard(1).read):
        with io.entered(target.transaction()) as tx:
            with pytest.raises(ParameterError, match="own connection"):
                reading_verbs(tx, io, COUNT, role="replica")[verb]()
            assert io(tx.query_value(COUNT)) == 0, "it goes on"


@pytest.mark.parametrize("verb", VERBS)
def test_a_read_with_the_role_is_part_of_the_callers_transaction(
    db: Any, io: IO, verb: str
) -> None:
    with io.entered(db.shard(1).transaction()):
        io(db.shard(1).execute(INSERT))
        found = reading_verbs(db.shard(1), io, COUNT, role="replica")[verb]()
        assert found in ([{"n": 1}], {"n": 1}, 1, [1])


def test_a_scatter_reads_what_its_reader_reads(db: Any, io: IO) -> None:
    io(db.shards().execute(INSERT))
    shards, read = db.shards(), db.shards().read
    for verb in ("query", "query_one", "query_value", "query_column"):
        assert io(getattr(read, verb)(COUNT)) == io(getattr(shards, verb)(COUNT))
    called = io(read.call("portfolio", (1,), read_only=True))
    assert called.by_shard[2].rows == io(shards.call("portfolio", (1,))).by_shard[2].rows
    rows = "SELECT user_id, symbol FROM trades"
    assert io.collect(read.merge(rows, order_by="symbol")) == [{"user_id": 1, "symbol": "A"}] * 2
    assert io(read.aggregate(rows, n=Count())) == [{"n": 2}]


@pytest.mark.parametrize("on_error", ["raise", "partial"])
def test_a_scatter_reader_refuses_writes(
    db: Any, io: IO, databases: Databases, on_error: str
) -> None:
    read = db.shards(on_error=on_error).read
    for write in (
        lambda: io(read.query(INSERT)),
        lambda: io(read.query_one(INSERT)),
        lambda: io(read.query_value("SELECT id FROM trades FOR UPDATE")),
        lambda: io(read.query_column(INSERT)),
        lambda: io(read.call("buy", (1, "A", 1))),
        lambda: io.collect(read.merge("SELECT GET_LOCK('a', 0) AS one", order_by="one")),
    ):
        with pytest.raises(ReadOnlyTargetError) as caught:
            write()
        assert caught.value.sent is False
    assert databases.value(1, COUNT) == databases.value(2, COUNT) == 0


def test_a_scatter_reader_has_no_verbs_that_write(db: Any) -> None:
    read = db.shards().read
    assert not {"execute", "transaction", "connection"} & set(dir(read))
    assert {"query", "call", "merge", "aggregate", "to_arrow"} <= set(dir(read))


def test_the_policy_of_a_scatter_holds_for_its_reader(db: Any, io: IO) -> None:
    io(db.set_shard_status(2, "maintenance"))
    with pytest.raises(ScatterError) as caught:
        io(db.shards().read.query_value(COUNT))
    assert caught.value.result.by_shard == {1: 0}
    partial = io(db.shards(on_error="partial").read.query_value(COUNT))
    assert (dict(partial.by_shard), list(partial.errors)) == ({1: 0}, [2])
    assert io(db.shards([1]).read.query_value(COUNT)).by_shard == {1: 0}
