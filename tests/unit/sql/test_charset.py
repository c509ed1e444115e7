"""Statements that change the session's character set, in all their spellings."""

import pytest

from dualdb import InterfaceError
from dualdb.protocol.statements import Statement
from dualdb.sql.charset import changes_charset

CHANGES = [
    "SET NAMES gbk",
    "set names 'gbk'",
    "/* x */ SET NAMES gbk",
    "-- a\nSET NAMES gbk",
    "# a\n SET NAMES gbk",
    "SET\tNAMES\ngbk",
    "SET/**/NAMES/**/gbk",
    "SET NAMES DEFAULT",
    "SET NAMES gbk COLLATE gbk_bin",
    "SET @a=1, NAMES gbk",
    "SET @a = (SELECT 1, 2), character_set_client = gbk",
    "SET @x='a\\'b', NAMES gbk",
    "SET @@character_set_client=gbk",
    "SET @@session.character_set_client=gbk",
    "SET SESSION character_set_client = gbk",
    "SET LOCAL character_set_results = NULL",
    "SET @@local . `character_set_client` := gbk",
    "SET `character_set_client`=gbk",
    "SET CHARACTER SET gbk",
    "SET CHARSET gbk",
    "SET collation_connection='gbk_chinese_ci'",
    "SET sql_mode='', NAMES sjis",
    "SET GLOBAL x=1, character_set_client=gbk",
    "SET STATEMENT character_set_client=gbk FOR SELECT %s",
    "SET STATEMENT sql_mode='' , character_set_connection=big5 FOR SELECT 1",
    "SET STATEMENT max_statement_time=1 FOR SET NAMES gbk",
    "/*!50000 SET NAMES gbk */",
    "/*M!100000 SET NAMES gbk*/",
    "SET /*!NAMES*/ gbk",
    "BEGIN NOT ATOMIC SET NAMES gbk; END",
    "IF 1 THEN SET NAMES gbk; END IF",
    "SET SESSION session_track_system_variables = ''",
]

KEEPS = [
    "SELECT 1",
    "SELECT 'SET NAMES gbk'",
    "/* SET NAMES gbk */ SELECT 1",
    "SELECT _gbk'x', CONVERT('a' USING gbk)",
    "UPDATE t SET names='x' WHERE a=1",
    "UPDATE t SET a=1, charset='x'",
    "UPDATE t SET character_set_client=1",
    "INSERT INTO t SET names='a'",
    "ALTER TABLE t CONVERT TO CHARACTER SET utf8mb4",
    "CREATE TABLE t (a CHAR(2) CHARACTER SET gbk)",
    "CREATE PROCEDURE p() BEGIN SET NAMES gbk; END",
    "SET @names=1",
    "SET @character_set_client=1",
    "SET @x='NAMES gbk'",
    "SET names=1",
    "SET GLOBAL character_set_client=gbk",
    "SET @@global.character_set_client=gbk",
    "SET character_set_database=gbk",
    "SET time_zone='+00:00'",
    "SET STATEMENT max_statement_time=1 FOR SELECT names FROM t",
]


@pytest.mark.parametrize("sql", CHANGES)
def test_a_change_is_found_and_refused_before_anything_is_sent(sql: str) -> None:
    assert changes_charset(sql)
    with pytest.raises(InterfaceError, match="charset") as caught:
        Statement(sql)
    assert caught.value.sent is False


@pytest.mark.parametrize("sql", KEEPS)
def test_what_only_looks_like_one_is_not(sql: str) -> None:
    assert not changes_charset(sql)
    Statement(sql)
