"""What moves write into the databases: keys, conditions and triggers."""

import uuid
from typing import Any

import pytest

from dualdb import ParameterError
from dualdb.operations import TenantTable
from dualdb.operations import move_tables as names
from dualdb.operations.move import _below
from dualdb.operations.move_tables import Column, MovedTable
from dualdb.operations.tenant import checked

INT = Column("id", "int", "int(11)")
OWNER = Column("owner", "bigint", "bigint(20)")
CODE = Column("co`de", "varbinary", "varbinary(9)")
BILL = TenantTable("bill", "owner")
LINE = TenantTable("line", parent="bill", parent_column="bill_id")
PART = TenantTable("part", parent="line", parent_column="line_id", parent_key="no")


def table(*chain: TenantTable, key: Any = (INT,)) -> MovedTable:
    return MovedTable(chain[0], chain, "TRUE", (INT,), key, OWNER)


def test_a_parent_is_a_condition() -> None:
    bill, line, part = checked((BILL, LINE, PART), 1)
    assert bill is BILL
    inner = "`bill_id` IN (SELECT `id` FROM `bill` WHERE `owner` = %(key)s)"
    assert line.where == inner
    assert part.where == f"`line_id` IN (SELECT `no` FROM `line` WHERE {inner})"


def test_the_key_of_a_row_is_found_by_its_parents() -> None:
    assert names.find_key(table(BILL), "NEW", "k1") == "SET k1 = NEW.`owner`;"
    assert names.find_key(table(LINE, BILL), "OLD", "k1") == (
        "SELECT p1.`owner` INTO k1 FROM `bill` p1 WHERE p1.`id` = OLD.`bill_id` LOCK IN SHARE MODE;"
    )
    assert names.find_key(table(PART, LINE, BILL), "NEW", "k2") == (
        "SELECT p2.`owner` INTO k2 FROM `line` p1 JOIN `bill` p2 ON p2.`id` = p1.`bill_id` "
        "WHERE p1.`no` = NEW.`line_id` LOCK IN SHARE MODE;"
    )


def test_what_belongs_to_a_row_is_found_without_it() -> None:
    assert _below(table(LINE, BILL), table(BILL), [7, 8]) == "`bill_id` IN (7,8)"
    assert _below(table(PART, LINE, BILL), table(BILL), [7]) == (
        "`line_id` IN (SELECT `no` FROM `line` WHERE `bill_id` IN (7))"
    )
    assert _below(table(PART, LINE, BILL), table(LINE, BILL), ["a"]) == "`line_id` IN ('a')"


def test_texts_of_primary_keys() -> None:
    one = names.pk_expression((INT,), "NEW")
    assert one == "HEX(CONVERT(CAST(NEW.`id` AS CHAR) USING utf8mb4))"
    two = names.pk_expression((INT, CODE), "t")
    assert two == f"CONCAT_WS(',', {one.replace('NEW', 't')}, HEX(t.`co``de`))"
    assert names.pk_values((INT, CODE), b"2D37,00FF27") == (-7, b"\x00\xff'")
    text = Column("t", "varchar", "varchar(9)")
    assert names.pk_values((text,), "é".encode().hex().encode()) == ("é",)
    assert names.pk_values((text, text), b",") == ("", "")


def test_primary_keys_whose_texts_differ_between_sessions() -> None:
    stamp = Column("s", "timestamp", "timestamp(3)")
    assert "UNIX_TIMESTAMP(NEW.`s`)" in names.pk_expression((stamp,), "NEW")
    texts = ["1767225600.250", "1767225600", "0.000"]
    assert [names.pk_values((stamp,), text.encode().hex().encode()) for text in texts] == [
        ("2026-01-01 00:00:00.250",),
        ("2026-01-01 00:00:00",),
        ("0000-00-00 00:00:00",),
    ]
    assert names.pk_values((Column("b", "bit", "bit(9)"),), b"35") == (5,)


TEXT = Column("k", "varchar", "varchar(40)", "utf8mb4_bin")
UNPADDED = Column("k", "varchar", "varchar(40)", "utf8mb4_0900_bin")
BINARY = Column("k", "binary", "binary(16)")


def keyed(*columns: Column) -> Any:
    return [table(BILL)._replace(key_kind=column) for column in columns]


@pytest.mark.parametrize(
    ("column", "key", "stored", "expected"),
    [
        (OWNER, 7, 7, b"7"),
        (OWNER, "7", 7, b"7"),
        (OWNER, -7, -7, b"-7"),
        (TEXT, "é", "é", "é".encode()),
        (TEXT, 7, "7", b"7"),
        (TEXT, "a ", "a ", b"a"),
        (UNPADDED, "a ", "a ", b"a "),
        (TEXT, uuid.UUID(int=1), str(uuid.UUID(int=1)), str(uuid.UUID(int=1)).encode()),
        (BINARY, b"\x00", b"\x00", b"\x00"),
        (BINARY, uuid.UUID(int=1), uuid.UUID(int=1).bytes, b"\0" * 15 + b"\1"),
    ],
)
def test_keys_as_the_column_and_the_fence_have_them(
    column: Column, key: Any, stored: Any, expected: bytes
) -> None:
    assert names.column_key(column, key) == stored
    assert names.tenant_bytes(keyed(column), key) == expected


@pytest.mark.parametrize(
    ("column", "key"),
    [
        *[(OWNER, key) for key in (True, None, 1.5, (1,), "7a", "07", b"7", uuid.UUID(int=1))],
        *[(TEXT, key) for key in (True, None, 1.5, b"7")],
        *[(BINARY, key) for key in (True, None, 7, "7")],
    ],
)
def test_what_is_no_key(column: Column, key: Any) -> None:
    with pytest.raises(ParameterError):
        names.tenant_bytes(keyed(column), key)


def test_a_key_has_one_form_in_all_tables() -> None:
    assert names.tenant_bytes(keyed(OWNER, TEXT), 7) == b"7"
    with pytest.raises(ParameterError, match="different forms"):
        names.tenant_bytes(keyed(BINARY, TEXT), uuid.UUID(int=1))


@pytest.mark.parametrize(
    ("column", "taken"),
    [
        (OWNER, True),
        (Column("k", "binary", "binary(16)"), True),
        (Column("k", "varchar", "varchar(9)", "utf8mb4_bin"), True),
        (Column("k", "varchar", "varchar(9)", "utf8mb4_general_ci"), False),
        (Column("k", "char", "char(9)", "utf8mb4_0900_ai_ci"), False),
        (Column("k", "decimal", "decimal(9)"), False),
        (Column("k", "datetime", "datetime"), False),
    ],
)
def test_key_columns_whose_bytes_say_what_is_equal(column: Column, taken: bool) -> None:
    if taken:
        names.check_key_column("t", column)
        return
    with pytest.raises(ParameterError, match="are equal only if their bytes are"):
        names.check_key_column("t", column)


def test_triggers_are_named_by_what_they_do() -> None:
    made = names.triggers(table(BILL))
    assert [(each.timing, each.event) for each in made] == [
        (timing, event)
        for timing in ("BEFORE", "AFTER")
        for event in ("INSERT", "UPDATE", "DELETE")
    ]
    assert all(len(each.name) <= 64 for each in made)
    assert names.triggers(table(BILL)) == made
    other = names.triggers(table(TenantTable("bill", "payer")))
    assert not {each.name for each in other} & {each.name for each in made}
    before = [each.body for each in made if each.timing == "BEFORE"]
    after = [each.body for each in made if each.timing == "AFTER"]
    assert all("SIGNAL" in body and names.LOG not in body for body in before)
    assert all("SIGNAL" not in body and names.LOG in body for body in after)
    assert all("LOCK IN SHARE MODE" in each.body for each in made)


def test_values_are_read_without_a_loss() -> None:
    read = {
        kind: names.read_expression(Column("c", kind, kind))
        for kind in ("float", "double", "bit", "datetime", "decimal", "varchar", "blob", "int")
    }
    assert read == {
        "float": "`c` * 1e0", "double": "`c` * 1e0", "bit": "`c` + 0",
        "datetime": "CAST(`c` AS CHAR)", "decimal": "CAST(`c` AS CHAR)",
        "varchar": "`c`", "blob": "`c`", "int": "`c`",
    }  # fmt: skip
