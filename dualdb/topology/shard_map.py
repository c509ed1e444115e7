"""The shard map: parsed from the shard table, immutable, with a version."""

import enum
import operator
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from pydantic import ValidationError

from ..config import DatabaseConfig

from .allowed_hosts import ALL_HOSTS, AllowedHosts

#: The shard table as the original service has it, with one more status. Further columns
#: are allowed.
DDL = """\
CREATE TABLE IF NOT EXISTS {table} (
    shard_id INT PRIMARY KEY,
    host VARCHAR(255) NOT NULL,
    port INT NOT NULL DEFAULT 3306,
    database_name VARCHAR(255) NOT NULL,
    username VARCHAR(255) NOT NULL,
    password VARCHAR(255) NOT NULL,
    status ENUM('active', 'inactive', 'maintenance', 'readonly') DEFAULT 'active',
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP
)"""


class Status(enum.Enum):
    """What a shard's row asks for."""

    ACTIVE = "active"
    READONLY = "readonly"
    INACTIVE = "inactive"
    MAINTENANCE = "maintenance"
    INVALID = "invalid"


#: The status column's words, compared without case and surrounding space. "disabled" is
#: what some installations write for inactive.
STATUS_WORDS = {
    "active": Status.ACTIVE,
    "readonly": Status.READONLY,
    "inactive": Status.INACTIVE,
    "disabled": Status.INACTIVE,
    "maintenance": Status.MAINTENANCE,
}


def status_of(word: Any) -> Optional[Status]:
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

    @property
    def in_service(self) -> bool:
        """It has a pool: it is active, or active for reads alone."""
        return self.status in (Status.ACTIVE, Status.READONLY)


class ShardMap(NamedTuple):
    """All shards at one moment.

    Never changed, only replaced; ``problems`` holds what was wrong with which row.
    """

    version: int
    shards: Mapping[int, Shard]
    problems: Tuple[str, ...] = ()

    @property
    def active(self) -> List[int]:
        """The ids of the shards in service, sorted; those that are read-only among
        them, for they hold rows that must not be missed.
        """
        return sorted(shard_id for shard_id, shard in self.shards.items() if shard.in_service)


EMPTY = ShardMap(0, MappingProxyType({}))


def parse_shard_table(
    rows: Iterable[Mapping[str, Any]],
    base: DatabaseConfig,
    version: int = 1,
    allowed: AllowedHosts = ALL_HOSTS,
) -> ShardMap:
    """The map that the shard table's rows describe.

    A shard takes what its row does not say (character set, pool sizes, timeouts, TLS)
    from ``base``, the global database's configuration. A row that cannot be used makes
    its shard INVALID, with the reason, and hurts no other; a row whose id cannot be
    read is reported only. Hosts and status words are taken without regard to case and
    surrounding space; an unknown status word makes a row unusable. A password
    ``env:NAME`` or ``file:PATH`` is looked up here.
    """
    shards: Dict[int, Shard] = {}
    problems: List[str] = []
    for number, raw in enumerate(rows, 1):
        row = {str(name).lower(): value for name, value in raw.items()}
        try:
            shard_id = _number(row, "shard_id")
        except ValueError as error:
            problems.append(f"row {number} of the shard table: {error}")
            continue
        try:
            if shard_id in shards:
                raise ValueError("more than one row has this shard_id")
            shards[shard_id] = _shard(shard_id, row, base, allowed)
        except ValueError as error:
            shards[shard_id] = Shard(shard_id, Status.INVALID, reason=_reason(error))
            problems.append(f"shard {shard_id}: {_reason(error)}")
    return ShardMap(version, MappingProxyType(shards), tuple(problems))


def _shard(
    shard_id: int, row: Mapping[str, Any], base: DatabaseConfig, allowed: AllowedHosts
) -> Shard:
    word = row.get("status")
    status = status_of(word)
    if status is None:
        raise ValueError(f"status {word!r} is none of {', '.join(sorted(STATUS_WORDS))}")
    name = row.get("shard_name")
    name = str(name) if name is not None else None
    if status is Status.INACTIVE:
        return Shard(shard_id, status, name=name)
    host = _text(row, "host").strip().lower()
    if host not in allowed:
        raise ValueError(f"host {host!r} is not among the allowed hosts")
    fields: Dict[str, Any] = {
        "host": host,
        "port": _number(row, "port"),
        "database": _text(row, "database_name"),
        "user": _text(row, "username"),
        "password": row.get("password") or "",
        "unix_socket": None,
    }
    if row.get("max_connections") is not None:
        limit = _number(row, "max_connections")
        if limit < 1:
            raise ValueError(f"max_connections is {limit}; a shard needs at least 1")
        fields["pool_size"] = min(base.pool_size, limit)
        fields["max_overflow"] = min(base.max_overflow, limit - fields["pool_size"])
        fields["warm_up"] = min(base.warm_up, fields["pool_size"])
    inherited = {name: getattr(base, name) for name in DatabaseConfig.model_fields}
    return Shard(shard_id, status, DatabaseConfig(**{**inherited, **fields}), name)


def _number(row: Mapping[str, Any], column: str) -> int:
    """A whole number, whatever type the column has: 7, Decimal("7"), 7.0 and "7" all
    name shard 7.
    """
    value = row.get(column)
    if isinstance(value, (float, Decimal)) and value == value // 1:
        return int(value)
    if isinstance(value, (str, bytes)) and value.strip().isdigit():
        return int(value)
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(
            f"{column} is {'NULL' if value is None else repr(value)}, not a whole number"
        ) from None


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise ValueError(
            f"{column} is {'NULL' if value is None else 'a ' + type(value).__name__}, not text"
        )
    return value


def _reason(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        found = error.errors(include_input=False, include_url=False)
        return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in found)
    return str(error)


class Changes(NamedTuple):
    """What one map asks for after another: pools to open (new or moved shards) and
    pools to close (gone, suspended or moved ones).
    """

    open: Tuple[int, ...]
    close: Tuple[int, ...]


def changes_between(old: ShardMap, new: ShardMap) -> Changes:
    """A shard whose address, account and pool settings are the same keeps its pool."""

    def pools(shard_map: ShardMap) -> Dict[int, Optional[DatabaseConfig]]:
        return {
            shard_id: shard.config
            for shard_id, shard in shard_map.shards.items()
            if shard.in_service
        }

    before, after = pools(old), pools(new)
    return Changes(
        open=tuple(
            sorted(shard_id for shard_id in after if before.get(shard_id) != after[shard_id])
        ),
        close=tuple(
            sorted(shard_id for shard_id in before if before[shard_id] != after.get(shard_id))
        ),
    )
