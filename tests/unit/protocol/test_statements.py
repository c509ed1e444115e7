"""Statements and calls, exchanged with a scripted server."""

import datetime
from types import SimpleNamespace
from typing import Any, List, Tuple

import pymysql.err
import pytest
from scripted_exchanges import OK, UTF8, rows, run_scripted

from dualdb import InOut, Out, ParameterError
from dualdb.protocol.exchange import RowOptions, TextEncoding, with_session_tracking
from dualdb.protocol.session_setup import SessionFacts
from dualdb.protocol.statements import Bulk, Call, Statement
from dualdb.sharding.subquery import Subquery, body
from dualdb.sql.bulk import Chunks


def test_a_statement_is_one_command() -> None:
    assert run_scripted(
        Statement("SELECT %s", ("é",)).exchange(UTF8), [("SELECT 'é'".encode(), [rows({"a": 1})])]
    ) == [rows({"a": 1})]


def test_a_statement_is_bound_again_for_a_session_without_backslash_escapes() -> None:
    assert run_scripted(
        Statement("SELECT %s", ("a\\'",)).exchange(TextEncoding("utf8", False)),
        [(b"SELECT 'a\\'''", [OK])],
    ) == [OK]


class Markup(str):
    """A text with methods of its own, as template engines make."""

    __hash__ = None  # type: ignore[assignment]

    def __mod__(self, values: Any) -> Any:
        return type(self)(super().__mod__(values).replace("'", "&#39;"))


def test_no_method_of_the_caller_writes_a_statement() -> None:
    sql = Markup("SELECT %s")
    chunks = Chunks(sql, 100, 1000)
    chunks.add(("a",))
    chunk = chunks.rest()
    assert chunk is not None
    for statement in (Statement(sql, ("a",)), Bulk(chunk), Subquery("", body(sql), "", ("a",))):
        text = " ".join([part.decode() for part in statement.exchange(UTF8)])
        assert "SELECT 'a'" in text
        assert statement.reads
        assert type(statement.sql) is str


@pytest.mark.parametrize(
    ("statement", "repeatable"),
    [
        (Statement("SELECT 1"), True),
        (Statement("UPDATE t SET a = 1"), False),
        (Statement("UPDATE t SET a = 1", idempotent=True), True),
        (Call("get_portfolio"), False),
        (Call("get_portfolio", idempotent=True), True),
    ],
)
def test_what_may_be_sent_twice(statement: Any, repeatable: bool) -> None:
    assert statement.repeatable is repeatable


def test_a_call_with_values_is_one_round_trip() -> None:
    result = run_scripted(
        Call("p", (1, "x")).exchange(UTF8),
        [(b"CALL `p`(1,'x')", [rows({"a": 1}), rows(), OK._replace(rowcount=3, warnings=2)])],
    )
    assert result == ([rows({"a": 1}), rows()], {}, 3, 2)
    assert result.rows == [{"a": 1}]


def test_an_out_parameter_costs_one_select_and_an_inout_one_set() -> None:
    script: List[Tuple[bytes, Any]] = [
        (b"SET @_dualdb_2=5", [OK]),
        (b"CALL `p`(1,@_dualdb_1,@_dualdb_2)", [OK]),
        (b"SELECT @_dualdb_1 AS `1`,@_dualdb_2 AS `2`", [rows({"1": 8, "2": 9})]),
    ]
    assert run_scripted(
        Call("p", (1, Out("count"), InOut("sum", 5))).exchange(UTF8), script
    ).out == {
        "count": 8,
        "sum": 9,
    }
    assert run_scripted(
        Call("p", (Out("count"),)).exchange(UTF8),
        [(b"CALL `p`(@_dualdb_0)", [OK]), (b"SELECT @_dualdb_0 AS `0`", [rows({"0": 1})])],
    )


NOT_A_VARIABLE = pymysql.err.OperationalError(1414, "OUT or INOUT argument 2", sqlstate="42000")
ASKED = (
    b"SELECT ORDINAL_POSITION AS p, DATA_TYPE AS type FROM information_schema.PARAMETERS "
    b"WHERE ROUTINE_TYPE = 'PROCEDURE' AND PARAMETER_MODE <> 'IN' "
    b"AND SPECIFIC_SCHEMA = %s AND SPECIFIC_NAME = 'p'"
)


@pytest.mark.parametrize(
    ("name", "called", "schema"), [("p", b"`p`", b"DATABASE()"), ("s.p", b"`s`.`p`", b"'s'")]
)
def test_an_out_parameter_given_as_a_value_goes_by_a_variable_after_the_server_said_so(
    name: str, called: bytes, schema: bytes
) -> None:
    script: List[Tuple[bytes, Any]] = [
        (b"CALL %s(1,0)" % called, NOT_A_VARIABLE),
        (ASKED % schema, [rows({"p": 2, "type": "int"})]),
        (b"SET @_dualdb_1=0", [OK]),
        (b"CALL %s(1,@_dualdb_1)" % called, [rows({"a": 1}), OK]),
    ]
    assert run_scripted(Call(name, (1, 0)).exchange(UTF8), script).rows == [{"a": 1}]


def test_an_out_value_that_looks_like_a_date_is_one_if_the_catalogue_says_so() -> None:
    values = {"0": "2024-02-29", "1": "2024-02-29", "2": "-12:30:00.5", "3": None}
    types = ["date", "varchar", "time", "datetime"]
    found = [{"p": number, "type": kind} for number, kind in enumerate(types, 1)]
    script: List[Tuple[bytes, Any]] = [
        (b"CALL `p`(@_dualdb_0,@_dualdb_1,@_dualdb_2,@_dualdb_3)", [OK]),
        (
            b"SELECT " + b",".join([b"@_dualdb_%d AS `%d`" % (n, n) for n in range(4)]),
            [rows(values)],
        ),
        (ASKED % b"DATABASE()", [rows(*found)]),
    ]
    out = run_scripted(Call("p", [Out(name) for name in "abcd"]).exchange(UTF8), script).out
    assert out == {
        "a": datetime.date(2024, 2, 29),
        "b": "2024-02-29",
        "c": -datetime.timedelta(hours=12, minutes=30, seconds=0.5),
        "d": None,
    }


def test_the_same_error_from_inside_the_procedure_is_not_answered_by_calling_again() -> None:
    with pytest.raises(pymysql.err.OperationalError, match="OUT or INOUT"):
        run_scripted(
            Call("p", (1,)).exchange(UTF8),
            [(b"CALL `p`(1)", NOT_A_VARIABLE), (ASKED % b"DATABASE()", [rows()])],
        )


@pytest.mark.parametrize(
    ("sql", "changes"),
    [
        ("SELECT 1", False),
        ("INSERT INTO settings (a) VALUES (1)", False),
        ("UPDATE locks SET used = 1", False),
        ("SELECT GET_LOCK('a', 1)", True),
        ("do get_lock ('a', 1)", True),
        ("SELECT @a := 1", True),
        (" SET @a = 1", True),
        ("USE other", True),
        ("CREATE TEMPORARY TABLE t (a INT)", True),
        ("CREATE TABLE t (a INT)", False),
        ("SELECT 1" + " " * 10_000 + ":= 1", True),
        ("SELECT MAX(a), LAST_INSERT_ID() FROM t", False),
        ("SELECT LAST_INSERT_ID(7)", True),
        ("SELECT of_somebody(1)", True),
        ("WITH x AS (SELECT of_somebody(1) AS n) SELECT n FROM x", True),
        ("INSERT INTO t (a) VALUES (1) RETURNING id", True),
    ],
)
def test_a_statement_that_changes_the_session_is_noted(sql: str, changes: bool) -> None:
    connection: Any = SimpleNamespace(
        max_rows=None,
        text_encoding=UTF8,
        dirty=False,
        reset_after_call=False,
        idle=True,
        writes=None,
        facts=SessionFacts(max_packet=10**6),
    )
    exchange = with_session_tracking(Statement(sql), connection)
    next(exchange)
    with pytest.raises(StopIteration):
        exchange.send([OK])
    assert connection.dirty is changes


def test_a_statement_that_will_be_refused_touches_nothing_of_the_one_that_is_on_its_way() -> None:
    connection: Any = SimpleNamespace(
        max_rows=None,
        text_encoding=UTF8,
        idle=False,
        sent=True,
        row_options=RowOptions(5),
    )
    next(with_session_tracking(Statement("SELECT 1", max_rows=1), connection))
    assert (connection.sent, connection.row_options) == (True, RowOptions(5))


def test_another_error_of_a_call_is_the_caller_s() -> None:
    with pytest.raises(pymysql.err.OperationalError, match="no more"):
        run_scripted(
            Call("p").exchange(UTF8),
            [(b"CALL `p`()", pymysql.err.OperationalError(1644, "no more", sqlstate="45000"))],
        )


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ("abc", "not str; for one parameter write (value,)"),
        ({"a": 1}, "not dict"),
        ((object(),), "a object cannot be a parameter"),
        ((Out("a"), Out("a")), "OUT parameters must have distinct names"),
    ],
)
def test_bad_procedure_parameters_are_refused(params: Any, says: str) -> None:
    with pytest.raises(ParameterError) as caught:
        Call("p", params)
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ["", None, 3])
def test_an_out_parameter_needs_a_name(name: Any) -> None:
    with pytest.raises(ParameterError, match="named by a str"):
        Out(name)
