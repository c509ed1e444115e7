"""What the doctor asks of each database, and what it knows of the configuration."""

import datetime
import ipaddress
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .. import errors
from ..config import DatabaseConfig
from ..coordination import recovery, xid
from ..execution import steps
from ..results import Row
from ..topology.shard_map import Status
from .places import Databases, Place, Session
from .reports import Misplaced


class PreparedXa(NamedTuple):
    """XA transactions that a server has prepared.

    Attributes:
        left: The names of this service's on this shard that are older than its
            ``xa_grace``.
        foreign: Those of other programs, as XA statements have them.
    """

    left: Tuple[str, ...] = ()
    foreign: Tuple[str, ...] = ()


class XaOwner(NamedTuple):
    """Which XA transactions are this service's.

    Attributes:
        cluster: The name of its global database; None if it has not used XA.
        grace: Seconds that a process is given to finish them.
    """

    cluster: Optional[str]
    grace: float


class DatabaseFacts(NamedTuple):
    """What is known of one database.

    Attributes:
        name: ``"global"`` or the shard id as text.
        status: The shard's status; ``"active"`` for the global database.
        config: How the application reaches it.
        version: The server's.
        variables: The server's global variables.
        identity: Which database on which server it is, whatever it is called.
        charset: The default character set of the database.
        collation: Its default collation.
        cipher: The TLS cipher of the connection; empty without TLS.
        clock_offset: Seconds that the server's clock is ahead of this process's.
        grants: What the account was granted.
        connections: Sessions that the server has.
        prepared: Prepared XA transactions; None where the account may not see them.
        old_markers: Rows of commit markers that should have been swept.
        keyless_tables: Tables without a primary key.
        foreign_engines: Tables that are not InnoDB.
        unfinished_migrations: Migrations that were begun and not completed.
        abandoned_jobs: Jobs whose lease is over.
    """

    name: str
    status: str
    config: DatabaseConfig
    version: str = ""
    variables: Mapping[str, str] = {}
    identity: str = ""
    charset: str = ""
    collation: str = ""
    cipher: str = ""
    clock_offset: float = 0.0
    grants: Tuple[str, ...] = ()
    connections: int = 0
    prepared: Optional[PreparedXa] = PreparedXa()
    old_markers: int = 0
    keyless_tables: Tuple[str, ...] = ()
    foreign_engines: Tuple[str, ...] = ()
    unfinished_migrations: int = 0
    abandoned_jobs: int = 0

    @property
    def is_mariadb(self) -> bool:
        """The server is a MariaDB."""
        return "mariadb" in self.version.lower()

    @property
    def address(self) -> str:
        """Host and port."""
        return self.config.address

    @property
    def is_local(self) -> bool:
        """It is reached on this machine."""
        return self.config.unix_socket is not None or all(
            _is_local(address.host) for address in self.config.hosts
        )


class NotAsked(NamedTuple):
    """A database that could not be asked.

    Attributes:
        name: ``"global"`` or the shard id as text.
        error: Why not.
        by_its_row: Its row in the shard table cannot be used.
    """

    name: str
    error: str
    by_its_row: bool = False


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Facts(NamedTuple):
    """What is known of all databases.

    Attributes:
        databases: Those that could be asked.
        processes: How many processes have a service.
        privileges: What the application's account needs.
        misplaced: Rows that an audit found, by table.
        unreachable: Those that could not be asked.
        homeless: How many keys the directory has on each shard that is not in the shard
            table or is inactive.
    """

    databases: Tuple[DatabaseFacts, ...]
    processes: int = 1
    privileges: Tuple[str, ...] = ()
    misplaced: Tuple[Tuple[str, Misplaced], ...] = ()
    unreachable: Tuple[NotAsked, ...] = ()
    homeless: Tuple[Tuple[int, int], ...] = ()


_TABLES = (
    "SELECT t.TABLE_NAME AS name, t.ENGINE AS engine, (SELECT COUNT(*) FROM "
    "information_schema.STATISTICS s WHERE s.TABLE_SCHEMA = t.TABLE_SCHEMA AND "
    "s.TABLE_NAME = t.TABLE_NAME AND s.INDEX_NAME = 'PRIMARY') AS keyed "
    "FROM information_schema.TABLES t WHERE t.TABLE_SCHEMA = DATABASE() "
    "AND t.TABLE_TYPE = 'BASE TABLE'"
)
_DEFAULTS = (
    "SELECT DEFAULT_CHARACTER_SET_NAME AS charset, DEFAULT_COLLATION_NAME AS collation "
    "FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = DATABASE()"
)
#: Markers are swept after a week.
_MARKERS = "SELECT COUNT(*) FROM dualdb_commit WHERE at < NOW() - INTERVAL 8 DAY"
_MIGRATIONS = "SELECT COUNT(*) FROM dualdb_migration WHERE state <> 'applied'"
_JOBS = "SELECT COUNT(*) FROM dualdb_job WHERE state = 'running' AND lease_until < UTC_TIMESTAMP(6)"


#: Seconds until what was found is looked for again: a transaction that took long may
#: just be committed.
LOOK_AGAIN = 1.0


def gather(
    databases: Databases, places: List[Place]
) -> steps.Plan[Tuple[List[DatabaseFacts], List[NotAsked]]]:
    """Ask every database. Gives those that answered, and the others."""
    shards = databases.internals.lifecycle.require_open().shard_map.shards
    owner = yield from _xa_owner(databases)

    def status(place: Place) -> str:
        shard = None if place.shard_id is None else shards[place.shard_id]
        return Status.ACTIVE.value if shard is None else str(shard.status.value)

    def work(session: Session) -> steps.Plan[DatabaseFacts]:
        place = session.place
        made = databases.service.global_config
        if place.shard_id is not None:
            made = shards[place.shard_id].config
        return _ask(session, DatabaseFacts(place.name, status(place), made), owner)

    found = yield from databases.on_each(places, work)
    known = []
    unknown = []
    for place, each in found:
        if isinstance(each, Exception):
            error = each if place.config is not None else place.reason
            unknown.append(NotAsked(place.name, str(error), place.config is None))
        else:
            known.append(each)
    return known, unknown


def _xa_owner(databases: Databases) -> steps.Plan[XaOwner]:
    coordinator = databases.internals.coordinator
    try:
        lease = yield from coordinator.log.lease()
    except errors.Error:
        lease = None  # the global database is found to be unreachable
    grace = recovery.GRACE if coordinator.grace is None else coordinator.grace
    return XaOwner(None if lease is None else lease.cluster, grace)


def _ask(session: Session, facts: DatabaseFacts, owner: XaOwner) -> steps.Plan[DatabaseFacts]:
    variables = yield from _pairs(session, "SHOW GLOBAL VARIABLES")
    (defaults,) = yield from session.query(_DEFAULTS)
    cipher = yield from _pairs(session, "SHOW SESSION STATUS LIKE 'Ssl_cipher'")
    connections = yield from _pairs(session, "SHOW GLOBAL STATUS LIKE 'Threads_connected'")
    grants = yield from session.query("SHOW GRANTS FOR CURRENT_USER()")
    tables = yield from session.query(_TABLES)
    where = ("hostname", "server_uuid", "server_id", "port", "socket", "datadir")
    identity = [variables.get(name, "") for name in where]
    identity.append(str((yield from session.value("SELECT DATABASE()"))))
    return facts._replace(
        version=session.server_version,
        variables=variables,
        identity="/".join(identity),
        charset=_text(defaults["charset"]),
        collation=_text(defaults["collation"]),
        cipher=cipher.get("ssl_cipher", ""),
        clock_offset=(yield from _clock_offset(session)),
        grants=tuple(_text(next(iter(row.values()))) for row in grants),
        connections=int(connections.get("threads_connected", "0")),
        prepared=(yield from _prepared(session, owner)),
        old_markers=(yield from _count(session, _MARKERS)),
        keyless_tables=tuple(_text(row["name"]) for row in tables if not row["keyed"]),
        foreign_engines=tuple(
            _text(row["name"]) for row in tables if _text(row["engine"]).lower() != "innodb"
        ),
        unfinished_migrations=(yield from _count(session, _MIGRATIONS)),
        abandoned_jobs=(yield from _count(session, _JOBS)),
    )


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _pairs(session: Session, sql: str) -> steps.Plan[Dict[str, str]]:
    rows: Sequence[Row] = yield from session.query(sql)
    return {_text(row["Variable_name"]).lower(): _text(row["Value"]) for row in rows}


def _count(session: Session, sql: str) -> steps.Plan[int]:
    """A number of rows; 0 for a table that does not exist."""
    try:
        return int((yield from session.value(sql)))
    except errors.Error as error:
        if not errors.is_server_error(error):
            raise
        return 0


def _prepared(session: Session, owner: XaOwner) -> steps.Plan[Optional[PreparedXa]]:
    try:
        found = yield from _list_prepared(session, owner)
        if found.left:
            yield steps.Sleep(LOOK_AGAIN)
            now = yield from _list_prepared(session, owner)
            found = now._replace(left=tuple([each for each in now.left if each in found.left]))
        return found
    except errors.Error as error:
        if not errors.is_server_error(error):
            raise
        return None


def _list_prepared(session: Session, owner: XaOwner) -> steps.Plan[PreparedXa]:
    # a command, whose rows are not read as text: others may have any bytes as ids
    results = yield steps.Execute(session, recovery.list_command(session.is_mariadb))
    return sort_prepared(results[0].rows, owner, session.shard_id, time.time())


def sort_prepared(
    rows: Sequence[Mapping[str, Any]], owner: XaOwner, shard_id: Optional[int], now: float
) -> PreparedXa:
    """Sort what a server has prepared.

    Args:
        rows: Those of ``XA RECOVER``.
        owner: Which are this service's.
        shard_id: The shard that was asked; those of others on its server are left out.
        now: Seconds since 1970.
    """
    left = []
    foreign = []
    for row in rows:
        name = xid.xid_of(row)
        if name is None or name.cluster != owner.cluster:
            foreign.append(xid.sql_of(row))
        elif name.shard_id == shard_id and now - xid.begun_at(name.gtrid) >= owner.grace:
            left.append(name.gtrid)
    return PreparedXa(tuple(sorted(left)), tuple(sorted(foreign)))


def _clock_offset(session: Session) -> steps.Plan[float]:
    before = time.time()
    there = yield from session.value("SELECT UTC_TIMESTAMP(6)")
    here = (before + time.time()) / 2
    utc = there.replace(tzinfo=datetime.timezone.utc)
    return float(utc.timestamp() - here)
