"""The shards of keys, by a function that the service is given."""

from typing import Any, Callable, List

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import CrossShardError, ParameterError, ScatterError, ShardUnavailable

INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, %s, 1)"
SELECT = "SELECT user_id, symbol FROM trades WHERE user_id IN %(keys)s"


def odd_and_even(user_id: int) -> int:
    """Shard 1 has the odd ones, shard 2 the even ones."""
    return 2 - user_id % 2


def division(key: int) -> int:
    return key // 0


@pytest.fixture
def keyed(open_service: Callable[..., Any]) -> Any:
    return open_service(shard_of_key=odd_and_even)


def test_a_key_names_its_shard(keyed: Any, io: IO, databases: Databases) -> None:
    for user_id in (1, 2, 3):
        io(keyed.key(user_id).execute(INSERT, (user_id, "A")))
    assert [databases.value(shard_id, "SELECT COUNT(*) FROM trades") for shard_id in (1, 2)] == [
        2,
        1,
    ]
    with io.entered(keyed.key(7).transaction()) as tx:
        assert tx.shard_id == 1
    in_other_caller: Any = io.Service(databases.config, shard_of_key=lambda key: 9)
    io(in_other_caller.init_service())
    with pytest.raises(ShardUnavailable, match="Shard 9 not available"):
        io(in_other_caller.key("anything").query("SELECT 1"))
    with pytest.raises(ScatterError, match="1 of 1 shards failed"):
        io(in_other_caller.keys([1]).query(SELECT))
    io(in_other_caller.close_service())


def test_each_shard_is_asked_for_its_own_keys_once(
    keyed: Any, io: IO, databases: Databases
) -> None:
    for user_id in (1, 2, 3, 4):
        io(keyed.key(user_id).execute(INSERT, (user_id, "A")))
        # a stranger's row, which must not be found
        other = keyed.shard(3 - odd_and_even(user_id))
        io(other.execute(INSERT, (user_id, "STRAY")))
    found = io(keyed.keys([3, 2, 1, 2, 3]).query(SELECT + " AND symbol <> %(not)s", {"not": "B"}))
    assert found.by_shard == {
        1: [{"user_id": 1, "symbol": "A"}, {"user_id": 3, "symbol": "A"}],
        2: [{"user_id": 2, "symbol": "A"}],
    }
    assert io(keyed.keys(user_id for user_id in (4, 2)).query(SELECT)).by_shard.keys() == {2}
    order = (
        "SELECT %(order)s AS x, CONCAT('', FIELD(3, {0}), FIELD(1, {0})) AS places FROM DUAL "
        "WHERE 3 IN %(keys)s"
    ).format("3, 1")
    assert io(keyed.keys([3, 1]).query(order, {"order": 1})).rows == [{"x": 1, "places": "12"}]
    done = io(
        keyed.keys([1, 4], max_concurrency=1).execute(
            "UPDATE trades SET qty = 5 WHERE user_id IN %(keys)s AND symbol = 'A'"
        )
    )
    assert done.by_shard == {1: 1, 2: 1}
    assert [databases.value(shard_id, "SELECT SUM(qty) FROM trades") for shard_id in (1, 2)] == [
        8,
        8,
    ]


def test_what_is_sent_is_one_statement_with_the_keys_in_their_order(
    keyed: Any, io: IO, databases: Databases
) -> None:
    sql = (
        "SELECT info FROM information_schema.processlist WHERE id = CONNECTION_ID() AND 0 "
        "NOT IN %(keys)s"
    )
    found = io(keyed.keys([5, 2, 3, 5, 1]).query(sql))
    assert [rows[0]["info"].rpartition(" ")[2] for rows in found.by_shard.values()] == [
        "(5,3,1)",
        "(2)",
    ]


def test_no_keys_are_no_statements(keyed: Any, io: IO) -> None:
    result = io(keyed.keys([]).query(SELECT))
    assert (result.by_shard, result.errors, result.rows) == ({}, {}, [])
    with pytest.raises(ParameterError, match="must use"):
        io(keyed.keys([]).query("SELECT 1"))


def test_a_shard_that_fails_is_not_left_out(keyed: Any, io: IO, databases: Databases) -> None:
    io(keyed.key(1).execute(INSERT, (1, "A")))
    io(keyed.set_shard_status(2, "maintenance"))
    with pytest.raises(ScatterError, match="1 of 2 shards failed: shard 2"):
        io(keyed.keys([1, 2]).query(SELECT))
    part = io(keyed.keys([1, 2], on_error="partial").query(SELECT))
    assert (list(part.by_shard), list(part.errors)) == ([1], [2])
    assert len(io(keyed.keys([1, 3]).query(SELECT)).rows) == 1, "the other shard is not asked"


def test_bad_input_is_refused_before_anything_is_sent(
    keyed: Any, db: Any, io: IO, databases: Databases
) -> None:
    for ask in (db.key, db.keys):
        with pytest.raises(ParameterError, match="give it shard_of_key="):
            ask([1])
    answers: List[Any] = [None, "1", True, 1.0]
    for response in answers:
        service: Any = io.Service(databases.config, shard_of_key={1: response}.get)
        with pytest.raises(
            ParameterError, match="shard_of_key gives the shard_id of a key, an int"
        ):
            service.key(1)
        with pytest.raises(
            ParameterError, match="shard_of_key gives the shard_id of a key, an int"
        ):
            service.keys([1])
    with pytest.raises(TypeError, match="shard_of_key must be a function"):
        io.Service(databases.config, shard_of_key=7)
    with pytest.raises(ZeroDivisionError):
        io.Service(databases.config, shard_of_key=division).key(1)
    wrong_keys: List[Any] = ["12", b"12", 12, [[1]]]
    for keys in wrong_keys:
        with pytest.raises(ParameterError, match="key"):
            keyed.keys(keys)
    wrong_options: List[Any] = [{"on_error": "perhaps"}, {"max_concurrency": 0}]
    for options in wrong_options:
        with pytest.raises(ParameterError):
            keyed.keys([1], **options)
    scatter = keyed.keys([1, 2])
    for sql, params, says in [
        ("DELETE FROM trades", None, "must use"),
        (SELECT, (1,), "params must be a mapping or None, not tuple"),
        (SELECT, {"keys": [1]}, "reserved for the keys"),
        (SELECT + " AND qty = %(qty)s", {}, "no parameter named 'qty'"),
        ("DELETE FROM trades WHERE user_id IN %s", None, "placeholders"),
    ]:
        for verb in (scatter.query, scatter.execute):
            with pytest.raises(ParameterError, match=says):
                io(verb(sql, params))
    with pytest.raises(ParameterError, match="cannot call a procedure"):
        io(scatter.call("portfolio", (1,)))
    with io.entered(keyed.key(1).transaction()), pytest.raises(CrossShardError):
        io(scatter.query(SELECT))
