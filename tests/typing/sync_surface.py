"""What a type checker sees of the threaded interface. Checked, never run."""

import datetime
from dataclasses import dataclass
from typing import Any, AsyncIterator, Dict, List, Mapping, NamedTuple, Optional, Tuple

import polars
from pydantic import BaseModel
from sqlalchemy import Engine
from typing_extensions import TypedDict, assert_type

from dualdb import (
    Avg,
    CallResult,
    Count,
    DatabaseConfig,
    DatabaseService,
    DigestStats,
    DrainReport,
    Error,
    Event,
    HealthReport,
    InOut,
    Max,
    Min,
    MySQLClient,
    Out,
    OutboxEvent,
    PoolStats,
    QueryCall,
    QueryEvent,
    ReplicaStatus,
    RouteExplanation,
    RouteReason,
    Row,
    RowCount,
    ScatterResult,
    ServiceStats,
    ServiceStatus,
    ShardStatus,
    Sum,
)
from dualdb.coordination import XaList, XaRecovery
from dualdb.coordination.outbox_reports import (
    ConsumeReport,
    DeadEvents,
    EventCount,
    OutboxStatus,
)
from dualdb.deadlines import Deadline
from dualdb.integrations.dataframes import ArrowBatches
from dualdb.operations import (
    DoctorReport,
    Job,
    MigrationRun,
    MoveReport,
    RebalancePlan,
    SqlReport,
    TenantTable,
)
from dualdb.sync_impl import (
    Directory,
    DistributedTransaction,
    Ids,
    Lock,
    Merge,
    Scatter,
    ScatterReader,
    Scope,
    Stream,
    Target,
    Transaction,
)
from dualdb.sync_impl.borrowed_connection import BorrowedConnection
from dualdb.sync_impl.coordination import PartTransaction


def service(db: DatabaseService, client_session: object) -> None:
    assert_type(db.init_service(), None)
    assert_type(db.close_service(), None)
    assert_type(db.close_service(timeout=5), None)
    assert_type(db.refresh(), None)
    assert_type(db.status(), ServiceStatus)
    assert_type(db.status().shards, Mapping[int, ShardStatus])
    assert_type(db.add_shard(3, host="h", database="d", user="u", password="env:P"), None)
    assert_type(db.set_shard_status(3, "readonly"), None)
    assert_type(db.drain_shard(3, timeout=5), DrainReport)
    assert_type(db.remove_shard(3), None)
    db.on("shard_added", lambda event: event.after)
    db.on("shard_add", lambda event: event.after)  # type: ignore[call-overload]
    assert_type(db.stats(), ServiceStats)
    assert_type(db.stats()[1], PoolStats)
    with db.deadline(1.5) as deadline:
        assert_type(deadline, Deadline)
    assert_type(db.load_shard_configs(), None)
    assert_type(db.init_shard_connections(), None)
    assert_type(db.global_config, DatabaseConfig)
    assert_type(db.global_client, Optional[MySQLClient])
    assert_type(db.shard_clients, Dict[int, MySQLClient])
    assert_type(db.shard_configs, Dict[int, DatabaseConfig])
    assert_type(db.get_global_client(), MySQLClient)
    assert_type(db.get_shard_client(1), Optional[MySQLClient])
    assert_type(db.get_client_by_session(client_session), MySQLClient)
    assert_type(db.call_global_procedure("p", (1,)), List[Row])
    assert_type(db.execute_global_query("q", (1,)), List[Row])
    assert_type(db.call_global_procedure_update("q", (1,)), RowCount)
    assert_type(db.call_global_read_query("q", (1,)), List[Row])
    assert_type(db.call_shard_procedure(1, "p", (1,)), List[Row])
    assert_type(db.execute_shard_procedure(1, "p", (1,)), List[Row])
    assert_type(db.execute_shard_query(1, "q", (1,)), List[Row])
    assert_type(db.call_shard_procedure_update(1, "q", (1,)), RowCount)
    assert_type(db.call_shard_read_query(1, "q", (1,)), List[Row])
    assert_type(db.call_procedure_by_session(client_session, "p", (1,)), List[Row])
    assert_type(db.execute_query_by_session(client_session, "q", (1,)), List[Row])
    assert_type(db.call_stored_procedure("p", (1,)), List[Row])
    assert_type(db.call_procedure("p", (1,)), List[Row])
    assert_type(db.execute_query("q", (1,)), List[Row])
    assert_type(db.execute_non_query("q", (1,)), RowCount)
    assert_type(db.get_last_insert_id(), int)
    assert_type(db.get_active_shard_ids(), List[int])
    assert_type(db.get_transaction(), Transaction)
    assert_type(db.health_check(), Dict[str, Any])
    assert_type(db.shard(1), Target)
    assert_type(db.key("ann"), Target)
    assert_type(db.session(client_session), Target)
    with db as opened:
        assert_type(opened, DatabaseService)


def scatter(db: DatabaseService) -> None:
    assert_type(db.shards(), Scatter)
    some = db.shards([1, 3], on_error="partial", min_ok=1, max_concurrency=4)
    rows = some.query("q", (1,))
    assert_type(rows, ScatterResult[List[Row], Row])
    assert_type(rows.by_shard, Mapping[int, List[Row]])
    assert_type(rows.rows, List[Row])
    assert_type(rows.errors, Mapping[int, Error])
    trades = some.query("q", as_=Point, max_rows=5)
    assert_type(trades, ScatterResult[List[Point], Point])
    assert_type(trades.rows, List[Point])
    assert_type(some.query_one("q", strict=True), ScatterResult[Optional[Row]])
    assert_type((some.query_one("q", as_=Point)).values, List[Optional[Point]])
    assert_type(some.query_value("q", read_only=True), ScatterResult[Any, Any])
    assert_type((some.query_column("q", idempotent=True)).rows, List[Any])
    assert_type(db.shards().execute("q"), ScatterResult[RowCount])
    assert_type((db.shards().execute("q")).by_shard[1].lastrowid, int)
    assert_type(db.shards().call("p", (1,), timeout=1), ScatterResult[CallResult])
    assert_type((db.shards().call("p")).rows, List[Row])
    assert_type(db.keys([1, 2], on_error="partial", min_ok=1, max_concurrency=4), Scatter)
    assert_type(db.keys([1, 2]).query("q", {"a": 1}), ScatterResult[List[Row], Row])
    assert_type(db.keys({"ann"}).execute("q"), ScatterResult[RowCount])
    db.shards().query("q", as_=1)  # type: ignore[call-overload]
    db.shards(min_ok="1")  # type: ignore[arg-type]
    merge = db.shards().merge("q", (1,), order_by="-a, b", limit=3, timeout=5, read_only=True)
    assert_type(merge, Merge)
    for row in merge:
        assert_type(row, Row)
    with db.shards().merge("q", order_by=["a"]) as opened:
        assert_type(opened, Merge)
    assert_type(merge.errors, Mapping[int, Error])
    merge.close()
    db.shards().merge("q")  # type: ignore[call-arg]
    totals = db.shards().aggregate(
        "q", (1,), group_by="a", n=Count(), s=Sum("b"), m=Avg("b"), least=Min("b"), most=Max("b")
    )
    assert_type(totals, List[Row])
    db.shards().aggregate("q", n=1)  # type: ignore[arg-type]
    db.shards(on_error="perhaps")  # type: ignore[arg-type]


async def given() -> AsyncIterator[Tuple[int]]:
    yield (1,)


def work(tx: Transaction) -> int:
    tx.on_commit(print)
    return tx.execute("q")


def verbs(db: DatabaseService, client: MySQLClient, tx: Transaction) -> None:
    for target in (db, db.shard(1), client, tx):
        assert_type(target.query("q"), List[Row])
        assert_type(target.query_one("q", {"a": 1}), Optional[Row])
        assert_type(target.query_value("q", [1], idempotent=True, timeout=0.5), Any)
        assert_type(target.query_column("q", (1,), timeout=1), List[Any])
        assert_type(target.query_one("q", strict=True), Optional[Row])
        assert_type(target.execute("q"), RowCount)
        assert_type(target.execute("q").lastrowid, int)
        assert_type(target.call("p", (1, Out("x"), InOut("y", 2))), CallResult)
        assert_type(target.call("p").out, Mapping[str, Any])
        assert_type(target.query("q", read_only=True), List[Row])
        assert_type(target.call("p", read_only=True), CallResult)
        assert_type(target.transaction(), Transaction)
        assert_type(target.transaction(commit_marker=True, isolation="READ COMMITTED"), Transaction)
        assert_type(target.executemany("q", [(1,)], progress=print), RowCount)
        target.executemany("q", given())  # type: ignore[arg-type]
        for row in target.stream("q", (1,), timeout=5):
            assert_type(row, Row)
        assert_type(target.stream("q"), Stream[Row])
        target.stream("q").close()
        assert_type(target.transaction(read_only=True, snapshot=True), Transaction)
        assert_type(target.transaction(timeout=10), Transaction)
        assert_type(target.run(work), int)
        assert_type(target.run(work, timeout=10), int)
        assert_type(target.connection(), BorrowedConnection)
        with target.transaction() as inside:
            assert_type(inside, Transaction)


def locks(db: DatabaseService, client: MySQLClient) -> None:
    for target in (db, db.shard(1), client):
        assert_type(target.lock("nightly", timeout=5), Lock)
        with target.lock("nightly", timeout=0.5) as lock:
            assert_type(lock, Lock)
            assert_type(lock.name, str)
            lock.check()


@dataclass
class Point:
    x: int


class Pair(NamedTuple):
    x: int


class Model(BaseModel):
    x: int


class Keys(TypedDict):
    x: int


def typed_rows(db: DatabaseService, client: MySQLClient, tx: Transaction) -> None:
    for target in (db, db.shard(1), client, tx):
        assert_type(target.query("q", (1,), as_=Point, timeout=1), List[Point])
        assert_type(target.query("q", as_=Pair), List[Pair])
        assert_type(target.query("q", as_=Model), List[Model])
        assert_type(target.query("q", as_=Keys), List[Keys])
        assert_type(target.query("q", as_=tuple), List[Tuple[Any, ...]])
        assert_type(target.query_one("q", (1,), as_=Point), Optional[Point])
        assert_type(target.query_one("q", as_=Keys, strict=True), Optional[Keys])
        assert_type(target.stream("q", as_=Model), Stream[Model])
        for row in target.stream("q", as_=Pair):
            assert_type(row, Pair)
    db.query("q", as_=Point(1))  # type: ignore[call-overload]
    db.query("q", as_="Point")  # type: ignore[call-overload]


def client(config: DatabaseConfig) -> None:
    client = MySQLClient(config)
    assert_type(client.config, DatabaseConfig)
    assert_type(client.init_pool(), None)
    assert_type(client.close_pool(), None)
    assert_type(client.stats(), PoolStats)
    assert_type(client.execute_stored_procedure("p", (1,)), List[Row])
    assert_type(client.execute_query("q", (1,)), List[Row])
    assert_type(client.execute_non_query("q", (1,)), RowCount)
    assert_type(client.get_last_insert_id(), int)
    assert_type(client.get_connection(), BorrowedConnection)
    assert_type(client.name, str)
    assert_type(client.shard_id, Optional[int])


def transaction(tx: Transaction) -> None:
    assert_type(tx.execute_stored_procedure("p", (1,)), List[Row])
    assert_type(tx.execute_query("q", (1,)), List[Row])
    assert_type(tx.execute_non_query("q", (1,)), RowCount)
    assert_type(tx.get_last_insert_id(), int)
    assert_type(tx.pipeline(["q", ("q", (1,))]), List[Any])
    assert_type(tx.cursor(), Any)
    assert_type(tx.is_open, bool)
    tx.rollback()
    assert_type(tx.name, str)
    assert_type(tx.shard_id, Optional[int])


def configuration() -> None:
    assert_type(
        DatabaseConfig(database="d", user="u", password="p", pool_size=3, ssl_mode="required"),
        DatabaseConfig,
    )
    assert_type(DatabaseConfig.from_url("mysql://u:p@h/d"), DatabaseConfig)
    assert_type(DatabaseConfig.from_env(), DatabaseConfig)
    DatabaseService(
        DatabaseConfig.from_env(), absent_shard="error", shard_table="t", shard_of_key=len
    )
    DatabaseService(DatabaseConfig.from_env(), absent_shard="maybe")  # type: ignore[arg-type]
    DatabaseService(DatabaseConfig.from_env()).query(1)  # type: ignore[call-overload]


def reports(db: DatabaseService, event: Event, query: QueryEvent) -> None:
    assert_type(db.stats().as_dict(), Dict[str, Dict[str, Any]])
    assert_type(db.status().as_dict(), Dict[str, Any])

    @db.on("shard_down")
    def hook(event: Event) -> str:
        return event.name

    assert_type(hook(event), str)
    db.on("query", lambda event: event.waited)
    assert_type(db.off("shard_down", hook), None)

    @db.add_interceptor
    def tag(call: QueryCall) -> None:
        call.tags["route"] = "/"

    assert_type(tag(query.call), None)
    assert_type(query.seconds, float)
    assert_type(db.top(3, by="p95"), List[DigestStats])
    assert_type(db.health(deep=True, require=[1]), HealthReport)
    db.on("transaction", lambda event: event.outcome)
    db.on("pool_wait", lambda event: event.detail)
    assert_type(db.remove_interceptor(tag), None)


def directory(db: DatabaseService, client_session: object) -> None:
    keys = db.directory
    assert_type(keys, Directory)
    assert_type(keys.get(7), Optional[int])
    assert_type(keys.assign(7), int)
    assert_type(keys.set(7, 2), None)
    assert_type(keys.set_bucket(7, 2), None)
    assert_type(keys.bucket_moves(), Any)
    assert_type(keys.forget(7), None)
    assert_type(keys.alias("email", "ann@example.com"), Any)
    assert_type(keys.set_alias("email", "ann@example.com", 7), None)
    assert_type(keys.remove_alias("email", "ann@example.com"), None)
    assert_type(keys.create_tables(), None)
    assert_type(keys.clear_cache(), None)
    assert_type(db.shard_id_of(7), int)
    assert_type(db.explain_route(session=client_session), RouteExplanation)
    assert_type(db.explain_route(key=7).reason, RouteReason)
    assert_type(db.wait_ready(5, require=[1]), None)
    assert_type(db.wait_ready(5, require="all"), None)
    db.wait_ready(5, require="some")  # type: ignore[arg-type]


def ids(db: DatabaseService) -> None:
    assert_type(db.ids, Ids)
    made = db.ids.next(2)
    assert_type(made, int)
    assert_type(db.ids.shard_of(made), int)
    assert_type(db.ids.time_of(made), datetime.datetime)


def scope(db: DatabaseService, client_session: object) -> None:
    with db.scope(client_session, lock=True) as scope:
        assert_type(scope, Scope)
        assert_type(db.current, Target)
        assert_type(db.current.query("q"), List[Row])
        assert_type(db.current.shard_id, Optional[int])
        assert_type(db.current.name, str)
    assert_type(db.shard_id, None)
    assert_type(db.name, str)


def operations(db: DatabaseService) -> None:
    assert_type(db.operations.sql("q", shards=[1, "global"]), SqlReport)
    assert_type(db.operations.migrate.up("migrations", canary=2), MigrationRun)
    assert_type(db.operations.jobs.get("name"), Optional[Job])
    assert_type(db.operations.with_account("u", "p").doctor(), DoctorReport)
    db.operations.sql(7)  # type: ignore[arg-type]
    db.operations.check_rows("t")  # type: ignore[call-arg]


def coordination(db: DatabaseService) -> None:
    with db.shards([1, 2]).transaction(mode="xa", global_=True, timeout=1) as tx:
        assert_type(tx, DistributedTransaction)
        assert_type(tx[1], PartTransaction)
        assert_type(tx.global_.execute("q"), RowCount)
        assert_type(tx[2].query("q"), List[Row])
        assert_type(tx.shard_ids, Tuple[int, ...])
        assert_type(tx.gtrid, str)
        tx.rollback()
    db.shards().transaction(mode="both")  # type: ignore[arg-type]
    assert_type(db.coordination.list(), XaList)
    assert_type(db.coordination.recover(grace=0, dry_run=True), XaRecovery)
    assert_type(db.coordination.with_account("u", "p").resolve("g", "abort"), XaRecovery)
    db.coordination.resolve("g", "perhaps")  # type: ignore[arg-type]


def handle(event: OutboxEvent) -> None:
    assert_type(event.key, Optional[str])


def count(tx: Transaction) -> int:
    return tx.execute("q")


def outbox(db: DatabaseService) -> None:
    with db.shard(1).transaction() as tx:
        assert_type(tx.outbox("topic", {"a": 1}, key=7), str)
    assert_type(db.outbox.consume(handle, until_idle=True), ConsumeReport)
    assert_type(db.outbox.status(), OutboxStatus)
    assert_type(db.outbox.dead(), DeadEvents)
    assert_type(db.outbox.requeue(["id"]), EventCount)
    assert_type(db.outbox.sweep(), EventCount)
    assert_type(db.shard(1).run(count, idempotency_key="k"), int)
    db.shard(1).run(count, idempotency_key=7)  # type: ignore[arg-type]
    tables = [TenantTable("t", "k")]
    assert_type(db.operations.move(7, 3, tables), MoveReport)
    assert_type(db.operations.rebalance_plan(tables, drain=[2]), RebalancePlan)


def sizes(db: DatabaseService) -> None:
    assert_type(db.resize(pool_size=2), None)
    assert_type(db.resize_shard(1, None), None)
    client = db.get_shard_client(1)
    assert client is not None
    assert_type(client.resize(max_overflow=0), None)


def frames(db: DatabaseService) -> None:
    assert_type(db.to_polars("q", (1,), read_only=True, timeout=1), polars.DataFrame)
    assert_type(db.shards().to_polars("q", shard_column="shard"), polars.DataFrame)
    db.shard(1).to_arrow("q")  # pyright: ignore[reportUnknownMemberType] - pyarrow has no types
    db.shards().to_pandas("q")
    with db.shard(1).arrow_batches("q", batch_rows=7) as batches:
        assert_type(batches, ArrowBatches)


def testing(db: DatabaseService) -> None:
    with db.testing_transaction():
        pass
    assert_type(db.sqlalchemy.engine(1), Engine)


def replicas(db: DatabaseService) -> None:
    assert_type(db.shard(2).read, Target)
    assert_type(db.read.query("q"), List[Row])
    shard = db.shard(2)
    assert_type(shard.query("q", role="replica"), List[Row])
    assert_type(shard.query("q", as_=tuple, role="replica"), List[Tuple[Any, ...]])
    assert_type(shard.query_one("q", role="replica"), Optional[Row])
    assert_type(shard.query_column("q", role="replica"), List[Any])
    assert_type(shard.stream("q", role="replica"), Stream[Row])
    assert_type(shard.call("p", role="replica", read_only=True), CallResult)
    shard.query_value("q", role="primary")  # type: ignore[arg-type]
    shard.execute("q", role="replica")  # type: ignore[call-arg]
    shards = db.shards().read
    assert_type(shards, ScatterReader)
    assert_type(db.keys([1]).read, ScatterReader)
    assert_type(shards.query("q"), ScatterResult[List[Row], Row])
    assert_type(shards.query_value("q"), ScatterResult[Any, Any])
    assert_type(shards.call("p", read_only=True), ScatterResult[CallResult])
    assert_type(shards.aggregate("q", n=Count()), List[Row])
    assert_type(shards.merge("q", order_by="a"), Merge)
    shards.execute("q")  # type: ignore[attr-defined]
    assert_type(db.replicas(), List[ReplicaStatus])
    assert_type(db.causal_token(), str)
    with db.read_only(), db.priority("batch"), db.causal(None, timeout=1) as block:
        assert_type(block.token, str)
