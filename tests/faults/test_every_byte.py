"""A connection that breaks at any byte: no row is ever written twice, and none that was
acknowledged is missing.
"""

import contextlib
import itertools
from typing import Any, Callable, Iterator, List

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import (
    ConnectionLost,
    DeadlineExceeded,
    OutcomeUnknown,
    TransactionAborted,
    WriteTimedOut,
)
from dualdb.results import RowCount
from dualdb.testing import Fault, FaultProxy

pytestmark = pytest.mark.slow

INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, 'A', 1)"


@pytest.fixture
def proxy(databases: Databases) -> Iterator[FaultProxy]:
    config = databases.config_of(1)
    with FaultProxy(config.host, config.port) as made:
        yield made


@pytest.fixture
def client(databases: Databases, io: IO, proxy: FaultProxy, quick_retries: None) -> Iterator[Any]:
    made = io.Client(
        databases.config_of(
            1, host="127.0.0.1", port=proxy.port, ssl_mode="disabled", pool_size=1, max_overflow=0
        )
    )
    io(made.init_pool())
    yield made
    proxy.set(None)
    io(made.close_pool())


@pytest.fixture
def at_every_byte(client: Any, io: IO, proxy: FaultProxy) -> Callable[..., List[Any]]:
    """A function that does some work again and again, with the fault one byte later
    each time, until it ends without the fault.

    Towards the server, then back. Gives what each gave: a value, or the exception.
    """

    def do(action: Any, work: Callable[[int], Any], step: int = 1) -> List[Any]:
        outcomes: List[Any] = []
        numbers = itertools.count(1)
        for direction in ("up", "down"):
            for after in range(0, 10_000, step):
                # The fault's bytes are those of the work, not of a connection that is
                # opened for it; and ten calls earn one retry.
                # the fault came after the last byte of the work
                with contextlib.suppress(DeadlineExceeded):
                    io(client.query_value("SELECT 1", timeout=0.5))
                for _ in range(10):
                    assert io(client.query_value("SELECT 1", timeout=20)) == 1
                proxy.set(Fault(direction, after, action))
                try:
                    outcomes.append(work(next(numbers)))
                except Exception as error:
                    outcomes.append(error)
                happened = proxy.happened
                proxy.set(None)
                if not happened:
                    break
        return outcomes

    return do


def held(databases: Databases) -> List[int]:
    return [
        row["user_id"] for row in databases.run(1, "SELECT user_id FROM trades ORDER BY user_id")
    ]


def check(outcomes: List[Any], rows: List[int], acknowledged: Any, *unknown: Any) -> None:
    assert len(rows) == len(set(rows)), "a row was written twice"
    for number, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, Exception):
            assert isinstance(outcome, unknown) or number not in rows, (number, outcome)
        else:
            assert outcome == acknowledged
            assert number in rows, "an acknowledged row is missing"


def test_a_write(client: Any, io: IO, databases: Databases, at_every_byte: Any) -> None:
    outcomes = at_every_byte("cut", lambda number: io(client.execute(INSERT, (number,))))
    check(outcomes, held(databases), 1, OutcomeUnknown)
    assert len(outcomes) > 60
    assert any(isinstance(outcome, OutcomeUnknown) for outcome in outcomes)
    assert outcomes[-1] == 1


def test_a_write_that_was_declared_idempotent(
    client: Any, io: IO, databases: Databases, at_every_byte: Any
) -> None:
    databases.run(
        1, "CREATE TABLE IF NOT EXISTS states (id INT PRIMARY KEY, state INT)", "TRUNCATE states"
    )
    replace = "REPLACE INTO states VALUES (%s, 1)"
    outcomes = at_every_byte(
        "cut", lambda number: io(client.execute(replace, (number,), idempotent=True)), step=3
    )
    assert [row["id"] for row in databases.run(1, "SELECT id FROM states ORDER BY id")] == list(
        range(1, len(outcomes) + 1)
    )
    assert set(map(type, outcomes)) == {RowCount}


def test_a_procedure(client: Any, io: IO, databases: Databases, at_every_byte: Any) -> None:
    outcomes = at_every_byte(
        "cut", lambda number: io(client.call("buy", (number, "A", 1))).rowcount
    )
    check(outcomes, held(databases), 1, OutcomeUnknown)


def test_a_transaction(client: Any, io: IO, databases: Databases, at_every_byte: Any) -> None:
    def work(number: int) -> Any:
        with io.entered(client.transaction()) as tx:
            return io(tx.execute(INSERT, (number,)))

    outcomes = at_every_byte("cut", work)
    check(outcomes, held(databases), 1, OutcomeUnknown)
    assert {type(outcome) for outcome in outcomes if isinstance(outcome, Exception)} >= {
        ConnectionLost,
        OutcomeUnknown,
    }


def test_a_transaction_with_a_commit_marker_is_never_in_doubt(
    client: Any, io: IO, databases: Databases, at_every_byte: Any
) -> None:
    databases.run(1, "DROP TABLE IF EXISTS dualdb_commit")

    def work(number: int) -> Any:
        with io.entered(client.transaction(commit_marker=True)) as tx:
            return io(tx.execute(INSERT, (number,)))

    # The first of them makes the table, so that those that follow send less: the second
    # round reaches the bytes of COMMIT.
    outcomes = [
        *at_every_byte("cut", work),
        *at_every_byte("cut", lambda number: work(number + 1000)),
    ]
    rows = held(databases)
    assert len(rows) == len(set(rows)), "a row was written twice"
    assert sum(outcome == 1 for outcome in outcomes) == len(rows), (
        "an acknowledged row is missing, or another one is there"
    )
    errors: List[Any] = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert {(type(error), error.retryable) for error in errors} == {
        (ConnectionLost, True),
        (TransactionAborted, True),
    }
    assert sum(isinstance(error, TransactionAborted) for error in errors) >= len("COMMIT")


def test_writes_that_are_sent_together(
    client: Any, io: IO, databases: Databases, at_every_byte: Any
) -> None:
    # which cannot be one statement
    insert = "INSERT INTO trades (user_id, symbol, qty) SELECT %s, 'A', 1 FROM DUAL"

    def work(number: int) -> Any:
        return io(client.executemany(insert, [(number,), (number + 1_000_000,)]))

    outcomes = at_every_byte("cut", work)
    rows = held(databases)
    check(outcomes, [row for row in rows if row < 1_000_000], 2, OutcomeUnknown)
    check(outcomes, [row - 1_000_000 for row in rows if row > 1_000_000], 2, OutcomeUnknown)
    unknown = [outcome for outcome in outcomes if isinstance(outcome, OutcomeUnknown)]
    assert {outcome.rows for outcome in unknown} == {(0, 1)}
    assert outcomes[-1] == 2


def test_a_read(client: Any, io: IO, databases: Databases, at_every_byte: Any) -> None:
    databases.run(1, "INSERT INTO trades (user_id, symbol, qty) VALUES (7, 'A', 1)")
    outcomes = at_every_byte(
        "cut", lambda number: io(client.query("SELECT user_id, symbol FROM trades")), step=7
    )
    assert outcomes == [[{"user_id": 7, "symbol": "A"}]] * len(outcomes)


def test_a_network_that_swallows_everything(
    client: Any, io: IO, databases: Databases, at_every_byte: Any
) -> None:
    outcomes = at_every_byte(
        "swallow", lambda number: io(client.execute(INSERT, (number,), timeout=0.3)), step=13
    )
    check(outcomes, held(databases), 1, OutcomeUnknown)
    assert any(isinstance(outcome, WriteTimedOut) for outcome in outcomes)
    assert all(
        isinstance(outcome, DeadlineExceeded)
        for outcome in outcomes
        if isinstance(outcome, Exception)
    )


def test_a_delay_is_waited_for(
    client: Any, io: IO, databases: Databases, at_every_byte: Any
) -> None:
    outcomes = at_every_byte("delay", lambda number: io(client.execute(INSERT, (number,))), step=40)
    check(outcomes, held(databases), 1)
    assert outcomes == [1] * len(outcomes)
