"""Noticing a driver that this package's reader does not fit."""

from typing import Any

import pytest
from packets import Recorded, by_driver, packets
from pymysql.connections import Connection, MySQLResult
from pymysql.constants import FIELD_TYPE
from pymysql.converters import decoders

from dualdb.protocol import driver_check
from dualdb.protocol.driver_check import _payloads


def test_a_driver_that_changes_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    def changed() -> Any:
        result: Any = MySQLResult(Recorded(packets(_payloads())))  # type: ignore[arg-type]
        result.connection.decoders = {**decoders, FIELD_TYPE.LONGLONG: float}
        result.read()
        return result.rows

    assert driver_check.why_not(Connection, lambda: by_driver(packets(_payloads())).rows) == ""
    assert not driver_check.trusted(Connection, changed, "9.9")
    assert "pymysql 9.9 decodes rows itself" in caplog.text
    assert driver_check.why_not(Connection, lambda: 1 / 0) == "ZeroDivisionError: division by zero"
    assert driver_check.why_not(object, changed) == "builtins has no _read_query_result"
