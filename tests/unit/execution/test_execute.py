"""What is sent again, and where a call goes."""

import time
from typing import Any, List

import pytest
from scripted_plans import DENIED, READ, ROWS, UPDATED, WRITE, follow, lost, place, routed

from dualdb.errors import (
    ConnectionLost,
    DeadlineExceeded,
    NotPrimary,
    OutcomeUnknown,
    ProgrammingError,
    ServiceNotOpen,
    ShardReadOnly,
    ShardUnavailable,
    WriteTimedOut,
    shard_unavailable,
)
from dualdb.execution import execute, steps, verbs
from dualdb.protocol.statements import Call, Statement
from dualdb.results import CallResult


def late(in_transaction: bool = False, *, sent: bool = True) -> DeadlineExceeded:
    error = DeadlineExceeded(2013, "the deadline passed").with_context("shard 1", 1, sent=sent)
    error.in_transaction = in_transaction
    return error


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
        follow(verbs.query(routed(place), sql, None, idempotent=idempotent), script)
        return
    with pytest.raises(outcome) as caught:
        follow(verbs.query(routed(place), sql, None, idempotent=idempotent), script)
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
        follow(verbs.query(routed(route), READ, None), [(steps.Execute, lost())])


def test_a_place_that_was_closed_meanwhile_is_looked_for_once_more() -> None:
    closed = ServiceNotOpen("the connection pool of shard 1 is closed")
    places = [place(), place(), place()]
    routes = iter(places)
    assert (
        follow(
            verbs.query_value(routed(lambda: next(routes)), READ, None),
            [(steps.Execute, closed), (steps.Execute, ROWS)],
        )
        == 1
    )
    with pytest.raises(ServiceNotOpen):
        follow(verbs.query(routed(lambda: places[0]), READ, None), [(steps.Execute, closed)])


def test_a_shard_that_the_map_does_not_know_is_looked_for() -> None:
    looked = []

    def refresh(*_: Any) -> Any:
        looked.append(1)
        yield steps.Sleep(0)

    def route(until: Any = None) -> Any:
        yield from refresh()
        return place()

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
    def refresh(*_: Any) -> Any:
        yield steps.Sleep(0)

    refused = shard_unavailable(1, "no connection")
    refused.__cause__ = DENIED
    old, new = place(), place()
    old.refresh_on_miss = refresh
    ways = iter([old, new, new])
    route: Any = routed((lambda: next(ways)) if moved else (lambda: old))
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
    there.read_only = True
    assert follow(verbs.query(routed(lambda: there), READ, None), [(steps.Execute, ROWS)])
    follow(
        verbs.call(routed(lambda: there), "p", (), read_only=True),
        [(steps.Execute, CallResult([], {}, 0, 0))],
    )
    for plan in (
        verbs.execute(routed(lambda: there), WRITE, None),
        verbs.call(routed(lambda: there), "p", ()),
        execute.check_out(routed(lambda: there), raw=True),
    ):
        with pytest.raises(ShardReadOnly) as caught:
            follow(plan, [])
        assert caught.value.sent is False


def test_what_the_retry_budget_does_not_allow_is_not_sent_twice() -> None:
    poor = place()
    poor.take_retry_token = lambda: False
    with pytest.raises(ConnectionLost):
        follow(verbs.query(routed(lambda: poor), READ, None), [(steps.Execute, lost())])


def test_a_timeout_sets_the_step_s_limit_and_nothing_is_sent_after_it() -> None:
    times = iter([0.0, 10.0])
    plan = execute.execute_statement(routed(place), Statement(READ), 5.0, lambda: next(times))
    step: Any = next(plan)
    assert step.until == 5.0
    began = time.monotonic()
    step = next(verbs.query(routed(place), READ, None, timeout=5))
    assert began + 5.0 <= step.until <= time.monotonic() + 5.0
    with pytest.raises(DeadlineExceeded) as caught:
        follow(verbs.query(routed(place), WRITE, None, timeout=0), [])
    assert caught.value.sent is False


@pytest.mark.parametrize(("completed", "times"), [(0, 2), (3, 1)])
def test_what_another_host_would_do_again_is_not_sent_there(completed: int, times: int) -> None:
    # three of the statements of a batch had been done when the server became read-only
    refused = NotPrimary(1290, "--read-only").with_context("shard 1", 1, sent=True)
    refused.elsewhere = True
    refused.driver_error = ValueError()
    refused.driver_error.completed = completed  # type: ignore[attr-defined]
    plan = execute.execute_statement(routed(place), Statement(WRITE))
    with pytest.raises(NotPrimary):
        follow(plan, [(steps.Execute, refused)] * times)


def not_primary(elsewhere: bool) -> NotPrimary:
    error = NotPrimary(1290, "read-only").with_context("shard 1", 1, sent=True)
    error.elsewhere = elsewhere
    return error


@pytest.mark.parametrize(
    ("statement", "elsewhere", "again"),
    [
        (Statement(WRITE), True, True),
        (Statement(READ), True, True),
        (Statement(WRITE), False, False),
        # a part of it may have been applied before it was refused
        (Call("p"), True, False),
        (Statement("CALL p()"), True, False),
    ],
)
def test_what_was_refused_is_sent_to_another_host_if_nothing_was_applied(
    statement: Any, elsewhere: bool, again: bool
) -> None:
    route = steps.fixed_route(place())
    script: List[Any] = [(steps.Execute, not_primary(elsewhere))]
    if again:
        plan = execute.execute_statement(route, statement)
        assert follow(plan, [*script, (steps.Execute, UPDATED)]) == UPDATED
        script.append((steps.Execute, not_primary(elsewhere)))
    with pytest.raises(NotPrimary):
        follow(execute.execute_statement(route, statement), script)
