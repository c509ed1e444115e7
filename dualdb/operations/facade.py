"""``db.operations``: what is done to many databases at once."""

from typing import Any, Callable, Dict, Generic, Iterable, Mapping, Optional, Sequence, Tuple, Union

from ..config import DatabaseConfig
from ..execution import steps
from ..sql.parameters import Params
from . import (
    audit,
    doctor,
    everywhere,
    jobs,
    keys,
    migrations,
    move,
    processes,
    rebalance,
    reference,
    rows,
    schema_diff,
    spider,
    tables,
    tenant,
    tenant_import,
)
from . import (
    throttle as throttling,
)
from .kinds import Group, KindT, operation
from .migrations import Directory, Doubtful
from .places import Databases, Shards
from .reports import (
    AuditReport,
    DatabaseResult,
    DatabaseRun,
    DoctorReport,
    Job,
    KillReport,
    MigrationReport,
    MigrationRun,
    MoveReport,
    PrepareReport,
    ProcessReport,
    RebalancePlan,
    RebalanceReport,
    ReferenceReport,
    ReferenceResult,
    RowsReport,
    SchemaDiff,
    SqlReport,
    TablesReport,
    TenantExport,
    TenantImport,
    TenantPurge,
    TenantTable,
)

#: Which database goes first and alone: True for the first of them, False for none.
Canary = Union[bool, int, str]


class Operations(Group[KindT], Generic[KindT]):
    """Operations on the databases of a service: ``db.operations``.

    In asyncio every call is awaited. They use connections of their own, one for each
    database, with the accounts of the shard table; see ``with_account``.

    ``shards`` is ``"all"``, ``"global"``, ``"everything"`` (the global database, then
    all shards), a shard id, or several of these: ``["global", 1, 3]``, ``"1,3"``.

    Attributes:
        migrate: Numbered SQL files, applied to every database once.
        jobs: Durable jobs.
    """

    def __init__(self, databases: Databases) -> None:
        super().__init__(databases)
        self.migrate: Migrate[KindT] = Migrate(databases)
        self.jobs: Jobs[KindT] = Jobs(databases)

    def with_account(self, user: str, password: str) -> "Operations[KindT]":
        """The same operations with another account, on every database.

        For what the application's own account may not do.

        Args:
            user: The account's name.
            password: Its password.
        """
        return Operations(Databases(self._databases.service, user, password))

    @operation
    def create_tables(self, *, dry_run: bool = False) -> steps.Plan[TablesReport]:
        """Make the tables that dualdb needs and that are missing, in the global
        database and on each shard. What exists is not changed, so it can be repeated.

        Shards that are suspended get them, too. What fails on one shard is in the
        report, and the others go on.

        Args:
            dry_run: Make nothing, and report which are missing.

        Example:
            >>> db.operations.create_tables().ok
            True
        """
        return tables.create(self._databases, dry_run)

    @operation
    def sql(
        self,
        script: str,
        *,
        params: Params = None,
        shards: Shards = "all",
        canary: Canary = True,
        max_concurrency: int = 4,
        on_error: everywhere.OnError = "stop",
        dry_run: bool = False,
        resume: Optional[SqlReport] = None,
        doubtful: Optional[Doubtful] = None,
        progress: Optional[Callable[[DatabaseResult], object]] = None,
    ) -> steps.Plan[SqlReport]:
        """Perform a statement or a script on several databases.

        A script is a text as a client's file has it: statements end with ``;`` or with
        what ``DELIMITER`` says. Each is committed by itself. An error of a statement
        ends the script on its database and is in the report; it is not raised.

        Args:
            script: The statements.
            params: For a script of one statement.
            shards: The databases.
            canary: The database that goes first, alone: where it fails, the others are
                not begun. True for the first one, False for none.
            max_concurrency: The most databases at the same time.
            on_error: ``"stop"`` begins no further database after an error,
                ``"continue"`` does.
            dry_run: Send nothing, and report what would be sent where.
            resume: The report of a former run of the same script: what it did is not
                done again, and on a database where it failed it goes on with the
                statement that failed.
            doubtful: Where a former run lost its connection in a statement:
                ``"repeat"`` it or take it as ``"done"``.
            progress: Called with each database's result, when it is there.

        Raises:
            ParameterError: There is no statement, or ``resume`` is of another script,
                or has a statement in doubt and ``doubtful`` does not say what to do.

        Example:
            >>> report = db.operations.sql("ANALYZE TABLE trades", shards="all")
            >>> report.ok
            True
        """
        return everywhere.run(
            self._databases,
            everywhere.Options(
                script, params, shards, canary, max_concurrency, on_error, dry_run, resume,
                doubtful, progress,
            ),
        )  # fmt: skip

    @operation
    def schema_diff(
        self,
        *,
        reference: Union[int, str, None] = None,
        shards: Shards = "all",
        ignore: Sequence[str] = (),
        ignore_tables: Sequence[str] = (),
        also: Optional[Mapping[int, DatabaseConfig]] = None,
    ) -> steps.Plan[SchemaDiff]:
        """Compare the schemas of several databases with one of them.

        Tables, columns, indexes, foreign keys, checks, triggers, procedures, functions,
        views, events, and the character set of the database. What differs by nature is
        left out: the next AUTO_INCREMENT value, definers, dates, statistics, and the
        spelling of the same thing in MySQL and MariaDB.

        Args:
            reference: The database that is right: a shard id or ``"global"``. None for
                the first of ``shards``.
            shards: The databases.
            ignore: Kinds and attributes to leave out: ``"event"``,
                ``"column.comment"``.
            ignore_tables: Tables to leave out, with ``*`` and ``?``. The tables of this
                package, ``dualdb_*``, always are.
            also: Databases that are compared as well and are not in the shard table, by
                the shard id that they will have.
        """
        return schema_diff.run(
            self._databases,
            reference,
            shards,
            frozenset(ignore),
            tuple(ignore_tables),
            also=also or {},
        )

    @operation
    def spider_ddl(
        self,
        tables: Sequence[str],
        *,
        by: Optional[str] = None,
        head_user: Optional[str] = None,
        passwords: bool = False,
    ) -> steps.Plan[spider.SpiderDDL]:
        """Make the DDL of a Spider head, a MariaDB server that queries all shards as
        one database. Nothing is performed.

        Args:
            tables: The tables that the head is to have.
            by: An integer column that holds the shard id in each row; the tables are
                then partitioned by it. None makes a table for each shard and a view of
                them all.
            head_user: The account of the head on the shards; None for the configured
                ones.
            passwords: Put the passwords of the configured accounts in.

        Raises:
            ParameterError: Something cannot be mapped; the message says what.

        A shard that cannot be read is left out, and is in the report's ``errors``.

        Example:
            >>> for statement in db.operations.spider_ddl(["trades"]).statements:
            ...     print(statement + ";")
        """
        return spider.run(self._databases, tables, by, head_user, passwords)

    @operation
    def check_rows(
        self,
        table: str,
        *,
        between: Tuple[Union[int, str], Union[int, str]],
        where: Optional[str] = None,
        params: Optional[Mapping[str, Any]] = None,
        columns: Optional[Sequence[str]] = None,
        chunk_rows: int = 1000,
        after: Optional[Sequence[Any]] = None,
        max_differences: int = 100,
        throttle: float = 0.0,
        progress: Optional[Callable[[RowsReport], object]] = None,
    ) -> steps.Plan[RowsReport]:
        """Compare the rows of a table in two databases, chunk by chunk along its
        primary key, and find those that differ.

        Each side sends one hash for a chunk; only where two differ are rows fetched.
        Two values that changed places are found, and NULL is not an empty text. The two
        may be a MySQL and a MariaDB. Rows that are written meanwhile may be reported.

        Args:
            table: The table, which has a primary key.
            between: The two databases.
            where: A condition that the rows must meet, with ``%(name)s`` for
                ``params``: those of one tenant, for example.
            params: The parameters of ``where``.
            columns: The columns to compare; None for all.
            chunk_rows: Rows of one chunk.
            after: Begin after this primary key, a report's ``position``.
            max_differences: Report this many rows, and stop.
            throttle: Seconds to wait between two chunks.
            progress: Called with the report so far, after each chunk.

        Raises:
            ParameterError: The table is missing in one of them, has no primary key or
                another one, or has other columns.
        """
        return rows.run(
            self._databases,
            rows.Options(
                table, between, where, params, columns, chunk_rows, after, max_differences,
                throttle, progress,
            ),
        )  # fmt: skip

    @operation
    def audit(
        self,
        table: str,
        key_column: str,
        *,
        shards: Shards = "all",
        where: Optional[str] = None,
        batch_keys: int = 1000,
        max_misplaced: int = 1000,
        throttle: float = 0.0,
    ) -> steps.Plan[AuditReport]:
        """Find rows that are in another shard than their key belongs to, by the
        service's ``directory`` or ``shard_of_key``.

        What is found is looked at a second time before it is reported, so that a key
        which moves meanwhile is not.

        Args:
            table: The table.
            key_column: Its column with the key, which should have an index.
            shards: The shards.
            where: A condition that the rows must meet.
            batch_keys: Keys of one query.
            max_misplaced: Report this many keys, and stop.
            throttle: Seconds to wait between two queries.

        Raises:
            ParameterError: The service does not know the shards of keys.
        """
        return audit.run(
            self._databases,
            audit.Options(table, key_column, shards, where, batch_keys, max_misplaced, throttle),
        )

    @operation
    def doctor(
        self,
        *,
        shards: Shards = "everything",
        processes: int = 1,
        privileges: Sequence[str] = doctor.PRIVILEGES,
        audit: Sequence[Tuple[str, str]] = (),
        skip: Sequence[str] = (),
    ) -> steps.Plan[DoctorReport]:
        """Look for what is wrong with the servers, the accounts and the configuration.

        It only reads.

        Args:
            shards: The databases.
            processes: How many processes have a service like this one, for the
                connection budget.
            privileges: What the application's account needs, and no more.
            audit: Tables with their key columns, in which misplaced rows are looked
                for.
            skip: Names of checks to leave out.
        """
        return doctor.run(
            self._databases,
            doctor.Options(shards, processes, tuple(privileges), tuple(audit), frozenset(skip)),
        )

    @operation
    def processes(
        self, shards: Shards = "everything", *, idle: bool = False
    ) -> steps.Plan[ProcessReport]:
        """The sessions on the servers of several databases, each server once.

        Args:
            shards: The databases.
            idle: Those that wait for a statement, too.
        """
        return processes.run(self._databases, shards, idle)

    @operation
    def kill(
        self,
        database: Union[int, str],
        session_id: int,
        *,
        connection: bool = False,
        dry_run: bool = False,
    ) -> steps.Plan[KillReport]:
        """End the statement of a session, or the session.

        Args:
            database: A shard id or ``"global"``.
            session_id: Its ``id`` in ``processes``.
            connection: End the session, and not only its statement.
            dry_run: Only say which one it is.
        """
        return processes.kill(self._databases, database, session_id, connection, dry_run)

    @operation
    def key_counts(self) -> steps.Plan[Dict[int, int]]:
        """Count the keys that the directory has on each shard, or the hash buckets.

        Empty for a function, and where there is no table. Shards that are not in the
        shard table are counted as well.
        """
        return keys.counts(self._databases.service)

    @operation
    def reference_sync(
        self,
        tables: Iterable[str],
        *,
        shards: Shards = "all",
        chunk_rows: int = 1000,
        delete: bool = True,
        dry_run: bool = False,
        progress: Optional[Callable[[ReferenceResult], object]] = None,
    ) -> steps.Plan[ReferenceReport]:
        """Copy reference tables of the global database to shards: what differs is
        written, and what is the same is not.

        Rows are compared by their hashes, as ``check_rows`` does. On each shard up to
        10,000 rows are written in one transaction and compared again before it is
        committed. What fails on one shard is in the report, and the others go on.

        Args:
            tables: Their names. Each has a primary key, and is on all of the shards.
            shards: The shards.
            chunk_rows: Rows that are compared at a time.
            delete: Delete rows that the global database has not.
            dry_run: Only count what would be written.
            progress: Called with each table's result on a shard, when it is there.

        Raises:
            ParameterError: No table or shard is named, or the global database has not
                such a table.
        """
        if isinstance(tables, str):
            tables = (tables,)
        return reference.run(
            self._databases,
            reference.Options(tuple(tables), shards, chunk_rows, delete, dry_run, progress),
        )

    @operation
    def tenant_export(
        self, key: object, tables: Iterable[TenantTable], *, chunk_rows: int = 1000
    ) -> steps.Plan[TenantExport]:
        """Read all rows of a tenant, on its shard and in the global database.

        Each database is read as it is at one moment.

        Args:
            key: The tenant's key.
            tables: How its rows are found.
            chunk_rows: Rows of one query.

        Raises:
            ParameterError: A table is missing, or is described in two ways.
        """
        return tenant.export(self._databases, key, tuple(tables), chunk_rows)

    @operation
    def tenant_import(
        self,
        exported: tenant_import.Exported,
        *,
        shard_id: Optional[int] = None,
        dry_run: bool = False,
    ) -> steps.Plan[TenantImport]:
        """Write all rows of a tenant that ``tenant_export`` has read, as on another
        cluster.

        Each database is written in one transaction, the shard first. Rows that are
        there already and are the same are left, so that an import that was interrupted
        is begun again; one that differs is refused.

        Args:
            exported: A TenantExport, or its ``to_dict()`` as JSON has it.
            shard_id: The shard to write to, in place of the key's own.
            dry_run: Only count what would be written.

        Raises:
            ParameterError: It is no export, a table or a column is missing, the key has
                no shard, or another row has the same primary key.
        """
        return tenant_import.run(self._databases, exported, shard_id, dry_run=dry_run)

    @operation
    def tenant_purge(
        self,
        key: object,
        tables: Iterable[TenantTable],
        *,
        shard_id: Optional[int] = None,
        chunk_rows: int = 1000,
        throttle: float = 0.0,
        dry_run: bool = False,
    ) -> steps.Plan[TenantPurge]:
        """Delete all rows of a tenant, those that refer to others first.

        Each chunk is committed by itself: a purge that was interrupted is begun again
        and does the rest.

        Args:
            key: The tenant's key.
            tables: How its rows are found.
            shard_id: The shard to delete from, in place of the key's own: what was left
                behind by a move. The global database is not touched then.
            chunk_rows: Rows of one DELETE.
            throttle: Seconds to wait between two of them.
            dry_run: Only count.

        Raises:
            ParameterError: A table is missing, or is described in two ways.
        """
        return tenant.purge(
            self._databases,
            key,
            tuple(tables),
            tenant.PurgeOptions(shard_id, chunk_rows, throttle, dry_run),
        )

    @operation
    def prepare_moves(
        self,
        tables: Iterable[TenantTable],
        *,
        shards: Shards = "all",
        lock_timeout: float = 60.0,
        dry_run: bool = False,
    ) -> steps.Plan[PrepareReport]:
        """Make what moves of tenants need on every shard: four small tables, and six
        triggers on every table of the tenants.

        It is done once, ahead, and again when the tables or their description change.
        CREATE TRIGGER waits for transactions that use the table, and others wait behind
        it: it waits a second at most, and is tried again.

        Args:
            tables: How a tenant's rows are found; those of the global database are
                ignored.
            shards: The shards.
            lock_timeout: Seconds to try for each trigger.
            dry_run: Only say what would be done.

        Returns:
            What was done. What fails on one shard, because it is away or a table was in
            use all the time, is in ``errors``, and the others go on.

        Raises:
            ParameterError: A table is missing, has no primary key, or its tenants
                cannot be found by a trigger.
        """
        return move.prepare(self._databases, tuple(tables), shards, lock_timeout, dry_run=dry_run)

    @operation
    def move(
        self,
        key: Any,
        to: Optional[int] = None,
        tables: Iterable[TenantTable] = (),
        *,
        chunk_rows: int = 500,
        throttle: float = 0.0,
        max_threads_running: Optional[int] = throttling.MAX_THREADS_RUNNING,
        lag: Optional[Callable[[], Any]] = None,
        max_lag: Optional[float] = throttling.MAX_LAG,
        settle: Optional[float] = None,
        lease: float = 60.0,
        wait: jobs.Wait = False,
        lock_timeout: float = 30.0,
        dry_run: bool = False,
        progress: Optional[Callable[[Job], object]] = None,
    ) -> steps.Plan[MoveReport]:
        """Move a tenant to another shard while it is read and written; or go on with a
        move that was interrupted, paused or cancelled.

        Its rows are copied, then what was changed meanwhile; then the triggers refuse
        writes for some tens of milliseconds, while the last changes are carried over,
        the rows of both shards are compared, and the directory is switched. ``run`` and
        single statements on ``key()`` wait for that, and go to the new shard. It is a
        job, ``move:KEY``: any process can go on when this one dies.

        Args:
            key: The tenant's key, in a LookupTable.
            to: The shard that it moves to; None to go on with a move.
            tables: How its rows are found, as for ``prepare_moves``.
            chunk_rows: Rows of one transaction on the new shard.
            throttle: Seconds to wait between two steps.
            max_threads_running: Copy and delete no rows while more threads than this
                are running on one of the two servers; None for no limit.
            lag: Gives the seconds that replication is behind; in asyncio it may be a
                coroutine function. None to ask the replicas of the two shards that the
                service has, if they have GTIDs.
            max_lag: Copy and delete no rows while it is more seconds behind; None for
                no limit.
            settle: Seconds after the switch until the rows are deleted where they were:
                the longest that a reader goes on reading there, and no less than the
                ``ttl`` of the directory. None for that and 10 seconds.
            lease: Seconds after which another process may take the move over.
            wait: Seconds to wait while another process moves the tenant, or holds the
                lease after it died. True for no limit, False to raise.
            lock_timeout: Seconds that long transactions of others are waited for.
            dry_run: Check what can be checked, and say what would be done.
            progress: Called with the job, after each step.

        Returns:
            What came of it; ``ok`` if it is done. With ``dry_run`` the state, the rows
            and the step of a move under way; or ``"new"``, and the rows to copy.

        Raises:
            ParameterError: The key has no shard, a description is wrong, ``settle`` is
                too short, or a move to another shard is under way.
            MoveError: It cannot go on; the tenant is where it was.
            JobTaken: Another process moves it, or did and its lease is not over.
            InterfaceError: The directory is no LookupTable.
        """
        return move.run(
            self._databases,
            key,
            to,
            move.Options(
                tuple(tables), chunk_rows, throttle, max_threads_running, max_lag, lag, settle,
                lease, lock_timeout, progress, wait=wait, dry_run=dry_run,
            ),
        )  # fmt: skip

    @operation
    def undo_move(
        self,
        key: Any,
        tables: Iterable[TenantTable],
        *,
        lease: float = 60.0,
        wait: jobs.Wait = False,
        lock_timeout: float = 30.0,
        dry_run: bool = False,
    ) -> steps.Plan[MoveReport]:
        """Give up a move that has not switched yet: the tenant is written to where it
        is, and what was copied is deleted.

        Args:
            key: The tenant's key.
            tables: As for ``move``.
            lease: As for ``move``.
            wait: As for ``move``.
            lock_timeout: As for ``move``.
            dry_run: As for ``move``.

        Raises:
            MoveError: The tenant is on its new shard already: finish the move.
            ParameterError: No move of it is under way.
            JobTaken: Another process moves it: pause its job first.
        """
        options = move.Options(
            tuple(tables), lease=lease, lock_timeout=lock_timeout, wait=wait, dry_run=dry_run
        )
        return move.run(self._databases, key, None, options, undo=True)

    @operation
    def rebalance_plan(
        self,
        tables: Iterable[TenantTable],
        *,
        by: str = "rows",
        weights: Optional[Mapping[int, float]] = None,
        pins: Optional[Mapping[Any, int]] = None,
        shards: Shards = "all",
        drain: Sequence[int] = (),
        load: Optional[Mapping[Any, float]] = None,
        tolerance: float = 0.05,
        max_moves: Optional[int] = None,
    ) -> steps.Plan[RebalancePlan]:
        """Plan which tenants move where, so that each shard has its share.

        Nothing is changed. The same figures give the same plan.

        Args:
            tables: How a tenant's rows are found. Rows that are found by a parent are
                not counted.
            by: ``"rows"``; ``"bytes"``, by the average row of each table;
                ``"tenants"``; or ``"load"``.
            weights: The share of shards, in place of the column ``weight`` of the shard
                table.
            pins: Where tenants must be.
            shards: The shards. To split shard 2, say ``[2, 5]`` where 5 is empty.
            drain: Shards that are to have no tenants, nor keys of tenants without rows.
            load: The load of each key, for ``by="load"``.
            tolerance: How far a shard may be from its share, as a part of it.
            max_moves: At most so many.

        Raises:
            ParameterError: An argument is wrong.
        """
        return rebalance.make_plan(
            self._databases,
            rebalance.PlanOptions(
                by, tuple(tables), weights, pins, shards, drain, load, tolerance, max_moves
            ),
        )

    @operation
    def rebalance_apply(
        self,
        plan: RebalancePlan,
        tables: Iterable[TenantTable],
        *,
        name: str = "rebalance",
        max_moves_per_hour: Optional[float] = None,
        settle: Optional[float] = None,
        throttle: float = 0.0,
        max_threads_running: Optional[int] = throttling.MAX_THREADS_RUNNING,
        max_lag: Optional[float] = throttling.MAX_LAG,
        lease: float = 60.0,
        wait: jobs.Wait = False,
        dry_run: bool = False,
        progress: Optional[Callable[[Job], object]] = None,
    ) -> steps.Plan[RebalanceReport]:
        """Carry a plan out, one move after the other; or go on where another call of
        this name ended.

        It is a job, like each of the moves: ``jobs.pause(name)`` ends it after the step
        that it is at. A tenant that is not where the plan says is skipped.

        Args:
            plan: What ``rebalance_plan`` gave. A job of this name that is not over goes
                on with its own plan.
            tables: As for ``move``.
            name: The job's name.
            max_moves_per_hour: Wait between moves, so that there are no more.
            settle: As for ``move``.
            throttle: As for ``move``.
            max_threads_running: As for ``move``.
            max_lag: As for ``move``.
            lease: Seconds after which another process may take it over.
            wait: As for ``move``, for the whole and for each move.
            dry_run: Only say which tenants would be moved, and which are elsewhere.
            progress: Called with the job, before each move.

        Raises:
            ParameterError: An argument is wrong, or ``settle`` is too short.
            MoveError: A move cannot go on.
            JobTaken: Another process carries it out.
        """
        return rebalance.apply_plan(
            self._databases,
            plan,
            rebalance.ApplyOptions(
                name, tuple(tables), max_moves_per_hour, settle, throttle, max_threads_running,
                max_lag, lease, wait, dry_run, progress,
            ),
        )  # fmt: skip


class Migrate(Group[KindT], Generic[KindT]):
    """Migrations: ``db.operations.migrate``.

    A migration is a file ``NNN_name.sql``, applied once to every database, in the order
    of the numbers; ``NNN_name.down.sql`` takes it back. Each database has a table
    ``dualdb_migration`` of what was applied. ``directory`` is a path, or a mapping of
    file names to their texts.
    """

    @operation
    def status(
        self, directory: Directory, *, shards: Shards = "all"
    ) -> steps.Plan[MigrationReport]:
        """What is applied where.

        Args:
            directory: The files.
            shards: The databases.

        Raises:
            MigrationError: The files are not in order.
        """
        return migrations.status(self._databases, directory, shards)

    @operation
    def up(
        self,
        directory: Directory,
        *,
        shards: Shards = "all",
        to: Optional[int] = None,
        canary: Canary = True,
        max_concurrency: int = 4,
        dry_run: bool = False,
        allow_blocking: bool = False,
        doubtful: Optional[Doubtful] = None,
        lock_timeout: float = 30.0,
        ddl_timeout: float = 10.0,
        progress: Optional[Callable[[DatabaseRun], object]] = None,
    ) -> steps.Plan[MigrationRun]:
        """Apply what is pending, and go on with what a former run began.

        An error of a statement ends the run on its database, keeps databases that have
        not begun from beginning, and is in the report. Run it again when its cause is
        mended: it goes on with the statement that failed.

        Args:
            directory: The files.
            shards: The databases.
            to: The last version to apply; None for all.
            canary: The database that goes first, alone. True for the first one, False
                for none.
            max_concurrency: The most databases at the same time.
            dry_run: Only say what would be applied.
            allow_blocking: Run an ALTER TABLE that the server can only do while writers
                wait, on a table that is not empty.
            doubtful: Where a statement may or may not have been applied, and the
                database does not show it: ``"repeat"`` it, or take it as ``"done"``.
            lock_timeout: Seconds to wait for somebody else who migrates this database.
            ddl_timeout: Seconds that an ALTER TABLE may wait for transactions that use
                the table; others wait behind it meanwhile.
            progress: Called with each database's result, when it is there.

        Raises:
            MigrationError: The files are not in order.
        """
        return migrations.up(
            self._databases,
            directory,
            migrations.Options(
                shards, to, canary, max_concurrency, dry_run, allow_blocking, doubtful,
                lock_timeout, ddl_timeout, progress,
            ),
        )  # fmt: skip

    @operation
    def down(
        self,
        directory: Directory,
        *,
        to: int,
        shards: Shards = "all",
        canary: Canary = True,
        max_concurrency: int = 4,
        dry_run: bool = False,
        allow_blocking: bool = False,
        doubtful: Optional[Doubtful] = None,
        lock_timeout: float = 30.0,
        ddl_timeout: float = 10.0,
        progress: Optional[Callable[[DatabaseRun], object]] = None,
    ) -> steps.Plan[MigrationRun]:
        """Take back, newest first, what is applied above version ``to``.

        Every one of them must have a file ``NNN_name.down.sql``.

        Args:
            directory: The files.
            to: The version to come to, which stays applied; 0 for none.
            shards: As for ``up``, like all others.

        Raises:
            MigrationError: The files are not in order, or one is missing.
        """
        return migrations.down(
            self._databases,
            directory,
            migrations.Options(
                shards, to, canary, max_concurrency, dry_run, allow_blocking, doubtful,
                lock_timeout, ddl_timeout, progress,
            ),
        )  # fmt: skip


class Jobs(Group[KindT], Generic[KindT]):
    """Durable jobs: ``db.operations.jobs``.

    A job is a row of the table ``dualdb_job`` in the global database, and a function
    that does one step of it after the other. Whoever runs it holds a lease, which is
    renewed while it runs; when that is over, any process can go on where the last step
    ended. A step may be done again if its process dies before the step is recorded, so
    write it that it may be.
    """

    @operation
    def run(
        self,
        name: str,
        function: Callable[[Job], Any],
        *,
        kind: str = "",
        params: object = None,
        lease: float = 60.0,
        wait: jobs.Wait = False,
        throttle: Optional[float] = None,
        max_steps: Optional[int] = None,
        dry_run: bool = False,
    ) -> steps.Plan[Job]:
        """Take a job, making it if there is none of this name, and do its steps until
        it is done, paused or cancelled.

        Args:
            name: The job's name.
            function: Does one step: it is given the Job, with ``params`` and
                ``position``, and returns a JobStep. In asyncio it may be a coroutine
                function. What it raises makes the job ``FAILED``, and goes through;
                ``run`` takes it up again.
            kind: A word for what it does.
            params: Anything that JSON can hold; of the first who runs it.
            lease: Seconds after which somebody else may take it. It is renewed while a
                step runs, and a long step can ask ``job.lease`` whether it is lost. In
                asyncio a step must not block the event loop for so long.
            wait: Seconds to wait for a lease that somebody else has. True for no limit,
                False to raise.
            throttle: Seconds to wait between two steps; None for what the job has.
            max_steps: Leave it ready for others after this many.
            dry_run: Run nothing, and return the job that would be run: as it is, or as
                it would be made.

        Returns:
            The job as it is then. One that is done already is not run again.

        Raises:
            JobTaken: Somebody else runs it.
            JobLost: Its lease was over, and somebody else has taken it.
        """
        return jobs.run(
            self._databases,
            name,
            function,
            jobs.Options(kind, params, lease, wait, throttle, max_steps, dry_run),
        )

    @operation
    def list(
        self, *, state: Optional[str] = None, kind: Optional[str] = None
    ) -> steps.Plan[Sequence[Job]]:
        """All jobs, the newest first.

        Args:
            state: Only those in this state.
            kind: Only those of this kind.
        """
        return jobs.list_jobs(self._databases, state, kind)

    @operation
    def get(self, name: str) -> steps.Plan[Optional[Job]]:
        """One job, or None.

        Args:
            name: Its name.
        """
        return jobs.get(self._databases, name)

    @operation
    def pause(self, name: str, *, dry_run: bool = False) -> steps.Plan[Job]:
        """Have a job stop after the step it is in, until it is resumed.

        Args:
            name: Its name.
            dry_run: Only check that it can be done, and give the job as it is.

        Raises:
            ParameterError: There is no such job, or it is over.
        """
        return jobs.pause(self._databases, name, dry_run)

    @operation
    def resume(self, name: str, *, dry_run: bool = False) -> steps.Plan[Job]:
        """Make a job that was paused, failed or cancelled ready to be run.

        Args:
            name: Its name.
            dry_run: Only check that it can be done, and give the job as it is.

        Raises:
            ParameterError: There is no such job, or it is done.
        """
        return jobs.resume(self._databases, name, dry_run)

    @operation
    def cancel(self, name: str, *, dry_run: bool = False) -> steps.Plan[Job]:
        """Have a job end after the step it is in.

        Args:
            name: Its name.
            dry_run: Only check that it can be done, and give the job as it is.

        Raises:
            ParameterError: There is no such job, or it is done.
        """
        return jobs.cancel(self._databases, name, dry_run)

    @operation
    def throttle(self, name: str, seconds: float, *, dry_run: bool = False) -> steps.Plan[Job]:
        """Set how long a job waits between two steps, also while it runs.

        Args:
            name: Its name.
            seconds: How long.
            dry_run: Only check that it can be done, and give the job as it is.

        Raises:
            ParameterError: There is no such job.
        """
        return jobs.throttle(self._databases, name, seconds, dry_run)

    @operation
    def delete(self, name: str, *, dry_run: bool = False) -> steps.Plan[Job]:
        """Forget a job that nobody runs.

        Args:
            name: Its name.
            dry_run: Only check that it can be done, and give the job as it is.

        Raises:
            ParameterError: There is no such job, or somebody runs it.
        """
        return jobs.delete(self._databases, name, dry_run)
