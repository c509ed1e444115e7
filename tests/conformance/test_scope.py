"""Scopes: a current database for the code below, and the lock against others."""

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Callable, Generator, List

import pytest
from apis import session
from database_servers import Databases
from io_kinds import IO

from dualdb import (
    AsyncDatabaseService,
    CrossShardError,
    DatabaseService,
    InterfaceError,
    KeyNotFound,
    LookupTable,
    ParameterError,
)

DATABASE = "SELECT DATABASE()"


def here(io: IO, call: Callable[[], Any]) -> Any:
    """The value of a call that is made by the caller of the test, who is a task in
    asyncio, and has a context of its own.
    """

    def body() -> Generator[Any, Any, Any]:
        return (yield call())

    return io(io.function(body)())


def shard_here(io: IO, db: Any) -> Any:
    return here(io, lambda: db.current.query_value(DATABASE))[-1]


def test_the_current_database_is_the_scopes(db: Any, io: IO) -> None:
    for scope, ending in [
        (db.scope(session(1)), "1"),
        (db.scope(shard_id=2), "2"),
        (db.scope(), "l"),
        (db.scope(session(None)), "l"),
        (db.scope(session(9)), "l"),
    ]:
        with io.entered(scope):
            assert shard_here(io, db) == ending


def test_a_key_is_looked_up_when_the_block_begins(
    databases: Databases, io: IO, open_service: Callable[..., Any]
) -> None:
    databases.run(
        "global",
        "DROP TABLE IF EXISTS homes",
        "CREATE TABLE homes (account_db_key BIGINT PRIMARY KEY, shard_id INT)",
        "INSERT INTO homes VALUES (7, 2)",
    )
    try:
        db = open_service(directory=LookupTable("homes"))
        with io.entered(db.scope(key=7, lock=True)):
            assert here(io, lambda: db.current.shard_id) == 2
            assert shard_here(io, db) == "2"
            io(db.directory.set(7, 1))
            assert shard_here(io, db) == "1", "a key that moves is followed"
        with pytest.raises(KeyNotFound), io.entered(db.scope(key=8)):
            pass
    finally:
        databases.run("global", "DROP TABLE homes")


def test_outside_there_is_none(db: Any, io: IO) -> None:
    with pytest.raises(InterfaceError, match="there is no scope here"):
        here(io, lambda: db.current)
    scope = db.scope(shard_id=1)
    with io.entered(scope):
        with pytest.raises(InterfaceError, match="while it is open"), io.entered(scope):
            pass
        assert shard_here(io, db) == "1"
    with pytest.raises(InterfaceError, match="there is no scope here"):
        here(io, lambda: db.current)


def test_scopes_nest(db: Any, io: IO, open_service: Callable[..., Any]) -> None:
    other = open_service()
    with io.entered(db.scope(shard_id=1)):
        with io.entered(db.scope(shard_id=2)), io.entered(other.scope(shard_id=1)):
            assert (shard_here(io, db), shard_here(io, other)) == ("2", "1")
        assert shard_here(io, db) == "1"


def test_a_locked_scope_refuses_other_shards(db: Any, io: IO) -> None:
    asks: List[Callable[[], Any]] = [
        lambda: db.shard(2).query(DATABASE),
        lambda: db.session(session(2)).query(DATABASE),
        lambda: db.shards().query(DATABASE),
        lambda: db.shards([1, 2], on_error="partial").query(DATABASE),
        lambda: db.execute_shard_query(2, DATABASE),
        lambda: db.execute_query_by_session(session(2), DATABASE),
        lambda: db.get_client_by_session(session(2)),
    ]
    with io.entered(db.scope(session(1), lock=True)):
        for ask in asks:
            with pytest.raises(CrossShardError, match="locked to") as caught:
                here(io, ask)
            assert caught.value.sent is False
        for block in (db.scope(shard_id=2), db.shard(2).transaction()):
            with pytest.raises(CrossShardError), io.entered(block):
                pass
        with io.entered(db.scope(shard_id=1)):
            assert shard_here(io, db) == "1"
            with pytest.raises(CrossShardError, match="locked to"):
                io(db.shard(2).query(DATABASE))
        assert io(db.shard(1).query_value(DATABASE))[-1] == "1"
        assert io(db.shards([1]).query(DATABASE)).errors == {}
        assert io(db.query_value(DATABASE))[-1] == "l", "the global database is free"
        with io.entered(here(io, lambda: db.current).transaction()) as tx:
            assert tx.shard_id == 1
        found = here(io, lambda: db.explain_route(shard_id=2))
        assert (found.target, found.reason.value) == (None, "locked_scope")
    assert io(db.shard(2).query_value(DATABASE))[-1] == "2"


def test_a_scope_without_a_shard_can_be_locked_too(db: Any, io: IO) -> None:
    with io.entered(db.scope(lock=True)):
        assert shard_here(io, db) == "l"
        with pytest.raises(CrossShardError, match="locked to"):
            io(db.shard(1).query(DATABASE))


def test_a_scope_that_cannot_begin_leaves_nothing(db: Any, io: IO) -> None:
    for options in ({"shard_id": 1, "key": 1}, {"session": session(1), "shard_id": 1}):
        with pytest.raises(ParameterError, match="scope takes a session, a shard_id or a key"):
            db.scope(**options)
    with pytest.raises(ParameterError), io.entered(db.scope(session("1"))):
        pass
    with pytest.raises(InterfaceError, match="there is no scope here"):
        here(io, lambda: db.current)


def test_two_hundred_callers_never_cross(db: Any, io: IO) -> None:
    def body(scope: Any) -> Generator[Any, Any, Any]:
        first = yield db.current.query_value(DATABASE)
        yield io.pause(0)
        return first[-1], (yield db.current.query_value(DATABASE))[-1]

    blocks = [
        io.block(partial(db.scope, shard_id=shard_id, lock=True), body) for shard_id in (1, 2)
    ]
    answers = io.concurrently(blocks * 100)
    assert answers == [("1", "1"), ("2", "2")] * 100


def test_a_scope_entered_elsewhere_is_not_here_and_ends_for_all(db: Any, io: IO) -> None:
    scope = db.scope(shard_id=1, lock=True)
    io.in_other_caller(lambda: io.enter(scope))
    with pytest.raises(InterfaceError, match="no scope here"):
        here(io, lambda: db.current)
    io(io.leave(scope))
    assert io(db.shard(2).query_value(DATABASE))[-1] == "2"


def test_it_follows_tasks_until_it_is_over(databases: Databases) -> None:
    async def main() -> None:
        ended = asyncio.Event()

        async def child(*, late: bool) -> str:
            if late:
                await ended.wait()
            return str(db.current.name)

        async with AsyncDatabaseService(databases.config) as db:
            async with db.scope(shard_id=2):
                assert await asyncio.create_task(child(late=False)) == "shard 2"
                assert await asyncio.to_thread(lambda: db.current.name) == "shard 2"
                waiting = asyncio.create_task(child(late=True))
                await asyncio.sleep(0)
            ended.set()
            with pytest.raises(InterfaceError, match="has ended"):
                await waiting

    asyncio.run(main())


def test_it_follows_threads_that_copy_the_context_until_it_is_over(databases: Databases) -> None:
    with DatabaseService(databases.config) as db, ThreadPoolExecutor(1) as executor:
        with db.scope(shard_id=2):
            context = contextvars.copy_context()
            found = executor.submit(context.run, lambda: db.current.name).result()
            assert found == "shard 2"
            with pytest.raises(InterfaceError, match="no scope here"):
                executor.submit(lambda: db.current).result()
        with pytest.raises(InterfaceError, match="has ended"):
            context.run(lambda: db.current)


def test_a_context_that_a_scope_was_entered_in_is_free_when_it_is_over(
    databases: Databases,
) -> None:
    context = contextvars.copy_context()
    with DatabaseService(databases.config) as db:
        scope = db.scope(shard_id=1, lock=True)
        context.run(scope.__enter__)
        assert context.run(lambda: db.current.name) == "shard 1"
        scope.__exit__()
        with pytest.raises(InterfaceError, match="has ended"):
            context.run(lambda: db.current)
        assert context.run(db.shard(2).query_value, DATABASE)[-1] == "2"
