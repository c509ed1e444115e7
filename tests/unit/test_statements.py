"""Talks, held with a scripted server: a list of what is said and what comes back."""

from types import SimpleNamespace
from typing import Any, List, Tuple

import pymysql.err
import pytest

from dualdb import InOut, Out, ParameterError, ResultSet
from dualdb.protocol.exchange import TextEncoding, with_session_tracking
from dualdb.protocol.kill import end_session
from dualdb.protocol.statements import Call, Statement
from dualdb.protocol.transaction_commands import _NEW_MARKERS, begin, transaction_end

UTF8 = TextEncoding("utf8", True)
OK = ResultSet([], (), 0, 0, 0)


def rows(*found: Any) -> ResultSet:
    return ResultSet(list(found), tuple(found[0]) if found else (), len(found), 0, 0)


def hold(exchange: Any, script: List[Tuple[bytes, Any]]) -> Any:
    """Hold a talk against a script of (what must be said, what is answered)."""
    try:
        said = next(exchange)
        for expected, response in script:
            assert said == expected
            said = (
                exchange.throw(response)
                if isinstance(response, Exception)
                else exchange.send(response)
            )
    except StopIteration as done:
        return done.value
    raise AssertionError(f"said {said!r} after the script")


def test_a_statement_is_one_command() -> None:
    assert hold(
        Statement("SELECT %s", ("é",)).exchange(UTF8), [("SELECT 'é'".encode(), [rows({"a": 1})])]
    ) == [rows({"a": 1})]


def test_a_statement_is_bound_again_for_a_session_without_backslash_escapes() -> None:
    assert hold(
        Statement("SELECT %s", ("a\\'",)).exchange(TextEncoding("utf8", False)),
        [(b"SELECT 'a\\'''", [OK])],
    ) == [OK]


def test_a_character_that_the_connection_lacks_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ParameterError, match="'é' is not in the connection's ascii"):
        next(Statement("SELECT 'é'").exchange(TextEncoding("ascii", True)))


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
    result = hold(
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
    assert hold(Call("p", (1, Out("count"), InOut("sum", 5))).exchange(UTF8), script).out == {
        "count": 8,
        "sum": 9,
    }
    assert hold(
        Call("p", (Out("count"),)).exchange(UTF8),
        [(b"CALL `p`(@_dualdb_0)", [OK]), (b"SELECT @_dualdb_0 AS `0`", [rows({"0": 1})])],
    )


NOT_A_VARIABLE = pymysql.err.OperationalError(1414, "OUT or INOUT argument 2", sqlstate="42000")
ASKED = (
    b"SELECT ORDINAL_POSITION AS p FROM information_schema.PARAMETERS WHERE ROUTINE_TYPE = "
    b"'PROCEDURE' AND PARAMETER_MODE <> 'IN' "
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
        (ASKED % schema, [rows({"p": 2})]),
        (b"SET @_dualdb_1=0", [OK]),
        (b"CALL %s(1,@_dualdb_1)" % called, [rows({"a": 1}), OK]),
    ]
    assert hold(Call(name, (1, 0)).exchange(UTF8), script).rows == [{"a": 1}]


def test_the_same_error_from_inside_the_procedure_is_not_answered_by_calling_again() -> None:
    with pytest.raises(pymysql.err.OperationalError, match="OUT or INOUT"):
        hold(
            Call("p", (1,)).exchange(UTF8),
            [(b"CALL `p`(1)", NOT_A_VARIABLE), (ASKED % b"DATABASE()", [rows()])],
        )


@pytest.mark.parametrize(
    ("statement", "error", "in_transaction", "asks"),
    [
        (
            Statement("UPDATE t SET a = 1"),
            pymysql.err.OperationalError(1205, "lock wait", sqlstate="HY000"),
            True,
            True,
        ),
        (
            Statement("UPDATE t SET a = 1"),
            pymysql.err.OperationalError(1205, "lock wait", sqlstate="HY000"),
            False,
            False,
        ),
        (
            Statement("INSERT INTO t VALUES (1)"),
            pymysql.err.IntegrityError(1062, "duplicate", sqlstate="23000"),
            True,
            False,
        ),
        (
            Statement("BEGIN NOT ATOMIC SIGNAL x; END"),
            pymysql.err.OperationalError(1644, "no", sqlstate="45000"),
            False,
            True,
        ),
        (Call("p"), pymysql.err.OperationalError(1644, "no more", sqlstate="45000"), False, True),
        (Call("p"), pymysql.err.OperationalError(2013, "Lost connection"), True, False),
    ],
)
def test_after_a_doubtful_error_the_server_is_asked_for_its_flags(
    statement: Any, error: Any, in_transaction: bool, asks: bool
) -> None:
    exchange = with_session_tracking(
        statement,
        SimpleNamespace(
            max_rows=None, text_encoding=UTF8, dirty=False, reset_after_call=False, idle=True
        ),
        in_transaction=in_transaction,
    )
    next(exchange)
    if asks:
        assert exchange.throw(error) == b"DO 0"
        with pytest.raises(type(error)):
            exchange.send([OK])
    else:
        with pytest.raises(type(error)):
            exchange.throw(error)


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
        ("LOCK TABLES t READ", True),
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
    connection = SimpleNamespace(
        max_rows=None, text_encoding=UTF8, dirty=False, reset_after_call=False, idle=True
    )
    exchange = with_session_tracking(Statement(sql), connection)
    next(exchange)
    with pytest.raises(StopIteration):
        exchange.send([OK])
    assert connection.dirty is changes


def test_a_statement_that_will_be_refused_touches_nothing_of_the_one_that_is_on_its_way() -> None:
    connection = SimpleNamespace(
        max_rows=None, text_encoding=UTF8, idle=False, sent=True, most_rows=5
    )
    next(with_session_tracking(Statement("SELECT 1"), connection))
    assert (connection.sent, connection.most_rows) == (True, 5)


def test_a_session_is_ended_unless_the_server_has_been_started_since() -> None:
    uptime = (b"SHOW GLOBAL STATUS LIKE 'Uptime'", [rows({"Value": "70"})])
    hold(end_session(9, 70.9), [uptime, (b"KILL 9", [OK])])
    hold(
        end_session(9, 70.9),
        [
            uptime,
            (
                b"KILL 9",
                pymysql.err.OperationalError(1094, "Unknown thread id: 9", sqlstate="HY000"),
            ),
        ],
    )
    hold(end_session(9, 71.0), [uptime])
    with pytest.raises(pymysql.err.OperationalError, match="not owner"):
        hold(
            end_session(9, 1.0),
            [
                uptime,
                (b"KILL 9", pymysql.err.OperationalError(1290, "not owner", sqlstate="HY000")),
            ],
        )


def test_a_character_that_turns_into_an_ascii_one_on_its_way_is_refused() -> None:
    assert TextEncoding("cp932", True).encode("\u8868") == b"\x95\x5c"
    with pytest.raises(ParameterError, match="ASCII"):
        TextEncoding("shift_jis", True).encode("'\u203e\xa5'")
    with pytest.raises(ParameterError, match="is not in the connection's latin1"):
        TextEncoding("latin1", True).encode("\u8868")


def test_another_error_of_a_call_is_the_caller_s() -> None:
    with pytest.raises(pymysql.err.OperationalError, match="no more"):
        hold(
            Call("p").exchange(UTF8),
            [(b"CALL `p`()", pymysql.err.OperationalError(1644, "no more", sqlstate="45000"))],
        )


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ("abc", "not str; one is written (value,)"),
        ({"a": 1}, "not dict"),
        ((object(),), "a object cannot be a parameter"),
        ((Out("a"), Out("a")), "two OUT parameters share a name"),
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


@pytest.mark.parametrize(
    ("savepoint", "opens", "commit", "rollback"),
    [
        (0, b"BEGIN", (b"COMMIT",), (b"ROLLBACK",)),
        (
            2,
            b"SAVEPOINT `dualdb_2`",
            (b"RELEASE SAVEPOINT `dualdb_2`",),
            (b"ROLLBACK TO SAVEPOINT `dualdb_2`", b"RELEASE SAVEPOINT `dualdb_2`"),
        ),
    ],
)
def test_transaction_commands(
    savepoint: int, opens: bytes, commit: Tuple[bytes, ...], rollback: Tuple[bytes, ...]
) -> None:
    hold(begin(savepoint, None), [(opens, [OK])])
    assert transaction_end(savepoint, commit=True) == commit
    assert transaction_end(savepoint, commit=False) == rollback


def test_a_marked_transaction_leaves_its_token_and_makes_the_table_where_it_is_missing() -> None:
    opens, leaves = (b"BEGIN", [OK]), b"INSERT INTO dualdb_commit (token) VALUES ('f00d')"
    hold(begin(0, "f00d", spread=lambda: 0.5), [opens, (leaves, [OK])])
    missing = pymysql.err.ProgrammingError(
        1146, "Table 'd.dualdb_commit' doesn't exist", sqlstate="42S02"
    )
    hold(
        begin(0, "f00d", spread=lambda: 0.5),
        [opens, (leaves, missing), (_NEW_MARKERS, [OK]), opens, (leaves, [OK])],
    )
    sweeps = (b"DELETE FROM dualdb_commit WHERE at < NOW() - INTERVAL 7 DAY LIMIT 1000", [OK])
    hold(begin(0, "f00d", spread=lambda: 0.0), [sweeps, opens, (leaves, [OK])])
    with pytest.raises(pymysql.err.OperationalError, match="denied"):
        hold(
            begin(0, "f00d", spread=lambda: 0.5),
            [opens, (leaves, pymysql.err.OperationalError(1142, "denied", sqlstate="42000"))],
        )
