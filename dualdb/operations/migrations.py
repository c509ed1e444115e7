"""Applying migrations: what is recorded when, and how a run is resumed.

A server commits DDL by itself, so a statement and the record of it cannot be one
transaction. A record says that a statement is sent, with a fingerprint of the schema,
and another one that it was performed. A run that finds the first and not the second
compares the schema with the fingerprint. INSERT, UPDATE, DELETE and REPLACE are
recorded in the transaction that they are in, and are never in doubt.
"""

import contextlib
from typing import Callable, Dict, List, Literal, NamedTuple, Optional, Sequence, Tuple, Union

from .. import deadlines, errors
from ..execution import steps
from . import migration_files, migration_lock, rollout, schema, script
from .migration_files import Directory, Migration, MigrationError, Record
from .migration_lock import RunnerLock, owner
from .places import Databases, Place, Session, Shards
from .reports import (
    DatabaseMigrations,
    DatabaseRun,
    MigrationReport,
    MigrationRun,
    MigrationStep,
    State,
)

__all__ = ["Directory", "Doubtful", "MigrationError", "Options", "down", "status", "up"]

#: What to do with a statement that may or may not have been performed.
Doubtful = Literal["repeat", "done"]

TABLE = "dualdb_migration"

DDL = f"""CREATE TABLE IF NOT EXISTS {TABLE} (
    version BIGINT UNSIGNED PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    state VARCHAR(10) NOT NULL,
    checksum CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    statements INT NOT NULL,
    completed INT NOT NULL DEFAULT 0,
    prefix CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    sent CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
    `before` CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
    owner VARCHAR(255) NOT NULL,
    begun_at DATETIME(6) NOT NULL,
    applied_at DATETIME(6) NULL
)"""

_NO_SUCH_TABLE = 1146
_SYNTAX = 1064
#: ALGORITHM or LOCK cannot be as they were asked for (MySQL manual, "Server Error
#: Message Reference"); the last: no further change is possible at once.
_NOT_SO = frozenset({1845, 1846, 4092})


class Options(NamedTuple):
    """The arguments of ``migrate.up`` and ``migrate.down``."""

    shards: Shards
    to: Optional[int]
    canary: Union[bool, int, str]
    max_concurrency: int
    dry_run: bool
    allow_blocking: bool
    doubtful: Optional[Doubtful]
    lock_timeout: float
    ddl_timeout: float
    progress: Optional[Callable[[DatabaseRun], object]]


def status(
    databases: Databases, directory: Directory, shards: Shards
) -> steps.Plan[MigrationReport]:
    """What is applied where; see ``Migrate.status``."""
    migrations = migration_files.read(directory)
    found = yield from databases.on_each(databases.chosen(shards), _records)
    reports = []
    for place, records in found:
        if isinstance(records, Exception):
            reports.append(DatabaseMigrations(place.name, error=rollout.message(records)))
        else:
            known = migration_files.statuses(migrations, records)
            reports.append(DatabaseMigrations(place.name, tuple(known)))
    return MigrationReport(tuple(reports))


def up(databases: Databases, directory: Directory, options: Options) -> steps.Plan[MigrationRun]:
    """Apply migrations; see ``Migrate.up``."""
    migrations = migration_files.read(directory)

    def todo(records: Dict[int, Record]) -> List[Migration]:
        return migration_files.next_up(migrations, records, options.to)

    return (yield from _run(databases, todo, options, is_up=True))


def down(databases: Databases, directory: Directory, options: Options) -> steps.Plan[MigrationRun]:
    """Take migrations back; see ``Migrate.down``."""
    migrations = migration_files.read(directory)
    if options.to is None or options.to < 0:
        raise errors.ParameterError(f"to must be a version or 0, not {options.to!r}")
    to = options.to

    def todo(records: Dict[int, Record]) -> List[Migration]:
        return migration_files.next_down(migrations, records, to)

    return (yield from _run(databases, todo, options, is_up=False))


Todo = Callable[[Dict[int, Record]], List[Migration]]


def _run(
    databases: Databases, todo: Todo, options: Options, *, is_up: bool
) -> steps.Plan[MigrationRun]:
    deadlines.seconds(options.lock_timeout)
    deadlines.seconds(options.ddl_timeout)
    if options.doubtful not in (None, "repeat", "done"):
        raise errors.ParameterError(
            f"doubtful must be 'repeat' or 'done', not {options.doubtful!r}"
        )

    def work(place: Place) -> steps.Plan[DatabaseRun]:
        return _Migrator(databases, place, todo, options, is_up=is_up).run()

    order = rollout.Rollout(
        work,
        lambda place: DatabaseRun(place.name, State.NOT_BEGUN),
        lambda result: result.state is State.FAILED,
        progress=options.progress,
    )
    places = databases.chosen(options.shards)
    found = yield from order.run(places, options.canary, options.max_concurrency)
    return MigrationRun(tuple(found), options.dry_run)


def _records(session: Session) -> steps.Plan[Dict[int, Record]]:
    """What the database knows of migrations."""
    columns = ", ".join(f"`{name}`" for name in Record._fields)
    try:
        rows = yield from session.query(f"SELECT {columns} FROM {TABLE}")
    except errors.ProgrammingError as error:
        if error.errno != _NO_SUCH_TABLE:
            raise
        return {}
    return {row["version"]: migration_files.record_of(row) for row in rows}


class _Migrator:
    """The migrations of one database, each on a session of its own, so that none finds
    the settings of another.
    """

    def __init__(
        self, databases: Databases, place: Place, todo: Todo, options: Options, *, is_up: bool
    ) -> None:
        self._databases = databases
        self._place = place
        self._todo = todo
        self._options = options
        self._is_up = is_up
        self._done: List[MigrationStep] = []
        self._at: Tuple[Optional[int], Optional[int]] = (None, None)

    def run(self) -> steps.Plan[DatabaseRun]:
        try:
            if self._options.dry_run:
                planned = yield from self._databases.session(self._place, self._plan)
                state = State.NOT_BEGUN if planned else State.DONE
                return DatabaseRun(self._place.name, state, tuple(planned))
            more = True
            while more:
                more = yield from self._databases.session(self._place, self._next)
        except errors.Error as error:
            version, statement = self._at
            return DatabaseRun(
                self._place.name,
                State.FAILED,
                tuple(self._done),
                version,
                statement,
                rollout.message(error),
                error.errno,
            )
        return DatabaseRun(self._place.name, State.DONE, tuple(self._done))

    def _statements(self, migration: Migration) -> Tuple[str, ...]:
        return migration.up if self._is_up else migration.down or ()

    def _plan(self, session: Session) -> steps.Plan[List[MigrationStep]]:
        records = yield from _records(session)
        planned = []
        for each in self._todo(records):
            first = _completed(
                records.get(each.version), "applying" if self._is_up else "reverting"
            )
            statements = self._statements(each)[first:]
            planned.append(MigrationStep(each.version, each.name, statements, first))
        return planned

    def _next(self, session: Session) -> steps.Plan[bool]:
        """Perform the next migration; False if there is none."""
        self._at = (None, None)
        yield from session.execute(
            "SET SESSION lock_wait_timeout = %s", (max(1, round(self._options.ddl_timeout)),)
        )
        lock = yield from migration_lock.lock_of(
            self._databases, session, self._options.lock_timeout
        )
        yield from lock.acquire()
        try:
            found = yield from self._next_of(session, lock)
        except errors.Error:
            # A lease would keep the next run waiting until it ends by itself.
            with contextlib.suppress(errors.Error):
                yield from lock.release()
            raise
        yield from lock.release()
        return found

    def _next_of(self, session: Session, lock: RunnerLock) -> steps.Plan[bool]:
        yield from session.execute(DDL)
        records = yield from _records(session)
        todo = self._todo(records)
        if todo:
            yield from self._perform(session, lock, todo[0], records.get(todo[0].version))
        return bool(todo)

    def _perform(
        self, session: Session, lock: RunnerLock, migration: Migration, record: Optional[Record]
    ) -> steps.Plan[None]:
        log = _Log(session, lock, migration.version)
        statements = self._statements(migration)
        state = "applying" if self._is_up else "reverting"
        first = _completed(record, state)
        self._at = (migration.version, first)
        notes: List[str] = []
        if record is not None and record.state == state:
            migration_files.check_prefix(record, statements)
            if record.sent is not None:
                first += yield from self._settle(session, record, statements[first], notes)
                yield from log.completed(statements[:first])
            for statement in statements[:first]:
                if migration_files.setting(statement):
                    yield from session.results(statement)
        if record is None or record.state != state or record.checksum != migration.checksum:
            yield from log.begin(migration, state, statements, first)
        sent = []
        for number in range(first, len(statements)):
            self._at = (migration.version, number)
            yield from lock.check()
            work = self._statement(session, log, statements, number)
            sent.append((yield from lock.keep(work)))
        yield from (log.applied() if self._is_up else log.forget())
        self._done.append(
            MigrationStep(migration.version, migration.name, tuple(sent), first, tuple(notes))
        )

    def _statement(
        self, session: Session, log: "_Log", statements: Sequence[str], number: int
    ) -> steps.Plan[str]:
        """Perform one statement and record it. Gives it as it was sent."""
        statement = statements[number]
        kind = migration_files.category(statement)
        if kind == "transactional":
            yield from session.execute("START TRANSACTION")
            try:
                yield from session.results(statement)
                yield from log.completed_inside(statements[: number + 1])
                yield from session.execute("COMMIT")
            except errors.Error as error:
                if errors.is_server_error(error) or isinstance(error, errors.LockLost):
                    yield from session.execute("ROLLBACK")
                raise
            return statement
        before = None
        if kind == "schema":
            before = schema.fingerprint((yield from schema.read(session)))
        yield from log.sending(statement, before)
        try:
            statement = yield from self._alter(session, statement)
        except errors.Error as error:
            if errors.is_server_error(error) or isinstance(error, MigrationError):
                yield from log.refused()
            raise
        yield from log.completed(statements[: number + 1])
        return statement

    def _alter(self, session: Session, statement: str) -> steps.Plan[str]:
        """Perform a statement; one that alters a table with rows without keeping
        writers waiting, if it may not.
        """
        table = script.altered_table(statement)
        if not table or (yield from _is_empty(session, table)):
            yield from session.results(statement)
            return statement
        for form in script.online_forms(statement):
            try:
                yield from session.results(form)
                return form
            except errors.Error as error:
                reason = error
                if error.errno == _SYNTAX:
                    break
                if error.errno not in _NOT_SO:
                    raise
        if not self._options.allow_blocking:
            raise MigrationError(
                f"this can only be done while writers of {table} wait: {statement!r} ({reason}). "
                "Allow it with allow_blocking=True, or use a tool for online schema changes"
            ) from reason
        yield from session.results(statement)
        return statement

    def _settle(
        self, session: Session, record: Record, statement: str, notes: List[str]
    ) -> steps.Plan[int]:
        """Whether a statement that was sent was performed: 1 if it was."""
        kind = migration_files.category(statement)
        if kind == "repeatable":
            return 0
        if kind == "schema":
            now = schema.fingerprint((yield from schema.read(session)))
            if now == record.before:
                notes.append(f"statement {record.completed + 1} had not been performed")
                return 0
            if migration_files.is_atomic(statement):
                notes.append(f"statement {record.completed + 1} had been performed")
                return 1
        if self._options.doubtful is None:
            raise MigrationError(
                f"statement {record.completed + 1} of migration {record.title} may or may not "
                f"have been performed: {statement!r}; {rollout.DOUBTFUL}"
            )
        return int(self._options.doubtful == "done")


def _completed(record: Optional[Record], state: str) -> int:
    return record.completed if record is not None and record.state == state else 0


def _is_empty(session: Session, table: str) -> steps.Plan[bool]:
    try:
        return (yield from session.value(f"SELECT 1 FROM {table} LIMIT 1")) is None
    except errors.Error as error:
        if not errors.is_server_error(error):
            raise
        return True  # the statement itself says what is the matter


class _Log:
    """The record of one migration in its database."""

    def __init__(self, session: Session, lock: RunnerLock, version: int) -> None:
        self._session = session
        self._lock = lock
        self._version = version

    def _execute(self, sql: str, *values: object) -> steps.Plan[None]:
        yield from self._session.execute(sql, values)

    def _update(self, changes: str, *values: object) -> steps.Plan[None]:
        sql = f"UPDATE {TABLE} SET {changes} WHERE version = %s"
        yield from self._lock.record(self._execute(sql, *values, self._version))

    def begin(
        self, migration: Migration, state: str, statements: Sequence[str], first: int
    ) -> steps.Plan[None]:
        write = self._execute(
            f"INSERT INTO {TABLE} (version, name, state, checksum, statements, completed, prefix, "
            "owner, begun_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, UTC_TIMESTAMP(6)) "
            "ON DUPLICATE KEY UPDATE state = VALUES(state), checksum = VALUES(checksum), "
            "statements = VALUES(statements), completed = VALUES(completed), "
            "prefix = VALUES(prefix), owner = VALUES(owner), begun_at = VALUES(begun_at), "
            "sent = NULL, `before` = NULL, applied_at = NULL",
            migration.version, migration.name, state, migration.checksum, len(statements),
            first, script.digest(statements[:first]), owner(),
        )  # fmt: skip
        yield from self._lock.record(write)

    def sending(self, statement: str, before: Optional[str]) -> steps.Plan[None]:
        yield from self._update("sent = %s, `before` = %s", script.digest([statement]), before)

    def refused(self) -> steps.Plan[None]:
        yield from self._update("sent = NULL, `before` = NULL")

    def completed(self, statements: Sequence[str]) -> steps.Plan[None]:
        yield from self._lock.record(self._completed(statements))

    def completed_inside(self, statements: Sequence[str]) -> steps.Plan[None]:
        """The same, as the last part of the statement's own transaction."""
        yield from self._lock.confirm()
        yield from self._completed(statements)

    def _completed(self, statements: Sequence[str]) -> steps.Plan[None]:
        yield from self._execute(
            f"UPDATE {TABLE} SET completed = %s, prefix = %s, sent = NULL, `before` = NULL "
            "WHERE version = %s",
            len(statements),
            script.digest(statements),
            self._version,
        )

    def applied(self) -> steps.Plan[None]:
        yield from self._update("state = 'applied', applied_at = UTC_TIMESTAMP(6)")

    def forget(self) -> steps.Plan[None]:
        sql = f"DELETE FROM {TABLE} WHERE version = %s"
        yield from self._lock.record(self._execute(sql, self._version))
