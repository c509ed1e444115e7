"""Parameters and how they are written."""

import datetime
import decimal
import enum
import uuid
from typing import Any

import pytest

from dualdb import InOut, Out, ParameterError, ProgrammingError
from dualdb.sql.literals import LiteralStyle, literal
from dualdb.sql.parameters import bind, names


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
        ("SELECT %s", "abc", "not str; for one parameter write (value,)"),
        ("SELECT %s", 5, "not int; for one parameter write (value,)"),
        ("SELECT %s", {1, 2}, "not set"),
        ("SELECT %s", {"a": 1}, "pass a tuple or list, not a mapping"),
        ("SELECT %(a)s", (1,), "pass a mapping, not a tuple"),
        ("SELECT %(a)s", {"b": 1}, "no parameter named 'a'; the names given are ['b']"),
        ("SELECT %(a)s, %s", {"a": 1}, "mixes"),
        ("SELECT '%Y'", (), "'%Y' at character 8 is not a placeholder"),
        ("SELECT %d", (1,), "'%d' at character 7 is not a placeholder"),
        ("SELECT %s", (object(),), "a object cannot be a parameter"),
        ("SELECT %s", ({"a": 1},), "a dict cannot be a parameter"),
        ("SELECT %(pay)s", {"pay": object()}, "parameter 'pay': a object cannot be a parameter"),
        ("SELECT %s", (float("nan"),), "nan cannot be a parameter"),
        ("SELECT %s", (decimal.Decimal("Infinity"),), "Infinity cannot be a parameter"),
        ("  ", None, "sql is empty"),
        ("UPDATE t SET a = %s WHERE id IN %s", ([], [1]), "an empty sequence is for IN alone"),
        ("UPDATE t SET a = '%%', b = %(a)s", {"a": ()}, "an empty sequence is for IN alone"),
        (b"SELECT 1", None, "sql must be str, not bytes"),
    ],
)
def test_bad_input_has_a_message_of_its_own(sql: Any, params: Any, says: str) -> None:
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
    plain = LiteralStyle(backslash_escapes=False)
    assert literal("it's \\", plain) == "'it''s \\'"
    assert bind("SELECT %s", (["it's"],), plain) == "SELECT ('it''s')"


def test_values_that_cannot_be_written_are_refused() -> None:
    endless: Any = []
    endless.append(endless)
    for value in (endless, 10**5000):
        with pytest.raises(ParameterError):
            literal(value)


@pytest.mark.parametrize("length", [10, 20_000])
def test_placeholders_of_long_statements_are_found_too(length: int) -> None:
    padding = "x" * length
    assert bind(f"SELECT '{padding}', %s", (1,)) == f"SELECT '{padding}', 1"
    assert names(f"SELECT '{padding}', %(a)s, %(b)s") == ["a", "b"]
    assert names("SELECT %s") == []
    with pytest.raises(
        ParameterError, match=f"'%d' at character {length + 11} is not a placeholder"
    ):
        bind(f"SELECT '{padding}', %d", (1,))


def test_the_message_names_the_parameter_that_is_wrong() -> None:
    with pytest.raises(ParameterError) as caught:
        bind("SELECT %(pay)s", {"pay": object()})
    assert str(caught.value).startswith("parameter 'pay': ")
    with pytest.raises(ParameterError) as caught:
        bind(5, None)  # type: ignore[arg-type]
    assert str(caught.value) == "sql must be str, not int"
    with pytest.raises(ParameterError) as caught:
        bind(" ", None)
    assert str(caught.value) == "sql is empty"


@pytest.mark.parametrize("name", ["", None, 5, b"a"])
def test_an_out_parameter_has_a_name(name: Any) -> None:
    with pytest.raises(ParameterError, match="an Out parameter is named by a str, not"):
        Out(name)
    with pytest.raises(ParameterError, match="an InOut parameter is named by a str, not"):
        InOut(name, 1)


def test_out_parameters_show_their_name_and_value() -> None:
    assert (repr(Out("a")), Out("a").name, Out("a").value) == ("Out('a')", "a", None)
    assert (repr(InOut("b", 2)), InOut("b", 2).name, InOut("b", 2).value) == ("InOut('b')", "b", 2)


@pytest.mark.parametrize("value", [True, False])
def test_booleans_are_numbers(value: bool) -> None:
    assert literal(value) == str(int(value))
