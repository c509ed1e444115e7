"""``init``: the tables that dualdb needs, made or printed."""

from typing import Dict, List, NamedTuple, Optional

import click

from ..coordination import decision_log, idempotency
from ..coordination.outbox import OutboxTable
from ..coordination.outbox import needed_tables as outbox_tables
from ..directory import ids, tables
from ..directory.keys import quoted
from ..directory.sources import HashBuckets, KeyFunction, Source
from ..operations import jobs, migrations
from ..protocol import transaction_commands
from ..sync_impl import DatabaseService
from ..topology.replicas import DEFAULT_REPLICA_TABLE, REPLICA_DDL
from ..topology.shard_map import DDL
from . import settings
from .base import State, command, dry_run_option, pass_state, report
from .output import write_json
from .root import root

_EXISTS = """\
SELECT TABLE_NAME FROM information_schema.TABLES
WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s"""


class NeededTable(NamedTuple):
    """A table that dualdb uses, and its statement, which may be repeated."""

    name: str
    purpose: str
    ddl: str


def needed_tables(
    source: Source,
    shard_table: str,
    worker_table: str,
    xa_table: str = decision_log.TABLE,
    outbox: Optional[OutboxTable] = None,
    replica_table: str = DEFAULT_REPLICA_TABLE,
) -> Dict[str, List[NeededTable]]:
    """The tables of the global database, and those of each shard's."""
    everywhere = [
        NeededTable(
            transaction_commands.MARKERS, "commit markers", transaction_commands.MARKERS_DDL
        ),
        NeededTable(migrations.TABLE, "which migrations were applied", migrations.DDL),
        NeededTable(idempotency.TABLE, "results by idempotency key", idempotency.DDL),
        *[
            NeededTable(name, purpose, ddl)
            for name, (purpose, ddl) in outbox_tables(outbox or OutboxTable()).items()
        ],
    ]
    found = [
        NeededTable(shard_table, "the shards", DDL.format(table=quoted(shard_table))),
        NeededTable(
            replica_table,
            "the replicas of the shards",
            REPLICA_DDL.format(table=quoted(replica_table)),
        ),
    ]
    if not isinstance(source, KeyFunction):
        found += [
            NeededTable(
                source.table,
                "the shard of each hash bucket"
                if isinstance(source, HashBuckets)
                else "the shard of each key",
                tables.ddl_of(source),
            ),
            NeededTable(
                source.alias_table,
                "aliases of keys",
                tables.AliasTable(source.alias_table).ddl,
            ),
        ]
    found += [
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


def _as_sql(needed: Dict[str, List[NeededTable]]) -> str:
    lines = ["-- In the global database:"]
    for each in needed["global"]:
        lines += ["", f"-- {each.purpose}", f"{each.ddl};"]
    lines += ["", "-- In the database of each shard:"]
    for each in needed["shard"]:
        lines += ["", f"-- {each.purpose}", f"{each.ddl};"]
    return "\n".join(lines)


@command(root, "dualdb init --dry-run\ndualdb init\ndualdb init --print > tables.sql", "init")
@click.option("--print", "print_", is_flag=True, help="Print the SQL, and connect to nothing.")
@dry_run_option
@pass_state
def initialize(current: State, print_: bool, dry_run: bool) -> None:
    """Make the tables that dualdb needs, in the global database and on each shard.

    Tables that exist are not changed, so it can be repeated.
    """
    source = settings.directory_source(current.settings.directory)
    service = current.settings.service
    needed = needed_tables(
        source,
        str(service.get("shard_table", "table_shard_config")),
        str(service.get("worker_table", "dualdb_worker")),
        str(service.get("xa_table", decision_log.TABLE)),
        settings.outbox_table(current.settings.outbox),
        settings.replica_options(current.settings.replicas).table,
    )
    if print_:
        if current.json:
            write_json({key: [each._asdict() for each in made] for key, made in needed.items()})
        else:
            click.echo(_as_sql(needed))
        return
    db = current.open()
    actions = _create(db, None, needed["global"], dry_run)
    if not dry_run:
        db.refresh()
        if isinstance(source, HashBuckets) and db.get_active_shard_ids():
            db.directory.create_tables()  # which gives each bucket a shard
    for shard_id in sorted(db.shard_clients):
        actions += _create(db, shard_id, needed["shard"], dry_run)
    if not actions and not current.json:
        click.echo("all tables are there")
        return
    report(current, actions, dry_run=dry_run)


def _create(
    db: DatabaseService, shard_id: Optional[int], needed: List[NeededTable], dry_run: bool
) -> List[str]:
    target = db if shard_id is None else db.shard(shard_id)
    where = "the global database" if shard_id is None else f"shard {shard_id}"
    actions = []
    for each in needed:
        schema, _, table = each.name.rpartition(".")
        if target.query_column(_EXISTS, (schema or None, table)):
            continue
        if not dry_run:
            target.execute(each.ddl)
        actions.append(f"create {each.name} in {where} ({each.purpose})")
    return actions
