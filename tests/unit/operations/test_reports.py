"""What reports are as JSON."""

import datetime
from typing import Dict

import pytest

from dualdb.operations.reports import time_text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "00:00:00"),
        ({"hours": 1, "seconds": 2}, "01:00:02"),
        ({"hours": 838, "minutes": 59, "seconds": 59}, "838:59:59"),
        ({"hours": -27, "seconds": -1, "microseconds": -500000}, "-27:00:01.500000"),
        ({"microseconds": -1}, "-00:00:00.000001"),
    ],
)
def test_a_time_is_written_as_mysql_does(fields: Dict[str, float], text: str) -> None:
    assert time_text(datetime.timedelta(**fields)) == text
