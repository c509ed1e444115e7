"""Calls to several shards of which something becomes other than asked: which error each
caller gets, and that every connection is whole afterwards.
"""

import contextlib
import random
import threading
from typing import Any, Callable, Iterator, List

import pytest
from database_servers import Databases
from io_kinds import IO
from waiting import wait_for

from dualdb import (
    ConnectionLost,
    DeadlineExceeded,
    InOut,
    Out,
    OutcomeUnknown,
    RowCount,
    ScatterError,
    ShardUnavailable,
)

NAP = "SELECT SLEEP(s) AS slept FROM nap"
INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1)"
IDS = (1, 2)


@pytest.fixture
def nap(databases: Databases) -> Callable[..., None]:
    """Set how many seconds a nap takes on shards 1 and 2."""

    def set_up(first: float, second: float) -> None:
        for shard_id, seconds in zip(IDS, (first, second)):
            databases.run(
                shard_id,
                "DROP TABLE IF EXISTS nap",
                "CREATE TABLE nap (s FLOAT)",
                f"INSERT INTO nap VALUES ({seconds})",
            )

    return set_up


@pytest.fixture
def db(open_service: Callable[..., Any], io: IO) -> Iterator[Any]:
    service = open_service()
    io(service.shards().query("SELECT 1"))  # there are idle connections
    yield service
    io.wait_for(lambda: all(pool.in_use == 0 for pool in service.stats().values()))
    for _ in range(3):
        assert [row["n"] for row in io(service.shards().query("SELECT 7 AS n")).rows] == [7, 7]


def nappers(databases: Databases, shard_id: int) -> List[Any]:
    found = (
        "SELECT id FROM information_schema.processlist WHERE info LIKE '%SLEEP(s)%' AND info "
        "NOT LIKE '%processlist%'"
    )
    return [row["id"] if "id" in row else row["ID"] for row in databases.run(shard_id, found)]


@contextlib.contextmanager
def killing(databases: Databases, shard_id: int, what: str) -> Iterator[None]:
    """Kill the sessions (or their queries) that nap on a shard, once there is one."""

    def kill() -> None:
        for each in wait_for(lambda: nappers(databases, shard_id), every=0.01):
            databases.run(shard_id, f"KILL {what} {each}")

    thread = threading.Thread(target=kill)
    thread.start()
    yield
    thread.join()


def test_an_interrupt_ends_it_on_every_server(
    db: Any, io: IO, databases: Databases, nap: Any
) -> None:
    nap(30, 30)
    io.interrupted(lambda: db.shards().query(NAP))
    io.wait_for(lambda: not nappers(databases, 1) and not nappers(databases, 2))


@pytest.mark.slow
def test_one_that_is_late_is_ended_and_the_other_is_given(
    db: Any, io: IO, databases: Databases, nap: Any
) -> None:
    nap(0, 30)
    part = io(db.shards(on_error="partial").query(NAP, timeout=0.3, read_only=True))
    assert (part.by_shard, type(part.errors[2])) == ({1: [{"slept": 0}]}, DeadlineExceeded)
    io.wait_for(lambda: not nappers(databases, 2))
    nap(30, 0.3)
    part = io(
        db.shards(on_error="partial").execute(
            f"INSERT INTO trades (user_id, symbol, qty) SELECT 1, 'A', ({NAP})", timeout=0.6
        )
    )
    assert (part.by_shard, part.errors[1].sent) == ({2: 1}, True)
    assert isinstance(part.errors[1], OutcomeUnknown)


@pytest.mark.slow
def test_one_that_is_silent_for_too_long_is_lost_alone(
    open_service: Callable[..., Any], io: IO, databases: Databases, nap: Any
) -> None:
    nap(30, 0.3)
    db = open_service(databases.config.model_copy(update={"read_timeout": 1.0}))
    for _ in range(2):  # over new connections, and over idle ones
        with pytest.raises(ScatterError) as caught:
            io(
                db.shards().execute(
                    f"INSERT INTO trades (user_id, symbol, qty) SELECT 1, 'A', ({NAP})"
                )
            )
        assert (caught.value.result.by_shard, type(caught.value.result.errors[1])) == (
            {2: 1},
            OutcomeUnknown,
        )
    io.wait_for(lambda: not nappers(databases, 1))


@pytest.mark.parametrize("what", ["QUERY", "CONNECTION"])
def test_one_that_is_killed_fails_alone(
    db: Any, io: IO, databases: Databases, nap: Any, what: str
) -> None:
    nap(30, 0.3)
    with killing(databases, 1, what):
        part = io(
            db.shards(on_error="partial").execute(
                f"INSERT INTO trades (user_id, symbol, qty) SELECT 1, 'A', ({NAP})"
            )
        )
    assert part.by_shard == {2: 1}
    assert isinstance(part.errors[1], OutcomeUnknown) is (what == "CONNECTION")
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == 0


@pytest.mark.slow
def test_a_read_whose_connection_is_lost_is_sent_again(
    db: Any, io: IO, databases: Databases, nap: Any
) -> None:
    nap(0.5, 0)
    with killing(databases, 1, "CONNECTION"):
        assert io(db.shards().query(NAP, read_only=True)).by_shard == {
            1: [{"slept": 0}],
            2: [{"slept": 0}],
        }


def test_connections_that_died_idle_are_replaced(db: Any, io: IO, databases: Databases) -> None:
    user = db.get_shard_client(1).config.user
    for each in databases.run(
        1, f"SELECT id FROM information_schema.processlist WHERE user = '{user}'"
    ):
        databases.run(1, f"KILL {next(iter(each.values()))}")
    done = io(db.shards().execute(INSERT))
    assert done.by_shard == {1: 1, 2: 1}


def test_what_takes_several_commands_is_as_on_one_shard(
    db: Any, io: IO, databases: Databases
) -> None:
    called = io(db.shards().call("totals", (1, Out("count"), InOut("sum", 5))))
    assert {
        shard_id: (result.out, result.rows) for shard_id, result in called.by_shard.items()
    } == {shard_id: ({"count": 0, "sum": 5}, [{"user_id": 1}]) for shard_id in IDS}
    for shard_id in IDS:
        body = (
            "BEGIN SELECT 1 AS one; SIGNAL SQLSTATE '45000'; END"
            if shard_id == 1
            else "SELECT 2 AS two"
        )
        databases.run(
            shard_id, "DROP PROCEDURE IF EXISTS halves", f"CREATE PROCEDURE halves() {body}"
        )
    with pytest.raises(ScatterError) as caught:
        io(db.shards().call("halves"))
    assert caught.value.result.by_shard[2].rows == [{"two": 2}]
    assert caught.value.result.errors[1].errno == 1644


@pytest.mark.slow
@pytest.mark.parametrize("row_decoder", ["auto", "python", "driver"])
def test_long_answers_come_whole(
    open_service: Callable[..., Any], io: IO, databases: Databases, row_decoder: str
) -> None:
    db = open_service(databases.config.model_copy(update={"row_decoder": row_decoder}))
    digits = " UNION ALL ".join([f"SELECT {number} AS n" for number in range(10)])
    sql = f"SELECT a.n, REPEAT('x', 20000) AS x FROM ({digits}) a, ({digits}) b, ({digits}) c"
    for _ in range(2):
        result = io(db.shards().query(sql))
        assert [len(rows) for rows in result.by_shard.values()] == [1000, 1000]
        assert {len(row["x"]) for row in result.rows} == {20000}


def test_it_is_nobody_s_last_insert(db: Any, io: IO, databases: Databases) -> None:
    done = io(db.shards().execute(INSERT))
    assert all(isinstance(count, RowCount) and count.lastrowid for count in done.by_shard.values())
    assert io(db.get_last_insert_id()) == 0


@pytest.mark.slow
def test_nothing_is_mixed_up_while_sessions_are_killed(
    db: Any, io: IO, databases: Databases, seed: int
) -> None:
    chance = random.Random(seed)
    user = db.get_shard_client(1).config.user
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.005):
            shard_id = chance.choice(IDS)
            found = databases.run(
                shard_id, f"SELECT id FROM information_schema.processlist WHERE user = '{user}'"
            )
            for each in found:
                if chance.random() < 0.2:
                    with contextlib.suppress(Exception):
                        databases.run(shard_id, f"KILL {next(iter(each.values()))}")

    def ask(number: int) -> Any:
        return db.shards(on_error="partial").query(
            "SELECT %s AS tag, SLEEP(0.002) AS slept", (number,)
        )

    killer = threading.Thread(target=kill)
    killer.start()
    whole = 0
    try:
        for round_ in range(30):
            numbers = range(round_ * 8, round_ * 8 + 8)
            for number, result in zip(
                numbers,
                io.concurrently([lambda number=number: ask(number) for number in numbers]),
            ):
                assert sorted([*result.by_shard, *result.errors]) == [1, 2]
                assert all(
                    rows == [{"tag": number, "slept": 0}] for rows in result.by_shard.values()
                )
                # Who is killed while it connects, again and again, is not there.
                lost = (ConnectionLost, OutcomeUnknown, ShardUnavailable)
                others = [
                    error
                    for error in result.errors.values()
                    if not isinstance(error, lost) and error.errno != 1317
                ]
                assert others == []
                whole += not result.errors
    finally:
        over.set()
        killer.join()
    assert whole > 0
