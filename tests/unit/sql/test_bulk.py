"""Rows written as chunks of one INSERT."""

import contextlib
import gc
import weakref
from typing import Any, Dict, Iterator, List, Optional

import pytest

from dualdb import ConcurrentUseError, ParameterError
from dualdb.protocol.exchange import TextEncoding
from dualdb.protocol.statements import Bulk
from dualdb.sql.bulk import Chunk, Chunks, ChunksAhead
from dualdb.sql.literals import LiteralStyle


def chunks(sql: str, rows: Any, most_rows: int, most_bytes: int) -> Iterator[Chunk]:
    return iter(ChunksAhead(Chunks(sql, most_rows, most_bytes), rows))


@pytest.mark.parametrize(
    ("sql", "rows", "texts"),
    [
        (
            "INSERT INTO t (a) VALUES (%s)",
            [(1,), (2,), (3,)],
            ["INSERT INTO t (a) VALUES (1),(2)", "INSERT INTO t (a) VALUES (3)"],
        ),
        (
            "insert into `values` value ( %(a)s , NOW(), 'x%%' )",
            [{"a": 1}] * 2,
            ["insert into `values` value ( 1 , NOW(), 'x%' ),( 1 , NOW(), 'x%' )"],
        ),
        (
            "REPLACE t VALUES (%s) ON DUPLICATE KEY UPDATE a = VALUES(a), b = '5%%';",
            [(1,), (2,)],
            ["REPLACE t VALUES (1),(2) ON DUPLICATE KEY UPDATE a = VALUES(a), b = '5%';"],
        ),
        (
            "INSERT INTO t VALUES (%s) ON DUPLICATE KEY UPDATE a = %s",
            [(1, 2)],
            ["INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = 2"],
        ),
        (
            "INSERT INTO t VALUES (%s, ')')",
            [(1,), (2,)],
            ["INSERT INTO t VALUES (1, ')'),(2, ')')"],
        ),
        *[
            (sql, [(1,), (2,)], [sql.replace("%s", "1"), sql.replace("%s", "2")])
            for sql in (
                "INSERT INTO t (b, a) VALUES (%s /* 1) as given */, 'x')",
                "INSERT INTO t (b, a) VALUES (%s, 'x' -- a) as b\n)",
                "INSERT INTO t VALUES (%s, ') as \\')",
                "UPDATE t SET a = %s; DROP TABLE t",
                "UPDATE t SET a = %s -- of b",
                "UPDATE t SET a = %s, b = 'x",
                "UPDATE t SET a = %s, b = '\\\\'",
                "/* of b */ UPDATE t SET a = %s",
                "ALTER TABLE t ADD a INT DEFAULT %s",
            )
        ],
        *[
            (
                sql,
                [(1,), (2,), (3,)],
                [
                    sql.replace("%s", "1") + "\n;\n" + sql.replace("%s", "2"),
                    sql.replace("%s", "3"),
                ],
            )
            for sql in (
                "INSERT INTO t VALUES (%s, LAST_INSERT_ID())",
                "INSERT INTO t VALUES (%s, (SELECT 1 FROM s))",
                "INSERT INTO t VALUES (%s, @last)",
                "INSERT INTO t SELECT 5 UNION VALUES (%s)",
                "INSERT INTO t VALUES (%s), (7)",
                "UPDATE t SET a = 'b;c', `d;e` = %s",
                " delete FROM t WHERE a = %s",
            )
        ],
        ("CALL p(%s)", [], []),
    ],
)
def test_chunks(sql: str, rows: Any, texts: Any) -> None:
    assert [chunk.text() for chunk in chunks(sql, iter(rows), 2, 1000)] == texts
    assert [
        chunk.text(backslash_escapes=False) for chunk in chunks(sql, iter(rows), 2, 1000)
    ] == texts


def test_a_chunk_is_no_longer_than_the_server_takes_and_takes_no_more_rows_than_it_needs() -> None:
    taken = []

    def rows() -> Any:
        for number in range(100):
            taken.append(number)
            yield ("é" * 10,)

    sql = "INSERT INTO t (a) VALUES (%s)"
    found = list(chunks(sql, rows(), 1000, 300))
    assert max(len(chunk.text().encode()) for chunk in found) <= 300
    assert [chunk.first for chunk in found[:3]] == [0, 8, 16]
    assert sum(len(chunk.texts) for chunk in found) == 100
    taken.clear()
    next(chunks(sql, rows(), 10, 10_000))
    assert len(taken) == 11


@pytest.mark.parametrize("backslash_escapes", [True, False])
def test_a_row_that_is_used_again_for_the_next_is_written_as_it_was(
    backslash_escapes: bool,
) -> None:
    def rows() -> Any:
        row = [""]
        for text in ("a", "it's", "\\", "b"):
            row[0] = text
            yield row

    (chunk,) = chunks("INSERT INTO t VALUES (%s)", rows(), 10, 1000)
    texts = (
        ["'a'", "'it\\'s'", "'\\\\'", "'b'"]
        if backslash_escapes
        else ["'a'", "'it''s'", "'\\'", "'b'"]
    )
    assert (
        chunk.text(backslash_escapes=backslash_escapes)
        == f"INSERT INTO t VALUES {','.join(f'({text})' for text in texts)}"
    )


def test_a_row_that_is_longer_than_a_chunk_is_one() -> None:
    rows = [(1,), ("x" * 400,), (2,), (3,)]
    cut = list(chunks("INSERT INTO t (a) VALUES (%s)", rows, 10, 300))
    assert [len(each.texts) for each in cut] == [1, 1, 2]
    assert [each.first for each in cut] == [0, 1, 2]


def test_a_row_that_does_not_fit_is_named() -> None:
    for rows, says in (
        ([(1,), (1, 2)], "row 1: the statement has 1 placeholder"),
        ([(1,), None], "row 1: a row must be"),
    ):
        with pytest.raises(ParameterError, match=says):
            list(chunks("INSERT INTO t (a) VALUES (%s)", rows, 10, 300))


def test_a_row_of_a_statement_that_only_one_kind_of_session_takes() -> None:
    escaped, plain = "INSERT INTO t SELECT 'it\\'s', %s", "INSERT INTO t SELECT 'a\\', %s"
    for sql, escapes in ((escaped, True), (plain, False)):
        cut = Chunks(sql, 10, 1000, LiteralStyle(backslash_escapes=escapes))
        assert cut.add(("x",)) is None
        chunk = cut.rest()
        assert chunk is not None
        assert chunk.text(backslash_escapes=escapes) == sql.replace("%s", "'x'")
        with pytest.raises(ParameterError):
            chunk.text(backslash_escapes=not escapes)
        for reads in (True, False):
            exchange = Bulk(chunk).exchange(TextEncoding("utf8", reads))
            if reads is escapes:
                assert next(exchange) == sql.replace("%s", "'x'").encode()
            else:
                with pytest.raises(ParameterError):
                    next(exchange)


def test_a_text_that_no_connection_can_send_is_refused_when_it_is_sent() -> None:
    rows = Chunks("INSERT INTO t VALUES (%s)", 10, 1000)
    assert rows.add(("\ud800",)) is None
    chunk = rows.rest()
    assert chunk is not None
    assert "\ud800" in chunk.text()


def test_a_chunk_may_be_made_before_it_is_asked_for() -> None:
    rows = iter([(1,), (2,), (3,), (4,), (5,)])
    ahead = ChunksAhead(Chunks("INSERT INTO t VALUES (%s)", 2, 1000), rows)
    found = iter(ahead)
    assert next(found).texts == ("(1)", "(2)")
    ahead.prepare()
    ahead.prepare()
    assert list(rows) == []
    assert [each.texts for each in found] == [("(3)", "(4)"), ("(5)",)]
    ahead.prepare()
    assert list(ahead) == []


def test_an_error_of_a_chunk_made_before_is_raised_when_it_is_asked_for() -> None:
    ahead = ChunksAhead(Chunks("INSERT INTO t VALUES (%s)", 1, 1000), [(1,), (2,), (3, 4)])
    found = iter(ahead)
    assert next(found).first == 0
    ahead.prepare()
    ahead.prepare()
    with pytest.raises(ParameterError, match="row 2"):
        next(found)


class LookedUp(Dict[str, int]):
    """A row whose value is read from a connection, which may be in use."""

    in_use = False

    def __getitem__(self, name: str) -> int:
        if LookedUp.in_use:
            raise ConcurrentUseError("another command is on its way")
        return super().__getitem__(name)


@pytest.mark.parametrize("at", range(4))
def test_a_row_that_fails_too_early_is_tried_again_when_it_is_needed(
    at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": number} for number in range(4)]
    rows[at] = LookedUp(rows[at])
    ahead = ChunksAhead(Chunks("INSERT INTO t VALUES (%(id)s)", 1, 1000), rows)
    texts: List[Optional[str]] = []
    for chunk in ahead:
        texts += chunk.texts
        monkeypatch.setattr(LookedUp, "in_use", True)
        ahead.prepare()
        monkeypatch.setattr(LookedUp, "in_use", False)
    assert texts == ["(0)", "(1)", "(2)", "(3)"]


@pytest.mark.parametrize("bad", [None, 0, 2, 4, 5])
def test_rows_are_released_without_the_garbage_collector(bad: Optional[int]) -> None:
    class Rows(List[Any]):
        """A list with weak references."""

    def write() -> "weakref.ref[Rows]":
        rows = Rows((number,) for number in range(6))
        if bad is not None:
            rows[bad] = None
        ahead = ChunksAhead(Chunks("INSERT INTO t VALUES (%s)", 2, 1000), rows)
        with contextlib.suppress(ParameterError):
            for _ in ahead:
                ahead.prepare()
        return weakref.ref(rows)

    enabled = gc.isenabled()
    gc.disable()
    try:
        assert write()() is None
    finally:
        if enabled:
            gc.enable()
