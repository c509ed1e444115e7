"""What operations give back: values that can be shown, written as JSON and compared."""

import dataclasses
import datetime
import decimal
import enum
from typing import Any, Dict, List, Mapping, Optional, Tuple, TypeVar

from ..results import Row
from .inserts import insert_script
from .leases import JobLease

R = TypeVar("R", bound="Report")


class State(str, enum.Enum):
    """How far an operation came on one database."""

    DONE = "done"
    FAILED = "failed"
    NOT_BEGUN = "not begun"


@dataclasses.dataclass(frozen=True)
class Report:
    """The base of all reports."""

    def to_dict(self) -> Dict[str, Any]:
        """The report as dicts, lists, texts and numbers, as JSON has them: its fields,
        and ``ok`` where it has that.
        """
        found: Dict[str, Any] = plain(self)
        return found


def plain(value: object) -> Any:
    """A value as JSON has it: bytes as hexadecimal digits, numbers that JSON has not as
    texts, dates and times as ISO 8601 has them, or as MySQL has a TIME.
    """
    if isinstance(value, Report):
        names = ["ok"] if hasattr(type(value), "ok") else []
        names += [each.name for each in dataclasses.fields(value) if each.repr]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, datetime.timedelta):
        return time_text(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return value


def time_text(value: datetime.timedelta) -> str:
    """A TIME as MySQL writes it, which has hours beyond 24 and a sign."""
    sign = "-" if value < datetime.timedelta() else ""
    seconds, micros = divmod(abs(value) // datetime.timedelta(microseconds=1), 1_000_000)
    text = f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{micros:06}" if micros else text


# SQL everywhere.


@dataclasses.dataclass(frozen=True)
class StatementResult(Report):
    """One statement on one database.

    Attributes:
        sql: The statement.
        affected: The rows that it changed.
        rows: Those of its result sets; None for a statement without any.
        seconds: How long it took.
    """

    sql: str
    affected: int = 0
    rows: Optional[Tuple[Row, ...]] = None
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class DatabaseResult(Report):
    """A script on one database.

    Attributes:
        database: ``"global"`` or the shard id as text.
        state: Whether all of it was performed.
        completed: The number of statements that were performed.
        results: Those of this run, in order.
        error: What the statement after them failed with.
        errno: The server's code for it.
        in_doubt: The connection was lost, and the statement may have been performed.
    """

    database: str
    state: State
    completed: int = 0
    results: Tuple[StatementResult, ...] = ()
    error: Optional[str] = None
    errno: Optional[int] = None
    in_doubt: bool = False


@dataclasses.dataclass(frozen=True)
class SqlReport(Report):
    """A script on several databases.

    Attributes:
        statements: The script's statements.
        digest: Of the statements: a report is resumed with the same script only.
        databases: What became of it, by database, in the order of the run.
        dry_run: Nothing was sent.
    """

    statements: Tuple[str, ...]
    digest: str
    databases: Tuple[DatabaseResult, ...]
    dry_run: bool = False

    @property
    def done(self) -> List[str]:
        """The databases on which all was performed."""
        return self._in(State.DONE)

    @property
    def failed(self) -> List[str]:
        """The databases on which a statement failed."""
        return self._in(State.FAILED)

    @property
    def not_begun(self) -> List[str]:
        """The databases to which nothing was sent."""
        return self._in(State.NOT_BEGUN)

    @property
    def ok(self) -> bool:
        """Whether all was performed everywhere, or nothing was to be."""
        return self.dry_run or not (self.failed or self.not_begun)

    def _in(self, state: State) -> List[str]:
        return [each.database for each in self.databases if each.state is state]

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "SqlReport":
        """A report for ``resume`` from what ``to_dict`` gave; without the rows."""
        databases = [
            DatabaseResult(
                each["database"],
                State(each["state"]),
                each["completed"],
                (),
                each["error"],
                each["errno"],
                each["in_doubt"],
            )
            for each in plain["databases"]
        ]
        return cls(tuple(plain["statements"]), plain["digest"], tuple(databases), plain["dry_run"])


# Migrations.


class MigrationState(str, enum.Enum):
    """What is known of one migration in one database.

    A migration that is ``BEGUN`` stopped between two statements; of one that is
    ``IN_DOUBT`` a statement was sent, and nobody has recorded what became of it.
    """

    APPLIED = "applied"
    PENDING = "pending"
    BEGUN = "begun"
    IN_DOUBT = "in doubt"
    CHANGED = "changed"
    MISSING = "missing"


@dataclasses.dataclass(frozen=True)
class MigrationStatus(Report):
    """One migration in one database.

    Attributes:
        version: The number of its file.
        name: The rest of the file's name.
        state: What is known of it.
        completed: The number of statements that are recorded as performed.
        statements: How many it has.
        applied_at: When it was, by the server's clock in UTC.
    """

    version: int
    name: str
    state: MigrationState
    completed: int = 0
    statements: int = 0
    applied_at: Optional[datetime.datetime] = None


@dataclasses.dataclass(frozen=True)
class DatabaseMigrations(Report):
    """The migrations of one database, or why they are not known."""

    database: str
    migrations: Tuple[MigrationStatus, ...] = ()
    error: Optional[str] = None

    @property
    def pending(self) -> List[int]:
        """The versions that ``up`` would apply or complete."""
        wanted = (MigrationState.PENDING, MigrationState.BEGUN, MigrationState.IN_DOUBT)
        return [each.version for each in self.migrations if each.state in wanted]


@dataclasses.dataclass(frozen=True)
class MigrationReport(Report):
    """The migrations of several databases: ``migrate.status``."""

    databases: Tuple[DatabaseMigrations, ...]

    @property
    def ok(self) -> bool:
        """Whether every migration is applied everywhere, from a file as it is now."""
        return all(
            each.error is None
            and all(found.state is MigrationState.APPLIED for found in each.migrations)
            for each in self.databases
        )


@dataclasses.dataclass(frozen=True)
class MigrationStep(Report):
    """One migration that was, or would be, applied to or removed from a database.

    Attributes:
        version: The number of its file.
        name: The rest of the file's name.
        statements: Its statements from ``first`` on, as they were sent.
        first: The number of statements that had been performed before.
        notes: What was found out about a statement that was in doubt, and the like.
    """

    version: int
    name: str
    statements: Tuple[str, ...] = ()
    first: int = 0
    notes: Tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class DatabaseRun(Report):
    """What ``up`` or ``down`` did in one database.

    Attributes:
        database: ``"global"`` or the shard id as text.
        state: Whether it is where it was to be brought.
        steps: The migrations that were completed, in order; those that would be in a
            dry run.
        failed_version: The migration that failed.
        failed_statement: The number of its statement that failed, from 0.
        error: What it failed with.
        errno: The server's code for it.
    """

    database: str
    state: State
    steps: Tuple[MigrationStep, ...] = ()
    failed_version: Optional[int] = None
    failed_statement: Optional[int] = None
    error: Optional[str] = None
    errno: Optional[int] = None


@dataclasses.dataclass(frozen=True)
class MigrationRun(Report):
    """What ``migrate.up`` or ``migrate.down`` did.

    Attributes:
        databases: In the order of the run, the canary first.
        dry_run: Nothing was changed.
    """

    databases: Tuple[DatabaseRun, ...]
    dry_run: bool = False

    @property
    def ok(self) -> bool:
        """Whether every database is where it was to be brought."""
        return not self.failed and (
            self.dry_run or all(each.state is State.DONE for each in self.databases)
        )

    @property
    def failed(self) -> List[str]:
        """The databases in which a migration failed."""
        return [each.database for each in self.databases if each.state is State.FAILED]

    @property
    def not_begun(self) -> List[str]:
        """The databases that were left as they were because another one failed."""
        return [each.database for each in self.databases if each.state is State.NOT_BEGUN]


# Drift.


@dataclasses.dataclass(frozen=True)
class Difference(Report):
    """One difference between a database and the reference.

    Attributes:
        database: Where it was found.
        kind: ``"table"``, ``"column"``, ``"index"``, ``"foreign key"``, ``"check"``,
            ``"trigger"``, ``"procedure"``, ``"function"``, ``"view"``, ``"event"``,
            ``"database"`` or ``"visibility"``.
        name: The object, such as ``trades.qty``.
        attribute: What of it differs; ``"exists"`` for the object itself.
        expected: What the reference has.
        found: What this database has.
    """

    database: str
    kind: str
    name: str
    attribute: str
    expected: Optional[str]
    found: Optional[str]


@dataclasses.dataclass(frozen=True)
class SchemaDiff(Report):
    """The differences of several databases from one.

    Attributes:
        reference: The database that the others are compared with.
        compared: The others.
        differences: What differs, sorted.
        errors: Why a database could not be read, by database.
    """

    reference: str
    compared: Tuple[str, ...]
    differences: Tuple[Difference, ...]
    errors: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether all were read and nothing differs."""
        return not self.differences and not self.errors


# Rows.


@dataclasses.dataclass(frozen=True)
class RowDifference(Report):
    """One row that is not the same in two databases.

    Attributes:
        key: The values of its primary key.
        kind: ``"differs"``, ``"only left"`` or ``"only right"``.
        columns: The columns that differ.
        left: The row's values in those columns, or all of a row that is only there.
        right: The same of the other database.
    """

    key: Mapping[str, Any]
    kind: str
    columns: Tuple[str, ...] = ()
    left: Optional[Mapping[str, Any]] = None
    right: Optional[Mapping[str, Any]] = None


@dataclasses.dataclass(frozen=True)
class RowsReport(Report):
    """The rows of a table in two databases: ``check_rows``.

    Attributes:
        table: The table.
        left: The database whose chunks were taken.
        right: The database that it was compared with.
        rows: How many rows the left one has in the checked range.
        chunks: How many chunks were compared.
        differing_chunks: How many of them differ.
        differences: The rows, at most ``max_differences``.
        complete: False where there were more differences than that.
        position: The primary key that was reached, for ``after``.
    """

    table: str
    left: str
    right: str
    rows: int = 0
    chunks: int = 0
    differing_chunks: int = 0
    differences: Tuple[RowDifference, ...] = ()
    complete: bool = True
    position: Optional[Tuple[Any, ...]] = None

    @property
    def ok(self) -> bool:
        """Whether all rows are the same."""
        return self.complete and not self.differing_chunks


# Audit.


@dataclasses.dataclass(frozen=True)
class Misplaced(Report):
    """Rows of one key in a shard to which the key does not belong.

    Attributes:
        database: Where they are.
        key: The key.
        rows: How many.
        belongs_to: The shard id of the key; None for a key that has none.
    """

    database: str
    key: Any
    rows: int
    belongs_to: Optional[int]


@dataclasses.dataclass(frozen=True)
class AuditReport(Report):
    """Whether rows are where their keys belong.

    Attributes:
        table: The table.
        key_column: Its column with the key.
        keys: How many different keys were looked up, summed over the shards.
        rows: How many rows they have.
        misplaced: Those that are elsewhere than their keys, or whose keys have no
            shard.
        errors: Why a shard could not be read, by database.
    """

    table: str
    key_column: str
    keys: int
    rows: int
    misplaced: Tuple[Misplaced, ...]
    errors: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every shard was read and every row is where its key belongs."""
        return not self.misplaced and not self.errors


# Jobs.


class JobState(str, enum.Enum):
    """What becomes of a job."""

    READY = "ready"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclasses.dataclass(frozen=True)
class Job(Report):
    """A durable job, as its row was when it was read.

    Attributes:
        name: Its name, which is unique.
        kind: What it does, a word of the application's.
        state: ``RUNNING`` also of one whose worker died; see ``lease_seconds_left``.
        params: What it was made with, as JSON has it.
        position: Where its next step begins, as JSON has it; None before the first.
        done: Units of work that are done.
        total: Units of work there are, if that is known.
        message: What it says of itself, or the error that it failed with.
        owner: Who runs it: host, process id, and a random part.
        epoch: Raised whenever somebody takes the job.
        throttle: Seconds to wait between two steps.
        lease_seconds_left: Until somebody else may take it; below 0 once it is over.
        pause_requested: Somebody asked it to pause, and it has not yet.
        lease: In a step that runs: ``job.lease.lost`` says that somebody else may have
            taken the job, and ``job.lease.check()`` raises JobLost then.
    """

    name: str
    kind: str
    state: JobState
    params: Any = None
    position: Any = None
    done: int = 0
    total: Optional[int] = None
    message: str = ""
    owner: Optional[str] = None
    epoch: int = 0
    throttle: float = 0.0
    lease_seconds_left: Optional[float] = None
    pause_requested: bool = False
    created_at: Optional[datetime.datetime] = None
    updated_at: Optional[datetime.datetime] = None
    lease: Optional[JobLease] = dataclasses.field(default=None, repr=False, compare=False)


@dataclasses.dataclass(frozen=True)
class JobStep(Report):
    """What one step of a job did; its function returns it.

    Attributes:
        position: Where the next step begins, anything that JSON can hold; None when the
            job is done.
        done: Units of work that this step did.
        total: Units of work there are in all, if that is known.
        message: Anything worth showing.
    """

    position: Any = None
    done: int = 0
    total: Optional[int] = None
    message: str = ""


# Doctor.


class Severity(str, enum.Enum):
    """How much a finding matters."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclasses.dataclass(frozen=True)
class Finding(Report):
    """Something that the doctor found.

    Attributes:
        check: The check's name, such as ``"sql_mode-parity"``.
        severity: How much it matters.
        database: Where; ``"all"`` for what concerns them together.
        message: What is the matter.
        fix: What to do about it.
    """

    check: str
    severity: Severity
    database: str
    message: str
    fix: str


@dataclasses.dataclass(frozen=True)
class DoctorReport(Report):
    """What the doctor found.

    Attributes:
        databases: Those that were looked at, with their servers' versions.
        checks: The names of all checks that were made.
        findings: Worst first.
        facts: What was asked of each database.
    """

    databases: Mapping[str, str]
    checks: Tuple[str, ...]
    findings: Tuple[Finding, ...]
    facts: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing was found but notes."""
        return all(each.severity is Severity.NOTE for each in self.findings)


# Sessions.


@dataclasses.dataclass(frozen=True)
class Process(Report):
    """A session on a server.

    Attributes:
        database: The shard id as text, or ``"global"``: the first of those on this
            server.
        id: The session's id on its server, for ``kill``.
        user: Its account.
        host: Where it comes from.
        schema: Its current database.
        command: What it does, in the server's words: ``"Query"``, ``"Sleep"``.
        seconds: For how long.
        state: What the server says of it.
        sql: The statement.
    """

    database: str
    id: int
    user: str
    host: str
    schema: Optional[str]
    command: str
    seconds: float
    state: str
    sql: Optional[str]


@dataclasses.dataclass(frozen=True)
class ProcessReport(Report):
    """The sessions of several servers, the longest statement first."""

    processes: Tuple[Process, ...]
    errors: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every server could be asked."""
        return not self.errors


@dataclasses.dataclass(frozen=True)
class KillReport(Report):
    """A session that was, or would be, ended.

    Attributes:
        process: It as it was just before; None if it was gone already.
        statement: What was sent, or would be.
        killed: It was there, and the server was sent a KILL.
        dry_run: Nothing was sent.
    """

    process: Optional[Process]
    statement: str
    killed: bool
    dry_run: bool = False


# Tables that dualdb needs.


@dataclasses.dataclass(frozen=True)
class CreatedTable(Report):
    """A table that was, or would be, made.

    Attributes:
        database: ``"global"`` or a shard id as text.
        name: The table.
        purpose: What it is for.
    """

    database: str
    name: str
    purpose: str


@dataclasses.dataclass(frozen=True)
class TablesReport(Report):
    """Which tables were missing.

    Attributes:
        created: Those that were, or would be, made.
        errors: Why they could not be made on a shard.
        dry_run: Nothing was made.
    """

    created: Tuple[CreatedTable, ...]
    errors: Mapping[str, str]
    dry_run: bool = False

    @property
    def ok(self) -> bool:
        """All databases have all tables, or would have."""
        return not self.errors


# Tenants.


@dataclasses.dataclass(frozen=True)
class TenantTable:
    """How a tenant's rows are found in one table: by a column with its key, by the rows
    of another table that they belong to, or by a condition.

    Attributes:
        name: The table.
        key_column: The column that has the tenant's key.
        where: A condition in place of ``key_column``, with ``%(key)s`` for the key:
            ``"order_id IN (SELECT id FROM orders WHERE user_id = %(key)s)"``. Such a
            table cannot be moved: a trigger could not find the key of a row.
        on: ``"shard"``, the tenant's own, or ``"global"``.
        parent: Another table that is described; a row is the tenant's if the row of
            that table is which it belongs to.
        parent_column: This table's column with the value of ``parent_key``.
        parent_key: The column of the other table, which is unique there.

    Example:
        >>> [TenantTable("orders", "user_id"),
        ...  TenantTable("items", parent="orders", parent_column="order_id")]
    """

    name: str
    key_column: Optional[str] = None
    where: Optional[str] = None
    on: str = "shard"
    parent: Optional[str] = None
    parent_column: Optional[str] = None
    parent_key: str = "id"


@dataclasses.dataclass(frozen=True)
class TableRows(Report):
    """A tenant's rows of one table."""

    table: str
    on: str
    rows: Tuple[Row, ...]


@dataclasses.dataclass(frozen=True)
class TenantExport(Report):
    """All rows of a tenant, those that others refer to first.

    Attributes:
        key: The tenant's key.
        shard_id: The shard that they were read from.
        tables: The rows, in an order in which they can be inserted.
    """

    key: Any
    shard_id: Optional[int]
    tables: Tuple[TableRows, ...]

    @property
    def rows(self) -> int:
        """How many rows there are in all."""
        return sum(len(each.rows) for each in self.tables)

    def to_sql(self, on: str = "shard") -> str:
        """INSERT statements for one of the two databases, ``"shard"`` or
        ``"global"``.
        """
        return "".join(
            [insert_script(each.table, each.rows) for each in self.tables if each.on == on]
        )


@dataclasses.dataclass(frozen=True)
class ReferenceResult(Report):
    """A reference table on one shard.

    Attributes:
        table: The table.
        database: The shard id as text.
        rows: Those that were compared.
        inserted: The rows that were missing.
        updated: The rows that were different.
        deleted: The rows that the global database has not.
        error: Why it could not be done.
    """

    table: str
    database: str
    rows: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    error: Optional[str] = None

    @property
    def changed(self) -> int:
        """How many rows were written, or would be."""
        return self.inserted + self.updated + self.deleted


@dataclasses.dataclass(frozen=True)
class ReferenceReport(Report):
    """What was, or would be, written to make reference tables the same everywhere.

    Attributes:
        results: Each table on each shard.
        dry_run: Nothing was written.
    """

    results: Tuple[ReferenceResult, ...]
    dry_run: bool = False

    @property
    def ok(self) -> bool:
        """Nothing failed."""
        return all(each.error is None for each in self.results)

    @property
    def changed(self) -> int:
        """How many rows were written, or would be."""
        return sum(each.changed for each in self.results)


@dataclasses.dataclass(frozen=True)
class TableImport(Report):
    """What was, or would be, written into one table.

    Attributes:
        table: The table.
        on: ``"shard"`` or ``"global"``.
        rows: The tenant's rows in the export.
        inserted: Those that were not there.
    """

    table: str
    on: str
    rows: int
    inserted: int = 0


@dataclasses.dataclass(frozen=True)
class TenantImport(Report):
    """What was, or would be, written of an exported tenant.

    Attributes:
        key: The tenant's key.
        shard_id: Its shard; None if the export has tables of the global database alone.
        tables: In the order in which rows are inserted.
        dry_run: Nothing was written.
    """

    key: Any
    shard_id: Optional[int]
    tables: Tuple[TableImport, ...]
    dry_run: bool = False

    @property
    def inserted(self) -> int:
        """How many rows were written, or would be."""
        return sum(each.inserted for each in self.tables)


@dataclasses.dataclass(frozen=True)
class TablePurge(Report):
    """What was, or would be, deleted from one table.

    Attributes:
        table: The table.
        on: ``"shard"`` or ``"global"``.
        found: The tenant's rows before.
        deleted: Those that were deleted.
    """

    table: str
    on: str
    found: int
    deleted: int = 0


@dataclasses.dataclass(frozen=True)
class TenantPurge(Report):
    """What was, or would be, deleted of a tenant.

    Attributes:
        key: The tenant's key.
        shard_id: Its shard.
        tables: In the order in which rows are deleted, those that refer to others
            first.
        dry_run: Nothing was deleted.
    """

    key: Any
    shard_id: Optional[int]
    tables: Tuple[TablePurge, ...]
    dry_run: bool = False

    @property
    def deleted(self) -> int:
        """How many rows were deleted in all."""
        return sum(each.deleted for each in self.tables)


# Moves.


@dataclasses.dataclass(frozen=True)
class PrepareReport(Report):
    """What was made, or would be, before tenants can be moved.

    Attributes:
        shards: What was done, by shard.
        dry_run: Nothing was done.
        errors: Why it could not be done on a shard, by shard.
    """

    shards: Mapping[str, Tuple[str, ...]]
    dry_run: bool = False
    errors: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every shard has what moves need, or would have it."""
        return not self.errors


@dataclasses.dataclass(frozen=True)
class MoveReport(Report):
    """What came of a move.

    Attributes:
        key: The tenant's key.
        source: The shard that it was on.
        target: The shard that it is, or was to be, on.
        state: ``"done"``, ``"undone"``, or the state of the job: ``"paused"``;
            ``"new"`` of one that would begin.
        rows: Rows that were copied, or would be.
        window_seconds: How long writes had to wait; None if they did not.
        step: Where it stopped.
        dry_run: Nothing was done.
    """

    key: Any
    source: int
    target: int
    state: str
    rows: int = 0
    window_seconds: Optional[float] = None
    step: str = "done"
    dry_run: bool = False

    @property
    def ok(self) -> bool:
        """Whether it is done, or undone as it was to be, or nothing was to be done."""
        return self.dry_run or self.state in ("done", "undone")


@dataclasses.dataclass(frozen=True)
class PlannedMove(Report):
    """A tenant that is to move.

    Attributes:
        key: The tenant's key.
        source: The shard that it is on.
        target: The shard that it is to be on.
        size: What it weighs: rows, bytes, load, or 1.
    """

    key: Any
    source: int
    target: int
    size: float


@dataclasses.dataclass(frozen=True)
class RebalancePlan(Report):
    """The moves that give each shard its share.

    Attributes:
        by: What was counted.
        moves: In the order in which they are useful.
        before: What each shard has.
        after: What each would have.
    """

    by: str
    moves: Tuple[PlannedMove, ...]
    before: Mapping[int, float]
    after: Mapping[int, float]

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "RebalancePlan":
        """A plan from what ``to_dict`` gave."""
        moves = [
            PlannedMove(each["key"], each["source"], each["target"], each["size"])
            for each in plain["moves"]
        ]
        before, after = (
            {int(shard_id): size for shard_id, size in plain[name].items()}
            for name in ("before", "after")
        )
        return cls(plain["by"], tuple(moves), before, after)


@dataclasses.dataclass(frozen=True)
class RebalanceReport(Report):
    """How far a plan was carried out.

    Attributes:
        name: The job.
        state: The job's: ``"done"``, ``"paused"``; ``"new"`` if it would begin.
        moved: The keys that this call has moved, or would move.
        skipped: Those that were elsewhere by then.
        finished: Moves that are over, with those of earlier calls.
        dry_run: Nothing was done.
    """

    name: str
    state: str
    moved: Tuple[Any, ...]
    skipped: Tuple[Any, ...]
    finished: int
    dry_run: bool = False

    @property
    def ok(self) -> bool:
        """Whether all is done, or nothing was to be."""
        return self.dry_run or self.state == "done"
