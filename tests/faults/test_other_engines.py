"""Engines that are not MySQL or MariaDB: what is sent to them, what is refused before,
and how their errors are handled.
"""

from typing import Any, Callable, Iterator

import pytest
from engine_doubles import TIDB, VITESS, Double
from io_kinds import IO

from dualdb import (
    DatabaseConfig,
    DeadlineExceeded,
    Deadlock,
    NotSupportedByEngine,
    OperationalError,
    Out,
)

ENGINES = {"tidb": TIDB, "vitess": VITESS}


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def double(engine: str) -> Iterator[Double]:
    with Double(ENGINES[engine]) as server:
        yield server


@pytest.fixture
def open_client(double: Double, io: IO) -> Iterator[Callable[..., Any]]:
    made = []

    def open_one(**changes: Any) -> Any:
        config = DatabaseConfig(
            host="127.0.0.1", port=double.port, database="d", user="u", password="p", **changes
        )
        made.append(io.Client(config))
        return made[-1]

    yield open_one
    for client in made:
        io(client.close_pool())


def test_a_session_is_set_up_by_what_the_engine_knows(
    engine: str, double: Double, open_client: Callable[..., Any], io: IO
) -> None:
    client = open_client(time_zone="+00:00", isolation="READ COMMITTED")
    assert io(client.query_value("SELECT 1")) == 1
    first = double.sent[0]
    assert first == (
        "SET NAMES utf8mb4, autocommit=1, time_zone='+00:00', "
        "transaction_isolation='READ-COMMITTED'"
    )
    assert client.pool.endpoints.all[0].node.profile.name == engine


def test_an_engine_behind_a_proxy_is_set(open_client: Callable[..., Any], io: IO) -> None:
    client = open_client(engine="proxysql")
    assert io(client.query_value("SELECT 1")) == 1
    assert client.pool.endpoints.all[0].node.profile.name == "proxysql"


def test_transactions_and_savepoints(
    double: Double, open_client: Callable[..., Any], io: IO
) -> None:
    client = open_client()
    with io.entered(client.transaction()) as tx:
        io(tx.execute("INSERT INTO t VALUES (1)"))
        with io.entered(tx.transaction()) as inner:
            io(inner.execute("INSERT INTO t VALUES (2)"))
    assert double.sent[-6:] == [
        "BEGIN",
        "INSERT INTO t VALUES (1)",
        "SAVEPOINT `dualdb_1`",
        "INSERT INTO t VALUES (2)",
        "RELEASE SAVEPOINT `dualdb_1`",
        "COMMIT",
    ]


@pytest.mark.parametrize("place", ["alone", "in a transaction"])
def test_what_the_engine_cannot_do_is_refused_before_anything_is_sent(
    engine: str, double: Double, open_client: Callable[..., Any], io: IO, place: str
) -> None:
    client = open_client()
    io(client.init_pool())
    params = (1,) if engine == "tidb" else (1, Out("total"))
    feature = "procedures" if engine == "tidb" else "out_parameters"
    with pytest.raises(NotSupportedByEngine) as caught:
        if place == "alone":
            io(client.call("report", params))
        else:
            with io.entered(client.transaction()) as tx:
                io(tx.call("report", params))
    error = caught.value
    assert (error.feature, error.engine, error.sent) == (feature, engine, False)
    assert error.target == client.name
    assert not [text for text in double.sent if "report" in text or "SAVEPOINT" in text]


def test_a_procedure_that_is_called_by_sql_is_refused_too(
    engine: str, double: Double, open_client: Callable[..., Any], io: IO
) -> None:
    client = open_client()
    if engine == "vitess":
        io(client.execute("CALL report(1)"))
        return
    with pytest.raises(NotSupportedByEngine):
        io(client.execute("CALL report(1)"))
    assert "CALL report(1)" not in double.sent


def test_a_lock(engine: str, double: Double, open_client: Callable[..., Any], io: IO) -> None:
    client = open_client()
    lock = client.lock("mine", timeout=0)
    if engine == "tidb":
        with io.entered(lock):
            assert [text for text in double.sent if "GET_LOCK('mine'" in text]
        return
    with pytest.raises(NotSupportedByEngine) as caught:
        io.entered(lock).__enter__()
    assert (caught.value.feature, caught.value.engine) == ("get_lock", "vitess")
    assert not [text for text in double.sent if "LOCK" in text]
    assert client.stats().in_use == 0


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (9007, Deadlock),
        (8022, Deadlock),
        (8028, Deadlock),
        (8002, Deadlock),
        (9001, OperationalError),
    ],
)
def test_conflicts_of_tidb_are_repeated_by_run(
    engine: str, double: Double, open_client: Callable[..., Any], io: IO, code: int, kind: Any
) -> None:
    statement = "UPDATE t SET a = 1"
    double.errors[statement] = [code]
    client = open_client()
    with pytest.raises(kind) as caught:
        io(client.execute(statement))
    assert caught.value.retryable
    if kind is not Deadlock:
        return
    double.errors[statement] = [code]

    def body(tx: Any) -> Any:
        yield tx.execute(statement)

    io(client.run(io.function(body)))
    assert double.sent.count(statement) == 3


def test_no_kill_is_sent_where_its_session_cannot_be_proven(
    double: Double, open_client: Callable[..., Any], io: IO
) -> None:
    """The connection is closed, which ends its statement, and its slot is free."""
    client = open_client(pool_size=1, max_overflow=0)
    double.hangs.append("SELECT SLEEP(60)")
    with pytest.raises(DeadlineExceeded):
        io(client.query("SELECT SLEEP(60)", timeout=0.2))
    io.wait_for(lambda: client.stats().in_use == 0)
    assert io(client.query_value("SELECT 1")) == 1
    assert not [text for text in double.sent if text.startswith("KILL")]
    assert double.closed_by_peer >= 1
