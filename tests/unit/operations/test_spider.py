"""The DDL of a Spider head."""

from typing import Any, Dict, List

import pytest

from dualdb import DatabaseConfig, ParameterError
from dualdb.operations.spider import Column, Index, SpiderDDL, Table, spider_ddl, tables_of

TRADES = Table(
    "trades",
    (
        Column("shard_id", "int(11)", nullable=False),
        Column("odd`name", "varchar(9)", True, "utf8mb4", "utf8mb4_bin"),
    ),
    (Index("PRIMARY", (("shard_id", None),), unique=True), Index("part", (("odd`name", 3),))),
)


def config(**changes: Any) -> DatabaseConfig:
    fields = {"host": "db1", "database": "app", "user": "u", "password": "it's\\", **changes}
    return DatabaseConfig(**fields)


def made(table: Table = TRADES, **options: Any) -> SpiderDDL:
    shards = {1: config(), 2: config(host="db2", port=3307)}
    definitions = {shard_id: {table.name: table} for shard_id in shards}
    return spider_ddl(shards, definitions, [table.name], **options)


def test_a_server_for_each_shard_without_its_password() -> None:
    report = made(head_user="o'reader")
    assert report.statements[:2] == (
        "CREATE SERVER `dualdb_shard_1` FOREIGN DATA WRAPPER mysql OPTIONS "
        "(HOST 'db1', PORT 3306, DATABASE 'app', USER 'o''reader')",
        "CREATE SERVER `dualdb_shard_2` FOREIGN DATA WRAPPER mysql OPTIONS "
        "(HOST 'db2', PORT 3307, DATABASE 'app', USER 'o''reader')",
    )
    assert "PASSWORD" not in "".join(report.statements)
    assert any("ALTER SERVER" in note for note in report.notes)


def test_passwords_on_demand_are_quoted() -> None:
    assert "PASSWORD 'it''s\\\\')" in made(passwords=True).statements[0]
    with pytest.raises(ParameterError, match="another account"):
        made(passwords=True, head_user="reader")


def test_what_the_head_does_otherwise_than_the_service_is_noted() -> None:
    shards = {1: config(ssl_mode="verify_identity"), 2: config(unix_socket="/run/s")}
    definitions = {shard_id: {"trades": TRADES} for shard_id in shards}
    notes = spider_ddl(shards, definitions, ["trades"]).notes
    assert [note[:30] for note in notes if note.startswith("shard")] == [
        "shard 1: the head uses no TLS ",
        "shard 2: its socket is a file ",
    ]
    assert not any(note.startswith("shard") for note in made().notes)


def test_without_a_column_a_view_of_all_shards() -> None:
    *_, first, second, view = made().statements
    assert first == (
        "CREATE TABLE `trades_shard_1` (\n"
        "  `shard_id` int(11) NOT NULL,\n"
        "  `odd``name` varchar(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,\n"
        "  PRIMARY KEY (`shard_id`),\n"
        "  KEY `part` (`odd``name`(3))\n"
        ') ENGINE=SPIDER COMMENT=\'wrapper "mysql", srv "dualdb_shard_1", table "trades"\''
    )
    assert 'srv "dualdb_shard_2"' in second
    assert view == (
        "CREATE VIEW `trades` AS SELECT `shard_id`, `odd``name` FROM `trades_shard_1`\n"
        "UNION ALL SELECT `shard_id`, `odd``name` FROM `trades_shard_2`"
    )


def test_partitions_by_the_column_of_the_shard_id() -> None:
    table = made(by="shard_id").statements[-1]
    assert "KEY `dualdb_primary` (`shard_id`)" in table
    assert "UNIQUE" not in table
    assert "PRIMARY KEY" not in table
    assert table.endswith(
        "PARTITION BY LIST (`shard_id`) (\n"
        "  PARTITION `shard_1` VALUES IN (1) COMMENT = 'srv \"dualdb_shard_1\"',\n"
        "  PARTITION `shard_2` VALUES IN (2) COMMENT = 'srv \"dualdb_shard_2\"'\n)"
    )


def test_what_is_left_out_is_named() -> None:
    columns = (*TRADES.columns, Column("twice", "int(11)", generated=True))
    indexes = (
        Index("words", (("odd`name", None),), type="FULLTEXT"),
        Index("sum", ((None, None),)),
    )
    report = made(TRADES._replace(columns=columns, indexes=indexes, foreign_keys=("owner_of",)))
    notes = "\n".join(report.notes)
    assert "trades: foreign key owner_of is left out" in notes
    assert "trades: twice is generated on the shards, and plain on the head" in notes
    assert "trades: index words is left out (FULLTEXT)" in notes
    assert "trades: index sum is left out (it has an expression)" in notes
    text = "".join(report.statements)
    assert "`twice` int(11) NULL" in text
    assert "owner_of" not in text
    assert "KEY" not in text


def test_a_database_of_two_shards_is_counted_once() -> None:
    shards = {1: config(), 2: config()}
    report = spider_ddl(shards, {1: {"trades": TRADES}, 2: {"trades": TRADES}}, ["trades"])
    assert "trades_shard_2" not in "".join(report.statements)
    assert "shard 2 is left out: it is the database of shard 1" in report.notes


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"name": 'a"b'}, {}, "a character that Spider cannot take"),
        ({"name": "t" * 60}, {}, "too long"),
        ({}, {"by": "user_id"}, "no column 'user_id'"),
        ({}, {"by": "odd`name"}, "must be an integer and NOT NULL"),
        (
            {"columns": (Column("a", "text", True, "utf8mb4", "utf8mb4_0900_ai_ci"),)},
            {},
            "trades.a has the collation utf8mb4_0900_ai_ci",
        ),
    ],
)
def test_what_cannot_be_mapped(
    change: Dict[str, Any], options: Dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        made(TRADES._replace(**change), **options)


def test_shards_that_cannot_be_mapped() -> None:
    with pytest.raises(ParameterError, match="no usable shard"):
        spider_ddl({}, {}, ["trades"])
    with pytest.raises(ParameterError, match="no table is named"):
        spider_ddl({1: config()}, {1: {}}, [])
    with pytest.raises(ParameterError, match="shard 1 has no table 'trades'"):
        spider_ddl({1: config()}, {1: {}}, ["trades"])
    with pytest.raises(ParameterError, match="shard 1 has several hosts"):
        spider_ddl({1: config(host="n1,n2")}, {1: {}}, ["trades"])
    other = TRADES._replace(columns=TRADES.columns[:1])
    shards = {1: config(), 2: config(host="db2")}
    with pytest.raises(ParameterError, match="other columns on shard 2 than on shard 1"):
        spider_ddl(shards, {1: {"trades": TRADES}, 2: {"trades": other}}, ["trades"])


def test_definitions_are_read_from_information_schema() -> None:
    column = {
        "TABLE_NAME": "t", "COLUMN_NAME": "c", "COLUMN_TYPE": b"int", "IS_NULLABLE": "NO",
        "CHARACTER_SET_NAME": None, "COLLATION_NAME": None, "EXTRA": "",
    }  # fmt: skip
    generated = {**column, "COLUMN_NAME": "g", "EXTRA": "STORED GENERATED"}
    default = {**column, "COLUMN_NAME": "d", "EXTRA": "DEFAULT_GENERATED"}
    index = {
        "TABLE_NAME": "t", "INDEX_NAME": "i", "COLUMN_NAME": "c", "NON_UNIQUE": 0,
        "SUB_PART": None, "INDEX_TYPE": "BTREE",
    }  # fmt: skip
    indexes: List[Dict[str, Any]] = [index, {**index, "COLUMN_NAME": "g"}]
    keys = [{"TABLE_NAME": "t", "CONSTRAINT_NAME": "fk"}]
    (table,) = tables_of([column, generated, default], indexes, keys).values()
    assert table.columns[0] == Column("c", "int", nullable=False)
    assert [each.generated for each in table.columns] == [False, True, False]
    assert table.indexes == (Index("i", (("c", None), ("g", None)), unique=True),)
    assert table.foreign_keys == ("fk",)
