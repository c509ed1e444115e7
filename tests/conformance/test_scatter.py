"""One call to several shards."""

import pickle
from typing import Any, Callable

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import CrossShardError, DeadlineExceeded, ParameterError, ScatterError, ShardUnavailable

INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, 'A', 1)"


@pytest.fixture
def four(databases: Databases) -> Any:
    """Shards 1 to 4, of which 3 and 4 are shard 1's database under other numbers."""
    databases.set_row(3)
    databases.set_row(4)
    return databases


def test_every_shard_is_asked_and_each_answer_is_its_own(
    four: Any, open_service: Callable[..., Any], io: IO
) -> None:
    db = open_service()
    for shard_id in (1, 2):
        io(db.shard(shard_id).execute(INSERT, (shard_id,)))
    result = io(db.shards().query("SELECT user_id FROM trades WHERE user_id > %s", (0,)))
    assert result.by_shard == {
        1: [{"user_id": 1}],
        2: [{"user_id": 2}],
        3: [{"user_id": 1}],
        4: [{"user_id": 1}],
    }
    assert [row["user_id"] for row in result.rows] == [1, 2, 1, 1]
    assert result.rows_with_shard()[1:3] == [
        {"user_id": 2, "_shard": 2},
        {"user_id": 1, "_shard": 3},
    ]
    assert result.errors == {}
    done = io(db.shards([2, 1]).execute(INSERT, (9,)))
    assert (done.by_shard, done.by_shard[2].lastrowid) == ({1: 1, 2: 1}, 2)
    called = io(db.shards([1, 2], max_concurrency=1).call("portfolio", (9,)))
    assert [len(called.by_shard[shard_id].rows) for shard_id in (1, 2)] == [2, 2]
    assert len(called.rows) == 4
    assert io(db.shards([]).query("SELECT 1")).rows == []


def test_shards_are_asked_at_the_same_time(
    four: Any, open_service: Callable[..., Any], io: IO
) -> None:
    db = open_service()
    seen = io(db.shards().query("SELECT NOW(6) AS a, SLEEP(0.3) AS s, SYSDATE(6) AS b"))
    assert max(row["a"] for row in seen.rows) < min(row["b"] for row in seen.rows)


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


def test_a_slow_shard_is_late_alone(db: Any, io: IO, databases: Databases) -> None:
    for shard_id, seconds in ((1, 20), (2, 0)):
        databases.run(
            shard_id,
            "DROP TABLE IF EXISTS nap",
            "CREATE TABLE nap (s FLOAT)",
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
    wrongs: Any = [{"shard_ids": ["1"]}, {"on_error": "perhaps"}, {"max_concurrency": 0}]
    for wrong in wrongs:
        with pytest.raises(ParameterError):
            db.shards(**wrong)
    with pytest.raises(ParameterError):
        io(db.shards().execute(INSERT, ()))
    with io.entered(db.shard(1).transaction()), pytest.raises(CrossShardError):
        io(db.shards().execute(INSERT, (1,)))
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == 0
