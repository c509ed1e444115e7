"""Hooks and interceptors of calls."""

import asyncio
import contextlib
import logging
import sys
from typing import Any, Callable, List

import pytest
from apis import session
from database_servers import Databases
from io_kinds import IO

from dualdb import (
    ConnectionLost,
    DeadlineExceeded,
    Error,
    InterfaceError,
    ParameterError,
    PoolEvent,
    PoolTimeout,
    ProgrammingError,
    QueryCall,
    QueryEvent,
    RoutingError,
    ScatterError,
    TransactionAborted,
    TransactionEvent,
)

# Their events are those of the background.
pytestmark = pytest.mark.usefixtures("frequent_maintenance")

INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, 'A', 1)"


@pytest.fixture
def db(open_service: Callable[..., Any]) -> Any:
    return open_service(refresh_interval=None)


@pytest.fixture
def seen(db: Any) -> List[QueryEvent]:
    """The query events of the service."""
    events: List[QueryEvent] = []
    db.on("query", events.append)
    return events


def test_a_hook_gets_what_a_call_was_and_took(db: Any, io: IO, seen: List[QueryEvent]) -> None:
    io(db.session(session(1)).execute(INSERT, (7,)))
    io(db.shard(1).query("SELECT id, user_id FROM trades WHERE user_id IN (%s, %s)", (7, 8)))
    io(db.query("SELECT SLEEP(0.05) AS s, 'secret' AS b"))
    written, read, slept = seen
    assert written.statement == "INSERT INTO trades (user_id, symbol, qty) VALUES (?)"
    assert (written.name, written.target, written.shard_id) == ("query", "shard 1", 1)
    assert (written.rows, read.rows, slept.rows) == (1, 1, 1)
    assert read.statement == "SELECT id, user_id FROM trades WHERE user_id IN (?)"
    assert (slept.target, slept.shard_id) == ("global", None)
    assert slept.ran >= 0.05
    assert slept.waited >= 0
    assert slept.seconds == slept.waited + slept.ran
    assert [event.attempts for event in seen] == [1, 1, 1]
    assert [event.error for event in seen] == [None] * 3
    assert [len(event.digest) for event in seen] == [16] * 3
    assert "secret" not in repr(seen)
    assert seen[0].call.params == (7,)


def test_a_hook_gets_the_error(db: Any, io: IO, seen: List[QueryEvent]) -> None:
    with pytest.raises(ProgrammingError) as caught:
        io(db.query("SELECT * FROM absent WHERE a = %s", (1,)))
    (event,) = seen
    assert event.error is caught.value
    assert event.rows is None
    assert event.as_dict()["error"] == "ProgrammingError"


def test_a_call_in_a_transaction_is_marked(db: Any, io: IO, seen: List[QueryEvent]) -> None:
    with io.entered(db.shard(1).transaction()) as tx:
        io(tx.query("SELECT 1"))
        io(db.shard(1).query("SELECT 2"))
    assert [event.in_transaction for event in seen] == [True, True]
    io(db.shard(1).query("SELECT 2"))
    assert not seen[-1].in_transaction


def test_a_hook_that_fails_hurts_no_call_and_is_logged_once(
    db: Any, io: IO, seen: List[QueryEvent], caplog: pytest.LogCaptureFixture
) -> None:
    @db.on("query")  # type: ignore[untyped-decorator, unused-ignore]
    def fails(event: QueryEvent) -> None:
        raise ZeroDivisionError

    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            assert io(db.query_value("SELECT 1")) == 1
    assert len(seen) == 3
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_hook_that_is_removed_is_not_called(db: Any, io: IO, seen: List[QueryEvent]) -> None:
    io(db.query("SELECT 1"))
    db.off("query", seen.append)
    io(db.query("SELECT 1"))
    assert len(seen) == 1


def test_interceptors_may_tag(db: Any, io: IO, seen: List[QueryEvent]) -> None:
    @db.add_interceptor  # type: ignore[untyped-decorator, unused-ignore]
    def tag(call: QueryCall) -> None:
        call.tags["route"] = "/x*/ '; DROP TABLE trades; -- 거래"
        call.context["tagged"] = True

    own = "SELECT info FROM information_schema.processlist WHERE id = CONNECTION_ID()"
    sent = io(db.query_value(own))
    assert sent.startswith(f"{own} /*route='%2Fx%2A%2F%20%27%3B%20DROP%20")
    assert sent.endswith("'*/")
    assert seen[0].call.context == {"tagged": True}
    assert io(db.query_value("SELECT 1;\n")) == 1
    assert io(db.query_value("SELECT 2 -- to the end")) == 2
    db.remove_interceptor(tag)
    assert io(db.query_value(own)) == own


def test_an_interceptor_may_refuse(db: Any, io: IO, seen: List[QueryEvent]) -> None:
    class Refused(Exception):
        pass

    @db.add_interceptor  # type: ignore[untyped-decorator, unused-ignore]
    def refuse(call: QueryCall) -> None:
        if call.sql.startswith("INSERT"):
            raise Refused(call.target)

    with pytest.raises(Refused, match="shard 1"):
        io(db.shard(1).execute(INSERT, (7,)))
    assert [(event.attempts, type(event.error)) for event in seen] == [(0, Refused)]
    assert io(db.shard(1).query_value("SELECT COUNT(*) FROM trades")) == 0


def test_hooks_of_asyncio_may_wait(
    db: Any, io: IO, seen: List[QueryEvent], caplog: pytest.LogCaptureFixture
) -> None:
    order: List[str] = []

    @db.add_interceptor  # type: ignore[untyped-decorator, unused-ignore]
    async def before(call: QueryCall) -> None:
        await asyncio.sleep(0)
        order.append("before")

    if io.name == "sync":
        with pytest.raises(TypeError, match="for the asyncio service"):
            io(db.query("SELECT 1"))
        db.remove_interceptor(before)

    @db.on("query")  # type: ignore[untyped-decorator, unused-ignore]
    async def after(event: QueryEvent) -> None:
        await asyncio.sleep(0)
        order.append("after")

    assert io(db.query_value("SELECT 1")) == 1
    assert order == ([] if io.name == "sync" else ["before", "after"])
    assert ("for the asyncio service" in caplog.text) is (io.name == "sync")


def test_each_shard_of_a_scatter_is_an_event(db: Any, io: IO, seen: List[QueryEvent]) -> None:
    io(db.shards().query("SELECT 1"))
    assert sorted(event.target for event in seen) == ["shard 1", "shard 2"]


def test_there_is_no_such_event(db: Any) -> None:
    with pytest.raises(ValueError, match="event must be one of .*, not 'queries'"):
        db.on("queries", print)
    with pytest.raises(ValueError, match="event must be one of"):
        db.off("queries", print)


def test_a_call_that_cannot_be_routed_is_no_query(db: Any, io: IO, seen: List[QueryEvent]) -> None:
    with pytest.raises(RoutingError):
        io(db.shard(99).query("SELECT 1"))
    assert seen == []


def test_a_scatter_is_an_event_with_one_for_each_shard(
    db: Any, io: IO, seen: List[QueryEvent], databases: Databases
) -> None:
    whole: List[QueryEvent] = []
    db.on("scatter", whole.append)
    io(db.shards().query("SELECT 1 UNION ALL SELECT 2"))
    (scatter,) = whole
    assert (scatter.name, scatter.target, scatter.rows, scatter.attempts) == (
        "scatter", "shards", 4, 2,
    )  # fmt: skip
    assert [event.call.parent for event in seen] == [scatter.call] * 2
    with pytest.raises(ScatterError) as caught:
        io(db.shards().query("SELECT * FROM absent"))
    assert whole[1].error is caught.value
    assert [type(event.error) for event in seen[2:]] == [ProgrammingError] * 2


def test_a_stream_is_an_event_when_it_ends(
    db: Any, io: IO, seen: List[QueryEvent], databases: Databases
) -> None:
    @db.add_interceptor  # type: ignore[untyped-decorator, unused-ignore]
    def tag(call: QueryCall) -> None:
        call.tags["job"] = "export"

    query = "SELECT info FROM information_schema.processlist WHERE id = CONNECTION_ID()"
    (row,) = io.collect(db.shard(1).stream(query))
    assert row["info"].endswith("/*job='export'*/")
    io.wait_for(lambda: len(seen) == 1)
    assert (seen[0].target, seen[0].rows, seen[0].error) == ("shard 1", 1, None)
    with pytest.raises(ProgrammingError) as caught:
        io.collect(db.shard(2).stream("SELECT * FROM absent"))
    io.wait_for(lambda: len(seen) == 2)
    assert (seen[1].rows, seen[1].error) == (None, caught.value)
    with io.entered(db.shard(1).transaction()) as tx:
        assert len(io.collect(tx.stream("SELECT 1 UNION SELECT 2"))) == 2
        io.wait_for(lambda: len(seen) == 3)
    assert (seen[2].in_transaction, seen[2].rows) == (True, 2)


def test_a_stream_may_be_refused(db: Any, io: IO, seen: List[QueryEvent]) -> None:
    def refuse(call: QueryCall) -> None:
        raise PermissionError(call.sql)

    db.add_interceptor(refuse)
    with pytest.raises(PermissionError, match="SELECT 1"):
        io.collect(db.stream("SELECT 1"))
    io.wait_for(lambda: len(seen) == 1)
    assert (seen[0].attempts, type(seen[0].error)) == (0, PermissionError)


def test_a_transaction_is_an_event(db: Any, io: IO) -> None:
    seen: List[TransactionEvent] = []
    db.on("transaction", seen.append)
    with io.entered(db.shard(1).transaction()) as tx, io.entered(tx.transaction()) as inner:
        io(inner.execute(INSERT, (7,)))
    with pytest.raises(ZeroDivisionError), io.entered(db.transaction()) as tx:
        io(tx.query("SELECT SLEEP(0.05)"))
        raise ZeroDivisionError
    with io.entered(db.transaction()) as tx:
        io(tx.rollback())
    with pytest.raises(TransactionAborted), io.entered(db.transaction()) as tx:
        with pytest.raises(ConnectionLost):
            io(tx.query("KILL CONNECTION_ID()"))
    assert [(event.target, event.outcome) for event in seen] == [
        ("shard 1", "committed"),
        ("global", "rolled_back"),
        ("global", "rolled_back"),
        ("global", "rolled_back"),
    ]
    assert [type(event.error) for event in seen] == [
        type(None), ZeroDivisionError, type(None), TransactionAborted,
    ]  # fmt: skip
    assert seen[1].seconds >= 0.05
    assert seen[0].as_dict()["outcome"] == "committed"


def test_waits_and_connects_and_kills_are_events(
    open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    small = databases.config.model_copy(
        update={"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.2}
    )
    db = open_service(small, refresh_interval=None)
    seen: List[PoolEvent] = []
    for name in ("connect", "pool_wait", "kill"):
        db.on(name, seen.append)
    with pytest.raises(DeadlineExceeded):
        io(db.shard(1).query("SELECT SLEEP(5)", timeout=0.1))
    assert io(db.shard(1).query_value("SELECT 1")) == 1
    with io.entered(db.shard(1).transaction()):
        with pytest.raises(PoolTimeout):
            io.in_other_caller(lambda: db.shard(1).query("SELECT 1"))
    io.wait_for(lambda: {event.name for event in seen} == {"connect", "pool_wait", "kill"})
    io.wait_for(lambda: any(event.error for event in seen))
    assert {(event.target, event.shard_id) for event in seen} == {("shard 1", 1)}
    (kill,) = [event for event in seen if event.name == "kill"]
    assert (kill.detail, kill.error) == ("ended", None)
    waits = [event for event in seen if event.name == "pool_wait"]
    assert isinstance(waits[-1].error, PoolTimeout)
    assert waits[-1].seconds >= 0.2
    assert waits[-1].as_dict()["error"] == "PoolTimeout"


def test_slow_calls_are_logged_without_values(
    open_service: Callable[..., Any], io: IO, caplog: pytest.LogCaptureFixture
) -> None:
    db = open_service(refresh_interval=None, slow_threshold=0.0)
    with caplog.at_level(logging.DEBUG):
        io(db.query("SELECT 'canary', %s, SLEEP(0)", ("canary",)))
        with pytest.raises(ProgrammingError):
            io(db.query("SELECT 'canary' FROM absent"))
        io(db.shards().query("SELECT 1"))
    slow = [record for record in caplog.records if getattr(record, "event", "") == "slow_query"]
    assert [(record.name, record.levelname) for record in slow] == [("dualdb.query", "WARNING")] * 4
    first, failed, *scattered = slow
    assert first.getMessage().startswith("slow query on global: 0.")
    assert first.getMessage().endswith(": SELECT ?, SLEEP(?)")
    assert vars(first)["rows"] == 1
    assert "ProgrammingError" in failed.getMessage()
    assert {vars(record)["target"] for record in scattered} == {"shard 1", "shard 2"}
    # of this file, or of the adapter that makes the call for it
    places = [vars(record)["place"] for record in slow]
    if sys.version_info < (3, 10):  # what is thrown into generators has no callers there
        places.remove("?")
    assert all("/tests/" in place for place in places)
    assert "canary" not in caplog.text


def test_the_statements_that_take_longest_are_known(
    open_service: Callable[..., Any], io: IO
) -> None:
    db = open_service(refresh_interval=None, digests=True)
    for number in range(3):
        io(db.query(f"SELECT {number} AS a"))
    io(db.query("SELECT SLEEP(%s)", (0.02,)))
    quick, slow = db.top(by="calls")
    assert slow.longest >= 0.02
    assert {each.digest for each in db.top()} == {quick.digest, slow.digest}
    assert (slow.statement, slow.calls) == ("SELECT SLEEP(?)", 1)
    assert (quick.statement, quick.calls, quick.rows) == ("SELECT ? AS a", 3, 3)
    assert db.top(1, by="calls") == [quick]
    with pytest.raises(ParameterError, match="by must be one of total, mean"):
        db.top(by="cost")
    with pytest.raises(InterfaceError, match="digests=True"):
        open_service(refresh_interval=None).top()


def test_statements_that_are_sent_together_are_tagged_and_observed(
    db: Any, io: IO, seen: List[QueryEvent]
) -> None:
    db.add_interceptor(lambda call: call.tags.update(job="import"))
    rows = [(number, "A", 1) for number in range(50)]
    inserted = io(
        db.shard(1).executemany(
            "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, %s, %s)", rows, chunk_rows=20
        )
    )
    updated = io(
        db.shard(1).executemany(
            "UPDATE trades SET qty = %s WHERE user_id = %s", [(2, n) for n in range(50)]
        )
    )
    assert (inserted, updated) == (50, 50)
    assert sum(event.rows or 0 for event in seen) == 100
    assert seen[0].statement == "INSERT INTO trades (user_id, symbol, qty) VALUES (?)"
    assert seen[-1].statement == "UPDATE trades SET qty = ? WHERE user_id = ?"


def test_a_call_is_routed_once_although_it_is_observed(
    open_service: Callable[..., Any], io: IO
) -> None:
    asked: List[int] = []

    def shard_of_key(key: int) -> int:
        asked.append(key)
        return 1

    db = open_service(refresh_interval=None, shard_of_key=shard_of_key, digests=True)
    assert io(db.key(7).query_value("SELECT 1")) == 1
    assert asked == [7]


def test_nothing_that_is_logged_has_values(
    open_service: Callable[..., Any],
    io: IO,
    databases: Databases,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever goes wrong: parameters and literals are the application's."""
    db = open_service(refresh_interval=0.2, slow_threshold=0.0, digests=True)
    instructions = [
        ("INSERT INTO trades (id, user_id, symbol, qty) VALUES (7, 1, %s, 1)", ("canary",)),
        ("INSERT INTO trades (id, user_id, symbol, qty) VALUES (7, 1, %s, 1)", ("canary",)),
        ("SELECT * FROM trades WHERE symbol = %s AND nowhere = 'canary'", ("canary",)),
        ("SELECT 'canary' FROM canary_free WHERE", None),
        ("SELECT %s, SLEEP(3)", ("canary",)),
    ]
    with caplog.at_level(logging.DEBUG):
        for sql, params in instructions:
            with contextlib.suppress(Error):
                io(db.shard(1).execute(sql, params, timeout=0.3))
        with contextlib.suppress(Error), io.entered(db.shard(1).transaction()) as tx:
            io(tx.query("SELECT %s, 'canary'", ("canary",)))
            io(tx.query("KILL CONNECTION_ID()"))
        with contextlib.suppress(Error):
            io.collect(db.shards().merge("SELECT 'canary' AS a FROM nowhere", order_by="a"))
        databases.set_row(2, password="canary", port=1)
        io(db.refresh())
        with contextlib.suppress(Error):
            io(db.shard(2).query("SELECT %s", ("canary",)))
    assert len(caplog.records) > 8
    assert "canary" not in caplog.text.replace("canary_free", "")
    for record in caplog.records:
        assert "canary" not in repr(vars(record)).replace("canary_free", "")


def test_interceptors_are_called_in_their_order_until_one_refuses(
    db: Any, io: IO, seen: List[QueryEvent]
) -> None:
    order: List[str] = []

    def first(call: QueryCall) -> None:
        order.append("first")

    def second(call: QueryCall) -> None:
        order.append("second")
        raise PermissionError

    db.add_interceptor(first)
    db.add_interceptor(second)
    db.add_interceptor(lambda call: order.append("third"))
    db.on("query", lambda event: order.append(type(event.error).__name__))
    with pytest.raises(PermissionError):
        io(db.query("SELECT 1"))
    assert order == ["first", "second", "PermissionError"]
