"""The pools' bookkeeping, against a model."""

import random
from typing import List, Optional

import pytest

from dualdb.pooling.slots import Slots


def hand_on(slots: "Slots[str]", holder: str) -> Optional[str]:
    """Give a slot back and wake who has it then."""
    waiter = slots.give(holder)
    if waiter is not None:
        slots.served(waiter)
    return waiter


def test_slots_are_handed_on_in_the_order_of_arrival() -> None:
    slots: Slots[str] = Slots(1)
    assert slots.take("a")
    assert not slots.take("b")
    slots.queue("first", "first")
    slots.queue("second", "second")
    assert hand_on(slots, "a") == "first"
    assert not slots.take("b"), "a newcomer must not overtake"
    assert hand_on(slots, "first") == "second"
    assert hand_on(slots, "second") is None
    assert slots.take("b")


def test_a_slot_that_is_freed_twice_is_free_once() -> None:
    slots: Slots[str] = Slots(1)
    assert slots.take("a")
    slots.queue("first", "first")
    assert hand_on(slots, "a") == "first"
    slots.queue("second", "second")
    assert hand_on(slots, "a") is None, "it is the first's by now"
    assert (slots.in_use, slots.waiting) == (1, 1)


def test_a_waiter_withdraws_only_before_it_is_served() -> None:
    slots: Slots[str] = Slots(1)
    slots.take("a")
    slots.queue("patient", "patient")
    slots.queue("impatient", "impatient")
    assert slots.withdraw("impatient")
    assert slots.give("a") == "patient"
    assert not slots.withdraw("patient"), "given, and not woken yet"
    assert (slots.in_use, slots.waiting) == (1, 0)


def test_a_holder_that_is_gone_waits_no_more() -> None:
    slots: Slots[str] = Slots(1)
    slots.take("a")
    slots.queue("first", "gone")
    slots.queue("second", "second")
    assert slots.forget("gone") is None
    assert slots.forget("a") == "second"
    slots.served("second")
    assert (slots.in_use, slots.waiting) == (1, 0)


def test_closing_dismisses_everybody_who_waits() -> None:
    slots: Slots[str] = Slots(1)
    slots.take("a")
    slots.queue("1", "1")
    slots.queue("2", "2")
    assert slots.dismiss() == ["1", "2"]
    assert slots.waiting == 0
    assert slots.give("a") is None
    assert slots.in_use == 0


def test_the_timeout_carries_the_figures() -> None:
    slots: Slots[str] = Slots(3)
    slots.take("a")
    slots.take("b")
    slots.queue("c", "c")
    error = slots.timeout("shard 4", 4, 1.5)
    assert str(error) == (
        "no connection to shard 4 became free within 1.50 s: 2 of 3 are in use, "
        "1 more callers are waiting"
    )
    assert (error.target, error.shard_id, error.sent) == ("shard 4", 4, False)


@pytest.mark.parametrize("seed", range(20))
def test_a_random_history_never_exceeds_the_limit_and_starves_nobody(seed: int) -> None:
    chance = random.Random(seed)
    limit = chance.randint(1, 5)
    slots: Slots[str] = Slots(limit)
    holders: List[str] = []
    line: List[str] = []
    for number in range(2000):
        deed, name = chance.random(), str(number)
        if deed < 0.5:
            if slots.take(name):
                assert not line, "a free slot while somebody waits"
                holders.append(name)
            else:
                slots.queue(name, name)
                line.append(name)
        elif deed < 0.9 and holders:
            holder = chance.choice(holders)
            holders.remove(holder)
            served = hand_on(slots, holder)
            assert served == (line.pop(0) if line else None)
            if served is not None:
                holders.append(served)
        elif line:
            leaver = chance.choice(line)
            assert slots.withdraw(leaver)
            line.remove(leaver)
        assert slots.in_use == len(holders) <= limit
        assert slots.waiting == len(line)


def test_a_larger_limit_serves_those_who_wait() -> None:
    slots: Slots[str] = Slots(1)
    assert slots.take("a")
    assert not slots.take("b")
    slots.queue("b", "b")
    slots.queue("c", "c")
    assert slots.fill() is None
    slots.limit = 2
    assert slots.fill() == "b"
    slots.served("b")
    assert (slots.in_use, slots.waiting) == (2, 1)
    assert slots.fill() is None
    slots.limit = 3
    slots.withdraw("c")
    assert slots.fill() is None
    assert slots.in_use == 2
