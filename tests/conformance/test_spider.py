"""A Spider head over the shards, and databases that are queried by name."""

import os
import tempfile
from typing import Any, Callable, Iterator

import pytest
from database_servers import Databases
from io_kinds import IO
from waiting import wait_for

from dualdb import Count, DatabaseConfig, ParameterError, ReadOnlyTargetError, ServiceNotOpen, Sum
from dualdb.sandbox.server import Engine, Server

PLUGIN = "/usr/lib/mysql/plugin/ha_spider.so"
TOTALS = "SELECT symbol, COUNT(*) AS n, SUM(qty) AS qty FROM trades GROUP BY symbol"
ROWS = "SELECT user_id, symbol, qty FROM trades"
ORDER = "user_id, symbol, qty"


@pytest.fixture(scope="module")
def head() -> Iterator[Server]:
    engine = Engine()
    if not engine.is_mariadb or not os.path.exists(PLUGIN):
        raise RuntimeError(
            "these tests need MariaDB with Spider (Debian and Ubuntu: apt-get install "
            "mariadb-server mariadb-plugin-spider)"
        )
    with tempfile.TemporaryDirectory(prefix="dualdb-spider-") as directory:
        server = Server(engine, "head", directory, ["--plugin-load-add=ha_spider.so"])
        engine.prepare(f"{directory}/data")
        server.start()
        try:
            server.run(
                "CREATE USER reader@'%' IDENTIFIED BY 'r'", "GRANT SELECT ON *.* TO reader@'%'"
            )
            yield server
        finally:
            server.stop()


@pytest.fixture
def analytics(head: Server) -> Iterator[DatabaseConfig]:
    head.run("CREATE DATABASE app")
    yield DatabaseConfig(
        host="127.0.0.1", port=head.port, database="app", user="reader", password="r",
        engine="spider",
    )  # fmt: skip
    names = [each["Server_name"] for each in head.run("SELECT Server_name FROM mysql.servers")]
    head.run("DROP DATABASE app", *[f"DROP SERVER `{name}`" for name in names])


def fill(databases: Databases) -> None:
    for shard_id in databases.ids:
        values = ", ".join(
            f"({shard_id}, '{symbol}', {shard_id * 10 + number})"
            for number in range(20)
            for symbol in ("A", "É", f"only {shard_id}")
        )
        databases.run(shard_id, f"INSERT INTO trades (user_id, symbol, qty) VALUES {values}")


@pytest.mark.slow
@pytest.mark.parametrize("by", [None, "user_id"])
def test_a_head_gives_what_scatters_give(
    databases: Databases,
    head: Server,
    analytics: DatabaseConfig,
    open_service: Callable[..., Any],
    io: IO,
    by: Any,
) -> None:
    fill(databases)
    db = open_service(engines={"analytics": analytics})
    report = io(db.operations.spider_ddl(["trades"], by=by, passwords=True))
    head.run(*report.statements, database="app")
    engine = db.engine("analytics")

    merged = io.collect(db.shards().merge(ROWS, order_by=ORDER))
    assert io(engine.query(f"{ROWS} ORDER BY {ORDER}")) == merged
    assert len(merged) == 120
    totals = io(
        db.shards().aggregate(
            "SELECT symbol, qty FROM trades", group_by="symbol", n=Count(), qty=Sum("qty")
        )
    )
    rows = io(engine.query(TOTALS))
    assert len(rows) == 4
    assert sorted(rows, key=repr) == sorted(totals, key=repr)
    assert io(engine.query_value("SELECT COUNT(*) FROM trades WHERE user_id = 2")) == 60


def test_a_write_is_not_sent(
    databases: Databases, open_service: Callable[..., Any], io: IO
) -> None:
    db = open_service(engines={"shard": databases.config_of(1)})
    engine = db.engine("shard")
    insert = "INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1)"
    with pytest.raises(ReadOnlyTargetError) as refused:
        io(engine.execute(insert))
    assert not refused.value.sent
    with pytest.raises(ReadOnlyTargetError):
        io(engine.query(f"{insert} RETURNING id"))
    with io.entered(engine.transaction()) as tx, pytest.raises(ReadOnlyTargetError):
        io(tx.execute(insert))
    assert io(engine.query_value("SELECT COUNT(*) FROM trades")) == 0
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == 0


def test_it_is_closed_and_opened_with_the_service(
    databases: Databases, open_service: Callable[..., Any], io: IO
) -> None:
    db = open_service(engines={"shard": databases.config_of(1)})
    asked = "SELECT CONNECTION_ID()"
    first = io(db.engine("shard").query_value(asked))
    io(db.close_service())
    with pytest.raises(ServiceNotOpen):
        io(db.engine("shard").query_value(asked))
    gone = f"SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {first}"
    wait_for(lambda: databases.value(1, gone) == 0)
    io(db.init_service())
    assert io(db.engine("shard").query_value(asked)) != first


def test_an_engine_that_is_down_hinders_nothing_else(
    databases: Databases, open_service: Callable[..., Any], io: IO
) -> None:
    db = open_service(engines={"down": databases.config_of(1, host="127.0.0.1", port=1)})
    assert io(db.query_value("SELECT 1")) == 1
    with pytest.raises(ParameterError, match="no engine 'other'; engines= has down"):
        db.engine("other")


def test_engines_are_configurations_by_name(io: IO, databases: Databases) -> None:
    with pytest.raises(TypeError, match="engines must be DatabaseConfigs by name"):
        io.Service(databases.config, engines={"analytics": "mysql://u@h/db"})
