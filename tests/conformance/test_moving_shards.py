"""A shard whose row says that it is moving: calls wait until it is active again, maybe
elsewhere, in a bounded number and for a bounded time.
"""

from typing import Any, Callable, Dict, List

import pytest
from apis import session
from database_servers import Databases
from io_kinds import IO

from dualdb import (
    CrossShardError,
    DeadlineExceeded,
    ParameterError,
    RouteReason,
    ServiceNotOpen,
    ShardUnavailable,
)

pytestmark = pytest.mark.slow

INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, 'A', 1)"
COUNT = "SELECT COUNT(*) FROM trades"


@pytest.fixture
def moving(open_service: Callable[..., Any], databases: Databases) -> Callable[..., Any]:
    """Open a service whose shard 1 is moving, which reads its table when it must."""

    def open_it(**limits: Any) -> Any:
        databases.set_row(1, status="moving")
        config = databases.config.model_copy(update=limits)
        return open_service(
            config, refresh_interval=None, absent_shard="error", shard_of_key=lambda key: key
        )

    return open_it


def end_move(databases: Databases) -> None:
    """Point shard 1's row at the database of shard 2, as another process does."""
    to = databases.config_of(2)
    databases.set_row(
        1, host=to.host, port=to.port, database_name=to.database, username=to.user, status="active"
    )


def waiting(db: Any) -> int:
    found: int = db._lifecycle.manager.waiting.waiting(1)
    return found


def calls_to(db: Any) -> Dict[str, Callable[..., Any]]:
    """Calls of every kind to shard 1, by session and by its number."""
    shard = db.shard(1)
    return {
        "query": lambda: shard.query(COUNT),
        "read": lambda: shard.read.query(COUNT),
        "execute": lambda: shard.execute(INSERT, (1,)),
        "session": lambda: db.session(session(1)).execute(INSERT, (1,)),
        "key": lambda: db.key(1).execute(INSERT, (1,)),
        "call": lambda: shard.call("portfolio", (1,)),
        "run": lambda: shard.run(lambda tx: tx.execute(INSERT, (1,))),
        "legacy": lambda: db.execute_shard_query(1, COUNT),
        "by session": lambda: db.execute_query_by_session(session(1), COUNT),
    }


@pytest.mark.parametrize("seen_by", ["a refresh", "the calls that wait"])
def test_a_switch_of_0_8_s_under_200_calls_a_second_costs_no_error(
    open_service: Callable[..., Any], io: IO, databases: Databases, seen_by: str
) -> None:
    db = open_service(refresh_interval=None)
    most = []

    def call(number: int) -> Callable[[], Any]:
        def body() -> Any:
            yield io.pause(number / 200)
            if number % 4 == 0:
                return (yield db.session(session(1)).query_value("SELECT 1"))
            return (yield db.session(session(1)).execute(INSERT, (number,)))

        return io.function(body)

    def switch() -> Any:
        yield io.pause(0.1)
        yield db.set_shard_status(1, "moving")
        yield io.pause(0.8)
        most.append(waiting(db))
        end_move(databases)
        if seen_by == "a refresh":
            yield db.refresh()

    outcomes = io.concurrently([*[call(number) for number in range(200)], io.function(switch)])
    assert outcomes == [1] * 200 + [None]
    assert most[0] > 20, "nobody has waited, which proves nothing"
    held: List[Any] = []
    for shard_id in (1, 2):
        held += databases.run(shard_id, "SELECT user_id FROM trades")
    written = [number for number in range(200) if number % 4]
    assert sorted(row["user_id"] for row in held) == written
    assert databases.value(2, COUNT) > 10
    assert waiting(db) == 0


def test_calls_of_every_kind_wait(moving: Any, io: IO, databases: Databases) -> None:
    db = moving()
    calls = calls_to(db)

    def transaction() -> Any:
        def body(tx: Any) -> Any:
            return (yield tx.execute(INSERT, (1,)))

        return io.block(db.shard(1).transaction, body)()

    def stream() -> Any:
        def body(rows: Any) -> Any:
            return (yield io.advance(rows))

        return io.block(lambda: db.shard(1).stream("SELECT 7 AS seven"), body)()

    calls.update(transaction=transaction, stream=stream)

    def switch() -> Any:
        while waiting(db) < len(calls):
            yield io.pause(0.01)
        end_move(databases)

    *outcomes, _ = io.concurrently([*calls.values(), io.function(switch)])
    failed = [each for each in outcomes if isinstance(each, BaseException)]
    assert failed == []
    assert outcomes[-1] == {"seven": 7}
    assert databases.value(1, COUNT) == 0
    assert databases.value(2, COUNT) == 5


def test_a_call_that_finds_the_buffer_full_is_refused_at_once(
    moving: Any, io: IO, databases: Databases
) -> None:
    db = moving()
    refused = []

    def body() -> Any:
        try:
            return (yield db.shard(1).execute(INSERT, (1,)))
        except ShardUnavailable as error:
            refused.append(error)
            end_move(databases)
            return None

    outcomes = io.concurrently([io.function(body)] * 201)
    assert (outcomes.count(1), outcomes.count(None)) == (200, 1)
    (error,) = refused
    assert str(error) == (
        "Shard 1 not available: it is moving; 200 calls wait for it (buffer_size)"
    )
    assert (error.retry_after, error.retryable, error.sent) == (1.0, True, False)
    assert databases.value(2, COUNT) == 200


def test_the_wait_is_bounded(moving: Any, io: IO, databases: Databases) -> None:
    db = moving(buffer_timeout=0.2)
    with pytest.raises(ShardUnavailable) as caught:
        io(db.shard(1).query(COUNT))
    assert caught.value.reason == "it is moving; the call has waited for 0.2 s (buffer_timeout)"
    assert (caught.value.retry_after, caught.value.sent) == (1.0, False)
    assert waiting(db) == 0
    assert io(db.shard(2).query_value(COUNT)) == 0


def test_without_a_buffer_calls_of_every_kind_are_refused(moving: Any, io: IO) -> None:
    db = moving(buffer_size=0)
    for name, call in calls_to(db).items():
        with pytest.raises(ShardUnavailable, match="^Shard 1 not available: it is moving; 0 calls"):
            io(call())
        assert waiting(db) == 0, name


def test_deadlines_end_the_wait(moving: Any, io: IO, databases: Databases) -> None:
    db = moving()
    message = "the deadline passed while waiting for shard 1, which is moving"
    with pytest.raises(DeadlineExceeded, match=message) as caught:
        io(db.shard(1).execute(INSERT, (1,), timeout=0.1))
    assert (caught.value.shard_id, caught.value.sent) == (1, False)
    with pytest.raises(DeadlineExceeded, match=message), io.deadline(0.1):
        io(db.session(session(1)).query(COUNT))
    with pytest.raises(DeadlineExceeded, match=message):
        io(db.shard(1).run(lambda tx: tx.execute(INSERT, (1,)), timeout=0.1))
    with pytest.raises(DeadlineExceeded, match=message):
        io.next_row(db.shard(1).stream(COUNT, timeout=0.1))
    assert databases.value(1, COUNT) == 0


def test_a_call_that_is_broken_off_leaves_its_place(moving: Any, io: IO) -> None:
    db = moving(buffer_size=1)
    io.interrupted(lambda: db.shard(1).execute(INSERT, (1,)))
    with pytest.raises(DeadlineExceeded):
        io(db.shard(1).execute(INSERT, (1,), timeout=0.1))
    assert waiting(db) == 0


def test_another_call_reads_the_table_when_the_one_that_did_has_ended(
    moving: Any, io: IO, databases: Databases
) -> None:
    db = moving()

    def first() -> Any:
        try:
            yield db.shard(1).query(COUNT, timeout=0.5)
        except DeadlineExceeded:
            end_move(databases)

    def second() -> Any:
        while not waiting(db):
            yield io.pause(0.01)
        return (yield db.shard(1).execute(INSERT, (1,)))

    assert io.concurrently([io.function(first), io.function(second)]) == [None, 1]


def test_closing_the_service_ends_the_waits(moving: Any, io: IO) -> None:
    db = moving()

    def close() -> Any:
        while waiting(db) < 3:
            yield io.pause(0.01)
        yield db.close_service()

    calls = [lambda: db.shard(1).query(COUNT)] * 3
    *outcomes, closed = io.concurrently([*calls, io.function(close)])
    assert [type(each) for each in outcomes] == [ServiceNotOpen] * 3
    assert closed is None


def test_a_row_that_is_deleted_or_suspended_meanwhile_ends_the_wait(
    moving: Any, io: IO, databases: Databases
) -> None:
    db = moving()
    for change, reason in (
        (lambda: databases.set_row(1, status="maintenance"), "it is in maintenance"),
        (
            lambda: databases.run("global", "DELETE FROM table_shard_config WHERE shard_id = 1"),
            "it is not in the shard table",
        ),
    ):
        databases.set_row(1, status="moving")
        io(db.refresh())

        def then(change: Callable[[], Any] = change) -> Any:
            while not waiting(db):
                yield io.pause(0.01)
            change()

        error, _ = io.concurrently([lambda: db.shard(1).query(COUNT), io.function(then)])
        assert isinstance(error, ShardUnavailable)
        assert error.reason == reason


def test_what_answers_without_io_does_not_wait(moving: Any, io: IO, databases: Databases) -> None:
    db = moving()
    assert db.get_shard_client(1) is None
    with pytest.raises(ShardUnavailable, match="^Shard 1 not available: it is moving$") as caught:
        db.get_client_by_session(session(1))
    assert caught.value.retry_after == 1.0
    assert io(db.get_active_shard_ids()) == [2]
    found = db.explain_route(shard_id=1)
    assert (found.target, found.reason) == (None, RouteReason.MOVING)
    assert found.detail == "shard 1 is moving: the call waits"
    assert (db.status().shards[1].state, db.status().shards[1].pool) == ("moving", None)
    assert io(db.health_check())["healthy"] is True
    report = io(db.health(deep=True))
    assert (report.state, report.databases["shard 1"].state) == ("ok", "suspended")
    assert report.databases["shard 1"].reason == "it is moving"
    assert not io(db.health(require=[1])).ready
    with pytest.raises(ParameterError, match="shard 1 is moving: drain it before it is removed"):
        io(db.remove_shard(1))


def test_a_transaction_that_is_open_ends_where_it_began(
    open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    db = open_service(refresh_interval=None)
    with io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        io(db.set_shard_status(1, "moving"))
        io(tx.execute(INSERT, (2,)))
        io(db.shard(1).execute(INSERT, (3,)))
        end_move(databases)
        io(db.refresh())
        assert io.in_other_caller(lambda: db.shard(1).execute(INSERT, (4,))) == 1
        io(db.shard(1).execute(INSERT, (5,)))
    assert (databases.value(1, COUNT), databases.value(2, COUNT)) == (4, 1)


def test_what_is_refused_anyway_is_refused_without_a_wait(moving: Any, io: IO) -> None:
    db = moving(buffer_size=0)
    with io.entered(db.shard(2).transaction()):
        with pytest.raises(CrossShardError):
            io(db.shard(1).query(COUNT))
    with io.entered(db.scope(shard_id=2, lock=True)):
        with pytest.raises(CrossShardError):
            io(db.shard(1).query(COUNT))


def test_a_scatter_waits_for_that_shard_alone(moving: Any, io: IO, databases: Databases) -> None:
    db = moving()
    some = io(db.shards(on_error="partial", max_concurrency=1).query_value("SELECT 5", timeout=0.2))
    assert some.by_shard == {2: 5}
    assert type(some.errors[1]) is DeadlineExceeded
    with io.deadline(0.2):
        some = io(db.shards(on_error="partial").query_value("SELECT 6"))
    assert (some.by_shard, type(some.errors[1])) == ({2: 6}, DeadlineExceeded)

    def switch() -> Any:
        while waiting(db) < 2:
            yield io.pause(0.01)
        end_move(databases)

    def merge() -> Any:
        return (yield io.advance(db.shards([1, 2]).merge("SELECT 7 AS seven", order_by="seven")))

    whole, row, _ = io.concurrently(
        [
            lambda: db.shards().query_value("SELECT DATABASE()"),
            io.function(merge),
            io.function(switch),
        ]
    )
    assert row == {"seven": 7}
    database = databases.config_of(2).database
    assert list(whole.by_shard.items()) == [(1, database), (2, database)]


def test_a_scatter_that_is_broken_off_sends_nothing_later(
    moving: Any, io: IO, databases: Databases
) -> None:
    db = moving()
    io.interrupted(lambda: db.shards([1, 2]).execute(INSERT, (1,)))
    assert databases.value(2, COUNT) == 1
    end_move(databases)
    io(db.refresh())
    io.wait_for(lambda: not waiting(db))
    assert io(db.shard(1).query_value("SELECT 1")) == 1
    assert databases.value(2, COUNT) == 1


def test_a_table_with_an_older_enum_says_how_it_is_altered(
    open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    databases.run(
        "global",
        "ALTER TABLE table_shard_config MODIFY status "
        "ENUM('active', 'inactive', 'maintenance') DEFAULT 'active'",
    )
    db = open_service(refresh_interval=None)
    with pytest.raises(ParameterError, match="does not allow 'moving': ALTER TABLE ") as caught:
        io(db.set_shard_status(1, "moving"))
    row = databases.config_of(2)
    with pytest.raises(ParameterError, match="does not allow 'moving': ALTER TABLE "):
        io(
            db.add_shard(
                3, host=row.host, port=row.port, database=row.database, user=row.user,
                password=row.reveal_password(), status="Moving",
            )
        )  # fmt: skip
    databases.run("global", str(caught.value).partition("'moving': ")[2])
    io(db.set_shard_status(1, "moving"))
    assert db.status().shards[1].state == "moving"
