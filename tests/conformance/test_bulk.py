"""Many rows at once."""

import asyncio
from typing import Any, Iterator, List

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import IntegrityError, ParameterError
from dualdb.results import RowCount

INSERT = "INSERT INTO bulk (id, text) VALUES (%s, %s)"


@pytest.fixture
def table(databases: Databases) -> Any:
    databases.run(
        1, "DROP TABLE IF EXISTS bulk", "CREATE TABLE bulk (id INT PRIMARY KEY, text LONGTEXT)"
    )
    return databases


def count(databases: Databases) -> int:
    return int(databases.value(1, "SELECT COUNT(*) FROM bulk"))


@pytest.mark.parametrize("target", [lambda db: db.shard(1), lambda db: db.get_shard_client(1)])
def test_rows_of_any_iterable_are_written_in_chunks(
    db: Any, io: IO, table: Any, target: Any
) -> None:
    written: List[int] = []
    response = io(
        target(db).executemany(
            INSERT, ((number, "it's 5%") for number in range(2500)), progress=written.append
        )
    )
    assert (response, type(response), written) == (2500, RowCount, [1000, 2000, 2500])
    assert table.run(
        1, "SELECT COUNT(*) AS n, MIN(id) AS a, MAX(id) AS b, MIN(text) AS t FROM bulk"
    ) == [{"n": 2500, "a": 0, "b": 2499, "t": "it's 5%"}]
    assert io(target(db).executemany(INSERT, [])) == 0


@pytest.mark.slow
def test_more_than_the_server_takes_at_once(db: Any, io: IO, table: Any) -> None:
    rows = [(number, "x" * 600_000) for number in range(30)]
    assert io(db.shard(1).executemany(INSERT, rows)) == 30
    assert table.value(1, "SELECT SUM(LENGTH(text)) FROM bulk") == 30 * 600_000


def test_a_chunk_that_fails_is_named(db: Any, io: IO, table: Any) -> None:
    rows = [(min(number, 24), "x") for number in range(40)]
    with pytest.raises(IntegrityError) as caught:
        io(db.shard(1).executemany(INSERT, rows, chunk_rows=10))
    assert (caught.value.rows, caught.value.errno) == ((20, 29), 1062)
    assert count(table) == 20, "what came before it has been written"
    with pytest.raises(IntegrityError), io.entered(db.shard(1).transaction()) as tx:
        io(tx.executemany(INSERT, [(number + 100, "x") for number in range(20)], chunk_rows=10))
        io(tx.executemany(INSERT, rows))
    assert count(table) == 20


def test_bad_rows_are_refused_before_their_chunk_is_sent(db: Any, io: IO, table: Any) -> None:
    def rows() -> Iterator[Any]:
        yield 1, "x"
        yield 2, object()

    with pytest.raises(ParameterError, match="row 1: a object cannot be a parameter"):
        io(db.shard(1).executemany(INSERT, rows()))
    for chunk_rows in (0, True, "many"):
        with pytest.raises(ParameterError, match="chunk_rows must be an int"):
            io(db.shard(1).executemany(INSERT, [(1, "x")], chunk_rows=chunk_rows))
    assert count(table) == 0


def test_other_statements_are_sent_row_by_row(db: Any, io: IO, table: Any) -> None:
    io(db.shard(1).executemany(INSERT, [(1, "a"), (2, "b")]))
    again = (
        "INSERT INTO bulk (id, text) VALUES (%s, %s) ON DUPLICATE KEY UPDATE text = VALUES(text)"
    )
    assert io(db.shard(1).executemany(again, [(1, "c"), (3, "d")])) == 3
    assert (
        io(
            db.shard(1).executemany(
                "UPDATE bulk SET text = %(text)s WHERE id = %(id)s",
                [{"id": 1, "text": "e"}, {"id": 9, "text": "f"}],
            )
        )
        == 1
    )
    assert [row["text"] for row in table.run(1, "SELECT text FROM bulk ORDER BY id")] == [
        "e",
        "b",
        "d",
    ]


def test_rows_and_progress_may_be_awaited_in_asyncio(db: Any, io: IO, table: Any) -> None:
    taken: List[int] = []
    written: List[int] = []
    ahead: List[int] = []

    async def rows() -> Any:
        for number in range(2500):
            await asyncio.sleep(0)
            taken.append(number)
            yield number, "x"

    async def progress(count: int) -> None:
        await asyncio.sleep(0)
        ahead.append(len(taken) - count)
        written.append(count)

    target: Any = db.shard(1)
    if io.name == "sync":
        wrongs: Any = [{"rows": rows()}, {"rows": [(1, "x")], "progress": progress}]
        for wrong in wrongs:
            with pytest.raises(ParameterError, match="requires the asyncio service"):
                target.executemany(INSERT, **wrong)
        assert target.executemany(INSERT, [(1, "x")], progress=written.append) == 1
        return
    assert io(target.executemany(INSERT, rows(), progress=progress)) == 2500
    assert (written, ahead) == ([1000, 2000, 2500], [1, 1, 0]), "rows are taken as they are needed"
    assert count(table) == 2500
    assert (
        io(
            target.executemany(
                "UPDATE bulk SET text = 'y' WHERE id <> %s AND id = 7",
                only(7, 8),
                progress=written.append,
            )
        )
        == 1
    )


async def only(*numbers: int) -> Any:
    for number in numbers:
        yield (number,)


def test_what_the_rows_or_the_progress_raise_comes_out(db: Any, io: IO, table: Any) -> None:
    async def rows() -> Any:
        for number in range(15):
            yield number, "x"
        raise KeyError("rows")

    def plain_rows() -> Any:
        for number in range(15):
            yield number, "x"
        raise KeyError("rows")

    def progress(written: int) -> None:
        raise KeyError("progress")

    async def awaited_progress(written: int) -> None:
        raise KeyError("progress")

    is_async = io.name == "async"
    with pytest.raises(KeyError, match="rows"):
        io(db.shard(1).executemany(INSERT, rows() if is_async else plain_rows(), chunk_rows=10))
    assert count(table) == 10
    with pytest.raises(KeyError, match="rows"), io.entered(db.shard(1).transaction()) as tx:
        io(
            tx.executemany(
                INSERT.replace("INSERT", "REPLACE"),
                rows() if is_async else plain_rows(),
                chunk_rows=5,
            )
        )
    assert count(table) == 10
    with pytest.raises(KeyError, match="progress"):
        io(
            db.shard(1).executemany(
                INSERT, [(100, "x")], progress=awaited_progress if is_async else progress
            )
        )
    with pytest.raises(ParameterError, match="rows must be an iterable of parameters, not int"):
        io(db.shard(1).executemany(INSERT, 5))
