"""One call to several shards."""

import contextlib
import pickle
from dataclasses import dataclass
from typing import Any, Callable, Generator, Iterator, List, NamedTuple, Set

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import (
    Count,
    CrossShardError,
    DeadlineExceeded,
    InterfaceError,
    Overloaded,
    ParameterError,
    ReadOnlyTargetError,
    RowError,
    ScatterError,
    ShardUnavailable,
    TooManyRows,
)

INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, 'A', 1)"


@pytest.fixture
def four(databases: Databases) -> Iterator[Any]:
    """Shards 1 to 4, of which 3 and 4 are other databases on shard 1's server."""
    config = databases.config_of(1)
    names = {shard_id: f"{config.database}_{shard_id}" for shard_id in (3, 4)}
    for shard_id, name in names.items():
        databases.run(
            1,
            f"CREATE DATABASE {name}",
            f"CREATE TABLE {name}.trades LIKE trades",
            f"GRANT ALL ON {name}.* TO {config.user}@'%'",
        )
        databases.set_row(shard_id, database_name=name)
    yield databases
    for name in names.values():
        databases.run(1, f"DROP DATABASE {name}", f"REVOKE ALL ON {name}.* FROM {config.user}@'%'")


def test_every_shard_is_asked_and_each_answer_is_its_own(
    four: Any, open_service: Callable[..., Any], io: IO
) -> None:
    db = open_service()
    for shard_id in (1, 2, 3, 4):
        io(db.shard(shard_id).execute(INSERT, (shard_id,)))
    result = io(db.shards().query("SELECT user_id FROM trades WHERE user_id > %s", (0,)))
    assert result.by_shard == {
        1: [{"user_id": 1}],
        2: [{"user_id": 2}],
        3: [{"user_id": 3}],
        4: [{"user_id": 4}],
    }
    assert [row["user_id"] for row in result.rows] == [1, 2, 3, 4]
    assert result.rows_with_shard()[1:3] == [
        {"user_id": 2, "_shard": 2},
        {"user_id": 3, "_shard": 3},
    ]
    assert result.errors == {}
    done = io(db.shards([2, 1]).execute(INSERT, (9,)))
    assert done.by_shard == {1: 1, 2: 1}
    last = io(db.shard(2).query_value("SELECT MAX(id) FROM trades"))
    assert done.by_shard[2].lastrowid == last > 1
    called = io(db.shards([1, 2], max_concurrency=1).call("portfolio", (9,)))
    assert [len(called.by_shard[shard_id].rows) for shard_id in (1, 2)] == [2, 2]
    assert len(called.rows) == 4
    assert io(db.shards([]).query("SELECT 1")).rows == []


def test_a_database_of_two_shards_is_counted_once_and_reported(
    databases: Databases, open_service: Callable[..., Any], io: IO, caplog: pytest.LogCaptureFixture
) -> None:
    databases.set_row(3)
    there = databases.config
    databases.set_row(4, host=there.host, port=there.port, database_name=there.database)
    databases.run("global", "CREATE TABLE trades (user_id INT)")
    try:
        db = open_service()
        io(db.shard(1).execute(INSERT, (1,)))
        found = io(db.shards().query("SELECT user_id FROM trades"))
        assert (found.by_shard[1], sorted(found.by_shard)) == ([{"user_id": 1}], [1, 2, 4])
        assert sorted(io(db.shards([1, 3]).query("SELECT 1")).by_shard) == [1, 3], "as named"
        shared, globally = sorted(db.status().problems, reverse=True)
        assert shared.startswith("shards 1, 3 are one database")
        assert globally.startswith("shard 4 is the global database")
        assert shared in caplog.text
    finally:
        databases.run("global", "DROP TABLE trades")


def test_shards_are_asked_at_the_same_time(
    four: Any, open_service: Callable[..., Any], io: IO
) -> None:
    db = open_service()
    seen = io(db.shards().query("SELECT NOW(6) AS a, SLEEP(0.3) AS s, SYSDATE(6) AS b"))
    assert max(row["a"] for row in seen.rows) < min(row["b"] for row in seen.rows)


@pytest.mark.parametrize("most", [1, 2, 16])
def test_the_blocks_of_the_caller_hold_whoever_calls_the_shards(
    four: Any, open_service: Callable[..., Any], io: IO, most: int
) -> None:
    db = open_service(four.config.model_copy(update={"max_in_flight": 2}))
    ids = (1, 2, 3, 4)

    def failures(caught: Any) -> Set[type]:
        return {type(error) for error in caught.value.result.errors.values()}

    def body() -> Generator[Any, Any, None]:
        with db.read_only(), pytest.raises(ScatterError) as refused:
            yield db.shards(ids, max_concurrency=most).execute(INSERT, (7,))
        assert failures(refused) == {ReadOnlyTargetError}
        with db.priority("batch"), pytest.raises(ScatterError) as shed:
            yield db.shards(ids, max_concurrency=most).query("SELECT 1 AS one")
        assert failures(shed) == {Overloaded}

    with contextlib.ExitStack() as in_use:
        for shard_id in ids:
            in_use.enter_context(io.entered(db.shard(shard_id).connection()))
        io.awaited(io.function(body)())
    assert io(db.shards(ids).query("SELECT user_id FROM trades")).rows == []


def test_nothing_is_silently_short(
    four: Any, open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    databases.set_row(2, status="maintenance")
    databases.set_row(4, status="inactive")
    db = open_service()
    with pytest.raises(
        ScatterError, match="1 of 3 shards failed: shard 2: it is in maintenance"
    ) as caught:
        io(db.shards().query("SELECT 7 AS n"))
    assert caught.value.result.by_shard == {1: [{"n": 7}], 3: [{"n": 7}]}
    assert isinstance(caught.value.result.errors[2], ShardUnavailable)
    assert pickle.loads(pickle.dumps(caught.value)).result.by_shard == caught.value.result.by_shard
    part = io(db.shards(on_error="partial").query("SELECT 7 AS n"))
    assert (sorted(part.by_shard), sorted(part.errors)) == ([1, 3], [2])
    assert sorted(io(db.shards([1, 4, 9], on_error="partial").query("SELECT 7 AS n")).errors) == [
        4,
        9,
    ]
    with pytest.raises(ScatterError) as caught:
        io(db.shards([1, 3]).query("SELECT nonsense"))
    assert {error.errno for error in caught.value.result.errors.values()} == {1054}


@pytest.mark.slow
def test_a_slow_shard_is_late_alone(db: Any, io: IO, databases: Databases) -> None:
    for shard_id, seconds in ((1, 20), (2, 0)):
        databases.run(
            shard_id,
            "DROP TABLE IF EXISTS nap",
            "CREATE TABLE nap (s FLOAT PRIMARY KEY)",
            f"INSERT INTO nap VALUES ({seconds})",
        )
    part = io(db.shards(on_error="partial").query("SELECT SLEEP(s) AS slept FROM nap", timeout=0.5))
    assert part.by_shard == {2: [{"slept": 0}]}
    assert isinstance(part.errors[1], DeadlineExceeded)
    with io.deadline(0.5), pytest.raises(ScatterError):
        io(db.shards().query("SELECT SLEEP(s) FROM nap"))


def test_bad_input_is_refused_before_anything_is_sent(
    db: Any, io: IO, databases: Databases
) -> None:
    wrongs: Any = [
        {"shard_ids": ["1"]},
        {"on_error": "perhaps"},
        {"max_concurrency": 0},
        {"min_ok": -1},
        {"min_ok": True},
        {"min_ok": "1"},
        {"shard_ids": [1, 2], "min_ok": 3},
    ]
    for wrong in wrongs:
        with pytest.raises(ParameterError):
            db.shards(**wrong)
    with pytest.raises(ParameterError):
        io(db.shards().execute(INSERT, ()))
    with io.entered(db.shard(1).transaction()), pytest.raises(CrossShardError):
        io(db.shards().execute(INSERT, (1,)))
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == 0


class Trade(NamedTuple):
    user_id: int
    qty: int


@dataclass
class User:
    user_id: int


def test_the_verbs_that_read_give_what_they_give_of_one_shard(db: Any, io: IO) -> None:
    for shard_id in (1, 2):
        for user_id in (shard_id, shard_id + 10):
            io(db.shard(shard_id).execute(INSERT, (user_id,)))
    shards, sql = db.shards(), "SELECT user_id, qty FROM trades ORDER BY user_id"
    made = io(shards.query(sql, as_=Trade))
    assert made.by_shard == {1: [Trade(1, 1), Trade(11, 1)], 2: [Trade(2, 1), Trade(12, 1)]}
    assert made.rows == [Trade(1, 1), Trade(11, 1), Trade(2, 1), Trade(12, 1)]
    assert io(shards.query(sql, as_=tuple)).by_shard[2] == [(2, 1), (12, 1)]
    assert io(shards.query_one(sql)).by_shard[1] == {"user_id": 1, "qty": 1}
    assert io(shards.query_one(sql, as_=Trade)).values == [Trade(1, 1), Trade(2, 1)]
    nobody = "SELECT user_id FROM trades WHERE user_id = 7"
    assert io(shards.query_one(nobody)).values == [None, None]
    assert io(shards.query_value("SELECT COUNT(*) FROM trades")).values == [2, 2]
    assert io(shards.query_value(nobody)).by_shard == {1: None, 2: None}
    columns = io(shards.query_column(sql))
    assert columns.by_shard == {1: [1, 11], 2: [2, 12]}
    assert columns.rows == [1, 11, 2, 12]
    by_keys = db.shards([1]).query_column("SELECT user_id FROM trades WHERE qty = %(n)s", {"n": 1})
    assert io(by_keys).by_shard == {1: [1, 11]}


def test_rows_that_do_not_fit_are_their_shards_failure(db: Any, io: IO) -> None:
    io(db.shard(1).execute(INSERT, (1,)))
    io(db.shard(2).execute(INSERT, (2,)))
    io(db.shard(2).execute(INSERT, (3,)))
    sql = "SELECT user_id, qty FROM trades"
    with pytest.raises(ScatterError, match="2 of 2 shards failed") as caught:
        io(db.shards().query(sql, as_=User))
    error = caught.value.result.errors[2]
    assert isinstance(error, RowError)
    assert (error.target, error.shard_id, error.columns) == ("shard 2", 2, ("qty",))
    part = io(db.shards(on_error="partial").query_one(sql, as_=Trade, strict=True))
    assert part.by_shard == {1: Trade(1, 1)}
    assert isinstance(part.errors[2], TooManyRows)
    part = io(db.shards(on_error="partial").query(sql, max_rows=1))
    assert (list(part.by_shard), type(part.errors[2])) == ([1], TooManyRows)
    with pytest.raises(ParameterError):
        io(db.shards().query(sql, as_=int))


def test_enough_shards_must_answer(
    four: Any, open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    databases.set_row(2, status="maintenance")
    db = open_service()
    part = io(db.shards(min_ok=3).query_value("SELECT 7"))
    assert (part.by_shard, list(part.errors)) == ({1: 7, 3: 7, 4: 7}, [2])
    for on_error in ("raise", "partial"):
        with pytest.raises(ScatterError, match="1 of 4 shards failed, and 4 must answer") as caught:
            io(db.shards(min_ok=4, on_error=on_error).query_value("SELECT 7"))
        assert caught.value.result.values == [7, 7, 7]
    assert io(db.shards([2], min_ok=0).query_value("SELECT 7")).by_shard == {}
    with pytest.raises(ScatterError, match="must answer"):
        io(db.shards(min_ok=9).execute("DELETE FROM trades"))
    merged = io.collect(db.shards(min_ok=3).merge("SELECT 7 AS n", order_by="n"))
    assert [row["n"] for row in merged] == [7, 7, 7]
    with pytest.raises(ScatterError, match="4 must answer"):
        io.collect(db.shards(min_ok=4).merge("SELECT 7 AS n", order_by="n"))
    with pytest.raises(ParameterError, match="no min_ok"):
        io(db.shards(min_ok=1).aggregate("SELECT 1 AS n", n=Count()))


def test_what_is_no_row_is_not_given_as_one(db: Any, io: IO) -> None:
    names = io(db.shards().query_value("SELECT 'name'"))
    given: List[Callable[[], Any]] = [
        lambda: names.rows,
        lambda: io(db.shards().execute("DO 0")).rows,
    ]
    for give in given:
        with pytest.raises(InterfaceError, match="use by_shard"):
            give()
    with pytest.raises(InterfaceError, match="cannot add '_shard'"):
        io(db.shards().query("SELECT 1", as_=tuple)).rows_with_shard()
