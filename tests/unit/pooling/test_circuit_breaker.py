"""The circuit breaker, given the time."""

from typing import List

import pytest

from dualdb.errors import ConnectionFailed
from dualdb.pooling.circuit_breaker import CircuitBreaker

REFUSED = ConnectionFailed(2003, "refused")


def opened(failures: int, *, spread: float = 1.0, now: float = 100.0) -> CircuitBreaker:
    breaker = CircuitBreaker(lambda: spread)
    for _ in range(failures):
        breaker.record_failure(now, REFUSED)
    return breaker


@pytest.mark.parametrize(("failures", "is_open"), [(0, False), (1, False), (2, False), (3, True)])
def test_it_opens_at_the_third_failure_in_a_row(failures: int, is_open: bool) -> None:
    breaker = opened(failures)
    assert breaker.is_open is is_open
    assert breaker.seconds_until_probe(100.0) == (0.5 if is_open else None)
    assert str(breaker.failure) == str(REFUSED if failures else None)


def test_a_success_in_between_begins_the_count_anew() -> None:
    breaker = opened(2)
    breaker.record_success()
    assert breaker.failure is None
    for _ in range(2):
        breaker.record_failure(100.0, REFUSED)
    assert not breaker.is_open


@pytest.mark.parametrize(("spread", "seconds"), [(0.0, 0.25), (0.5, 0.375), (1.0, 0.5)])
def test_it_stays_open_for_half_to_the_whole_time(spread: float, seconds: float) -> None:
    assert opened(3, spread=spread).seconds_until_probe(100.0) == seconds


def test_it_stays_open_longer_after_each_probe_that_fails() -> None:
    breaker, now = opened(3), 100.0
    waits: List[float] = []
    for _ in range(8):
        wait = breaker.seconds_until_probe(now)
        assert wait is not None
        waits.append(wait)
        now += wait
        assert breaker.seconds_until_probe(now) is None, "this caller probes"
        breaker.record_failure(now, REFUSED)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]


def test_one_caller_probes_while_the_others_wait() -> None:
    breaker = opened(3)
    assert breaker.seconds_until_probe(100.4) == pytest.approx(0.1)
    assert breaker.seconds_until_probe(100.5) is None
    assert breaker.seconds_until_probe(100.5) == 0.5
    breaker.record_cancelled()
    assert breaker.seconds_until_probe(100.5) is None
    breaker.record_success(REFUSED)
    assert (breaker.is_open, str(breaker.failure)) == (False, str(REFUSED))
    assert breaker.seconds_until_probe(100.5) is None


def test_after_a_probe_that_succeeded_one_failure_is_one_of_three() -> None:
    breaker = opened(3)
    assert breaker.seconds_until_probe(200.0) is None
    breaker.record_success()
    breaker.record_failure(200.0, REFUSED)
    assert not breaker.is_open


def test_it_keeps_no_frames_of_whoever_could_not_connect() -> None:
    breaker = CircuitBreaker()
    with pytest.raises(ConnectionFailed) as caught:
        raise ConnectionFailed(2003, "no") from OSError("refused")
    breaker.record_failure(1.0, caught.value)
    kept = breaker.failure
    assert kept is not None
    assert (kept.errno, kept.message) == (2003, "no")
    assert (kept.__traceback__, kept.__cause__, kept.__context__) == (None, None, None)


def test_an_outage_and_its_end_are_reported_once() -> None:
    breaker = CircuitBreaker()
    assert not breaker.report_outage()
    assert not breaker.report_recovery()
    breaker = opened(3)
    assert [breaker.report_outage(), breaker.report_outage()] == [True, False]
    breaker.record_success()
    assert [breaker.report_recovery(), breaker.report_recovery()] == [True, False]
    assert not breaker.report_outage()
