"""The fence of tenants that move, as triggers: what is written into the databases.

Every table of a tenant has six triggers, for good. Those before a change read the fence
and refuse the change if the tenant is being switched to another shard, or has moved;
those after it write down which row was changed while the tenant is copied. Both read
with a shared lock that is held until the end of the writer's transaction, so whoever
changes the fence waits for every transaction that has read it before.

A row for every key cannot be there beforehand, and one that is made late is not waited
for. So keys share ``BUCKETS`` rows, which always are there; only where a bucket says
that one of its keys has ever moved, the row of the key is read.
"""

import datetime
import hashlib
import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from .. import error_codes, errors
from ..directory.keys import StoredKey, key_column
from ..sql.identifiers import quoted
from .reports import TenantTable
from .tenant import chain_of

BUCKETS = 1024

FENCE = "dualdb_fence"
FENCE_KEYS = "dualdb_fence_key"
LOG = "dualdb_move_log"
#: In the global database: gives numbers that never come again.
EPOCHS = "dualdb_move_epoch"

#: States of a key on one shard.
OPEN = 0
LOGGED = 1
FENCED = 2
MOVED = 3

TABLES: Dict[str, Tuple[str, str]] = {
    FENCE: (
        "which keys may have a fence",
        f"""CREATE TABLE IF NOT EXISTS {FENCE} (
    bucket SMALLINT UNSIGNED NOT NULL PRIMARY KEY,
    in_use TINYINT NOT NULL DEFAULT 0
) ENGINE=InnoDB""",
    ),
    FENCE_KEYS: (
        "keys that are moved, or have been",
        f"""CREATE TABLE IF NOT EXISTS {FENCE_KEYS} (
    tenant VARBINARY(255) NOT NULL PRIMARY KEY,
    state TINYINT NOT NULL,
    epoch BIGINT UNSIGNED NOT NULL
) ENGINE=InnoDB""",
    ),
    LOG: (
        "rows that were changed during a move",
        f"""CREATE TABLE IF NOT EXISTS {LOG} (
    seq BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    tenant VARBINARY(255) NOT NULL,
    tbl VARCHAR(64) CHARACTER SET utf8mb4 NOT NULL,
    pk VARBINARY(3072) NOT NULL,
    KEY (tenant, seq)
) ENGINE=InnoDB""",
    ),
}
EPOCHS_DDL = (
    f"CREATE TABLE IF NOT EXISTS {EPOCHS} (epoch BIGINT UNSIGNED NOT NULL AUTO_INCREMENT "
    "PRIMARY KEY, at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP) ENGINE=InnoDB"
)

_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
_BINARY = frozenset({"binary", "varbinary"})
_DECIMAL = re.compile("0|-?[1-9][0-9]*")
_TEXT = frozenset({"char", "varchar"})
_BYTES = frozenset({*_BINARY, "tinyblob", "blob", "mediumblob", "longblob"})

_MESSAGES = {
    FENCED: f"{errors.FENCE_TEXT}is being moved to another shard; try again",
    MOVED: f"{errors.FENCE_TEXT}has moved to another shard",
}


class Column(NamedTuple):
    """A column of a table that is moved.

    Attributes:
        name: Its name.
        kind: The type's name, in lower case.
        type: The whole type.
        collation: Of a text.
        is_generated: It is computed, and cannot be inserted.
    """

    name: str
    kind: str
    type: str
    collation: Optional[str] = None
    is_generated: bool = False

    @property
    def is_binary(self) -> bool:
        """Its values are bytes."""
        return self.kind in _BYTES

    @property
    def pads(self) -> bool:
        """Texts are equal that differ in spaces at their end."""
        collation = self.collation or ""
        return self.kind in _TEXT and "nopad" not in collation and "_0900_" not in collation


class MovedTable(NamedTuple):
    """A table, as far as it is moved.

    Attributes:
        table: Its description.
        chain: It, its parent, and so on.
        condition: The condition for a tenant's rows, with ``%(key)s``.
        columns: All columns.
        key: The columns of its primary key.
        key_kind: The column with the tenant's key, in the last of the chain.
    """

    table: TenantTable
    chain: Tuple[TenantTable, ...]
    condition: str
    columns: Tuple[Column, ...]
    key: Tuple[Column, ...]
    key_kind: Column

    @property
    def name(self) -> str:
        """The table's name."""
        return self.table.name

    @property
    def stored(self) -> List[Column]:
        """The columns that are copied."""
        return [each for each in self.columns if not each.is_generated]

    def stored_number(self, name: str) -> int:
        """The number of a column among those that are copied."""
        return [each.name.lower() for each in self.stored].index(name.lower())

    @property
    def by_parent(self) -> bool:
        """Its rows are found by those of another table."""
        return len(self.chain) > 1


def column_key(column: Column, key: object) -> StoredKey:
    """A tenant's key as a column holds it; the server would convert another type, and
    find rows of others equal.

    Raises:
        ParameterError: It is no key of this column.
    """
    if column.kind in _INTEGERS and isinstance(key, str) and _DECIMAL.fullmatch(key):
        key = int(key)
    return key_column(column.name, column.kind, column.type, None).stored(key)


def tenant_bytes(tables: Sequence["MovedTable"], key: object) -> bytes:
    """A tenant's key, as the fence has it: the bytes of what its columns hold.

    Raises:
        ParameterError: It is no key of one of the tables, or is not the same in all.
    """
    found = set()
    for table in tables:
        stored = column_key(table.key_kind, key)
        if isinstance(stored, str) and table.key_kind.pads:
            stored = stored.rstrip(" ")
        found.add(stored if isinstance(stored, bytes) else str(stored).encode())
    if len(found) > 1:
        raise errors.ParameterError(
            f"the tables hold the key {key!r} in different forms: {sorted(found)}"
        )
    return found.pop()


def check_key_column(table: str, column: Column) -> None:
    """Refuse a key that the database finds equal to one with other bytes.

    Raises:
        ParameterError: It is such a column, or no column of keys.
    """
    if column.kind in _INTEGERS or column.kind in _BINARY:
        return
    if column.kind in _TEXT and (column.collation or "").endswith("_bin"):
        return
    raise errors.ParameterError(
        f"the key column {table}.{column.name} is a {column.type}: tenants are moved by keys that "
        "are integers, binary, or text with a _bin collation, which are equal only if their bytes "
        "are"
    )


# Texts of primary keys: each column's bytes in hex, joined by commas.


def pk_expression(key: Sequence[Column], row: str) -> str:
    """An expression for the text of a row's primary key.

    Args:
        key: The columns of the key.
        row: ``NEW``, ``OLD``, or an alias of the table.
    """
    parts = []
    for column in key:
        name = f"{row}.{quoted(column.name)}"
        text = name if column.is_binary else _as_text(column, name)
        parts.append(f"HEX({text})")
    return parts[0] if len(parts) == 1 else f"CONCAT_WS(',', {', '.join(parts)})"


def _as_text(column: Column, name: str) -> str:
    """A value as text, the same in every session and without a loss."""
    if column.kind == "timestamp":
        name = f"UNIX_TIMESTAMP({name})"  # whatever the session's time zone is
    elif column.kind == "bit":
        name = f"{name} + 0"
    elif column.kind == "float":
        name = f"{name} * 1e0"
    return f"CONVERT(CAST({name} AS CHAR) USING utf8mb4)"


def pk_values(key: Sequence[Column], text: bytes) -> Tuple[Any, ...]:
    """The values of a primary key, from its text."""
    values = [bytes.fromhex(part.decode("ascii")) for part in text.split(b",")]
    return tuple(
        value if column.is_binary else _typed(column, value.decode())
        for column, value in zip(key, values)
    )


def _typed(column: Column, text: str) -> Any:
    if column.kind in _INTEGERS or column.kind == "bit":
        return int(text)
    return _utc(text) if column.kind == "timestamp" else text


def _utc(text: str) -> str:
    """Seconds since 1970 as a mover's sessions, which are in UTC, write a time."""
    seconds, _, fraction = text.partition(".")
    if not int(seconds):
        return "0000-00-00 00:00:00"
    at = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=int(seconds))
    return f"{at}.{fraction}" if fraction else str(at)


# Triggers.


def _key_text(column: Column, name: str) -> str:
    if column.kind not in _TEXT:
        return name
    text = f"CONVERT({name} USING utf8mb4)"
    return f"TRIM(TRAILING ' ' FROM {text})" if column.pads else text


def find_key(table: MovedTable, row: str, variable: str) -> str:
    """A statement of a trigger that sets a variable to the tenant's key of a row."""
    if not table.by_parent:
        name = f"{row}.{quoted(table.chain[0].key_column or '')}"
        return f"SET {variable} = {_key_text(table.key_kind, name)};"
    joins = []
    for number, (child, parent) in enumerate(zip(table.chain, table.chain[1:]), 1):
        before = row if number == 1 else f"p{number - 1}"
        link = (
            f"p{number}.{quoted(child.parent_key)} = {before}.{quoted(child.parent_column or '')}"
        )
        joins.append((f"{quoted(parent.name)} p{number}", link))
    top = f"p{len(joins)}.{quoted(table.chain[-1].key_column or '')}"
    source = joins[0][0] + "".join([f" JOIN {name} ON {link}" for name, link in joins[1:]])
    return (
        f"SELECT {_key_text(table.key_kind, top)} INTO {variable} FROM {source} "
        f"WHERE {joins[0][1]} LOCK IN SHARE MODE;"
    )


def _read_state(variable: str) -> str:
    """Statements that set ``s`` to the state of a key."""
    return (
        f"SET s = 0; SELECT in_use INTO s FROM {FENCE} "
        f"WHERE bucket = MOD(CRC32({variable}), {BUCKETS}) LOCK IN SHARE MODE; "
        "IF s > 0 THEN SET s = 0; "
        f"SELECT state INTO s FROM {FENCE_KEYS} WHERE tenant = {variable} LOCK IN SHARE MODE; "
        "END IF; "
    )


def _refuse(table: MovedTable, row: str, variable: str) -> str:
    found = ""
    for state, message in _MESSAGES.items():
        found += (
            f"IF s = {state} THEN SIGNAL SQLSTATE '45000' "
            f"SET MYSQL_ERRNO = {error_codes.TENANT_FENCED}, MESSAGE_TEXT = '{message}'; END IF; "
        )
    return found


def _write_down(table: MovedTable, row: str, variable: str) -> str:
    name = table.name.replace("\\", "\\\\").replace("'", "''")
    return (
        f"IF s = {LOGGED} THEN INSERT INTO {LOG} (tenant, tbl, pk) "
        f"VALUES ({variable}, '{name}', {pk_expression(table.key, row)}); END IF; "
    )


def _body(table: MovedTable, timing: str, event: str) -> str:
    act = _refuse if timing == "BEFORE" else _write_down
    rows = {"INSERT": ["NEW"], "UPDATE": ["OLD", "NEW"], "DELETE": ["OLD"]}[event]
    parts = []
    for number, row in enumerate(rows, 1):
        variable = f"k{number}"
        parts.append(f"{find_key(table, row, variable)} ")
        checked = _read_state(variable) + act(table, row, variable)
        if number > 1:
            # most changes leave the key as it is, and are done with
            same = "k1 <=> k2"
            if timing == "AFTER":
                old, new = (pk_expression(table.key, each) for each in rows)
                same += f" AND {old} <=> {new}"
            checked = f"IF NOT ({same}) THEN {checked}END IF; "
        parts.append(checked)
    return (
        "BEGIN DECLARE k1, k2 VARBINARY(255) DEFAULT NULL; DECLARE s INT DEFAULT 0; "
        f"IF @dualdb_move IS NULL THEN {''.join(parts)}END IF; END"
    )


class Trigger(NamedTuple):
    """A trigger, whose name says what it does."""

    name: str
    table: str
    timing: str
    event: str
    body: str

    @property
    def ddl(self) -> str:
        """Makes it."""
        return (
            f"CREATE TRIGGER {quoted(self.name)} {self.timing} {self.event} ON "
            f"{quoted(self.table)} FOR EACH ROW {self.body}"
        )


def triggers(table: MovedTable) -> List[Trigger]:
    """The triggers of a table."""
    found = []
    for timing in ("BEFORE", "AFTER"):
        for event in ("INSERT", "UPDATE", "DELETE"):
            body = _body(table, timing, event)
            digest = hashlib.sha256(f"{table.name}|{body}".encode()).hexdigest()[:16]
            name = f"dualdb_move_{timing[0]}{event[0]}_{digest}".lower()
            found.append(Trigger(name, table.name, timing, event, body))
    return found


# Copying.


def read_expression(column: Column) -> str:
    """A column as it is read to be written elsewhere, without a loss."""
    name = quoted(column.name)
    if column.kind == "bit":
        return f"{name} + 0"
    if column.kind in ("float", "double"):
        return f"{name} * 1e0"  # a FLOAT is shown with six digits
    if column.kind in ("date", "datetime", "timestamp", "time", "year", "decimal"):
        return f"CAST({name} AS CHAR)"
    return name


def chain_check(tables: Sequence[TenantTable]) -> None:
    """Refuse tables whose rows' tenants a trigger cannot find.

    Raises:
        ParameterError: One is found by a condition.
    """
    for each in tables:
        if each.on == "shard" and any(part.where is not None for part in chain_of(each, tables)):
            raise errors.ParameterError(
                f"{each.name!r} is found by a condition, in which a trigger cannot find the key: "
                "describe it by key_column, or by parent and parent_column"
            )
