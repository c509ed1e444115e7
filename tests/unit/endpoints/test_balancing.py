"""Which replica serves a read, and how far replicas are behind."""

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any, Dict, List

import pytest

from dualdb.endpoints.balancing import (
    MOST_HEDGES,
    POLICIES,
    Balancer,
    BalancingPolicy,
    HedgeBudget,
    Replica,
)
from dualdb.endpoints.gtid import parse_position
from dualdb.endpoints.lag import PrimaryHistory, read_position


def replica(load: int = 0, weight: float = 1.0, latency: Any = None, **pool: Any) -> Replica:
    breaker = SimpleNamespace(failure=pool.pop("failure", None))
    fields: Dict[str, Any] = {"load": load, "opened": 1, "breaker": breaker, **pool}
    made = Replica(SimpleNamespace(pool=SimpleNamespace(**fields)), weight)
    made.latency = latency
    return made


def shares(policy: BalancingPolicy, replicas: List[Replica]) -> List[float]:
    balancer = Balancer(policy, random.Random(7).random)
    counted = Counter(replicas.index(balancer.choose(replicas)) for _ in range(4000))
    return [counted[number] / 4000 for number in range(len(replicas))]


@pytest.mark.parametrize("policy", POLICIES)
def test_equal_replicas_have_equal_shares(policy: BalancingPolicy) -> None:
    assert shares(policy, [replica(), replica(), replica()]) == pytest.approx([1 / 3] * 3, abs=0.04)


def test_weights() -> None:
    three = [replica(weight=1), replica(weight=2), replica(weight=5)]
    for policy in ("weighted", "least_in_flight"):
        assert shares(policy, three) == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.04)


def test_the_least_in_flight_for_its_weight() -> None:
    assert shares("least_in_flight", [replica(3), replica(2), replica(4)]) == [0, 1, 0]
    assert shares("least_in_flight", [replica(3, weight=2), replica(2)]) == [1, 0]


@pytest.mark.parametrize("policy", ["least_in_flight", "latency"])
def test_a_slow_replica_gets_fewer_reads(policy: BalancingPolicy) -> None:
    slow, quick = shares(policy, [replica(latency=0.1), replica(latency=0.01)])
    assert slow < 0.15
    assert slow + quick == 1


def test_two_choices_spread_over_all_but_the_slowest() -> None:
    four = [replica(latency=0.001 * (number + 1)) for number in range(4)]
    found = shares("latency", four)
    assert found[3] == 0
    assert min(found[:3]) > 0.1


def test_the_average_follows_the_last_calls() -> None:
    one = replica()
    assert one.expected < 0.001
    for _ in range(30):
        one.record_latency(0.2)
    assert one.expected == pytest.approx(0.2)
    for _ in range(30):
        one.record_latency(0.01)
    assert one.expected == pytest.approx(0.01, abs=0.001)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"failure": "it was lost"}, "it was lost"),
        ({"lagging": True, "lag": 7.25}, "it is 7.2 s behind"),
        ({"lagging": True}, "its lag is not known"),
        ({"weight": 0.0}, "its weight is 0"),
    ],
)
def test_why_one_is_not_in_the_rotation(changes: Dict[str, Any], why: str) -> None:
    one: Any = replica()
    assert one.usable
    for name, value in changes.items():
        setattr(one, name, value)
    assert not one.usable
    assert one.why_not == why


def test_one_that_has_not_been_reached() -> None:
    assert not replica(opened=0).usable
    assert replica(opened=0).why_not == "it has not been reached yet"
    assert not replica(failure=OSError("refused")).usable


def test_an_unknown_policy() -> None:
    with pytest.raises(ValueError, match="policy must be one of"):
        Balancer("random")  # type: ignore[arg-type]


def at(number: int) -> Any:
    return parse_position("mariadb_gtid", f"0-1-{number}")


def test_a_replica_that_reached_nothing_is_behind_for_as_long_as_is_known() -> None:
    history = PrimaryHistory()
    assert history.least_lag_of(at(5), 50.0) == 0.0
    history.record(10.0, at(5))
    history.record(12.0, at(7))
    assert history.lag_of(at(4), 13.5) is None
    assert history.least_lag_of(at(4), 13.5) == 3.5
    assert history.least_lag_of(at(5), 13.5) == 1.5
    assert history.least_lag_of(at(7), 13.5) == 0.0


def test_lag_is_the_age_of_the_first_position_that_is_missing() -> None:
    history = PrimaryHistory()
    assert history.lag_of(at(5), 0.0) is None
    for time, number in ((10.0, 5), (11.0, 5), (12.0, 8), (13.0, 9)):
        history.record(time, at(number))
    assert history.lag_of(at(4), 13.5) is None
    assert history.lag_of(at(5), 13.5) == 1.5
    assert history.lag_of(at(7), 13.5) == 1.5
    assert history.lag_of(at(8), 13.5) == 0.5
    assert history.lag_of(at(9), 13.5) == 0.0
    assert history.lag_of(at(99), 13.5) == 0.0


@pytest.mark.parametrize(
    ("kind", "text", "known"),
    [
        ("mariadb_gtid", "0-1-9", True),
        ("mariadb_gtid", "", False),
        ("wsrep", "0-1-9", False),
        (None, None, False),
        ("gtid", "9f1c2f6e-0b5c-11ef-9d1a-0242ac120002:1-5,\n", False),
        (
            "gtid",
            "9f1c2f6e-0b5c-11ef-9d1a-0242ac120002:1-5,\n9f1c2f6e-0b5c-11ef-9d1a-0242ac120003:1",
            True,
        ),
    ],
)
def test_answers_of_servers(kind: Any, text: Any, known: bool) -> None:
    assert (read_position(kind, text) is not None) is known


def test_at_most_one_read_in_twenty_is_sent_twice() -> None:
    budget = HedgeBudget()
    assert not budget.spend()
    sent = 0
    for _ in range(2000):
        budget.earn()
        sent += budget.spend()
    assert 90 <= sent <= 100
    for _ in range(2000):
        budget.earn()
    assert [budget.spend() for _ in range(8)].count(True) == MOST_HEDGES
