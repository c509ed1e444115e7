"""The tables that dualdb needs: which there are, and making those that are missing."""

from typing import Any, Dict, List, NamedTuple

from .. import errors
from ..api.interfaces import ServiceInternals, internals_of
from ..coordination import decision_log, idempotency
from ..coordination.outbox import OutboxTable
from ..coordination.outbox import needed_tables as outbox_tables
from ..directory import ids, tables
from ..directory.keys import quoted
from ..directory.sources import HashBuckets, KeyFunction, Source
from ..execution import steps
from ..protocol import transaction_commands
from ..topology.replicas import REPLICA_DDL
from ..topology.shard_map import DDL
from . import jobs, migrations, rollout
from .places import Databases, Session
from .reports import CreatedTable, TablesReport

_EXISTS = """\
SELECT COUNT(*) FROM information_schema.TABLES
WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s"""


class NeededTable(NamedTuple):
    """A table that dualdb uses, and its statement, which may be repeated."""

    name: str
    purpose: str
    ddl: str


def needed_tables(service: Any) -> Dict[str, List[NeededTable]]:
    """The tables of the global database, and those of each shard's.

    Args:
        service: The service, which need not be open.
    """
    internals = internals_of(service)
    shard_table = service.shard_table
    replica_table = internals.shared.replicas.options.table
    worker_table = internals.worker_table
    xa_table = internals.coordinator.log.table
    everywhere = _on_every_database(internals.shared.outbox)
    directory = internals.directory
    found = [
        NeededTable(shard_table, "the shards", DDL.format(table=quoted(shard_table))),
        NeededTable(
            replica_table,
            "the replicas of the shards",
            REPLICA_DDL.format(table=quoted(replica_table)),
        ),
        *([] if directory is None else _of_directory(directory.source)),
        NeededTable(
            worker_table,
            "the processes that make ids",
            ids.WORKER_DDL.format(table=quoted(worker_table)),
        ),
        NeededTable(jobs.TABLE, "durable jobs", jobs.DDL),
        NeededTable(xa_table, "decisions about XA transactions", decision_log.ddl(xa_table)),
        NeededTable(
            xa_table + decision_log.LEASE_SUFFIX,
            "who finishes XA transactions that were left",
            decision_log.lease_ddl(xa_table),
        ),
        *everywhere,
    ]
    return {"global": found, "shard": everywhere}


def _on_every_database(outbox: OutboxTable) -> List[NeededTable]:
    markers = NeededTable(
        transaction_commands.MARKERS, "commit markers", transaction_commands.MARKERS_DDL
    )
    return [
        markers,
        NeededTable(migrations.TABLE, "which migrations were applied", migrations.DDL),
        NeededTable(idempotency.TABLE, "results by idempotency key", idempotency.DDL),
        *[
            NeededTable(name, purpose, ddl)
            for name, (purpose, ddl) in outbox_tables(outbox).items()
        ],
    ]


def _of_directory(source: Source) -> List[NeededTable]:
    if isinstance(source, KeyFunction):
        return []
    purpose = "the shard of each key"
    if isinstance(source, HashBuckets):
        purpose = "the shard of each hash bucket"
    aliases = tables.AliasTable(source.alias_table)
    return [
        NeededTable(source.table, purpose, tables.ddl_of(source)),
        NeededTable(source.alias_table, "aliases of keys", aliases.ddl),
    ]


def create(databases: Databases, dry_run: bool) -> steps.Plan[TablesReport]:
    """Make the tables that are missing; see ``Operations.create_tables``."""
    needed = needed_tables(databases.service)
    created: List[CreatedTable] = []
    failed: Dict[str, str] = {}

    def work(session: Session) -> steps.Plan[List[CreatedTable]]:
        kind = "global" if session.place.shard_id is None else "shard"
        return _create(session, needed[kind], dry_run)

    created += yield from databases.session(databases.one("global"), work)
    if not dry_run:
        yield from _begin_to_use(databases.internals)
    for place, made in (yield from databases.on_each(_shards(databases), work)):
        if isinstance(made, Exception):
            failed[place.name] = rollout.message(made)
        else:
            created += made
    return TablesReport(tuple(created), failed, dry_run)


def _shards(databases: Databases) -> Any:
    try:
        return databases.chosen("all")
    except errors.ParameterError:
        return []  # there is none yet


def _create(
    session: Session, needed: List[NeededTable], dry_run: bool
) -> steps.Plan[List[CreatedTable]]:
    created = []
    for each in needed:
        schema, _, table = each.name.rpartition(".")
        if (yield from session.value(_EXISTS, (schema or None, table))):
            continue
        if not dry_run:
            yield from session.execute(each.ddl)
        created.append(CreatedTable(session.place.name, each.name, each.purpose))
    return created


def _begin_to_use(internals: ServiceInternals) -> steps.Plan[None]:
    """Read the shard table, which may be new, and give each hash bucket a shard."""
    lifecycle = internals.lifecycle
    yield lifecycle.exclusive(lifecycle.refresh())
    if internals.directory is not None and lifecycle.require_open().clients:
        yield from internals.directory.spread_new_buckets()
