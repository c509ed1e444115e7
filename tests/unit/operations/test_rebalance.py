"""Plans of moves: deterministic, few, within shares, with weights and pins."""

import random
from typing import Any, Dict, List

import pytest

from dualdb import ParameterError
from dualdb.operations.rebalance import Tenant, plan
from dualdb.operations.reports import PlannedMove, RebalancePlan


def tenants(**shards: List[float]) -> List[Tenant]:
    """``s1=[5, 3]`` is two tenants of shard 1: "1.0" and "1.1"."""
    return [
        Tenant(f"{name[1:]}.{number}", int(name[1:]), size)
        for name, sizes in shards.items()
        for number, size in enumerate(sizes)
    ]


def after(
    found: List[Tenant], moves: List[PlannedMove], weights: Dict[int, float]
) -> Dict[int, float]:
    sizes = dict.fromkeys(weights, 0.0)
    for each in found:
        sizes[each.shard_id] += each.size
    for planned in moves:
        sizes[planned.source] -= planned.size
        sizes[planned.target] += planned.size
    return sizes


@pytest.mark.parametrize(
    ("found", "weights", "expected"),
    [
        # nothing to do
        (tenants(s1=[5], s2=[5]), {1: 1, 2: 1}, []),
        (tenants(s1=[], s2=[]), {1: 1, 2: 1}, []),
        # one move, of the tenant that fits
        (tenants(s1=[5, 3, 2], s2=[]), {1: 1, 2: 1}, [("1.0", 1, 2)]),
        (tenants(s1=[7, 3, 2, 2], s2=[]), {1: 1, 2: 1}, [("1.0", 1, 2)]),
        # one that is too large for any move to help stays
        (tenants(s1=[100], s2=[1]), {1: 1, 2: 1}, []),
        # weights
        (tenants(s1=[4, 4, 4], s2=[]), {1: 2, 2: 1}, [("1.0", 1, 2)]),
        # a shard that is drained, the largest first to the emptiest
        (tenants(s1=[4, 1], s2=[3], s3=[]), {1: 0, 2: 1, 3: 1}, [("1.0", 1, 3), ("1.1", 1, 2)]),
        # a shard that is split
        (tenants(s2=[2, 2, 2, 2], s5=[]), {2: 1, 5: 1}, [("2.0", 2, 5), ("2.1", 2, 5)]),
    ],
)
def test_a_plan(found: Any, weights: Any, expected: Any) -> None:
    moves = plan(found, weights)
    assert [(each.key, each.source, each.target) for each in moves] == expected


def test_pins_are_kept_and_carried_out_first() -> None:
    found = tenants(s1=[5, 5, 5, 5], s2=[])
    moves = plan(found, {1: 1, 2: 1}, pins={"1.0": 1, "1.3": 2})
    assert [(each.key, each.target) for each in moves] == [("1.3", 2), ("1.1", 2)]
    drained = plan(found, {1: 0, 2: 1}, pins={"1.0": 1})
    assert "1.0" not in [each.key for each in drained]


@pytest.mark.parametrize("number", range(20))
def test_plans_are_deterministic_even_and_few(number: int) -> None:
    chance = random.Random(number)
    weights = {shard: chance.choice([1.0, 2.0]) for shard in range(1, 5)}
    found = [
        Tenant(key, chance.choice(list(weights)), chance.choice([1, 2, 3, 10]))
        for key in range(200)
    ]
    moves = plan(found, weights)
    shuffled = list(found)
    chance.shuffle(shuffled)
    assert plan(shuffled, weights) == moves
    assert len({each.key for each in moves}) == len(moves), "nobody moves twice"
    total = sum(each.size for each in found)
    sizes = after(found, moves, weights)
    for shard, weight in weights.items():
        goal = total * weight / sum(weights.values())
        assert abs(sizes[shard] - goal) <= 0.05 * goal + 10, (shard, sizes)
    before = after(found, [], weights)
    surplus = sum(
        max(0.0, size - total * weights[shard] / sum(weights.values()))
        for shard, size in before.items()
    )
    assert sum(each.size for each in moves) <= surplus + 10 * len(weights)
    assert plan(found, weights, max_moves=3) == moves[:3]


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ({1: -1, 2: 1}, {}, "weight"),
        ({1: True, 2: 1}, {}, "weight"),
        ({1: 0, 2: 0}, {}, "no shard"),
        ({}, {}, "no shard"),
        ({1: 1}, {"pins": {"a": 2}}, "pinned to shard 2"),
        ({1: 1}, {"tolerance": 1.0}, "tolerance"),
    ],
)
def test_what_makes_no_plan(weights: Any, options: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        plan([], weights, **options)


def test_a_plan_survives_json() -> None:
    made = RebalancePlan("rows", (PlannedMove(7, 1, 2, 3.0),), {1: 3.0}, {1: 0.0})
    assert RebalancePlan.from_dict(made.to_dict()) == made
