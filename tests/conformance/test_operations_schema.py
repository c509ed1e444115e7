"""Drift between the schemas of shards: what is found, and what is no drift."""

from typing import Any, Iterator, List, Set, Tuple

import pytest

from dualdb import OperationalError

#: They make and compare many tables.
pytestmark = pytest.mark.slow

BASE = [
    "CREATE TABLE owner (id INT PRIMARY KEY, email VARCHAR(50)) ENGINE=InnoDB",
    """CREATE TABLE item (
        id BIGINT AUTO_INCREMENT PRIMARY KEY, owner_id INT NOT NULL, price DECIMAL(10,2) NOT NULL,
        note VARCHAR(40) DEFAULT 'none', state ENUM('new','old') NOT NULL DEFAULT 'new',
        made TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP,
        twice DECIMAL(11,2) AS (price * 2) VIRTUAL, data JSON,
        KEY by_note (note), KEY by_price (price, note(10)),
        CONSTRAINT owner_of FOREIGN KEY (owner_id) REFERENCES owner (id) ON DELETE CASCADE,
        CONSTRAINT positive CHECK (price >= 0)
    ) COMMENT 'things'""",
    "CREATE TRIGGER item_before BEFORE INSERT ON item FOR EACH ROW SET NEW.note = 'x'",
    "CREATE PROCEDURE total(IN p INT) SELECT SUM(price) FROM item WHERE owner_id = p",
    "CREATE FUNCTION double_of(n INT) RETURNS INT DETERMINISTIC RETURN n * 2",
    "CREATE VIEW cheap AS SELECT id, price FROM item WHERE price < 10",
    "CREATE EVENT clean ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM item WHERE price = 0",
]
DROP = [
    "DROP VIEW IF EXISTS cheap",
    "DROP EVENT IF EXISTS clean",
    "DROP FUNCTION IF EXISTS double_of",
    "DROP PROCEDURE IF EXISTS total",
    "DROP TABLE IF EXISTS extra",
    "DROP TABLE IF EXISTS item",
    "DROP TABLE IF EXISTS owner",
]


@pytest.fixture
def shards(databases: Any) -> Iterator[Any]:
    """Two shards with one schema, whose accounts see all of it."""
    user = databases.config.user
    is_mariadb = "MariaDB" in databases.value(1, "SELECT VERSION()")
    right = "SELECT ON mysql.proc" if is_mariadb else "SHOW_ROUTINE ON *.*"
    servers = databases.ids[:1] if databases.share_one_server else databases.ids
    databases.drop_leftovers()
    for shard in databases.ids:
        databases.run(shard, *DROP, *BASE)
    for shard in servers:
        databases.run(shard, f"GRANT {right} TO '{user}'@'%'")
    yield databases
    for shard in databases.ids:
        databases.run(shard, *DROP)
    for shard in servers:
        databases.run(shard, f"REVOKE {right} FROM '{user}'@'%'")


def drift(io: Any, db: Any, **arguments: Any) -> Set[Tuple[str, str, str]]:
    report = io(db.operations.schema_diff(**arguments))
    assert not report.errors
    assert {each.database for each in report.differences} <= {"2"}
    return {(each.kind, each.name, each.attribute) for each in report.differences}


def test_equal_shards_have_no_drift(db: Any, io: Any, shards: Any) -> None:
    shards.run(1, "INSERT INTO owner VALUES (1, 'a')")
    shards.run(1, "INSERT INTO item (id, owner_id, price) VALUES (500, 1, 2)")
    shards.run(1, "ANALYZE TABLE item", "ALTER TABLE item ENGINE=InnoDB")
    report = io(db.operations.schema_diff())
    assert report.differences == ()
    assert (report.ok, report.reference, report.compared) == (True, "1", ("2",))


SEEDED: List[Tuple[str, List[str], Set[Tuple[str, str, str]]]] = [
    ("table", ["CREATE TABLE extra (id INT PRIMARY KEY)"], {("table", "extra", "exists")}),
    ("engine", ["ALTER TABLE owner ENGINE=MyISAM"], set()),
    ("column", ["ALTER TABLE item ADD COLUMN more INT"], {("column", "item.more", "exists")}),
    (
        "type",
        ["ALTER TABLE item MODIFY price DECIMAL(12,2) NOT NULL"],
        {("column", "item.price", "type")},
    ),
    (
        "nullable",
        ["ALTER TABLE owner MODIFY email VARCHAR(50) NOT NULL"],
        {("column", "owner.email", "nullable")},
    ),
    (
        "default",
        ["ALTER TABLE item ALTER note SET DEFAULT 'None'"],
        {("column", "item.note", "default")},
    ),
    (
        "enum",
        ["ALTER TABLE item MODIFY state ENUM('new','old','x') NOT NULL DEFAULT 'new'"],
        {("column", "item.state", "type")},
    ),
    (
        "collation",
        ["ALTER TABLE owner MODIFY email VARCHAR(50) COLLATE utf8mb4_bin"],
        {("column", "owner.email", "collation")},
    ),
    ("index", ["ALTER TABLE item DROP INDEX by_note"], {("index", "item.by_note", "exists")}),
    (
        "unique",
        ["ALTER TABLE item DROP INDEX by_note, ADD UNIQUE by_note (note)"],
        {("index", "item.by_note", "unique")},
    ),
    (
        "prefix",
        ["ALTER TABLE item DROP INDEX by_price, ADD INDEX by_price (price, note(5))"],
        {("index", "item.by_price", "columns")},
    ),
    (
        "foreign key",
        [
            "ALTER TABLE item DROP FOREIGN KEY owner_of",
            "ALTER TABLE item ADD CONSTRAINT owner_of FOREIGN KEY (owner_id) "
            "REFERENCES owner (id) ON DELETE RESTRICT",
        ],
        {("foreign key", "item.owner_of", "on_delete")},
    ),
    (
        "check",
        [
            "ALTER TABLE item DROP CONSTRAINT positive",
            "ALTER TABLE item ADD CONSTRAINT positive CHECK (price > 0)",
        ],
        {("check", "item.positive", "clause")},
    ),
    (
        "trigger",
        [
            "DROP TRIGGER item_before",
            "CREATE TRIGGER item_before BEFORE INSERT ON item FOR EACH ROW SET NEW.note = 'y'",
        ],
        {("trigger", "item_before", "body")},
    ),
    (
        "procedure",
        [
            "DROP PROCEDURE total",
            "CREATE PROCEDURE total(IN p INT) SELECT SUM(price) FROM item WHERE owner_id = p + 0",
        ],
        {("procedure", "total", "body")},
    ),
    (
        "parameters",
        [
            "DROP PROCEDURE total",
            "CREATE PROCEDURE total(IN p BIGINT) SELECT SUM(price) FROM item WHERE owner_id = p",
        ],
        {("procedure", "total", "parameters")},
    ),
    (
        "function",
        [
            "DROP FUNCTION double_of",
            "CREATE FUNCTION double_of(n INT) RETURNS INT DETERMINISTIC RETURN n * 3",
        ],
        {("function", "double_of", "body")},
    ),
    (
        "sql_mode",
        [
            "SET SESSION sql_mode = 'ANSI_QUOTES'",
            "DROP PROCEDURE total",
            "CREATE PROCEDURE total(IN p INT) SELECT SUM(price) FROM item WHERE owner_id = p",
        ],
        {("procedure", "total", "sql_mode")},
    ),
    (
        "view",
        ["CREATE OR REPLACE VIEW cheap AS SELECT id, price FROM item WHERE price < 11"],
        {("view", "cheap", "body")},
    ),
    (
        "event",
        ["ALTER EVENT clean ON SCHEDULE EVERY 2 DAY"],
        {("event", "clean", "interval_value")},
    ),
    ("comment", ["ALTER TABLE item COMMENT 'other'"], {("table", "item", "comment")}),
    (
        "generated",
        [
            "ALTER TABLE item DROP COLUMN twice",
            "ALTER TABLE item ADD COLUMN twice DECIMAL(11,2) AS (price * 3) VIRTUAL AFTER made",
        ],
        {("column", "item.twice", "generated")},
    ),
]


@pytest.mark.parametrize(
    ("statements", "expected"),
    [pytest.param(each[1], each[2], id=each[0]) for each in SEEDED if each[2]],
)
def test_seeded_drift_is_found(
    db: Any, io: Any, shards: Any, statements: List[str], expected: Set[Tuple[str, str, str]]
) -> None:
    shards.run(2, *statements)
    assert drift(io, db) == expected


def test_the_character_set_of_a_database_and_a_table_is_compared(
    db: Any, io: Any, shards: Any
) -> None:
    name = shards.value(2, "SELECT DATABASE()")
    before = shards.value(2, "SELECT @@collation_database")
    try:
        shards.run(2, f"ALTER DATABASE `{name}` CHARACTER SET latin1")
        assert ("database", "default", "charset") in drift(io, db)
    finally:
        shards.run(2, f"ALTER DATABASE `{name}` COLLATE {before}")
    shards.run(2, "ALTER TABLE owner DEFAULT COLLATE utf8mb4_bin")
    assert ("table", "owner", "collation") in drift(io, db)


def test_kinds_attributes_and_tables_can_be_left_out(db: Any, io: Any, shards: Any) -> None:
    shards.run(2, "ALTER TABLE item COMMENT 'other', ADD COLUMN more INT", "DROP EVENT clean")
    shards.run(2, "DROP TRIGGER item_before")
    assert drift(io, db, ignore=["event", "table.comment"], ignore_tables=["it*"]) == set()
    assert drift(io, db, ignore=["event", "trigger"]) == {
        ("table", "item", "comment"),
        ("column", "item.more", "exists"),
    }


def test_a_missing_table_is_one_difference(db: Any, io: Any, shards: Any) -> None:
    shards.run(2, "DROP TABLE item")
    found = drift(io, db, ignore=["trigger", "view"])
    assert found == {("table", "item", "exists")}


def test_the_reference_can_be_named(db: Any, io: Any, shards: Any) -> None:
    shards.run(1, "DROP EVENT clean")
    report = io(db.operations.schema_diff(reference=2))
    (found,) = report.differences
    assert (report.reference, report.compared) == ("2", ("1",))
    assert (found.database, found.kind, found.expected, found.found) == ("1", "event", "yes", "no")


def test_what_the_account_may_not_see_is_not_called_equal(db: Any, io: Any, shards: Any) -> None:
    name = shards.value(2, "SELECT DATABASE()")
    shards.run(
        2,
        "CREATE USER IF NOT EXISTS 'blind'@'%' IDENTIFIED BY 'secret-1'",
        f"GRANT SELECT ON `{name}`.* TO 'blind'@'%'",
    )
    try:
        shards.set_row(2, username="blind", password="secret-1")
        io(db.refresh())
        report = io(db.operations.schema_diff())
        hidden = {each.name for each in report.differences if each.kind == "visibility"}
        assert {"triggers", "events", "views"} <= hidden
        assert not report.ok
    finally:
        shards.run(2, "DROP USER 'blind'@'%'")


def test_a_database_that_cannot_be_read_is_reported(db: Any, io: Any, shards: Any) -> None:
    shards.set_row(2, password="wrong")
    io(db.refresh())
    report = io(db.operations.schema_diff())
    assert (list(report.errors), report.ok) == (["2"], False)
    with pytest.raises(OperationalError, match="reference 2"):
        io(db.operations.schema_diff(reference=2))
