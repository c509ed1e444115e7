"""What a caller sees of an error: one exception, and his own frames."""

import gc
import re
import traceback
import weakref
from functools import partial
from typing import Any, Callable, Dict, Generator, Iterator

import pytest
from database_servers import Databases
from io_kinds import IO

import dualdb
from dualdb import Error
from dualdb.api.interfaces import block_of

#: Frames of the package and what it stands on, beside the caller's own.
MOST_FRAMES = 4
INTERNAL = re.compile(r"/(?:dualdb|pymysql|aiomysql|asyncio)/[^/]+(?:/[^/]+)?\.py$")

MISTAKES: Dict[str, Callable[[Any], Any]] = {
    "syntax": lambda db: db.query("SELEC 1"),
    "query_one": lambda db: db.query_one("SELECT * FROM nowhere"),
    "query_value": lambda db: db.query_value("SELECT * FROM nowhere"),
    "execute": lambda db: db.execute("UPDATE nowhere SET a = 1"),
    "executemany": lambda db: db.executemany("INSERT INTO nowhere VALUES (%s)", [(1,)]),
    "call": lambda db: db.call("nothing"),
    "parameters": lambda db: db.query("SELECT %s", (1, 2)),
    "type of a parameter": lambda db: db.query("SELECT %s", (object(),)),
    "shard": lambda db: db.shard(77).query("SELECT 1"),
    "shard's statement": lambda db: db.shard(1).query("SELEC 1"),
    "scatter": lambda db: db.shards().query("SELEC 1"),
    "legacy": lambda db: db.execute_global_query("SELEC 1"),
    "duplicate": lambda db: db.execute("INSERT INTO shards (shard_id) SELECT shard_id FROM shards"),
}


def _internal_frames(error: BaseException) -> int:
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return sum(1 for file in files if INTERNAL.search(file) and "/tests/" not in file)


def _check_shown(error: Error) -> None:
    shown = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    assert _internal_frames(error) <= MOST_FRAMES, shown
    assert shown.count("Traceback (most recent call last)") == 1, shown


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_shows_few_frames_and_one_exception(db: Any, io: IO, mistake: str) -> None:
    with pytest.raises(Error) as caught:
        io(MISTAKES[mistake](db))
    _check_shown(caught.value)


@pytest.mark.parametrize("mistake", ["syntax", "execute", "call", "parameters"])
def test_a_mistake_in_a_transaction_shows_as_little(db: Any, io: IO, mistake: str) -> None:
    with io.entered(db.transaction()) as tx, pytest.raises(Error) as caught:
        io(MISTAKES[mistake](tx))
    _check_shown(caught.value)


def test_a_mistake_in_a_stream_shows_as_little(db: Any, io: IO) -> None:
    with pytest.raises(Error) as caught:
        io.collect(db.stream("SELECT * FROM nowhere"))
    _check_shown(caught.value)


def test_a_server_that_cannot_be_reached_is_one_exception(databases: Databases, io: IO) -> None:
    client = io.Client(databases.config.model_copy(update={"port": 1, "connect_timeout": 1.0}))
    with pytest.raises(dualdb.ConnectionFailed) as caught:
        io(client.query("SELECT 1"))
    _check_shown(caught.value)
    assert str(caught.value).count("(2003") == 1
    io(client.close_pool())


def test_frames_of_the_caller_in_between_are_kept(db: Any, io: IO) -> None:
    def rows() -> Iterator[Any]:
        yield (1,)
        raise dualdb.DataError("the caller's own")

    with pytest.raises(dualdb.DataError) as caught:
        io(db.executemany("INSERT INTO nowhere VALUES (%s)", rows()))
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "rows" in names


def test_a_fault_of_another_kind_keeps_all_its_frames(db: Any, io: IO) -> None:
    def rows() -> Iterator[Any]:
        yield (1,)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        io(db.executemany("INSERT INTO nowhere VALUES (%s)", rows()))
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert {"executemany", "rows"} <= set(names)


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def _mistake(call: Callable[[Any], Any], io: IO, db: Any) -> Any:
    return call(db)


async def _wrong_awaited(manager: Any) -> None:
    async with manager as tx:
        await tx.query("SELEC 1")


def _wrong(io: IO, db: Any) -> Any:
    if io.name == "async":
        return _wrong_awaited(db.transaction())
    with db.transaction() as tx:
        return tx.query("SELEC 1")


def _cut(tx: Any) -> Generator[Any, Any, None]:
    block_of(tx).begun.connection.abort()
    yield from ()


#: Calls that fail; in asyncio those that are still to be awaited.
RELEASED: Dict[str, Callable[[IO, Any], Any]] = {
    **{name: partial(_mistake, call) for name, call in MISTAKES.items()},
    "stream": lambda io, db: io.advance(db.stream("SELECT * FROM nowhere")),
    "transaction": _wrong,
    "its end": lambda io, db: io.block(db.transaction, _cut)(),
    "its beginning": lambda io, db: io.enter(db.shard(77).transaction()),
    "lock": lambda io, db: io.enter(db.shard(77).lock("name", timeout=1)),
}


async def _error_of_awaited(answer: Any) -> "weakref.ref[BaseException]":
    try:
        await answer
    except Error as error:
        return weakref.ref(error)
    raise AssertionError("there was no error")


def _error_of(io: IO, db: Any, mistake: str) -> "weakref.ref[BaseException]":
    try:
        answer = RELEASED[mistake](io, db)
    except Error as error:
        return weakref.ref(error)
    reference: weakref.ref[BaseException] = io.awaited(_error_of_awaited(answer))
    return reference


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("mistake", RELEASED)
def test_an_error_is_gone_as_soon_as_nobody_has_it(db: Any, io: IO, mistake: str) -> None:
    """Otherwise it keeps its frames, and the connections in them, until the garbage
    collector comes, which is late where everybody waits for a connection.
    """
    assert _error_of(io, db, mistake)() is None
