"""When a session that is to be killed is tried again, and when it is given up."""

import logging
from types import SimpleNamespace
from typing import Any, List, Optional, Tuple

import pytest

from dualdb.pooling.session_killer import MOST_SEARCHES, SessionKiller
from dualdb.protocol.kill import KillOutcome


def killer_of(*session_ids: int) -> Any:
    killer = SessionKiller("shard 1")
    for session_id in session_ids:
        killer.add(SimpleNamespace(session_id=session_id))
    return killer


def next_id(killer: Any) -> Any:
    job = killer.next()
    return job, None if job is None else job.connection.session_id


def test_sessions_are_killed_in_their_order() -> None:
    killer = killer_of(1, 2)
    for expected in (1, 2):
        job, session_id = next_id(killer)
        assert session_id == expected
        assert killer.is_over(job, KillOutcome.ENDED, closed=False)
    assert next_id(killer) == (None, None)


def test_a_definer_s_session_is_tried_again_until_the_pool_is_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    killer = killer_of(1, 2)
    job, _ = next_id(killer)
    with caplog.at_level(logging.WARNING, "dualdb"):
        assert not killer.is_over(job, KillOutcome.NOT_YET, closed=False)
        assert next_id(killer)[1] == 2, "another one's turn first"
        job, session_id = next_id(killer)
        assert session_id == 1
        assert not killer.is_over(job, KillOutcome.NOT_YET, closed=False)
    assert caplog.text.count("definer's rights") == 1
    job, _ = next_id(killer)
    assert killer.is_over(job, KillOutcome.NOT_YET, closed=True)
    assert not len(killer)


def test_a_session_that_is_nowhere_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    killer = killer_of(1)
    searches = 0
    while True:
        job, _ = next_id(killer)
        searches += 1
        if killer.is_over(job, KillOutcome.NOT_FOUND, closed=False):
            break
    assert searches == MOST_SEARCHES
    assert "session 1 was not found" in caplog.text
    assert not len(killer)


def test_a_session_that_its_own_server_does_not_have_is_not_looked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    killer = killer_of(1, 2)
    job, _ = next_id(killer)
    assert killer.is_over(job, KillOutcome.NOT_HELD, closed=False)
    assert "session 1 was not found on its server" in caplog.text
    job, _ = next_id(killer)
    assert killer.is_over(job, KillOutcome.NOT_FOUND, closed=True)
    assert not len(killer)


@pytest.mark.parametrize(
    ("lock", "outcome", "expected"),
    [
        ("dd1", KillOutcome.ENDED, "ended"),
        (None, KillOutcome.ENDED, "unproven"),
        (None, KillOutcome.NOT_HELD, "not held"),
    ],
)
def test_the_end_of_a_job_is_reported(
    lock: Optional[str], outcome: KillOutcome, expected: str
) -> None:
    reported: List[Tuple[float, str]] = []
    killer: Any = SessionKiller("shard 1", on_end=lambda *end: reported.append(end))
    facts = SimpleNamespace(lock=lock)
    killer.add(SimpleNamespace(session_id=1, facts=facts))
    assert killer.is_over(killer.next(), outcome, closed=False)
    ((seconds, what),) = reported
    assert seconds >= 0
    assert what == expected
