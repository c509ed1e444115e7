"""The outbox: written with the transaction, delivered at least once, in order."""

import contextlib
import datetime
import itertools
import pickle
import threading
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import (
    CoordinationEvent,
    OutboxEvent,
    OutboxTable,
    ParameterError,
    ProgrammingError,
    Rollback,
    ShardUnavailable,
)
from dualdb.coordination import consumer
from dualdb.coordination.outbox_reports import ConsumeReport, OutboxStatus

# Their events are those of the background.
pytestmark = pytest.mark.usefixtures("frequent_maintenance")

TABLES = "dualdb_outbox, dualdb_outbox_key, dualdb_outbox_lease, dualdb_outbox_retry"
INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, 'A', 1)"


def drop(databases: Databases) -> None:
    for name in ("global", *databases.ids):
        databases.run(name, f"DROP TABLE IF EXISTS {TABLES}")


@pytest.fixture
def shop(databases: Databases, open_service: Any, io: IO) -> Iterator[Any]:
    """A service with the tables of the outbox."""
    drop(databases)
    db = open_service()
    io(db.outbox.create_tables())
    yield db
    drop(databases)


class Handler:
    """Keeps what it was given; raises what ``fails`` returns for an event."""

    def __init__(self, io: IO, fails: Callable[[OutboxEvent], Any] = lambda event: None) -> None:
        self.events: List[OutboxEvent] = []
        self._fails = fails

        def body(event: OutboxEvent) -> Any:
            yield io.pause(0)
            error = self._fails(event)
            if error is not None:
                raise error
            self.events.append(event)

        self.function = io.function(body)

    @property
    def payloads(self) -> List[Any]:
        return [each.payload for each in self.events]


def publish(io: IO, target: Any, *payloads: Any, key: Any = None, topic: str = "t") -> List[str]:
    with io.entered(target.transaction()) as tx:
        return [io(tx.outbox(topic, payload, key=key)) for payload in payloads]


def consume(io: IO, db: Any, handler: Handler, **options: Any) -> ConsumeReport:
    report: ConsumeReport = io(db.outbox.consume(handler.function, until_idle=True, **options))
    return report


def retries_are_due(databases: Databases, name: Any = 1) -> None:
    databases.run(name, "UPDATE dualdb_outbox_retry SET retry_at = '2000-01-01'")


def statuses(databases: Databases, name: Any = 1) -> Dict[str, int]:
    rows = databases.run(name, "SELECT status, COUNT(*) AS n FROM dualdb_outbox GROUP BY status")
    return {row["status"]: row["n"] for row in rows}


def test_events_of_what_was_committed_are_delivered(
    shop: Any, io: IO, databases: Databases
) -> None:
    with io.entered(shop.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (7,)))
        first = io(tx.outbox("trade.created", {"id": 1, "text": "é\U0001f600"}, key=7))
        with contextlib.suppress(KeyError), io.entered(tx.transaction()) as inner:
            io(inner.outbox("trade.created", "of a savepoint"))
            raise KeyError
        with io.entered(tx.transaction()) as inner:
            second = io(inner.outbox("trade.closed"))
    with io.entered(shop.transaction()) as tx:
        third = io(tx.outbox("signed.up", [1, None], key="ann"))
    with io.entered(shop.shard(1).transaction()) as tx:
        io(tx.outbox("trade.created", "rolled back", key=7))
        io(tx.rollback())
    handler = Handler(io)
    assert consume(io, shop, handler) == ConsumeReport(delivered=3)
    found = {each.id: each for each in handler.events}
    assert found.keys() == {first, second, third}
    one = found[first]
    assert (one.topic, one.payload, one.key) == (
        "trade.created",
        {"id": 1, "text": "é\U0001f600"},
        "7",
    )
    assert (one.attempt, one.shard_id) == (1, 1)
    assert isinstance(one.created_at, datetime.datetime)
    assert (found[second].topic, found[second].payload, found[second].key) == (
        "trade.closed", None, None,
    )  # fmt: skip
    assert (found[third].shard_id, found[third].payload, found[third].key) == (
        None,
        [1, None],
        "ann",
    )
    assert consume(io, shop, handler) == ConsumeReport()
    assert statuses(databases) == {"published": 2}


def test_the_last_insert_of_the_caller_is_its_own(shop: Any, io: IO, databases: Databases) -> None:
    databases.run(1, "INSERT INTO trades VALUES (41, 1, 'A', 1)")
    with io.entered(shop.shard(1).transaction()) as tx:
        own = io(tx.execute(INSERT, (7,))).lastrowid
        assert own > 41
        io(tx.outbox("t", key="k"))
        io(tx.outbox("t", key="k"))
        assert io(tx.get_last_insert_id()) == own


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", 1), "topic"),
        (("x" * 191, 1), "topic"),
        ((7, 1), "topic"),
        (("t", object()), "payload .* JSON"),
        (("t", {1: 2}), "payload .* JSON"),
        (("t", 1, b"k"), "key"),
        (("t", 1, True), "key"),
        (("t", 1, ""), "key"),
        (("t", 1, "é" * 128), "key"),
        (("t", 1, 1.5), "key"),
    ],
)
def test_what_cannot_be_an_event_is_refused_before_anything_is_sent(
    shop: Any, io: IO, databases: Databases, arguments: Any, message: str
) -> None:
    with io.entered(shop.shard(1).transaction()) as tx:
        topic, payload, *key = arguments
        with pytest.raises(ParameterError, match=message):
            io(tx.outbox(topic, payload, **({"key": key[0]} if key else {})))
    assert statuses(databases) == {}
    assert databases.value(1, "SELECT COUNT(*) FROM dualdb_outbox_key") == 0


def test_the_error_of_a_missing_table_names_what_makes_it(
    db: Any, io: IO, databases: Databases
) -> None:
    drop(databases)
    for key in (None, "k"):
        with pytest.raises(ProgrammingError, match="dualdb init"):
            publish(io, db.shard(1), 1, key=key)
    with pytest.raises(ProgrammingError):
        consume(io, db, Handler(io))


def test_events_of_one_key_come_in_the_order_of_their_commits(
    shop: Any, io: IO, databases: Databases
) -> None:
    """The one that began first, and inserts last, comes second."""
    shard = shop.shard(1)
    handler = Handler(io)
    with io.entered(shard.transaction()) as first:
        assert io(first.query_value("SELECT 1")) == 1
        io.in_other_caller(
            io.block(shard.transaction, lambda tx: (yield tx.outbox("t", "before", key="k")))
        )
        io(first.outbox("t", "late", key="k"))
        consume(io, shop, handler)
        assert handler.payloads == ["before"]
    consume(io, shop, handler)
    assert handler.payloads == ["before", "late"]


@pytest.mark.slow
def test_many_producers_and_consumers_lose_nothing_and_keep_the_order(
    shop: Any, io: IO, databases: Databases
) -> None:
    databases.run(
        1,
        "DROP TABLE IF EXISTS counter",
        "CREATE TABLE counter (k INT PRIMARY KEY, n INT NOT NULL)",
        "INSERT INTO counter VALUES (0, 0), (1, 0), (2, 0), (3, 0), (4, 0)",
    )
    shard = shop.shard(1)

    def producer(number: int) -> Callable[[], Any]:
        def body(tx: Any) -> Any:
            key = number % 5
            yield tx.outbox("loose", [number])
            yield tx.execute("UPDATE counter SET n = n + 1 WHERE k = %s", (key,))
            n = yield tx.query_value("SELECT n FROM counter WHERE k = %s", (key,))
            yield tx.outbox("t", n, key=key)
            if number % 7 == 0:
                yield tx.execute("UPDATE counter SET n = n - 1 WHERE k = %s", (key,))
                raise Rollback

        return lambda: shard.run(io.function(body), attempts=50)

    lock = threading.Lock()
    seen: List[OutboxEvent] = []

    def take(event: OutboxEvent) -> Any:
        yield io.pause(0.001)
        with lock:
            seen.append(event)

    calls: List[Callable[[], Any]] = [producer(number) for number in range(100)]
    enough = [sum(number % 7 != 0 for number in range(100)) * 2]
    for _ in range(3):
        calls.append(
            lambda: shop.outbox.consume(
                io.function(take),
                concurrency=2,
                batch=5,
                poll_interval=0.01,
                stop=lambda: len(seen) >= enough[0],
            )
        )
    for outcome in io.concurrently(calls):
        assert not isinstance(outcome, BaseException), outcome
    assert consume(io, shop, Handler(io)) == ConsumeReport()
    assert len({each.id for each in seen}) == len(seen) == enough[0]
    for key in range(5):
        numbers = [each.payload for each in seen if each.key == str(key)]
        assert numbers == list(range(1, len(numbers) + 1))
    assert len([each for each in seen if each.topic == "loose"]) == enough[0] // 2
    databases.run(1, "DROP TABLE counter")


def test_what_failed_comes_again_and_its_key_waits(shop: Any, io: IO, databases: Databases) -> None:
    publish(io, shop.shard(1), "a1", "a2", key="a")
    publish(io, shop.shard(1), "b1", "b2", key="b")
    publish(io, shop.shard(1), "loose")
    broken = [True]

    def fails(event: OutboxEvent) -> Optional[Exception]:
        return ValueError("no") if broken[0] and event.payload in ("a1", "loose") else None

    handler = Handler(io, fails)
    report = consume(io, shop, handler, retry_delay=300)
    assert report == ConsumeReport(delivered=2, failed=2)
    assert handler.payloads == ["b1", "b2"]
    status: OutboxStatus = io(shop.outbox.status())
    assert (status.pending, status.dead, status.errors) == (3, 0, {})
    (one,) = [each for each in status.databases if each.database == "1"]
    assert (one.pending, one.waiting, one.oldest_seconds is not None) == (3, 2, True)
    waits = "SELECT MIN(TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), retry_at)) FROM dualdb_outbox_retry"
    assert 290 < databases.value(1, waits) <= 300
    errors = "SELECT DISTINCT error FROM dualdb_outbox WHERE attempts = 1"
    assert databases.run(1, errors) == [{"error": "ValueError: no"}]
    assert consume(io, shop, handler) == ConsumeReport()
    retries_are_due(databases)
    broken[0] = False
    assert consume(io, shop, handler) == ConsumeReport(delivered=3)
    assert [each.payload for each in handler.events if each.key == "a"] == ["a1", "a2"]
    assert {each.payload: each.attempt for each in handler.events[2:]} == {
        "a1": 2, "a2": 1, "loose": 2,
    }  # fmt: skip
    assert databases.value(1, "SELECT COUNT(*) FROM dualdb_outbox_retry") == 0


def test_what_fails_too_often_is_given_up_and_its_key_goes_on(
    shop: Any, io: IO, databases: Databases
) -> None:
    (poison,) = publish(io, shop.shard(1), {"bad": 1}, key="a")
    publish(io, shop.shard(1), "a2", key="a")
    handler = Handler(io, lambda event: KeyError("x") if event.id == poison else None)
    assert consume(io, shop, handler, max_attempts=2, retry_delay=0) == ConsumeReport(1, 1, 1)
    assert handler.payloads == ["a2"]
    (dead,) = io(shop.outbox.dead())
    assert (dead.database, dead.id, dead.topic, dead.key) == ("1", poison, "t", "a")
    assert (dead.payload, dead.attempts, dead.error) == ('{"bad": 1}', 2, "KeyError: 'x'")
    assert io(shop.outbox.status()).dead == 1
    assert io(shop.outbox.requeue([])) == 0
    assert io(shop.outbox.requeue(["other"])) == 0
    with pytest.raises(ParameterError, match="written \\[event_id\\]"):
        io(shop.outbox.requeue(poison))
    assert io(shop.outbox.requeue([poison])) == 1
    well = Handler(io)
    assert consume(io, shop, well) == ConsumeReport(delivered=1)
    assert (well.events[0].id, well.events[0].attempt) == (poison, 1)
    assert io(shop.outbox.requeue()) == 0


def test_a_payload_that_is_no_json_is_given_up_in_the_end(
    shop: Any, io: IO, databases: Databases
) -> None:
    publish(io, shop.shard(1), 1)
    databases.run(1, "UPDATE dualdb_outbox SET payload = '{'")
    assert consume(io, shop, Handler(io), max_attempts=1) == ConsumeReport(dead=1)


def test_a_consumer_that_is_gone_is_replaced_when_its_lease_is_over(
    shop: Any, io: IO, databases: Databases
) -> None:
    publish(io, shop.shard(1), 1, 2, key="k")
    assert consume(io, shop, Handler(io), stop=lambda: True) == ConsumeReport()
    databases.run(
        1,
        "INSERT IGNORE INTO dualdb_outbox_lease VALUES "
        + ", ".join([f"('dualdb_outbox', {part}, NULL, NOW())" for part in range(consumer.PARTS)]),
        "UPDATE dualdb_outbox_lease SET owner = 'gone', "
        "lease_until = UTC_TIMESTAMP(6) + INTERVAL 60 SECOND",
    )
    handler = Handler(io)
    assert consume(io, shop, handler) == ConsumeReport()
    databases.run(1, "UPDATE dualdb_outbox_lease SET lease_until = UTC_TIMESTAMP(6)")
    assert consume(io, shop, handler) == ConsumeReport(delivered=2)
    assert handler.payloads == [1, 2]


def test_who_has_lost_its_lease_stops_and_nothing_is_lost(
    shop: Any, io: IO, databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    """The handler takes longer than half of the lease, and another one has taken it."""
    publish(io, shop.shard(1), 1, 2, 3, key="k")
    clock = itertools.count(0, 20)
    handler = Handler(io)

    def slow(event: OutboxEvent) -> Any:
        yield io.pause(0)
        handler.events.append(event)
        if event.payload == 2:
            databases.run(
                1, "UPDATE dualdb_outbox_lease SET owner = 'other' WHERE owner IS NOT NULL"
            )

    outbox = shop.outbox
    options = consumer.Options([1], 100, 30.0, 1, 0.0, 5, 1.0, 1.0, None, True, None)
    made = consumer.Consumer(
        outbox._databases, outbox.table, io.function(slow), options,
        clock=lambda: float(next(clock)),
    )  # fmt: skip
    report = io(outbox._run(made.run()))
    assert report == ConsumeReport(delivered=2)
    assert "longer than the lease" in caplog.text
    assert statuses(databases) == {"pending": 1, "published": 2}
    databases.run(1, "UPDATE dualdb_outbox_lease SET lease_until = UTC_TIMESTAMP(6)")
    consume(io, shop, handler)
    assert handler.payloads == [1, 2, 3]


def test_what_breaks_into_a_batch_does_not_lose_what_was_done(
    shop: Any, io: IO, databases: Databases
) -> None:
    publish(io, shop.shard(1), 1, 2, 3, key="k")
    waits: List[int] = []

    def body(event: OutboxEvent) -> Any:
        if event.payload == 2:
            waits.append(1)
            yield io.pause(30)
        yield io.pause(0)

    io.interrupted(lambda: shop.outbox.consume(io.function(body), until_idle=True))
    assert waits == [1]
    assert statuses(databases) == {"pending": 2, "published": 1}
    leases = "SELECT COUNT(*) FROM dualdb_outbox_lease WHERE owner IS NOT NULL"
    assert databases.value(1, leases) == 0


@pytest.mark.parametrize("retention", [0, None, 3600])
def test_what_was_delivered_is_kept_for_a_time(
    shop: Any, io: IO, databases: Databases, retention: Any
) -> None:
    publish(io, shop.shard(1), 1, 2)
    consume(io, shop, Handler(io), retention=retention)
    databases.run(1, "UPDATE dualdb_outbox SET published_at = NOW(6) - INTERVAL 2 HOUR")
    assert statuses(databases) == ({} if retention == 0 else {"published": 2})
    publish(io, shop.shard(1), 3)
    consume(io, shop, Handler(io), retention=retention)
    expected: Dict[Any, Any] = {0: {}, None: {"published": 3}, 3600: {"published": 1}}
    assert statuses(databases) == expected[retention]
    assert io(shop.outbox.sweep()) == 0
    assert io(shop.outbox.sweep(retention=0, dry_run=True)) == sum(expected[retention].values())
    assert statuses(databases) == expected[retention]
    assert io(shop.outbox.sweep(retention=0)) == sum(expected[retention].values())


def test_rows_of_keys_that_are_not_used_are_swept(shop: Any, io: IO, databases: Databases) -> None:
    publish(io, shop.shard(1), 1, key="old")
    publish(io, shop.shard(1), 1, key="young")
    databases.run(
        1,
        "UPDATE dualdb_outbox_key SET touched_at = NOW() - INTERVAL 2 DAY WHERE event_key = 'old'",
    )
    io(shop.outbox.sweep())
    assert databases.run(1, "SELECT event_key AS k FROM dualdb_outbox_key") == [{"k": b"young"}]


def test_a_shard_that_is_away_does_not_keep_the_others_waiting(
    shop: Any, io: IO, databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    databases.set_row(3, port=1)
    io(shop.refresh())
    publish(io, shop.shard(1), 1)
    handler = Handler(io)
    stop = itertools.count()
    io(
        shop.outbox.consume(
            handler.function,
            poll_interval=0.01,
            stop=lambda: (handler.events and "shard 3" in caplog.text) or next(stop) > 500,
        )
    )
    assert handler.payloads == [1]
    assert "shard 3: the outbox is not consumed for" in caplog.text
    status = io(shop.outbox.status())
    assert list(status.errors) == ["3"]
    assert [each.database for each in status.databases] == ["global", "1", "2"]


def test_what_is_asked_of_all_is_done_where_a_shard_is_away(
    shop: Any, io: IO, databases: Databases
) -> None:
    databases.set_row(3, port=1)
    io(shop.refresh())
    (poison,) = publish(io, shop.shard(1), 1)
    publish(io, shop.shard(2), 2)

    def refuse_the_first(event: Any) -> Any:
        return ValueError("no") if event.id == poison else None

    report = consume(io, shop, Handler(io, refuse_the_first), max_attempts=1)
    assert (report.delivered, report.dead, report.ok) == (1, 1, False)
    assert list(report.errors) == ["3"]

    dead = io(shop.outbox.dead())
    assert ([each.id for each in dead], len(dead), dead[0].id) == ([poison], 1, poison)
    assert (list(dead.errors), dead.ok) == (["3"], False)
    assert dead.to_dict()["events"][0]["id"] == poison
    for dry_run in (True, False):
        count = io(shop.outbox.requeue(dry_run=dry_run))
        assert (count, list(count.errors)) == (1, ["3"])
        assert pickle.loads(pickle.dumps(count)).errors == count.errors
    report = consume(io, shop, Handler(io))
    assert (report.delivered, report.dead, report.ok) == (1, 0, False)
    for dry_run in (True, False):
        count = io(shop.outbox.sweep(retention=0, dry_run=dry_run))
        assert (count, list(count.errors)) == (2, ["3"])


def test_nothing_but_the_error_is_left_where_no_database_can_be_asked(
    shop: Any, io: IO, databases: Databases
) -> None:
    databases.set_row(3, port=1)
    io(shop.refresh())
    with pytest.raises(ShardUnavailable, match="Shard 3"):
        consume(io, shop, Handler(io), shards=3)
    assert consume(io, shop, Handler(io), shards="1,2").ok


@pytest.mark.parametrize("limit", [-1, None, "1", True])
def test_a_limit_that_is_no_number_is_refused(shop: Any, io: IO, limit: Any) -> None:
    with pytest.raises(ParameterError):
        io(shop.outbox.dead(limit=limit))


@pytest.mark.parametrize("retention", [-1, None, "1"])
def test_a_retention_that_is_no_time_is_refused(shop: Any, io: IO, retention: Any) -> None:
    for dry_run in (True, False):
        with pytest.raises(ParameterError):
            io(shop.outbox.sweep(retention=retention, dry_run=dry_run))


def test_a_new_shard_without_tables_does_not_end_the_others(
    shop: Any, io: IO, databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    databases.run(2, f"DROP TABLE {TABLES}")
    publish(io, shop.shard(1), 1)
    handler = Handler(io)
    stop = itertools.count()
    io(
        shop.outbox.consume(
            handler.function,
            poll_interval=0.01,
            stop=lambda: (handler.events and "shard 2" in caplog.text) or next(stop) > 500,
        )
    )
    assert handler.payloads == [1]
    assert "shard 2: the outbox is not consumed for" in caplog.text


@pytest.mark.parametrize(
    "option",
    [
        {"batch": 0},
        {"concurrency": True},
        {"max_attempts": 1.5},
        {"lease": 0.5},
        {"poll_interval": -1},
        {"retention": "x"},
        {"stop": 1},
        {"shards": "nowhere"},
    ],
    ids=str,
)
def test_wrong_options_are_refused(shop: Any, io: IO, option: Any) -> None:
    with pytest.raises(ParameterError):
        consume(io, shop, Handler(io), **option)
    with pytest.raises(ParameterError, match="handler"):
        io(shop.outbox.consume(None))


def test_consuming_is_no_part_of_the_caller_s_transaction(
    shop: Any, io: IO, databases: Databases
) -> None:
    publish(io, shop.shard(1), 1)
    with contextlib.suppress(KeyError), io.entered(shop.shard(1).transaction()) as tx:
        io(tx.execute(INSERT, (1,)))
        consume(io, shop, Handler(io))
        raise KeyError
    assert statuses(databases) == {"published": 1}


# A table of the application's.

PLAIN = """CREATE TABLE app_events (
    event_no BIGINT AUTO_INCREMENT PRIMARY KEY, kind VARCHAR(40) NOT NULL, room VARCHAR(40),
    body JSON NOT NULL, state VARCHAR(10) NOT NULL DEFAULT 'new', done_at DATETIME NULL
)"""
PLAIN_TABLE = OutboxTable(
    "app_events",
    id_column="event_no",
    topic_column="kind",
    key_columns=("room",),
    payload_column="body",
    order_by=("event_no",),
    status_column="state",
    pending=("new", "again"),
    published="done",
    dead="lost",
    created_at_column=None,
    published_at_column="done_at",
    attempts_column=None,
    error_column=None,
    key_table="app_rooms",
    counter_column="events",
    new_id=None,
)
ORIGINAL = [
    """CREATE TABLE universal_outbox (
        id VARCHAR(36) NOT NULL, domain VARCHAR(50) NOT NULL, partition_key VARCHAR(128) NOT NULL,
        sequence_no BIGINT NOT NULL, event_type VARCHAR(100) NOT NULL,
        aggregate_id VARCHAR(128) NOT NULL, event_data JSON NOT NULL,
        status ENUM('pending', 'published', 'failed', 'dead_letter') NOT NULL DEFAULT 'pending',
        retry_count INT NOT NULL DEFAULT 0, max_retries INT NOT NULL DEFAULT 3,
        created_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
        updated_at DATETIME DEFAULT NULL ON UPDATE CURRENT_TIMESTAMP,
        published_at DATETIME DEFAULT NULL, error_message TEXT DEFAULT NULL, PRIMARY KEY (id),
        UNIQUE KEY (domain, partition_key, sequence_no), INDEX (status, created_at)
    ) DEFAULT CHARSET=utf8mb4""",
    """CREATE TABLE outbox_sequences (
        domain VARCHAR(50) NOT NULL, partition_key VARCHAR(128) NOT NULL,
        next_sequence BIGINT NOT NULL DEFAULT 1,
        updated_at DATETIME DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
        PRIMARY KEY (domain, partition_key)
    ) DEFAULT CHARSET=utf8mb4""",
]
ORIGINAL_TABLE = OutboxTable(
    "universal_outbox",
    topic_column="event_type",
    key_columns=("domain", "partition_key"),
    payload_column="event_data",
    order_by=("sequence_no",),
    dead="dead_letter",
    attempts_column="retry_count",
    error_column="error_message",
    sequence_column="sequence_no",
    key_table="outbox_sequences",
    counter_column="next_sequence",
)


@pytest.fixture
def original(databases: Databases, open_service: Any, io: IO) -> Iterator[Any]:
    """A service on the original service's table of events, on shard 1."""
    drop(databases)
    databases.run(1, "DROP TABLE IF EXISTS universal_outbox, outbox_sequences", *ORIGINAL)
    db = open_service(outbox=ORIGINAL_TABLE)
    io(db.outbox.create_tables())
    yield db
    drop(databases)
    databases.run(1, "DROP TABLE universal_outbox, outbox_sequences")


def test_the_original_service_s_table_is_used_as_it_is(
    original: Any, io: IO, databases: Databases
) -> None:
    more = {"domain": "chat", "aggregate_id": "9"}
    with io.entered(original.shard(1).transaction()) as tx:
        io(tx.outbox("message_sent", {"n": 1}, key="room-1", columns=more))
    # what the application's own procedure writes
    databases.run(
        1,
        "UPDATE outbox_sequences SET next_sequence = next_sequence + 1",
        "INSERT INTO universal_outbox (id, domain, partition_key, sequence_no, event_type, "
        "aggregate_id, event_data) VALUES "
        """(UUID(), 'chat', 'room-1', 2, 'message_sent', '9', '{"n": 2}')""",
    )
    with io.entered(original.shard(1).transaction()) as tx:
        io(tx.outbox("message_sent", {"n": 3}, key="room-1", columns=more))
        io(tx.outbox("price", {"n": 1}, key="ABC", columns={**more, "domain": "market"}))
        with pytest.raises(ParameterError, match="domain"):
            io(tx.outbox("message_sent", {"n": 4}, key="room-1"))
        with pytest.raises(ParameterError, match="needs a key"):
            io(tx.outbox("message_sent", {"n": 4}, columns=more))
    handler = Handler(io, lambda event: ValueError("no") if event.payload == {"n": 2} else None)
    report = consume(io, original, handler, shards=1, retry_delay=0, max_attempts=3)
    assert report == ConsumeReport(3, 2, 1)
    room = [each.payload["n"] for each in handler.events if each.key == "room-1"]
    assert room == [1, 3]
    rows = databases.run(
        1,
        "SELECT status, retry_count AS n, error_message AS e, published_at IS NULL AS p "
        "FROM universal_outbox WHERE domain = 'chat' ORDER BY sequence_no",
    )
    assert [tuple(row.values()) for row in rows] == [
        ("published", 0, None, 0),
        ("dead_letter", 3, "ValueError: no", 1),
        ("published", 0, None, 0),
    ]
    sequences = "SELECT next_sequence AS n FROM outbox_sequences ORDER BY domain"
    assert [row["n"] for row in databases.run(1, sequences)] == [4, 2]


def test_a_table_whose_ids_the_database_makes(
    databases: Databases, open_service: Any, io: IO
) -> None:
    drop(databases)
    databases.run(
        2,
        "DROP TABLE IF EXISTS app_events, app_rooms",
        PLAIN,
        "CREATE TABLE app_rooms (room VARCHAR(40) PRIMARY KEY, events INT NOT NULL)",
    )
    db = open_service(outbox=PLAIN_TABLE)
    io(db.outbox.create_tables())
    first, second = publish(io, db.shard(2), "a", "b", key="r")
    (third,) = publish(io, db.shard(2), {"x": [1]})
    assert 0 < int(first) < int(second) < int(third)
    databases.run(2, f"UPDATE app_events SET state = 'again' WHERE event_no = {second}")
    handler = Handler(io)
    assert consume(io, db, handler, shards=2) == ConsumeReport(delivered=3)
    assert [each.id for each in handler.events if each.key == "r"] == [first, second]
    assert io(db.outbox.status(shards=2)).pending == 0
    assert databases.value(2, "SELECT COUNT(*) FROM app_events WHERE state = 'done'") == 3
    databases.run(2, "DROP TABLE app_events, app_rooms")
    drop(databases)


def test_what_becomes_of_deliveries_are_events(
    shop: Any, io: IO, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: List[CoordinationEvent] = []
    for name in ("outbox_lag", "outbox_delivered", "outbox_failed", "outbox_dead"):
        shop.on(name, seen.append)
    publish(io, shop.shard(1), "canary", "fails", "canary")
    databases.run(1, "UPDATE dualdb_outbox SET created_at = created_at - INTERVAL 90 SECOND")
    monkeypatch.setattr(consumer, "MEASURE_INTERVAL", 0.0)
    handler = Handler(io, lambda event: KeyError() if event.payload == "fails" else None)
    consume(io, shop, handler, max_attempts=2)
    retries_are_due(databases)
    consume(io, shop, handler, max_attempts=2)

    def lags() -> List[CoordinationEvent]:
        return [each for each in seen if each.name == "outbox_lag" and each.shard_id == 1]

    io.wait_for(lambda: [each for each in seen if each.name == "outbox_dead"])
    # Measured afterwards, and perhaps called in the next round of the background.
    io.wait_for(lambda: lags()[-1].number == 0)
    counted: Dict[str, int] = {}
    for each in seen:
        if each.name != "outbox_lag":
            assert (each.target, each.shard_id) == ("shard 1", 1)
            counted[each.name] = counted.get(each.name, 0) + each.number
    assert counted == {"outbox_delivered": 2, "outbox_failed": 1, "outbox_dead": 1}
    assert lags()[0].number == 3
    assert lags()[0].seconds >= 90
    assert lags()[-1].seconds == 0.0
    assert "canary" not in repr([each.as_dict() for each in seen])
