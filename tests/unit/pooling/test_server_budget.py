"""Who may open a connection to a server that several pools share."""

import gc
from typing import Any, List, Optional

import pytest

from dualdb import DatabaseConfig
from dualdb.pooling.server_budget import Permit, PermitState, ServerBudget, budget_of


class Connection:
    """A connection without a socket."""

    permit: Any = None
    open = True

    def quit(self) -> None:
        """Close it."""
        self.open = False


class Pool:
    """A pool whose idle connections are a list."""

    closed = False

    def __init__(self, budget: ServerBudget, limit: int, idle_at: float = 0.0) -> None:
        self.config = DatabaseConfig(
            database="d", user="u", password="p", max_connections_per_server=limit
        )
        self.idle: List[Connection] = []
        self.idle_at = idle_at
        budget.join(self)

    def take_idle(self) -> Optional[Connection]:
        return self.idle.pop() if self.idle else None

    take_oldest_idle = take_idle

    def oldest_idle_at(self) -> Optional[float]:
        return self.idle_at if self.idle else None


@pytest.fixture
def budget() -> ServerBudget:
    return ServerBudget("db1:3306")


def opened(budget: ServerBudget, pool: Pool) -> Connection:
    """A connection that is opened by a permit that is granted at once."""
    permit = budget.request(pool)
    assert permit.granted
    permit.close_replaced()
    connection = Connection()
    permit.attach(connection)
    return connection


def test_a_permit_counts_until_its_connection_is_closed(budget: ServerBudget) -> None:
    pool = Pool(budget, 1)
    connection = opened(budget, pool)
    waiting = budget.request(pool)
    assert waiting.state is PermitState.WAITING
    assert budget.stats() == (1, 1, 1, 0, 0)
    connection.quit()
    budget.changed()
    assert waiting.granted
    assert budget.stats() == (1, 1, 0, 0, 0)


def test_the_pool_with_fewest_connections_is_next(budget: ServerBudget) -> None:
    many, few, none = [Pool(budget, 3) for _ in range(3)]
    connections = [opened(budget, many), opened(budget, many), opened(budget, few)]
    permits = [budget.request(pool) for pool in (many, few, none)]
    granted = []
    for connection in connections:
        connection.quit()
        budget.changed()
        granted.append([each.granted for each in permits])
    assert granted == [[False, False, True], [True, False, True], [True, True, True]]


def test_the_longest_idle_connection_makes_room(budget: ServerBudget) -> None:
    old, new, third = Pool(budget, 2, idle_at=1.0), Pool(budget, 2, idle_at=2.0), Pool(budget, 2)
    first, second = opened(budget, new), opened(budget, old)
    new.idle.append(first)
    old.idle.append(second)
    permit = budget.request(third)
    assert permit.granted
    assert permit.replaces is second
    assert budget.stats().open == 2, "the one that is replaced does not count any more"
    permit.close_replaced()
    assert (first.open, second.open) == (True, False)


def test_what_comes_back_serves_its_own_pool_s_callers(budget: ServerBudget) -> None:
    pool = Pool(budget, 1)
    connection = opened(budget, pool)
    permit = budget.request(pool)
    woken: List[bool] = []
    permit.on_decision(lambda: woken.append(True))
    pool.idle.append(connection)
    budget.changed()
    assert permit.state is PermitState.NEEDLESS
    assert permit.take_reused() is connection
    assert woken == [True]
    assert budget.stats().open == 1


@pytest.mark.parametrize(
    ("own", "other", "expected"), [(1, 0, True), (2, 1, False), (3, 1, True), (2, 2, False)]
)
def test_a_pool_yields_to_one_with_none_or_two_fewer(
    budget: ServerBudget, own: int, other: int, expected: bool
) -> None:
    mine, others = Pool(budget, own + other), Pool(budget, own + other)
    kept = [opened(budget, mine) for _ in range(own)]
    kept += [opened(budget, others) for _ in range(other)]
    assert not budget.must_yield(mine)
    permit = budget.request(others)
    assert not permit.granted
    assert budget.must_yield(mine) is expected
    assert not budget.must_yield(others)
    assert len(kept) == own + other


@pytest.mark.slow
def test_what_an_interrupted_caller_lost_is_free_again(budget: ServerBudget) -> None:
    pool = Pool(budget, 1)
    granted: Optional[Permit] = budget.request(pool)
    lost: Optional[Permit] = budget.request(pool)
    assert granted is not None
    assert granted.granted
    del granted, lost
    gc.collect()
    assert budget.request(pool).granted


def test_a_pool_that_closes_dismisses_its_callers(budget: ServerBudget) -> None:
    pool, other = Pool(budget, 1), Pool(budget, 1)
    connection = opened(budget, pool)
    permits = [budget.request(pool), budget.request(other)]
    budget.dismiss(pool)
    assert [each.state for each in permits] == [PermitState.WITHDRAWN, PermitState.WAITING]
    connection.quit()
    budget.changed()
    assert permits[1].granted


def test_the_error_names_the_server_and_its_figures(budget: ServerBudget) -> None:
    pool = Pool(budget, 1)
    connection = opened(budget, pool)
    error = budget.timeout("shard 3", 3, 0.2)
    assert "1 of 1 connections of this process to the server db1:3306" in str(error)
    assert error.shard_id == 3
    assert budget.stats().timeouts == 1
    assert connection.open


def test_the_least_limit_of_the_open_pools_holds(budget: ServerBudget) -> None:
    small, large = Pool(budget, 2), Pool(budget, 5)
    assert budget.limit == 2
    small.closed = True
    assert budget.limit == 5
    assert large.config.server_limit == 5


def test_pools_of_one_address_share_a_budget() -> None:
    fields: Any = {"database": "d", "user": "u", "password": "p"}
    alone = Pool(ServerBudget("it"), 1)
    assert budget_of(alone) is budget_of(Pool(ServerBudget("it"), 2))
    alone.config = DatabaseConfig(**fields)
    assert budget_of(alone) is None


def test_a_forked_child_begins_anew(budget: ServerBudget) -> None:
    pool = Pool(budget, 1)
    connection = opened(budget, pool)
    budget._forked()
    assert budget.stats().open == 0
    assert connection.open
