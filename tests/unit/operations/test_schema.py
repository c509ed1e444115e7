"""Schemas of a MySQL and a MariaDB, as their servers describe the same statements."""

from typing import Any, Dict, List, Optional

import pytest

from dualdb.operations import schema
from dualdb.operations.schema import Attributes, Schema
from dualdb.operations.schema_diff import differ

COLUMN: Attributes = {
    "type": "int", "nullable": "NO", "default": None, "charset": None, "collation": None,
    "extra": "", "generated": None, "comment": "", "after": "",
}  # fmt: skip


def made(is_mariadb: bool, objects: Dict[Any, Attributes]) -> Schema:
    return Schema("db", is_mariadb, {("table", "t"): {"engine": "InnoDB"}, **objects}, {})


def column(is_mariadb: bool, **changes: Optional[str]) -> Schema:
    return made(is_mariadb, {("column", "t.c"): {**COLUMN, **changes}})


def differing(maria: Schema, mysql: Schema) -> List[str]:
    return [f"{each.kind}.{each.attribute}" for each in differ("2", maria, mysql)]


@pytest.mark.parametrize(
    ("maria", "mysql"),
    [
        ({"type": "int(11)"}, {"type": "int"}),
        ({"type": "bigint(20) unsigned"}, {"type": "bigint unsigned"}),
        ({"type": "year(4)"}, {"type": "year"}),
        ({"type": "tinyint(1)"}, {"type": "tinyint(1)"}),
        ({"default": "'x'"}, {"default": "x"}),
        ({"default": "'it''s'"}, {"default": "it's"}),
        ({"default": "3"}, {"default": "3"}),
        (
            {"default": "current_timestamp()"},
            {"default": "CURRENT_TIMESTAMP", "extra": "DEFAULT_GENERATED"},
        ),
        (
            {"default": "current_timestamp()", "extra": "on update current_timestamp()"},
            {
                "default": "CURRENT_TIMESTAMP",
                "extra": "DEFAULT_GENERATED on update CURRENT_TIMESTAMP",
            },
        ),
        ({"default": "uuid()"}, {"default": "uuid()", "extra": "DEFAULT_GENERATED"}),
        ({"collation": "utf8mb4_general_ci"}, {"collation": "utf8mb4_0900_ai_ci"}),
        ({"generated": "`a` + 1"}, {"generated": "(`a` + 1)"}),
    ],
)
def test_the_same_column_is_the_same(
    maria: Dict[str, Optional[str]], mysql: Dict[str, Optional[str]]
) -> None:
    assert differing(column(True, **maria), column(False, **mysql)) == []


@pytest.mark.parametrize(
    ("maria", "mysql", "attribute"),
    [
        ({"type": "int(11)"}, {"type": "bigint"}, "type"),
        ({"type": "int(11) unsigned"}, {"type": "int"}, "type"),
        ({"default": "'3'"}, {"default": "4"}, "default"),
        ({"default": "'x'"}, {"default": None}, "default"),
        ({"default": "'now'"}, {"default": "x"}, "default"),
        ({"collation": "utf8mb4_bin"}, {"collation": "utf8mb4_0900_ai_ci"}, "collation"),
        ({"extra": "auto_increment"}, {"extra": ""}, "extra"),
        ({"generated": "`a` + 1"}, {"generated": "(`a` + 2)"}, "generated"),
        ({"nullable": "YES"}, {"nullable": "NO"}, "nullable"),
    ],
)
def test_another_column_is_another(
    maria: Dict[str, Optional[str]], mysql: Dict[str, Optional[str]], attribute: str
) -> None:
    assert differing(column(True, **maria), column(False, **mysql)) == [f"column.{attribute}"]


def test_json_is_a_text_with_a_check_in_mariadb() -> None:
    text = {**COLUMN, "type": "longtext", "charset": "utf8mb4", "collation": "utf8mb4_bin"}
    maria = made(True, {("column", "t.j"): text, ("check", "t.j"): {"clause": "json_valid(`j`)"}})
    mysql = made(False, {("column", "t.j"): {**COLUMN, "type": "json"}})
    assert differing(maria, mysql) == []


def test_checks_are_compared_by_what_they_say() -> None:
    maria = made(True, {("check", "t.CONSTRAINT_1"): {"clause": "`a` > 0"}})
    mysql = made(False, {("check", "t.t_chk_1"): {"clause": "(`a` > 0)"}})
    other = made(False, {("check", "t.t_chk_1"): {"clause": "(`a` > 1)"}})
    assert differing(maria, mysql) == []
    assert differing(maria, other) == ["check.exists", "check.exists"]


def test_bodies_are_compared_without_what_a_server_adds() -> None:
    maria = made(
        True, {("view", "v"): {"body": "select `t`.`a` AS `a` from `t` where `t`.`a` < 1"}}
    )
    mysql = made(
        False, {("view", "v"): {"body": "select `t`.`a` AS `a` from `t` where (`t`.`a` < 1)"}}
    )
    other = made(
        False, {("view", "v"): {"body": "select `t`.`a` AS `a` from `t` where (`t`.`a` < 2)"}}
    )
    assert differing(maria, mysql) == []
    assert differing(maria, other) == ["view.body"]


def test_on_one_engine_everything_counts() -> None:
    one, other = column(True, type="int(10)"), column(True, type="int(11)")
    assert differing(one, other) == ["column.type"]


def test_a_fingerprint_changes_with_every_object() -> None:
    one, other = column(True), column(True, comment="x")
    assert schema.fingerprint(one) == schema.fingerprint(column(True))
    assert schema.fingerprint(one) != schema.fingerprint(other)
