"""Who takes part in a transaction: its context and its caller, and nobody else."""

import asyncio
import contextvars
import gc
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Callable, Iterator, List

import pytest
from database_servers import Databases
from io_kinds import IO

import dualdb
from dualdb import (
    ConcurrentUseError,
    CrossShardError,
    DeadlineExceeded,
    InterfaceError,
    Rollback,
    TransactionAborted,
)
from dualdb.api.interfaces import block_of
from dualdb.deadlines import Deadline

INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, 'A', 1)"


def users(databases: Databases, name: Any = 1) -> List[int]:
    rows = databases.run(name, "SELECT user_id FROM trades ORDER BY user_id")
    return [row["user_id"] for row in rows]


@pytest.fixture
def threaded(databases: Databases) -> Iterator[Any]:
    """A threaded service, for what only threads do."""
    with dualdb.DatabaseService(databases.config) as db:
        yield db


class Requests:
    """Runs each step of a request in whichever worker thread is asked for, with a copy
    of the request's context, as a web framework does.
    """

    def __init__(self, workers: int) -> None:
        self._workers = [ThreadPoolExecutor(1) for _ in range(workers)]

    def __call__(self, worker: int, function: Callable[..., Any], *args: Any) -> Any:
        context = contextvars.copy_context()
        return self._workers[worker].submit(context.run, function, *args).result()

    def close(self) -> None:
        for worker in self._workers:
            worker.shutdown()


@pytest.fixture
def step() -> Iterator[Requests]:
    made = Requests(3)
    yield made
    made.close()


@pytest.mark.parametrize("leaver", [0, 1])
def test_another_request_of_the_same_thread_is_outside(
    threaded: Any, databases: Databases, step: Requests, leaver: int
) -> None:
    tx = threaded.shard(1).transaction()
    step(0, tx.__enter__)
    assert step(0, threaded.shard(1).execute, INSERT, (1,)) == 1
    assert step(1, tx.execute, INSERT, (2,)) == 1, "its own verbs work in any thread"
    assert step(0, threaded.shard(2).execute, INSERT, (3,)) == 1, "nobody else's shard"
    step(leaver, tx.__exit__, ValueError, ValueError(), None)
    assert (users(databases), users(databases, 2)) == ([1], [3])
    again = threaded.shard(1).transaction()
    step(0, again.__enter__)
    step(1, again.execute, INSERT, (4,))
    step(2, again.__exit__, None, None, None)
    assert step(0, threaded.shard(1).execute, INSERT, (5,)) == 1
    assert users(databases) == [1, 4, 5]
    assert threaded.stats()[1].in_use == 0


@pytest.mark.parametrize("ends", ["close", "throw", "drop"])
def test_a_generator_that_is_suspended_in_its_block_has_it_alone(
    threaded: Any, databases: Databases, caplog: pytest.LogCaptureFixture, ends: str
) -> None:
    def work() -> Iterator[int]:
        with threaded.shard(1).transaction():
            threaded.shard(1).execute(INSERT, (1,))
            yield 1
            threaded.shard(1).execute(INSERT, (2,))
            yield 2

    generator = work()
    assert [next(generator), next(generator)] == [1, 2]
    for number in (3, 4):
        threaded.shard(1).execute(INSERT, (number,))
    assert caplog.text.count("goes outside the transaction") == 1, "once for a place"
    if ends == "close":
        generator.close()  # type: ignore[attr-defined]
    elif ends == "throw":
        with pytest.raises(KeyError):
            generator.throw(KeyError())  # type: ignore[attr-defined]
    del generator
    assert users(databases) == [3, 4]
    threaded.shard(1).execute(INSERT, (5,))
    assert users(databases) == [3, 4, 5]


@pytest.mark.filterwarnings("ignore::dualdb.SyncInLoopWarning")
def test_tasks_of_one_thread_do_not_share_a_block_of_the_threaded_service(
    threaded: Any, databases: Databases
) -> None:
    async def first(begun: asyncio.Event, end: asyncio.Event) -> None:
        with pytest.raises(ZeroDivisionError), threaded.shard(1).transaction():
            threaded.shard(1).execute(INSERT, (1,))
            begun.set()
            child = asyncio.ensure_future(second(begun, 3))
            await end.wait()
            await child
            raise ZeroDivisionError

    async def second(begun: asyncio.Event, number: int) -> None:
        await begun.wait()
        threaded.shard(1).execute(INSERT, (number,))

    async def main() -> None:
        begun, end = asyncio.Event(), asyncio.Event()
        running = [asyncio.ensure_future(each) for each in (first(begun, end), second(begun, 2))]
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        end.set()
        await asyncio.gather(*running)

    asyncio.run(main())
    assert users(databases) == [2, 3]


def in_child(io: IO, call: Callable[[], Any]) -> Any:
    """The outcome of a call by a child that inherits the caller's context."""
    if io.name == "sync":
        context, outcome = contextvars.copy_context(), []

        def work() -> None:
            try:
                outcome.append(call())
            except Exception as error:
                outcome.append(error)

        thread = threading.Thread(target=context.run, args=(work,))
        thread.start()
        thread.join()
        return outcome[0]

    async def child() -> Any:
        outcome: Any = (await asyncio.gather(call(), return_exceptions=True))[0]
        return outcome

    return io(child())


def test_a_child_is_outside_and_that_is_logged_once(
    db: Any, io: IO, databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ZeroDivisionError), io.entered(db.shard(1).transaction()):
        for number in (1, 2):
            assert in_child(io, partial(db.shard(1).execute, INSERT, (number,))) == 1
        assert in_child(io, lambda: db.query_value("SELECT 7")) == 7, "another database"
        raise ZeroDivisionError
    assert users(databases) == [1, 2]
    assert caplog.text.count("goes outside the transaction") == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_child_tasks_may_be_an_error(
    open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    db = open_service(child_tasks="error")
    with io.entered(db.shard(1).transaction()) as tx:
        outcome = in_child(io, lambda: db.shard(1).execute(INSERT, (1,)))
        assert isinstance(outcome, InterfaceError)
        assert "opened the transaction at" in str(outcome)
        assert outcome.sent is False
        assert in_child(io, lambda: tx.execute(INSERT, (2,))) == 1
        assert io(db.shard(1).execute(INSERT, (3,))) == 1
    assert users(databases) == [2, 3]


def test_child_tasks_may_join(
    open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    db = open_service(child_tasks="join")
    with pytest.raises(ZeroDivisionError), io.entered(db.shard(1).transaction()):
        if io.name == "sync":
            contexts = [contextvars.copy_context() for _ in range(4)]
            with ThreadPoolExecutor(4) as executor:
                done = [
                    executor.submit(context.run, db.shard(1).execute, INSERT, (number,))
                    for number, context in enumerate(contexts)
                ]
                assert [each.result() for each in done] == [1] * 4
        else:

            async def at_once() -> Any:
                calls = [db.shard(1).execute(INSERT, (number,)) for number in range(4)]
                return await asyncio.gather(*calls)

            assert io(at_once()) == [1] * 4
        outcome = in_child(io, lambda: db.shard(2).execute(INSERT, (9,)))
        assert isinstance(outcome, CrossShardError)
        assert io(db.shard(1).query_value("SELECT COUNT(*) FROM trades")) == 4
        raise ZeroDivisionError
    assert users(databases) == []
    with pytest.raises(ValueError, match="child_tasks"):
        io.Service(databases.config, child_tasks="no")
    with pytest.raises(ValueError, match="child_tasks"):
        io.Client(databases.config, child_tasks="no")


def new_event(io: IO) -> Any:
    """An event whose ``wait()`` is awaited in asyncio."""
    if io.name == "sync":
        return threading.Event()

    async def make() -> Any:
        return asyncio.Event()

    return io(make())


def as_children(io: IO, *calls: Callable[[], Any]) -> List[Any]:
    """The outcomes of calls at the same time by children with the caller's context."""
    return io.concurrently([partial(contextvars.copy_context().run, call) for call in calls])


@pytest.mark.parametrize(
    ("child_tasks", "through"),
    # a child's call through the service is outside without "join"
    [("join", "service"), *itertools.product(["join", "warn"], ["tx", "stream", "cursor"])],
)
def test_a_savepoint_takes_along_nobody_else_s_writes(
    open_service: Callable[..., Any], io: IO, databases: Databases, child_tasks: str, through: str
) -> None:
    db = open_service(child_tasks=child_tasks)
    shard = db.shard(1)
    opened, tried = new_event(io), new_event(io)

    def keeper(inner: Any) -> Any:
        yield inner.execute(INSERT, (1,))
        opened.set()
        yield tried.wait()
        yield inner.execute(INSERT, (2,))
        raise Rollback

    def other() -> Any:
        yield opened.wait()
        try:
            if through == "stream":
                yield io.advance(tx.stream("SELECT 1"))
            elif through == "cursor":
                tx.cursor()
            else:
                yield (tx if through == "tx" else shard).execute(INSERT, (3,))
        finally:
            tried.set()

    with io.entered(shard.transaction()) as tx:
        kept, refused = as_children(io, io.block(tx.transaction, keeper), io.function(other))
        assert kept is None
        assert isinstance(refused, ConcurrentUseError)
        assert "savepoint" in str(refused)
        assert (refused.sent, refused.target) == (False, "shard 1")
        assert io(shard.execute(INSERT, (4,))) == 1, "it has ended"
        assert in_child(io, lambda: tx.execute(INSERT, (5,))) == 1
    assert users(databases) == [4, 5]


def test_children_of_a_savepoint_s_block_are_inside(
    open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    shard = open_service(child_tasks="join").shard(1)
    with io.entered(shard.transaction()):
        with io.entered(shard.transaction()):
            calls = [partial(shard.execute, INSERT, (number,)) for number in range(3)]
            assert as_children(io, *calls) == [1] * 3
        with pytest.raises(ZeroDivisionError), io.entered(shard.transaction()):
            calls = [partial(shard.execute, INSERT, (number,)) for number in range(3, 6)]
            assert as_children(io, *calls) == [1] * 3
            raise ZeroDivisionError
    assert users(databases) == [0, 1, 2]


def test_savepoints_and_calls_of_children_wait_for_each_other(
    open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    shard = open_service(child_tasks="join").shard(1)

    def keeper(inner: Any) -> Any:
        return (yield inner.execute(INSERT, (1,)))

    with io.entered(shard.transaction()):
        done = as_children(
            io,
            partial(shard.query_value, "SELECT SLEEP(0.2)"),
            io.block(shard.transaction, keeper),
        )
        assert done == [0, 1]
    assert users(databases) == [1]


def test_a_call_does_not_wait_for_its_turn_beyond_its_deadline(
    open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    shard = open_service(child_tasks="join").shard(1)
    with io.entered(shard.transaction()) as tx:
        io.awaited(block_of(tx).begun.gate.acquire())
        with pytest.raises(DeadlineExceeded) as caught:
            io(shard.execute(INSERT, (1,), timeout=0.1))
        assert (caught.value.sent, caught.value.in_transaction) == (False, True)
        with pytest.raises(DeadlineExceeded), io.deadline(0.1):
            io.entered(shard.transaction()).__enter__()
        block_of(tx).begun.gate.release()
        io(shard.execute(INSERT, (2,)))
    assert users(databases) == [2]


@pytest.mark.slow
def test_a_transaction_that_nobody_holds_is_given_up(io: IO, databases: Databases) -> None:
    client = io.Client(databases.config_of(1, pool_size=1, max_overflow=0, pool_timeout=5))
    if io.name == "sync":
        tx = client.transaction(timeout=60)
        tx.__enter__()
    else:
        tx = client.transaction(timeout=60)
        io(tx.__aenter__())
    io(tx.execute(INSERT, (1,)))
    with io.entered(tx.transaction()):
        pass
    del tx
    gc.collect()
    assert io(client.execute(INSERT, (2,))) == 1
    assert users(databases) == [2]
    io.wait_for(lambda: client.stats().in_use == 0)
    io(client.close_pool())


def test_the_last_id_is_that_of_the_same_request(threaded: Any, step: Requests) -> None:
    def insert_and_ask() -> int:
        threaded.shard(1).execute(INSERT, (1,))
        return int(threaded.get_last_insert_id())

    first = step(0, insert_and_ask)
    assert first > 0
    assert step(0, threaded.get_last_insert_id) == 0, "another request of the same thread"
    threaded.shard(1).execute(INSERT, (1,))
    assert threaded.get_last_insert_id() > first
    assert step(0, threaded.get_last_insert_id) == 0


def test_a_deadline_that_is_left_elsewhere_is_refused(
    threaded: Any, step: Requests, caplog: pytest.LogCaptureFixture
) -> None:
    block = threaded.deadline(0.0)
    step(0, block.__enter__)
    assert step(0, threaded.query_value, "SELECT 7") == 7, "not that request's"
    with pytest.raises(InterfaceError, match="another context"):
        step(1, block.__exit__, None, None, None)
    step(0, block.__enter__)
    step(1, block.__exit__, KeyError, KeyError(), None)
    assert "another context" in caplog.text


def test_deadlines_nest_and_are_left_in_any_order(threaded: Any) -> None:
    outer, inner = Deadline(0.0), Deadline(100.0)
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(DeadlineExceeded):
        threaded.query("SELECT 1")
    outer.__exit__(None, None, None)
    assert threaded.query_value("SELECT 7") == 7
    inner.__exit__(None, None, None)
    with pytest.raises(InterfaceError):
        inner.__exit__(None, None, None)

    def limited() -> Iterator[int]:
        with Deadline(0.0):
            yield 1
            threaded.query("SELECT 1")

    generator = limited()
    next(generator)
    assert threaded.query_value("SELECT 7") == 7, "the generator's block is its own"
    with pytest.raises(DeadlineExceeded):
        next(generator)


def test_rolling_back_without_an_error(db: Any, io: IO, databases: Databases) -> None:
    with io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        tx.on_commit(lambda: pytest.fail("it is not committed"))
        with io.entered(tx.transaction()) as inner:
            io(inner.execute(INSERT, (2,)))
            io(inner.rollback())
            with pytest.raises(InterfaceError, match="is over"):
                io(inner.execute(INSERT, (3,)))
        assert io(tx.query_value("SELECT COUNT(*) FROM trades")) == 1
        io(tx.rollback())
        with pytest.raises(InterfaceError, match="is over"):
            io(tx.execute(INSERT, (4,)))
    assert users(databases) == []
    assert db.stats()[1].in_use == 0


def left_by_rollback(io: IO, db: Any) -> None:
    if io.name == "sync":
        with db.shard(1).transaction() as tx:
            tx.execute(INSERT, (1,))
            with db.shard(1).transaction() as inner:
                inner.execute(INSERT, (2,))
                raise Rollback
            tx.execute(INSERT, (3,))  # type: ignore[unreachable]
        with db.shard(1).transaction() as tx:
            tx.execute(INSERT, (4,))
            raise Rollback
        return

    async def blocks() -> None:
        async with db.shard(1).transaction() as tx:
            await tx.execute(INSERT, (1,))
            async with db.shard(1).transaction() as inner:
                await inner.execute(INSERT, (2,))
                raise Rollback
            await tx.execute(INSERT, (3,))  # type: ignore[unreachable]
        async with db.shard(1).transaction() as tx:
            await tx.execute(INSERT, (4,))
            raise Rollback

    io(blocks())


def test_raising_rollback_leaves_the_block_quietly(db: Any, io: IO, databases: Databases) -> None:
    left_by_rollback(io, db)
    assert users(databases) == [1, 3]


def test_a_savepoint_that_outlives_its_transaction_says_so(
    db: Any, io: IO, databases: Databases
) -> None:
    with io.entered(db.shard(1).transaction()) as tx:
        inner = io.entered(tx.transaction())
        inner.__enter__()
        io(tx.rollback())
    with pytest.raises(TransactionAborted):
        inner.__exit__(None, None, None)
    assert users(databases) == []
