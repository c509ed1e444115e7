"""Tenants that move between shards: all of their rows, there and back, and refused."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterator, List

import pymysql
import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import DeadlineExceeded, InterfaceError, LookupTable, ParameterError, TenantFenced
from dualdb.coordination import idempotency
from dualdb.operations import JobState, JobTaken, MoveError, MoveReport, TenantTable, jobs
from dualdb.operations import move_tables as names

pytestmark = pytest.mark.slow

SCHEMA = [
    """CREATE TABLE bill (
        id BIGINT PRIMARY KEY, owner BIGINT NOT NULL, amount DECIMAL(20,4), rate FLOAT,
        weight DOUBLE, at DATETIME(6), stamp TIMESTAMP(3) NULL, day DATE, took TIME(3), y YEAR,
        flags BIT(9), doc JSON, photo VARBINARY(300), kind ENUM('a', 'b'), tags SET('x', 'y'),
        note TEXT CHARACTER SET latin1, twice DECIMAL(21,4) AS (amount * 2) STORED, KEY (owner)
    )""",
    """CREATE TABLE line (
        bill_id BIGINT, no INT, what VARCHAR(20), PRIMARY KEY (bill_id, no),
        FOREIGN KEY (bill_id) REFERENCES bill (id) ON DELETE CASCADE
    )""",
    """CREATE TABLE remark (
        code VARBINARY(20) PRIMARY KEY, line_bill BIGINT NOT NULL, text VARCHAR(40)
    )""",
    "CREATE TABLE account (owner BIGINT PRIMARY KEY, balance BIGINT NOT NULL)",
]
TABLES = [
    TenantTable("remark", parent="bill", parent_column="line_bill"),
    TenantTable("line", parent="bill", parent_column="bill_id"),
    TenantTable("bill", "owner"),
    TenantTable("account", "owner"),
    TenantTable("accounts", "id", on="global"),
]
NAMES = ["remark", "line", "bill", "account"]
OURS = [*names.TABLES, idempotency.TABLE]


def clean(databases: Databases) -> None:
    for shard in databases.ids:
        databases.run(shard, f"DROP TABLE IF EXISTS {', '.join([*NAMES, *OURS])}")
    databases.run(
        "global", f"DROP TABLE IF EXISTS table_user_shard_mapping, {names.EPOCHS}, {jobs.TABLE}"
    )


@pytest.fixture
def shop(open_service: Any, databases: Databases, io: IO) -> Iterator[Any]:
    """A service with the keys 1 to 4, all on shard 1, and what moves need."""
    clean(databases)
    for shard in databases.ids:
        databases.run(shard, *SCHEMA)
    db = open_service(directory=LookupTable(ttl=0))
    io(db.directory.create_tables())
    for key in range(1, 5):
        io(db.directory.set(key, 1))
        fill(databases, key)
    io(db.operations.prepare_moves(TABLES))
    yield db
    clean(databases)


def fill(databases: Databases, key: int, shard: int = 1) -> None:
    rows = []
    for number in range(3):
        rows.append(
            f"({key}{number}, {key}, 12345678901234.5678, 16777.217, 0.1, '2026-01-02 03:04:05.6', "
            f"'2026-01-02 03:04:05.678', '2026-02-03', '-12:00:00.5', 2026, b'101', "
            f"'{{\"a\": [1, 2.50]}}', 0x00FF2741, 'b', 'x,y', 'é''\\\\')"
        )
    databases.run(
        shard,
        "INSERT INTO bill (id, owner, amount, rate, weight, at, stamp, day, took, y, flags, doc, "
        f"photo, kind, tags, note) VALUES {', '.join(rows)}, "
        f"({key}9, {key}, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, "
        "NULL, NULL)",
        f"INSERT INTO line VALUES ({key}0, 1, 'a'), ({key}0, 2, NULL), ({key}1, 1, 'b')",
        f"INSERT INTO remark VALUES (0x{key:02x}FF00, {key}0, 'r'), ('{key}é', {key}1, NULL)",
        f"INSERT INTO account VALUES ({key}, 100)",
    )


def counts(databases: Databases, shard: int, key: int) -> List[int]:
    bills = f"(SELECT id FROM bill WHERE owner = {key})"
    return [
        databases.value(shard, f"SELECT COUNT(*) FROM {table} WHERE {where}")
        for table, where in (
            ("bill", f"owner = {key}"),
            ("line", f"bill_id IN {bills}"),
            ("remark", f"line_bill IN {bills}"),
            ("account", f"owner = {key}"),
        )
    ]


def totals(databases: Databases, shard: int) -> List[int]:
    return [databases.value(shard, f"SELECT COUNT(*) FROM {name}") for name in NAMES]


def move(io: IO, db: Any, key: int, to: int, **options: Any) -> MoveReport:
    options = {"settle": 0, **options}
    report: MoveReport = io(db.operations.move(key, to, TABLES, **options))
    return report


def content(databases: Databases, shard: int, key: int) -> List[Any]:
    bills = f"(SELECT id FROM bill WHERE owner = {key})"
    return [
        databases.run(shard, f"SELECT * FROM bill WHERE owner = {key} ORDER BY id"),
        databases.run(shard, f"SELECT rate * 1e0 AS r FROM bill WHERE owner = {key} ORDER BY id"),
        databases.run(shard, f"SELECT * FROM line WHERE bill_id IN {bills} ORDER BY bill_id, no"),
        databases.run(shard, f"SELECT * FROM remark WHERE line_bill IN {bills} ORDER BY code"),
    ]


@pytest.mark.parametrize("chunk_rows", [1, 2, 500])
def test_all_rows_move_and_no_others(
    shop: Any, io: IO, databases: Databases, chunk_rows: int
) -> None:
    before = content(databases, 1, 3)
    seen: List[str] = []
    report = move(
        io, shop, 3, 2, chunk_rows=chunk_rows, progress=lambda job: seen.append(job.message)
    )
    assert (report.ok, report.state, report.source, report.target) == (True, "done", 1, 2)
    assert (report.rows, report.step) == (10, "done")
    assert report.window_seconds is not None
    assert content(databases, 2, 3) == before
    assert totals(databases, 2) == [2, 3, 4, 1]
    assert totals(databases, 1) == [6, 9, 12, 3]
    assert io(shop.directory.get(3)) == 2
    assert any(message.startswith("copying ") for message in seen)
    job = io(shop.operations.jobs.get("move:3"))
    assert (job.kind, job.state) == ("move", JobState.DONE)
    assert [databases.value(shard, f"SELECT COUNT(*) FROM {names.LOG}") for shard in (1, 2)] == [
        0,
        0,
    ]
    assert move(io, shop, 3, 2).ok
    assert move(io, shop, 3, 1).ok
    assert content(databases, 1, 3) == before
    assert (totals(databases, 1), totals(databases, 2)) == ([8, 12, 16, 4], [0, 0, 0, 0])


WRITES = [
    "INSERT INTO account VALUES ({key}, 1)",
    "INSERT INTO account VALUES (77, 1), ({key}, 1)",
    "INSERT IGNORE INTO account VALUES ({key}, 1)",
    "REPLACE INTO account VALUES ({key}, 1)",
    "INSERT INTO account VALUES ({key}, 1) ON DUPLICATE KEY UPDATE balance = 9",
    "UPDATE account SET balance = balance WHERE owner = {key}",
    "UPDATE IGNORE account SET balance = 5 WHERE owner = {key}",
    "UPDATE account SET owner = 78 WHERE owner = {key}",
    "UPDATE account SET owner = {key} WHERE owner = 5",
    "DELETE FROM account WHERE owner = {key}",
    "DELETE IGNORE FROM account WHERE owner = {key}",
    "UPDATE line SET what = 'z' WHERE bill_id = {key}0",
    "DELETE FROM remark WHERE line_bill = {key}0",
    "INSERT INTO remark VALUES ('new', {key}0, 'x')",
    "UPDATE remark SET line_bill = {key}0 WHERE line_bill = 50",
    "UPDATE bill b JOIN line l ON l.bill_id = b.id SET l.what = 'z' WHERE b.owner = {key}",
]


@pytest.mark.parametrize("state", [names.FENCED, names.MOVED])
def test_the_database_refuses_writes_of_those_who_do_not_use_the_package(
    shop: Any, databases: Databases, io: IO, state: int
) -> None:
    fill(databases, 5)
    fence(databases, 3, state)
    before = [content(databases, 1, key) for key in (3, 4, 5)]
    for sql in WRITES:
        with pytest.raises(pymysql.err.MySQLError) as caught:
            databases.run(1, sql.format(key=3))
        assert caught.value.args[0] == 31001, sql
    assert [content(databases, 1, key) for key in (3, 4, 5)] == before
    databases.run(1, "UPDATE account SET balance = 1 WHERE owner = 4", "SELECT 1")
    fence(databases, 3, names.OPEN)
    databases.run(1, "UPDATE account SET balance = 1 WHERE owner = 3")


def fence(databases: Databases, key: int, state: int, shard: int = 1) -> None:
    databases.run(
        shard,
        f"UPDATE {names.FENCE} SET in_use = 1",
        f"REPLACE INTO {names.FENCE_KEYS} VALUES ('{key}', {state}, 1)",
    )


def test_what_is_changed_is_written_down_while_a_tenant_is_copied(
    shop: Any, databases: Databases
) -> None:
    fence(databases, 3, names.LOGGED)
    databases.run(
        1,
        "UPDATE account SET balance = 1 WHERE owner IN (3, 4)",
        "DELETE FROM line WHERE bill_id = 30 AND no = 2",
        "UPDATE remark SET code = 'other' WHERE code = 0x03FF00",
        "INSERT INTO bill (id, owner) VALUES (38, 3), (48, 4)",
        "UPDATE bill SET owner = 3 WHERE id = 48",
    )
    logged = databases.run(1, f"SELECT tenant, tbl, pk FROM {names.LOG} ORDER BY seq")
    found = [(each["tbl"], bytes(each["pk"])) for each in logged]
    assert {each["tenant"] for each in logged} == {b"3"}
    assert found == [
        ("account", b"33"),
        ("line", b"3330,32"),
        ("remark", b"03FF00"),
        ("remark", b"6F74686572"),
        ("bill", b"3338"),
        ("bill", b"3438"),
    ]


def test_a_call_with_an_idempotency_key_is_not_repeated_on_the_new_shard(
    shop: Any, io: IO, databases: Databases
) -> None:
    def pay(tx: Any, owner: int) -> Any:
        yield tx.execute("UPDATE account SET balance = balance + 1 WHERE owner = %s", (owner,))
        return (yield tx.query_value("SELECT balance FROM account WHERE owner = %s", (owner,)))

    def paid(owner: int, key: str) -> Any:
        function = io.function(lambda tx: pay(tx, owner))
        return io(shop.key(owner).run(function, idempotency_key=key))

    assert [paid(1, "pay 1"), paid(1, "pay 2"), paid(2, "pay 3")] == [101, 102, 101]
    assert move(io, shop, 1, 2).ok
    assert [paid(1, "pay 1"), paid(1, "pay 2"), paid(1, "pay 4")] == [101, 102, 103]
    found = databases.run(2, f"SELECT idempotency_key AS k FROM {idempotency.TABLE} ORDER BY k")
    assert [row["k"] for row in found] == [b"pay 1", b"pay 2", b"pay 4"]
    assert move(io, shop, 1, 1).ok
    assert [paid(1, "pay 4"), paid(1, "pay 1"), paid(2, "pay 3")] == [103, 101, 101]
    assert databases.value(1, "SELECT SUM(balance) FROM account WHERE owner < 3") == 204


def test_calls_that_are_repeated_during_moves_have_their_effect_once(
    shop: Any, io: IO, databases: Databases
) -> None:
    done = threading.Event()
    calls = itertools.count()
    keys = []

    def pay(tx: Any) -> Any:
        yield tx.execute("UPDATE account SET balance = balance + 1 WHERE owner = 3")
        return "paid"

    def caller() -> Any:
        while not done.is_set():
            key = f"pay {next(calls) // 3}"  # each is asked for three times
            paid = yield shop.key(3).run(io.function(pay), idempotency_key=key, attempts=50)
            assert paid == "paid"
            keys.append(key)

    def mover() -> Any:
        try:
            for to in (2, 1, 2, 1):
                report = yield shop.operations.move(3, to, TABLES, settle=0, chunk_rows=20)
                assert report.ok
        finally:
            done.set()

    outcomes = io.concurrently([io.function(mover), *[io.function(caller)] * 4])
    assert [each for each in outcomes if each is not None] == []
    assert len(keys) > len(set(keys)) > 10
    assert databases.value(1, "SELECT balance FROM account WHERE owner = 3") == 100 + len(set(keys))


@pytest.mark.parametrize("step", ["before", "copy"])
def test_a_transaction_that_is_prepared_meanwhile_is_waited_for(
    shop: Any, io: IO, databases: Databases, step: str
) -> None:
    """It has passed the fence, and holds a lock on it that MariaDB does not keep; it is
    committed when the mover waits for it, or has copied the rows.
    """
    session = pymysql.connect(**connect_to(databases, 1))
    committed: List[str] = []

    def prepare() -> None:
        with session.cursor() as cursor:
            for sql in (
                "XA START 'moved'", "UPDATE account SET balance = 555 WHERE owner = 3",
                "XA END 'moved'", "XA PREPARE 'moved'",
            ):  # fmt: skip
                cursor.execute(sql)

    def commit(after: float) -> None:
        def later() -> None:
            with session.cursor() as cursor:
                cursor.execute("XA COMMIT 'moved'")
            committed.append(step)

        threading.Timer(after, later).start()

    def progress(job: Any) -> None:
        now = (job.position or {}).get("step")
        if step == "copy" and now == "copy" and not committed:
            prepare()
            commit(1.0)
            committed.append("prepared")
        if step == "before" and now == "log" and not committed:
            committed.append("seen")
            commit(0.7)

    if not databases.profile.xa:
        with pytest.raises(pymysql.err.NotSupportedError):
            prepare()
        session.close()
        return
    if step == "before":
        prepare()
    assert move(io, shop, 3, 2, progress=progress).ok
    assert databases.run(2, "SELECT balance FROM account WHERE owner = 3") == [{"balance": 555}]
    assert committed[1:] == [step]
    session.close()


def connect_to(databases: Databases, shard: int) -> Dict[str, Any]:
    config = databases.config_of(shard)
    return {
        "host": config.host, "port": config.port, "user": config.user, "autocommit": True,
        "database": config.database, "password": config.reveal_password(), "ssl_disabled": True,
    }  # fmt: skip


def test_writes_by_key_wait_for_the_fence_and_go_to_the_new_shard(
    shop: Any, open_service: Any, io: IO, databases: Databases
) -> None:
    other = open_service(directory=LookupTable(ttl=3600))
    assert io(other.directory.get(3)) == 1
    fence(databases, 3, names.FENCED)
    fill(databases, 3, shard=2)
    fence(databases, 3, names.OPEN, shard=2)

    def switch() -> None:
        time.sleep(0.3)
        databases.run("global", "UPDATE table_user_shard_mapping SET shard_id = 2 "
                                "WHERE account_db_key = 3")  # fmt: skip
        fence(databases, 3, names.MOVED)

    sql = "UPDATE account SET balance = balance + 1 WHERE owner = 3"
    calls: List[Callable[[], Any]] = [
        lambda: other.key(3).execute(sql),
        lambda: other.key(3).run(lambda tx: tx.execute(sql)),
    ]
    # In a thread: it waits for locks of tasks that an event loop in between would keep.
    with ThreadPoolExecutor(1) as executor:
        switched = executor.submit(switch)
        assert io.concurrently(calls) == [1, 1]
        switched.result()
    assert databases.value(2, "SELECT balance FROM account WHERE owner = 3") == 102
    assert databases.value(1, "SELECT balance FROM account WHERE owner = 3") == 100


@pytest.mark.parametrize("by", ["a statement", "a transaction"])
def test_no_more_writes_wait_for_a_fence_than_allowed(
    shop: Any, open_service: Any, io: IO, databases: Databases, by: str
) -> None:
    config = databases.config.model_copy(update={"buffer_size": 2})
    other = open_service(config, directory=LookupTable(ttl=3600))
    fence(databases, 3, names.FENCED)
    sql = "UPDATE account SET balance = balance + 1 WHERE owner = 3"
    refused: List[TenantFenced] = []

    def body() -> Any:
        try:
            if by == "a statement":
                return (yield other.key(3).execute(sql))
            return (yield other.key(3).run(lambda tx: tx.execute(sql)))
        except TenantFenced as error:
            refused.append(error)
            if len(refused) == 3:
                # in a thread, as above
                executor.submit(fence, databases, 3, names.OPEN)
            return None

    with ThreadPoolExecutor(1) as executor:
        outcomes = io.concurrently([io.function(body)] * 5)
    assert (outcomes.count(1), outcomes.count(None)) == (2, 3)
    for error in refused:
        assert "2 calls wait for the end of the move (buffer_size)" in str(error)
        assert (error.retryable, error.shard_id) == (True, 1)
    assert databases.value(1, "SELECT balance FROM account WHERE owner = 3") == 102


def test_a_block_and_a_call_to_the_old_shard_get_an_error(
    shop: Any, io: IO, databases: Databases
) -> None:
    sql = "UPDATE account SET balance = balance + 1 WHERE owner = 3"
    fence(databases, 3, names.FENCED)
    with pytest.raises(TenantFenced) as caught, io.entered(shop.key(3).transaction()) as tx:
        io(tx.execute(sql))
    assert (caught.value.retryable, caught.value.has_moved) == (True, False)
    with io.deadline(0.3), pytest.raises((TenantFenced, DeadlineExceeded)):
        io(shop.key(3).execute(sql))
    fence(databases, 3, names.MOVED)
    calls: List[Callable[[], Any]] = [
        lambda: shop.shard(1).execute(sql),
        lambda: shop.shard(1).run(lambda tx: tx.execute(sql)),
    ]
    for call in calls:
        with pytest.raises(TenantFenced) as caught:
            io(call())
        assert caught.value.has_moved


def test_a_move_that_fails_leaves_the_tenant_where_it_is_and_is_undone(
    shop: Any, io: IO, databases: Databases
) -> None:
    before = content(databases, 1, 3)
    # another tenant's row with an id of this one
    databases.run(2, "INSERT INTO bill (id, owner) VALUES (31, 9)")
    with pytest.raises(MoveError, match=r"another tenant's: \(31,\)"):
        move(io, shop, 3, 2, chunk_rows=1)
    job = io(shop.operations.jobs.get("move:3"))
    assert job.state is JobState.FAILED
    databases.run(1, "UPDATE account SET balance = balance + 1 WHERE owner = 3")
    with pytest.raises(ParameterError, match="to shard 2 is under way"):
        move(io, shop, 3, 1)
    report = io(shop.operations.undo_move(3, TABLES))
    assert (report.ok, report.state) == (True, "undone")
    assert content(databases, 1, 3) == before
    assert totals(databases, 2) == [0, 0, 1, 0]
    databases.run(1, "UPDATE account SET balance = balance + 1 WHERE owner = 3")
    with pytest.raises(ParameterError, match="no move"):
        io(shop.operations.undo_move(3, TABLES))
    databases.run(2, "DELETE FROM bill")
    assert move(io, shop, 3, 2).ok
    assert content(databases, 2, 3) == before


def test_a_move_that_has_switched_is_finished_and_not_undone(
    shop: Any, io: IO, databases: Databases
) -> None:
    def pause(job: Any) -> None:
        if (job.position or {}).get("step") == "settle":
            databases.run("global", "UPDATE dualdb_job SET pause_requested = 1")

    report = move(io, shop, 3, 2, settle=0.5, progress=pause)
    assert (report.ok, report.state, report.step) == (False, "paused", "settle")
    assert io(shop.directory.get(3)) == 2
    assert counts(databases, 1, 3) == counts(databases, 2, 3)
    io(shop.operations.jobs.resume("move:3"))
    with pytest.raises(MoveError, match="on shard 2 already"):
        io(shop.operations.undo_move(3, TABLES))
    assert io(shop.operations.move(3, tables=TABLES)).ok
    assert counts(databases, 1, 3) == [0, 0, 0, 0]


def test_moves_that_cannot_be_are_refused(shop: Any, io: IO, databases: Databases) -> None:
    refused = [
        ((3, 2, []), "no table"),
        ((99, 2, TABLES), "has no shard"),
        ((3, 9, TABLES), "not in the shard table"),
        ((3, None, TABLES), "no move"),
        ((3, 2, [TenantTable("line", where="bill_id = %(key)s")]), "by a condition"),
        ((3, 2, [TenantTable("line", parent="bill", parent_column="bill_id")]), "not described"),
        ((3, 2, [TenantTable("line", parent="line", parent_column="bill_id")]), "its own parent"),
        ((3, 2, [TenantTable("line", parent="bill")]), "together"),
        ((3, 2, [TenantTable("accounts", "id", on="global")]), "no table of the shard"),
        ((3, 2, [TenantTable("account", "no_column")]), "no column"),
    ]
    for arguments, message in refused:
        with pytest.raises(ParameterError, match=message):
            io(shop.operations.move(*arguments))
    databases.run(2, "DROP TRIGGER " + databases.value(
        2, "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()"
    ))  # fmt: skip
    with pytest.raises(MoveError, match="prepare_moves"):
        move(io, shop, 3, 2)
    assert counts(databases, 2, 3) == [0, 0, 0, 0]
    planned = io(shop.operations.prepare_moves(TABLES, dry_run=True))
    assert [len(each) for each in planned.shards.values()] == [0, 1]
    made = io(shop.operations.prepare_moves(TABLES))
    assert [len(each) for each in made.shards.values()] == [0, 1]
    assert move(io, shop, 3, 2).ok


def test_keys_that_the_database_takes_for_equal_are_refused(
    shop: Any, io: IO, databases: Databases
) -> None:
    for shard in databases.ids:
        databases.run(shard, "CREATE TABLE named (name VARCHAR(20) PRIMARY KEY)")
    with pytest.raises(ParameterError, match="_bin collation"):
        io(shop.operations.prepare_moves([TenantTable("named", "name")]))
    for shard in databases.ids:
        databases.run(shard, "DROP TABLE named")


def test_keys_of_a_function_cannot_be_moved(open_service: Any, io: IO) -> None:
    db = open_service(shard_of_key=lambda key: 1)
    with pytest.raises(InterfaceError, match="LookupTable"):
        io(db.operations.move(3, 2, TABLES))


def pause_at(databases: Databases, step: str) -> Callable[[Any], None]:
    """A function for ``progress`` that has the move pause after a step."""

    def pause(job: Any) -> None:
        if (job.position or {}).get("step") == step:
            databases.run("global", f"UPDATE {jobs.TABLE} SET pause_requested = 1")

    return pause


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    shop: Any, io: IO, databases: Databases
) -> None:
    planned = move(io, shop, 3, 2, dry_run=True)
    assert planned == MoveReport(3, 1, 2, "new", sum(counts(databases, 1, 3)), None, "check", True)
    assert planned.ok
    assert io(shop.operations.jobs.list()) == []
    assert databases.run(2, f"SELECT tenant FROM {names.FENCE_KEYS}") == []
    assert move(io, shop, 3, 1, dry_run=True).state == "done"

    paused = move(io, shop, 3, 2, progress=pause_at(databases, "copy"))
    before = io(shop.operations.jobs.get("move:3")), totals(databases, 2)
    for planned in (
        move(io, shop, 3, 2, dry_run=True),
        io(shop.operations.move(3, tables=TABLES, dry_run=True)),
        io(shop.operations.undo_move(3, TABLES, dry_run=True)),
    ):
        assert (planned.state, planned.rows, planned.step) == ("paused", 10, paused.step)
    assert (io(shop.operations.jobs.get("move:3")), totals(databases, 2)) == before

    report = io(shop.operations.move(3, tables=TABLES, progress=pause_at(databases, "settle")))
    assert report.state == "paused"
    assert io(shop.operations.move(3, tables=TABLES, dry_run=True)).step == "settle"
    with pytest.raises(MoveError, match="on shard 2 already"):
        io(shop.operations.undo_move(3, TABLES, dry_run=True))
    assert io(shop.operations.move(3, tables=TABLES, settle=0)).ok


def test_a_dry_run_refuses_what_a_move_refuses(shop: Any, io: IO, databases: Databases) -> None:
    with pytest.raises(ParameterError, match="no move"):
        io(shop.operations.undo_move(3, TABLES, dry_run=True))
    with pytest.raises(ParameterError, match="has no shard"):
        move(io, shop, 99, 2, dry_run=True)
    move(io, shop, 3, 2, progress=pause_at(databases, "copy"))
    databases.run(
        "global",
        f"UPDATE {jobs.TABLE} SET state = 'running', owner = 'x', "
        "lease_until = UTC_TIMESTAMP(6) + INTERVAL 60 SECOND",
    )
    for call in (
        lambda: move(io, shop, 3, 2, dry_run=True),
        lambda: io(shop.operations.undo_move(3, TABLES, dry_run=True)),
    ):
        with pytest.raises(JobTaken, match="run by x"):
            call()
    for shard in databases.ids:
        databases.run(shard, "DROP TRIGGER " + databases.value(
            shard, "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS "
            "WHERE TRIGGER_SCHEMA = DATABASE() LIMIT 1"
        ))  # fmt: skip
    with pytest.raises(MoveError, match="prepare_moves"):
        move(io, shop, 4, 2, dry_run=True)


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("settle", [0, 4.9])
def test_rows_are_not_deleted_while_others_may_read_them(
    shop: Any, open_service: Any, io: IO, databases: Databases, settle: float, dry_run: bool
) -> None:
    ops = open_service(directory=LookupTable(ttl=5)).operations
    plan = io(ops.rebalance_plan([TenantTable("account", "owner")], drain=[1]))
    before = totals(databases, 1)
    calls: List[Callable[[], Any]] = [
        lambda: ops.move(3, 2, TABLES, settle=settle, dry_run=dry_run),
        lambda: ops.move(3, tables=TABLES, settle=settle, dry_run=dry_run),
        lambda: ops.rebalance_apply(plan, TABLES, settle=settle, dry_run=dry_run),
    ]
    for call in calls:
        with pytest.raises(ParameterError, match=rf"settle={settle} is shorter .* \(5 s\)"):
            io(call())
    assert io(ops.jobs.list()) == []
    assert totals(databases, 1) == before
    assert io(ops.move(3, 2, TABLES, settle=5, dry_run=True)).ok


def hold(databases: Databases, seconds: float) -> None:
    """Have the move be run by another process, whose lease lasts so long."""
    databases.run(
        "global",
        f"UPDATE {jobs.TABLE} SET state = 'running', owner = 'other', pause_requested = 0, "
        f"lease_until = UTC_TIMESTAMP(6) + INTERVAL {seconds} SECOND",
    )


def continued(kind: str, db: Any, **options: Any) -> Any:
    """A call that goes on with the move of key 3 to shard 2."""
    if kind == "undo":
        return db.operations.undo_move(3, TABLES, **options)
    to = 2 if kind == "start" else None
    return db.operations.move(3, to, TABLES, settle=0, **options)


@pytest.mark.parametrize("kind", ["start", "resume", "undo"])
def test_a_move_that_somebody_holds_is_waited_for(
    shop: Any, io: IO, databases: Databases, kind: str
) -> None:
    move(io, shop, 3, 2, progress=pause_at(databases, "copy"))
    hold(databases, 60)
    for wait in (False, 0, 0.1):
        with pytest.raises(JobTaken, match="run by other, whose lease is over in .*wait="):
            io(continued(kind, shop, wait=wait))
    assert io(continued(kind, shop, wait=1, dry_run=True)).state == "running"
    assert io(shop.operations.jobs.get("move:3")).owner == "other"
    hold(databases, 0.2)
    report = io(continued(kind, shop, wait=30))
    assert report.state == ("undone" if kind == "undo" else "done")


@pytest.mark.parametrize("kind", ["start", "resume"])
def test_a_move_that_another_process_ends_meanwhile_is_done(
    shop: Any, io: IO, databases: Databases, kind: str
) -> None:
    move(io, shop, 3, 2, progress=pause_at(databases, "copy"))
    hold(databases, 60)

    def others_end_it() -> None:
        databases.run("global", f"UPDATE {jobs.TABLE} SET state = 'done', owner = NULL")
        databases.run(
            "global", "UPDATE table_user_shard_mapping SET shard_id = 2 WHERE account_db_key = 3"
        )

    timer = threading.Timer(0.3, others_end_it)
    timer.start()
    try:
        report = io(continued(kind, shop, wait=60))
    finally:
        timer.join()
    assert (report.state, report.target) == ("done", 2)


@pytest.mark.parametrize("kind", ["resume", "undo"])
def test_a_move_that_is_paused_while_it_is_waited_for_goes_on(
    shop: Any, io: IO, databases: Databases, kind: str
) -> None:
    move(io, shop, 3, 2, progress=pause_at(databases, "copy"))
    hold(databases, 60)
    pause = f"UPDATE {jobs.TABLE} SET state = 'paused', owner = NULL"
    timer = threading.Timer(0.3, databases.run, ["global", pause])
    timer.start()
    try:
        report = io(continued(kind, shop, wait=60))
    finally:
        timer.join()
    assert report.state == ("undone" if kind == "undo" else "done")


@pytest.mark.parametrize("wait", [-1, "1", None, float("nan")])
def test_a_wait_that_is_no_time_is_refused(shop: Any, io: IO, wait: Any) -> None:
    with pytest.raises(ParameterError):
        move(io, shop, 3, 2, wait=wait)
    assert io(shop.operations.jobs.list()) == []
