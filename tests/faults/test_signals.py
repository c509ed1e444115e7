"""A signal handler that raises between any two instructions, as a time limit on a task
does: no slot and no lock is lost.
"""

import random
import signal
import sys
import threading
from functools import partial
from typing import Any, Callable, Iterator, List

import pytest
from database_servers import Databases
from interrupts import Interrupt, Interrupted
from waiting import wait_for

import dualdb

SIGNALS = 3000


class TimeLimit(Exception):
    """What the handler raises."""


class Alarm:
    """Raises ``TimeLimit`` in the main thread, once for each time it is set."""

    def __init__(self, chance: random.Random) -> None:
        self.raised = 0
        self._armed = False
        self._chance = chance

    def __call__(self, *args: Any) -> None:
        if self._armed:
            self._armed = False
            self.raised += 1
            raise TimeLimit

    def interrupt(self, call: Callable[[], Any]) -> None:
        """Make a call until it is interrupted somewhere; what is raised in a finaliser
        is lost.
        """
        try:
            self._armed = True
            signal.setitimer(signal.ITIMER_REAL, self._chance.uniform(1e-5, 4e-4))
            while self._armed:
                call()
        except (TimeLimit, dualdb.Error):
            pass
        finally:
            self._armed = False


@pytest.fixture
def alarm(seed: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Alarm]:
    # what is raised in a finaliser is reported, which may be interrupted again
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    made = Alarm(random.Random(seed))
    before = signal.signal(signal.SIGALRM, made)
    try:
        yield made
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def in_time(call: Callable[[], Any]) -> Any:
    """What a call gives in another thread, which a lock that is lost keeps for ever."""
    answers: List[Any] = []
    thread = threading.Thread(target=lambda: answers.append(call()), daemon=True)
    thread.start()
    thread.join(30)
    assert answers, "a lock is lost"
    return answers[0]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["checkout and release", "query", "transaction"])
def test_a_raising_signal_loses_neither_slot_nor_lock(
    databases: Databases, alarm: Alarm, what: str
) -> None:
    client = dualdb.MySQLClient(
        databases.config_of(1, pool_size=4, max_overflow=0, pool_timeout=5.0)
    )
    client.query("SELECT 1")

    def use() -> None:
        if what == "query":
            client.query("SELECT 1")
        elif what == "transaction":
            with client.transaction() as tx:
                tx.query("SELECT 1")
        else:
            client.pool.release(client.pool.checkout())

    while alarm.raised < SIGNALS:
        alarm.interrupt(use)
    signal.setitimer(signal.ITIMER_REAL, 0)

    def all_back() -> bool:
        client.pool.wait_unused(0)
        return client.stats().in_use == 0

    in_time(lambda: wait_for(all_back))
    assert client.stats().in_use == 0
    assert in_time(lambda: client.query_value("SELECT 7")) == 7
    in_time(client.close_pool)


@pytest.mark.slow
def test_a_raising_signal_loses_no_place_on_a_server(databases: Databases, alarm: Alarm) -> None:
    """Each call takes over the only connection, which is the other pool's."""
    config = databases.config_of(1, max_connections_per_server=1, pool_timeout=5.0)
    clients = [dualdb.MySQLClient(config) for _ in range(2)]

    def use() -> None:
        for client in clients:
            client.query("SELECT 1")

    for _ in range(SIGNALS // 3):
        alarm.interrupt(use)
    assert alarm.raised > SIGNALS // 6
    (budget,) = clients[0].pool.budgets.all
    for client in clients * 2:
        assert in_time(partial(client.query_value, "SELECT 1")) == 1
        assert in_time(budget.stats)[:3] == (1, 1, 0)
    for client in clients:
        client.close_pool()
    assert budget.stats().open == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_who_waits_is_served_although_the_caller_before_was_interrupted(
    databases: Databases,
) -> None:
    client = dualdb.MySQLClient(
        databases.config_of(1, pool_size=1, max_overflow=0, pool_timeout=120.0)
    )
    pool = client.pool
    for at in range(1, 10_000):
        interrupt = Interrupt(at, ["sync_impl/pool.py", "pooling/slots.py", "pooling/base.py"])
        connection = pool.checkout()
        answers: List[Any] = []
        waiter = threading.Thread(
            target=lambda found: found.append(client.query_value("SELECT 7")), args=(answers,)
        )
        waiter.start()
        wait_for(lambda: client.stats().waiting == 1, every=0.001)
        try:
            with interrupt:
                pool.release(connection)
        except Interrupted:
            pass
        del connection
        waiter.join(60)
        assert answers == [7], f"nobody served it after an interrupt at line {at}"
        if not interrupt.happened:
            break
    assert at > 20
    client.close_pool()
