"""Who may open a connection to a server that several pools share."""

import gc
from typing import Any, List, Optional

import pytest

from dualdb import DatabaseConfig
from dualdb.endpoints.state import Endpoints
from dualdb.pooling.base import BasePool
from dualdb.pooling.server_budget import Permit, PermitState, PoolBudgets, ServerBudget


class Connection:
    """A connection without a socket."""

    budget: Any = None
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

    def take_oldest_idle(self, budget: ServerBudget) -> Optional[Connection]:
        found = [each for each in self.idle if each.budget is budget]
        if not found:
            return None
        self.idle.remove(found[0])
        return found[0]

    def oldest_idle_at(self, budget: ServerBudget) -> Optional[float]:
        return self.idle_at if any(each.budget is budget for each in self.idle) else None


@pytest.fixture
def budget() -> ServerBudget:
    return ServerBudget("db1:3306")


def opened(budget: ServerBudget, pool: Pool) -> Connection:
    """A connection that is opened by a permit that is granted at once."""
    permit = budget.request(pool)
    assert permit.granted
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
    assert (first.open, second.open) == (True, False)
    assert budget.stats() == (2, 2, 0, 0, 1)


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
    assert [each.state for each in permits] == [PermitState.DISMISSED, PermitState.WAITING]
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


def pool_of(host: str, **options: Any) -> Pool:
    pool = Pool(ServerBudget("it"), 1)
    fields: Any = {"database": "d", "user": "u", "password": "p", "host": host}
    pool.config = DatabaseConfig(**fields, **options)
    return pool


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("db1", "DB1.:3306"),
        ("db1:3306,db2:3307", "db2:3307,db1"),
        ("db1,db2", "db1"),
        ("localhost", "127.0.0.1"),
        ("[::1]:3306", "localhost:3306"),
        ("10.0.0.1", "[::ffff:10.0.0.1]:3306"),
        ("[2001:db8::1]:3306", "[2001:0db8:0::1]:3306"),
    ],
)
def test_pools_of_one_server_share_its_budget(one: str, other: str) -> None:
    pools = [pool_of(host, max_connections_per_server=3) for host in (one, other)]
    ours, theirs = [PoolBudgets(pool) for pool in pools]
    servers = [each.config.servers for each in pools]
    for budget in set(ours.all) | set(theirs.all):
        named = [budget.server in each for each in servers]
        assert [budget in each.all for each in (ours, theirs)] == named
    assert set(ours.all) & set(theirs.all)


def test_each_of_several_hosts_has_a_budget_and_its_own_limit() -> None:
    pool = pool_of(
        "db1,db2,db3:3307", server_limits={"DB1:3306": 3, "db3.:3307": 5}, endpoint_policy="any"
    )
    endpoints = Endpoints(pool.config.hosts)
    budgets = PoolBudgets(pool)
    found = [budgets.at(endpoint) for endpoint in endpoints.all]
    assert [None if each is None else each.server for each in found] == [
        "db1:3306",
        None,
        "db3:3307",
    ]
    assert [each.limit for each in budgets.all] == [3, 5]
    assert pool.config.server_limit == 3


def test_without_a_limit_there_is_no_budget() -> None:
    pool = pool_of("db1,db2")
    budgets = PoolBudgets(pool)
    assert budgets.all == ()
    assert budgets.at(Endpoints(pool.config.hosts).all[1]) is None


def test_what_was_withdrawn_does_not_count_and_is_granted_to_the_next(
    budget: ServerBudget,
) -> None:
    pool = Pool(budget, 1)
    first, second = budget.request(pool), budget.request(pool)
    first.withdraw()
    assert second.waits, "a finalizer grants nothing"
    budget.changed()
    assert second.state is PermitState.GRANTED
    assert budget.stats()[:3] == (1, 1, 0)


def test_a_connection_that_is_open_counts_though_its_permit_was_withdrawn(
    budget: ServerBudget,
) -> None:
    pool = Pool(budget, 1)
    permit = budget.request(pool)
    connection = Connection()
    permit.attach(connection)
    permit.withdraw()
    assert budget.stats().open == 1
    connection.quit()
    assert budget.stats().open == 0


def test_a_connection_counts_while_it_is_being_opened_and_its_permit_withdrawn(
    budget: ServerBudget,
) -> None:
    """As by another thread, just after it was seen that it is not open yet."""
    pool = Pool(budget, 1)
    permit = budget.request(pool)

    class Opening(Connection):
        opened = False

        @property
        def open(self) -> bool:  # type: ignore[override]
            before = self.opened
            self.opened = True
            permit.withdraw()
            return before

    connection = Opening()
    permit.attach(connection)
    waiting = budget.request(pool)
    assert connection.opened
    assert not waiting.granted
    assert budget.stats()[1:3] == (1, 1)


def test_a_connection_that_was_opened_for_another_server_counts_there(
    budget: ServerBudget,
) -> None:
    elsewhere = ServerBudget("db2:3306")
    pool = Pool(budget, 1)
    elsewhere.join(pool)
    connection = opened(budget, pool)
    elsewhere.request(pool).attach(connection)
    assert (budget.stats().open, elsewhere.stats().open) == (0, 1)


def test_only_idle_connections_to_the_server_make_room(budget: ServerBudget) -> None:
    elsewhere = ServerBudget("db2:3306")
    both, other = Pool(budget, 1), Pool(budget, 1)
    elsewhere.join(both)
    here, there = opened(budget, both), opened(elsewhere, both)
    both.idle.append(there)
    permit = budget.request(other)
    assert permit.waits
    assert there.open
    both.idle.append(here)
    both.idle.remove(there)
    budget.changed()
    assert permit.granted
    assert (here.open, there.open) == (False, True)


def test_what_a_finalizer_calls_takes_no_lock(budget: ServerBudget) -> None:
    pool, other = Pool(budget, 1), Pool(budget, 1)
    connection = opened(budget, pool)
    permits = [budget.request(other), budget.request(other)]
    with budget._lock:  # as in a thread that grants
        permits[0].withdraw()
        assert budget.must_yield(pool)
    connection.quit()
    budget.changed()
    assert [each.granted for each in permits] == [False, True]


def test_a_new_connection_counts_though_another_one_has_gone(budget: ServerBudget) -> None:
    pool = Pool(budget, 2)
    first: Optional[Connection] = opened(budget, pool)
    second = opened(budget, pool)
    assert first is not None
    del first
    gc.collect()
    third = opened(budget, pool)
    assert (second.open, third.open) == (True, True)
    assert budget.stats().open == 2
    assert len(budget._connections) == 2


def test_a_pool_that_nobody_has_any_more_sets_no_limit(budget: ServerBudget) -> None:
    small: Optional[Pool] = Pool(budget, 1)
    large = Pool(budget, 3)
    assert small is not None
    connection = opened(budget, small)
    del small
    gc.collect()
    assert budget.stats()[:2] == (3, 1), "its connection is still open"
    others = [opened(budget, large) for _ in range(2)]
    assert not budget.request(large).granted
    assert len(others) == 2
    assert connection.open


def test_a_permit_whose_granter_was_interrupted_is_granted_later(budget: ServerBudget) -> None:
    pool, other = Pool(budget, 1), Pool(budget, 1)
    connection = opened(budget, pool)
    pool.idle.append(connection)

    def interrupt() -> None:
        connection.open = False
        raise KeyboardInterrupt

    connection.quit = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        budget.request(other)
    assert budget.request(other).state is PermitState.GRANTED


def test_a_forked_child_begins_anew(budget: ServerBudget) -> None:
    pool = Pool(budget, 1)
    connection = opened(budget, pool)
    budget._forked()
    assert budget.stats().open == 0
    assert connection.open


def test_a_pool_that_is_being_made_is_asked_for_no_connection() -> None:
    other = pool_of("half.made", max_connections_per_server=1)
    (budget,) = PoolBudgets(other).all
    connection = opened(budget, other)
    states: List[PermitState] = []

    class HalfMade(BasePool):
        """A pool that another thread's request at the limit finds while it is made."""

        def _reset(self) -> None:
            states.append(budget.request(other).state)
            super()._reset()

    made = HalfMade(other.config, "half made", None)
    assert states == [PermitState.WAITING]
    assert made.budgets.all == (budget,)
    assert connection.open


@pytest.mark.parametrize(
    "limits",
    [
        "db1:3306=3,db1:3306=4",
        {"db1:3306": 3, "DB1.:3306": 4},
        {"localhost:1": 1, "127.0.0.1:1": 1},
    ],
)
def test_a_server_has_one_limit(limits: Any) -> None:
    with pytest.raises(ValueError, match="gives .* twice"):
        DatabaseConfig(host="db1", database="d", user="u", password="", server_limits=limits)
