"""How many retries calls earn."""

from typing import List

from dualdb.pooling.retry_budget import RetryBudget


def test_the_budget_is_ten_retries_and_a_tenth_for_each_call() -> None:
    budget = RetryBudget()
    allowed: List[bool] = [budget.spend() for _ in range(11)]
    assert allowed == [True] * 10 + [False]
    for _ in range(9):
        budget.earn()
    assert not budget.spend(), "nine tenths are not one"
    for _ in range(2):
        budget.earn()
    assert budget.spend()
    assert not budget.spend()


def test_the_budget_does_not_grow_beyond_ten() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.earn()
    assert sum(budget.spend() for _ in range(20)) == 10
