"""Tenants whose move is disturbed by another mover, and tables that are unusual."""

import inspect
import threading
import uuid
from typing import Any, Callable, Iterator, List, Tuple

import pymysql
import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import CoordinationEvent, LookupTable
from dualdb.coordination import idempotency
from dualdb.directory.lookup import KeyDirectory
from dualdb.operations import TenantTable, jobs, throttle
from dualdb.operations import move as moves
from dualdb.operations import move_tables as names

pytestmark = pytest.mark.slow

KEY = 3
CREATE = "CREATE TABLE purse (owner BIGINT, no BIGINT, PRIMARY KEY (owner, no))"
TABLES = [TenantTable("purse", "owner")]


def clean(databases: Databases) -> None:
    for shard in databases.ids:
        tables = ", ".join(["purse", "other", *names.TABLES, idempotency.TABLE])
        databases.run(shard, f"DROP TABLE IF EXISTS {tables}")
    databases.run(
        "global", f"DROP TABLE IF EXISTS table_user_shard_mapping, {names.EPOCHS}, {jobs.TABLE}"
    )


@pytest.fixture
def shop(open_service: Any, databases: Databases, io: IO) -> Iterator[Any]:
    """A service with one key, on shard 1."""
    clean(databases)
    db = open_service(directory=LookupTable(ttl=0))
    io(db.directory.create_tables())
    yield db
    clean(databases)


def make(databases: Databases, create: str) -> None:
    for shard in databases.ids:
        databases.run(shard, create)


@pytest.mark.parametrize("then", ["undo", "resume"])
def test_a_mover_that_was_stopped_before_the_switch_does_not_switch(
    shop: Any, open_service: Any, databases: Databases, io: IO, monkeypatch: Any, then: str
) -> None:
    make(databases, CREATE)
    databases.run(1, "INSERT INTO purse VALUES (3, 1), (3, 2)")
    io(shop.directory.set(KEY, 1))
    io(shop.operations.prepare_moves(TABLES))
    original = KeyDirectory.switch
    stopped: List[int] = []

    def stopping(self: Any, *args: Any) -> Any:
        if not stopped:
            stopped.append(1)
            # meanwhile the lease has ended, and another process has taken the move
            databases.run("global", "UPDATE dualdb_job SET lease_until = '2000-01-01'")
            options = moves.Options(tuple(TABLES), settle=0.0)
            other = shop.operations._databases
            yield from moves.run(other, KEY, None, options, undo=then == "undo")
        return (yield from original(self, *args))

    monkeypatch.setattr(KeyDirectory, "switch", stopping)
    with pytest.raises(moves.MoveTakenOver):
        io(shop.operations.move(KEY, 2, TABLES, settle=0))
    shard = 1 if then == "undo" else 2
    assert databases.value("global", "SELECT shard_id FROM table_user_shard_mapping") == shard
    for each in databases.ids:
        count = databases.value(each, "SELECT COUNT(*) FROM purse")
        assert count == (2 if each == shard else 0)
    databases.run(shard, "INSERT INTO purse VALUES (3, 3)")


TEXT_KEY = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
UUID = uuid.UUID(int=2**127 + 5)
#: The primary key's type, the key column, how rows have the key, and the key.
UNUSUAL = [
    ("BIGINT", f"owner CHAR(36) {TEXT_KEY}", f"'{UUID}'", UUID),
    ("BIGINT", "owner BINARY(16)", f"0x{UUID.hex}", UUID),
    ("BIGINT", f"owner VARCHAR(9) {TEXT_KEY}", "'7'", 7),
    ("BIGINT", f"owner VARCHAR(9) {TEXT_KEY}", "'a '", "a"),
    ("TIMESTAMP(3)", "owner BIGINT", "7", 7),
    ("BIT(40)", "owner BIGINT", "7", 7),
    ("FLOAT", "owner BIGINT", "7", 7),
    ("INT(6) ZEROFILL", "owner INT(6) ZEROFILL", "7", 7),
]


@pytest.mark.parametrize(("id_type", "owner", "stored", "key"), UNUSUAL)
def test_changes_are_carried_over_and_refused_whatever_the_types_of_keys(
    shop: Any, databases: Databases, io: IO, id_type: str, owner: str, stored: str, key: Any
) -> None:
    make(databases, f"CREATE TABLE purse (id {id_type} PRIMARY KEY, {owner} NOT NULL, v INT)")
    # before the service has learned the column's type
    databases.run(
        "global",
        "DELETE FROM table_user_shard_mapping",
        "ALTER TABLE table_user_shard_mapping MODIFY account_db_key VARCHAR(40)",
    )
    io(shop.operations.prepare_moves(TABLES))
    ids = {"TIMESTAMP(3)": "'2026-01-01 00:00:0{}.125'", "FLOAT": "{}.1"}.get(id_type, "{}")
    rows = [f"({ids.format(n)}, {stored}, {n})" for n in (1, 2, 3)]
    databases.run(1, f"INSERT INTO purse VALUES {', '.join(rows)}")
    refused: List[str] = []

    def disturb(job: Any) -> None:
        step = (job.position or {}).get("step")
        if step == "delta":
            databases.run(
                1,
                "SET time_zone = '+05:00'",
                "UPDATE purse SET v = 9 WHERE v = 1",
                "DELETE FROM purse WHERE v = 2",
            )
        elif step == "settle" and not refused:
            for sql in (
                "UPDATE purse SET v = 7",
                f"INSERT INTO purse VALUES ({ids.format(4)}, {stored}, 0)",
            ):
                with pytest.raises(pymysql.err.MySQLError) as caught:
                    databases.run(1, sql)
                assert caught.value.args[0] == 31001
                refused.append(sql)

    io(shop.directory.set(key, 1))
    assert io(shop.operations.move(key, 2, TABLES, settle=0, progress=disturb)).ok
    assert len(refused) == 2
    left = [databases.run(shard, "SELECT v FROM purse ORDER BY v") for shard in databases.ids]
    assert [[row["v"] for row in rows] for rows in left] == [[], [3, 9]]


@pytest.mark.parametrize(
    ("owner", "stored", "keys"),
    [
        (f"owner CHAR(36) {TEXT_KEY}", f"'{UUID}'", (UUID, str(UUID))),
        ("owner BINARY(16)", f"0x{UUID.hex}", (UUID,)),
        (f"owner VARCHAR(9) {TEXT_KEY}", "'7'", (7, "7")),
        (f"owner VARCHAR(9) {TEXT_KEY}", "'a '", ("a", "a ")),
    ],
)
def test_results_of_idempotency_keys_go_with_a_tenant_whatever_the_type_of_its_key(
    shop: Any, databases: Databases, io: IO, owner: str, stored: str, keys: Tuple[Any, ...]
) -> None:
    make(databases, f"CREATE TABLE purse (id BIGINT PRIMARY KEY, {owner} NOT NULL, v INT)")
    databases.run(
        "global", "ALTER TABLE table_user_shard_mapping MODIFY account_db_key VARCHAR(40)"
    )
    databases.run(1, f"INSERT INTO purse VALUES (1, {stored}, 0)")
    io(shop.directory.set(keys[0], 1))
    io(shop.operations.prepare_moves(TABLES))

    def pay(tx: Any) -> Any:
        yield tx.execute("UPDATE purse SET v = v + 1")

    def pay_by_each() -> None:
        for number, key in enumerate(keys):
            io(shop.key(key).run(io.function(pay), idempotency_key=f"pay {number}"))

    pay_by_each()
    assert io(shop.operations.move(keys[0], 2, TABLES, settle=0)).ok
    pay_by_each()
    assert databases.value(2, "SELECT v FROM purse") == len(keys)


class Interrupted(BaseException):
    """As KeyboardInterrupt and CancelledError are."""


def is_interrupted(io: IO, call: Callable[[], Any]) -> bool:
    """Whether it goes through a call to its caller."""

    async def awaited(answer: Any) -> bool:
        try:
            await answer
        except Interrupted:  # which the tests' loop is not to see
            return True
        return False

    try:
        answer = call()
    except Interrupted:
        return True
    return bool(inspect.isawaitable(answer) and io(awaited(answer)))


@pytest.fixture
def purse(shop: Any, databases: Databases, io: IO) -> Any:
    """A service whose tenant has a row on shard 1, and can be moved."""
    make(databases, CREATE)
    databases.run(1, "INSERT INTO purse VALUES (3, 1)")
    io(shop.directory.set(KEY, 1))
    io(shop.operations.prepare_moves(TABLES))
    return shop


def accepts(databases: Databases, shard: int, no: int) -> bool:
    """Whether a program that does not use the package may write there."""
    try:
        databases.run(shard, f"INSERT INTO purse VALUES (3, {no})")
    except pymysql.err.MySQLError as error:
        if error.args[0] != 31001:
            raise
        return False
    return True


def finish(purse: Any, databases: Databases, io: IO, rows: int) -> None:
    """Another process goes on; all rows are on shard 2 then."""
    databases.run("global", "UPDATE dualdb_job SET lease_until = '2000-01-01'")
    assert io(purse.operations.move(KEY, None, TABLES, settle=0)).ok
    counted = [databases.value(shard, "SELECT COUNT(*) FROM purse") for shard in (1, 2)]
    assert counted == [0, rows]


#: Where a switch is interrupted, and the shard that is written to afterwards.
MOMENTS = {
    "_set_state before": 1,
    "_set_state after": 1,
    "_catch_up before": 1,
    "_verify before": 1,
    "_verify after": 1,
    "switch before": 1,
    "switch after": 2,
}


@pytest.mark.parametrize("loses_session", [False, True])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_mover_that_is_interrupted_in_the_switch_opens_the_tenant_again(
    purse: Any,
    databases: Databases,
    io: IO,
    monkeypatch: Any,
    moment: str,
    loses_session: bool,
) -> None:
    name, _, when = moment.partition(" ")
    owner = KeyDirectory if name == "switch" else moves._Move
    original = getattr(owner, name)
    sessions: List[Any] = []
    interruptions: List[str] = []

    def seen(self: Any, source: Any, target: Any, tables: Any, position: Any) -> Any:
        sessions.append((yield from source.value("SELECT CONNECTION_ID()", ())))
        return (yield from close(self, source, target, tables, position))

    def interrupted(self: Any, *args: Any) -> Any:
        is_first = bool(sessions) and not interruptions
        if not is_first:
            return (yield from original(self, *args))
        interruptions.append(moment)
        if when == "after":
            yield from original(self, *args)
        if loses_session:
            databases.run(1, f"KILL {sessions[0]}")
        raise Interrupted

    close = moves._Move._close
    with monkeypatch.context() as patched:
        patched.setattr(moves._Move, "_close", seen)
        patched.setattr(owner, name, interrupted)
        assert is_interrupted(io, lambda: purse.operations.move(KEY, 2, TABLES, settle=0))
    assert interruptions == [moment]
    where = MOMENTS[moment]
    assert [accepts(databases, shard, 2) for shard in (1, 2)] == [where == 1, where == 2]
    finish(purse, databases, io, rows=2)


def test_a_switch_that_arrives_after_its_mover_was_interrupted_does_nothing(
    purse: Any, databases: Databases, io: IO, monkeypatch: Any
) -> None:
    late: List[Any] = []

    def interrupted(self: Any, key: Any, source: int, target: int, only_if: Any) -> Any:
        late.append((key, source, target, only_if))
        yield from ()
        raise Interrupted

    with monkeypatch.context() as patched:
        patched.setattr(KeyDirectory, "switch", interrupted)
        assert is_interrupted(io, lambda: purse.operations.move(KEY, 2, TABLES, settle=0))
    key, source, target, (condition, params) = late[0]
    assert accepts(databases, 1, 2)
    sql = (
        f"UPDATE table_user_shard_mapping SET shard_id = {target} WHERE account_db_key = {key} "
        f"AND shard_id = {source} AND {condition}"
    )
    assert io(purse.execute(sql, params)) == 0
    finish(purse, databases, io, rows=2)


def test_a_mover_that_is_cancelled_while_it_waits_in_the_switch_opens_the_tenant_again(
    purse: Any, databases: Databases, io: IO, monkeypatch: Any
) -> None:
    """By a signal or a cancelled task, while a prepared transaction is waited for."""
    config = databases.config_of(1)
    session = pymysql.connect(
        host=config.host, port=config.port, user=config.user, autocommit=True,
        database=config.database, password=config.reveal_password(), ssl_disabled=True,
    )  # fmt: skip
    if not databases.profile.xa:  # then nothing is ever prepared there
        with session.cursor() as cursor, pytest.raises(pymysql.err.NotSupportedError):
            cursor.execute("XA START 'held'")
        session.close()
        return
    reached = threading.Event()
    original = moves._Move._catch_up

    def waiting(self: Any, *args: Any) -> Any:
        with session.cursor() as cursor:
            for sql in ("XA START 'held'", "INSERT INTO other VALUES (1)", "XA END 'held'",
                        "XA PREPARE 'held'"):  # fmt: skip
                cursor.execute(sql)
        reached.set()
        return (yield from original(self, *args))

    databases.run(1, "CREATE TABLE other (id INT PRIMARY KEY)")
    pause_at(databases, io, purse, "delta")
    with monkeypatch.context() as patched:
        patched.setattr(moves._Move, "_catch_up", waiting)
        io.interrupted(lambda: purse.operations.move(KEY, None, TABLES, settle=0), reached)
    assert reached.is_set()
    assert accepts(databases, 1, 2)
    with session.cursor() as cursor:
        cursor.execute("XA ROLLBACK 'held'")
    session.close()
    finish(purse, databases, io, rows=2)


def pause_at(databases: Databases, io: IO, purse: Any, step: str) -> None:
    """Move until this step is over."""

    def pause(job: Any) -> None:
        if (job.position or {}).get("step") == step:
            databases.run("global", "UPDATE dualdb_job SET pause_requested = 1")

    report = io(purse.operations.move(KEY, 2, TABLES, settle=0, progress=pause))
    assert report.state == "paused"
    io(purse.operations.jobs.resume(f"move:{KEY}"))


@pytest.mark.parametrize("request_column", ["pause_requested", "cancel_requested"])
@pytest.mark.parametrize("undo", [False, True])
def test_a_move_that_was_stopped_is_gone_on_with_or_undone(
    purse: Any, databases: Databases, io: IO, request_column: str, undo: bool
) -> None:
    def stop(job: Any) -> None:
        if (job.position or {}).get("step") == "copy":
            databases.run("global", f"UPDATE dualdb_job SET {request_column} = 1")

    stopped = io(purse.operations.move(KEY, 2, TABLES, settle=0, progress=stop))
    assert stopped.state in ("paused", "cancelled")
    if undo:
        assert io(purse.operations.undo_move(KEY, TABLES)).state == "undone"
        assert io(purse.shard_id_of(KEY)) == 1
    else:
        assert io(purse.operations.move(KEY, None, TABLES, settle=0)).ok
        assert io(purse.shard_id_of(KEY)) == 2


def test_a_tenant_that_stays_fenced_is_logged(
    purse: Any, databases: Databases, io: IO, monkeypatch: Any, caplog: Any
) -> None:
    def interrupted(self: Any, *args: Any) -> Any:
        databases.run(1, f"RENAME TABLE {names.FENCE_KEYS} TO out_of_reach")
        yield from ()
        raise Interrupted

    with monkeypatch.context() as patched:
        patched.setattr(moves._Move, "_verify", interrupted)
        assert is_interrupted(io, lambda: purse.operations.move(KEY, 2, TABLES, settle=0))
    databases.run(1, f"RENAME TABLE out_of_reach TO {names.FENCE_KEYS}")
    assert [each.event for each in caplog.records if each.name == "dualdb.operations"] == [
        "move_left_fenced"
    ]
    assert not accepts(databases, 1, 2)
    finish(purse, databases, io, rows=1)


@pytest.fixture
def seen(purse: Any) -> List[CoordinationEvent]:
    """The events of moves."""
    found: List[CoordinationEvent] = []
    for name in ("move_started", "move_step", "move_fenced", "move_finished"):
        purse.on(name, found.append)
    return found


def ended(io: IO, seen: List[CoordinationEvent], times: int = 1) -> List[CoordinationEvent]:
    """What happened, once processes were so often done with the move."""
    io.wait_for(lambda: [each.name for each in seen].count("move_finished") == times)
    assert {(each.target, each.shard_id, each.subject) for each in seen} == {("shard 1", 1, "3")}
    return seen


def test_a_move_is_known_by_its_events(
    purse: Any, databases: Databases, io: IO, seen: List[CoordinationEvent]
) -> None:
    pause_at(databases, io, purse, "copy")
    report = io(purse.operations.move(KEY, None, TABLES, settle=0))
    names_of = [(each.name, each.detail) for each in ended(io, seen, 2)]
    assert names_of == [
        ("move_started", None),
        *[("move_step", step) for step in (
            "mark", "check", "close target", "clear target", "log", "wait for prepared", "copy",
            "delta",
        )],
        ("move_finished", "paused"),
        ("move_started", None),
        *[("move_step", step) for step in ("mark", "delta", "cut over")],
        ("move_fenced", None),
        *[("move_step", step) for step in ("settle", "purge")],
        ("move_finished", "done"),
    ]  # fmt: skip
    fenced = [each for each in seen if each.name == "move_fenced"]
    assert [round(each.seconds, 4) for each in fenced] == [report.window_seconds]


def test_a_move_that_failed_and_is_undone_is_known_by_its_events(
    purse: Any, io: IO, seen: List[CoordinationEvent], monkeypatch: Any
) -> None:
    def fails(self: Any, *args: Any) -> Any:
        yield from ()
        raise moves.MoveError("canary")

    monkeypatch.setattr(moves._Move, "_verify", fails)
    with pytest.raises(moves.MoveError):
        io(purse.operations.move(KEY, 2, TABLES, settle=0))
    assert io(purse.operations.undo_move(KEY, TABLES)).ok
    finished = [each for each in ended(io, seen, 2) if each.name == "move_finished"]
    assert [(each.detail, type(each.error)) for each in finished] == [
        ("failed", moves.MoveError),
        ("undone", type(None)),
    ]
    assert finished[0].as_dict()["error"] == "MoveError"
    assert [each for each in seen if each.name == "move_fenced"] == []


def test_a_move_that_another_process_has_is_not_begun(
    purse: Any, databases: Databases, io: IO, seen: List[CoordinationEvent]
) -> None:
    pause_at(databases, io, purse, "copy")
    ended(io, seen)
    seen.clear()
    databases.run(
        "global",
        "UPDATE dualdb_job SET state = 'running', lease_until = UTC_TIMESTAMP() + INTERVAL 1 HOUR",
    )
    with pytest.raises(jobs.JobTaken):
        io(purse.operations.move(KEY, None, TABLES, settle=0))
    databases.run("global", "UPDATE dualdb_job SET lease_until = '2000-01-01'")
    assert io(purse.operations.move(KEY, None, TABLES, settle=0)).ok
    assert [each.name for each in ended(io, seen)][:2] == ["move_started", "move_step"]
    assert [each.name for each in seen].count("move_started") == 1


@pytest.mark.parametrize("step", ["copy", "purge"])
def test_a_move_waits_while_a_server_is_busy_or_replication_behind(
    purse: Any, io: IO, monkeypatch: Any, step: str
) -> None:
    monkeypatch.setattr(moves, "BUSY_SECONDS", 0.0)
    steps_at: List[str] = [""]
    messages: List[str] = []
    running, lags = iter([101, 100, 101]), iter([10.5])

    def seen(job: Any) -> None:
        steps_at[0] = (job.position or {}).get("step", "")
        messages.append(job.message)

    def threads(session: Any) -> Any:
        yield from ()
        return next(running, 1) if steps_at[0] == step else 1

    def lag() -> float:
        return next(lags, 10.0) if steps_at[0] == step else 0.0

    monkeypatch.setattr(throttle, "_threads_running", threads)
    assert io(purse.operations.move(KEY, 2, TABLES, settle=0, lag=lag, progress=seen)).ok
    waits = [each for each in messages if "running" in each or "behind" in each]
    assert waits == [
        "replication is 10.5 s behind",
        "101 threads are running on shard 1",
        "101 threads are running on shard 2",
    ]


def test_a_move_without_limits_asks_nobody(purse: Any, io: IO, monkeypatch: Any) -> None:
    asked: List[str] = []
    monkeypatch.setattr(throttle, "_threads_running", lambda session: asked.append("threads"))
    limits = {"max_lag": None, "max_threads_running": None}

    def lag() -> None:
        asked.append("lag")

    assert io(purse.operations.move(KEY, 2, TABLES, settle=0, lag=lag, **limits)).ok
    assert asked == []
