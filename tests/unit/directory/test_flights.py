"""Lookups that several callers share."""

import gc
from typing import List, Optional

from dualdb.directory.flights import Flight, Flights


def test_a_key_is_looked_up_by_one_caller() -> None:
    flights = Flights()
    first, second = Flight(0), Flight(0)
    assert flights.join([1, 2], first) == {}
    assert flights.join([2, 3], second) == {first: [2]}
    flights.finish(first, [1, 2])
    third = Flight(0)
    assert flights.join([1, 3], third) == {second: [3]}


def test_who_waits_is_woken_once() -> None:
    flight = Flight(0)
    woken: List[int] = []
    flight.on_end(lambda: woken.append(1))
    flight.end()
    flight.end()
    flight.on_end(lambda: woken.append(2))
    assert woken == [1, 2]


def test_a_lookup_from_before_a_change_is_not_joined() -> None:
    flights = Flights()
    old, new = Flight(0), Flight(1)
    flights.join([1], old)
    assert flights.join([1], new) == {}
    flights.finish(old, [1])
    assert flights.join([1], Flight(1)) == {new: [1]}


def test_a_lookup_whose_caller_is_gone_is_forgotten() -> None:
    flights = Flights()
    lost: Optional[Flight] = Flight(0)
    assert lost is not None
    flights.join([1], lost)
    del lost
    gc.collect()
    assert flights.join([1], Flight(0)) == {}


def test_a_forked_child_waits_for_nobody() -> None:
    flights = Flights()
    parents = Flight(0)
    flights.join([1], parents)
    flights.forked()
    assert flights.join([1], Flight(0)) == {}
