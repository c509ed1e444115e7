"""The SQL of lookup tables and aliases, and parsing of their rows."""

from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from ..errors import RoutingError
from .keys import KeyColumn, KeyKind, StoredKey, quoted
from .sources import HashBuckets, LookupTable

#: The table of the original service.
MAPPING_DDL = """\
CREATE TABLE IF NOT EXISTS {table} (
    {key} BIGINT NOT NULL PRIMARY KEY,
    {shard} INT NOT NULL,
    created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    KEY ({shard})
) ENGINE=InnoDB"""

BUCKET_DDL = """\
CREATE TABLE IF NOT EXISTS {table} (
    bucket INT NOT NULL PRIMARY KEY,
    shard_id INT NOT NULL,
    KEY (shard_id)
) ENGINE=InnoDB"""

#: Keys are stored as text, so that aliases have one format for all tables.
ALIAS_DDL = """\
CREATE TABLE IF NOT EXISTS {table} (
    kind VARCHAR(32) NOT NULL,
    alias VARCHAR(191) NOT NULL,
    key_value VARBINARY(255) NOT NULL,
    PRIMARY KEY (kind, alias),
    KEY (key_value)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"""

KIND_LENGTH = 32
ALIAS_LENGTH = 191
KEY_VALUE_LENGTH = 255

#: The most keys of one statement: a text key has a SELECT of its own.
MOST_KEYS = {KeyKind.INTEGER: 10_000, KeyKind.BINARY: 2_000, KeyKind.TEXT: 500}

COLUMNS = """\
SELECT CAST(DATA_TYPE AS CHAR) AS data_type, CAST(COLUMN_TYPE AS CHAR) AS column_type,
    CHARACTER_MAXIMUM_LENGTH AS length
FROM information_schema.COLUMNS
WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s AND COLUMN_NAME = %s"""

UNIQUE_INDEXES = """\
SELECT INDEX_NAME AS name FROM information_schema.STATISTICS
WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s AND NON_UNIQUE = 0
GROUP BY INDEX_NAME
HAVING COUNT(*) = 1 AND MAX(COLUMN_NAME) = %s AND MAX(SUB_PART) IS NULL"""


class MappingTable:
    """A table that maps keys, or hash buckets, to shards, with its statements.

    Every text has its names quoted; values are parameters.
    """

    def __init__(self, table: str, key_column: str, shard_column: str) -> None:
        self.name = table
        self.key_column = key_column
        self.shard_column = shard_column
        self._table, self._key, self._shard = map(quoted, (table, key_column, shard_column))

    def in_schema(self) -> Tuple[Optional[str], str, str]:
        """The parameters of the questions to ``information_schema``."""
        schema, _, table = self.name.rpartition(".")
        return schema or None, table, self.key_column

    @property
    def probe(self) -> str:
        """Fails as a lookup would where there is no such table or column."""
        return f"SELECT {self._key}, {self._shard} FROM {self._table} LIMIT 0"

    @property
    def counts(self) -> str:
        """How many keys each shard has."""
        return (
            f"SELECT {self._shard} AS shard_id, COUNT(*) AS key_count FROM {self._table} "
            f"GROUP BY {self._shard}"
        )

    @property
    def all_rows(self) -> str:
        """The whole table."""
        return f"SELECT {self._key} AS found_key, {self._shard} AS shard_id FROM {self._table}"

    @property
    def keys_of_shards(self) -> str:
        """The keys of shards; of (shards,)."""
        return f"SELECT {self._key} AS found_key FROM {self._table} WHERE {self._shard} IN %s"

    def lookup(self, column: KeyColumn, stored: Sequence[StoredKey]) -> Tuple[str, Tuple[Any, ...]]:
        """The statement that finds the rows of these keys, with its parameters.

        Text is compared by the server alone, as its collation says, so each row comes
        with the number of the key that it was found by.
        """
        if column.kind is not KeyKind.TEXT:
            return f"{self.all_rows} WHERE {self._key} IN %s", (tuple(stored),)
        one = f"(SELECT {{}} AS found_key, {self._shard} AS shard_id FROM {self._table} "
        one += f"WHERE {self._key} = %s)"
        return " UNION ALL ".join([one.format(n) for n in range(len(stored))]), tuple(stored)

    def found(
        self, column: KeyColumn, stored: Sequence[StoredKey], rows: Iterable[Mapping[str, Any]]
    ) -> List[Optional[int]]:
        """The shard of each of the keys, in their order; None for one that has none.

        Raises:
            RoutingError: Rows disagree about the shard of a key.
        """
        shards: Dict[Any, int] = {}
        for row in rows:
            shard_id = row["shard_id"]
            key = row["found_key"]
            if shard_id is None:
                continue
            if shards.setdefault(key, int(shard_id)) != int(shard_id):
                key = stored[key] if column.kind is KeyKind.TEXT else key
                raise RoutingError(
                    f"{self.name} has rows for shards {shards[row['found_key']]} and {shard_id} "
                    f"with the key {key!r}: add a unique index on {self.key_column}"
                )
        names: Iterable[Any] = range(len(stored)) if column.kind is KeyKind.TEXT else stored
        return [shards.get(name) for name in names]

    @property
    def place(self) -> str:
        """Gives a key a shard unless it has one; of (key, shard, shard).

        The unique index decides between those who do so at the same time.
        """
        return (
            f"INSERT INTO {self._table} ({self._key}, {self._shard}) VALUES (%s, %s) "
            f"ON DUPLICATE KEY UPDATE {self._shard} = COALESCE({self._shard}, %s)"
        )

    @property
    def move(self) -> str:
        """Gives a key this shard, whatever it had; of (key, shard, shard)."""
        return (
            f"INSERT INTO {self._table} ({self._key}, {self._shard}) VALUES (%s, %s) "
            f"ON DUPLICATE KEY UPDATE {self._shard} = %s"
        )

    @property
    def switch(self) -> str:
        """Gives a key another shard if it has this one; of (shard, key, shard)."""
        return (
            f"UPDATE {self._table} SET {self._shard} = %s "
            f"WHERE {self._key} = %s AND {self._shard} = %s"
        )

    @property
    def delete(self) -> str:
        """Removes a key; of (key,)."""
        return f"DELETE FROM {self._table} WHERE {self._key} = %s"

    def place_many(self, shards: Mapping[int, int]) -> Tuple[str, Tuple[Any, ...]]:
        """Gives each of these keys a shard unless it has one."""
        values = ", ".join(["(%s, %s)"] * len(shards))
        text = (
            f"INSERT INTO {self._table} ({self._key}, {self._shard}) VALUES {values} "
            f"ON DUPLICATE KEY UPDATE {self._shard} = {self._shard}"
        )
        return text, tuple([each for pair in shards.items() for each in pair])


class AliasTable:
    """The table of aliases, with its statements."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._table = quoted(name)

    @property
    def ddl(self) -> str:
        """Makes the table."""
        return ALIAS_DDL.format(table=self._table)

    @property
    def lookup(self) -> str:
        """Finds a key; of (kind, alias)."""
        return f"SELECT key_value FROM {self._table} WHERE kind = %s AND alias = %s"

    @property
    def insert(self) -> str:
        """Adds an alias unless there is one; of (kind, alias, key)."""
        return (
            f"INSERT INTO {self._table} (kind, alias, key_value) VALUES (%s, %s, %s) "
            "ON DUPLICATE KEY UPDATE kind = kind"
        )

    @property
    def delete(self) -> str:
        """Removes an alias; of (kind, alias)."""
        return f"DELETE FROM {self._table} WHERE kind = %s AND alias = %s"

    @property
    def delete_of_key(self) -> str:
        """Removes all aliases of a key; of (key,)."""
        return f"DELETE FROM {self._table} WHERE key_value = %s"


def mapping_table(source: object) -> MappingTable:
    """The table of a source that has one."""
    if isinstance(source, HashBuckets):
        return MappingTable(source.table, "bucket", "shard_id")
    assert isinstance(source, LookupTable)
    return MappingTable(source.table, source.key_column, source.shard_column)


def ddl_of(source: object) -> str:
    """Makes the table of a source."""
    if isinstance(source, HashBuckets):
        return BUCKET_DDL.format(table=quoted(source.table))
    assert isinstance(source, LookupTable)
    return MAPPING_DDL.format(
        table=quoted(source.table),
        key=quoted(source.key_column),
        shard=quoted(source.shard_column),
    )


def alias_value(stored: StoredKey) -> bytes:
    """A stored key as the alias table keeps it."""
    return stored if isinstance(stored, bytes) else str(stored).encode()


def key_of_alias(value: Any, kind: KeyKind) -> StoredKey:
    """The key that the alias table keeps, as the lookup table stores it."""
    data: bytes = value.encode() if isinstance(value, str) else bytes(value)
    if kind is KeyKind.BINARY:
        return data
    return int(data) if kind is KeyKind.INTEGER else data.decode()
