"""Attempts to connect, and the circuit breaker."""

from typing import Any, List, Tuple

import pytest
from scripted_plans import DENIED, PoolDouble, StepClock, follow

from dualdb import DatabaseConfig
from dualdb.endpoints.state import Endpoints
from dualdb.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    ShardUnavailable,
)
from dualdb.execution import connect, steps
from dualdb.pooling.circuit_breaker import CircuitBreaker

REFUSED = ConnectionFailed(2003, "refused")


def endpoint(shard_id: Any = 1) -> Any:
    config = DatabaseConfig(database="d", user="u", password="p", connect_timeout=10.0)
    breaker = CircuitBreaker(lambda: 1.0)
    return PoolDouble(config, Endpoints(config.hosts), breaker, shard_id)


@pytest.mark.parametrize(
    ("shard_id", "script", "outcome"),
    [
        (1, [(steps.Connect, None)], None),
        (1, [(steps.Connect, REFUSED), (steps.Sleep, None), (steps.Connect, None)], None),
        (
            1,
            [(steps.Connect, REFUSED), (steps.Sleep, None)] * 2 + [(steps.Connect, REFUSED)],
            ShardUnavailable,
        ),
        (
            None,
            [(steps.Connect, REFUSED), (steps.Sleep, None)] * 2 + [(steps.Connect, REFUSED)],
            ConnectionFailed,
        ),
        (1, [(steps.Connect, DENIED)], ShardUnavailable),
        (None, [(steps.Connect, DENIED)], ConnectionFailed),
        (1, [(steps.Connect, KeyError("a bug"))], KeyError),
        (
            2,
            [(steps.Connect, REFUSED), (steps.Sleep, None), (steps.Connect, REFUSED)],
            ShardUnavailable,
        ),
    ],
)
def test_connecting(shard_id: Any, script: List[Tuple[Any, Any]], outcome: Any) -> None:
    # Connects to shard 2 take six seconds each, of ten that are given.
    clock = StepClock(6.0 if shard_id == 2 else 0.0)
    plan = connect.connecting(endpoint(shard_id), clock=clock)
    if outcome is None:
        follow(plan, script, clock.run)
        return
    with pytest.raises(outcome) as caught:
        follow(plan, script, clock.run)
    if outcome is ShardUnavailable:
        assert isinstance(caught.value.__cause__, ConnectionFailed)
        assert str(script[-1][1].args[0]) in str(caught.value.reason)


def test_connecting_ends_at_the_deadline_which_says_nothing_of_the_server() -> None:
    there = endpoint()
    clock = StepClock(1.0)
    with pytest.raises(DeadlineExceeded) as caught:
        follow(connect.connecting(there, 1.0, clock), [(steps.Connect, REFUSED)], clock.run)
    assert (caught.value.sent, caught.value.shard_id) == (False, 1)
    assert not there.breaker.is_open
    assert next(connect.connecting(there, 1.0, lambda: 0.0)) == steps.Connect(
        1.0, there.endpoints.all[0]
    )
    assert next(connect.connecting(there, 100.0, lambda: 0.0)) == steps.Connect(
        10.0, there.endpoints.all[0]
    )


@pytest.mark.parametrize(("shard_id", "cls"), [(1, ShardUnavailable), (None, ConnectionFailed)])
def test_an_open_circuit_fails_at_once_and_lets_one_caller_try(shard_id: Any, cls: Any) -> None:
    there = endpoint(shard_id)
    with pytest.raises(cls):
        follow(
            connect.connecting(there, None, lambda: 0.0),
            [(steps.Connect, REFUSED), (steps.Sleep, None)] * 2 + [(steps.Connect, REFUSED)],
        )
    with pytest.raises(cls) as caught:
        follow(connect.connecting(there, None, lambda: 0.1), [])
    assert caught.value.retry_after == pytest.approx(0.4)
    assert "refused" in str(getattr(caught.value, "reason", None) or caught.value)
    probe = connect.connecting(there, None, lambda: 0.6)
    assert isinstance(next(probe), steps.Connect)
    with pytest.raises(cls):
        follow(connect.connecting(there, None, lambda: 0.6), [])
    with pytest.raises(cls):
        probe.throw(REFUSED)
    with pytest.raises(cls) as caught:
        follow(connect.connecting(there, None, lambda: 0.6), [])
    assert caught.value.retry_after == pytest.approx(1.0), "twice as long, after the second time"
    follow(connect.connecting(there, None, lambda: 1.6), [(steps.Connect, None)])
    follow(connect.connecting(there, None, lambda: 1.6), [(steps.Connect, None)])


def test_a_server_that_answers_does_not_open_the_circuit() -> None:
    there = endpoint()
    for _ in range(9):
        with pytest.raises(ShardUnavailable):
            follow(connect.connecting(there, None, lambda: 0.0), [(steps.Connect, DENIED)])
    assert not there.breaker.is_open


def test_a_probe_that_is_broken_off_lets_the_next_one_try() -> None:
    there = endpoint()
    for _ in range(3):
        there.breaker.record_failure(0.0, REFUSED)
    probe = connect.connecting(there, None, lambda: 1.0)
    next(probe)
    with pytest.raises(KeyboardInterrupt):
        probe.throw(KeyboardInterrupt())
    follow(connect.connecting(there, None, lambda: 1.0), [(steps.Connect, None)])
