"""The lexer of SQL: as tables, and against another one on random statements."""

import random
from typing import Iterator, List, Tuple

import pytest

from dualdb.sql.lexer import Kind, code, masked, tokens, without_comments

TEXT, DOUBLE, NAME = Kind.TEXT, Kind.DOUBLE_QUOTED, Kind.NAME
COMMENT, EXECUTABLE = Kind.COMMENT, Kind.EXECUTABLE


def found(sql: str, *, backslash_escapes: bool = True) -> List[Tuple[Kind, str]]:
    return [
        (token.kind, sql[token.start : token.stop])
        for token in tokens(sql, backslash_escapes=backslash_escapes)
    ]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", []),
        ("SELECT 'a', \"b\", `c`", [(TEXT, "'a'"), (DOUBLE, '"b"'), (NAME, "`c`")]),
        ("'it''s'", [(TEXT, "'it''s'")]),
        ("''", [(TEXT, "''")]),
        ("'' ''", [(TEXT, "''"), (TEXT, "''")]),
        ("'\"`#--/*' 1", [(TEXT, "'\"`#--/*'")]),
        ('"a""b" c', [(DOUBLE, '"a""b"')]),
        ("`a``b` c", [(NAME, "`a``b`")]),
        ("`a\\` b", [(NAME, "`a\\`")]),
        ("-- it's\n'a'", [(COMMENT, "-- it's"), (TEXT, "'a'")]),
        ("--\t'x\n1", [(COMMENT, "--\t'x")]),
        ("--", [(COMMENT, "--")]),
        ("1--1 'a'", [(TEXT, "'a'")]),
        ("# it's\n'a'", [(COMMENT, "# it's"), (TEXT, "'a'")]),
        ("/* it's */'a'", [(COMMENT, "/* it's */"), (TEXT, "'a'")]),
        ("/* a\n* / */1", [(COMMENT, "/* a\n* / */")]),
        ("/**/1", [(COMMENT, "/**/")]),
        ("/*+ SET_VAR(a=1) */1", [(COMMENT, "/*+ SET_VAR(a=1) */")]),
        ("/*!50110 'a' */", [(EXECUTABLE, "/*!50110"), (TEXT, "'a'")]),
        ("/*M! 'a' */", [(EXECUTABLE, "/*M!"), (TEXT, "'a'")]),
        ("'a", [(TEXT, "'a")]),
        ("'a''", [(TEXT, "'a''")]),
        ("/* a", [(COMMENT, "/* a")]),
        ("`a", [(NAME, "`a")]),
        ("'a\nb'", [(TEXT, "'a\nb'")]),
    ],
)
def test_tokens(sql: str, expected: List[Tuple[Kind, str]]) -> None:
    assert found(sql) == expected


@pytest.mark.parametrize(
    ("sql", "escaped", "plain"),
    [
        ("'a\\'b' c", ["'a\\'b'"], ["'a\\'", "' c"]),
        ("'a\\\\' c", ["'a\\\\'"], ["'a\\\\'"]),
        ('"\\"" c', ['"\\""'], ['"\\"" c']),
        ('"\\" c', ['"\\" c'], ['"\\"']),
        ("'a\\", ["'a\\"], ["'a\\"]),
    ],
)
def test_a_backslash_escapes_by_the_sql_mode(
    sql: str, escaped: List[str], plain: List[str]
) -> None:
    assert [text for _, text in found(sql)] == escaped
    assert [text for _, text in found(sql, backslash_escapes=False)] == plain


@pytest.mark.parametrize(
    ("sql", "closed"),
    [
        ("'a'", True),
        ("'a", False),
        ("'a''", False),
        ('"a\\"', False),
        ("`a", False),
        ("/* a", False),
        ("/* a */", True),
        ("/*! a", True),
        ("-- a", True),
        ("# a", True),
    ],
)
def test_what_is_not_closed(sql: str, closed: bool) -> None:
    assert [token.closed for token in tokens(sql)] == [closed]


def test_views_of_a_statement() -> None:
    sql = "INSERT INTO `a(` /* b */ VALUES ('c)', \"d\") -- e"
    assert code(sql) == "INSERT INTO  quoted    VALUES ( '' ,  quoted )"
    assert masked(sql) == "INSERT INTO ~~~~ /* b */ VALUES (~~~~, ~~~) -- e"
    assert code("SELECT 'a") == "SELECT 'a"
    assert masked("SELECT 'a") == "SELECT 'a"
    assert code("/*!50000 a */") == "/*!  a */"


PIECES = [
    "'",
    "''",
    '"',
    "`",
    "\\",
    "\\'",
    "a",
    " ",
    "\n",
    "--",
    "-- ",
    "#",
    "/*",
    "*/",
    "/",
    "*",
    "-",
    "x",
    "1",
    ",",
]


def statements(seed: int, number: int) -> Iterator[str]:
    spread = random.Random(seed)
    for _ in range(number):
        yield "".join(spread.choices(PIECES, k=spread.randrange(1, 14)))


@pytest.mark.parametrize("backslash_escapes", [True, False])
def test_a_reading_of_one_character_at_a_time_finds_the_same(
    seed: int, backslash_escapes: bool
) -> None:
    for sql in statements(seed, 5000):
        expected = list(_by_characters(sql, backslash_escapes=backslash_escapes))
        assert found(sql, backslash_escapes=backslash_escapes) == expected, sql


def _by_characters(sql: str, *, backslash_escapes: bool) -> Iterator[Tuple[Kind, str]]:
    """The rules of the manual, read from left to right."""
    position = 0
    while position < len(sql):
        start, two = position, sql[position : position + 2]
        after = sql[position + 2 : position + 3]
        if sql[position] in "'\"`":
            kind = {"'": TEXT, '"': DOUBLE, "`": NAME}[sql[position]]
            position = _end_of_quoted(sql, position, backslash_escapes and kind is not NAME)
        elif two == "/*":
            kind, end = COMMENT, sql.find("*/", position + 2)
            position = len(sql) if end < 0 else end + 2
        elif sql[position] == "#" or (two == "--" and (not after or after in " \n\t")):
            kind, end = COMMENT, sql.find("\n", position)
            position = len(sql) if end < 0 else end
        else:
            position += 1
            continue
        yield kind, sql[start:position]


def _end_of_quoted(sql: str, position: int, escapes: bool) -> int:
    quote = sql[position]
    position += 1
    while position < len(sql):
        if (escapes and sql[position] == "\\") or sql.startswith(quote * 2, position):
            position += 2
        elif sql[position] == quote:
            return position + 1
        else:
            position += 1
    return len(sql)


def test_sqlglot_finds_the_same_texts_and_names(seed: int) -> None:
    mysql = pytest.importorskip("sqlglot").Dialect.get_or_raise("mysql")
    compared = 0
    for sql in statements(seed, 8000):
        # sqlglot has one token for neighbouring texts, takes "--" for a comment
        # whatever follows, and refuses what is not closed.
        unlike = "--" in sql.replace("-- ", "") or not all(token.closed for token in tokens(sql))
        quoted = [text for kind, text in found(sql) if kind in (TEXT, DOUBLE, NAME)]
        if unlike or "/*" in sql or not quoted:
            continue
        try:
            theirs = mysql.tokenize(sql)
        except Exception:
            continue
        compared += 1
        names = ("STRING", "IDENTIFIER", "NATIONAL_STRING", "HEX_STRING", "BIT_STRING")
        ends = [each.end for each in theirs if each.token_type.name in names]
        ours = [token.stop - 1 for token in tokens(sql) if token.kind is not COMMENT]
        assert ends == ours, sql
    assert compared > 300


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("ALTER TABLE/* x */t ADD a INT -- y", "ALTER TABLE t ADD a INT"),
        ("# x\nSELECT 1", "SELECT 1"),
        ("SELECT '-- a', `/* b */`", "SELECT '-- a', `/* b */`"),
        ("SELECT 1 /*! , 2 */", "SELECT 1 /*! , 2 */"),
        ("SELECT 1 /* a", "SELECT 1 /* a"),
    ],
)
def test_without_comments(sql: str, expected: str) -> None:
    assert without_comments(sql) == expected
