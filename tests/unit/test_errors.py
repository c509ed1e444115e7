"""The error tree: its classes, its codes, and what must never be in it."""

import inspect
import pickle
from typing import Any

import pymysql.err
import pytest

import dualdb
from dualdb import errors

TREE = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, errors.Error)]


@pytest.mark.parametrize("cls", TREE)
def test_every_error_survives_pickling(cls: Any) -> None:
    error = cls(1213, "Deadlock", sqlstate="40001").about("shard 3", 3, sent=True)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert (again.args, again.sqlstate, again.target, again.shard_id, again.sent) == ((1213, "Deadlock"), "40001", "shard 3", 3, True)
    assert str(again) == str(error)


@pytest.mark.parametrize("cls", TREE)
def test_every_error_is_public_and_a_pymysql_error(cls: Any) -> None:
    assert getattr(dualdb, cls.__name__) is cls
    assert issubclass(cls, pymysql.err.Error)


@pytest.mark.parametrize(
    "name",
    ["DataError", "IntegrityError", "InterfaceError", "InternalError", "NotSupportedError", "OperationalError", "ProgrammingError"],
)
def test_a_server_s_error_keeps_its_class_and_code(name: str) -> None:
    said = getattr(pymysql.err, name)(1062, "Duplicate entry 'x'", sqlstate="23000")
    told = errors.told(said, "shard 2", 2)
    assert type(told) is getattr(errors, name)
    assert isinstance(told, getattr(pymysql.err, name))
    assert (told.args, told.errno, told.sqlstate, told.shard_id) == ((1062, "Duplicate entry 'x'"), 1062, "23000", 2)
    assert str(told) == "(1062, \"Duplicate entry 'x'\") [shard 2]"


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
def test_a_lost_connection_is_told_from_a_refusal_by_its_code(error: Exception, lost: bool) -> None:
    told = errors.told(error, "global", None)
    assert isinstance(told, errors.Error)
    assert isinstance(told, errors.ConnectionLost) is lost
    assert isinstance(told, pymysql.err.OperationalError)
    assert isinstance(told.errno, int)


def test_a_code_beyond_the_driver_s_short_is_mended() -> None:
    assert errors.from_driver(pymysql.err.InternalError(50000 - 65536, "mine", sqlstate="45000")).args == (50000, "mine")


def test_shard_errors_are_runtime_errors_as_the_original_s_were() -> None:
    for cls in (errors.ShardNotFound, errors.ShardUnavailable, errors.ServiceNotOpen):
        assert issubclass(cls, RuntimeError)
    error = errors.unavailable(7, "it is in maintenance")
    assert str(error) == "Shard 7 not available"
    assert pickle.loads(pickle.dumps(error)).reason == "it is in maintenance"
    assert error.errno is None
