"""Plans, run against scripts of (the step that must come, what it gives): no server, no
loop, no mocks.
"""

import itertools
import math
import time
from types import SimpleNamespace
from typing import Any, List, Tuple

import pytest

from dualdb import DatabaseConfig, deadlines
from dualdb.deadlines import Deadline
from dualdb.errors import (
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    LockWaitTimeout,
    OutcomeUnknown,
    ParameterError,
    ProgrammingError,
    ServiceNotOpen,
    ShardReadOnly,
    ShardUnavailable,
    WriteTimedOut,
    shard_unavailable,
)
from dualdb.execution import commit_outcome, connect, execute, retry, steps, verbs
from dualdb.pooling.circuit_breaker import CircuitBreaker
from dualdb.protocol.statements import Statement
from dualdb.results import CallResult, ResultSet

ROWS = [ResultSet([{"a": 1, "b": 2}, {"a": 3, "b": 4}], ("a", "b"), 2, 0, 0)]
NONE = [ResultSet([], ("a",), 0, 0, 0)]
UPDATED = [ResultSet([], (), 5, 0, 0)]
INSERTED = [ResultSet([], (), 1, 77, 0)]


def follow(plan: Any, script: List[Tuple[Any, Any]]) -> Any:
    """Run a plan to its end: each step must be of the script's type, and gets the
    script's answer.
    """
    try:
        step = next(plan)
        for kind, response in script:
            assert isinstance(step, kind), step
            step = plan.throw(response) if isinstance(response, Exception) else plan.send(response)
    except StopIteration as done:
        return done.value
    raise AssertionError(f"one step more than the script has: {step}")


def place(inserted: Any = None) -> Any:
    return SimpleNamespace(
        name="shard 1",
        shard_id=1,
        _read_only=False,
        _refresh_on_miss=None,
        _record_insert_id=inserted or (lambda lastrowid: None),
        _take_retry_token=lambda: True,
    )


@pytest.mark.parametrize(
    ("plan", "response", "value"),
    [
        (verbs.query(place, "SELECT 1", None), ROWS, [{"a": 1, "b": 2}, {"a": 3, "b": 4}]),
        (verbs.query(place, "UPDATE t SET a = 1", None), UPDATED, []),
        (verbs.query_one(place, "SELECT 1", None), ROWS, {"a": 1, "b": 2}),
        (verbs.query_one(place, "SELECT 1", None), NONE, None),
        (verbs.query_value(place, "SELECT 1", None), ROWS, 1),
        (verbs.query_value(place, "SELECT 1", None), NONE, None),
        (verbs.execute(place, "UPDATE t SET a = 1", None), UPDATED, 5),
        (verbs.call(place, "p", ()), CallResult(ROWS, {}, 0, 0), CallResult(ROWS, {}, 0, 0)),
        (verbs.call_rows(place, "p", ()), CallResult(ROWS + ROWS, {}, 0, 0), ROWS[0].rows * 2),
    ],
)
def test_verbs(plan: Any, response: Any, value: Any) -> None:
    assert follow(plan, [(steps.Execute, response)]) == value


def test_an_insert_s_id_is_given_and_kept() -> None:
    kept: List[int] = []
    count = follow(
        verbs.execute(lambda: place(kept.append), "INSERT INTO t VALUES ()", None),
        [(steps.Execute, INSERTED)],
    )
    assert (count, count.lastrowid, kept) == (1, 77, [77])
    follow(
        verbs.execute(lambda: place(kept.append), "UPDATE t SET a = 1", None),
        [(steps.Execute, UPDATED)],
    )
    assert kept == [77], "a statement that makes no id leaves the last one"


def test_bad_input_is_refused_before_a_database_is_looked_for() -> None:
    def nowhere() -> Any:
        raise AssertionError("routed")

    with pytest.raises(ParameterError):
        next(verbs.query(nowhere, "SELECT %s", ()))
    with pytest.raises(ParameterError):
        next(verbs.call(nowhere, "no procedure", ()))


def lost(in_transaction: bool = False, *, sent: bool = True) -> ConnectionLost:
    error = ConnectionLost(2013, "Lost connection").with_context("shard 1", 1, sent=sent)
    error.in_transaction = in_transaction
    return error


def late(in_transaction: bool = False, *, sent: bool = True) -> DeadlineExceeded:
    error = DeadlineExceeded(2013, "the deadline passed").with_context("shard 1", 1, sent=sent)
    error.in_transaction = in_transaction
    return error


READ, WRITE = "SELECT 1", "UPDATE t SET a = 1"


@pytest.mark.parametrize(
    ("sql", "idempotent", "answers", "outcome"),
    [
        (READ, False, [lost(), ROWS], None),
        (READ, False, [lost(), lost()], ConnectionLost),
        (READ, False, [lost(True)], ConnectionLost),
        (WRITE, False, [lost()], OutcomeUnknown),
        (WRITE, False, [lost(True)], ConnectionLost),
        (WRITE, True, [lost(), UPDATED], None),
        (WRITE, True, [lost(), lost()], ConnectionLost),
        (WRITE, True, [lost(True)], ConnectionLost),
        (WRITE, False, [lost(sent=False), UPDATED], None),
        (WRITE, False, [lost(sent=False), lost(sent=False)], ConnectionLost),
        (WRITE, False, [lost(sent=False), lost()], OutcomeUnknown),
        (WRITE, False, [lost(True, sent=False)], ConnectionLost),
        (READ, False, [late()], DeadlineExceeded),
        (WRITE, False, [late()], WriteTimedOut),
        (WRITE, True, [late()], DeadlineExceeded),
        (WRITE, False, [late(sent=False)], DeadlineExceeded),
        (WRITE, False, [late(True)], DeadlineExceeded),
        (WRITE, False, [ProgrammingError(1064, "syntax")], ProgrammingError),
        (READ, False, [ProgrammingError(1064, "syntax")], ProgrammingError),
    ],
)
def test_what_is_sent_twice(sql: str, idempotent: bool, answers: List[Any], outcome: Any) -> None:
    script = [(steps.Execute, response) for response in answers]
    if outcome is None:
        follow(verbs.query(place, sql, None, idempotent=idempotent), script)
        return
    with pytest.raises(outcome) as caught:
        follow(verbs.query(place, sql, None, idempotent=idempotent), script)
    assert type(caught.value) is outcome
    if outcome is OutcomeUnknown:
        assert (caught.value.args[0], caught.value.shard_id, caught.value.sent) == (2013, 1, True)
        assert isinstance(caught.value.__cause__, ConnectionLost)


def test_a_call_goes_where_the_route_says_each_time() -> None:
    routes = iter([place(), ShardUnavailable("Shard 1 not available")])

    def route() -> Any:
        found = next(routes)
        if isinstance(found, Exception):
            raise found
        return found

    with pytest.raises(ShardUnavailable):
        follow(verbs.query(route, READ, None), [(steps.Execute, lost())])


def test_a_place_that_was_closed_meanwhile_is_looked_for_once_more() -> None:
    closed = ServiceNotOpen("the connection pool of shard 1 is closed")
    places = [place(), place(), place()]
    routes = iter(places)
    assert (
        follow(
            verbs.query_value(lambda: next(routes), READ, None),
            [(steps.Execute, closed), (steps.Execute, ROWS)],
        )
        == 1
    )
    with pytest.raises(ServiceNotOpen):
        follow(verbs.query(lambda: places[0], READ, None), [(steps.Execute, closed)])


def test_a_shard_that_the_map_does_not_know_is_looked_for() -> None:
    looked = []

    def look(*_: Any) -> Any:
        looked.append(1)
        yield steps.Sleep(0)

    def route() -> Any:
        raise steps.UnknownShard(look, place)

    assert follow(
        verbs.query(route, "SELECT 1", None), [(steps.Sleep, None), (steps.Execute, ROWS)]
    )
    assert follow(execute.resolve_route(route), [(steps.Sleep, None)]).name == "shard 1"
    assert (
        follow(execute.check_out(route), [(steps.Sleep, None), (steps.CheckOut, "raw")])[1] == "raw"
    )
    assert looked == [1, 1, 1]


@pytest.mark.parametrize("moved", [True, False])
def test_a_server_that_turns_the_account_away_may_not_be_the_shard_s_any_more(moved: bool) -> None:
    def look(*_: Any) -> Any:
        yield steps.Sleep(0)

    refused = shard_unavailable(1, "no connection")
    refused.__cause__ = DENIED
    old, new = place(), place()
    old._refresh_on_miss = look
    ways = iter([old, new, new])
    route: Any = (lambda: next(ways)) if moved else (lambda: old)
    for plan, step, response in (
        (verbs.query(route, WRITE, None), steps.Execute, UPDATED),
        (execute.check_out(route), steps.CheckOut, "raw"),
    ):
        script = [(step, refused), (steps.Sleep, None), (step, response)]
        if moved:
            ways = iter([old, new, new])
            follow(plan, script)
        else:
            with pytest.raises(ShardUnavailable):
                follow(plan, script[:2])


def test_a_read_only_place_is_sent_reads_alone() -> None:
    there = place()
    there._read_only = True
    assert follow(verbs.query(lambda: there, READ, None), [(steps.Execute, ROWS)])
    follow(
        verbs.call(lambda: there, "p", (), read_only=True),
        [(steps.Execute, CallResult([], {}, 0, 0))],
    )
    for plan in (
        verbs.execute(lambda: there, WRITE, None),
        verbs.call(lambda: there, "p", ()),
        execute.check_out(lambda: there, raw=True),
    ):
        with pytest.raises(ShardReadOnly) as caught:
            follow(plan, [])
        assert caught.value.sent is False


def test_what_the_retry_budget_does_not_allow_is_not_sent_twice() -> None:
    poor = place()
    poor._take_retry_token = lambda: False
    with pytest.raises(ConnectionLost):
        follow(verbs.query(lambda: poor, READ, None), [(steps.Execute, lost())])


def test_a_timeout_sets_the_step_s_limit_and_nothing_is_sent_after_it() -> None:
    times = iter([0.0, 10.0])
    plan = execute.execute_statement(place, Statement(READ), 5.0, lambda: next(times))
    began = time.monotonic()
    step: Any = next(plan)
    assert began + 5.0 <= step.until <= time.monotonic() + 5.0
    with pytest.raises(DeadlineExceeded) as caught:
        follow(verbs.query(place, WRITE, None, timeout=0), [])
    assert caught.value.sent is False


@pytest.mark.parametrize("timeout", [-1, "1", True, 1e12, math.inf, math.nan])
def test_a_timeout_is_a_number_from_0_up(timeout: Any) -> None:
    with pytest.raises(ParameterError, match="number of seconds from 0 to"):
        next(verbs.query(place, READ, None, timeout=timeout))


def test_of_nested_deadlines_the_earliest_holds() -> None:
    assert deadlines.deadline_after() is None
    with Deadline(10.0):
        outer = deadlines.deadline_after()
        with Deadline(20.0):
            assert deadlines.deadline_after() == outer
        with Deadline(1.0):
            assert deadlines.deadline_after() < outer  # type: ignore[operator]
        assert deadlines.deadline_after(5.0) < outer  # type: ignore[operator]
        assert deadlines.deadline_after(50.0) == outer
    assert deadlines.deadline_after() is None


REFUSED = ConnectionFailed(2003, "refused")
DENIED = ConnectionFailed(1045, "denied")


def endpoint(shard_id: Any = 1) -> Any:
    config = DatabaseConfig(database="d", user="u", password="p", connect_timeout=10.0)
    return SimpleNamespace(
        name="it", shard_id=shard_id, config=config, breaker=CircuitBreaker(lambda: 1.0)
    )


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
    # The clock is looked at before and after each connect; shard 2's take six seconds
    # each, of ten that are given.
    times = iter([3.0 * tick if shard_id == 2 else 0.0 for tick in range(9)])
    plan = connect.connecting(endpoint(shard_id), clock=lambda: next(times))
    if outcome is None:
        follow(plan, script)
        return
    with pytest.raises(outcome) as caught:
        follow(plan, script)
    if outcome is ShardUnavailable:
        assert isinstance(caught.value.__cause__, ConnectionFailed)
        assert str(script[-1][1].args[0]) in str(caught.value.reason)


def test_connecting_ends_at_the_deadline_which_says_nothing_of_the_server() -> None:
    there = endpoint()
    times = iter([0.0, 0.0, 1.0])
    with pytest.raises(DeadlineExceeded) as caught:
        follow(connect.connecting(there, 1.0, lambda: next(times)), [(steps.Connect, REFUSED)])
    assert (caught.value.sent, caught.value.shard_id) == (False, 1)
    assert not there.breaker.is_open
    assert next(connect.connecting(there, 1.0, lambda: 0.0)) == steps.Connect(1.0)
    assert next(connect.connecting(there, 100.0, lambda: 0.0)) == steps.Connect(10.0)


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


def test_when_everything_fails_retries_are_a_tenth_of_the_calls() -> None:
    health = CircuitBreaker()
    spent = 0
    for _ in range(1000):
        health.earn()
        spent += health.spend()
    assert 100 <= spent <= 110


TIMED_OUT = LockWaitTimeout(1205, "Lock wait timeout exceeded", sqlstate="HY000")


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ([(steps.Execute, ROWS)], True),
        ([(steps.Execute, NONE)], False),
        ([(steps.Execute, lost()), (steps.Execute, ROWS)], True),
        ([(steps.Execute, TIMED_OUT), (steps.Execute, ROWS)], True),
        (
            [
                (steps.Execute, shard_unavailable(1, "away")),
                (steps.Sleep, None),
                (steps.Execute, NONE),
            ],
            False,
        ),
        (
            [(steps.Execute, ProgrammingError(1142, "SELECT command denied", sqlstate="42000"))],
            None,
        ),
        ([(steps.Execute, ServiceNotOpen("closed"))], None),
    ],
)
def test_what_became_of_a_commit(script: List[Tuple[Any, Any]], outcome: Any) -> None:
    assert (
        follow(commit_outcome.resolve_commit_outcome(place(), "f00d", lambda: 0.0), script)
        is outcome
    )


def test_what_became_of_a_commit_is_not_asked_for_ever() -> None:
    times = itertools.count(0.0, 4.0)
    assert (
        follow(
            commit_outcome.resolve_commit_outcome(place(), "f00d", lambda: next(times)),
            [(steps.Execute, TIMED_OUT)] * 4,
        )
        is None
    )


def test_backoff_grows_to_its_cap_and_spreads_over_the_whole_range() -> None:
    longest = [
        retry.backoff(attempt, base=0.05, cap=2.0, spread=lambda: 1.0) for attempt in range(9)
    ]
    assert longest == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
    assert retry.backoff(3, spread=lambda: 0.0) == 0.0
    assert retry.backoff(10_000, cap=2.0, spread=lambda: 1.0) == 2.0
