"""Migrations as files, and what is still to be done with them."""

from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from dualdb.operations import MigrationError, MigrationState, migration_files, script
from dualdb.operations.migration_files import Record, category

FILES = {
    "001_a.sql": "CREATE TABLE a (id INT); -- first\nINSERT INTO a VALUES (1);",
    "001_a.down.sql": "DROP TABLE a",
    "2_b-more.sql": "CREATE TABLE b (id INT)",
    "010_c.sql": "CREATE TABLE c (id INT)",
}


def record(version: int, state: str = "applied", **changes: Any) -> Record:
    migration = next(
        (each for each in migration_files.read(FILES) if each.version == version),
        migration_files.Migration(version, "x", ("SELECT 1",)),
    )
    count = len(migration.up)
    prefix = script.digest(migration.up)
    made = Record(version, migration.name, state, migration.checksum, count, count, prefix)
    return made._replace(**changes)


def known(*records: Record) -> Dict[int, Record]:
    return {each.version: each for each in records}


def test_files_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "README.md").write_text("no migration")
    found = migration_files.read(tmp_path)
    assert [(each.version, each.name) for each in found] == [(1, "a"), (2, "b-more"), (10, "c")]
    assert found[0].up == ("CREATE TABLE a (id INT)", "INSERT INTO a VALUES (1)")
    assert found[0].down == ("DROP TABLE a",)
    assert found[1].down is None
    assert found == migration_files.read(FILES)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no file"),
        ({"a.sql": "SELECT 1"}, "is not named"),
        ({"1_a.sql": "SELECT 1", "01_b.sql": "SELECT 1"}, "two files with the number 1"),
        ({"1_a.down.sql": "SELECT 1"}, "takes back"),
        ({"1_a.sql": "-- nothing"}, "no statement"),
        ({"1_a.sql": "SELECT 'a"}, "1_a.sql: line 1"),
        ({"1_a.sql": "\nSTART TRANSACTION; COMMIT"}, "1_a.sql, line 2: START"),
        ({"1_a.sql": "USE other"}, "USE"),
        ({"1_a.sql": "LOCK TABLES a WRITE"}, "LOCK"),
    ],
)
def test_files_that_cannot_be_used_are_refused(files: Dict[str, str], message: str) -> None:
    with pytest.raises(MigrationError, match=message):
        migration_files.read(files)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="not a folder"):
        migration_files.read(tmp_path / "x")


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("INSERT INTO a VALUES (1)", "transactional"),
        ("/* c */ delete from a", "transactional"),
        ("CREATE TABLE a (id INT)", "schema"),
        ("ALTER TABLE a ADD b INT", "schema"),
        ("RENAME TABLE a TO b", "schema"),
        ("CREATE USER a", "other"),
        ("DROP ROLE a", "other"),
        ("GRANT SELECT ON *.* TO a", "repeatable"),
        ("SET @a = 1", "repeatable"),
        ("TRUNCATE a", "repeatable"),
        ("CALL p()", "other"),
        ("LOAD DATA INFILE 'x' INTO TABLE a", "other"),
    ],
)
def test_statements_have_a_category(statement: str, expected: str) -> None:
    assert category(statement) == expected


def test_only_drops_of_several_are_not_atomic() -> None:
    assert not migration_files.is_atomic("DROP TABLE a, b")
    assert not migration_files.is_atomic("drop view if exists a, b")
    assert migration_files.is_atomic("DROP TABLE a")
    assert migration_files.is_atomic("ALTER TABLE a DROP b, DROP c")


@pytest.mark.parametrize(
    ("records", "to", "versions"),
    [
        ([], None, [1, 2, 10]),
        ([], 2, [1, 2]),
        ([], 0, []),
        ([record(1)], None, [2, 10]),
        ([record(1), record(2, "applying", completed=0)], None, [2, 10]),
        ([record(1), record(2), record(10)], None, []),
    ],
)
def test_what_is_pending_is_applied_in_order(
    records: List[Record], to: Optional[int], versions: List[int]
) -> None:
    found = migration_files.next_up(migration_files.read(FILES), known(*records), to)
    assert [each.version for each in found] == versions


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([record(1, checksum="x")], "changed after it was applied"),
        ([record(7)], "its file is missing"),
        ([record(10)], "older than 10"),
        ([record(1), record(2, "reverting")], "being taken back"),
    ],
)
def test_what_does_not_fit_is_refused(records: List[Record], message: str) -> None:
    with pytest.raises(MigrationError, match=message):
        migration_files.next_up(migration_files.read(FILES), known(*records))


def test_a_changed_file_that_is_not_applied_yet_is_taken_as_it_is() -> None:
    records = known(record(1), record(2, "applying", completed=0, checksum="x"))
    found = migration_files.next_up(migration_files.read(FILES), records)
    assert [each.version for each in found] == [2, 10]


def test_what_is_taken_back_is_the_newest_first() -> None:
    migrations = migration_files.read(FILES)
    assert [m.version for m in migration_files.next_down(migrations, known(record(1)), 0)] == [1]
    assert migration_files.next_down(migrations, known(record(1)), 1) == []
    with pytest.raises(MigrationError, match=r"2_b-more\.down\.sql"):
        migration_files.next_down(migrations, known(record(1), record(2)), 0)
    with pytest.raises(MigrationError, match="being applied"):
        migration_files.next_down(migrations, known(record(1, "applying")), 0)


def test_statements_that_were_performed_may_not_change() -> None:
    up = migration_files.read(FILES)[0].up
    begun = record(1, "applying", completed=1, prefix=script.digest(up[:1]))
    migration_files.check_prefix(begun, up)
    migration_files.check_prefix(begun, (up[0], "SELECT 'mended'"))
    sent = begun._replace(sent=script.digest(up[1:]))
    migration_files.check_prefix(sent, up)
    for found, statements in ((begun, ("SELECT 1", up[1])), (sent, (up[0], "x")), (begun, ())):
        with pytest.raises(MigrationError, match="were performed"):
            migration_files.check_prefix(found, statements)


def test_the_state_of_each_is_known() -> None:
    records = known(
        record(1, checksum="x"),
        record(2, "applying", completed=0),
        record(10, "applying", completed=0, sent="x"),
        record(11),
    )
    found = migration_files.statuses(migration_files.read(FILES), records)
    assert [(each.version, each.state) for each in found] == [
        (1, MigrationState.CHANGED),
        (2, MigrationState.BEGUN),
        (10, MigrationState.IN_DOUBT),
        (11, MigrationState.MISSING),
    ]
    (pending, *_) = migration_files.statuses(migration_files.read(FILES), {})
    assert (pending.state, pending.statements) == (MigrationState.PENDING, 2)


def test_settings_of_the_session_are_known() -> None:
    assert migration_files.setting("SET @a = 1")
    assert migration_files.setting("set foreign_key_checks = 0")
    assert not migration_files.setting("SET GLOBAL x = 1")
    assert not migration_files.setting("INSERT INTO a SET b = 1")
