"""The pools: the same limits, waits and hygiene in both implementations."""

import asyncio
import gc
import logging
import sys
import threading
import time
import warnings
from functools import partial
from typing import Any, Callable, Iterator, List

import pymysql.err
import pytest
from database_servers import Databases
from io_kinds import IO

import dualdb
from dualdb import ConnectionFailed, InterfaceError, PoolTimeout, ServiceNotOpen
from dualdb.api.interfaces import block_of


@pytest.fixture
def make_client(databases: Databases, io: IO) -> Iterator[Any]:
    made: List[Any] = []

    def make(**changes: Any) -> Any:
        made.append(io.Client(databases.config_of(1, **changes)))
        return made[-1]

    yield make
    for client in made:
        io(client.close_pool())


def alive(databases: Databases, ids: Any) -> int:
    """How many of these connections shard 1's server has."""
    return int(
        databases.value(
            1,
            (
                "SELECT COUNT(*) FROM information_schema.processlist WHERE id IN "
                f"({', '.join(map(str, ids))})"
            ),
        )
    )


@pytest.mark.slow
def test_pool_size_is_kept_and_overflow_closed_after_use(
    make_client: Callable[..., Any], io: IO, databases: Databases
) -> None:
    client = make_client(pool_size=2, max_overflow=3)
    ids = {
        row["id"]
        for (row,) in io.concurrently(
            [lambda: client.query("SELECT CONNECTION_ID() AS id, SLEEP(0.1)")] * 20
        )
    }
    assert len(ids) == 5
    io.wait_for(lambda: alive(databases, ids) == 2)


@pytest.mark.slow
def test_a_wait_is_bounded_and_its_error_has_figures(
    make_client: Callable[..., Any], io: IO
) -> None:
    client = make_client(pool_size=1, max_overflow=0, pool_timeout=0.2)
    with io.entered(client.transaction()):
        outcome = io.concurrently([lambda: client.query("SELECT 1")])[0]
    assert type(outcome) is PoolTimeout
    assert "1 of 1 are in use" in str(outcome)
    assert outcome.sent is False
    assert io(client.query_value("SELECT 1")) == 1


@pytest.mark.slow
def test_who_waits_is_served_in_order(make_client: Callable[..., Any], io: IO) -> None:
    client = make_client(pool_size=1, max_overflow=0)
    io(client.execute("SET @turn = 0"))
    served: List[int] = []

    def wait_for_turn(number: int) -> Any:
        yield io.pause(number * 0.03)
        yield client.query("SELECT SLEEP(0.1)")
        served.append(number)

    io.concurrently([partial(io.function(wait_for_turn), number) for number in range(6)])
    assert served == sorted(served)


def test_the_last_connection_returned_is_used_first(
    make_client: Callable[..., Any], io: IO
) -> None:
    client = make_client(pool_size=3)
    with io.entered(client.transaction()) as outer:
        ids = [io(outer.query_value("SELECT CONNECTION_ID()"))]
        ids += io.concurrently([lambda: client.query_value("SELECT CONNECTION_ID()")])
    assert len(set(ids)) == 2
    for _ in range(3):
        assert io(client.query_value("SELECT CONNECTION_ID()")) == ids[0]


def test_an_open_connection_is_used_before_a_broken_one_is_replaced(
    make_client: Callable[..., Any], io: IO
) -> None:
    client = make_client(pool_size=3)
    with io.entered(client.transaction()) as tx:
        io(tx.query("SELECT 1"))
        io.concurrently([lambda: client.query("SELECT 1")])
    opened = client.stats().opened
    assert opened == 2
    with pytest.raises(dualdb.Error):
        io(client.execute("KILL CONNECTION_ID()"))
    io(client.query("SELECT 1"))
    assert client.stats().opened == opened


def test_a_connection_that_died_in_the_pool_is_found_before_it_is_used(
    make_client: Callable[..., Any], io: IO, databases: Databases
) -> None:
    client = make_client(pool_size=1)
    first = io(client.query_value("SELECT CONNECTION_ID()"))
    for kill in (f"KILL {first}", None):
        if kill:
            databases.run(1, kill)
            io.wait_for(lambda: alive(databases, [first]) == 0)
        # A write, which could not be sent again if the dead connection were tried
        # first.
        assert (
            io(client.execute("INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1)")) == 1
        )
    assert io(client.query_value("SELECT CONNECTION_ID()")) != first


def test_no_statement_is_sent_that_nobody_asked_for(
    make_client: Callable[..., Any], io: IO, databases: Databases
) -> None:
    client = make_client(pool_size=1)
    io(client.query("SELECT 1"))
    count = (
        "SELECT VARIABLE_VALUE FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = "
        "'QUESTIONS'"
    )
    if "maria" not in str(io(client.query_value("SELECT VERSION()"))).lower():
        count = (
            "SELECT VARIABLE_VALUE FROM performance_schema.session_status WHERE "
            "VARIABLE_NAME = 'Questions'"
        )
    before = int(io(client.query_value(count)))
    for _ in range(10):
        io(client.query("SELECT 1"))
        io(client.call("portfolio", (1,)))
    assert int(io(client.query_value(count))) - before == 21
    with io.entered(client.transaction()) as tx:
        io(tx.query("SELECT 1"))
    assert int(io(client.query_value(count))) - before == 21 + 1 + 3


def test_an_old_connection_is_replaced(make_client: Callable[..., Any], io: IO) -> None:
    client = make_client(pool_size=1, max_lifetime=0.05)
    first = io(client.query_value("SELECT CONNECTION_ID()"))
    time.sleep(0.1)
    assert io(client.query_value("SELECT CONNECTION_ID()")) != first


def test_a_transaction_left_open_by_a_statement_is_not_the_next_borrower_s(
    make_client: Callable[..., Any], io: IO, databases: Databases
) -> None:
    for number, spoil in enumerate(("START TRANSACTION", "SET autocommit = 0")):
        databases.run(1, f"DROP PROCEDURE IF EXISTS spoil_{number}")
        databases.run(1, f"CREATE PROCEDURE spoil_{number}() {spoil}")
    client = make_client(pool_size=1, max_overflow=0)
    for number in range(2):
        io(client.call(f"spoil_{number}"))
        io(client.execute("INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1)"))
        assert databases.value(1, "SELECT COUNT(*) FROM trades") == 1
        databases.run(1, "TRUNCATE trades")


CHANGES = {
    "variable": ("SET @left_behind = 1", "SELECT @left_behind", None),
    "variable in a query": ("SELECT @left_behind := 1", "SELECT @left_behind", None),
    "mode": ("SET SESSION sql_mode = ''", "SELECT @@SESSION.sql_mode <> ''", 1),
    "time zone": ("SET time_zone = '+09:00'", "SELECT @@SESSION.time_zone", "SYSTEM"),
    "isolation": (
        "SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
        "SELECT @@SESSION.{isolation}",
        "REPEATABLE-READ",
    ),
    "database": ("USE information_schema", "SELECT DATABASE()", "{database}"),
    "temporary table": ("CREATE TEMPORARY TABLE trades (a INT)", "SELECT COUNT(id) FROM trades", 0),
    "lock": ("SELECT GET_LOCK('left_behind', 0)", "SELECT IS_USED_LOCK('left_behind')", None),
    "procedure": ("CALL change_session()", "SELECT @left_behind", None),
    "select into": ("SELECT 1 INTO @left_behind", "SELECT @left_behind", None),
    "lock after a comment": (
        "/* so */ DO GET_LOCK('left_behind', 0)",
        "SELECT IS_USED_LOCK('left_behind')",
        None,
    ),
}

FAILING = {
    "procedure": ("CALL change_and_fail()", "SELECT @left_behind", None),
    "lock": (
        "SELECT GET_LOCK('left_behind', 0), (SELECT 1 UNION SELECT 2)",
        "SELECT IS_USED_LOCK('left_behind')",
        None,
    ),
    "variable": (
        "SELECT @left_behind := 5, (SELECT 1 UNION SELECT 2)",
        "SELECT @left_behind",
        None,
    ),
}


@pytest.mark.parametrize(("change", "query", "expected"), FAILING.values(), ids=list(FAILING))
def test_what_was_changed_before_an_error_is_as_before_too(
    make_client: Callable[..., Any],
    io: IO,
    databases: Databases,
    change: str,
    query: str,
    expected: Any,
) -> None:
    fails = (
        "CREATE PROCEDURE change_and_fail() BEGIN SET @left_behind = 1; SIGNAL SQLSTATE "
        "'45000'; END"
    )
    databases.run(1, "DROP PROCEDURE IF EXISTS change_and_fail", fails)
    client = make_client(pool_size=1, max_overflow=0)
    with pytest.raises(dualdb.OperationalError):
        io(client.query(change))
    assert io(client.query_value(query)) is expected


def test_a_reset_after_every_call_clears_what_the_server_does_not_tell_of(
    make_client: Callable[..., Any], io: IO, databases: Databases
) -> None:
    databases.run(
        1, "DROP PROCEDURE IF EXISTS take", "CREATE PROCEDURE take() DO GET_LOCK('left_behind', 0)"
    )
    client = make_client(pool_size=1, max_overflow=0, reset_after_call=True)
    io(client.call("take"))
    assert io(client.query_value("SELECT IS_USED_LOCK('left_behind')")) is None


@pytest.mark.parametrize(("change", "query", "expected"), CHANGES.values(), ids=list(CHANGES))
def test_what_a_borrower_changed_is_as_before_for_the_next(
    make_client: Callable[..., Any],
    io: IO,
    databases: Databases,
    change: str,
    query: str,
    expected: Any,
) -> None:
    databases.run(
        1,
        "DROP PROCEDURE IF EXISTS change_session",
        "CREATE PROCEDURE change_session() SET @left_behind = 1",
    )
    client = make_client(pool_size=1, max_overflow=0)
    maria = "maria" in str(io(client.query_value("SELECT VERSION()"))).lower()
    names = {
        "isolation": "tx_isolation" if maria else "transaction_isolation",
        "database": client.config.database,
    }
    first = io(client.query_value("SELECT CONNECTION_ID()"))
    for _ in range(2):
        io(client.query(change))
        found = io(client.query_value(query.format(**names)))
        assert found == (expected.format(**names) if isinstance(expected, str) else expected)
    with io.entered(client.transaction()) as tx:
        io(tx.query(change))
    assert io(client.query_value(query.format(**names))) == found
    assert io(client.query_value("SELECT CONNECTION_ID()")) == first, (
        "and it is still the same connection"
    )
    io(client.execute("INSERT INTO trades (user_id, symbol, qty) VALUES (1, %s, 1)", ("é한",)))
    assert databases.run(1, "SELECT symbol FROM trades") == [{"symbol": "é한"}]


def test_the_figures_are_there_without_asking_anybody(
    make_client: Callable[..., Any], io: IO
) -> None:
    client = make_client(pool_size=2, max_overflow=1, pool_timeout=0.1)
    assert client.stats() == dualdb.PoolStats(3, 0, 0, 0, 0, 0, "closed")
    streams = [client.stream("SELECT 1 UNION SELECT 2") for _ in range(2)]
    for stream in streams:
        io.next_row(stream)
    assert client.stats()[:5] == (3, 2, 0, 0, 2)
    with io.entered(client.transaction()):
        with pytest.raises(PoolTimeout):
            io.in_other_caller(lambda: client.query("SELECT 1"))
        for stream in streams:
            io.collect(stream)
        assert client.stats()[:5] == (3, 1, 2, 0, 3)
    assert client.stats() == dualdb.PoolStats(3, 0, 2, 0, 3, 1, "closed")


def test_warming_up_opens_as_many_as_asked_for(make_client: Callable[..., Any], io: IO) -> None:
    client = make_client(pool_size=4, warm_up=3)
    io(client.init_pool())
    assert client.stats()[:5] == (24, 0, 3, 0, 3)


def test_without_warming_up_a_shard_is_connected_when_it_is_first_used(
    open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    db = open_service(databases.config.model_copy(update={"warm_up": 0}))
    assert {key: stats.opened for key, stats in db.stats().items()} == {"global": 1, 1: 0, 2: 0}
    assert set(db.shard_clients) == {1, 2}
    assert io(db.health_check())["healthy"]
    assert io(db.shard(2).query_value("SELECT 2")) == 2
    io(db.refresh())
    io(db.close_service())
    with pytest.raises(dualdb.ServiceNotOpen):
        io(db.shard(1).query_value("SELECT 1"))


@pytest.mark.slow
def test_what_nobody_uses_is_closed_and_what_nobody_gives_back_is_named(
    make_client: Callable[..., Any], io: IO, databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(pool_size=3, warm_up=3, max_idle=0.2, leak_threshold=0.1)
    io(client.init_pool())
    with io.entered(client.transaction()):
        for _ in range(3):
            io.sleep(0.15)
            client.pool.prune_idle()
        assert client.stats()[:3] == (23, 1, 0)
    client.pool.prune_idle()
    (warning,) = [
        record.getMessage()
        for record in caplog.records
        if "has been in use for" in record.getMessage()
    ]
    assert "io_kinds.py" in warning or "test_pool.py" in warning


@pytest.mark.usefixtures("frequent_maintenance")
def test_a_service_tidies_its_pools_by_itself(databases: Databases, io: IO) -> None:
    db = io.Service(databases.config.model_copy(update={"max_idle": 0.1}))
    with io.entered(db):
        io.wait_for(lambda: not any(figures.idle for figures in db.stats().values()))
        assert set(db.stats()) == {"global", 1, 2}
    assert db.stats() == {}


@pytest.mark.slow
def test_closing_with_a_timeout_lets_work_finish_and_cuts_the_rest(
    databases: Databases, io: IO, caplog: pytest.LogCaptureFixture
) -> None:
    client = io.Client(databases.config_of(1))

    def close_soon() -> Any:
        yield io.pause(0.2)
        yield client.close_pool(timeout=1.0)

    outcomes = io.concurrently(
        [
            lambda: client.query("SELECT SLEEP(0.6)"),
            lambda: client.execute("DO SLEEP(30)"),
            io.function(close_soon),
        ]
    )
    assert outcomes[0] == [{"SLEEP(0.6)": 0}]
    assert isinstance(outcomes[1], dualdb.OutcomeUnknown)
    assert outcomes[2] is None
    assert "1 connections were still in use" in caplog.text
    assert (
        databases.value(
            1, "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'DO SLEEP%'"
        )
        == 0
    )


@pytest.mark.slow
def test_closing_wakes_those_who_wait_and_ends_what_is_idle(
    make_client: Callable[..., Any], io: IO, databases: Databases
) -> None:
    client = make_client(pool_size=1, max_overflow=0)
    first = io(client.query_value("SELECT CONNECTION_ID()"))

    def later() -> Any:
        yield io.pause(0.05)
        yield client.query("SELECT 1")

    def close_soon() -> Any:
        yield io.pause(0.15)
        yield client.close_pool()

    outcomes = io.concurrently(
        [
            lambda: client.query_value("SELECT SLEEP(0.4)"),
            io.function(later),
            io.function(close_soon),
        ],
    )
    assert outcomes[0] == 0, "work in progress ends well"
    assert isinstance(outcomes[1], ServiceNotOpen)
    io.wait_for(lambda: alive(databases, [first]) == 0)


def test_a_closed_pool_stays_closed_until_its_client_opens_another(
    make_client: Callable[..., Any], io: IO
) -> None:
    client = make_client()
    io(client.init_pool())
    io(client.close_pool())
    closed = client.pool
    with pytest.raises(ServiceNotOpen):
        io(client.query("SELECT 1"))
    with pytest.raises(ServiceNotOpen):
        io(closed.open())
    io(client.init_pool())
    assert io(client.query_value("SELECT 1")) == 1
    assert closed.closed


@pytest.mark.slow
def test_a_borrowed_connection_that_was_forgotten_comes_back(
    make_client: Callable[..., Any], io: IO, databases: Databases
) -> None:
    client = make_client(pool_size=1, max_overflow=0, pool_timeout=2.0)
    forgotten = io.awaited(client.get_connection())
    thread_id = forgotten.thread_id()
    del forgotten
    gc.collect()
    assert io(client.query_value("SELECT 1")) == 1
    io.wait_for(lambda: alive(databases, [thread_id]) == 0)


def test_a_forgotten_connection_may_be_collected_while_the_pool_is_locked(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = dualdb.MySQLClient(databases.config_of(1, pool_size=1, max_overflow=0))
    forgotten: Any = [client.connection()]
    forgotten.append(forgotten)
    earn = client.pool.retry_budget.earn

    def collect() -> None:
        gc.collect()
        earn()

    monkeypatch.setattr(client.pool.retry_budget, "earn", collect)
    answers: List[Any] = []
    del forgotten
    asking = threading.Thread(
        target=lambda: answers.append(client.query_value("SELECT 7")), daemon=True
    )
    asking.start()
    asking.join(10)
    assert answers == [7]
    client.close_pool()


def test_an_exception_that_comes_just_as_a_command_ends_poisons_no_connection(
    make_client: Callable[..., Any], io: IO
) -> None:
    client = make_client(pool_size=1, max_overflow=0)
    for _ in range(2):
        raw = io.awaited(client.pool.checkout())
        raw._in_use.acquire()  # and nobody gave it back
        client.pool.release(raw)
        assert io(client.query_value("SELECT 7")) == 7


def test_a_password_is_what_the_server_was_given_in_utf_8(databases: Databases, io: IO) -> None:
    password, database = "pässwörd-비밀", databases.config_of(1).database
    databases.run(
        1, "DROP USER IF EXISTS dualdb_utf8", f"CREATE USER dualdb_utf8 IDENTIFIED BY '{password}'"
    )
    databases.run(1, f"GRANT SELECT ON {database}.* TO dualdb_utf8")
    client = io.Client(databases.config_of(1, user="dualdb_utf8", password=password))
    assert io(client.query_value("SELECT CURRENT_USER()")) == "dualdb_utf8@%"
    io(client.close_pool())
    databases.run(1, "DROP USER dualdb_utf8")


@pytest.mark.slow
def test_a_connect_in_progress_delays_no_one_else(
    io: IO, databases: Databases, make_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One caller hangs in a connect; another's connection comes back and is used
    meanwhile.
    """
    client = make_client(pool_size=2)
    io(client.query("SELECT 1"))
    pool = client.pool
    original = type(pool)._connect
    order: List[str] = []

    def slow_in_threads(self: Any, *args: Any) -> Any:
        time.sleep(0.5)
        order.append("connected")
        return original(self, *args)

    async def slow_in_tasks(self: Any, *args: Any) -> Any:
        await asyncio.sleep(0.5)
        order.append("connected")
        return await original(self, *args)

    monkeypatch.setattr(
        type(pool), "_connect", slow_in_threads if io.name == "sync" else slow_in_tasks
    )

    def quick() -> Any:
        yield io.pause(0.3)
        yield client.query("SELECT 1")
        order.append("served")

    io.concurrently(
        [
            lambda: client.query("SELECT SLEEP(0.2)"),
            lambda: client.query("SELECT SLEEP(0.1)"),
            io.function(quick),
        ]
    )
    assert order == ["served", "connected"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"password": "wrong"}, 1045),
        ({"database": "nowhere"}, (1044, 1049)),
        ({"host": "127.0.0.1", "port": 1}, 2003),
        ({"host": "a..b"}, 2003),
    ],
)
def test_a_failed_connect_is_an_error_with_its_code(
    databases: Databases, io: IO, changes: Any, code: Any, quick_retries: None
) -> None:
    config = dualdb.DatabaseConfig(**{**plain(databases.config), **changes})
    service = io.Service(config)
    with pytest.raises(ConnectionFailed) as caught:
        io(service.init_service())
    assert caught.value.errno == code or caught.value.errno in code
    assert (caught.value.target, caught.value.sent) == ("global", False)
    assert service.global_client is None
    assert config.reveal_password() not in str(caught.value) or config.reveal_password() == "wrong"


def plain(config: dualdb.DatabaseConfig) -> Any:
    return {**config.model_dump(), "password": config.reveal_password()}


def test_secrets_are_in_no_log(
    databases: Databases, io: IO, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        service = io.Service(databases.config)
        with io.entered(service):
            io(service.query("SELECT %s", ("a parameter",)))
            with pytest.raises(dualdb.Error):
                io(service.query("SELEC %s", ("a parameter",)))
    assert "global database initialized" in caplog.text
    assert databases.config.reveal_password() not in caplog.text


def test_an_async_service_says_that_it_belongs_to_another_loop(databases: Databases) -> None:
    service = dualdb.AsyncDatabaseService(databases.config)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(service.init_service())
    with pytest.raises(InterfaceError, match="belong to another event loop"):
        asyncio.run(service.query("SELECT 1"))
    loop.run_until_complete(service.close_service())
    loop.close()

    async def reopened() -> Any:
        async with service:
            return await service.query_value("SELECT 1")

    assert asyncio.run(reopened()) == 1


def test_a_service_goes_on_in_another_loop_when_its_own_is_gone(databases: Databases) -> None:
    service = dualdb.AsyncDatabaseService(
        databases.config_of("global", pool_size=2, max_overflow=0)
    )

    async def first() -> Any:
        await service.init_service()
        return await asyncio.gather(*[service.query_value("SELECT 1") for _ in range(4)])

    async def second() -> Any:
        found = await asyncio.gather(*[service.shard(1).query_value("SELECT 2") for _ in range(4)])
        await service.close_service()
        return found

    with warnings.catch_warnings():
        # of asyncio, about transports that outlived their loop
        warnings.simplefilter("ignore", ResourceWarning)
        assert asyncio.run(first()) == [1] * 4
        assert asyncio.run(second()) == [2] * 4
        gc.collect()


def test_a_service_can_be_closed_after_its_loop_is_gone(databases: Databases) -> None:
    service = dualdb.AsyncDatabaseService(databases.config)

    async def use() -> Any:
        await service.init_service()
        return await service.query_value("SELECT CONNECTION_ID()")

    loop = asyncio.new_event_loop()
    session_id = loop.run_until_complete(use())
    loop.close()
    with warnings.catch_warnings():
        # of asyncio, about transports that outlived their loop
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.run(service.close_service())
        gc.collect()
    gone = f"SELECT COUNT(*) FROM information_schema.processlist WHERE id = {session_id}"
    deadline = time.monotonic() + 2
    while databases.value("global", gone) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert databases.value("global", gone) == 0


@pytest.mark.slow
def test_a_cancelled_call_leaves_no_half_read_connection(databases: Databases) -> None:
    async def cancel_and_ask() -> List[Any]:
        client = dualdb.AsyncMySQLClient(databases.config_of(1, pool_size=2, max_overflow=0))
        rows = []
        for pause in range(30):
            task = asyncio.get_running_loop().create_task(
                client.query("SELECT 'wrong' AS tag, SLEEP(0.02)")
            )
            await asyncio.sleep(pause / 1000)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            rows += await asyncio.gather(
                *[client.query_value("SELECT %s", (tag,)) for tag in range(4)]
            )
        await client.close_pool()
        return rows

    assert asyncio.run(cancel_and_ask()) == [0, 1, 2, 3] * 30


def test_cancelled_waiters_lose_no_slot(databases: Databases) -> None:
    async def wait_and_go() -> Any:
        client = dualdb.AsyncMySQLClient(databases.config_of(1, pool_size=1, max_overflow=0))
        async with client.transaction():
            tasks = [
                asyncio.get_running_loop().create_task(client.query("SELECT 1")) for _ in range(5)
            ]
            await asyncio.sleep(0.01)
            for task in tasks[:4]:
                task.cancel()
        assert await tasks[4] == [{"1": 1}]
        figures = client.pool._slots.in_use, client.pool._slots.waiting
        await client.close_pool()
        return figures

    assert asyncio.run(wait_and_go()) == (0, 0)


def test_a_session_that_is_lost_while_it_is_reset_is_opened_anew(
    databases: Databases, io: IO
) -> None:
    client = io.Client(databases.config_of(1, pool_size=1, max_overflow=0))
    with io.entered(client.transaction()) as tx:
        io(tx.execute("SET @left_behind = 1"))
        raw = block_of(tx).begun.connection
    assert raw.resetting
    raw.abort()
    assert io(client.query_one("SELECT 7 AS n, @left_behind AS v")) == {"n": 7, "v": None}
    io(client.close_pool())


KEEPS = ["SET @left_behind = 7", "DO GET_LOCK('left_behind', 0)"]


@pytest.mark.parametrize("does", KEEPS)
def test_what_a_stored_function_leaves_behind_is_nobody_else_s(
    databases: Databases, io: IO, does: str
) -> None:
    databases.run(
        1,
        "DROP FUNCTION IF EXISTS leave_it",
        f"CREATE FUNCTION leave_it() RETURNS INT NO SQL BEGIN {does}; RETURN 1; END",
    )
    client = io.Client(databases.config_of(1, pool_size=1, max_overflow=0))
    assert io(client.query_value("SELECT leave_it()")) == 1
    assert io(client.query_one("SELECT @left_behind AS v, IS_FREE_LOCK('left_behind') AS f")) == {
        "v": None,
        "f": 1,
    }
    assert client.stats().opened == 1
    assert io(client.query_value("SELECT LAST_INSERT_ID(77)")) == 77
    assert io(client.query_value("SELECT LAST_INSERT_ID()")) == 0
    io(client.close_pool())


def test_nothing_of_a_role_or_of_warnings_reaches_the_next_borrower(
    make_client: Callable[..., Any], io: IO, databases: Databases
) -> None:
    databases.run(1, "DROP ROLE IF EXISTS borrowed", "CREATE ROLE borrowed")
    user = databases.config_of(1).user
    databases.run(1, f"GRANT borrowed TO '{user}'@'%'")
    client = make_client(pool_size=1, max_overflow=0)
    before = io(client.query_value("SELECT CURRENT_ROLE()"))
    io(client.execute("SET ROLE borrowed"))
    assert io(client.query_value("SELECT CURRENT_ROLE()")) == before
    io(client.query("SELECT CAST('secret' AS SIGNED)"))
    assert io(client.query("SHOW WARNINGS")) == []
    with pytest.raises(dualdb.Error):
        io(client.query("SELECT secret()"))
    assert io(client.query("SHOW ERRORS")) == []
    with pytest.raises(dualdb.Error), io.entered(client.transaction()) as tx:
        io(tx.query("SELECT secret()"))
    assert io(client.query("SHOW WARNINGS")) == []


PREPARED = (
    "PREPARE altering FROM 'SET NAMES gbk'",
    "EXECUTE altering",
)


def test_no_parameter_is_bound_after_the_character_set_has_changed(
    make_client: Callable[..., Any], io: IO, databases: Databases
) -> None:
    client = make_client(pool_size=1, max_overflow=0)
    hostile = "€' OR 1=1 -- "

    def change_and_ask(names: Any) -> None:
        with io.entered(client.transaction()) as tx:
            names(tx)
            io(tx.query("SELECT id FROM trades WHERE symbol = %s", (hostile,)))

    with pytest.raises(InterfaceError, match="charset"):
        change_and_ask(lambda tx: io(tx.execute("SET NAMES gbk")))
    with pytest.raises(dualdb.TransactionAborted, match="character set"):
        change_and_ask(lambda tx: [io(tx.execute(sql)) for sql in PREPARED])
    assert io(client.query_value("SELECT @@character_set_client")) == "utf8mb4"
    with pytest.raises(InterfaceError, match="charset"):
        io(client.executemany("SET NAMES %s", [("gbk",)]))


#: Change the character set and fail, so that no OK packet says so.
CHANGING_AND_FAILING = [
    "BEGIN NOT ATOMIC EXECUTE IMMEDIATE 'SET NAMES gbk'; SIGNAL SQLSTATE '45000'; END",
    "BEGIN NOT ATOMIC EXECUTE IMMEDIATE 'SET NAMES gbk'; SELECT nothing; END",
    "CALL names_and_fail()",
]


#: How it is sent inside a transaction.
SENDERS = {
    "called": lambda io, tx, sql: io(tx.execute(sql)),
    "streamed": lambda io, tx, sql: io.collect(tx.stream(sql)),
    "cursor": lambda io, tx, sql: io.awaited(io.awaited(tx.cursor()).execute(sql)),
}


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("statement", CHANGING_AND_FAILING)
def test_a_parameter_stays_a_value_after_a_program_changed_the_character_set_and_failed(
    make_client: Callable[..., Any], io: IO, databases: Databases, statement: str, sender: str
) -> None:
    databases.run(
        1,
        "DROP PROCEDURE IF EXISTS names_and_fail",
        "CREATE PROCEDURE names_and_fail() BEGIN SET NAMES gbk; SIGNAL SQLSTATE '45000'; END",
    )
    text = "\u7e17' OR 1=1 -- "  # in gbk the backslash before the quote is part of a character
    client = make_client(pool_size=1, max_overflow=0)
    with io.entered(client.transaction()) as tx:
        with pytest.raises((dualdb.Error, pymysql.err.MySQLError)):
            SENDERS[sender](io, tx, statement)
        assert io(tx.query("SELECT 1 FROM DUAL WHERE '1' = %s", (text,))) == []
        assert io(tx.query_value("SELECT %s", (text,))) == text
        assert io(tx.query_value("SELECT @@character_set_results")) == "utf8mb4"


def test_a_session_says_what_the_configuration_asks_for(
    make_client: Callable[..., Any], io: IO, databases: Databases
) -> None:
    client = make_client(
        pool_size=1,
        max_overflow=0,
        init_command="SET @own = 7",
        time_zone="+03:00",
        sql_mode="STRICT_ALL_TABLES",
        isolation="READ COMMITTED",
    )
    maria = "maria" in str(io(client.query_value("SELECT VERSION()"))).lower()
    name = "tx_isolation" if maria else "transaction_isolation"
    expected = [
        {"own": 7, "zone": "+03:00", "mode": "STRICT_ALL_TABLES", "level": "READ-COMMITTED"}
    ]
    for _ in range(2):
        found = io(
            client.query(
                f"SELECT @own AS own, @@time_zone AS zone, @@sql_mode AS mode, @@{name} AS level"
            )
        )
        assert found == expected
        io(client.execute("SET @own = 1, time_zone = '+01:00', sql_mode = ''"))


def test_a_lock_of_a_view_s_function_goes_where_every_session_is_reset(
    make_client: Callable[..., Any], io: IO, databases: Databases
) -> None:
    databases.run(
        1,
        "DROP FUNCTION IF EXISTS lock_it",
        "CREATE FUNCTION lock_it() RETURNS INT NO SQL "
        "BEGIN DO GET_LOCK('left_behind', 0); SET @left_behind = 1; RETURN 1; END",
        "CREATE OR REPLACE VIEW locking AS SELECT lock_it() AS n",
    )
    client = make_client(pool_size=1, max_overflow=0, reset="always")
    assert io(client.query_value("SELECT n FROM locking")) == 1
    left = io(client.query_one("SELECT @left_behind AS v, IS_FREE_LOCK('left_behind') AS f"))
    assert left == {"v": None, "f": 1}
    assert client.stats().opened == 1


@pytest.mark.slow
def test_a_session_without_its_lock_is_given_up_and_its_slot_comes_back(
    make_client: Callable[..., Any], io: IO, databases: Databases
) -> None:
    client = make_client(pool_size=1, max_overflow=0, pool_timeout=10.0)
    with pytest.raises(dualdb.Error), io.entered(client.transaction()) as tx:
        assert io(tx.query_value("SELECT RELEASE_ALL_LOCKS()")) >= 1
        io(tx.query("SELECT SLEEP(20)", timeout=0.2))
    assert io(client.query_value("SELECT 7")) == 7
    assert client.stats().in_use == 0


def test_a_new_connection_imports_nothing(make_client: Any, io: IO) -> None:
    """The import lock may be held by anybody, and for as long as they like."""

    asked: List[str] = []

    class Finder:
        def find_spec(self, name: str, path: Any, target: Any = None) -> None:
            asked.append(name)

    client = make_client()
    assert io(client.query_value("SELECT 1")) == 1
    io(client.close_pool())
    client, finder = make_client(), Finder()
    sys.meta_path.insert(0, finder)
    try:
        assert io(client.query_value("SELECT 2")) == 2
    finally:
        sys.meta_path.remove(finder)
    assert asked == []
