"""Connecting to one of several hosts: who is tried, how long a call waits, and which
error it gets.
"""

import gc
from typing import Any, Dict, List, Optional

import pytest
from scripted_plans import PoolDouble

from dualdb import DatabaseConfig
from dualdb.buffer import BufferedWait
from dualdb.endpoints.node import Node, Role
from dualdb.endpoints.profiles import PROFILES
from dualdb.endpoints.state import Endpoints
from dualdb.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    Error,
    NoPrimary,
    PoolTimeout,
    ShardUnavailable,
)
from dualdb.execution import connect, steps
from dualdb.pooling.circuit_breaker import CircuitBreaker
from dualdb.pooling.server_budget import Permit


class Hosts:
    """Servers by name: a role, or the error of a connect. A clock that runs while a
    plan sleeps.
    """

    def __init__(
        self, policy: Any = "primary", shard_id: Any = 1, limit: Any = None, **states: Any
    ) -> None:
        self.states: Dict[str, Any] = states
        self.now = 100.0
        self.tried: List[str] = []
        self.waits: List[Any] = []
        self.used_while_waiting = 0
        self.others: List[Permit] = []
        config = DatabaseConfig(
            host=",".join(states), database="d", user="u", password="p", endpoint_policy=policy,
            buffer_timeout=30.0, buffer_size=2, max_connections_per_server=limit,
        )  # fmt: skip
        self.endpoints = Endpoints(config.hosts, policy, spread=lambda: 0.0)
        breaker = CircuitBreaker(lambda: 1.0, longest=1.0)
        self.pool: Any = PoolDouble(config, self.endpoints, breaker, shard_id)

    def connect(self, until: Optional[float] = None, changes: Any = ()) -> str:
        """Run the plan; the host that is connected to. ``changes`` happen by time."""
        plan = connect.connecting(self.pool, until, lambda: self.now)
        answer: Any = None
        while True:
            try:
                step = plan.throw(answer) if isinstance(answer, Error) else plan.send(answer)
            except StopIteration:
                return self.tried[-1]
            for at, name, state in changes:
                if self.now >= 100.0 + at:
                    self.states[name] = state
            answer = self._carry_out(step)

    def fill(self, number: int) -> Permit:
        """Have another pool use up the budget of a host, of one connection."""
        self.others.append(self.pool.budgets.all[number].request(self.pool))
        return self.others[-1]

    def permit_at(self, endpoint: Any) -> Any:
        """The only permit of a host's budget that counts."""
        (permit,) = [each() for each in self.pool.budgets.at(endpoint)._permits.values()]
        return permit

    def _carry_out(self, step: Any) -> Any:
        used = [budget.stats().open for budget in self.pool.budgets.all]
        if not isinstance(step, steps.Connect):
            self.waits.append(type(step))
            self.used_while_waiting += sum(used) - len(self.others)
            self.now += step.seconds
            return None
        assert step.permit is None or step.permit is self.permit_at(step.endpoint)
        assert isinstance(step, steps.Connect)
        address = step.endpoint.address
        assert address is not None
        self.tried.append(address.host)
        state = self.states[address.host]
        if isinstance(state, str):  # it does not respond
            self.now = step.until
        if not isinstance(state, Role):
            error = state if isinstance(state, Error) else ConnectionFailed(2003, state)
            step.endpoint.record_failure(error.summary, self.now, self.now)
            return error
        why = self.endpoints.judge(step.endpoint, Node(PROFILES["mysql"], state), self.now)
        if why is None or (step.replica and state is Role.REPLICA):
            return None
        return NoPrimary(why)


REFUSED = ConnectionFailed(2003, "refused")
DENIED = ConnectionFailed(1045, "denied")


def test_the_primary_is_found_and_remembered() -> None:
    hosts = Hosts(n1=Role.REPLICA, n2=REFUSED, n3=Role.PRIMARY)
    assert hosts.connect() == "n3"
    assert hosts.connect() == "n3"
    assert hosts.tried == ["n1", "n2", "n3", "n3"]


def test_while_none_is_the_primary_a_call_waits_for_the_election() -> None:
    hosts = Hosts(n1=REFUSED, n2=Role.REPLICA, n3=Role.REPLICA)
    assert hosts.connect(changes=[(20.0, "n3", Role.PRIMARY)]) == "n3"
    assert 120.0 <= hosts.now < 121.0


def test_the_wait_is_bounded() -> None:
    hosts = Hosts(n1=REFUSED, n2=Role.REPLICA)
    with pytest.raises(ShardUnavailable) as caught:
        hosts.connect()
    assert 130.0 <= hosts.now < 131.0
    reason = "no primary among n1:3306: refused (2003), n2:3306: replica"
    assert reason in str(caught.value)
    assert caught.value.sent is False
    assert caught.value.retryable


def test_the_deadline_ends_it_before() -> None:
    hosts = Hosts(n1=Role.REPLICA, n2=Role.OUT)
    with pytest.raises(DeadlineExceeded) as caught:
        hosts.connect(until=103.0)
    assert 103.0 <= hosts.now < 103.2
    assert caught.value.sent is False


def test_where_no_host_responds_nobody_waits() -> None:
    hosts = Hosts(shard_id=None, n1=REFUSED, n2=REFUSED)
    with pytest.raises(NoPrimary):
        hosts.connect()
    assert hosts.now < 101.0
    assert hosts.pool.breaker.is_open
    tried = len(hosts.tried)
    with pytest.raises(ConnectionFailed, match="next attempt in"):
        hosts.connect()
    assert len(hosts.tried) == tried
    hosts.now += 1.0
    hosts.states["n2"] = Role.PRIMARY
    assert hosts.connect() == "n2"
    assert not hosts.pool.breaker.is_open


def test_no_more_than_buffer_size_calls_wait() -> None:
    hosts = Hosts(n1=Role.REPLICA, n2=Role.REPLICA)
    others = [BufferedWait(hosts.endpoints.buffer, hosts.pool.config, 100.0) for _ in range(2)]
    assert [each.refusal(100.0) for each in others] == [None, None]
    with pytest.raises(ShardUnavailable, match=r"2 calls wait for a primary \(buffer_size\)"):
        hosts.connect()
    assert hosts.now == 100.0
    others.pop().leave()
    with pytest.raises(ShardUnavailable, match="no primary among"):
        hosts.connect()
    assert hosts.endpoints.buffer.waiting == 1


def test_a_call_that_waits_is_woken_by_the_one_that_finds_the_primary() -> None:
    hosts = Hosts(n1=Role.REPLICA, n2=Role.REPLICA)
    woken: List[int] = []
    other = BufferedWait(hosts.endpoints.buffer, hosts.pool.config, 100.0)
    assert other.refusal(100.0) is None
    other.subscribe(lambda: woken.append(1))
    with pytest.raises(DeadlineExceeded):
        hosts.connect(until=101.0)
    assert woken == []
    hosts.states["n2"] = Role.PRIMARY
    assert hosts.connect() == "n2"
    assert woken == [1]


def test_a_host_that_does_not_respond_costs_a_second_and_not_connect_timeout() -> None:
    hosts = Hosts(n1="silent", n2=Role.PRIMARY)
    assert hosts.connect() == "n2"
    assert hosts.now == 101.0


def test_a_replica_is_used_where_there_is_no_primary_and_the_policy_allows_it() -> None:
    hosts = Hosts("primary_first", n1=REFUSED, n2=Role.OUT, n3=Role.REPLICA)
    assert hosts.connect() == "n3"
    hosts.states["n2"] = Role.PRIMARY
    hosts.now += 1.0
    assert hosts.connect() == "n2"


def test_any_uses_every_host_in_service_in_turn() -> None:
    hosts = Hosts("any", n1=Role.PRIMARY, n2=Role.REPLICA, n3=Role.OUT)
    assert {hosts.connect() for _ in range(6)} == {"n1", "n2"}


def test_a_refused_login_is_not_waited_for() -> None:
    hosts = Hosts(n1=DENIED, n2=DENIED)
    with pytest.raises(ShardUnavailable) as caught:
        hosts.connect()
    assert hosts.now == 100.0
    assert getattr(caught.value.__cause__, "errno", None) == 1045


def test_an_exception_of_a_bug_ends_the_search() -> None:
    hosts = Hosts(n1=Role.PRIMARY, n2=Role.REPLICA)
    plan = connect.connecting(hosts.pool, None, lambda: 0.0)
    next(plan)
    with pytest.raises(KeyError):
        plan.throw(KeyError("a bug"))
    assert hosts.connect() == "n1"


def hosts_with_budget(policy: Any = "primary", **states: Any) -> Hosts:
    made = Hosts(policy, limit=1, **states)
    for budget in made.pool.budgets.all:
        budget._forked()  # of an earlier test
    return made


@pytest.mark.parametrize("policy", ["primary", "primary_first", "any"])
def test_a_permit_is_held_for_the_host_that_is_connected_to_and_no_longer(policy: Any) -> None:
    hosts = hosts_with_budget(policy, n1=REFUSED, n2=Role.OUT, n3=Role.OUT)
    assert hosts.connect(changes=[(3.0, "n3", Role.PRIMARY)]) == "n3"
    assert len(hosts.waits) > 10
    assert hosts.used_while_waiting == 0
    assert [budget.stats()[1:3] for budget in hosts.pool.budgets.all] == [(0, 0)] * 3


def test_a_known_primary_is_waited_for() -> None:
    hosts = hosts_with_budget(n1=Role.PRIMARY, n2=Role.PRIMARY)
    assert hosts.connect() == "n1"
    other = hosts.fill(0)
    with pytest.raises(PoolTimeout, match="n1:3306 is full"):
        hosts.connect()
    assert hosts.tried == ["n1"]
    assert 130.0 <= hosts.now < 131.0
    other.withdraw()
    hosts.others.clear()
    assert hosts.connect() == "n1"


def test_a_host_without_room_is_passed_over_where_another_one_may_be_used() -> None:
    hosts = hosts_with_budget("any", n1=Role.PRIMARY, n2=Role.REPLICA)
    hosts.fill(0)
    assert [hosts.connect() for _ in range(4)] == ["n2"] * 4
    assert hosts.now == 100.0


def test_what_is_not_known_is_waited_for_at_all_hosts_at_once() -> None:
    hosts = hosts_with_budget(n1=Role.REPLICA, n2=Role.PRIMARY)
    hosts.fill(0)
    other = hosts.fill(1)
    plan = connect.connecting(hosts.pool, None, lambda: hosts.now)
    step: Any = next(plan)
    assert [each.budget.server for each in step.permits] == ["n1:3306", "n2:3306"]
    assert not hosts.endpoints._searching, "others may search meanwhile"
    other.withdraw()
    hosts.others.remove(other)
    other.budget.changed()
    step = plan.send(None)
    assert step.endpoint.address.host == "n2"
    assert [budget.stats().waiting for budget in hosts.pool.budgets.all] == [0, 0]


def test_the_deadline_ends_the_wait_for_room() -> None:
    hosts = hosts_with_budget(n1=Role.PRIMARY, n2=Role.REPLICA)
    hosts.fill(0)
    hosts.fill(1)
    with pytest.raises(DeadlineExceeded):
        hosts.connect(until=101.0)
    assert hosts.now == 101.0
    assert [budget.stats().waiting for budget in hosts.pool.budgets.all] == [0, 0]


def test_a_wait_that_is_given_up_takes_no_lock() -> None:
    hosts = hosts_with_budget(n1=Role.PRIMARY, n2=Role.REPLICA)
    hosts.fill(0)
    hosts.fill(1)
    plan = connect.connecting(hosts.pool, None, lambda: hosts.now)
    next(plan)
    first, second = hosts.pool.budgets.all
    with first._lock, second._lock:
        plan.close()
    assert [first.stats()[1:3], second.stats()[1:3]] == [(1, 0), (1, 0)]


def test_who_waits_is_told_when_no_host_can_be_reached() -> None:
    hosts = hosts_with_budget(n1=REFUSED, n2=REFUSED)
    hosts.fill(0)
    plan = connect.connecting(hosts.pool, None, lambda: hosts.now)
    step: Any = next(plan)
    while isinstance(step, steps.Connect):
        step = plan.throw(REFUSED)
    (permit,) = step.permits
    hosts.pool.breaker.record_failure(hosts.now, REFUSED)
    hosts.pool.breaker.record_failure(hosts.now, REFUSED)
    hosts.pool.breaker.record_failure(hosts.now, REFUSED)
    hosts.pool.budgets.dismiss()
    assert permit.decided
    with pytest.raises(ShardUnavailable, match="next attempt in"):
        plan.send(None)


def test_what_an_interrupted_caller_has_left_is_found_after_a_while() -> None:
    hosts = hosts_with_budget(n1=Role.PRIMARY, n2=Role.REPLICA)
    hosts.fill(0)
    hosts.fill(1)
    plan = connect.connecting(hosts.pool, None, lambda: hosts.now)
    step: Any = next(plan)
    hosts.others.clear()
    gc.collect()
    hosts.now += step.seconds
    assert step.seconds < 1.0
    step = plan.send(None)
    assert step.endpoint.address.host == "n1"


def test_a_pool_that_was_closed_is_waited_for_no_longer() -> None:
    hosts = hosts_with_budget(n1=Role.PRIMARY, n2=Role.REPLICA)
    hosts.fill(0)
    hosts.fill(1)
    plan = connect.connecting(hosts.pool, None, lambda: hosts.now)
    next(plan)
    hosts.pool.closed = True
    with pytest.raises(PoolTimeout):
        plan.send(None)
