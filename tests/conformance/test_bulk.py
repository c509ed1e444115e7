"""Many rows at once."""

import asyncio
import threading
import time
from typing import Any, Callable, Dict, Iterator, List

import pytest
from database_servers import Databases
from io_kinds import IO
from waiting import wait_for

from dualdb import (
    DatabaseService,
    DeadlineExceeded,
    IntegrityError,
    InterfaceError,
    ParameterError,
    ProgrammingError,
    TransactionAborted,
)
from dualdb.results import RowCount
from dualdb.testing import FakeRouter

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


UPDATE = "UPDATE bulk SET text = CONCAT(text, %s) WHERE id = %s"


def texts(databases: Databases) -> List[str]:
    rows = databases.run(1, "SELECT text FROM bulk ORDER BY id")
    return [row["text"] for row in rows]


def test_updates_and_deletes_are_sent_together(db: Any, io: IO, table: Any) -> None:
    progress: List[int] = []
    ids = range(600)
    io(db.shard(1).executemany(INSERT, [(number, "it's;") for number in ids]))
    rows = [("it's \\; -- DROP", number) for number in ids]
    response = io(db.shard(1).executemany(UPDATE, rows, progress=progress.append))
    assert (response, progress) == (600, [256, 512, 600])
    assert set(texts(table)) == {"it's;it's \\; -- DROP"}
    deleted = io(db.shard(1).executemany("DELETE FROM bulk WHERE id = %s", [(n,) for n in ids]))
    assert (deleted, count(table)) == (600, 0)
    doubled = "INSERT INTO bulk (id, text) SELECT %s, %s FROM DUAL"
    written = io(db.shard(1).executemany(doubled, [(number, "x") for number in ids]))
    assert (written, count(table)) == (600, 600)


def test_the_row_whose_statement_failed_is_named(db: Any, io: IO, table: Any) -> None:
    io(db.shard(1).executemany(INSERT, [(number, "a") for number in range(20)]))
    move = "UPDATE bulk SET id = %s, text = 'b' WHERE id = %s"
    rows = [(number + 100 if number != 7 else 8, number) for number in range(20)]
    with pytest.raises(IntegrityError) as caught:
        io(db.shard(1).executemany(move, rows))
    assert (caught.value.rows, caught.value.errno) == ((7, 7), 1062)
    assert texts(table) == ["a"] * 13 + ["b"] * 7, "what came before it has been written"
    with pytest.raises(IntegrityError) as caught:
        io(db.shard(1).executemany(move, rows[7:], chunk_rows=3))
    assert (caught.value.rows, count(table)) == ((0, 0), 20)


def test_statements_together_in_a_transaction(db: Any, io: IO, table: Any) -> None:
    io(db.shard(1).executemany(INSERT, [(number, "a") for number in range(20)]))
    rows = [("b", number) for number in range(20)]
    move = "UPDATE bulk SET id = %s WHERE id = %s"
    with io.entered(db.shard(1).transaction()) as tx:
        assert io(tx.executemany(UPDATE, rows)) == 20
        with pytest.raises(IntegrityError) as caught:
            io(tx.executemany(move, [(50, 1), (3, 2), (51, 3)]))
        assert caught.value.rows == (1, 1)
        assert io(tx.query_value("SELECT GROUP_CONCAT(id) FROM bulk WHERE id > 18")) == "19,50"
        assert set(texts(table)) == {"a"}
    assert set(texts(table)) == {"ab"}


@pytest.mark.parametrize("row_decoder", ["auto", "driver"])
def test_a_session_takes_several_statements_in_no_other_command(
    databases: Databases, io: IO, table: Any, row_decoder: Any
) -> None:
    client = io.Client(databases.config_of(1, pool_size=1, row_decoder=row_decoder))
    io(client.executemany(INSERT, [(1, "a"), (2, "b")]))
    assert io(client.executemany(UPDATE, [("c", 1), ("d", 2)])) == 2
    for sql in ("SELECT 1; SELECT 2", "DELETE FROM bulk; DELETE FROM bulk"):
        with pytest.raises(ProgrammingError) as caught:
            io(client.query(sql))
        assert caught.value.errno == 1064
    with pytest.raises(ProgrammingError):
        io(client.executemany("UPDATE bulk SET text = %s; DELETE FROM bulk", [("a",), ("b",)]))
    assert texts(table) == ["ac", "bd"]
    assert client.stats().opened == 1
    io(client.close_pool())


def test_a_pipeline_runs_statements_in_order(db: Any, io: IO, table: Any) -> None:
    with io.entered(db.shard(1).transaction()) as tx:
        found = io(
            tx.pipeline(
                [
                    (INSERT, (1, "it's;")),
                    "UPDATE bulk SET text = 'b' WHERE id = 1",
                    ("SELECT id, text FROM bulk WHERE id IN %s", ([1, 2],)),
                    "CREATE TEMPORARY TABLE scratch (id INT)",
                    ("INSERT INTO scratch VALUES (%(id)s)", {"id": 7}),
                    "SELECT id FROM scratch WHERE id > 8",
                    "SELECT 5 AS n",
                ]
            )
        )
        rows = [{"id": 1, "text": "b"}]
        assert found == [1, 1, rows, 0, 1, [], [{"n": 5}]]
        assert type(found[0]) is RowCount
        assert io(tx.pipeline([])) == []
        many = [(INSERT, (number, "x")) for number in range(2, 702)]
        assert io(tx.pipeline(iter(many))) == [1] * 700
    assert count(table) == 701


def test_the_statement_of_a_pipeline_that_failed_is_named(db: Any, io: IO, table: Any) -> None:
    with io.entered(db.shard(1).transaction()) as tx:
        statements: List[Any] = [(INSERT, (number, "x")) for number in (1, 2, 1, 3)]
        with pytest.raises(IntegrityError) as caught:
            io(tx.pipeline(["DO 1", *statements]))
        assert caught.value.rows == (3, 3)
        assert io(tx.query_value("SELECT COUNT(*) FROM bulk")) == 2
        for wrong, match in (
            (7, "statement 1: a statement is a str"),
            (("SELECT %s", ()), "statement 1: the statement has 1 placeholder"),
        ):
            with pytest.raises(ParameterError, match=match):
                io(tx.pipeline([statements[0], wrong]))
        for word in ("COMMIT", "BEGIN"):
            with pytest.raises(InterfaceError, match=f"{word} inside a transaction"):
                io(tx.pipeline([statements[3], word]))
        with pytest.raises(ProgrammingError):
            io(tx.pipeline(["SELECT 1", "SELECT 1; DELETE FROM bulk"]))
        assert io(tx.query_value("SELECT COUNT(*) FROM bulk")) == 2
    assert count(table) == 2


def test_a_pipeline_that_is_late_ends_its_transaction(db: Any, io: IO, table: Any) -> None:
    with pytest.raises(TransactionAborted), io.entered(db.shard(1).transaction()) as tx:
        with pytest.raises(DeadlineExceeded) as caught:
            io(tx.pipeline([(INSERT, (1, "x")), "SELECT SLEEP(20)"], timeout=0.2))
        assert caught.value.rows == (0, 1)
    assert count(table) == 0


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


class Row(Dict[str, int]):
    """Calls a function when it is bound."""

    bound: Callable[[int], None]

    def __getitem__(self, key: str) -> int:
        value = super().__getitem__(key)
        self.bound(value)
        return value


def test_a_chunk_is_made_while_the_one_before_is_written(
    io: IO, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = threading.Event()
    monkeypatch.setattr(
        Row, "bound", lambda row, value: third.set() if value == 3 else None, raising=False
    )
    seen: List[bool] = []

    def answer(call: object) -> int:
        seen.append(third.wait(20))
        return 1

    with FakeRouter(1) as fake, io.entered(io.Service(fake.config)) as db:
        fake.on("INSERT", answer)
        rows = [Row(a=number) for number in (1, 2, 3, 4)]
        assert io(db.executemany("INSERT INTO t VALUES (%(a)s)", rows, chunk_rows=1)) == 4
    assert seen == [True] * 4


def test_an_answer_that_came_while_the_next_chunk_was_made_is_not_late(
    io: IO, table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = 0.0

    def wait_for_the_deadline(row: Row, value: int) -> None:
        if value == 4:
            wait_for(lambda: count(table) == 2)
            wait_for(lambda: time.monotonic() > ends + 0.05)

    monkeypatch.setattr(Row, "bound", wait_for_the_deadline, raising=False)
    rows = [Row(a=number) for number in (1, 2, 3, 4)]
    with io.entered(io.Service(table.config)) as db:
        io(db.shard(1).query("SELECT 1"))
        ends = time.monotonic() + 1.0
        with pytest.raises(DeadlineExceeded) as caught:
            io(
                db.shard(1).executemany(
                    "INSERT INTO bulk VALUES (%(a)s, '')", rows, chunk_rows=2, timeout=1.0
                )
            )
    assert (caught.value.rows, caught.value.sent, count(table)) == ((2, 3), False, 2)


def test_values_may_be_looked_up_in_the_transaction_that_writes_them(
    table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DatabaseService(table.config) as db, db.shard(1).transaction() as tx:
        monkeypatch.setattr(
            Row, "bound", lambda row, value: tx.query_value("SELECT 1"), raising=False
        )
        rows = [Row(a=number) for number in (1, 2, 3, 4)]
        assert tx.executemany("INSERT INTO bulk VALUES (%(a)s, '')", rows, chunk_rows=1) == 4
    assert count(table) == 4


def test_an_interrupt_while_a_chunk_is_made_loses_no_connection(
    table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(row: Row, value: int) -> None:
        if value == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Row, "bound", interrupt, raising=False)
    rows = [Row(a=number) for number in (1, 2, 3, 4)]
    with DatabaseService(table.config) as db:
        with pytest.raises(KeyboardInterrupt):
            db.shard(1).executemany("INSERT INTO bulk VALUES (%(a)s, '')", rows, chunk_rows=1)
        assert count(table) <= 1, "the server may not have come to it"
        assert db.shard(1).execute(INSERT, (7, "x")) == 1
        wait_for(lambda: db.stats()[1].in_use == 0)


def test_rows_of_a_generator_may_use_the_transaction_that_writes_them(table: Any) -> None:
    with DatabaseService(table.config) as db, db.shard(1).transaction() as tx:
        rows = ((number, tx.query_value("SELECT 'x'")) for number in range(3))
        assert tx.executemany(INSERT, rows, chunk_rows=1) == 3
    assert count(table) == 3
