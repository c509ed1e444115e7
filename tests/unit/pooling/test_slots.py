"""The pools' bookkeeping, against a model."""

import random
from typing import List

import pytest

from dualdb.pooling.slots import Slots


def test_slots_are_handed_on_in_the_order_of_arrival() -> None:
    slots: Slots[str] = Slots(1)
    assert slots.take()
    assert not slots.take()
    slots.queue("first")
    slots.queue("second")
    assert slots.give() == "first"
    assert not slots.take(), "a newcomer must not overtake"
    assert slots.give() == "second"
    assert slots.give() is None
    assert slots.take()


def test_a_waiter_withdraws_only_before_it_is_served() -> None:
    slots: Slots[str] = Slots(1)
    slots.take()
    slots.queue("patient")
    slots.queue("impatient")
    assert slots.withdraw("impatient")
    assert slots.give() == "patient"
    assert not slots.withdraw("patient")


def test_closing_dismisses_everybody_who_waits() -> None:
    slots: Slots[int] = Slots(1)
    slots.take()
    slots.queue(1)
    slots.queue(2)
    assert slots.dismiss() == [1, 2]
    assert slots.waiting == 0
    assert slots.give() is None
    assert slots.in_use == 0


def test_the_timeout_carries_the_figures() -> None:
    slots: Slots[int] = Slots(3)
    slots.take()
    slots.take()
    slots.queue(7)
    error = slots.timeout("shard 4", 4, 1.5)
    assert str(error) == (
        "no connection to shard 4 became free within 1.50 s: 2 of 3 are in use, 1 more callers wait"
    )
    assert (error.target, error.shard_id, error.sent) == ("shard 4", 4, False)


@pytest.mark.parametrize("seed", range(20))
def test_a_random_history_never_exceeds_the_limit_and_starves_nobody(seed: int) -> None:
    chance = random.Random(seed)
    limit = chance.randint(1, 5)
    slots: Slots[int] = Slots(limit)
    holders: List[int] = []
    line: List[int] = []
    for name in range(2000):
        deed = chance.random()
        if deed < 0.5:
            if slots.take():
                assert not line, "a free slot while somebody waits"
                holders.append(name)
            else:
                slots.queue(name)
                line.append(name)
        elif deed < 0.9 and holders:
            holders.remove(chance.choice(holders))
            served = slots.give()
            assert served == (line.pop(0) if line else None)
            if served is not None:
                holders.append(served)
        elif line:
            leaver = chance.choice(line)
            assert slots.withdraw(leaver)
            line.remove(leaver)
        assert slots.in_use == len(holders) <= limit
        assert slots.waiting == len(line)
