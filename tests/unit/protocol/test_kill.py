"""Ending a session on the server."""

from typing import Any

import pymysql.err
import pytest
from scripted_exchanges import OK, run_scripted

from dualdb.protocol.kill import KillOutcome, end_session
from dualdb.protocol.session_setup import SessionFacts

KILL = b"KILL IS_USED_LOCK('dd12')"
SESSION = SessionFacts("dd12", server="db1:3306")


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
    assert run_scripted(end_session(SESSION, SessionFacts()), [(KILL, answer)]) is outcome


@pytest.mark.parametrize(
    ("session", "server", "outcome"),
    [
        (SESSION, "db1:3306", KillOutcome.NOT_HELD),
        (SESSION, "db2:3306", KillOutcome.NOT_FOUND),
        (SessionFacts("dd12"), None, KillOutcome.NOT_FOUND),
    ],
)
def test_where_a_session_cannot_be_is_known_of_its_own_server(
    session: SessionFacts, server: Any, outcome: KillOutcome
) -> None:
    exchange = end_session(session, SessionFacts(server=server))
    assert run_scripted(exchange, [(KILL, refused(1094))]) is outcome


def test_another_refusal_is_an_error() -> None:
    with pytest.raises(pymysql.err.OperationalError, match="refused"):
        run_scripted(end_session(SESSION, SESSION), [(KILL, refused(1290))])
