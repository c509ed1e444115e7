"""Hooks and interceptors of calls."""

import asyncio
import logging
from typing import Any, Callable, List

import pytest
from apis import session
from database_servers import Databases
from io_kinds import IO

from dualdb import ProgrammingError, QueryCall, QueryEvent, RoutingError, ScatterError

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
    assert slept.ran >= 0.05 > slept.waited >= 0
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
