"""The pause between attempts."""

from dualdb.execution import retry
from dualdb.pooling.retry_budget import RetryBudget


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
