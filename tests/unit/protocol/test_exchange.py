"""Session flags after an error, and how text is encoded."""

from types import SimpleNamespace
from typing import Any

import pymysql.err
import pytest
from scripted_exchanges import OK, UTF8

from dualdb import Out, ParameterError
from dualdb.endpoints.profiles import PROFILES
from dualdb.protocol.connection_state import ConnectionState
from dualdb.protocol.exchange import TextEncoding, readable, with_session_tracking
from dualdb.protocol.statements import Call, Statement
from dualdb.results import ResultSet


def test_a_character_that_the_connection_lacks_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ParameterError, match="'é' is not in the connection's ascii"):
        next(Statement("SELECT 'é'").exchange(TextEncoding("ascii", True)))


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
    connection: Any = Readable(
        max_rows=None,
        text_encoding=UTF8,
        dirty=False,
        reset_after_call=False,
        idle=True,
        set_names=b"SET NAMES utf8mb4",
    )
    exchange = with_session_tracking(
        statement,
        connection,
        in_transaction=in_transaction,
    )
    next(exchange)
    if asks:
        probe = b"SET NAMES utf8mb4" if statement.calls else b"DO 0"
        assert exchange.throw(error) == probe
        with pytest.raises(type(error)):
            exchange.send([OK])
    else:
        with pytest.raises(type(error)):
            exchange.throw(error)


def test_a_character_that_turns_into_an_ascii_one_on_its_way_is_refused() -> None:
    assert TextEncoding("cp932", True).encode("\u8868") == b"\x95\x5c"
    with pytest.raises(ParameterError, match="ASCII"):
        TextEncoding("shift_jis", True).encode("'\u203e\xa5'")
    with pytest.raises(ParameterError, match="is not in the connection's latin1"):
        TextEncoding("latin1", True).encode("\u8868")


class Readable(SimpleNamespace):
    """A connection as far as an exchange knows it."""

    readable = ConnectionState.readable
    profile = PROFILES["mysql"]
    writes = None


@pytest.mark.parametrize(
    "answer",
    [
        ResultSet([], (), 0, 0, 0),
        ResultSet([{"another": 1}], ("another",), 1, 0, 0),
    ],
    ids=["no row", "another column"],
)
def test_an_answer_to_something_else_is_the_connection_s_error(answer: ResultSet) -> None:
    connection: Any = Readable(
        max_rows=None, text_encoding=UTF8, dirty=False, reset_after_call=False, idle=True
    )
    exchange = with_session_tracking(Call("p", (Out("total"),)), connection)
    next(exchange)
    exchange.send([OK])
    with pytest.raises(pymysql.err.OperationalError, match="cannot be read"):
        exchange.send([answer])
    assert not connection.idle

    def ask() -> Any:
        (found,) = yield b"SELECT 1 AS wanted"
        return found.rows[0]["wanted"]

    other: Any = Readable(idle=True)
    exchange = readable(ask(), other)
    next(exchange)
    with pytest.raises(pymysql.err.OperationalError, match="cannot be read"):
        exchange.send([answer])
    assert not other.idle
