"""The log of slow calls."""

import logging
from typing import Any

import pytest

from dualdb.observability.query_call import ObservedCall
from dualdb.observability.slow_log import SlowQueryLog
from dualdb.protocol.statements import Statement


def ended_after(seconds: float, place: Any = None, parent: Any = None) -> Any:
    statement = Statement("SELECT a FROM t WHERE b = %s", ("canary",))
    call = ObservedCall("query", "shard 7", 7, statement, began=100.0, parent=parent)
    call.place = place
    call.sending(100.25, in_transaction=False)
    call.answered(100.0 + seconds)
    return call.finished(100.0 + seconds, 3, None)


def test_calls_from_the_threshold_on_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    log = SlowQueryLog(0.5)
    with caplog.at_level(logging.INFO):
        log.add(ended_after(0.375))
        assert caplog.records == []
        log.add(ended_after(0.5, "app.py:7"))
    (record,) = caplog.records
    assert record.getMessage() == (
        "slow query on shard 7: 0.500 s (0.250 s waiting for a connection), attempts: 1, 3 rows, "
        "at app.py:7: SELECT a FROM t WHERE b = ?"
    )
    assert vars(record)["waited"] + vars(record)["ran"] == 0.5
    assert "canary" not in repr(vars(record))


def test_the_place_is_that_of_the_whole_call(caplog: pytest.LogCaptureFixture) -> None:
    parent = ObservedCall("scatter", "shards", None, Statement("SELECT 1"), began=100.0)
    parent.place = "app.py:9"
    SlowQueryLog(0.0).add(ended_after(1.0, parent=parent))
    SlowQueryLog(0.0).add(ended_after(1.0))
    places = [vars(record)["place"] for record in caplog.records]
    assert places[0] == "app.py:9"
    assert __file__ in places[1]


def test_what_is_sent_again_is_waiting_meanwhile() -> None:
    call = ObservedCall("query", "shard 7", 7, Statement("SELECT 1"), began=100.0)
    call.sending(101.0, in_transaction=False)
    call.answered(103.0)
    call.sending(107.0, in_transaction=False)
    call.answered(108.0)
    event = call.finished(108.5, 1, None)
    assert (event.waited, event.ran, event.attempts) == (5.0, 3.5, 2)
    never_sent = ObservedCall("query", "shard 7", 7, Statement("SELECT 1"), began=100.0)
    event = never_sent.finished(102.0, None, ValueError())
    assert (event.waited, event.ran, event.attempts) == (2.0, 0.0, 0)
