"""What is begun again, and the pause before it."""

from types import SimpleNamespace
from typing import Any, List, Optional

import pytest
from shard_rows import BASE

from dualdb import errors
from dualdb.execution import retry
from dualdb.execution.steps import RunBlock, Sleep
from dualdb.pooling.retry_budget import RetryBudget
from dualdb.protocol.transaction_commands import TransactionOptions


def test_when_everything_fails_retries_are_a_tenth_of_the_calls() -> None:
    budget = RetryBudget()
    spent = 0
    for _ in range(1000):
        budget.earn()
        spent += budget.spend()
    assert 100 <= spent <= 110


def test_backoff_grows_to_its_cap_and_spreads_over_the_whole_range() -> None:
    longest = [
        retry.backoff(attempt, base=0.05, cap=2.0, spread=lambda: 1.0) for attempt in range(9)
    ]
    assert longest == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
    assert retry.backoff(3, spread=lambda: 0.0) == 0.0
    assert retry.backoff(10_000, cap=2.0, spread=lambda: 1.0) == 2.0


CONFLICT = errors.Deadlock(1213, "Deadlock found")


def caused_by(cause: Exception) -> errors.Error:
    error = errors.TransactionAborted("rolled back")
    error.__cause__ = cause
    return error


def partially_committed() -> errors.Error:
    error = errors.ConnectionLost(2013, "Lost connection")
    error.partially_committed = True
    return error


@pytest.mark.parametrize(
    ("failure", "attempt", "attempts", "begins"),
    [
        (CONFLICT, 0, 5, True),
        (CONFLICT, 3, 5, True),
        (CONFLICT, 4, 5, False),
        (CONFLICT, 0, 1, False),
        (errors.LockWaitTimeout(1205, "waited"), 0, 2, True),
        (errors.ConnectionLost(2013, "lost"), 0, 2, True),
        (caused_by(CONFLICT), 0, 2, True),
        (caused_by(KeyError()), 0, 2, False),
        (partially_committed(), 0, 5, False),
        (errors.DataError(1264, "range"), 0, 5, False),
    ],
)
def test_a_transaction_is_begun_again_after_what_left_nothing(
    failure: errors.Error, attempt: int, attempts: int, begins: bool
) -> None:
    pause = retry.pause_before_run(failure, attempt, attempts)
    assert (pause is not None) is begins
    assert pause is None or 0.0 <= pause <= 0.05 * 2**attempt


@pytest.mark.parametrize(
    ("until", "begins"), [(None, True), (0.0, False), (0.1, False), (0.1001, True), (5.0, True)]
)
def test_a_transaction_is_not_begun_again_after_its_time(
    monkeypatch: pytest.MonkeyPatch, until: Optional[float], begins: bool
) -> None:
    monkeypatch.setattr(retry, "backoff", lambda attempt: 0.1)
    found = retry.pause_before_run(CONFLICT, 0, 5, until, clock=lambda: 0.0)
    assert found == (0.1 if begins else None)


def test_the_defaults_of_backoff() -> None:
    assert retry.backoff(0, spread=lambda: 1.0) == 0.05
    assert retry.backoff(10, spread=lambda: 1.0) == 2.0
    assert retry.RUN_ATTEMPTS == 5


class Attempts:
    """Runs ``retry.run`` on attempts that end in a scripted way.

    Args:
        ends: What each attempt returns or raises.
        inner: The transactions are savepoints.
    """

    def __init__(self, *ends: object, inner: bool = False) -> None:
        self.options: List[TransactionOptions] = []
        self.pauses: List[float] = []
        self._ends = iter(ends)
        self._outer = object() if inner else None

    def transaction(self, options: TransactionOptions) -> Any:
        self.options.append(options)
        client = SimpleNamespace(shared=None, pool=self, config=BASE)
        client.client = client
        return SimpleNamespace(outer=self._outer, client=client)

    def run(self, attempts: int = 5, timeout: Optional[float] = None) -> Any:
        function: Any = object()
        options = TransactionOptions(timeout=timeout)
        plan: Any = retry.run(self.transaction, lambda each: each, function, options, attempts)
        step = next(plan)
        try:
            while True:
                if isinstance(step, Sleep):
                    self.pauses.append(step.seconds)
                    step = plan.send(None)
                    continue
                assert isinstance(step, RunBlock)
                assert step.function is function
                end = next(self._ends)
                step = plan.throw(end) if isinstance(end, Exception) else plan.send(end)
        except StopIteration as done:
            return done.value


def test_a_transaction_is_repeated_after_conflicts() -> None:
    attempts = Attempts(CONFLICT, CONFLICT, "done")
    assert attempts.run(attempts=3) == "done"
    assert len(attempts.options) == 3
    first, second = attempts.pauses
    assert 0 < first <= 0.05
    assert 0 < second <= 0.1


def test_the_last_attempt_s_error_is_raised() -> None:
    attempts = Attempts(CONFLICT, CONFLICT, "not reached")
    with pytest.raises(errors.Deadlock):
        attempts.run(attempts=2)
    assert len(attempts.options) == 2


def test_all_attempts_have_one_deadline() -> None:
    attempts = Attempts(CONFLICT, "done")
    assert attempts.run(timeout=60.0) == "done"
    first, second = attempts.options
    assert first.until is not None
    assert first.until == second.until
    expired = Attempts(CONFLICT)
    with pytest.raises(errors.Deadlock):
        expired.run(timeout=0.0)


@pytest.mark.parametrize("error", [CONFLICT, errors.TenantFenced(31001, errors.FENCE_TEXT)])
def test_a_savepoint_is_not_repeated(error: errors.Error) -> None:
    attempts = Attempts(error, inner=True)
    with pytest.raises(type(error)):
        attempts.run()
    assert attempts.pauses == []


def test_a_fence_is_waited_for_and_is_no_attempt() -> None:
    fenced = errors.TenantFenced(31001, errors.FENCE_TEXT)
    attempts = Attempts(fenced, fenced, fenced, "done")
    assert attempts.run(attempts=1) == "done"
    assert len(attempts.pauses) == 3
    assert max(attempts.pauses) < 0.05
