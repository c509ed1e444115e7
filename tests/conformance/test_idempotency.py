"""Idempotency keys: the effect once, and one result for everybody."""

import contextlib
import datetime
import decimal
import itertools
from typing import Any, Dict, Iterator, List, Set

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import CoordinationEvent, IntegrityError, OutcomeUnknown, ParameterError, Rollback
from dualdb.coordination import idempotency
from dualdb.testing import Fault, FaultProxy

# Their events are those of the background.
pytestmark = pytest.mark.usefixtures("frequent_maintenance")

INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, 'A', 1)"


@pytest.fixture(autouse=True)
def tables(databases: Databases) -> Iterator[None]:
    for name in ("global", *databases.ids):
        databases.run(name, f"DROP TABLE IF EXISTS {idempotency.TABLE}")
    yield
    for name in ("global", *databases.ids):
        databases.run(name, f"DROP TABLE IF EXISTS {idempotency.TABLE}")


def trades(databases: Databases, name: Any = 1) -> int:
    return int(databases.value(name, "SELECT COUNT(*) FROM trades"))


def keys(databases: Databases, name: Any = 1) -> List[bytes]:
    rows = databases.run(name, f"SELECT idempotency_key AS k FROM {idempotency.TABLE} ORDER BY k")
    return [row["k"] for row in rows]


def buy(io: IO, user: int = 7, value: Any = None, calls: Any = None) -> Any:
    """A function that inserts a trade, and returns its id or ``value``."""

    def body(tx: Any) -> Any:
        if calls is not None:
            calls.append(user)
        count = yield tx.execute(INSERT, (user,))
        return count.lastrowid if value is None else value

    return io.function(body)


@pytest.mark.parametrize(
    "target",
    [
        lambda db: db.shard(1),
        lambda db: db.get_shard_client(1),
        lambda db: db.key(1),
    ],
)
def test_the_effect_is_there_once_and_the_result_is_the_first_one(
    open_service: Any, io: IO, databases: Databases, target: Any
) -> None:
    db = open_service(shard_of_key=int)
    calls: List[int] = []
    first = io(target(db).run(buy(io, calls=calls), idempotency_key="order-1"))
    again = io(target(db).run(buy(io, calls=calls), idempotency_key="order-1"))
    other = io(target(db).run(buy(io, calls=calls), idempotency_key="order-2"))
    assert first == again < other
    assert (trades(databases), calls) == (2, [7, 7])
    assert keys(databases) == [b"order-1", b"order-2"]
    assert io(target(db).run(buy(io))) > other


@pytest.mark.slow
def test_twenty_callers_get_one_result(db: Any, io: IO, databases: Databases) -> None:
    calls: List[int] = []
    asked = [f"order-{number}" for number in range(5)] * 20
    found = io.concurrently(
        [
            lambda key=key: db.shard(1).run(buy(io, calls=calls), idempotency_key=key)
            for key in asked
        ]
    )
    by_key: Dict[str, Set[int]] = {}
    for key, result in zip(asked, found):
        assert isinstance(result, int), result
        by_key.setdefault(key, set()).add(result)
    assert all(len(results) == 1 for results in by_key.values()), by_key
    assert trades(databases) == 5
    assert len({next(iter(results)) for results in by_key.values()}) == 5


@pytest.mark.slow
def test_callers_that_wait_go_on_when_the_first_is_rolled_back(
    db: Any, io: IO, databases: Databases
) -> None:
    turn = itertools.count()

    def body(tx: Any) -> Any:
        yield tx.execute(INSERT, (1,))
        yield io.pause(0.01)
        if next(turn) < 6:
            raise KeyError("not yet")
        return "done"

    found = io.concurrently([lambda: db.shard(1).run(io.function(body), idempotency_key="k")] * 20)
    failed = [each for each in found if isinstance(each, KeyError)]
    assert len(failed) == 6
    assert [each for each in found if each != "done" and each not in failed] == []
    assert trades(databases) == 1


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -(2**70), 1.5, "", "é\U0001f600", "\ud800", [1, [2]], {"a": {"b": [None]}}],
)
def test_a_result_comes_back_as_it_was(db: Any, io: IO, databases: Databases, value: Any) -> None:
    def body(tx: Any) -> Any:
        yield tx.execute(INSERT, (1,))
        return value

    for _ in range(2):
        found = io(db.shard(1).run(io.function(body), idempotency_key="k"))
        assert (found, type(found)) == (value, type(value))
    assert trades(databases) == 1


def test_a_tuple_and_a_count_are_for_everybody_what_json_makes_of_them(db: Any, io: IO) -> None:
    def body(tx: Any) -> Any:
        count = yield tx.execute(INSERT, (1,))
        return (count, "a")

    found = [io(db.shard(1).run(io.function(body), idempotency_key="k")) for _ in range(2)]
    assert found == [[1, "a"]] * 2


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(object(), id="object"),
        decimal.Decimal(1),
        datetime.date(2026, 1, 1),
        b"x",
        {1, 2},
        {1: "a"},
        {"a": {None: 1}},
        float("nan"),
    ],
    ids=repr,
)
def test_a_result_that_cannot_be_kept_is_refused_and_nothing_is_done(
    db: Any, io: IO, databases: Databases, value: Any
) -> None:
    with pytest.raises(ParameterError, match="JSON"):
        io(db.shard(1).run(buy(io, value=value), idempotency_key="k"))
    assert (trades(databases), keys(databases)) == (0, [])


@pytest.mark.parametrize("key", ["", "x" * 256, "é" * 128, 7, b"k", "\ud800"])
def test_a_key_is_a_text_of_255_bytes_at_most(
    db: Any, io: IO, databases: Databases, key: Any
) -> None:
    calls: List[int] = []
    with pytest.raises(ParameterError, match="idempotency_key"):
        io(db.shard(1).run(buy(io, calls=calls), idempotency_key=key))
    with pytest.raises(ParameterError):
        io(db.shard(1).run(buy(io, calls=calls), idempotency_key="k", idempotency_retention=0))
    assert (trades(databases), calls) == (0, [])


def test_keys_that_look_alike_are_others(db: Any, io: IO, databases: Databases) -> None:
    alike = ["key", "KEY", "key ", " key", "kéy", "key\0", "x" * 255]
    found = [io(db.shard(1).run(buy(io), idempotency_key=key)) for key in alike]
    assert found == sorted(set(found))
    assert trades(databases) == 7


def test_each_database_has_keys_of_its_own(db: Any, io: IO, databases: Databases) -> None:
    for shard in (1, 2):
        assert io(db.shard(shard).run(buy(io), idempotency_key="k")) == 1

    def sign_up(tx: Any) -> Any:
        yield tx.execute("INSERT INTO accounts (email) VALUES ('a@x')")
        return "in"

    for _ in range(2):
        assert io(db.run(io.function(sign_up), idempotency_key="k")) == "in"
    assert databases.value("global", "SELECT COUNT(*) FROM accounts") == 1


def test_what_is_rolled_back_frees_its_key(db: Any, io: IO, databases: Databases) -> None:
    def leave(tx: Any) -> Any:
        yield tx.execute(INSERT, (1,))
        raise Rollback

    def undo(tx: Any) -> Any:
        yield tx.execute(INSERT, (1,))
        yield tx.rollback()
        return object()

    def fail(tx: Any) -> Any:
        yield tx.execute("INSERT INTO trades (id, user_id, symbol, qty) VALUES (1, 1, 'A', 1)")
        yield tx.execute("INSERT INTO trades (id, user_id, symbol, qty) VALUES (1, 1, 'A', 1)")

    shard = db.shard(1)
    assert io(shard.run(io.function(leave), idempotency_key="k")) is None
    assert type(io(shard.run(io.function(undo), idempotency_key="k"))) is object
    with pytest.raises(IntegrityError):
        io(shard.run(io.function(fail), idempotency_key="k"))
    assert (trades(databases), keys(databases)) == (0, [])
    io(shard.run(buy(io), idempotency_key="k"))
    assert trades(databases) == 1


def test_inside_a_transaction_the_key_is_a_part_of_it(
    db: Any, io: IO, databases: Databases
) -> None:
    io(db.shard(1).run(buy(io), idempotency_key="first"))
    with contextlib.suppress(KeyError), io.entered(db.shard(1).transaction()) as tx:
        first = io(tx.run(buy(io, value="a"), idempotency_key="k"))
        again = io(db.shard(1).run(buy(io, value="b"), idempotency_key="k"))
        assert (first, again) == ("a", "a")
        raise KeyError
    assert (trades(databases), keys(databases)) == (1, [b"first"])


def test_a_result_is_found_in_a_snapshot_that_is_older(
    db: Any, io: IO, databases: Databases
) -> None:
    io(db.shard(1).run(buy(io), idempotency_key="first"))
    with io.entered(db.shard(1).transaction(isolation="REPEATABLE READ")) as tx:
        assert io(tx.query_value("SELECT COUNT(*) FROM trades")) == 1
        other = io.in_other_caller(
            lambda: db.shard(1).run(buy(io, value="other"), idempotency_key="k")
        )
        assert other == "other"
        assert io(tx.run(buy(io, value="mine"), idempotency_key="k")) == "other"
    assert trades(databases) == 2


def test_what_a_statement_in_the_middle_has_committed_is_not_done_again(
    db: Any, io: IO, databases: Databases
) -> None:
    def body(tx: Any) -> Any:
        yield tx.execute(INSERT, (1,))
        yield tx.execute("CREATE TABLE in_the_middle (id INT)")
        raise KeyError("after it")

    with pytest.raises(KeyError):
        io(db.shard(1).run(io.function(body), idempotency_key="k"))
    databases.run(1, "DROP TABLE in_the_middle")
    assert trades(databases) == 1
    with pytest.raises(OutcomeUnknown, match="'k' was committed by a statement in its middle"):
        io(db.shard(1).run(buy(io), idempotency_key="k"))
    assert trades(databases) == 1


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_connection_that_is_cut_anywhere_changes_nothing(
    io: IO, databases: Databases, direction: Any
) -> None:
    """At COMMIT, too: whether that was applied is settled by the row of the key."""
    config = databases.config_of(1)
    databases.run(1, idempotency.DDL)
    with FaultProxy(config.host, config.port) as proxy:
        client = io.Client(config.model_copy(update={"port": proxy.port, "pool_size": 1}))
        calls: List[int] = []

        def body(tx: Any) -> Any:
            calls.append(1)
            yield tx.execute(INSERT, (1,))
            if len(calls) == 1:
                proxy.set(Fault(direction, after, "cut"))
            return "done"

        happened = 0
        for after in range(0, 400, 4):
            calls.clear()
            key = f"cut-{after}"
            assert io(client.run(io.function(body), idempotency_key=key)) == "done"
            happened += proxy.happened
            proxy.set(None)
            assert trades(databases) == after // 4 + 1, after
        io(client.close_pool())
    assert happened > 10


def test_old_results_are_swept(
    db: Any, io: IO, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    io(db.shard(1).run(buy(io), idempotency_key="old", idempotency_retention=3600))
    io(db.shard(1).run(buy(io), idempotency_key="young"))
    left = "TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), expires_at)"
    seconds = f"SELECT {left} AS s FROM {idempotency.TABLE} ORDER BY s"
    old, young = [row["s"] for row in databases.run(1, seconds)]
    assert 3500 < old <= 3600
    assert 604_000 < young <= 604_800
    databases.run(
        1,
        f"UPDATE {idempotency.TABLE} SET expires_at = UTC_TIMESTAMP() - INTERVAL 1 SECOND "
        "WHERE idempotency_key = 'old'",
    )
    monkeypatch.setattr(idempotency, "SWEEP_EVERY", 0)
    io(db.shard(1).run(buy(io), idempotency_key="another"))
    assert keys(databases) == [b"another", b"young"]


def test_a_result_that_was_there_is_an_event(db: Any, io: IO) -> None:
    seen: List[CoordinationEvent] = []
    db.on("idempotency_hit", seen.append)
    for _ in range(3):
        io(db.shard(1).run(buy(io), idempotency_key="canary"))
    io.wait_for(lambda: len(seen) == 2)
    assert {(each.target, each.shard_id, each.number) for each in seen} == {("shard 1", 1, 1)}
    assert "canary" not in repr(seen)
