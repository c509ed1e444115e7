"""Databases without servers: what is scripted, and the conformance tests of routing and
of the original service's methods, run on them.
"""

import datetime
import importlib.util
import pathlib
from decimal import Decimal
from typing import Any, Iterator

import pytest
from sqlite_databases import SqliteDatabases

import dualdb
from dualdb import DatabaseService
from dualdb.testing import Done, FakeRouter, Rows, Sets

CONFORMANCE = pathlib.Path(__file__).parents[1] / "conformance"

#: Tests of what a server does and not the service.
OF_SERVERS = {
    "test_a_borrowed_connection_is_the_driver_s_and_comes_back",  # a session's variables
    "test_a_shard_table_that_cannot_be_read_is_no_empty_one",  # it drops a primary key
}


@pytest.fixture(scope="module")
def sqlite() -> Iterator[SqliteDatabases]:
    with SqliteDatabases() as made:
        yield made


@pytest.fixture
def databases(sqlite: SqliteDatabases) -> SqliteDatabases:
    """In place of the databases on servers."""
    sqlite.reset()
    return sqlite


def _adopt(name: str) -> int:
    """Make the tests and fixtures of a conformance module ones of this module."""
    spec = importlib.util.spec_from_file_location(f"{name}_on_fakes", CONFORMANCE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = {
        key: value
        for key, value in vars(module).items()
        if (key.startswith("test_") and key not in OF_SERVERS)
        or type(value).__name__ == "FixtureFunctionDefinition"
    }
    globals().update(found)
    return len(found)


ADOPTED = [_adopt(name) for name in ("test_routing", "test_legacy")]


def test_the_conformance_tests_are_here() -> None:
    assert min(ADOPTED) > 10


@pytest.fixture
def fake() -> Iterator[FakeRouter]:
    with FakeRouter(2) as made:
        yield made


@pytest.fixture
def service(fake: FakeRouter) -> Iterator[DatabaseService]:
    with DatabaseService(fake.config) as made:
        yield made


def test_values_come_as_they_were_scripted(fake: Any, service: Any) -> None:
    row = {
        "a": 7,
        "b": "größe",
        "c": b"\x00\xff",
        "d": Decimal("1.50"),
        "e": 0.5,
        "f": datetime.datetime(2024, 2, 29, 1, 2, 3, 4),
        "g": datetime.date(2024, 2, 29),
        "h": -datetime.timedelta(hours=30, microseconds=5),
        "i": None,
    }
    fake.on("FROM trades", [row, dict.fromkeys(row)], database=2)
    assert service.shard(2).query("SELECT * FROM trades") == [row, dict.fromkeys(row)]
    fake.on("FROM trades", Rows(["a"]), database=2)
    assert service.shard(2).query("SELECT * FROM trades") == []
    fake.on("big", [{"x": "y" * 20_000_000}])
    assert len(service.query_value("SELECT big")) == 20_000_000


def test_the_last_script_counts_and_functions_are_called(fake: Any, service: Any) -> None:
    fake.on("UPDATE", 3)
    fake.on("INSERT", lambda call: Done(1, 70 + call.database))
    assert service.shard(1).execute("UPDATE t SET a = 1") == 3
    assert service.shard(2).execute("INSERT INTO t VALUES (1)").lastrowid == 72
    fake.on("CALL totals", Sets([[{"a": 1}], [{"b": 2}]]))
    assert service.call("totals", (1,)).rows == [{"a": 1}, {"b": 2}]
    fake.on("UPDATE", 4, database=1)
    found = service.shards().execute("UPDATE t SET a = 1")
    assert found.by_shard == {1: 4, 2: 3}


def test_statements_are_recorded(fake: Any, service: Any) -> None:
    fake.on("INSERT", 1)
    with service.shard(1).transaction() as tx:
        tx.execute("INSERT INTO t VALUES (%s)", ("it's",))
    assert fake.statements(1) == ["BEGIN", "INSERT INTO t VALUES ('it\\'s')", "COMMIT"]
    assert fake.statements(2) == []


def test_errors_are_those_of_a_server(fake: Any, service: Any) -> None:
    with pytest.raises(dualdb.OperationalError, match="no answer is scripted for: SELECT 2"):
        service.query("SELECT 2")
    fake.on("UPDATE", dualdb.Deadlock(1213, "Deadlock found"))
    with pytest.raises(dualdb.Deadlock) as caught:
        service.shard(2).execute("UPDATE t SET a = 1")
    assert caught.value.shard_id == 2
    fake.on("SELECT 3", lambda call: 1 / 0)
    with pytest.raises(dualdb.OperationalError, match="the script failed: ZeroDivisionError"):
        service.query("SELECT 3")


def test_run_repeats_a_deadlock(fake: Any, service: Any) -> None:
    answers = iter([dualdb.Deadlock(1213, "Deadlock found"), 1])
    fake.on("UPDATE", lambda call: next(answers))
    assert service.shard(1).run(lambda tx: tx.execute("UPDATE t SET a = 1")) == 1
    assert fake.statements(1).count("BEGIN") == 2


def test_shards_go_away_and_come_back(fake: Any, service: Any) -> None:
    fake.on("SELECT 5", [{"a": 5}])
    fake.set_status(1, "maintenance")
    service.refresh()
    with pytest.raises(dualdb.ShardUnavailable, match="maintenance"):
        service.shard(1).query("SELECT 5")
    fake.take_down(2)
    with pytest.raises(dualdb.ShardUnavailable):
        service.shard(2).query("SELECT 5")
    fake.bring_up(2)
    fake.set_status(1, "active")
    with DatabaseService(fake.config) as again:
        assert again.shards().query_value("SELECT 5").values == [5, 5]


def test_a_service_opens_in_silence(fake: Any, caplog: pytest.LogCaptureFixture) -> None:
    with DatabaseService(fake.config) as opened:
        assert opened.shard(1).name == "shard 1"
    assert caplog.messages == []
