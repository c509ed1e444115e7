"""Binding, quoting and judging statements, as tables."""

import datetime
import decimal
import enum
import uuid
from typing import Any, Iterator

import pytest

from dualdb import ParameterError, ProgrammingError
from dualdb.sql.bulk import Chunk, Chunks
from dualdb.sql.classify import changes_session, controls_transaction, first_word, is_plain_read
from dualdb.sql.identifiers import procedure
from dualdb.sql.parameters import bind, literal


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Index:
    def __index__(self) -> int:
        return 7


@pytest.mark.parametrize(
    ("sql", "params", "text"),
    [
        ("SELECT 1", None, "SELECT 1"),
        ("SELECT '%Y'", None, "SELECT '%Y'"),
        ("SELECT '%%Y'", (), "SELECT '%Y'"),
        ("SELECT %s, %s", (1, "a"), "SELECT 1, 'a'"),
        ("SELECT %s", [None], "SELECT NULL"),
        ("SELECT %(a)s, %(b)s, %(a)s", {"a": 1, "b": "x", "unused": 2}, "SELECT 1, 'x', 1"),
        ("SELECT %s", ("%s",), "SELECT '%s'"),
        ("SELECT * FROM t WHERE id IN %s", ([1, 2, 3],), "SELECT * FROM t WHERE id IN (1,2,3)"),
        (
            "SELECT * FROM t WHERE id IN %s",
            ((),),
            "SELECT * FROM t WHERE id IN (SELECT NULL FROM DUAL WHERE FALSE)",
        ),
        ("SELECT (a, b) IN %s", ([(1, "x"), (2, "y")],), "SELECT (a, b) IN ((1,'x'),(2,'y'))"),
    ],
)
def test_bind(sql: str, params: Any, text: str) -> None:
    assert bind(sql, params) == text


@pytest.mark.parametrize(
    ("sql", "params", "says"),
    [
        ("SELECT %s", (), "1 placeholder(s) %s, but 0 parameter(s)"),
        ("SELECT %s", (1, 2), "1 placeholder(s) %s, but 2 parameter(s)"),
        ("SELECT 1", (1,), "0 placeholder(s) %s, but 1 parameter(s)"),
        ("SELECT %s", "abc", "not str; one parameter is written (value,)"),
        ("SELECT %s", 5, "not int; one parameter is written (value,)"),
        ("SELECT %s", {1, 2}, "not set"),
        ("SELECT %s", {"a": 1}, "pass a tuple or list, not a mapping"),
        ("SELECT %(a)s", (1,), "pass a mapping, not a tuple"),
        ("SELECT %(a)s", {"b": 1}, "no parameter named 'a'; the names given are ['b']"),
        ("SELECT %(a)s, %s", {"a": 1}, "mixes"),
        ("SELECT '%Y'", (), "'%Y' at character 8 is no placeholder"),
        ("SELECT %d", (1,), "'%d' at character 7 is no placeholder"),
        ("SELECT %s", (object(),), "a object cannot be a parameter"),
        ("SELECT %s", ({"a": 1},), "a dict cannot be a parameter"),
        ("SELECT %(pay)s", {"pay": object()}, "parameter 'pay': a object cannot be a parameter"),
        ("SELECT %s", (float("nan"),), "nan has no place in SQL"),
        ("SELECT %s", (decimal.Decimal("Infinity"),), "Infinity has no place in SQL"),
        ("  ", None, "the statement is empty"),
        ("UPDATE t SET a = %s WHERE id IN %s", ([], [1]), "an empty sequence is for IN alone"),
        ("UPDATE t SET a = '%%', b = %(a)s", {"a": ()}, "an empty sequence is for IN alone"),
        (b"SELECT 1", None, "a statement is a str, not bytes"),
    ],
)
def test_bad_input_is_told_apart(sql: Any, params: Any, says: str) -> None:
    with pytest.raises(ParameterError) as caught:
        bind(sql, params)
    assert says in str(caught.value)
    for kind in (ProgrammingError, TypeError, ValueError):
        assert isinstance(caught.value, kind)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "NULL"),
        (True, "1"),
        (-5, "-5"),
        (10**30, "1" + "0" * 30),
        (0.5, "0.5e0"),
        (decimal.Decimal("1.10"), "1.10"),
        (decimal.Decimal("1E+3"), "1000"),
        ("it's \\ \n", r"'it\'s \\ \n'"),
        ("한국어 🙂", "'한국어 🙂'"),
        (b"\x00\xff'", "_binary X'00ff27'"),
        (bytearray(b"a"), "_binary X'61'"),
        (memoryview(b"a"), "_binary X'61'"),
        (datetime.date(2026, 1, 2), "'2026-01-02'"),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, 6), "'2026-01-02 03:04:05.000006'"),
        (datetime.time(3, 4, 5), "'03:04:05'"),
        (datetime.timedelta(hours=-30), "'-30:00:00'"),
        (uuid.UUID(int=1), "'00000000-0000-0000-0000-000000000001'"),
        (Colour.RED, "'red'"),
        (Level.HIGH, "3"),
        (Index(), "7"),
        ({3}, "(3)"),
    ],
)
def test_literals(value: Any, text: str) -> None:
    assert literal(value) == text


def test_without_backslash_escapes_only_the_quote_is_doubled() -> None:
    assert literal("it's \\", backslash_escapes=False) == "'it''s \\'"
    assert bind("SELECT %s", (["it's"],), backslash_escapes=False) == "SELECT ('it''s')"


@pytest.mark.parametrize(
    ("name", "quoted"),
    [("p", "`p`"), ("shop.get_user", "`shop`.`get_user`"), ("$x1", "`$x1`"), ("절차", "`절차`")],
)
def test_procedure_names(name: str, quoted: str) -> None:
    assert procedure(name) == quoted


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a.b.c",
        "p(1)",
        "p; DROP TABLE t",
        "`p`",
        "a b",
        "p`",
        ".p",
        "p.",
        "x" * 65,
        None,
        7,
        b"p",
        "p\n",
    ],
)
def test_other_names_are_refused(name: Any) -> None:
    with pytest.raises(ParameterError, match="is no procedure name"):
        procedure(name)


@pytest.mark.parametrize(
    ("sql", "plain"),
    [
        ("SELECT 1", True),
        ("  select * from `update` where a = 'FOR UPDATE; INSERT'", True),
        ("(SELECT 1) UNION (SELECT 2)", True),
        ("-- note\nSELECT COUNT(*), MAX(a) FROM t WHERE b IN (1, 2);", True),
        ("WITH x AS (SELECT 1) SELECT * FROM x", True),
        ("SHOW TABLES", True),
        ("EXPLAIN SELECT 1", True),
        ("SELECT `a``b` FROM t", True),
        ("SELECT 'it''s', \"it's\" /* it's */ FROM `it's`", True),
        ("SELECT 1 -- it's\n, 2 # it's\n, 3", True),
        ("SELECT 2--1", True),
        ('SELECT "#1" tag, place(8)', False),
        ("SELECT \"it's\", place('x')", False),
        ('SELECT CONCAT("a -- b", place(7))', False),
        ("SELECT `a#b`, place(1) FROM t", False),
        ("SELECT '/*', place(1), '*/'", False),
        ("SELECT 1 --place\n, place(1)", False),
        ('SELECT "a, place(1)', False),
        ("SELECT shop . now ()", False),
        ("SELECT `my_function`(1)", False),
        ("SELECT shop.count(1)", False),
        ("SELECT 'it\\\\', my_function(1), '", False),
        ("SELECT 1 FOR UPDATE", False),
        ("SELECT 1 LOCK IN SHARE MODE", False),
        ("SELECT a INTO @x FROM t", False),
        ("SELECT @x := 1", False),
        ("SELECT my_function(1)", False),
        ("SELECT GET_LOCK('a', 1)", False),
        ("SELECT NEXTVAL(s)", False),
        ("WITH x AS (SELECT 1) DELETE FROM t", False),
        ("SELECT 1; DELETE FROM t", False),
        ("SELECT 1 /*! INTO @x */", False),
        ("ANALYZE SELECT 1", False),
        ("CALL p()", False),
        ("INSERT INTO t SELECT 1", False),
        ("SET @x = 1", False),
        ("", False),
    ],
)
def test_plain_reads(sql: str, plain: bool) -> None:
    assert is_plain_read(sql) is plain


@pytest.mark.parametrize(
    ("sql", "word", "controls", "keeps"),
    [
        ("SELECT 1", "SELECT", False, False),
        ("/* a */ -- b\n # c\n (select 1)", "SELECT", False, False),
        ("/*c*/ LOCK TABLES t READ", "LOCK", False, True),
        ("select a into @x from t", "SELECT", False, True),
        ("SELECT 'SET', ':=', ' INTO @x'", "SELECT", False, False),
        ("SELECT @a:=1", "SELECT", False, True),
        ("/*!40101 SET NAMES utf8 */", "", False, True),
        ("Begin", "BEGIN", True, False),
        ("BEGIN NOT ATOMIC SELECT 1; END", "BEGIN", False, False),
        ("START TRANSACTION", "START", True, False),
        ("START SLAVE", "START", False, False),
        ("COMMIT AND CHAIN", "COMMIT", True, False),
        ("ROLLBACK", "ROLLBACK", True, False),
        ("rollback work to savepoint a", "ROLLBACK", False, False),
        ("XA START 'a'", "XA", True, True),
        ("SAVEPOINT a", "SAVEPOINT", False, False),
    ],
)
def test_what_a_statement_does_to_its_session(
    sql: str, word: str, controls: bool, keeps: bool
) -> None:
    assert (first_word(sql), controls_transaction(sql), changes_session(sql)) == (
        word,
        controls,
        keeps,
    )


def test_values_that_cannot_be_written_are_refused() -> None:
    endless: Any = []
    endless.append(endless)
    for value in (endless, 10**5000):
        with pytest.raises(ParameterError):
            literal(value)


def chunks(sql: str, rows: Any, most_rows: int, most_bytes: int) -> Iterator[Chunk]:
    cut = Chunks(sql, most_rows, most_bytes)
    for row in rows:
        chunk = cut.add(row)
        if chunk is not None:
            yield chunk
    rest = cut.rest()
    if rest is not None:
        yield rest


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
                "INSERT INTO t VALUES (%s, LAST_INSERT_ID())",
                "INSERT INTO t VALUES (%s, (SELECT 1 FROM s))",
                "INSERT INTO t VALUES (%s, @last)",
                "INSERT INTO t SELECT 5 UNION VALUES (%s)",
                "INSERT INTO t VALUES (%s), (7)",
            )
        ],
        ("UPDATE t SET a = %s", [(1,), (2,)], ["UPDATE t SET a = 1", "UPDATE t SET a = 2"]),
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


def test_a_row_that_does_not_fit_is_named() -> None:
    for rows, says in (
        ([(1,), (1, 2)], "row 1: the statement has 1 placeholder"),
        ([(1,), None], "row 1: a row is"),
        ([("x" * 400,)], "row 0 makes 40"),
    ):
        with pytest.raises(ParameterError, match=says):
            list(chunks("INSERT INTO t (a) VALUES (%s)", rows, 10, 300))
