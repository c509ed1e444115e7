"""Ending a session on the server."""

from typing import Any

import pymysql.err
import pytest
from scripted_exchanges import OK, hold

from dualdb.protocol.kill import KillOutcome, end_session

KILL = b"KILL IS_USED_LOCK('dd12')"


def refused(code: int) -> Any:
    return pymysql.err.OperationalError(code, "refused", sqlstate="HY000")


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ([OK], KillOutcome.ENDED),
        (refused(1094), KillOutcome.NOT_FOUND),
        (refused(1095), KillOutcome.NOT_YET),
    ],
)
def test_a_session_is_ended_by_its_lock_alone(answer: Any, outcome: KillOutcome) -> None:
    assert hold(end_session("dd12"), [(KILL, answer)]) is outcome


def test_another_refusal_is_an_error() -> None:
    with pytest.raises(pymysql.err.OperationalError, match="refused"):
        hold(end_session("dd12"), [(KILL, refused(1290))])
