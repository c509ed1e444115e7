"""Locks as leases: what is sent, and what a conflict, a missing table and another
holder lead to.
"""

from typing import Any, List

import pymysql.err
import pytest

from dualdb.protocol.exchange import TextEncoding
from dualdb.protocol.lock_leases import Lease
from dualdb.results import ResultSet

UTF8 = TextEncoding("utf8", True)
LEASE = Lease("'mine'", "token")
OK = [ResultSet([], (), 1, 0, 0)]
CONFLICT = pymysql.err.OperationalError(1213, "conflict", sqlstate="40001")
MISSING = pymysql.err.ProgrammingError(1146, "no table", sqlstate="42S02")
GONE = pymysql.err.OperationalError(1047, "not in service", sqlstate="08S01")


def held(count: int) -> List[ResultSet]:
    return [ResultSet([{"held": count}], ("held",), 1, 0, 0)]


def follow(exchange: Any, answers: List[Any]) -> Any:
    """The verbs of the commands, and what the exchange returns."""
    verbs = []
    command = next(exchange)
    for answer in answers:
        verbs.append(command.split()[0].decode())
        try:
            if isinstance(answer, Exception):
                command = exchange.throw(answer)
            else:
                command = exchange.send(answer)
        except StopIteration as done:
            return verbs, done.value
    raise AssertionError(f"one command more: {command}")


@pytest.mark.parametrize(
    ("answers", "verbs", "taken"),
    [
        ([OK, held(1)], ["INSERT", "SELECT"], True),
        ([OK, held(0)], ["INSERT", "SELECT"], False),
        ([CONFLICT], ["INSERT"], False),
        ([MISSING, OK, OK, held(1)], ["INSERT", "CREATE", "INSERT", "SELECT"], True),
    ],
)
def test_without_a_wait(answers: List[Any], verbs: List[str], taken: bool) -> None:
    assert follow(LEASE.acquire(UTF8, 0, lambda: 0.0), [OK, *answers]) == (["SET", *verbs], taken)


def test_a_wait_ends_when_it_is_free_or_the_time_is_over() -> None:
    times = iter([0.0, 0.1, 0.2])
    waiting = LEASE.acquire(UTF8, 5.0, lambda: next(times))
    script = [OK, OK, held(0), OK, CONFLICT, OK, OK, held(1)]
    verbs = ["SET", "INSERT", "SELECT", "DO", "INSERT", "DO", "INSERT", "SELECT"]
    assert follow(waiting, script) == (verbs, True)
    times = iter([0.0, 4.95, 5.0])
    waiting = LEASE.acquire(UTF8, 5.0, lambda: next(times))
    verbs = ["SET", "INSERT", "SELECT", "DO", "INSERT", "SELECT"]
    assert follow(waiting, [OK, OK, held(0), OK, OK, held(0)]) == (verbs, False)


def test_renewing_and_releasing_say_whether_it_was_held() -> None:
    for count in (1, 0):
        assert follow(LEASE.renew(UTF8), [CONFLICT, OK, held(count)])[1] is bool(count)
        assert follow(LEASE.release(UTF8), [held(count), OK])[1] is bool(count)


def test_another_error_is_raised() -> None:
    for exchange in (LEASE.acquire(UTF8, 5.0), LEASE.renew(UTF8), LEASE.release(UTF8)):
        next(exchange)
        with pytest.raises(pymysql.err.OperationalError, match="not in service"):
            exchange.throw(GONE)
