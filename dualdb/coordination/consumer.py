"""Delivery of the outbox's events: ``db.outbox``.

The keys of each database are divided into parts, and a part has a lease: a row that
says who delivers its events now, and until when. Events are found by their status and
never by a position, because a row may appear below one that was read before. A consumer
takes a lease, reads events in order, calls the handler for one after the other, marks
what was delivered, and gives the lease back. Where it dies in between, the lease ends
by itself, and the events that were not marked are delivered again.
"""

import logging
import random
import secrets
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from .. import deadlines, error_codes, errors
from ..api.database_client import BaseDatabaseClient
from ..directory import keys
from ..execution import retry, steps, verbs
from ..execution.detached import DetachedExecutor
from ..observability.events import CoordinationEventName
from ..observability.logs import about
from ..observability.observers import Observers
from ..operations import rollout
from ..operations.places import Databases, Shards, name_of
from ..results import Row
from ..sql.identifiers import quoted
from . import json_text
from .outbox import LEASES, RETRIES, OutboxEvent, OutboxTable
from .outbox_reports import ConsumeReport, DatabaseOutbox, DeadEvent

log = logging.getLogger("dualdb.coordination")

#: The number of parts of each database: the most consumers that it can have at a time.
#: The same in all versions: two consumers that divide keys differently would deliver
#: one key at the same time.
PARTS = 32

#: Seconds between two deletions of old events in one database by one consumer.
SWEEP_INTERVAL = 60.0

#: Seconds between two measurements of the lag of one database by one consumer.
MEASURE_INTERVAL = 10.0

#: The most rows of one deletion.
SWEEP_ROWS = 1000

#: Seconds after which the row of a key, which producers lock, is deleted.
KEY_RETENTION = 86_400.0

#: The longest text of an error that is kept, in characters.
ERROR_LENGTH = 2000

#: How often a statement is sent again that conflicts with others.
WRITE_ATTEMPTS = 5

_NOW = "UTC_TIMESTAMP(6)"

#: By what became of deliveries.
_EVENTS: Dict[str, CoordinationEventName] = {
    "delivered": "outbox_delivered",
    "failed": "outbox_failed",
    "dead": "outbox_dead",
}


class Options(NamedTuple):
    """The arguments of ``consume``."""

    shards: Shards
    batch: int
    lease: float
    concurrency: int
    poll_interval: float
    max_attempts: int
    retry_delay: float
    max_retry_delay: float
    retention: Optional[float]
    until_idle: bool
    stop: Optional[Callable[[], Any]]

    def checked(self) -> "Options":
        """Validate the options and return them.

        Raises:
            ParameterError: One is wrong.
        """
        for name in ("batch", "concurrency", "max_attempts"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise errors.ParameterError(f"{name} must be a number from 1 up, not {value!r}")
        for name in ("poll_interval", "retry_delay", "max_retry_delay"):
            deadlines.seconds(getattr(self, name))
        if self.retention is not None:
            deadlines.seconds(self.retention)
        if deadlines.seconds(self.lease) < 1.0:
            raise errors.ParameterError("lease must be a number of seconds from 1 up")
        if self.stop is not None and not callable(self.stop):
            raise errors.ParameterError("stop must be a function without arguments")
        return self


def retry_delay(attempt: int, first: float, longest: float) -> float:
    """Return the seconds until a failed event is delivered again, doubled with each
    failure.

    Args:
        attempt: The number of failures so far, from 1.
        first: Seconds after the first failure.
        longest: The most seconds.
    """
    return float(min(longest, first * 2.0 ** min(attempt - 1, 32)))


class _Found(NamedTuple):
    """An event as it was read.

    Attributes:
        id: The value of the id column.
        blocked: What orders it: its key, or its id if it has no key.
        row: The row.
        failures: The number of failed deliveries.
    """

    id: Any
    blocked: str
    row: Row
    failures: int


class Place:
    """The outbox of one database."""

    def __init__(self, client: BaseDatabaseClient, table: OutboxTable) -> None:
        self._client = client
        self._table = table
        self.name: str = client.name
        self.shard_id: Optional[int] = client.shard_id
        self._names = {
            "outbox": keys.quoted(table.table),
            "id": quoted(table.id_column),
            "key": quoted(table.key_columns[-1]),
            "status": quoted(table.status_column),
        }
        self._blocked = "COALESCE(e.{key}, e.{id})".format_map(self._names)
        self._part = f"MOD(CRC32({self._blocked}), {PARTS})"

    def route(self, until: Optional[float] = None) -> steps.Plan[steps.Executor]:
        """The route to the database, outside the caller's transactions."""
        yield from ()
        return DetachedExecutor(self._client)

    def rows(self, sql: str, *params: object) -> steps.Plan[List[Row]]:
        return (yield from verbs.query(self.route, sql, params, read_only=True))

    def write(self, sql: str, *params: object) -> steps.Plan[int]:
        """Run an idempotent statement; repeat it after a conflict."""
        for attempt in range(WRITE_ATTEMPTS):
            try:
                return (yield from verbs.execute(self.route, sql, params, idempotent=True))
            except (errors.Deadlock, errors.LockWaitTimeout):
                if attempt + 1 == WRITE_ATTEMPTS:
                    raise
            yield steps.Sleep(retry.backoff(attempt))
        raise AssertionError("unreachable")

    # Leases.

    def make_leases(self) -> steps.Plan[None]:
        """Insert the missing rows of the leases."""
        count = yield from self.rows(
            f"SELECT COUNT(*) AS n FROM {LEASES} WHERE outbox = %s", self._table.table
        )
        if count[0]["n"] < PARTS:
            values = ", ".join([f"(%s, {part}, {_NOW})" for part in range(PARTS)])
            yield from self.write(
                f"INSERT IGNORE INTO {LEASES} (outbox, part, lease_until) VALUES {values}",
                *[self._table.table] * PARTS,
            )

    def take(self, parts: Sequence[int], owner: str, seconds: float) -> steps.Plan[Optional[int]]:
        """Take the lease of one of these parts; return None if other consumers have
        them all.
        """
        for part in parts:
            taken = yield from self.write(
                f"UPDATE {LEASES} SET owner = %s, lease_until = {_NOW} + INTERVAL %s SECOND "
                f"WHERE outbox = %s AND part = %s AND (lease_until <= {_NOW} OR owner = %s)",
                owner, seconds, self._table.table, part, owner,
            )  # fmt: skip
            if taken:
                return part
        return None

    def renew(self, part: int, owner: str, seconds: float) -> steps.Plan[bool]:
        """Extend the lease; return False if another consumer has it."""
        renewed = yield from self.write(
            f"UPDATE {LEASES} SET lease_until = {_NOW} + INTERVAL %s SECOND "
            "WHERE outbox = %s AND part = %s AND owner = %s",
            seconds, self._table.table, part, owner,
        )  # fmt: skip
        return bool(renewed)

    def release(self, part: int, owner: str) -> steps.Plan[None]:
        """Release the lease."""
        yield from self.write(
            f"UPDATE {LEASES} SET owner = NULL, lease_until = {_NOW} "
            "WHERE outbox = %s AND part = %s AND owner = %s",
            self._table.table, part, owner,
        )  # fmt: skip

    # Events.

    def _deliverable(self, columns: str, parts: Sequence[int]) -> str:
        """Return a query for the events that can be delivered now, in order.

        Its first parameter is the outbox, then come the statuses.
        """
        order = ", ".join([f"e.{quoted(name)}" for name in self._table.order_by])
        marks = ", ".join(["%s"] * len(self._table.pending))
        within = "" if len(parts) >= PARTS else f"AND {self._part} IN %s "
        return (
            f"SELECT {columns} FROM {self._names['outbox']} e LEFT JOIN {RETRIES} r "
            f"ON r.outbox = %s AND r.blocked = CONVERT({self._blocked} USING utf8mb4) "
            f"WHERE e.{self._names['status']} IN ({marks}) {within}"
            f"AND (r.blocked IS NULL OR r.retry_at <= {_NOW}) ORDER BY {order} LIMIT %s"
        )

    def _params(self, parts: Sequence[int], limit: int) -> List[Any]:
        within: List[Any] = [] if len(parts) >= PARTS else [tuple(parts)]
        return [self._table.table, *self._table.pending, *within, limit]

    def parts_with_events(self) -> steps.Plan[List[int]]:
        """Return the parts without a lease that have events, in random order."""
        free = yield from self.rows(
            f"SELECT part FROM {LEASES} WHERE outbox = %s AND lease_until <= {_NOW}",
            self._table.table,
        )
        parts = [int(row["part"]) for row in free]
        if not parts:
            return []
        sql = self._deliverable(f"{self._part} AS part", parts)
        found = yield from self.rows(sql, *self._params(parts, 100))
        distinct = list({int(row["part"]) for row in found})
        random.shuffle(distinct)
        return distinct

    def read(self, part: int, limit: int) -> steps.Plan[List[_Found]]:
        """Return the next events of a part."""
        table = self._table
        names = [table.id_column, table.topic_column, table.key_columns[-1], table.payload_column]
        if table.created_at_column is not None:
            names.append(table.created_at_column)
        columns = ", ".join([f"e.{quoted(name)} AS c{n}" for n, name in enumerate(names)])
        sql = self._deliverable(f"{columns}, r.event_id, r.attempts", [part])
        rows = yield from self.rows(sql, *self._params([part], limit))
        return [_found(row) for row in rows]

    def event(self, found: _Found) -> OutboxEvent:
        """Return the event for the handler.

        Raises:
            ValueError: Its payload is not JSON.
        """
        row = found.row
        return OutboxEvent(
            _text(row["c0"]),
            _text(row["c1"]),
            json_text.decoded(row["c3"]),
            None if row["c2"] is None else _text(row["c2"]),
            found.failures + 1,
            self.shard_id,
            row.get("c4"),
        )

    def mark(self, delivered: Sequence[_Found], retention: Optional[float]) -> steps.Plan[None]:
        """Mark events as delivered, or delete them if the retention is 0."""
        if not delivered:
            return
        table = self._table
        ids = tuple(each.id for each in delivered)
        where = f"WHERE {self._names['id']} IN %s AND {self._names['status']} IN %s"
        if retention == 0:
            sql = f"DELETE FROM {self._names['outbox']} {where}"
            yield from self.write(sql, ids, table.pending)
        else:
            at = table.published_at_column
            stamp = "" if at is None else f", {quoted(at)} = CURRENT_TIMESTAMP(6)"
            yield from self.write(
                f"UPDATE {self._names['outbox']} SET {self._names['status']} = %s{stamp} {where}",
                table.published, ids, table.pending,
            )  # fmt: skip
        again = tuple(each.blocked for each in delivered if each.row["event_id"] is not None)
        if again:
            yield from self._unblock(again)

    def fail(self, found: _Found, error: BaseException, delay: Optional[float]) -> steps.Plan[None]:
        """Record a failure; with ``delay`` None the event is dead."""
        text = f"{type(error).__name__}: {error}"[:ERROR_LENGTH]
        attempts = found.failures + 1
        changes, params = self._changes(text, attempts, dead=delay is None)
        if delay is not None:
            values = [_text(found.id), attempts, delay, text]
            retry_at = f"{_NOW} + INTERVAL %s SECOND"
            yield from self.write(
                f"INSERT INTO {RETRIES} (outbox, blocked, event_id, attempts, retry_at, error) "
                f"VALUES (%s, %s, %s, %s, {retry_at}, %s) ON DUPLICATE KEY UPDATE "
                f"event_id = %s, attempts = %s, retry_at = {retry_at}, error = %s",
                self._table.table, found.blocked, *values, *values,
            )  # fmt: skip
        if changes:
            yield from self.write(
                f"UPDATE {self._names['outbox']} SET {changes} WHERE {self._names['id']} = %s "
                f"AND {self._names['status']} IN %s",
                *params, found.id, self._table.pending,
            )  # fmt: skip
        if delay is None:
            yield from self._unblock((found.blocked,))

    def _changes(self, text: str, attempts: int, *, dead: bool) -> Tuple[str, List[Any]]:
        changed: Dict[str, Any] = {}
        if dead:
            changed[self._table.status_column] = self._table.dead
        if self._table.attempts_column is not None:
            changed[self._table.attempts_column] = attempts
        if self._table.error_column is not None:
            changed[self._table.error_column] = text
        return ", ".join([f"{quoted(name)} = %s" for name in changed]), list(changed.values())

    def _unblock(self, blocked: Tuple[str, ...]) -> steps.Plan[None]:
        yield from self.write(
            f"DELETE FROM {RETRIES} WHERE outbox = %s AND blocked IN %s",
            self._table.table, blocked,
        )  # fmt: skip

    def sweep(self, retention: Optional[float]) -> steps.Plan[int]:
        """Delete events that were delivered before the retention, and rows of keys that
        were not used lately; return the number of events.
        """
        table = self._table
        deleted = 0
        old_events = self._old_events()
        if retention is not None and old_events is not None:
            deleted = yield from self.write(
                f"DELETE {old_events} LIMIT {SWEEP_ROWS}", table.published, retention
            )
        yield from self.write(
            f"DELETE FROM {RETRIES} WHERE outbox = %s AND retry_at < {_NOW} - INTERVAL 7 DAY",
            table.table,
        )
        if table.key_table == OutboxTable.key_table and table.sequence_column is None:
            # One by one: each waits only for a producer that has locked it.
            old = yield from self.rows(
                "SELECT event_key FROM dualdb_outbox_key "
                "WHERE touched_at < NOW() - INTERVAL %s SECOND LIMIT 100",
                KEY_RETENTION,
            )
            for row in old:
                yield from self.write(
                    "DELETE FROM dualdb_outbox_key WHERE event_key = %s "
                    "AND touched_at < NOW() - INTERVAL %s SECOND",
                    row["event_key"], KEY_RETENTION,
                )  # fmt: skip
        return deleted

    def count_old(self, retention: float) -> steps.Plan[int]:
        """Return how many events ``sweep`` would delete."""
        old_events = self._old_events()
        if old_events is None:
            return 0
        found = yield from self.rows(
            f"SELECT COUNT(*) AS n {old_events}", self._table.published, retention
        )
        return int(found[0]["n"])

    def _old_events(self) -> Optional[str]:
        """Return FROM and WHERE for events that were delivered before a retention; None
        if there is no column for the time. The parameters are the status and seconds.
        """
        column = self._table.published_at_column
        if column is None:
            return None
        return (
            f"FROM {self._names['outbox']} WHERE {self._names['status']} = %s "
            f"AND {quoted(column)} < NOW(6) - INTERVAL %s SECOND"
        )

    # Reports and repairs.

    def status(self) -> steps.Plan[DatabaseOutbox]:
        """Return the numbers of pending, waiting and dead events."""
        table = self._table
        age = "NULL"
        if table.created_at_column is not None:
            age = f"TIMESTAMPDIFF(SECOND, MIN({quoted(table.created_at_column)}), NOW(6))"
        pending = yield from self.rows(
            f"SELECT COUNT(*) AS n, {age} AS age FROM {self._names['outbox']} "
            f"WHERE {self._names['status']} IN %s",
            table.pending,
        )
        dead = yield from self.rows(
            f"SELECT COUNT(*) AS n FROM {self._names['outbox']} WHERE {self._names['status']} = %s",
            table.dead,
        )
        waiting = yield from self.rows(
            f"SELECT COUNT(*) AS n FROM {RETRIES} WHERE outbox = %s AND retry_at > {_NOW}",
            table.table,
        )
        seconds = pending[0]["age"]
        return DatabaseOutbox(
            self.database,
            int(pending[0]["n"]),
            int(waiting[0]["n"]),
            int(dead[0]["n"]),
            None if seconds is None else max(0, int(seconds)),
        )

    @property
    def database(self) -> str:
        """Its name in reports."""
        return name_of(self.shard_id)

    def dead(self, limit: int) -> steps.Plan[List[DeadEvent]]:
        """Return dead events."""
        table = self._table
        columns = [table.id_column, table.topic_column, table.key_columns[-1], table.payload_column]
        texts = [f"{quoted(name)} AS c{n}" for n, name in enumerate(columns)]
        for name, column in (("attempts", table.attempts_column), ("error", table.error_column)):
            texts.append("NULL AS " + name if column is None else f"{quoted(column)} AS {name}")
        order = ", ".join([quoted(name) for name in table.order_by])
        rows = yield from self.rows(
            f"SELECT {', '.join(texts)} FROM {self._names['outbox']} "
            f"WHERE {self._names['status']} = %s ORDER BY {order} LIMIT %s",
            table.dead, limit,
        )  # fmt: skip
        return [
            DeadEvent(
                self.database,
                _text(row["c0"]),
                _text(row["c1"]),
                None if row["c2"] is None else _text(row["c2"]),
                _text(row["c3"]),
                row["attempts"],
                row["error"],
            )
            for row in rows
        ]

    def requeue(self, ids: Optional[Tuple[str, ...]], *, dry_run: bool) -> steps.Plan[int]:
        """Make dead events pending, or only count them; return their number."""
        table = self._table
        changed: Dict[str, Any] = {table.status_column: table.pending[0]}
        if table.attempts_column is not None:
            changed[table.attempts_column] = 0
        sets = ", ".join([f"{quoted(name)} = %s" for name in changed])
        which = f"WHERE {self._names['status']} = %s"
        params: Tuple[object, ...] = (table.dead,)
        if ids is not None:
            which += f" AND {self._names['id']} IN %s"
            params = (table.dead, ids)
        outbox = self._names["outbox"]
        if dry_run:
            found = yield from self.rows(f"SELECT COUNT(*) AS n FROM {outbox} {which}", *params)
            return int(found[0]["n"])
        return (
            yield from self.write(f"UPDATE {outbox} SET {sets} {which}", *changed.values(), *params)
        )


def _found(row: Row) -> _Found:
    identity = row["c0"]
    blocked = _text(identity if row["c2"] is None else row["c2"])
    failed = row["event_id"] is not None and _text(row["event_id"]) == _text(identity)
    return _Found(identity, blocked, row, int(row["attempts"]) if failed else 0)


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _is_passing(error: errors.Error) -> bool:
    """Return whether the error concerns one database only, so that the others continue:
    it is unreachable, or a new shard has no tables yet.
    """
    lacks_table = error.errno == error_codes.NO_SUCH_TABLE
    return lacks_table or isinstance(error, (errors.OperationalError, errors.RoutingError))


def places_of(databases: Databases, table: OutboxTable, shards: Shards) -> List[Place]:
    """Return the outboxes of the databases that accept writes now."""
    topology = databases.internals.lifecycle.require_open()
    found = []
    for chosen in databases.chosen(shards):
        client = (
            topology.global_client
            if chosen.shard_id is None
            else topology.clients.get(chosen.shard_id)
        )
        if client is not None and not client.shard_read_only:
            found.append(Place(client, table))
    return found


def unusable_rows(databases: Databases, shards: Shards) -> Dict[str, str]:
    """Return why shards cannot be used whose rows are wrong, by database."""
    return {
        each.name: f"its row cannot be used: {each.reason}"
        for each in databases.chosen(shards)
        if each.config is None
    }


class Consumer:
    """One call of ``consume``."""

    def __init__(
        self,
        databases: Databases,
        table: OutboxTable,
        handler: Callable[[OutboxEvent], Any],
        options: Options,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._databases = databases
        self._table = table
        self._handler = handler
        self._options = options
        self._clock = clock
        self._ended = False
        self._made: Set[str] = set()
        self._paused: Dict[str, Tuple[float, int]] = {}
        self._swept: Dict[str, float] = {}
        self._measured: Dict[str, float] = {}
        self._observers: Observers = databases.internals.observers
        self._counts = {"delivered": 0, "failed": 0, "dead": 0}
        self._visited: Set[str] = set()
        #: Of each database that cannot be asked now.
        self._errors: Dict[str, errors.Error] = {}

    def run(self) -> steps.Plan[ConsumeReport]:
        count = self._options.concurrency
        workers = tuple(steps.RunPlan(self._work()) for _ in range(count))
        try:
            if count == 1:
                yield workers[0]
            else:
                ended: List[Any] = yield steps.Gather(workers, count)
                for each in ended:
                    if isinstance(each, BaseException):
                        raise each
        finally:
            self._ended = True  # for the workers in other threads
        failures = list(self._errors.values())
        if self._options.until_idle and failures and not self._visited:
            raise failures[0]
        failed = unusable_rows(self._databases, self._options.shards)
        failed.update({name: rollout.message(each) for name, each in self._errors.items()})
        return ConsumeReport(**self._counts, errors=failed)

    def _stopped(self) -> bool:
        stop = self._options.stop
        return self._ended or (stop is not None and bool(stop()))

    def _work(self) -> steps.Plan[None]:
        try:
            while not self._stopped():
                if (yield from self._round()):
                    continue
                if self._options.until_idle:
                    return
                yield steps.Sleep(self._options.poll_interval)
        except BaseException:
            self._ended = True
            raise

    def _round(self) -> steps.Plan[int]:
        """Visit every database once; return the number of delivery attempts."""
        found = 0
        places = places_of(self._databases, self._table, self._options.shards)
        random.shuffle(places)
        for place in places:
            if self._stopped() or self._clock() < self._paused.get(place.name, (0.0, 0))[0]:
                continue
            try:
                found += yield from self._visit(place)
                self._paused.pop(place.name, None)
                self._errors.pop(place.database, None)
                self._visited.add(place.database)
            except errors.ServiceNotOpen:
                raise
            except errors.Error as error:
                if not _is_passing(error):
                    raise
                self._errors[place.database] = error
                self._pause(place, error)
        return found

    def _pause(self, place: Place, error: errors.Error) -> None:
        """Skip a database for a while after an error."""
        times = self._paused.get(place.name, (0.0, 0))[1]
        pause = retry.backoff(times, base=1.0, cap=30.0) + self._options.poll_interval
        self._paused[place.name] = (self._clock() + pause, times + 1)
        log.warning(
            "%s: the outbox is not consumed for %.1f s: %s",
            place.name,
            pause,
            error,
            extra=about("outbox_paused", place),
        )

    def _visit(self, place: Place) -> steps.Plan[int]:
        """Deliver one batch of a database; return the number of delivery attempts."""
        if place.name not in self._made:
            yield from place.make_leases()
            self._made.add(place.name)
        yield from self._measure(place)
        parts = yield from place.parts_with_events()
        owner = secrets.token_hex(16)
        began = self._clock()
        part = (yield from place.take(parts, owner, self._options.lease)) if parts else None
        if part is None:
            yield from self._sweep(place)
            return 0
        batch = _Batch(
            place,
            (part, owner),
            self._options,
            began=began,
            clock=self._clock,
            stopped=self._stopped,
        )
        yield from batch.deliver(self._handler)
        for name, count in batch.counts().items():
            self._counts[name] += count
            if count:
                self._observers.post_coordination(
                    _EVENTS[name], place.name, place.shard_id, number=count
                )
        return batch.tried

    def _measure(self, place: Place) -> steps.Plan[None]:
        """Measure the lag of deliveries, if there is a hook for it."""
        if not self._observers.hooks("outbox_lag"):
            return
        if not self._is_due(self._measured, place, MEASURE_INTERVAL):
            return
        found = yield from place.status()
        seconds = float(found.oldest_seconds or 0)
        self._observers.post_coordination(
            "outbox_lag", place.name, place.shard_id, seconds=seconds, number=found.pending
        )

    def _sweep(self, place: Place) -> steps.Plan[None]:
        if self._is_due(self._swept, place, SWEEP_INTERVAL):
            yield from place.sweep(self._options.retention)

    def _is_due(self, last: Dict[str, float], place: Place, interval: float) -> bool:
        """Return whether the interval since the last time has passed for a database; if
        so, begin a new one.
        """
        now = self._clock()
        if now - last.get(place.name, float("-inf")) < interval:
            return False
        last[place.name] = now
        return True


class _Batch:
    """Events of one part that are delivered under one lease.

    Args:
        place: The outbox.
        lease: The part, and the mark of who has its lease.
        options: Those of ``consume``.
        began: When the lease was asked for, by ``clock``.
        clock: Gives the time.
        stopped: Whether to end.
    """

    def __init__(
        self,
        place: Place,
        lease: Tuple[int, str],
        options: Options,
        *,
        began: float,
        clock: Callable[[], float],
        stopped: Callable[[], bool],
    ) -> None:
        self._place = place
        self._lease = lease
        self._options = options
        self._clock = clock
        self._stopped = stopped
        #: When half of the lease is over, by the clock.
        self._renew_at = began + options.lease / 2
        self._delivered: List[_Found] = []
        self._failed: List[Tuple[_Found, BaseException]] = []
        self._is_lost = False

    @property
    def tried(self) -> int:
        """The number of delivery attempts."""
        return len(self._delivered) + len(self._failed)

    def counts(self) -> Dict[str, int]:
        """Return the number of events by their outcome."""
        dead = sum(self._delay(found) is None for found, _ in self._failed)
        return {
            "delivered": len(self._delivered), "failed": len(self._failed) - dead, "dead": dead,
        }  # fmt: skip

    def deliver(self, handler: Callable[[OutboxEvent], Any]) -> steps.Plan[None]:
        """Deliver the events, and record the outcomes."""
        try:
            events = yield from self._place.read(self._lease[0], self._options.batch)
            yield from self._each(events, handler)
        except GeneratorExit:
            raise
        except BaseException:
            # of what was delivered before, as little as possible is delivered again
            yield from self._record()
            raise
        yield from self._record()

    def _each(
        self, events: List[_Found], handler: Callable[[OutboxEvent], Any]
    ) -> steps.Plan[None]:
        blocked: Set[str] = set()
        for found in events:
            if found.blocked in blocked:
                continue
            if self._stopped() or not (yield from self._has_lease()):
                return
            try:
                event = self._place.event(found)
                yield steps.CallUser(handler, event)
            except Exception as error:
                log.warning(
                    "%s: event %s failed for the %d. time",
                    self._place.name,
                    _text(found.id),
                    found.failures + 1,
                    exc_info=error,
                    extra=about("outbox_delivery_failed", self._place),
                )
                blocked.add(found.blocked)
                self._failed.append((found, error))
            else:
                self._delivered.append(found)

    def _has_lease(self) -> steps.Plan[bool]:
        """Renew the lease if half of it has passed; return False if another consumer
        has it.
        """
        now = self._clock()
        if now < self._renew_at:
            return True
        if not (yield from self._place.renew(*self._lease, self._options.lease)):
            self._is_lost = True
            log.warning(
                "%s: the handler took longer than the lease of %g s, and another consumer "
                "delivers the same events",
                self._place.name,
                self._options.lease,
                extra=about("outbox_lease_exceeded", self._place),
            )
            return False
        self._renew_at = now + self._options.lease / 2
        return True

    def _delay(self, found: _Found) -> Optional[float]:
        options = self._options
        attempts = found.failures + 1
        if attempts >= options.max_attempts:
            return None
        return retry_delay(attempts, options.retry_delay, options.max_retry_delay)

    def _record(self) -> steps.Plan[None]:
        yield from self._place.mark(self._delivered, self._options.retention)
        if self._is_lost:
            return  # what failed is another consumer's now
        for found, error in self._failed:
            yield from self._place.fail(found, error, self._delay(found))
        yield from self._place.release(*self._lease)
