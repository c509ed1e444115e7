"""The DDL of a Spider head: a server that queries all shards as one database."""

import dataclasses
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .. import errors
from ..config import DatabaseConfig
from ..execution import steps
from ..sql.identifiers import LONGEST_NAME, quoted
from ..topology.shard_map import database_of
from . import rollout
from .places import Databases, Session, text_of
from .reports import Report

_COLUMNS = (
    "SELECT TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, CHARACTER_SET_NAME, "
    "COLLATION_NAME, EXTRA FROM information_schema.COLUMNS "
    "WHERE TABLE_SCHEMA = DATABASE() ORDER BY TABLE_NAME, ORDINAL_POSITION"
)
_INDEXES = (
    "SELECT TABLE_NAME, INDEX_NAME, COLUMN_NAME, NON_UNIQUE, SUB_PART, INDEX_TYPE "
    "FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() "
    "ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"
)
_FOREIGN_KEYS = (
    "SELECT DISTINCT TABLE_NAME, CONSTRAINT_NAME FROM information_schema.KEY_COLUMN_USAGE "
    "WHERE TABLE_SCHEMA = DATABASE() AND REFERENCED_TABLE_NAME IS NOT NULL "
    "ORDER BY TABLE_NAME, CONSTRAINT_NAME"
)

_INTEGERS = ("tinyint", "smallint", "mediumint", "int", "bigint")


class Column(NamedTuple):
    """A column, as a head needs it: defaults are the shards' matter."""

    name: str
    type: str
    nullable: bool = True
    charset: Optional[str] = None
    collation: Optional[str] = None
    generated: bool = False


class Index(NamedTuple):
    """An index: its columns, each with the length of its prefix or None."""

    name: str
    columns: Tuple[Tuple[Optional[str], Optional[int]], ...]
    unique: bool = False
    type: str = "BTREE"


class Table(NamedTuple):
    """A table of a shard."""

    name: str
    columns: Tuple[Column, ...]
    indexes: Tuple[Index, ...] = ()
    foreign_keys: Tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class SpiderDDL(Report):
    """What makes a server a head for the shards.

    Attributes:
        statements: For the head, in their order.
        notes: What was left out, and what must be done besides.
        errors: Why a shard could not be read, by database. The head lacks its rows.
    """

    statements: Tuple[str, ...]
    notes: Tuple[str, ...]
    errors: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the head has the rows of all shards."""
        return not self.errors


def read_tables(session: Session) -> steps.Plan[Dict[str, Table]]:
    """Read the tables of a session's database."""
    columns = yield from session.query(_COLUMNS)
    indexes = yield from session.query(_INDEXES)
    foreign_keys = yield from session.query(_FOREIGN_KEYS)
    return tables_of(columns, indexes, foreign_keys)


Rows = Sequence[Mapping[str, Any]]


def tables_of(columns: Rows, indexes: Rows, foreign_keys: Rows) -> Dict[str, Table]:
    """The tables that the rows of information_schema describe, by name."""
    found: Dict[str, List[Column]] = {}
    for row in columns:
        found.setdefault(row["TABLE_NAME"], []).append(
            Column(
                row["COLUMN_NAME"],
                text_of(row["COLUMN_TYPE"]),
                row["IS_NULLABLE"] == "YES",
                row["CHARACTER_SET_NAME"],
                row["COLLATION_NAME"],
                # MySQL calls an expression as a default DEFAULT_GENERATED.
                any(word in str(row["EXTRA"]).upper() for word in ("VIRTUAL", "STORED")),
            )
        )
    made: Dict[Tuple[str, str], Index] = {}
    for row in indexes:
        key = (row["TABLE_NAME"], row["INDEX_NAME"])
        unique = not int(row["NON_UNIQUE"])
        index = made.get(key, Index(key[1], (), unique, row["INDEX_TYPE"]))
        part = (row["COLUMN_NAME"], row["SUB_PART"])
        made[key] = index._replace(columns=(*index.columns, part))
    return {
        name: Table(
            name,
            tuple(parts),
            tuple([index for (table, _), index in made.items() if table == name]),
            tuple([r["CONSTRAINT_NAME"] for r in foreign_keys if r["TABLE_NAME"] == name]),
        )
        for name, parts in found.items()
    }


def spider_ddl(
    shards: Mapping[int, DatabaseConfig],
    definitions: Mapping[int, Mapping[str, Table]],
    tables: Sequence[str],
    *,
    by: Optional[str] = None,
    head_user: Optional[str] = None,
    passwords: bool = False,
) -> SpiderDDL:
    """Make the DDL of a Spider head for tables of the shards.

    Args:
        shards: How each shard is reached, by its id.
        definitions: The tables of each shard, by name.
        tables: The names of the tables.
        by: The column that holds the id of the shard in each row: the tables are
            partitioned by it. None makes one table for each shard, and a view of all.
        head_user: The account of the head on the shards, if not the configured one.
        passwords: Put the passwords of the shards in.

    Returns:
        The statements and what they leave out.

    Raises:
        ParameterError: Something cannot be mapped; the message says what.

    Example:
        >>> spider_ddl(shards, definitions, ["trades"]).statements[0]
        "CREATE SERVER `dualdb_shard_1` FOREIGN DATA WRAPPER mysql OPTIONS (...)"
    """
    if head_user is not None and passwords:
        raise errors.ParameterError("the password of another account is not known here")
    if not tables:
        raise errors.ParameterError("no table is named")
    notes: List[str] = []
    used = _distinct(shards, notes)
    statements = [_server(number, shards[number], head_user, passwords) for number in used]
    for number in used:
        notes.extend(_about_connection(number, shards[number]))
    if not passwords:
        notes.append(
            "passwords are left out; on the head, for each server: "
            "ALTER SERVER name OPTIONS (PASSWORD '...')"
        )
    for name in dict.fromkeys(tables):
        table = _same_everywhere(name, used, definitions)
        notes.extend(_left_out(table))
        if by is None:
            statements += _table_per_shard(table, used)
        else:
            statements.append(_partitioned(table, used, by))
    return SpiderDDL(tuple(statements), tuple(notes))


def run(
    databases: Databases,
    tables: Sequence[str],
    by: Optional[str],
    head_user: Optional[str],
    passwords: bool,
) -> steps.Plan[SpiderDDL]:
    """Read the definitions from all shards, and make the DDL for those that could be
    read.
    """
    places = databases.chosen("all")
    found = yield from databases.on_each(places, read_tables)
    definitions: Dict[int, Mapping[str, Table]] = {}
    shards: Dict[int, DatabaseConfig] = {}
    failed: Dict[str, str] = {}
    for place, result in found:
        assert place.shard_id is not None
        if isinstance(result, Exception):
            failed[place.name] = rollout.message(result)
            continue
        definitions[place.shard_id] = result
        shards[place.shard_id] = place.usable()
    if failed and not shards:
        return SpiderDDL((), (), failed)
    made = spider_ddl(shards, definitions, tables, by=by, head_user=head_user, passwords=passwords)
    lacking = tuple(f"{each.label} is left out: it could not be read" for each in places
                    if each.name in failed)  # fmt: skip
    return dataclasses.replace(made, notes=(*lacking, *made.notes), errors=failed)


def _distinct(shards: Mapping[int, DatabaseConfig], notes: List[str]) -> List[int]:
    """The shards whose databases differ: rows are to be counted once."""
    seen: Dict[Any, int] = {}
    for number, config in sorted(shards.items()):
        if len(config.hosts) > 1:
            raise errors.ParameterError(
                f"shard {number} has several hosts, and a server of Spider has one"
            )
        first = seen.setdefault(database_of(config), number)
        if first != number:
            notes.append(f"shard {number} is left out: it is the database of shard {first}")
    if not seen:
        raise errors.ParameterError("the shard table has no usable shard")
    return list(seen.values())


def _server(number: int, config: DatabaseConfig, account: Optional[str], passwords: bool) -> str:
    if config.unix_socket is not None:
        options = [f"SOCKET {_string(config.unix_socket)}"]
    else:
        ((host, port),) = config.hosts
        options = [f"HOST {_string(host)}", f"PORT {port}"]
    options += [
        f"DATABASE {_string(config.database)}",
        f"USER {_string(config.user if account is None else account)}",
    ]
    if passwords:
        options.append(f"PASSWORD {_string(config.reveal_password())}")
    return (
        f"CREATE SERVER {quoted(_server_name(number))} FOREIGN DATA WRAPPER mysql "
        f"OPTIONS ({', '.join(options)})"
    )


def _about_connection(number: int, config: DatabaseConfig) -> Iterator[str]:
    """What the head would do otherwise than this service does."""
    if config.unix_socket is not None:
        yield f"shard {number}: its socket is a file of the machine that the head is on"
    if config.ssl_mode not in ("disabled", "preferred"):
        yield (
            f"shard {number}: the head uses no TLS (here: {config.ssl_mode}) unless the COMMENT of "
            "its tables names ssl_ca, ssl_cert and ssl_key, files of the head"
        )


def _same_everywhere(
    name: str, used: Sequence[int], definitions: Mapping[int, Mapping[str, Table]]
) -> Table:
    for number in used:
        if name not in definitions[number]:
            raise errors.ParameterError(f"shard {number} has no table {name!r}")
    first = definitions[used[0]][name]
    for number in used[1:]:
        if definitions[number][name].columns != first.columns:
            raise errors.ParameterError(
                f"table {name!r} has other columns on shard {number} than on shard {used[0]}"
            )
    for column in first.columns:
        if "_0900_" in (column.collation or ""):
            raise errors.ParameterError(
                f"column {name}.{column.name} has the collation {column.collation}, which "
                "MariaDB does not have"
            )
    if set(name) & set("\"'\\"):
        raise errors.ParameterError(f"the name {name!r} has a character that Spider cannot take")
    return first


def _left_out(table: Table) -> List[str]:
    notes = [f"{table.name}: foreign key {name} is left out" for name in table.foreign_keys]
    notes += [
        f"{table.name}: {column.name} is generated on the shards, and plain on the head"
        for column in table.columns
        if column.generated
    ]
    notes += [
        f"{table.name}: index {index.name} is left out ({_kind(index)})"
        for index in table.indexes
        if not _usable(index)
    ]
    return notes


def _usable(index: Index) -> bool:
    return index.type == "BTREE" and all(column is not None for column, _ in index.columns)


def _kind(index: Index) -> str:
    return index.type if index.type != "BTREE" else "it has an expression"


def _definition(table: Table, *, unique: bool) -> str:
    lines = []
    for column in table.columns:
        words = [quoted(column.name), column.type]
        if column.charset is not None and not column.type.lower().startswith("json"):
            words.append(f"CHARACTER SET {column.charset} COLLATE {column.collation}")
        words.append("NULL" if column.nullable else "NOT NULL")
        lines.append(" ".join(words))
    for index in filter(_usable, table.indexes):
        parts = [
            quoted(str(name)) + (f"({length})" if length else "") for name, length in index.columns
        ]
        lines.append(f"{_key(index, unique)} ({', '.join(parts)})")
    return ",\n  ".join(lines)


def _key(index: Index, unique: bool) -> str:
    if index.name == "PRIMARY":
        return "PRIMARY KEY" if unique else "KEY `dualdb_primary`"
    return f"{'UNIQUE ' if unique and index.unique else ''}KEY {quoted(index.name)}"


def _partitioned(table: Table, used: Sequence[int], by: str) -> str:
    columns = {column.name: column for column in table.columns}
    if by not in columns:
        raise errors.ParameterError(f"table {table.name!r} has no column {by!r}")
    if columns[by].nullable or not columns[by].type.lower().startswith(_INTEGERS):
        raise errors.ParameterError(
            f"column {table.name}.{by} must be an integer and NOT NULL: it holds the shard's id"
        )
    partitions = ",\n  ".join(
        f"PARTITION {quoted(f'shard_{number}')} VALUES IN ({number}) "
        f"COMMENT = 'srv \"{_server_name(number)}\"'"
        for number in used
    )
    # A unique key would need the column in it, and a head that only reads needs none.
    return (
        f"CREATE TABLE {quoted(table.name)} (\n  {_definition(table, unique=False)}\n) "
        f'ENGINE=SPIDER COMMENT=\'wrapper "mysql", table "{table.name}"\'\n'
        f"PARTITION BY LIST ({quoted(by)}) (\n  {partitions}\n)"
    )


def _table_per_shard(table: Table, used: Sequence[int]) -> List[str]:
    statements = []
    for number in used:
        name = f"{table.name}_shard_{number}"
        if len(name) > LONGEST_NAME:
            raise errors.ParameterError(f"{name!r} is too long for the name of a table")
        statements.append(
            f"CREATE TABLE {quoted(name)} (\n  {_definition(table, unique=True)}\n) "
            f'ENGINE=SPIDER COMMENT=\'wrapper "mysql", srv "{_server_name(number)}", '
            f'table "{table.name}"\''
        )
    columns = ", ".join([quoted(column.name) for column in table.columns])
    selects = "\nUNION ALL ".join(
        f"SELECT {columns} FROM {quoted(f'{table.name}_shard_{number}')}" for number in used
    )
    statements.append(f"CREATE VIEW {quoted(table.name)} AS {selects}")
    return statements


def _server_name(number: int) -> str:
    return f"dualdb_shard_{number}"


def _string(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
