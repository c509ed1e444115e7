"""The shard map: immutable, versioned, parsed from the shard table."""

import enum
import operator
from decimal import Decimal
from types import MappingProxyType
from typing import (
    Any,
    Dict,
    FrozenSet,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Set,
    Tuple,
)

from pydantic import ValidationError

from ..config import DatabaseConfig
from ..hosts import Address, addresses, plain_host
from . import passwords
from .allowed_hosts import ALL_HOSTS, AllowedHosts
from .passwords import ALL_REFERENCES, AllowedReferences

#: The shard table of the original service, with two more statuses. Further columns are
#: allowed.
DDL = """\
CREATE TABLE IF NOT EXISTS {table} (
    shard_id INT PRIMARY KEY,
    host VARCHAR(255) NOT NULL,
    port INT NOT NULL DEFAULT 3306,
    database_name VARCHAR(255) NOT NULL,
    username VARCHAR(255) NOT NULL,
    password VARCHAR(255) NOT NULL,
    status ENUM('active', 'inactive', 'maintenance', 'readonly', 'moving') DEFAULT 'active',
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP
)"""


class Status(enum.Enum):
    """The status of a shard, by its row."""

    ACTIVE = "active"
    READONLY = "readonly"
    INACTIVE = "inactive"
    MAINTENANCE = "maintenance"
    MOVING = "moving"
    INVALID = "invalid"


#: The status column's words, compared without case and surrounding space. "disabled" is
#: what some installations write for inactive.
STATUS_WORDS = {
    "active": Status.ACTIVE,
    "readonly": Status.READONLY,
    "inactive": Status.INACTIVE,
    "disabled": Status.INACTIVE,
    "maintenance": Status.MAINTENANCE,
    "moving": Status.MOVING,
}


def status_of(word: object) -> Optional[Status]:
    """What a status word means; None for one that means nothing."""
    return STATUS_WORDS.get(word.strip().lower()) if isinstance(word, str) else None


class Shard(NamedTuple):
    """One row of the shard table, checked.

    ``config`` is None and ``reason`` says why where the status is INVALID.
    """

    shard_id: int
    status: Status
    config: Optional[DatabaseConfig] = None
    name: Optional[str] = None
    reason: Optional[str] = None
    #: Of new keys: its share beside the other shards', and whether it takes any.
    weight: float = 1.0
    accepts_new: bool = True

    @property
    def in_service(self) -> bool:
        """It has a pool: it is active, or active for reads alone."""
        return self.status in (Status.ACTIVE, Status.READONLY)


class ShardMap(NamedTuple):
    """All shards at one moment. Never changed, only replaced.

    Attributes:
        version: Grows with every change.
        shards: The shards, by shard id.
        problems: Descriptions of unusable rows.
        warnings: Descriptions of usable but suspicious rows.
        repeats: Shards whose database also belongs to a shard with a smaller id.
    """

    version: int
    shards: Mapping[int, Shard]
    problems: Tuple[str, ...] = ()
    warnings: Tuple[str, ...] = ()
    repeats: FrozenSet[int] = frozenset()

    @property
    def active(self) -> List[int]:
        """The sorted ids of the shards in service, including read-only ones, whose rows
        must not be missed.
        """
        return sorted(shard_id for shard_id, shard in self.shards.items() if shard.in_service)


EMPTY = ShardMap(0, MappingProxyType({}))

#: The largest number in a row, and the most characters of an invalid value in a
#: message.
_MAX_NUMBER = 2**63 - 1
_MAX_SHOWN = 60

_FIELDS = set(DatabaseConfig.model_fields)

#: The most shard ids that a warning lists.
_MAX_LISTED = 10


class RowRules(NamedTuple):
    """The rules for parsing rows.

    Attributes:
        base: The global database's configuration, from which shards inherit character
            set, pool sizes, timeouts and TLS.
        hosts: The hosts that rows may name.
        references: The password references that rows may contain.
    """

    base: DatabaseConfig
    hosts: AllowedHosts = ALL_HOSTS
    references: AllowedReferences = ALL_REFERENCES


class ParsedRow(NamedTuple):
    """A parsed row.

    Attributes:
        shard_id: The shard's id; None if it is invalid.
        shard: The shard; None if the id is invalid.
        problem: Why the row is unusable; None if it is usable.
    """

    shard_id: Optional[int]
    shard: Optional[Shard]
    problem: Optional[str] = None


def parse_row(raw: Mapping[str, Any], rules: RowRules) -> ParsedRow:
    """Parse a row of the shard table. It never raises.

    Case and surrounding space of hosts and status words are ignored. A password
    reference is resolved. An invalid value makes only this row unusable.

    Args:
        raw: The row, by column name.
        rules: The rules for parsing it.
    """
    try:
        row = {str(name).lower(): value for name, value in raw.items()}
        shard_id = _number(row, "shard_id")
    except Exception as error:
        return ParsedRow(None, None, _reason(error))
    try:
        return ParsedRow(shard_id, _shard(shard_id, row, rules))
    except Exception as error:
        reason = _reason(error)
        return ParsedRow(shard_id, Shard(shard_id, Status.INVALID, reason=reason), reason)


class MapBuilder:
    """Builds a shard map row by row.

    Args:
        base: The configuration of the global database.
    """

    def __init__(self, base: DatabaseConfig) -> None:
        self._global = database_of(base)
        self._shards: Dict[int, Shard] = {}
        self._problems: List[str] = []
        self._on: Dict[Tuple[str, int, str], List[int]] = {}
        self._shared: Set[Tuple[str, int, str]] = set()

    def add(self, number: int, row: ParsedRow) -> None:
        """Add a row, with its number counted from 1."""
        if row.shard_id is None or row.shard is None:
            self._problems.append(f"row {number} of the shard table: {row.problem}")
            return
        shard = row.shard
        problem = row.problem
        if row.shard_id in self._shards:
            problem = "more than one row has this shard_id"
            shard = Shard(row.shard_id, Status.INVALID, reason=problem)
        self._shards[row.shard_id] = shard
        if problem is not None:
            self._problems.append(f"shard {row.shard_id}: {problem}")
        if shard.config is not None:
            where = database_of(shard.config)
            ids = self._on.setdefault(where, [])
            ids.append(row.shard_id)
            if len(ids) > 1 or where == self._global:
                self._shared.add(where)

    def build(self, version: int) -> ShardMap:
        """Return the map of the rows added so far."""
        warnings: List[str] = []
        repeats: List[int] = []
        for where in sorted(self._shared):
            ids = sorted(self._on[where])
            names = f"shard {ids[0]} is" if len(ids) == 1 else f"shards {_listed(ids)} are"
            what = "the global database" if where == self._global else "one database"
            host, port, database = where
            at = f"{host}:{port}" if port else host
            warnings.append(f"{names} {what}, {database} at {at}")
            repeats += ids[1:]
        return ShardMap(
            version,
            MappingProxyType(self._shards),
            tuple(self._problems),
            tuple(warnings),
            frozenset(repeats),
        )


def parse_shard_table(
    rows: Iterable[Mapping[str, Any]],
    base: DatabaseConfig,
    version: int = 1,
    allowed: AllowedHosts = ALL_HOSTS,
    references: AllowedReferences = ALL_REFERENCES,
) -> ShardMap:
    """Parse all rows of the shard table.

    An unusable row makes its shard INVALID, with the reason, and affects no other. A
    row with an invalid id is only reported.

    Args:
        rows: The rows.
        base: The configuration of the global database.
        version: The version of the map.
        allowed: The hosts that rows may name.
        references: The password references that rows may contain.
    """
    builder = MapBuilder(base)
    rules = RowRules(base, allowed, references)
    for number, raw in enumerate(rows, 1):
        builder.add(number, parse_row(raw, rules))
    return builder.build(version)


def database_of(config: DatabaseConfig) -> Tuple[str, int, str]:
    """Return a key that is equal for configurations of the same database."""
    if config.unix_socket is not None:
        return config.unix_socket, 0, config.database
    found = sorted([Address(plain_host(host), port) for host, port in config.hosts])
    if len(found) == 1:
        return found[0].host, found[0].port, config.database
    return ",".join([str(each) for each in found]), 0, config.database


def _listed(ids: List[int]) -> str:
    shown = ", ".join(map(str, ids[:_MAX_LISTED]))
    return shown if len(ids) <= _MAX_LISTED else f"{shown} and {len(ids) - _MAX_LISTED} more"


def _shard(shard_id: int, row: Mapping[str, Any], rules: RowRules) -> Shard:
    base = rules.base
    word = row.get("status")
    status = status_of(word)
    if status is None:
        raise ValueError(f"status {_shown(word)} is not one of {', '.join(sorted(STATUS_WORDS))}")
    name = row.get("shard_name")
    name = str(name) if name is not None else None
    if status is Status.INACTIVE:
        return Shard(shard_id, status, name=name)
    host = _text(row, "host").strip().lower()
    port = _number(row, "port")
    for address in addresses(host, port):
        if not rules.hosts.allows(*address):
            raise ValueError(f"host {_shown(address.host)} is not among the allowed hosts")
    fields: Dict[str, Any] = {
        "host": host,
        "port": port,
        "database": _text(row, "database_name"),
        "user": _text(row, "username"),
        "password": passwords.of_row(row.get("password"), rules.references),
        "unix_socket": None,
        "replicas": None,
    }
    for column in ("engine", "endpoint_policy"):
        if row.get(column) is not None:
            fields[column] = _text(row, column).strip().lower()
    if row.get("max_connections") is not None:
        limit = _number(row, "max_connections")
        if limit < 1:
            raise ValueError(f"max_connections must be at least 1, not {limit}")
        fields["pool_size"] = min(base.pool_size, limit)
        fields["max_overflow"] = min(base.max_overflow, limit - fields["pool_size"])
        fields["warm_up"] = min(base.warm_up, fields["pool_size"])
    inherited = {name: getattr(base, name) for name in _FIELDS}
    config = DatabaseConfig(**{**inherited, **fields})
    return Shard(
        shard_id,
        status,
        # the same set of names for all: one of its own takes half of the shard's memory
        DatabaseConfig.model_construct(_FIELDS, **dict(config)),
        name,
        weight=_weight(row),
        accepts_new=row.get("accepts_new") is None or bool(_number(row, "accepts_new")),
    )


class ParsedReplica(NamedTuple):
    """A parsed row of the table of replicas.

    Attributes:
        shard_id: Its shard.
        config: The configuration of its primary; None if the row is not used.
        addresses: Where it listens; a row may name several.
        weight: Its share of the reads.
        problem: Why the row cannot be used; None if it can.
    """

    shard_id: Optional[int] = None
    config: Optional[DatabaseConfig] = None
    addresses: Tuple[Address, ...] = ()
    weight: float = 1.0
    problem: Optional[str] = None


def replica_of_row(raw: Mapping[str, Any], shard_map: ShardMap, rules: RowRules) -> ParsedReplica:
    """Parse a row of the table of replicas. It never raises.

    A row of a shard that is not in service is not used, nor is an inactive one.

    Args:
        raw: The row, by column name.
        shard_map: The active map.
        rules: The rules for parsing it.
    """
    try:
        row = {str(name).lower(): value for name, value in raw.items()}
        shard_id = _number(row, "shard_id")
        shard = shard_map.shards.get(shard_id)
        word = "active" if row.get("status") is None else row.get("status")
        status = status_of(word)
        if status is None:
            raise ValueError(f"status {_shown(word)} is not one of active, inactive")
        if status is not Status.ACTIVE or shard is None or not shard.in_service:
            return ParsedReplica(shard_id)
        port = 3306 if row.get("port") is None else _number(row, "port")
        found = tuple(addresses(_text(row, "host").strip().lower(), port))
        for address in found:
            if not rules.hosts.allows(*address):
                raise ValueError(f"host {_shown(address.host)} is not among the allowed hosts")
        return ParsedReplica(shard_id, shard.config, found, _weight(row))
    except Exception as error:
        return ParsedReplica(
            problem=f"a replica of shard {_shown(raw.get('shard_id'))}: {_reason(error)}"
        )


def _weight(row: Mapping[str, Any]) -> float:
    """Return the column ``weight``; 1 if there is none."""
    value = row.get("weight")
    try:
        weight = 1.0 if value is None else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"weight must be a number, not {_shown(value)}") from None
    if not 0 <= weight < float("inf"):
        raise ValueError(f"weight must be a number from 0 up, not {_shown(value)}")
    return weight


def _number(row: Mapping[str, Any], column: str) -> int:
    """Return an integer from a column of any type: 7, Decimal("7"), 7.0 and "7" are
    equivalent.
    """
    value = row.get(column)
    found = _whole(value)
    if found is None:
        shown = "NULL" if value is None else _shown(value)
        raise ValueError(f"{column} is {shown}, not a whole number")
    if abs(found) > _MAX_NUMBER:
        raise ValueError(f"{column} is {_shown(value)}, which is too large")
    return found


def _whole(value: Any) -> Optional[int]:
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, Decimal):
        # int() of a Decimal with a large exponent would take quadratic time.
        if not value.is_finite() or value.adjusted() > 18:
            return None
        return int(value) if value == value.to_integral_value() else None
    if isinstance(value, (str, bytes)):
        text = value.strip()
        return int(text) if len(text) <= 19 and text.isdigit() else None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise ValueError(
            f"{column} is {'NULL' if value is None else 'a ' + type(value).__name__}, not text"
        )
    return value


def _shown(value: object) -> str:
    """Return a value as text for a message, truncated."""
    text = repr(value[:_MAX_SHOWN] if isinstance(value, (str, bytes)) else value)
    return text if len(text) <= _MAX_SHOWN + 3 else f"{text[:_MAX_SHOWN]}..."


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        found = error.errors(include_input=False, include_url=False)
        return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in found)
    if isinstance(error, ValueError):
        return str(error)
    return f"its values cannot be read ({type(error).__name__})"


class Changes(NamedTuple):
    """The pools to open and close when one map follows another.

    Attributes:
        open: New and moved shards.
        close: Removed, suspended and moved shards.
    """

    open: Tuple[int, ...]
    close: Tuple[int, ...]


def changes_between(old: ShardMap, new: ShardMap) -> Changes:
    """Return the pools to open and close when ``new`` follows ``old``.

    A shard whose address, account and timeouts are unchanged keeps its pool.
    """
    opened: List[int] = []
    closed: List[int] = []
    for shard_id in sorted({*old.shards, *new.shards}):
        opens, closes = change_of(old, new, shard_id)
        opened += [shard_id] * opens
        closed += [shard_id] * closes
    return Changes(tuple(opened), tuple(closed))


def change_of(old: ShardMap, new: ShardMap, shard_id: int) -> Tuple[bool, bool]:
    """Return whether a shard needs a new pool, and whether its old one is closed."""
    before = _pool_of(old, shard_id)
    after = _pool_of(new, shard_id)
    if before == after or resized_pool(old, new, shard_id) is not None:
        return False, False
    return after is not None, before is not None


#: The fields that a pool takes over while it is in use.
SIZES = ("pool_size", "max_overflow", "warm_up")


def resized_pool(old: ShardMap, new: ShardMap, shard_id: int) -> Optional[DatabaseConfig]:
    """Return a shard's configuration if only the sizes of its pool have changed."""
    before = _pool_of(old, shard_id)
    after = _pool_of(new, shard_id)
    if before is None or after is None or before == after:
        return None
    sizes = {name: getattr(after, name) for name in SIZES}
    return after if before.model_copy(update=sizes) == after else None


def _pool_of(shard_map: ShardMap, shard_id: int) -> Optional[DatabaseConfig]:
    shard = shard_map.shards.get(shard_id)
    return shard.config if shard is not None and shard.in_service else None
