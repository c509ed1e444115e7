"""Moving one tenant to another shard while it is written to.

What is done in which order, and why it is safe, is in docs/moving-tenants.md. Each step
is one of a durable job, and may be done again. Whoever runs the job has an epoch, a
number that never comes again; every transaction of a move first reads it with a lock
from the fence of the shard, so that a mover that was stopped, and has been replaced,
changes nothing when it wakes up.
"""

import enum
import logging
import time
import zlib
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, TypeVar

from .. import deadlines, error_codes, errors
from ..directory.sources import LookupTable
from ..execution import retry, steps, verbs
from ..execution.detached import DetachedExecutor
from ..observability.events import CoordinationEventName
from ..observability.logs import about
from ..observability.observers import Observers
from ..results import Row
from ..sql import parameters
from ..sql.identifiers import quoted
from . import jobs, row_hashes
from .keys import shards_of
from .move_results import carry_results
from .move_tables import (
    BUCKETS,
    EPOCHS,
    EPOCHS_DDL,
    FENCE,
    FENCE_KEYS,
    FENCED,
    LOG,
    LOGGED,
    MOVED,
    OPEN,
    TABLES,
    Column,
    MovedTable,
    chain_check,
    check_key_column,
    column_key,
    pk_expression,
    pk_values,
    read_expression,
    tenant_bytes,
    triggers,
)
from .places import Databases, Place, Session
from .reports import Job, JobState, JobStep, MoveReport, PrepareReport, TenantTable
from .rollout import message, notify
from .tenant import chain_of, checked, parents_first
from .throttle import Limits, Throttle

T = TypeVar("T")

log = logging.getLogger("dualdb.operations")

KIND = "move"

#: How often a short transaction is begun again that conflicts with writers.
ATTEMPTS = 30

#: Log rows that one delta takes, and how few are left to the last one, while writes
#: wait; after so many deltas, whatever there is: writers are faster than the move.
DELTA_ROWS = 1000
FEW_ROWS = 20
DELTAS = 30

#: The steps that wait while servers are busy or replicas behind: those that write many
#: rows, and for which no writer waits.
THROTTLED = ("copy", "clear target", "purge", "undo")

#: Whoever goes on with a move, or undoes it, means one that was stopped as well.
STOPPED = (JobState.PAUSED, JobState.CANCELLED)

#: Seconds until it is looked at again.
BUSY_SECONDS = 0.5

#: Seconds that a step goes on with further chunks, unless the move is throttled.
STEP_SECONDS = 1.0

#: What a mover's sessions are set to. A mover that is stopped loses them, and with them
#: its locks; the triggers let them through.
_SETUP = (
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION foreign_key_checks = 0, time_zone = '+00:00', innodb_lock_wait_timeout = 1, "
    "lock_wait_timeout = 2, wait_timeout = 20, "
    "sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', @dualdb_move = 1",
)


class MoveError(errors.OperationalError):
    """A move cannot go on; the message says why.

    The tenant is where it was, and is written to: undo the move, or mend the cause and
    begin it again.
    """


class MoveTakenOver(errors.LockLost):
    """Another process has taken the move over."""


class Options(NamedTuple):
    """The arguments of ``move``."""

    tables: Tuple[TenantTable, ...]
    chunk_rows: int = 500
    throttle: float = 0.0
    max_threads_running: Optional[int] = None
    max_lag: Optional[float] = None
    lag: Optional[Callable[[], Any]] = None
    settle: Optional[float] = None
    lease: float = 60.0
    lock_timeout: float = 30.0
    progress: Optional[Callable[[Job], object]] = None
    max_steps: Optional[int] = None
    wait: jobs.Wait = False
    dry_run: bool = False

    def checked(self) -> "Options":
        """The same.

        Raises:
            ParameterError: One is wrong.
        """
        for name in ("throttle", "lease", "lock_timeout"):
            deadlines.seconds(getattr(self, name))
        for name in ("max_lag", "settle"):
            if getattr(self, name) is not None:
                deadlines.seconds(getattr(self, name))
        if self.lease < 5:
            raise errors.ParameterError("lease must be a number of seconds from 5 up")
        jobs.wait_seconds(self.wait)
        tables = checked(self.tables, self.chunk_rows)
        if all(each.on != "shard" for each in tables):
            raise errors.ParameterError("no table of the shard is described")
        chain_check(self.tables)
        return self


def require_under_way(job: Optional[Job], key: object) -> Job:
    """Return the job of a move that is not over.

    Raises:
        ParameterError: There is none.
    """
    if job is None or job.state is JobState.DONE:
        raise errors.ParameterError(f"no move of the key {key!r} is under way")
    return job


def require_not_switched(key: object, where: Optional[int], target: Optional[int]) -> None:
    """Check that a move can be undone.

    Raises:
        MoveError: The key is on its new shard.
    """
    if where == target:
        raise MoveError(
            f"the key {key!r} is on shard {target} already: finish the move, and move it back"
        )


def job_name(key: object) -> str:
    """The name of the job that moves a key."""
    return f"move:{key.hex() if isinstance(key, bytes) else key}"


# The parts of a move that others use, too.


def atomic(session: Session, body: Callable[[], steps.Plan[T]]) -> steps.Plan[T]:
    """A short transaction, begun again after a conflict with writers."""
    for attempt in range(ATTEMPTS):
        yield from session.execute("BEGIN")
        try:
            result = yield from body()
            yield from session.execute("COMMIT")
            return result
        except (errors.Deadlock, errors.LockWaitTimeout):
            yield from session.execute("ROLLBACK")
            if attempt + 1 == ATTEMPTS:
                raise
        except errors.ConnectionLost:
            raise
        except errors.Error:
            yield from session.execute("ROLLBACK")
            raise
        yield steps.Sleep(retry.backoff(attempt, base=0.01, cap=0.5))
    raise AssertionError("unreachable")


def single(session: Session, sql: str, params: Sequence[Any]) -> steps.Plan[int]:
    """One statement that is a transaction of its own, sent again after a conflict."""
    for attempt in range(ATTEMPTS):
        try:
            return (yield from session.execute(sql, tuple(params)))
        except (errors.Deadlock, errors.LockWaitTimeout):
            if attempt + 1 == ATTEMPTS:
                raise
        yield steps.Sleep(retry.backoff(attempt, base=0.01, cap=0.5))
    raise AssertionError("unreachable")


def describe(session: Session, tables: Sequence[TenantTable]) -> steps.Plan[List[MovedTable]]:
    """The tables of a shard, those that others refer to first.

    Raises:
        ParameterError: One is missing, has no primary key, or a key that cannot be
            moved by.
    """
    on_shard = [each for each in tables if each.on == "shard"]
    conditions = {each.name: each for each in checked(tuple(tables), 1) if each.on == "shard"}
    columns: Dict[str, List[Column]] = {}
    for each in on_shard:
        columns[each.name] = yield from _columns(session, each.name)
    found = []
    for each in on_shard:
        chain = chain_of(each, tables)
        top = chain[-1]
        key_kind = _named(columns[top.name], top.key_column or "", top.name)
        check_key_column(top.name, key_kind)
        keys = yield from session.query(
            "SELECT COLUMN_NAME AS name FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = "
            "DATABASE() AND TABLE_NAME = %s AND INDEX_NAME = 'PRIMARY' ORDER BY SEQ_IN_INDEX",
            (each.name,),
        )
        if not keys:
            raise errors.ParameterError(f"{each.name!r} has no primary key on {session.name}")
        if each.parent is not None:
            yield from _check_parent_key(session, each)
        described = conditions[each.name]
        condition = described.where or f"{quoted(each.key_column or '')} = %(key)s"
        key = tuple(_named(columns[each.name], row["name"], each.name) for row in keys)
        found.append(
            MovedTable(each, tuple(chain), condition, tuple(columns[each.name]), key, key_kind)
        )
    return _parents_first(found)


def _check_parent_key(session: Session, table: TenantTable) -> steps.Plan[None]:
    """Of a row that was deleted its primary key alone is known."""
    key = yield from session.query(
        "SELECT COLUMN_NAME AS name FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = "
        "DATABASE() AND TABLE_NAME = %s AND INDEX_NAME = 'PRIMARY'",
        (table.parent,),
    )
    if [row["name"].lower() for row in key] != [table.parent_key.lower()]:
        raise errors.ParameterError(
            f"{table.name!r} refers to {table.parent}.{table.parent_key}, which is not the primary "
            "key of that table"
        )


def _parents_first(tables: List[MovedTable]) -> List[MovedTable]:
    references = [(each.name, each.chain[1].name) for each in tables if each.by_parent]
    order = [each.name for each in parents_first([each.table for each in tables], references)]
    return sorted(tables, key=lambda each: order.index(each.name))


def _named(columns: Sequence[Column], name: str, table: str) -> Column:
    for each in columns:
        if each.name.lower() == name.lower():
            return each
    raise errors.ParameterError(f"{table!r} has no column {name!r}")


def _columns(session: Session, table: str) -> steps.Plan[List[Column]]:
    rows = yield from session.query(
        "SELECT COLUMN_NAME AS name, CAST(DATA_TYPE AS CHAR) AS kind, CAST(COLUMN_TYPE AS CHAR) "
        "AS type, COLLATION_NAME AS collation, EXTRA AS extra FROM information_schema.COLUMNS "
        "WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION",
        (table,),
    )
    if not rows:
        raise errors.ParameterError(f"{session.name} has no table {table!r}")
    return [
        Column(
            row["name"],
            str(row["kind"]).lower(),
            str(row["type"]),
            row["collation"],
            "GENERATED" in str(row["extra"] or "").upper().replace("DEFAULT_GENERATED", ""),
        )
        for row in rows
    ]


def _installed(session: Session, tables: Sequence[MovedTable]) -> steps.Plan[Dict[str, str]]:
    """The triggers of moves that are there: name to table."""
    rows = yield from session.query(
        "SELECT TRIGGER_NAME AS name, EVENT_OBJECT_TABLE AS tbl FROM information_schema.TRIGGERS "
        "WHERE TRIGGER_SCHEMA = DATABASE() AND TRIGGER_NAME LIKE 'dualdb\\\\_move\\\\_%%' "
        "AND EVENT_OBJECT_TABLE IN %s",
        (tuple(each.name for each in tables),),
    )
    return {row["name"]: row["tbl"] for row in rows}


def prepare(
    databases: Databases, tables: Tuple[TenantTable, ...], shards: Any, lock_timeout: float,
    *, dry_run: bool,
) -> steps.Plan[PrepareReport]:  # fmt: skip
    """Make the tables and triggers of moves; see ``Operations.prepare_moves``."""
    checked(tables, 1)
    chain_check(tables)
    deadlines.seconds(lock_timeout)
    places = databases.chosen(shards)
    if any(place.shard_id is None for place in places):
        raise errors.ParameterError("tenants are moved between shards, not the global database")
    made: Dict[str, Tuple[str, ...]] = {}
    failed: Dict[str, str] = {}
    for place in places:

        def work(session: Session) -> steps.Plan[List[str]]:
            return _prepare(session, tables, lock_timeout, dry_run)

        try:
            made[place.name] = tuple((yield from databases.session(place, work)))
        except errors.ParameterError:
            raise  # the tables are described wrongly
        except errors.Error as error:
            failed[place.name] = message(error)
    return PrepareReport(made, dry_run, failed)


def _prepare(
    session: Session, tables: Tuple[TenantTable, ...], lock_timeout: float, dry_run: bool
) -> steps.Plan[List[str]]:
    described = yield from describe(session, tables)
    wanted = [trigger for each in described for trigger in triggers(each)]
    there = yield from _installed(session, described)
    names = {each.name for each in wanted}
    old = [name for name in there if name not in names]
    new = [each for each in wanted if each.name not in there]
    actions = [f"drop the trigger {name} of {there[name]}" for name in old]
    actions += [f"create the trigger {each.name} of {each.table}" for each in new]
    if dry_run:
        return actions
    for _, ddl in TABLES.values():
        yield from session.execute(ddl)
    buckets = ", ".join([f"({number})" for number in range(BUCKETS)])
    yield from session.execute(f"INSERT IGNORE INTO {FENCE} (bucket) VALUES {buckets}")
    # it waits for transactions that use the table, and others wait behind it meanwhile
    yield from session.execute("SET SESSION lock_wait_timeout = 1")
    for sql in [*[f"DROP TRIGGER {quoted(name)}" for name in old], *[each.ddl for each in new]]:
        yield from _execute_with_retries(session, sql, lock_timeout)
    return actions


def _execute_with_retries(session: Session, sql: str, lock_timeout: float) -> steps.Plan[None]:
    until = time.monotonic() + lock_timeout
    attempt = 0
    while True:
        try:
            yield from session.execute(sql)
            return
        except errors.LockWaitTimeout:
            if time.monotonic() >= until:
                raise
        attempt += 1
        yield steps.Sleep(retry.backoff(attempt, base=0.1, cap=2.0))


# One move.


def run(
    databases: Databases, key: Any, to: Optional[int], options: Options, *, undo: bool = False
) -> steps.Plan[MoveReport]:
    """Move a tenant; see ``Operations.move`` and ``Operations.undo_move``."""
    options = options.checked()
    check_settle(lookup_table(databases), options.settle)
    name = job_name(key)
    resumes = to is None
    if resumes and not undo:
        known = yield from jobs.get(databases, name)
        if known is not None and known.state is not JobState.DONE:
            to = known.params["target"]  # also if another process is faster
    return (
        yield from jobs.when_free(
            databases,
            name,
            False if options.dry_run else options.wait,
            lambda: _run(databases, key, to, options, undo=undo, resumes=resumes),
        )
    )


def _run(
    databases: Databases,
    key: Any,
    to: Optional[int],
    options: Options,
    *,
    undo: bool,
    resumes: bool,
) -> steps.Plan[MoveReport]:
    """The same, if nobody else moves the tenant.

    Raises:
        JobTaken: Another process does.
    """
    name = job_name(key)
    known = yield from jobs.get(databases, name)
    under_way = known if known is not None and known.state is not JobState.DONE else None
    if undo:
        require_under_way(under_way, key)
    params = yield from _params(databases, key, to, under_way)
    source, target = params["source"], params["target"]
    if under_way is None and source == target:
        return MoveReport(key, source, target, "done", dry_run=options.dry_run)
    move = _Move(databases, key, source, target, options)
    yield from move.describe()
    if under_way is None:
        yield from move.require_prepared()
    if options.dry_run:
        return (yield from move.planned(under_way, undo))
    if known is not None and under_way is None:
        yield from jobs.delete(databases, name, dry_run=False)
    options_of_job = jobs.Options(
        KIND, params, options.lease, False, options.throttle or None, options.max_steps
    )
    if under_way is not None and resumes and under_way.state in STOPPED:
        yield from jobs.resume(databases, name)
    step = move.undo_step if undo else move.step
    try:
        job = yield from jobs.run(databases, name, step, options_of_job, is_plan=True)
    except BaseException as error:
        move.ended("failed" if isinstance(error, Exception) else "interrupted", error)
        raise
    report = move.report(job)
    move.ended(report.state)
    return report


def lookup_table(databases: Databases) -> LookupTable:
    """The directory of a service that can move tenants.

    Raises:
        InterfaceError: It is another one.
    """
    directory = databases.internals.directory
    if directory is None or not isinstance(directory.source, LookupTable):
        raise errors.InterfaceError(
            "tenants are moved where a LookupTable says which shard has which key"
        )
    return directory.source


def check_settle(source: LookupTable, settle: Optional[float]) -> None:
    """Check that rows are not deleted while they may still be read.

    Raises:
        ParameterError: They may be.
    """
    if settle is not None and settle < source.ttl:
        raise errors.ParameterError(
            f"settle={settle:g} is shorter than the ttl of the directory ({source.ttl:g} s), for "
            "which other processes go on reading where the rows are deleted: give a longer one, "
            "or none"
        )


def _params(
    databases: Databases, key: Any, to: Optional[int], under_way: Optional[Job]
) -> steps.Plan[Dict[str, Any]]:
    """From which shard to which a key moves.

    Raises:
        ParameterError: To none, or it is on its way to another.
    """
    if under_way is None:
        source = yield from _source(databases, key)
        if to is None:
            raise errors.ParameterError(
                f"no move of the key {key!r} is under way: begin one, with the shard that it is to "
                "be on"
            )
        return {"source": source, "target": to}
    params: Dict[str, Any] = under_way.params
    if to is not None and params["target"] != to:
        raise errors.ParameterError(
            f"a move of the key {key!r} to shard {params['target']} is under way: "
            "finish it or undo it"
        )
    return params


def _source(databases: Databases, key: object) -> steps.Plan[int]:
    found = (yield from shards_of(databases.service, [key], fresh=True))[key]
    if found is None:
        raise errors.ParameterError(f"the key {key!r} has no shard")
    return found


Position = Dict[str, Any]


class _Switch(enum.Enum):
    """How far a switch has come."""

    OPEN = "open"
    #: The source may be fenced.
    FENCED = "fenced"
    #: The directory may name the target.
    DECIDING = "deciding"


class _Move:
    """One tenant on its way from one shard to another."""

    def __init__(
        self, databases: Databases, key: Any, source: int, target: int, options: Options
    ) -> None:
        if source == target:
            raise errors.ParameterError(f"the key {key!r} is on shard {source}")
        self._databases = databases
        self._key = key
        self._tenant = b""
        self._source = databases.one(source)
        self._target = databases.one(target)
        self._options = options
        self._throttle = Throttle(
            databases,
            (self._source, self._target),
            Limits(options.max_threads_running, options.max_lag, options.lag),
        )
        self._steps: Dict[str, Callable[[Position], steps.Plan[JobStep]]] = {
            "mark": self._mark,
            "check": self._check,
            "close target": self._close_target,
            "clear target": self._clear_target,
            "log": self._start_log,
            "wait for prepared": self._wait_for_prepared,
            "copy": self._copy,
            "delta": self._delta,
            "cut over": self._cut_over,
            "settle": self._settle,
            "purge": self._purge,
            "reopen": self._reopen,
            "undo": self._undo,
        }
        self._last: Position = {}
        self._is_begun = False
        self._switch = _Switch.OPEN
        self._tables: List[MovedTable] = []

    def describe(self) -> steps.Plan[None]:
        """Read what the tables are; the first that is done.

        Raises:
            ParameterError: They cannot be moved, or the key is none of theirs.
        """
        self._tables = yield from self._on(
            self._source, lambda session: describe(session, self._options.tables)
        )
        self._tenant = tenant_bytes(self._tables, self._key)

    def planned(self, under_way: Optional[Job], undo: bool) -> steps.Plan[MoveReport]:
        """What would be done.

        Raises:
            MoveError: It cannot be undone any more.
            JobTaken: Another process is at it, and is not waited for.
        """
        state, rows, step = "new", 0, "check"
        if under_way is None:
            rows = yield from self._on(self._source, self._count_rows)
        else:
            jobs.require_free(under_way, self._options.wait)
            position = under_way.position or {}
            if undo and not position.get("undoing"):
                yield from self._require_not_switched()
            state, rows = under_way.state.value, under_way.done
            step = position.get("step", step)
            step = position["then"] if step == "mark" else step
        return MoveReport(
            self._key, self._source.shard_id or 0, self._target.shard_id or 0, state, rows,
            None, step, dry_run=True,
        )  # fmt: skip

    def _count_rows(self, session: Session) -> steps.Plan[int]:
        count = 0
        for table in self._tables:
            count += yield from session.value(
                f"SELECT COUNT(*) FROM {quoted(table.name)} WHERE {self._bound(table)}"
            )
        return count

    def _require_not_switched(self) -> steps.Plan[None]:
        where = yield from _source(self._databases, self._key)
        require_not_switched(self._key, where, self._target.shard_id)

    def report(self, job: Job) -> MoveReport:
        """What came of it."""
        state = (
            "undone"
            if self._last.get("undoing") and job.state is JobState.DONE
            else (job.state.value)
        )
        return MoveReport(
            self._key,
            self._source.shard_id or 0,
            self._target.shard_id or 0,
            state,
            job.done,
            self._last.get("window"),
            self._last.get("step", ""),
        )

    def step(self, job: Job) -> steps.Plan[JobStep]:
        """One step forward; or back, if somebody has begun to undo it."""
        position: Position = dict(job.position or {"step": "check"})
        yield from notify(self._options.progress, job)
        if position.get("job_epoch") != job.epoch:
            epoch = yield from self._new_epoch()
            after = position["then"] if position["step"] == "mark" else position["step"]
            self._is_begun = True
            self._post("move_started")
            self._post("move_step", detail="mark")
            position.update(job_epoch=job.epoch, epoch=epoch, step="mark", then=after)
            return JobStep(position, message=f"epoch {epoch}")
        busy = ""
        if position["step"] in THROTTLED:
            busy = yield from self._throttle.why_wait()
        if busy:
            yield steps.Sleep(BUSY_SECONDS)
            return JobStep(position, message=busy)
        done = yield from self._steps[position["step"]](position)
        self._last = dict(done.position or {**position, "step": "done"})
        if done.position is not None and done.position["step"] != position["step"]:
            self._post("move_step", detail=done.position["step"])
        return done

    def ended(self, state: str, error: Optional[BaseException] = None) -> None:
        """Post that this process is done with it, if it has begun."""
        if self._is_begun:
            self._post("move_finished", detail=state, error=error)

    def _post(self, name: CoordinationEventName, **fields: Any) -> None:
        shard_id = self._source.shard_id
        observers: Observers = self._databases.internals.observers
        subject = str(self._tenant, "utf-8", "backslashreplace")
        observers.post_coordination(name, f"shard {shard_id}", shard_id, subject=subject, **fields)

    def undo_step(self, job: Job) -> steps.Plan[JobStep]:
        """One step back."""
        position: Position = dict(job.position or {"step": "check"})
        if not position.get("undoing"):
            yield from self._require_not_switched()
            after = "reopen"
            position.update(step=after, undoing=True)
            job = _with_position(job, position)
        return (yield from self.step(job))

    # Epochs.

    def _new_epoch(self) -> steps.Plan[int]:
        client = self._databases.internals.lifecycle.require_open().global_client

        def route(until: Optional[float] = None) -> steps.Plan[steps.Executor]:
            yield from ()
            return DetachedExecutor(client)

        sql = f"INSERT INTO {EPOCHS} () VALUES ()"
        try:
            made = yield from verbs.execute(route, sql, None)
        except errors.ProgrammingError as error:
            if error.errno != error_codes.NO_SUCH_TABLE:
                raise
            yield from verbs.execute(route, EPOCHS_DDL, None)
            made = yield from verbs.execute(route, sql, None)
        return int(made.lastrowid)

    def _check_epoch(self, session: Session, position: Position) -> steps.Plan[None]:
        """Inside a transaction: nobody has taken the move over, and nobody does before
        its end.
        """
        found = yield from session.value(
            f"SELECT epoch FROM {FENCE_KEYS} WHERE tenant = %s LOCK IN SHARE MODE", (self._tenant,)
        )
        if found != position["epoch"]:
            raise self._taken_over()

    def _taken_over(self) -> MoveTakenOver:
        return MoveTakenOver(f"another process has taken over the move of the key {self._key!r}")

    def _set_state(self, session: Session, position: Position, state: int) -> steps.Plan[None]:
        """Change the fence of one shard; waits for transactions that have read it."""
        # the epoch is compared under the lock that the change needs
        changed = yield from single(
            session,
            f"UPDATE {FENCE_KEYS} SET state = %s WHERE tenant = %s AND epoch = %s",
            (state, self._tenant, position["epoch"]),
        )
        if not changed:
            yield from self._check_epoch(session, position)  # it had that state

    def _first_state(self, session: Session, position: Position, state: int) -> steps.Plan[None]:
        """The same for a fence that may not have been in use: waits for transactions
        that have read the row of all keys of its bucket.
        """

        def body() -> steps.Plan[None]:
            yield from session.execute(
                f"UPDATE {FENCE} SET in_use = 1 WHERE bucket = %s",
                (zlib.crc32(self._tenant) % BUCKETS,),
            )
            yield from self._check_epoch(session, position)
            yield from session.execute(
                f"UPDATE {FENCE_KEYS} SET state = %s WHERE tenant = %s", (state, self._tenant)
            )

        yield from atomic(session, body)

    # Sessions.

    def _on(self, place: Place, work: Callable[[Session], steps.Plan[T]]) -> steps.Plan[T]:
        def prepared(session: Session) -> steps.Plan[T]:
            for sql in _SETUP:
                yield from session.execute(sql)
            return (yield from work(session))

        return self._databases.session(place, prepared)

    def _on_both(
        self, work: Callable[[Session, Session, List[MovedTable]], steps.Plan[T]]
    ) -> steps.Plan[T]:
        def on_source(source: Session) -> steps.Plan[T]:
            def on_target(target: Session) -> steps.Plan[T]:
                return work(source, target, self._tables)

            return (yield from self._on(self._target, on_target))

        return self._on(self._source, on_source)

    def _bound(self, table: MovedTable) -> str:
        """The condition for the tenant's rows."""
        key = column_key(table.key_kind, self._key)
        return "(" + parameters.bind(table.condition, {"key": key}) + ")"

    # Before the copy.

    def _mark(self, position: Position) -> steps.Plan[JobStep]:
        """Write the epoch into both fences; waits for what the last mover is about."""

        def work(session: Session) -> steps.Plan[None]:
            def body() -> steps.Plan[None]:
                yield from session.execute(
                    f"INSERT INTO {FENCE_KEYS} (tenant, state, epoch) VALUES (%s, {OPEN}, %s) "
                    "ON DUPLICATE KEY UPDATE epoch = GREATEST(epoch, %s)",
                    (self._tenant, position["epoch"], position["epoch"]),
                )
                yield from self._check_epoch(session, position)

            yield from atomic(session, body)

        for place in (self._source, self._target):
            yield from self._on(place, work)
        return JobStep({**position, "step": position["then"]})

    def _check(self, position: Position) -> steps.Plan[JobStep]:
        yield from self.require_prepared()
        return JobStep({**position, "step": "close target"})

    def require_prepared(self) -> steps.Plan[None]:
        """Both shards have the same tables, and the triggers.

        Raises:
            MoveError: They have not.
        """

        def read_tables(session: Session) -> steps.Plan[Tuple[List[MovedTable], List[str]]]:
            tables = yield from describe(session, self._options.tables)
            there = yield from _installed(session, tables)
            wanted = [trigger.name for each in tables for trigger in triggers(each)]
            return tables, [name for name in wanted if name not in there]

        sides = []
        for place in (self._source, self._target):
            tables, missing = yield from self._on(place, read_tables)
            if missing:
                raise MoveError(
                    f"shard {place.name} lacks the triggers of moves for these tables: "
                    "prepare_moves makes them"
                )
            sides.append({each.name: (each.stored, each.key) for each in tables})
        for name, (stored, key) in sides[0].items():
            other = sides[1][name]
            if ([each.name for each in stored], key) != (
                [each.name for each in other[0]],
                other[1],
            ):
                raise MoveError(f"{name!r} differs between the shards: compare their schemas")

    def _require_source(self) -> steps.Plan[None]:
        """The directory says that the tenant is where it was."""
        found = yield from _source(self._databases, self._key)
        if found != self._source.shard_id:
            raise MoveError(
                f"the key {self._key!r} is on shard {found}, and not on shard {self._source.name}"
            )

    def _close_target(self, position: Position) -> steps.Plan[JobStep]:
        yield from self._require_source()

        def work(session: Session) -> steps.Plan[None]:
            return self._first_state(session, position, FENCED)

        yield from self._on(self._target, work)
        return JobStep({**position, "step": "clear target"})

    def _clear_target(self, position: Position) -> steps.Plan[JobStep]:
        """Delete what is left there of an earlier move."""
        yield from self._require_source()
        deleted = yield from self._delete_chunk(self._target, position)
        if deleted:
            return JobStep(position, message=f"{deleted} rows of an earlier move were deleted")
        return JobStep({**position, "step": "log"})

    def _start_log(self, position: Position) -> steps.Plan[JobStep]:
        def work(session: Session) -> steps.Plan[List[str]]:
            def forget() -> steps.Plan[None]:
                yield from self._check_epoch(session, position)
                yield from session.execute(f"DELETE FROM {LOG} WHERE tenant = %s", (self._tenant,))

            yield from atomic(session, forget)
            yield from self._first_state(session, position, LOGGED)
            return (yield from _prepared(session))

        found = yield from self._on(self._source, work)
        following = {**position, "step": "wait for prepared", "prepared": found, "waited": 0}
        return JobStep({**following, "then": "copy"})

    def _wait_for_prepared(self, position: Position) -> steps.Plan[JobStep]:
        """Transactions that were prepared before the log, and are in none."""
        left = set(position["prepared"])
        if left:
            found = yield from self._on(self._source, _prepared)
            left &= set(found)
        if not left:
            copy = {"step": "copy", "table": 0, "after": None}
            return JobStep({**position, **copy, "prepared": []})
        if position["waited"] >= self._options.lock_timeout:
            raise MoveError(
                f"a prepared XA transaction stays on shard {self._source.name}: {min(left)}"
            )
        yield steps.Sleep(0.5)
        return JobStep({**position, "prepared": sorted(left), "waited": position["waited"] + 0.5})

    # Copy.

    def _copy(self, position: Position) -> steps.Plan[JobStep]:
        until = time.monotonic() + (0.0 if self._options.throttle else STEP_SECONDS)

        def work(source: Session, target: Session, tables: List[MovedTable]) -> steps.Plan[JobStep]:
            done = yield from self._chunk(source, target, tables, position)
            copied = done.done
            while done.position["step"] == "copy" and time.monotonic() < until:
                done = yield from self._chunk(source, target, tables, done.position)
                copied += done.done
            return JobStep(done.position, done=copied, message=done.message)

        return (yield from self._on_both(work))

    def _chunk(
        self, source: Session, target: Session, tables: List[MovedTable], position: Position
    ) -> steps.Plan[JobStep]:
        table = tables[position["table"]]
        key = [each.name for each in table.key]
        after = None
        if position["after"] is not None:
            after = pk_values(table.key, position["after"].encode())
        text, params = row_hashes.between(key, after, None)
        limit = self._options.chunk_rows
        order = ", ".join(quoted(name) for name in key)
        rows = yield from self._read(
            source, table, parameters.bind(text, params), f" ORDER BY {order} LIMIT {limit}"
        )
        if rows:

            def body() -> steps.Plan[None]:
                yield from self._check_epoch(target, position)
                yield from self._put(target, table, rows)

            yield from atomic(target, body)
        following = dict(position)
        if len(rows) == limit:
            following["after"] = _pk(rows[-1])
        elif position["table"] + 1 < len(tables):
            following.update(table=position["table"] + 1, after=None)
        else:
            following["step"] = "delta"
        return JobStep(following, done=len(rows), message=f"copying {table.name}")

    def _read(
        self, session: Session, table: MovedTable, where: str, more: str = ""
    ) -> steps.Plan[List[Row]]:
        columns = [f"{read_expression(each)} AS c{n}" for n, each in enumerate(table.stored)]
        return (
            yield from session.query(
                f"SELECT {', '.join(columns)}, {pk_expression(table.key, quoted(table.name))} AS pk"
                f" FROM {quoted(table.name)} WHERE {self._bound(table)} AND {where}{more}"
            )
        )

    def _put(self, target: Session, table: MovedTable, rows: List[Row]) -> steps.Plan[None]:
        """Write rows, inside a transaction on the target that has checked the epoch.

        A row whose parent is not there is left out: the parent was inserted after its
        table was copied, and both are in the log; or it was deleted meanwhile.
        """
        if table.by_parent:
            rows = yield from self._with_parents(target, table, rows)
            if not rows:
                return
        among = _among(table, [_pk(row) for row in rows])
        foreign = yield from target.query(
            f"SELECT {pk_expression(table.key, quoted(table.name))} AS pk FROM "
            f"{quoted(table.name)} WHERE {among} AND NOT COALESCE({self._bound(table)}, 0) LIMIT 1"
        )
        if foreign:
            raise self._collision(table, pk_values(table.key, _pk(foreign[0]).encode()))
        yield from target.execute(f"DELETE FROM {quoted(table.name)} WHERE {among}")
        names = ", ".join(quoted(each.name) for each in table.stored)
        marks = "(" + ", ".join(["%s"] * len(table.stored)) + ")"
        for part in _parts(rows):
            values = [row[f"c{n}"] for row in part for n in range(len(table.stored))]
            all_marks = ", ".join([marks] * len(part))
            try:
                yield from target.execute(
                    f"INSERT INTO {_escaped(table.name)} ({names.replace('%', '%%')}) "
                    f"VALUES {all_marks}",
                    values,
                )
            except errors.IntegrityError as error:
                raise self._collision(table, error.message) from error

    def _with_parents(
        self, target: Session, table: MovedTable, rows: List[Row]
    ) -> steps.Plan[List[Row]]:
        """The rows whose parent is on the target."""
        number = table.stored_number(table.table.parent_column or "")
        wanted = {row[f"c{number}"] for row in rows} - {None}
        if not wanted:
            return []
        key = quoted(table.table.parent_key)
        # as the column gives it, whichever form the value has that was read
        column = read_expression(table.stored[number]).replace(
            quoted(table.stored[number].name), key
        )
        found = yield from target.query(
            parameters.bind(
                f"SELECT {column.replace('%', '%%')} AS k FROM "
                f"{_escaped(table.table.parent or '')} WHERE {key.replace('%', '%%')} IN %s",
                (tuple(wanted),),
            )
        )
        there = {row["k"] for row in found}
        return [row for row in rows if row[f"c{number}"] in there]

    def _collision(self, table: MovedTable, what: object) -> MoveError:
        return MoveError(
            f"a row of {table.name!r} is on shard {self._target.name} with the same key, and is "
            f"another tenant's: {what}. Ids must differ between shards"
        )

    # Deltas.

    def _delta(self, position: Position) -> steps.Plan[JobStep]:
        until = time.monotonic() + self._options.lease / 3
        count = position.get("deltas", 0)

        def work(source: Session, target: Session, tables: List[MovedTable]) -> steps.Plan[int]:
            nonlocal count
            while True:
                taken = yield from self._apply_log(source, target, tables, position)
                count += 1
                if taken < FEW_ROWS or time.monotonic() >= until or count >= DELTAS:
                    return taken

        taken = yield from self._on_both(work)
        enough = taken < FEW_ROWS or count >= DELTAS
        step = "cut over" if enough else "delta"
        return JobStep({**position, "step": step, "deltas": count}, message=f"{taken} changes")

    def _apply_log(
        self,
        source: Session,
        target: Session,
        tables: List[MovedTable],
        position: Position,
        *,
        is_last: bool = False,
    ) -> steps.Plan[int]:
        """Carry changes over: read the log, then the rows as they are now, write those,
        and forget what was read. Gives the number of log rows.

        The last time, behind the fence, the log is read with a lock, which waits for
        prepared transactions, and is kept.
        """
        after = position.get("seq", 0)
        logged = yield from source.query(
            f"SELECT seq, tbl, pk FROM {LOG} WHERE tenant = %s AND seq > %s ORDER BY seq LIMIT %s"
            f"{' LOCK IN SHARE MODE' if is_last else ''}",
            (self._tenant, after if is_last else 0, DELTA_ROWS),
        )
        if not logged:
            return 0
        yield from self._carry_over(source, target, tables, _by_table(logged), position)
        numbers = tuple(row["seq"] for row in logged)
        if is_last:
            position["seq"] = numbers[-1]
            return len(logged)

        def forget() -> steps.Plan[None]:
            yield from self._check_epoch(source, position)
            yield from source.execute(f"DELETE FROM {LOG} WHERE seq IN %s", (numbers,))

        yield from atomic(source, forget)
        return len(logged)

    def _carry_over(
        self,
        source: Session,
        target: Session,
        tables: List[MovedTable],
        changed: Dict[str, List[str]],
        position: Position,
    ) -> steps.Plan[None]:
        """Make rows on the target as they are on the source; by the texts of their
        primary keys.
        """
        rows: Dict[str, List[Row]] = {}
        for table in tables:
            if table.name in changed:
                among = _among(table, changed[table.name])
                rows[table.name] = yield from self._read(source, table, among)
        children = yield from self._children_of_new(source, target, tables, rows)
        for name, more in children.items():
            known = {_pk(row) for row in rows.setdefault(name, [])}
            rows[name] += [row for row in more if _pk(row) not in known]

        def body() -> steps.Plan[None]:
            yield from self._check_epoch(target, position)
            for table in reversed(tables):
                there = {_pk(row) for row in rows.get(table.name, [])}
                gone = [pk for pk in changed.get(table.name, []) if pk not in there]
                if gone:
                    yield from self._remove(target, tables, table, gone)
            for table in tables:
                if rows.get(table.name):
                    yield from self._put(target, table, rows[table.name])

        yield from atomic(target, body)

    def _children_of_new(
        self,
        source: Session,
        target: Session,
        tables: List[MovedTable],
        rows: Dict[str, List[Row]],
    ) -> steps.Plan[Dict[str, List[Row]]]:
        """Rows of parents that the target does not have yet: where a parent has become
        the tenant's, its children have not changed, and are in no log.
        """
        found: Dict[str, List[Row]] = {}
        for table in tables:
            if not table.by_parent:
                continue
            parent = next(each for each in tables if each.table is table.chain[1])
            pks = [_pk(row) for row in [*rows.get(parent.name, []), *found.get(parent.name, [])]]
            if not pks:
                continue
            there = yield from target.query(
                f"SELECT {pk_expression(parent.key, quoted(parent.name))} AS pk FROM "
                f"{quoted(parent.name)} WHERE {_among(parent, pks)}"
            )
            new = set(pks) - {_pk(row) for row in there}
            if new:
                values = tuple(pk_values(parent.key, pk.encode())[0] for pk in sorted(new))
                column = _escaped(table.table.parent_column or "")
                where = parameters.bind(f"{column} IN %s", (values,))
                found[table.name] = yield from self._read(source, table, where)
        return found

    def _remove(
        self, target: Session, tables: List[MovedTable], table: MovedTable, pks: List[str]
    ) -> steps.Plan[None]:
        """Delete rows, and those that belong to them: a cascade fires no triggers."""
        for child in reversed(tables):
            if child.name != table.name and table.table in child.chain:
                where = _below(child, table, [pk_values(table.key, pk.encode())[0] for pk in pks])
                yield from target.execute(f"DELETE FROM {quoted(child.name)} WHERE {where}")
        yield from target.execute(
            f"DELETE FROM {quoted(table.name)} WHERE {_among(table, pks)} AND {self._bound(table)}"
        )

    # The switch.

    def _cut_over(self, position: Position) -> steps.Plan[JobStep]:
        self._switch = _Switch.OPEN
        try:
            return (
                yield from self._on_both(lambda s, t, tables: self._close(s, t, tables, position))
            )
        except (errors.LockLost, GeneratorExit):
            raise
        except BaseException:
            # when the sessions are closed, which may be what was lost: no statement of
            # theirs comes later
            yield from self._open_again(position)
            raise

    def _close(
        self, source: Session, target: Session, tables: List[MovedTable], position: Position
    ) -> steps.Plan[JobStep]:
        where = yield from _source(self._databases, self._key)
        began = time.monotonic()
        if where == self._source.shard_id:
            for _ in range(5):
                if (yield from self._apply_log(source, target, tables, position)) < FEW_ROWS:
                    break
            position["seq"] = 0
            carried = yield from carry_results(source, target, self._tenant)
            self._switch = _Switch.FENCED
            yield from self._set_state(source, position, FENCED)
            began = time.monotonic()
            yield from self._catch_up(source, target, tables, position)
            yield from carry_results(source, target, self._tenant, carried)
            yield from self._verify(source, target, tables)
            self._switch = _Switch.DECIDING
            where = yield from self._databases.internals.directory.switch(
                self._key,
                self._source.shard_id,
                self._target.shard_id,
                jobs.is_held(job_name(self._key), position["job_epoch"]),
            )
            if where == self._source.shard_id:
                raise self._taken_over()
        if where != self._target.shard_id:
            raise MoveError(f"the key {self._key!r} was moved to shard {where} by somebody else")
        yield from self._set_state(target, position, OPEN)
        window = time.monotonic() - began
        yield from self._set_state(source, position, MOVED)
        self._databases.internals.directory.cache.clear()
        if self._switch is _Switch.DECIDING:
            self._post("move_fenced", seconds=window)
        following = {**position, "step": "settle", "window": round(window, 4)}
        following["until"] = time.time() + self._settle_seconds()
        return JobStep(following, message=f"writes waited for {window * 1000:.0f} ms")

    def _open_again(self, position: Position) -> steps.Plan[None]:
        """Let the tenant be written to where it is, after a switch that failed or was
        interrupted.
        """
        if self._switch is _Switch.OPEN:
            return
        place, state = self._source, LOGGED
        try:
            if self._switch is _Switch.DECIDING:
                # nothing that was sent decides any more when the job is given up
                yield from jobs.give_up(self._databases, job_name(self._key), position["job_epoch"])
                if (yield from _source(self._databases, self._key)) != self._source.shard_id:
                    place, state = self._target, OPEN
            yield from self._on(place, lambda session: self._set_state(session, position, state))
        except errors.LockLost:
            pass  # another process goes on with it
        except errors.Error as error:
            log.warning(
                "writes of the key %r are refused until its move is resumed or undone: %s",
                self._key,
                error,
                extra=about("move_left_fenced"),
            )

    def _catch_up(
        self, source: Session, target: Session, tables: List[MovedTable], position: Position
    ) -> steps.Plan[None]:
        """The last deltas, when all transactions have ended that passed the fence."""
        until = time.monotonic() + self._options.lock_timeout
        while (yield from _prepared(source)):
            # one may have passed the fence; its changes are logged when it is committed
            if time.monotonic() >= until:
                raise MoveError(f"a prepared XA transaction stays on shard {self._source.name}")
            yield steps.Sleep(0.02)
        while True:
            try:
                taken = yield from self._apply_log(source, target, tables, position, is_last=True)
            except errors.LockWaitTimeout:
                if time.monotonic() >= until:
                    raise
            else:
                if taken < DELTA_ROWS:
                    return

    def _verify(
        self, source: Session, target: Session, tables: List[MovedTable]
    ) -> steps.Plan[None]:
        """Compare the rows of both shards.

        Raises:
            MoveError: They differ.
        """
        same_engine = source.is_mariadb == target.is_mariadb
        parts = []
        for table in tables:
            columns = [
                row_hashes.Column(each.name, each.kind, None, each.kind == "json")
                for each in table.columns
                if same_engine or each.kind != "json"
            ]
            parts.append(row_hashes.chunk_query(table.name, columns, self._bound(table)))
        sql = " UNION ALL ".join(
            [f"SELECT {number} AS t, x.* FROM ({part}) x" for number, part in enumerate(parts)]
        )
        answers: List[Any] = yield steps.Gather(
            tuple(steps.RunPlan(session.query(sql)) for session in (source, target))
        )
        for each in answers:
            if isinstance(each, Exception):
                raise each
        found = [{row["t"]: row for row in rows} for rows in answers]
        for number, table in enumerate(tables):
            one = found[0][number]
            other = found[1][number]
            if one != other:
                raise MoveError(
                    f"the rows of {table.name!r} differ after they were copied: {one['n']} on "
                    f"shard {self._source.name}, {other['n']} on shard {self._target.name}. Does "
                    "something change them without triggers?"
                )

    def _settle_seconds(self) -> float:
        """How long readers may still read the source."""
        if self._options.settle is not None:
            return self._options.settle
        return lookup_table(self._databases).ttl + 10.0

    def _settle(self, position: Position) -> steps.Plan[JobStep]:
        left = position["until"] - time.time()
        if left > 0:
            yield steps.Sleep(min(left, self._options.lease / 3))
            return JobStep(position, message=f"readers have {max(0.0, left):.0f} s to notice")
        return JobStep({**position, "step": "purge"})

    def _purge(self, position: Position) -> steps.Plan[JobStep]:
        """Delete the rows where they were."""
        where = yield from _source(self._databases, self._key)
        if where != self._target.shard_id:
            raise MoveError(f"the key {self._key!r} is on shard {where}: nothing is deleted")
        deleted = yield from self._delete_chunk(self._source, position)
        if deleted:
            return JobStep(position, message=f"deleting on shard {self._source.name}")
        yield from self._on(self._source, lambda s: self._forget(s, LOG, position))
        return JobStep(None, message=f"writes waited for {position['window'] * 1000:.0f} ms")

    def _forget(self, session: Session, table: str, position: Position) -> steps.Plan[None]:
        def body() -> steps.Plan[None]:
            yield from self._check_epoch(session, position)
            yield from session.execute(f"DELETE FROM {table} WHERE tenant = %s", (self._tenant,))

        yield from atomic(session, body)

    def _delete_chunk(self, place: Place, position: Position) -> steps.Plan[int]:
        """Delete rows of the tenant, those that belong to others first."""

        def work(session: Session) -> steps.Plan[int]:
            until = time.monotonic() + (0.0 if self._options.throttle else STEP_SECONDS)
            count = 0
            for table in reversed(self._tables):

                def body(table: MovedTable = table) -> steps.Plan[int]:
                    yield from self._check_epoch(session, position)
                    deleted: int = yield from session.execute(
                        f"DELETE FROM {quoted(table.name)} WHERE {self._bound(table)} "
                        f"LIMIT {self._options.chunk_rows}"
                    )
                    return deleted

                while True:
                    deleted = yield from atomic(session, body)
                    count += deleted
                    if not deleted or time.monotonic() >= until:
                        break
                if deleted:
                    break
            return count

        return (yield from self._on(place, work))

    # Back.

    def _reopen(self, position: Position) -> steps.Plan[JobStep]:
        yield from self._require_source()

        def work(session: Session) -> steps.Plan[None]:
            yield from self._set_state(session, position, OPEN)
            yield from self._forget(session, LOG, position)

        yield from self._on(self._source, work)

        def close(session: Session) -> steps.Plan[None]:
            yield from self._first_state(session, position, FENCED)

        yield from self._on(self._target, close)
        return JobStep({**position, "step": "undo"})

    def _undo(self, position: Position) -> steps.Plan[JobStep]:
        """Delete what was copied."""
        yield from self._require_source()
        deleted = yield from self._delete_chunk(self._target, position)
        if deleted:
            return JobStep(position, message=f"{deleted} copied rows were deleted")
        return JobStep(None, message="undone")


def _by_table(logged: List[Row]) -> Dict[str, List[str]]:
    """The texts of primary keys by table, each once."""
    changed: Dict[str, List[str]] = {}
    for row in logged:
        texts = changed.setdefault(row["tbl"], [])
        if _pk(row) not in texts:
            texts.append(_pk(row))
    return changed


def _with_position(job: Job, position: Position) -> Job:
    return Job(**{**vars(job), "position": position})


def _pk(row: Row) -> str:
    value = row["pk"]
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


def _among(table: MovedTable, pks: Sequence[str]) -> str:
    """A condition for rows with these primary keys."""
    values = [pk_values(table.key, pk.encode()) for pk in pks]
    if len(table.key) == 1:
        name = quoted(table.key[0].name).replace("%", "%%")
        return parameters.bind(f"{name} IN %s", (tuple(value[0] for value in values),))
    one = " AND ".join([f"{quoted(each.name).replace('%', '%%')} = %s" for each in table.key])
    text = " OR ".join([f"({one})"] * len(values))
    return parameters.bind(f"({text})", tuple(each for value in values for each in value))


def _below(child: MovedTable, ancestor: MovedTable, keys: List[Any]) -> str:
    """A condition for a table's rows whose ancestor has one of these keys, whether the
    ancestor itself is there or not.
    """
    place = child.chain.index(ancestor.table)
    lowest = child.chain[place - 1]
    column = _escaped(lowest.parent_column or "")
    where = parameters.bind(f"{column} IN %s", (tuple(keys),))
    for lower, upper in zip(child.chain[: place - 1][::-1], child.chain[1:place][::-1]):
        where = (
            f"{quoted(lower.parent_column or '')} IN (SELECT {quoted(lower.parent_key)} "
            f"FROM {quoted(upper.name)} WHERE {where})"
        )
    return where


def _escaped(name: str) -> str:
    return quoted(name).replace("%", "%%")


#: Values of one INSERT, in bytes or characters: far below max_allowed_packet.
_PART_SIZE = 1_000_000


def _parts(rows: List[Row]) -> List[List[Row]]:
    """Rows, in parts that one INSERT takes."""
    parts: List[List[Row]] = [[]]
    size = 0
    for row in rows:
        own = sum(len(value) for value in row.values() if isinstance(value, (str, bytes)))
        if parts[-1] and size + own > _PART_SIZE:
            parts.append([])
            size = 0
        parts[-1].append(row)
        size += own
    return parts


def _prepared(session: Session) -> steps.Plan[List[str]]:
    """The XA transactions that are prepared; none where they may not be seen."""
    how = "FORMAT='SQL'" if session.is_mariadb else "CONVERT XID"
    try:
        rows = yield from session.query(f"XA RECOVER {how}")
    except errors.Error as error:
        if error.errno not in (1401, 1227):
            raise
        return []
    return sorted({str(row["data"]) for row in rows})
