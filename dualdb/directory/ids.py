"""Ids that are unique everywhere, ordered by time, and name their shard.

An id is a positive signed BIGINT of 63 bits: milliseconds, a sequence number, the
worker (a process) and the shard, from the highest bit to the lowest. A worker's number
is leased from a table of the global database, so no two processes have the same one.
"""

import datetime
import logging
import secrets
import threading
import time
from typing import Any, Callable, Generic, List, NamedTuple, Optional, Union

from .. import error_codes, errors
from ..api.typevars import IntR
from ..execution import retry, steps, verbs
from ..execution.detached import DetachedExecutor
from ..observability.logs import about
from ..sql.parameters import Params
from ..topology import routing
from .keys import quoted

log = logging.getLogger("dualdb.directory")

#: The epoch of the ids: 2024-01-01 UTC, in milliseconds. 41 bits last until 2093.
EPOCH_MS = 1_704_067_200_000

ID_BITS = 63
TIME_BITS = 41

#: Seconds of a lease of a worker number. It is renewed in its second half, by the next
#: call that needs an id.
LEASE_SECONDS = 60.0

#: Seconds by which a process stops before its lease ends on the server, for a slow
#: clock and for the time of a call.
LEASE_MARGIN = 5.0

#: The most seconds that a call waits for a clock that was set back.
CLOCK_WAIT = 2.0

#: The most milliseconds that ids may be ahead of the clock in a burst.
AHEAD_MS = 5

#: The most attempts to find a free number while all are in use.
FULL_ATTEMPTS = 3

#: The most numbers that are tried while other processes take them.
LEASE_ATTEMPTS = 50

WORKER_DDL = """\
CREATE TABLE IF NOT EXISTS {table} (
    worker INT NOT NULL PRIMARY KEY,
    owner VARCHAR(64) NOT NULL,
    expires_at DATETIME(3) NOT NULL,
    last_ms BIGINT NOT NULL
) ENGINE=InnoDB"""


class IdLayout(NamedTuple):
    """The layout of the lower 22 bits of an id; must be the same in all processes and
    never change.

    Attributes:
        worker_bits: 8 for up to 256 processes that make ids at the same time.
        shard_bits: 9 for shard ids from 0 to 511.
    """

    worker_bits: int = 8
    shard_bits: int = 9

    @property
    def sequence_bits(self) -> int:
        """The remaining bits: by default 5, for 32 ids per millisecond and process."""
        return ID_BITS - TIME_BITS - self.worker_bits - self.shard_bits

    @property
    def workers(self) -> int:
        """The most processes that can generate ids at the same time."""
        return int(1 << self.worker_bits)

    @property
    def shards(self) -> int:
        """The number of shard ids: the highest is one less."""
        return int(1 << self.shard_bits)

    def checked(self) -> "IdLayout":
        """Validate the layout and return it.

        Raises:
            ValueError: There are no bits left for one of the parts.
        """
        for name, bits in (("worker_bits", self.worker_bits), ("shard_bits", self.shard_bits)):
            if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 20:
                raise ValueError(f"{name} must be from 1 to 20, not {bits!r}")
        if self.sequence_bits < 1:
            raise ValueError("worker_bits and shard_bits must be 21 together at most")
        return self

    def pack(self, ms: int, sequence: int, worker: int, shard_id: int) -> int:
        """Return the id of these parts."""
        high = (ms - EPOCH_MS) << self.sequence_bits | sequence
        return (high << self.worker_bits | worker) << self.shard_bits | shard_id

    def unpack(self, value: int) -> "IdParts":
        """Return the parts of an id.

        Raises:
            ParameterError: It is not an id.
        """
        if isinstance(value, bool) or not isinstance(value, int):
            raise errors.ParameterError(f"an id is an int, not {value!r}")
        if not 0 <= value < 1 << ID_BITS:
            raise errors.ParameterError(f"an id is from 0 to 2**63 - 1, not {value}")
        rest, shard_id = divmod(value, self.shards)
        rest, worker = divmod(rest, self.workers)
        ms, sequence = divmod(rest, 1 << self.sequence_bits)
        return IdParts(ms + EPOCH_MS, sequence, worker, shard_id)


class IdParts(NamedTuple):
    """The parts of an id; ``ms`` are milliseconds since 1970 UTC."""

    ms: int
    sequence: int
    worker: int
    shard_id: int


class IdSequence:
    """Generates the ids of one worker, in ascending order.

    Not thread-safe: called under a lock.

    Args:
        layout: The layout of the bits.
        worker: The worker's number.
        after_ms: The ids are of later times than this.
    """

    def __init__(self, layout: IdLayout, worker: int, after_ms: int) -> None:
        self.layout = layout
        self.worker = worker
        self.last_ms = after_ms
        self._sequence = (1 << layout.sequence_bits) - 1

    def take(self, now_ms: int, shard_id: int) -> Union[int, float]:
        """Return the next id, or a float: the seconds until one can be generated.

        Ids may be a few milliseconds ahead of the clock, so that a burst need not wait
        for each of them.
        """
        ms = self.last_ms
        sequence = self._sequence + 1
        if now_ms > ms:
            ms = now_ms
            sequence = 0
        elif sequence >> self.layout.sequence_bits:
            ms = ms + 1
            sequence = 0
        if ms - now_ms > AHEAD_MS:
            return (ms - now_ms - AHEAD_MS) / 1000.0
        self.last_ms = ms
        self._sequence = sequence
        return self.layout.pack(ms, sequence, self.worker, shard_id)


class Lease(NamedTuple):
    """A worker's number, for a time.

    ``renew_at`` and ``expires`` are by the monotonic clock; ``until_ms`` is the last
    millisecond for which ids may be made under it.
    """

    worker: int
    renew_at: float
    expires: float
    until_ms: int


def choose_worker(
    rows: List[Any], workers: int, now_ms: int, pick: Callable[[int], int]
) -> Optional[int]:
    """Return a worker number to try: an unused one, or else one whose lease has expired
    and whose ids are all in the past.

    Args:
        rows: The rows of the table: worker, expired, last_ms.
        workers: The number of worker numbers.
        now_ms: The time, in milliseconds.
        pick: Returns a random number below its argument.

    Returns:
        A number, or None if all are in use.
    """
    taken = {int(row["worker"]) for row in rows}
    free = [number for number in range(workers) if number not in taken] or [
        int(row["worker"])
        for row in rows
        if row["expired"] and int(row["last_ms"]) < now_ms and int(row["worker"]) < workers
    ]
    return free[pick(len(free))] if free else None


class IdGenerator:
    """The state of one process's ids, and the plans that generate them.

    Args:
        layout: The layout of the bits.
        table: The table of leases in the global database.
        global_client: Returns the global database's client.
        run_exclusive: The service's way to run one such plan at a time.
        monotonic, wall: The clocks, in seconds.
    """

    def __init__(
        self,
        layout: IdLayout,
        table: str,
        global_client: Callable[[], Any],
        run_exclusive: Callable[..., Any],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.layout = layout.checked()
        self.table = table
        self._table = quoted(table)
        self._global_client = global_client
        self._run_exclusive = run_exclusive
        self._monotonic = monotonic
        self._wall = wall
        self.forked()

    def forked(self) -> None:
        """Forget the lease: a forked process must not use its parent's number."""
        self._lock = threading.Lock()
        self._owner = secrets.token_hex(16)
        self._lease: Optional[Lease] = None
        self._sequence: Optional[IdSequence] = None

    # Making ids.

    def next(self, shard_id: int) -> steps.Plan[int]:
        """Return the next id, as soon as there is a lease and the clock allows it."""
        number = self._checked(shard_id)
        give_up = self._monotonic() + CLOCK_WAIT
        while True:
            if self._due():
                yield steps.Exclusive(self._run_exclusive, self._renew())
            wait = 0.0
            with self._lock:
                lease = self._lease
                sequence = self._sequence
                if lease is not None and sequence is not None and self._usable(lease):
                    now_ms = self._now_ms()
                    taken = (
                        sequence.take(now_ms, number)
                        if now_ms + AHEAD_MS <= lease.until_ms
                        else self._beyond(lease)
                    )
                    if type(taken) is int:
                        return taken
                    wait = float(taken)
            # a burst waits for a millisecond or two, a clock set back for longer
            if wait > 10 * AHEAD_MS / 1000.0 and self._monotonic() + wait > give_up:
                raise errors.ClockMovedBack(
                    f"the clock is {wait:.1f} s behind the last id that was made"
                ).with_context("global", sent=False)
            if wait:
                yield steps.Sleep(wait)

    def _beyond(self, lease: Lease) -> float:
        """Expire the lease, because the clock was set forward beyond its end."""
        self._lease = lease._replace(renew_at=float("-inf"), expires=float("-inf"))
        return 0.0

    def _checked(self, shard_id: int) -> int:
        number = routing.shard_id_of(shard_id)
        if not 0 <= number < self.layout.shards:
            raise errors.ParameterError(
                f"an id has room for shards from 0 to {self.layout.shards - 1}, not {number}: "
                "an IdLayout with more shard_bits has more"
            )
        return number

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)

    def _due(self) -> bool:
        lease = self._lease
        return lease is None or self._monotonic() >= lease.renew_at

    def _usable(self, lease: Lease) -> bool:
        return self._monotonic() < lease.expires

    # The lease.

    def _renew(self) -> steps.Plan[None]:
        """Renew the lease, or acquire another."""
        if not self._due():
            return
        lease = self._lease
        try:
            kept = lease is not None and (yield from self._keep(lease))
            if not kept:
                yield from self._acquire()
        except errors.Error as error:
            if lease is None or not self._usable(lease):
                raise
            log.warning(
                "the lease of worker %d could not be renewed yet: %s",
                lease.worker,
                error,
                extra=about("worker_not_renewed"),
            )
            with self._lock:
                self._lease = lease._replace(renew_at=min(lease.expires, self._monotonic() + 1.0))

    def _keep(self, lease: Lease) -> steps.Plan[bool]:
        began = self._monotonic()
        until_ms = max(self._now_ms() + int(LEASE_SECONDS * 1000), lease.until_ms)
        changed = yield from self._execute(
            f"UPDATE {self._table} SET expires_at = {_LATER}, last_ms = %s "
            "WHERE worker = %s AND owner = %s",
            (until_ms, lease.worker, self._owner),
        )
        if changed:
            with self._lock:
                self._lease = _lease(lease.worker, began, until_ms)
        return bool(changed)

    def _acquire(self) -> steps.Plan[None]:
        for attempt in range(LEASE_ATTEMPTS):
            began = self._monotonic()
            now_ms = self._now_ms()
            rows = yield from self._workers()
            worker = choose_worker(rows, self.layout.workers, now_ms, secrets.randbelow)
            if worker is None:
                if attempt >= FULL_ATTEMPTS:
                    raise errors.OperationalError(
                        f"all {self.layout.workers} worker numbers for ids are in use: "
                        "an IdLayout with more worker_bits allows more processes"
                    )
                # one may have been given back whose last ids are a little ahead
                yield steps.Sleep(AHEAD_MS / 1000.0)
                continue
            until_ms = now_ms + int(LEASE_SECONDS * 1000)
            taken = yield from self._take(worker, until_ms, now_ms)
            if taken:
                with self._lock:
                    before = now_ms if self._sequence is None else self._sequence.last_ms
                    self._sequence = IdSequence(self.layout, worker, max(now_ms, before))
                    self._lease = _lease(worker, began, until_ms)
                log.info(
                    "ids are made as worker %d of %d",
                    worker,
                    self.layout.workers,
                    extra=about("worker_registered"),
                )
                return
            yield steps.Sleep(retry.backoff(attempt, base=0.005, cap=0.2))
        raise errors.OperationalError("no worker number for ids could be had: all were contested")

    def _workers(self) -> steps.Plan[List[Any]]:
        sql = f"SELECT worker, expires_at < UTC_TIMESTAMP(3) AS expired, last_ms FROM {self._table}"
        try:
            return (yield from verbs.query(self._route, sql, None, read_only=True))
        except errors.ProgrammingError as error:
            if error.errno != error_codes.NO_SUCH_TABLE:
                raise
        yield from self._execute(WORKER_DDL.format(table=self._table), None)
        return (yield from verbs.query(self._route, sql, None, read_only=True))

    def _take(self, worker: int, until_ms: int, now_ms: int) -> steps.Plan[bool]:
        """Try to lease a number; return whether it succeeded. The primary key decides
        between several processes.
        """
        try:
            changed = yield from self._execute(
                f"UPDATE {self._table} SET owner = %s, expires_at = {_LATER}, last_ms = %s "
                "WHERE worker = %s AND expires_at < UTC_TIMESTAMP(3) AND last_ms < %s",
                (self._owner, until_ms, worker, now_ms),
            )
            if changed:
                return True
            yield from self._execute(
                f"INSERT INTO {self._table} (worker, owner, expires_at, last_ms) "
                f"VALUES (%s, %s, {_LATER}, %s)",
                (worker, self._owner, until_ms),
            )
        except (errors.IntegrityError, errors.Deadlock, errors.LockWaitTimeout):
            return False
        return True

    def release(self) -> steps.Plan[None]:
        """Give the number back, so that it need not expire; what fails is logged."""
        with self._lock:
            lease = self._lease
            sequence = self._sequence
            self._lease = None
        if lease is None or sequence is None or not self._usable(lease):
            return
        try:
            yield from self._execute(
                f"UPDATE {self._table} SET expires_at = UTC_TIMESTAMP(3) - INTERVAL 1 SECOND, "
                "last_ms = %s "
                "WHERE worker = %s AND owner = %s",
                (sequence.last_ms, lease.worker, self._owner),
                1.0,
            )
        except errors.Error as error:
            log.debug(
                "worker %d was not given back: %s",
                lease.worker,
                error,
                extra=about("worker_not_released"),
            )

    def _route(self, until: Optional[float] = None) -> steps.Plan[steps.Executor]:
        yield from ()
        return DetachedExecutor(self._global_client())

    def _execute(
        self, sql: str, params: Params, timeout: Optional[float] = None
    ) -> steps.Plan[Any]:
        return (yield from verbs.execute(self._route, sql, params, timeout))


#: When a lease that begins now ends, by the server's clock.
_LATER = f"UTC_TIMESTAMP(3) + INTERVAL {int(LEASE_SECONDS)} SECOND"


def _lease(worker: int, began: float, until_ms: int) -> Lease:
    """Return a lease that was requested at ``began``."""
    return Lease(worker, began + LEASE_SECONDS / 2, began + LEASE_SECONDS - LEASE_MARGIN, until_ms)


class BaseIds(Generic[IntR]):
    """Ids that are unique in all databases of the service: ``db.ids``."""

    def __init__(self, generator: IdGenerator) -> None:
        self._generator = generator

    def _run(self, plan: steps.Plan[Any]) -> Any:
        raise NotImplementedError

    def next(self, shard_id: int) -> IntR:
        """Generate an id for a row on a shard.

        It is greater than every id that this process made before, and roughly ordered
        by time among all processes. The first call leases a number for the process from
        the table ``dualdb_worker`` of the global database, which is made if it is
        missing; calls in between need no I/O.

        Args:
            shard_id: The row's shard, from 0 to 511 with the default layout.

        Returns:
            An int from 0 to 2**63 - 1, for a signed BIGINT.

        Raises:
            ParameterError: The shard id does not fit.
            ClockMovedBack: The clock was set back by more than can be waited for.
            OperationalError: All numbers are in use.

        Example:
            >>> db.ids.next(2)
            382014925404536834
        """
        return self._run(self._generator.next(shard_id))

    def shard_of(self, id: int) -> int:
        """Return the shard id of an id, without I/O.

        Args:
            id: The id.

        Raises:
            ParameterError: It is not an id.
        """
        return self._generator.layout.unpack(id).shard_id

    def time_of(self, id: int) -> datetime.datetime:
        """Return the time at which an id was generated, in UTC, without I/O.

        Args:
            id: The id.

        Raises:
            ParameterError: It is not an id.
        """
        ms = self._generator.layout.unpack(id).ms
        return datetime.datetime.fromtimestamp(ms / 1000.0, datetime.timezone.utc)
