"""Scripts as their statements."""

import pytest

from dualdb import ParameterError
from dualdb.operations import script


def texts(source: str, **options: bool) -> list[str]:
    return [each.text for each in script.split(source, **options)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", []),
        (";;  ;\n;", []),
        ("-- only\n# comments\n/* here */", []),
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1;SELECT 2 ;\n", ["SELECT 1", "SELECT 2"]),
        ("SELECT ';', \";\", `;` ; SELECT 2", ["SELECT ';', \";\", `;`", "SELECT 2"]),
        ("SELECT 'it''s;' ; SELECT 2", ["SELECT 'it''s;'", "SELECT 2"]),
        ("SELECT '\\';' ; SELECT 2", ["SELECT '\\';'", "SELECT 2"]),
        ("SELECT 1 -- a; b\n, 2; SELECT 3", ["SELECT 1 -- a; b\n, 2", "SELECT 3"]),
        ("SELECT 5--2; SELECT 3", ["SELECT 5--2", "SELECT 3"]),
        ("SELECT 1 # a; b\n; SELECT 2", ["SELECT 1 # a; b", "SELECT 2"]),
        ("SELECT /* ; ' */ 1; SELECT 2", ["SELECT /* ; ' */ 1", "SELECT 2"]),
        ("/* first */ SELECT 1", ["SELECT 1"]),
        ("/*!40101 SET NAMES utf8 */; SELECT 2", ["/*!40101 SET NAMES utf8 */", "SELECT 2"]),
        ("\ufeffSELECT 1;\r\nSELECT\r\n2;", ["SELECT 1", "SELECT\n2"]),
        ("DELIMITER $$\nSELECT 1; SELECT 2$$\ndelimiter ;\nSELECT 3;",
         ["SELECT 1; SELECT 2", "SELECT 3"]),
        ("DELIMITER //\nCREATE PROCEDURE p() BEGIN SELECT ';'; END//\nDELIMITER ;\nCALL p();",
         ["CREATE PROCEDURE p() BEGIN SELECT ';'; END", "CALL p()"]),
        ("DELIMITER ;;\nSELECT 1;;SELECT 2;;", ["SELECT 1", "SELECT 2"]),
        ("DELIMITER $$\nCREATE PROCEDURE p() BEGIN END$$", ["CREATE PROCEDURE p() BEGIN END"]),
        ("SELECT 'a\nDELIMITER $$\n'; SELECT 2", ["SELECT 'a\nDELIMITER $$\n'", "SELECT 2"]),
    ],
)  # fmt: skip
def test_statements_are_split_as_clients_do(source: str, expected: list[str]) -> None:
    assert texts(source) == expected


@pytest.mark.parametrize(
    "body",
    [
        "BEGIN END",
        "BEGIN SELECT 1; SELECT 2; END",
        "BEGIN IF a THEN SELECT 1; ELSEIF b THEN SELECT 2; ELSE SELECT 3; END IF; END",
        "IF (a > 1) THEN SELECT IF(a, 1, 2); END IF",
        "BEGIN SELECT CASE a WHEN 1 THEN 2 END; SELECT 2; END",
        "BEGIN CASE a WHEN 1 THEN SELECT 1; END CASE; SELECT 2; END",
        "BEGIN x: LOOP LEAVE x; END LOOP x; WHILE a DO SET a = 0; END WHILE; END",
        "BEGIN REPEAT SET a = REPEAT('x', 2); UNTIL a END REPEAT; SELECT 2; END",
        "BEGIN SELECT t.end, `begin`, 'END' FROM t; SELECT 2; END",
        "BEGIN BEGIN SELECT 1; END; SELECT 2; END",
        "BEGIN DECLARE EXIT HANDLER FOR 1062 BEGIN SELECT 1; END; SELECT 2; END",
        "SELECT 1",
    ],
)
@pytest.mark.parametrize(
    "head",
    [
        "CREATE PROCEDURE p(a INT) ",
        "create or replace definer=`a;`@`b` procedure p() ",
        "CREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW ",
        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO ",
    ],
)
def test_a_routine_needs_no_delimiter(head: str, body: str) -> None:
    assert texts(f"{head}{body};\nSELECT 9;") == [head + body, "SELECT 9"]


def test_a_block_without_a_name_is_one_statement() -> None:
    source = "BEGIN NOT ATOMIC SELECT 1; SELECT 2; END"
    assert texts(f"{source}; SELECT 3") == [source, "SELECT 3"]
    assert texts("BEGIN; SELECT 1; COMMIT") == ["BEGIN", "SELECT 1", "COMMIT"]


@pytest.mark.parametrize(
    "trigger",
    [
        "/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`b`*/ /*!50003 TRIGGER t BEFORE INSERT ON x "
        "FOR EACH ROW BEGIN SET @a = 1; SET @b = 2; END */",
        "/*M!100100 CREATE OR REPLACE PROCEDURE p() BEGIN SELECT 1; SELECT 2; END */",
    ],
)
def test_a_routine_in_an_executable_comment_is_one_statement(trigger: str) -> None:
    assert texts(f"{trigger}; SELECT 3") == [trigger, "SELECT 3"]


def test_lines_are_those_of_the_statements() -> None:
    found = script.split("-- a\n\nSELECT 1;\n/* b\n */ SELECT\n2;SELECT 3")
    assert [each.line for each in found] == [3, 5, 6]


def test_backslashes_are_plain_where_the_server_says_so() -> None:
    assert texts("SELECT '\\'; SELECT 2", backslash_escapes=False) == ["SELECT '\\'", "SELECT 2"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("SELECT 1;\nSELECT 'a;", "line 2 .* not closed"),
        ("SELECT 1;\n\n/* a;", "line 3 .* not closed"),
        ("SELECT `a", "line 1 .* not closed"),
        ("CREATE PROCEDURE p() BEGIN SELECT 1;", "line 1 .* END"),
        ("SELECT 1;\nSOURCE x.sql;", "line 2 .* command of a client"),
    ],
)
def test_what_is_not_closed_is_refused(source: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        script.split(source)


def test_a_digest_does_not_depend_on_comments_between_statements() -> None:
    one, other = script.split("SELECT 1; SELECT 2"), script.split("-- x\nSELECT 1;\n\nSELECT 2;")
    assert script.digest(e.text for e in one) == script.digest(e.text for e in other)
    assert script.digest(["a", "b"]) != script.digest(["ab"])


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("ALTER TABLE t ADD COLUMN a INT", "t"),
        ("alter table if exists `a b`.`t` drop column a", "`a b`.`t`"),
        ("CREATE UNIQUE INDEX i ON t (a)", "t"),
        ("DROP INDEX i ON db.t", ""),
        ("ALTER/* a */TABLE -- b\n t ADD COLUMN a INT COMMENT 'LOCK=NONE'", "t"),
        ("ALTER TABLE t ADD COLUMN a INT /* ALGORITHM=COPY */", "t"),
        ("ALTER TABLE t ADD COLUMN a INT, ALGORITHM=COPY", ""),
        ("ALTER TABLE t ADD COLUMN a INT, LOCK = SHARED", ""),
        ("ALTER DATABASE d CHARACTER SET utf8mb4", ""),
        ("CREATE TABLE t (a INT, INDEX (a))", ""),
        ("SELECT 1", ""),
    ],
)
def test_altered_tables_are_known(statement: str, table: str) -> None:
    assert script.altered_table(statement) == table


def test_online_forms_say_how() -> None:
    assert script.online_forms("ALTER TABLE t DROP a") == (
        "ALTER TABLE t DROP a, ALGORITHM=INSTANT",
        "ALTER TABLE t DROP a, ALGORITHM=INPLACE, LOCK=NONE",
    )
    # at the end of a comment it would be a part of the comment
    assert script.online_forms("ALTER TABLE t DROP a -- the last")[0] == (
        "ALTER TABLE t DROP a, ALGORITHM=INSTANT"
    )
    assert script.online_forms("CREATE INDEX i ON t (a)") == (
        "CREATE INDEX i ON t (a) ALGORITHM=INSTANT",
        "CREATE INDEX i ON t (a) ALGORITHM=INPLACE LOCK=NONE",
    )
