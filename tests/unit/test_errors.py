"""The error tree: its classes, its codes, and what must never be in it."""

import inspect
import pickle
import struct
import traceback
from typing import Any

import pymysql.err
import pytest

import dualdb
from dualdb import error_codes, errors
from dualdb.operations import move_tables
from dualdb.results import ScatterResult

TREE = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, errors.Error)
]


@pytest.mark.parametrize("cls", TREE)
def test_every_error_survives_pickling(cls: Any) -> None:
    error = cls(1213, "Deadlock", sqlstate="40001").with_context("shard 3", 3, sent=True)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert (again.args, again.sqlstate, again.target, again.shard_id, again.sent) == (
        (1213, "Deadlock"),
        "40001",
        "shard 3",
        3,
        True,
    )
    assert str(again) == str(error)


@pytest.mark.parametrize("cls", TREE)
def test_every_error_is_public_and_a_pymysql_error(cls: Any) -> None:
    assert getattr(dualdb, cls.__name__) is cls
    assert issubclass(cls, pymysql.err.Error)


@pytest.mark.parametrize(
    "name",
    [
        "DataError",
        "IntegrityError",
        "InterfaceError",
        "InternalError",
        "NotSupportedError",
        "OperationalError",
        "ProgrammingError",
    ],
)
def test_a_server_s_error_keeps_its_class_and_code(name: str) -> None:
    original = getattr(pymysql.err, name)(1062, "Duplicate entry 'x'", sqlstate="23000")
    translated = errors.translate_error(original, "shard 2", 2)
    assert type(translated) is getattr(errors, name)
    assert isinstance(translated, getattr(pymysql.err, name))
    assert (
        translated.args,
        translated.errno,
        translated.sqlstate,
        translated.shard_id,
    ) == (
        (1062, "Duplicate entry 'x'"),
        1062,
        "23000",
        2,
    )
    assert str(translated) == "(1062, \"Duplicate entry 'x'\") [shard 2]"


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (pymysql.err.OperationalError(1205, "Lock wait timeout", sqlstate="HY000"), False),
        (pymysql.err.OperationalError(2500, "a SIGNAL with this code", sqlstate="45000"), False),
        (pymysql.err.OperationalError(2013, "Lost connection"), True),
        (pymysql.err.OperationalError(2006, "gone away"), True),
        (pymysql.err.OperationalError(2014, "Command Out of Sync"), True),
        (pymysql.err.OperationalError(1927, "Connection was killed", sqlstate="70100"), True),
        (pymysql.err.OperationalError(4031, "The client was disconnected", sqlstate="HY000"), True),
        (pymysql.err.InternalError("Packet sequence number wrong - got 3 expected 1"), True),
        (pymysql.err.InterfaceError("(0, 'Not connected')"), True),
        (ConnectionResetError(104, "reset"), True),
    ],
)
def test_a_lost_connection_differs_from_a_refusal_by_its_code(error: Exception, lost: bool) -> None:
    translated = errors.translate_error(error, "global", None)
    assert isinstance(translated, errors.Error)
    assert isinstance(translated, errors.ConnectionLost) is lost
    assert isinstance(translated, pymysql.err.OperationalError)
    assert isinstance(translated.errno, int)


D, L, R, S = (
    errors.Deadlock,
    errors.LockWaitTimeout,
    errors.ReadOnlyServer,
    errors.StatementInterrupted,
)
#: What a server's code means to whoever asked for a statement: the error's class, and
#: whether the same may succeed later.
REFUSALS = [
    # a deadlock; with Galera at COMMIT a conflict with another node
    (1213, "40001", D, True),
    (3101, "HY000", D, True),  # Group Replication rolled it back
    (8002, "HY000", D, True),  # TiDB's conflicts
    (8022, "HY000", D, True),
    (8028, "HY000", D, True),
    (9007, "HY000", D, True),
    (1205, "HY000", L, True),
    (1020, "HY000", D, True),  # MariaDB with innodb_snapshot_isolation
    (3058, "HY000", D, True),  # of GET_LOCK
    (3572, "HY000", L, True),  # NOWAIT
    (1047, "08S01", errors.NotPrimary, True),  # Galera without a quorum
    (3032, "HY000", errors.NotPrimary, True),  # offline mode
    (3100, "HY000", errors.NotPrimary, True),  # Group Replication without a quorum
    (3797, "HY000", errors.OperationalError, True),  # it lags behind
    (1153, "08S01", errors.PacketTooLarge, False),
    (1301, "HY000", errors.OperationalError, False),  # a function's result
    (1180, "HY000", errors.OutcomeUnknown, False),  # Galera as it loses it
    (1235, "42000", errors.NotSupportedError, False),  # XA on Galera
    (1290, "HY000", R, True),
    (1836, "HY000", R, True),
    (1792, "25006", R, False),  # the transaction was declared read-only
    (3024, "HY000", S, False),
    (1317, "70100", S, False),
    (1969, "70100", S, False),
    (1429, "HY000", errors.OperationalError, True),  # a data node behind Spider
    (1040, "08004", errors.OperationalError, True),
    (1203, "42000", errors.OperationalError, True),
    (1226, "42000", errors.OperationalError, True),
    (1045, "28000", errors.OperationalError, False),
    (1049, "42000", errors.OperationalError, False),
    (1146, "42S02", errors.ProgrammingError, False),
    (1062, "23000", errors.IntegrityError, False),
    (1406, "22001", errors.DataError, False),
    # a SIGNAL of the application's own
    (31001, "45000", errors.OperationalError, False),
]


def refusal(code: int, text: str) -> Any:
    return pymysql.err.OperationalError(code, text, sqlstate="HY000")


def test_the_options_of_1290_are_told_apart() -> None:
    for option, is_primary in [
        ("--read-only", False),
        ("--super-read-only", False),
        ("--innodb-read-only", False),
        ("--secure-file-priv", True),
        ("--skip-grant-tables", True),
    ]:
        error = refusal(1290, f"The server is running with the {option} option so it cannot")
        translated: Any = errors.translate_error(error, "global", None)
        assert errors.means_not_primary(error) is not is_primary
        assert isinstance(translated, errors.ReadOnlyServer) is not is_primary
        assert translated.retryable is not is_primary


def test_a_code_that_engines_use_differently_is_read_by_the_engine() -> None:
    """4031 is MySQL's word before it closes an idle connection, and a DDL error of
    MariaDB.
    """
    error = refusal(4031, "Referenced trigger 'a' does not exist")
    error.is_from_mariadb = True
    assert errors.is_server_error(error)
    assert type(errors.translate_error(error, "global", None)) is errors.OperationalError


def test_a_table_of_codes_has_nothing_but_numbers() -> None:
    tables = {name: value for name, value in vars(error_codes).items() if name.isupper()}
    assert len(tables) > 15
    for value in tables.values():
        assert isinstance(value, int) or all(type(code) is int for code in value)


def test_a_code_has_one_meaning() -> None:
    meanings = [
        error_codes.CONFLICT,
        error_codes.LOCK_NOT_AVAILABLE,
        error_codes.READ_ONLY,
        error_codes.NOT_IN_SERVICE,
        error_codes.TOO_BIG,
        error_codes.INTERRUPTED,
        error_codes.OUTCOME_UNKNOWN,
        error_codes.NOT_SUPPORTED,
        error_codes.PASSING,
        error_codes.LOST,
        error_codes.DENIED,
    ]
    assert sum(map(len, meanings)) == len(frozenset().union(*meanings))


@pytest.mark.parametrize(("code", "sqlstate", "cls", "retryable"), REFUSALS)
def test_a_server_s_refusal_by_its_code(
    code: int, sqlstate: str, cls: Any, retryable: bool
) -> None:
    packet = (
        b"\xff" + struct.pack("<H", code) + b"#" + sqlstate.encode() + b"words that mean nothing"
    )
    with pytest.raises(pymysql.err.MySQLError) as raised:
        pymysql.err.raise_mysql_exception(packet)
    translated: Any = errors.translate_error(raised.value, "shard 2", 2)
    assert type(translated) is cls
    assert (
        translated.errno,
        translated.sqlstate,
        translated.retryable,
        translated.sent,
    ) == (
        code,
        sqlstate,
        retryable,
        True,
    )


@pytest.mark.parametrize("state", [move_tables.FENCED, move_tables.MOVED])
def test_the_fence_of_a_move_differs_from_an_application_s_signal(state: int) -> None:
    """Both may have the same code; the fence has its message as well."""
    refused = refusal(31001, move_tables._MESSAGES[state])
    translated: Any = errors.translate_error(refused, "shard 2", 2)
    assert type(translated) is errors.TenantFenced
    assert translated.retryable
    assert translated.has_moved is (state == move_tables.MOVED)
    translated.partially_committed = True
    assert not translated.retryable


LOST = [2006, 2013, 2055, 1053, 1152, 1156, 1158, 1159, 1160, 1161, 1927, 4031]


@pytest.mark.parametrize("code", LOST)
@pytest.mark.parametrize("sent", [False, True])
def test_a_lost_connection_by_its_code(code: int, sent: bool) -> None:
    translated = errors.translate_error(
        pymysql.err.OperationalError(code, "x", sqlstate="HY000"), "global", None, sent=sent
    )
    assert type(translated) is errors.ConnectionLost
    assert (translated.sent, translated.errno) == (sent, code)


@pytest.mark.parametrize(
    ("code", "retryable", "opens_the_circuit"),
    [
        (2002, True, True),
        (2003, True, True),
        (2005, True, True),
        (2013, True, True),
        (1040, True, False),
        (1203, True, False),
        (1129, False, True),
        (1044, False, False),
        (1045, False, False),
        (1049, False, False),
        (1698, False, False),
    ],
)
def test_a_failed_connect_by_its_code(code: int, retryable: bool, opens_the_circuit: bool) -> None:
    assert errors.ConnectionFailed(code, "x").retryable is retryable
    assert (code in error_codes.UNREACHABLE) is opens_the_circuit


def test_a_code_beyond_the_driver_s_short_is_mended() -> None:
    assert errors.from_driver(
        pymysql.err.InternalError(50000 - 65536, "mine", sqlstate="45000")
    ).args == (50000, "mine")


def test_shard_errors_are_runtime_errors_as_the_original_s_were() -> None:
    for cls in (errors.ShardNotFound, errors.ShardUnavailable, errors.ServiceNotOpen):
        assert issubclass(cls, RuntimeError)
    error = errors.shard_unavailable(7, "it is in maintenance")
    assert str(error) == "Shard 7 not available: it is in maintenance"
    assert error.args == ("Shard 7 not available",)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert error.errno is None


@pytest.mark.parametrize(
    "cls", [errors.DeadlineExceeded, errors.WriteTimedOut, errors.ConnectionLost]
)
def test_the_text_is_that_of_every_other_error(cls: Any) -> None:
    error = cls(2013, "it took too long").with_context("shard 7", 7, sent=True)
    assert str(error) == "(2013, 'it took too long') [shard 7]"
    assert (error.message, error.summary) == ("it took too long", "it took too long (2013)")
    assert str(cls("it took too long")) == "it took too long"
    copied = pickle.loads(pickle.dumps(error))
    assert (str(copied), copied.args) == (str(error), error.args)


def test_public_classes_say_their_public_names() -> None:
    for name in dualdb.__all__:
        value = getattr(dualdb, name)
        if isinstance(value, type):
            assert f"{value.__module__}.{value.__qualname__}" in (f"dualdb.{name}", "builtins.dict")
            assert pickle.loads(pickle.dumps(value)) is value


def test_the_drivers_error_is_kept_and_not_pickled() -> None:
    refused = pymysql.err.ProgrammingError(1064, "syntax")
    translated = errors.from_driver(refused)
    assert translated.driver_error is refused
    assert pickle.loads(pickle.dumps(translated)).driver_error is None


def test_raising_in_place_of_an_error_shows_one_exception() -> None:
    refused = pymysql.err.ProgrammingError(1064, "syntax")
    with pytest.raises(dualdb.ProgrammingError) as caught:
        try:
            raise refused
        except pymysql.err.ProgrammingError as error:
            errors.raise_translated(error, errors.from_driver(error))
    shown = "".join(traceback.format_exception(type(caught.value), caught.value, caught.tb))
    assert "syntax" in shown
    assert shown.count("Traceback") == 1
    assert refused.__traceback__ is None


def test_a_cause_that_was_given_is_shown() -> None:
    aborted = dualdb.TransactionAborted("it is over")
    aborted.__cause__ = dualdb.Deadlock(1213, "deadlock")
    with pytest.raises(dualdb.TransactionAborted) as caught:
        errors.raise_translated(aborted, aborted)
    assert isinstance(caught.value.__cause__, dualdb.Deadlock)


def test_what_is_no_error_of_the_tree_is_raised_as_it_is() -> None:
    fault = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as caught:
        errors.raise_translated(fault, fault)
    assert caught.value is fault


@pytest.mark.parametrize("partially_committed", [False, True])
@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (errors.Deadlock(1213, "x"), True),
        (errors.DataError(1264, "x"), False),
        (errors.ConnectionLost(2013, "x"), True),
        (errors.NotPrimary(1290, "x"), True),
        (errors.NotPrimary(1792, "x"), False),
        (errors.DeadlineExceeded("x").with_context("it", sent=False), True),
        (errors.DeadlineExceeded("x").with_context("it", sent=True), False),
        (errors.OutcomeUnknown(2013, "x"), False),
        (errors.WriteTimedOut("x").with_context("it", sent=True), False),
    ],
)
def test_what_may_be_called_again(
    error: errors.Error, retryable: bool, partially_committed: bool
) -> None:
    error.partially_committed = partially_committed
    assert error.retryable is (retryable and not partially_committed)


@pytest.mark.parametrize(
    ("least", "text"),
    [
        (None, "2 of 3 shards failed: shard 1: away, shard 2: Shard 2 not available"),
        (
            2,
            "2 of 3 shards failed, and 2 must answer: shard 1: away, "
            "shard 2: Shard 2 not available",
        ),
    ],
)
def test_a_scatter_s_error_names_the_shards(least: Any, text: str) -> None:
    failed = {
        2: errors.shard_unavailable(2, ""),
        1: errors.shard_unavailable(1, "away", 1.5),
    }
    result: Any = ScatterResult({}, failed)
    error = errors.scatter_error(result, 3, least)
    assert (str(error), error.result) == (text, result)
    assert (failed[1].retry_after, failed[1].shard_id, failed[1].sent) == (1.5, 1, False)


def test_too_many_rows_are_refused_with_their_limit() -> None:
    errors.check_rows(5, 5)
    with pytest.raises(errors.TooManyRows, match=r"^there are more than 5 rows \(max_rows\)$"):
        errors.check_rows(6, 5)


def test_an_error_without_a_code_keeps_its_words() -> None:
    assert errors.from_driver(pymysql.err.InterfaceError("words")).args == ("words",)
    assert errors.from_driver(EOFError()).args == ("EOFError",)


def test_the_fence_of_a_tenant_is_known_by_its_code_and_text() -> None:
    for text, moved in (("is being moved to another shard", False), ("has moved to another", True)):
        packet = b"\xff" + struct.pack("<H", 31001) + f"#45000dualdb: this tenant {text}".encode()
        with pytest.raises(pymysql.err.MySQLError) as raised:
            pymysql.err.raise_mysql_exception(packet)
        fenced: Any = errors.translate_error(raised.value, "shard 2", 2)
        assert type(fenced) is errors.TenantFenced
        assert (fenced.retryable, fenced.has_moved, fenced.errno) == (True, moved, 31001)
        fenced.partially_committed = True
        assert not fenced.retryable
