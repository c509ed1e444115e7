"""What is wrong with the servers, the accounts and the configuration: a registry of
pure checks over facts.
"""

import re
from typing import (
    Any,
    Callable,
    Dict,
    FrozenSet,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from .. import errors
from ..execution import steps
from ..topology.shard_map import Status
from . import audit, keys
from .facts import DatabaseFacts, Facts, PreparedXa, gather
from .places import Databases, Shards
from .reports import DoctorReport, Finding, Misplaced, Severity

#: What an application's account needs on a database.
PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "EXECUTE")

#: How many XA transactions a finding names.
MOST_NAMED = 5

#: Where something is the matter, what, and what to do about it.
Symptom = Tuple[str, str, str]
Check = Callable[[Facts], Iterator[Symptom]]

#: The checks by name, in the order in which they are made.
CHECKS: Dict[str, Tuple[Severity, Check]] = {}


class Options(NamedTuple):
    """The arguments of ``doctor``."""

    shards: Shards
    processes: int
    privileges: Tuple[str, ...]
    audit: Tuple[Tuple[str, str], ...]
    skip: FrozenSet[str]


def run(databases: Databases, options: Options) -> steps.Plan[DoctorReport]:
    """Gather the facts and make the checks; see ``Operations.doctor``."""
    unknown = options.skip - CHECKS.keys()
    if unknown:
        raise errors.ParameterError(f"there is no check {sorted(unknown)[0]!r}")
    places = databases.chosen(options.shards)
    known, unreachable = yield from gather(databases, places)
    misplaced: List[Tuple[str, Misplaced]] = []
    for table, column in options.audit:
        report = yield from audit.run(
            databases, audit.Options(table, column, "all", None, 1000, 1000, 0.0)
        )
        misplaced += [(table, each) for each in report.misplaced]
    facts = Facts(
        tuple(known),
        options.processes,
        options.privileges,
        tuple(misplaced),
        tuple(unreachable),
        (yield from _keys_without_shard(databases)),
    )
    return report_of(facts, options.skip)


def _keys_without_shard(databases: Databases) -> steps.Plan[Tuple[Tuple[int, int], ...]]:
    shards = databases.internals.lifecycle.require_open().shard_map.shards
    counts = yield from keys.counts(databases.service)
    return tuple(
        (shard_id, count)
        for shard_id, count in sorted(counts.items())
        if shard_id not in shards or shards[shard_id].status is Status.INACTIVE
    )


def report_of(facts: Facts, skip: FrozenSet[str] = frozenset()) -> DoctorReport:
    """What the checks find in the facts, worst first."""
    made = {name: check for name, check in CHECKS.items() if name not in skip}
    findings = [
        Finding(name, severity, database, message, fix)
        for name, (severity, check) in made.items()
        for database, message, fix in check(facts)
    ]
    order = list(Severity)
    findings.sort(key=lambda finding: order.index(finding.severity))
    return DoctorReport(
        {each.name: each.version for each in facts.databases},
        tuple(made),
        tuple(findings),
        {each.name: _shown(each) for each in facts.databases},
    )


def _shown(facts: DatabaseFacts) -> Dict[str, Any]:
    """The facts of a database without its variables and its password."""
    left_out = {"variables", "config", "grants"}
    prepared = None if facts.prepared is None else facts.prepared._asdict()
    shown = {name: value for name, value in facts._asdict().items() if name not in left_out}
    return {**shown, "prepared": prepared}


def check(name: str, severity: Severity) -> Callable[[Check], Check]:
    """Register a check.

    Args:
        name: Its name, for ``skip``.
        severity: How much its findings matter.
    """

    def register(function: Check) -> Check:
        CHECKS[name] = (severity, function)
        return function

    return register


def _on(
    facts: Facts, is_wrong: Callable[[DatabaseFacts], bool], message: str, fix: str
) -> Iterator[Symptom]:
    """The databases of which something is true."""
    for each in facts.databases:
        if is_wrong(each):
            yield each.name, message.format(each), fix.format(each)


def _differs(
    facts: Facts, value: Callable[[DatabaseFacts], str], what: str, fix: str
) -> Iterator[Symptom]:
    """Something that should be the same on all databases."""
    found: Dict[str, List[str]] = {}
    for each in facts.databases:
        found.setdefault(value(each), []).append(each.name)
    if len(found) > 1:
        shown = "; ".join(f"{text!r} on {', '.join(names)}" for text, names in found.items())
        yield "all", f"{what} differs: {shown}", fix


def _variable(facts: DatabaseFacts, name: str, default: str = "") -> str:
    return facts.variables.get(name, default)


def _is_on(facts: DatabaseFacts, name: str) -> bool:
    return _variable(facts, name).upper() in ("ON", "1", "YES", "TRUE")


def _number(facts: DatabaseFacts, name: str, default: int) -> int:
    text = _variable(facts, name)
    return int(text) if text.isdigit() else default


def release(version: str) -> Tuple[int, ...]:
    """The numbers of a server's version."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


# Reaching them.


@check("reachable", Severity.ERROR)
def _reachable(facts: Facts) -> Iterator[Symptom]:
    for each in facts.unreachable:
        if not each.by_its_row:
            yield (
                each.name,
                f"it cannot be asked: {each.error}",
                "start the server, or mend the address and the account in the shard table",
            )


@check("unusable-row", Severity.ERROR)
def _unusable_row(facts: Facts) -> Iterator[Symptom]:
    for each in facts.unreachable:
        if each.by_its_row:
            yield (
                each.name,
                f"its row in the shard table cannot be used: {each.error}",
                "correct the row; what it refers to must be set in every process, in this one too",
            )


@check("same-database", Severity.ERROR)
def _same_database(facts: Facts) -> Iterator[Symptom]:
    seen: Dict[str, str] = {}
    for each in facts.databases:
        if each.identity in seen:
            yield (
                each.name,
                f"it is the same database as {seen[each.identity]}",
                "give each shard a database of its own in the shard table",
            )
        seen.setdefault(each.identity, each.name)


# Versions.


@check("version-parity", Severity.WARNING)
def _version_parity(facts: Facts) -> Iterator[Symptom]:
    return _differs(
        facts,
        lambda each: " ".join(
            ["MariaDB" if each.is_mariadb else "MySQL", *map(str, release(each.version))]
        ),
        "the server's release",
        "upgrade the older servers",
    )


@check("version-age", Severity.WARNING)
def _version_age(facts: Facts) -> Iterator[Symptom]:
    return _on(
        facts,
        lambda each: release(each.version) < ((10, 5) if each.is_mariadb else (8, 0)),
        "its server {0.version} gets no corrections any more",
        "upgrade to a maintained release",
    )


# Texts, numbers and times.


@check("charset", Severity.WARNING)
def _charset(facts: Facts) -> Iterator[Symptom]:
    return _on(
        facts,
        lambda each: each.charset != "utf8mb4",
        "new tables have the character set {0.charset}, which cannot hold every character",
        "ALTER DATABASE {0.config.database} CHARACTER SET utf8mb4, and convert the tables",
    )


@check("collation-parity", Severity.WARNING)
def _collation_parity(facts: Facts) -> Iterator[Symptom]:
    return _differs(
        facts,
        lambda each: each.collation,
        "the default collation",
        "ALTER DATABASE ... COLLATE, so that texts compare alike on every shard",
    )


@check("connection-charset", Severity.WARNING)
def _connection_charset(facts: Facts) -> Iterator[Symptom]:
    return _on(
        facts,
        lambda each: each.config.charset != "utf8mb4",
        "the application's connections are {0.config.charset}",
        "set charset=utf8mb4 in the configuration",
    )


@check("sql_mode-strict", Severity.ERROR)
def _strict(facts: Facts) -> Iterator[Symptom]:
    return _on(
        facts,
        lambda each: not re.search("STRICT_(TRANS|ALL)_TABLES", _variable(each, "sql_mode")),
        "values that do not fit are cut and stored",
        "add STRICT_TRANS_TABLES to sql_mode in the server's options",
    )


@check("sql_mode-parity", Severity.WARNING)
def _mode_parity(facts: Facts) -> Iterator[Symptom]:
    return _differs(
        facts,
        lambda each: ",".join(sorted(_variable(each, "sql_mode").split(","))),
        "sql_mode",
        "set the same sql_mode in the options of all servers",
    )


@check("time_zone-parity", Severity.WARNING)
def _zone_parity(facts: Facts) -> Iterator[Symptom]:
    def zone(each: DatabaseFacts) -> str:
        name = _variable(each, "time_zone")
        return _variable(each, "system_time_zone") if name == "SYSTEM" else name

    return _differs(
        facts, zone, "the time zone", "set default_time_zone='+00:00' in the options of all servers"
    )


@check("clock-skew", Severity.WARNING)
def _skew(facts: Facts) -> Iterator[Symptom]:
    offsets = [each.clock_offset for each in facts.databases]
    if offsets and max(offsets) - min(offsets) > 1.0:
        shown = ", ".join(f"{each.name} {each.clock_offset:+.1f} s" for each in facts.databases)
        yield "all", f"the servers' clocks differ: {shown}", "synchronize them by NTP"
    elif offsets and abs(offsets[0]) > 1.0:
        yield (
            "all",
            f"the servers' clocks are {offsets[0]:+.1f} s from this machine's",
            "synchronize them by NTP",
        )


@check("case-parity", Severity.ERROR)
def _case_parity(facts: Facts) -> Iterator[Symptom]:
    return _differs(
        facts,
        lambda each: _variable(each, "lower_case_table_names"),
        "lower_case_table_names",
        "it can only be set when a data directory is made: re-create the odd server",
    )


@check("isolation-parity", Severity.WARNING)
def _isolation_parity(facts: Facts) -> Iterator[Symptom]:
    return _differs(
        facts,
        lambda each: _variable(each, "transaction_isolation", _variable(each, "tx_isolation")),
        "the transaction isolation",
        "set transaction_isolation alike in the options of all servers",
    )


# Sessions and pools.


@check("wait_timeout", Severity.ERROR)
def _wait_timeout(facts: Facts) -> Iterator[Symptom]:
    for each in facts.databases:
        idle = each.config.max_idle or each.config.max_lifetime
        longest = _number(each, "wait_timeout", 28800)
        if idle is None or idle > longest:
            kept = "without a limit" if idle is None else f"for {idle:g} s"
            yield (
                each.name,
                f"the pool keeps idle connections {kept}, and the server ends them after "
                f"{longest} s",
                f"set max_idle below {longest}, or raise wait_timeout",
            )


@check("connection-budget", Severity.ERROR)
def _budget(facts: Facts) -> Iterator[Symptom]:
    servers: Dict[str, List[DatabaseFacts]] = {}
    for each in facts.databases:
        servers.setdefault(each.identity.rpartition("/")[0], []).append(each)
    for members in servers.values():
        most = sum(each.config.pool_size + each.config.max_overflow for each in members)
        wanted = min(most, _budget_of(members) or most) * facts.processes
        # the server keeps one for an administrator
        limit = _number(members[0], "max_connections", 151) - 1
        if wanted > limit:
            yield (
                ", ".join(each.name for each in members),
                f"{facts.processes} {'process' if facts.processes == 1 else 'processes'} may open "
                f"{wanted} connections to a server that takes {limit}",
                "set max_connections_per_server, or raise max_connections",
            )


def _budget_of(members: List[DatabaseFacts]) -> Optional[int]:
    """The most connections of one process to the server of these databases."""
    return _least([each.config.server_limit for each in members])


def _least(limits: Sequence[Optional[int]]) -> Optional[int]:
    return min([each for each in limits if each is not None], default=None)


@check("connection-budget-small", Severity.WARNING)
def _small_budget(facts: Facts) -> Iterator[Symptom]:
    servers: Dict[str, List[DatabaseFacts]] = {}
    for each in facts.databases:
        for server in each.config.servers:
            servers.setdefault(server, []).append(each)
    for server, members in servers.items():
        limit = _least([each.config.limit_at(server) for each in members])
        if limit is not None and limit < len(members):
            yield (
                ", ".join(each.name for each in members),
                f"a process may have {limit} connections to {server}, on which {len(members)} "
                "databases are: each call on another one needs a new connection",
                "raise max_connections_per_server, or server_limits of this server",
            )


@check("autocommit", Severity.WARNING)
def _autocommit(facts: Facts) -> Iterator[Symptom]:
    return _on(
        facts,
        lambda each: not _is_on(each, "autocommit"),
        "sessions begin without autocommit, so that other programs' writes may be lost",
        "set autocommit=1 in the server's options",
    )


@check("init_connect", Severity.NOTE)
def _init_connect(facts: Facts) -> Iterator[Symptom]:
    return _on(
        facts,
        lambda each: bool(_variable(each, "init_connect")),
        "init_connect changes every new session, and no session that was reset",
        "remove init_connect, and use the application's own settings",
    )


@check("completion_type", Severity.ERROR)
def _completion(facts: Facts) -> Iterator[Symptom]:
    return _on(
        facts,
        lambda each: _variable(each, "completion_type", "NO_CHAIN") not in ("NO_CHAIN", "0"),
        "COMMIT begins another transaction, or ends the connection",
        "set completion_type=NO_CHAIN in the server's options",
    )


@check("max_allowed_packet", Severity.WARNING)
def _packet(facts: Facts) -> Iterator[Symptom]:
    return _on(
        facts,
        lambda each: _number(each, "max_allowed_packet", 1 << 24) < 1 << 24,
        "a statement or a row may have less than 16 MiB",
        "set max_allowed_packet=64M in the server's options",
    )


@check("innodb_rollback_on_timeout-parity", Severity.WARNING)
def _rollback_parity(facts: Facts) -> Iterator[Symptom]:
    return _differs(
        facts,
        lambda each: _variable(each, "innodb_rollback_on_timeout"),
        "what a lock wait timeout rolls back (innodb_rollback_on_timeout)",
        "set it alike in the options of all servers",
    )


# Writing safely.


@check("read_only", Severity.ERROR)
def _read_only(facts: Facts) -> Iterator[Symptom]:
    return _on(
        facts,
        lambda each: (
            each.status == "active"
            and (_is_on(each, "read_only") or _is_on(each, "super_read_only"))
        ),
        "it is in service for writes, and its server refuses them",
        "name the primary in the shard table, or set the shard's status to readonly",
    )


@check("durability", Severity.WARNING)
def _durability(facts: Facts) -> Iterator[Symptom]:
    return _on(
        facts,
        lambda each: _variable(each, "innodb_flush_log_at_trx_commit", "1") != "1",
        "a crash of the machine may lose transactions that were committed",
        "set innodb_flush_log_at_trx_commit=1 in the server's options",
    )


@check("binlog", Severity.WARNING)
def _binlog(facts: Facts) -> Iterator[Symptom]:
    return _on(
        facts,
        lambda each: not _is_on(each, "log_bin"),
        "it has no binary log: no replica, and no recovery to a point in time",
        "set log_bin in the server's options",
    )


@check("sync_binlog", Severity.NOTE)
def _sync_binlog(facts: Facts) -> Iterator[Symptom]:
    return _on(
        facts,
        lambda each: _is_on(each, "log_bin") and _variable(each, "sync_binlog", "1") == "0",
        "a crash of the machine may lose the end of the binary log, and replicas differ then",
        "set sync_binlog=1 in the server's options",
    )


@check("binlog_format", Severity.WARNING)
def _binlog_format(facts: Facts) -> Iterator[Symptom]:
    return _on(
        facts,
        lambda each: _is_on(each, "log_bin") and _variable(each, "binlog_format") == "STATEMENT",
        "statements that depend on their session may have another effect on replicas",
        "set binlog_format=ROW in the server's options",
    )


@check("gtid", Severity.WARNING)
def _gtid(facts: Facts) -> Iterator[Symptom]:
    def is_off(each: DatabaseFacts) -> bool:
        if not _is_on(each, "log_bin"):
            return False
        if each.is_mariadb:
            return not _is_on(each, "gtid_strict_mode")
        return not _variable(each, "gtid_mode").startswith("ON")

    return _on(
        facts,
        is_off,
        "replicas cannot find their place by GTID after a failover, or may diverge",
        "set gtid_strict_mode=1 (MariaDB), or gtid_mode=ON and enforce_gtid_consistency=ON",
    )


@check("xa-detach", Severity.ERROR)
def _xa_detach(facts: Facts) -> Iterator[Symptom]:
    return _on(
        facts,
        lambda each: _variable(each, "xa_detach_on_prepare", "ON").upper() in ("OFF", "0"),
        "a prepared transaction stays with its session, and a reset of that may crash the server",
        "set xa_detach_on_prepare=ON in the server's options",
    )


# Accounts and the wire.

_ALL = re.compile(r"GRANT ALL PRIVILEGES ON (\S+) ", re.I)
_GRANT = re.compile(r"GRANT (.+?) ON (\S+) TO ", re.I)
_TOO_MUCH = frozenset(
    {"SUPER", "FILE", "SHUTDOWN", "PROCESS", "CREATE USER", "GRANT OPTION", "RELOAD"}
)


def granted(facts: DatabaseFacts) -> FrozenSet[str]:
    """What the account may do on its database, in capitals; ``ALL PRIVILEGES`` for
    all.
    """
    found = set()
    for line in facts.grants:
        match = _GRANT.match(line)
        if match is not None and _covers(match[2], facts.config.database):
            plain = re.sub(r"\([^)]*\)", "", match[1])
            found |= {word.strip().upper() for word in plain.split(",")}
    return frozenset(found)


def _covers(scope: str, database: str) -> bool:
    schema = scope.partition(".")[0].strip("`").replace("\\", "")
    pattern = re.escape(schema).replace("%", ".*").replace("_", ".")
    return schema == "*" or re.fullmatch(pattern, database) is not None


@check("privileges-missing", Severity.ERROR)
def _missing(facts: Facts) -> Iterator[Symptom]:
    for each in facts.databases:
        has = granted(each)
        by_role = any(re.match(r"GRANT `?[\w@`%'.]+ TO ", line) for line in each.grants)
        lacking = [name for name in facts.privileges if name.upper() not in has]
        if lacking and "ALL PRIVILEGES" not in has and not by_role:
            names = ", ".join(lacking)
            yield (
                each.name,
                f"the account {each.config.user!r} was not granted {names}",
                f"GRANT {names} ON `{each.config.database}`.* TO {each.config.user!r}",
            )


@check("privileges-excess", Severity.WARNING)
def _excess(facts: Facts) -> Iterator[Symptom]:
    for each in facts.databases:
        server_wide = [line for line in each.grants if " ON *.* " in line]
        words = {
            word.strip().upper()
            for line in server_wide
            for match in [_GRANT.match(line)]
            if match is not None
            for word in match[1].split(",")
        }
        excess = sorted(words & (_TOO_MUCH | {"ALL PRIVILEGES"}))
        if any("WITH GRANT OPTION" in line for line in server_wide):
            excess.append("GRANT OPTION")
        if excess:
            yield (
                each.name,
                f"the account {each.config.user!r} may do more than an application needs: "
                f"{', '.join(dict.fromkeys(excess))}",
                "use an account with rights on its own database alone",
            )


@check("tls", Severity.ERROR)
def _tls(facts: Facts) -> Iterator[Symptom]:
    return _on(
        facts,
        lambda each: not each.cipher and not each.is_local,
        "the connection to {0.address} is not encrypted",
        "give the server a certificate, and set ssl_mode=verify_identity",
    )


@check("tls-unverified", Severity.NOTE)
def _tls_unverified(facts: Facts) -> Iterator[Symptom]:
    return _on(
        facts,
        lambda each: (
            bool(each.cipher)
            and not each.is_local
            and not each.config.ssl_mode.startswith("verify")
        ),
        "the certificate of {0.address} is not checked: somebody in between can read all",
        "set ssl_mode=verify_identity and ssl_ca",
    )


@check("local_infile", Severity.NOTE)
def _local_infile(facts: Facts) -> Iterator[Symptom]:
    return _on(
        facts,
        lambda each: _is_on(each, "local_infile"),
        "the server takes files from its clients (LOAD DATA LOCAL)",
        "set local_infile=0 in the server's options",
    )


# What was left behind, and what tables are like.


@check("xa-left", Severity.ERROR)
def _xa_left(facts: Facts) -> Iterator[Symptom]:
    return _prepared(
        facts,
        lambda prepared: prepared.left,
        "XA transactions of this service hold locks for longer than its xa_grace",
        "dualdb xa recover",
    )


@check("prepared-xa", Severity.WARNING)
def _xa_of_others(facts: Facts) -> Iterator[Symptom]:
    return _prepared(
        facts,
        lambda prepared: prepared.foreign,
        "prepared XA transactions of other programs hold locks until somebody ends them",
        "XA COMMIT or XA ROLLBACK those that nobody works on; dualdb never touches them",
    )


def _prepared(
    facts: Facts, of: Callable[[PreparedXa], Sequence[str]], message: str, fix: str
) -> Iterator[Symptom]:
    """The databases with such transactions, and a few of their names."""
    for each in facts.databases:
        names = () if each.prepared is None else of(each.prepared)
        if names:
            more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
            shown = "; ".join(names[:MOST_NAMED]) + more
            yield each.name, f"{message}: {shown}", fix


@check("commit-markers", Severity.WARNING)
def _markers(facts: Facts) -> Iterator[Symptom]:
    return _on(
        facts,
        lambda each: each.old_markers > 0,
        "commit markers are older than a week and were not swept: {0.old_markers}",
        "DELETE FROM dualdb_commit WHERE at < NOW() - INTERVAL 8 DAY",
    )


@check("migrations", Severity.WARNING)
def _migrations(facts: Facts) -> Iterator[Symptom]:
    return _on(
        facts,
        lambda each: each.unfinished_migrations > 0,
        "migrations were begun and not completed: {0.unfinished_migrations}",
        "mend what they failed with, and run `dualdb migrate up` again",
    )


@check("jobs", Severity.WARNING)
def _jobs(facts: Facts) -> Iterator[Symptom]:
    return _on(
        facts,
        lambda each: each.abandoned_jobs > 0,
        "jobs are running by their rows, and their leases are over: {0.abandoned_jobs}",
        "see `dualdb jobs list`, and run them again: they go on where they were",
    )


@check("misplaced-rows", Severity.ERROR)
def _misplaced(facts: Facts) -> Iterator[Symptom]:
    for table, each in facts.misplaced:
        belongs = "to no shard" if each.belongs_to is None else f"to shard {each.belongs_to}"
        yield (
            each.database,
            f"rows of {table} have the key {each.key!r}, which belongs {belongs}: {each.rows}",
            "correct the directory by `dualdb keys set`, or copy the rows and delete them here",
        )


@check("keys-without-shard", Severity.ERROR)
def _without_shard(facts: Facts) -> Iterator[Symptom]:
    for shard_id, count in facts.homeless:
        yield (
            "global",
            f"calls by keys on shard {shard_id}, which is not in service, are refused: {count}",
            "put the shard back into the shard table, or move the rows and set the keys",
        )


@check("primary-keys", Severity.WARNING)
def _keyless(facts: Facts) -> Iterator[Symptom]:
    for each in facts.databases:
        if each.keyless_tables:
            yield (
                each.name,
                f"tables without a primary key: {', '.join(each.keyless_tables)}",
                "add one: replication, row checks and moves need it",
            )


@check("engines", Severity.WARNING)
def _engines(facts: Facts) -> Iterator[Symptom]:
    for each in facts.databases:
        if each.foreign_engines:
            yield (
                each.name,
                f"tables without transactions: {', '.join(each.foreign_engines)}",
                "ALTER TABLE ... ENGINE=InnoDB",
            )
