"""What a statement does, by its text."""

import pytest

from dualdb.sql import classify
from dualdb.sql.classify import (
    changes_session,
    commits,
    controls_transaction,
    first_word,
    is_plain_read,
    session_bound,
    why_no_read,
)


@pytest.mark.parametrize(
    ("sql", "plain"),
    [
        ("SELECT 1", True),
        ("  select * from `update` where a = 'FOR UPDATE; INSERT'", True),
        ("(SELECT 1) UNION (SELECT 2)", True),
        ("-- note\nSELECT COUNT(*), MAX(a) FROM t WHERE b IN (1, 2);", True),
        ("WITH x AS (SELECT 1) SELECT * FROM x", True),
        ("SHOW TABLES", True),
        ("EXPLAIN SELECT 1", True),
        ("SELECT `a``b` FROM t", True),
        ("SELECT 'it''s', \"it's\" /* it's */ FROM `it's`", True),
        ("SELECT 1 -- it's\n, 2 # it's\n, 3", True),
        ("SELECT 2--1", True),
        ('SELECT "#1" tag, place(8)', False),
        ("SELECT \"it's\", place('x')", False),
        ('SELECT CONCAT("a -- b", place(7))', False),
        ("SELECT `a#b`, place(1) FROM t", False),
        ("SELECT '/*', place(1), '*/'", False),
        ("SELECT 1 --place\n, place(1)", False),
        ('SELECT "a, place(1)', False),
        ("SELECT shop . now ()", False),
        ("SELECT `my_function`(1)", False),
        ("SELECT shop.count(1)", False),
        ("SELECT 'it\\\\', my_function(1), '", False),
        ("SELECT REPLACE(a, 'x', 'y'), INSERT(a, 1, 1, 'z') FROM t", True),
        ("SELECT UUID(), ROW_COUNT(), FOUND_ROWS(), LAST_INSERT_ID( )", True),
        ("SELECT LAST_INSERT_ID(7)", False),
        ("SELECT NOW ()", False),
        ("SELECT abs (1)", True),
        ("WITH RECURSIVE x (a, b) AS (SELECT 1, 2), y (c) AS (SELECT 3) SELECT * FROM x, y", True),
        ("WITH x (a) AS (SELECT place(1)) SELECT * FROM x", False),
        ("SELECT CAST(a AS DECIMAL(9, 2)) FROM (SELECT 1 AS a) AS d (a)", True),
        ("SELECT * FROM JSON_TABLE('[1]', '$[*]' COLUMNS (a INT PATH '$')) AS j", True),
        ("SELECT * FROM JSON_TABLE(place(), '$[*]' COLUMNS (a INT PATH '$')) AS j", False),
        ("SELECT `a` . `place` (1)", False),
        ("SHOW CREATE PROCEDURE p", True),
        ("SHOW TABLES WHERE place(1)", False),
        ("SELECT 1 FOR UPDATE", False),
        ("SELECT 1 LOCK IN SHARE MODE", False),
        ("SELECT a INTO @x FROM t", False),
        ("SELECT @x := 1", False),
        ("SELECT my_function(1)", False),
        ("SELECT GET_LOCK('a', 1)", False),
        ("SELECT NEXTVAL(s)", False),
        ("WITH x AS (SELECT 1) DELETE FROM t", False),
        ("SELECT 1; DELETE FROM t", False),
        ("SELECT 1 /*! INTO @x */", False),
        ("ANALYZE SELECT 1", False),
        ("CALL p()", False),
        ("INSERT INTO t SELECT 1", False),
        ("SET @x = 1", False),
        ("", False),
    ],
)
def test_plain_reads(sql: str, plain: bool) -> None:
    assert is_plain_read(sql) is plain


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("update t set a = 1", "UPDATE is not known to be a read"),
        ("1", "the statement is not known to be a read"),
        ("SELECT 1 for  update", "FOR UPDATE may write or lock"),
        ("SELECT SLEEP(1)", "SLEEP() waits"),
        ("SELECT nextval(s)", "NEXTVAL() advances a sequence"),
        ("SELECT place(1)", "PLACE() may be a stored function"),
        ("SELECT shop . place(1)", ".PLACE() may be a stored function"),
        ("SELECT `a`(1)", "a function with a quoted name may be a stored function"),
        (
            "SELECT LAST_INSERT_ID(a) FROM t",
            "LAST_INSERT_ID() with an argument changes the session",
        ),
        ("SELECT now ()", "NOW with a space before its parenthesis may be a stored function"),
        ("SELECT 1; SELECT 2", "it has a second statement"),
        ("SELECT @a := 1", "it has an assignment to a variable"),
        ("SELECT 1 /*! INTO @x */", "it has an executable comment"),
        ('SELECT "a', "it has an unterminated quotation"),
        ("SELECT 'a\\'", "the meaning of a backslash depends on the SQL mode"),
        ("SELECT 1", ""),
    ],
)
def test_why_a_statement_is_not_known_to_be_a_read(sql: str, why: str) -> None:
    assert why_no_read(sql) == why


@pytest.mark.parametrize(
    ("sql", "word", "controls", "keeps"),
    [
        ("SELECT 1", "SELECT", False, False),
        ("/* a */ -- b\n # c\n (select 1)", "SELECT", False, False),
        ("/*c*/ LOCK TABLES t READ", "LOCK", False, True),
        ("select a into @x from t", "SELECT", False, True),
        ("SELECT 'SET', ':=', ' INTO @x'", "SELECT", False, False),
        ("SELECT @a:=1", "SELECT", False, True),
        ("/*!40101 SET NAMES utf8 */", "", False, True),
        ("Begin", "BEGIN", True, False),
        ("BEGIN NOT ATOMIC SELECT 1; END", "BEGIN", False, True),
        ("IF 1 THEN SELECT 1; END IF", "IF", False, True),
        ("EXECUTE IMMEDIATE 'SELECT 1'", "EXECUTE", False, True),
        ("SELECT(1)INTO@a", "SELECT", False, True),
        ("GET DIAGNOSTICS @a = NUMBER", "GET", False, True),
        ("LOAD DATA INFILE 'f' INTO TABLE t (@a, b)", "LOAD", False, True),
        ("BACKUP LOCK t", "BACKUP", False, True),
        ("FLUSH LOCAL TABLE t WITH READ LOCK", "FLUSH", False, True),
        ("CREATE TABLE t AS SELECT place(1)", "CREATE", False, True),
        ("CREATE TABLE t (a INT)", "CREATE", False, False),
        ("ALTER TABLE t ADD b INT", "ALTER", False, False),
        ("CALL p()", "CALL", False, False),
        ("ANALYZE FORMAT=JSON SELECT place(1)", "ANALYZE", False, True),
        ("ANALYZE TABLE t", "ANALYZE", False, False),
        ("START TRANSACTION", "START", True, False),
        ("START SLAVE", "START", False, False),
        ("COMMIT AND CHAIN", "COMMIT", True, False),
        ("ROLLBACK", "ROLLBACK", True, False),
        ("rollback work to savepoint a", "ROLLBACK", False, False),
        ("XA START 'a'", "XA", True, True),
        ("SAVEPOINT a", "SAVEPOINT", False, False),
        ("/*!50000 COMMIT */", "", True, True),
        ("SELECT 'it\\'s', GET_LOCK('a', 1)", "SELECT", False, True),
        ("SELECT 'a\\', GET_LOCK('a', 1), '", "SELECT", False, True),
        ("SELECT 'it\\'s'", "SELECT", False, False),
        ("SELECT place(1)", "SELECT", False, True),
        ("INSERT INTO t (a, b) VALUES (1, NOW())", "INSERT", False, False),
        ("INSERT IGNORE INTO shop . t(a) VALUES (1)", "INSERT", False, False),
        ("INSERT INTO `t` (`a`) VALUES (1) AS new (b)", "INSERT", False, False),
        ("REPLACE t (a) SELECT ABS(1)", "REPLACE", False, False),
        ("INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = VALUES(a)", "INSERT", False, False),
        ("UPDATE t SET a = REPLACE(a, 'x', 'y') WHERE b IN (1, 2)", "UPDATE", False, False),
        ("DELETE FROM t USE INDEX (i) WHERE (a = 1)", "DELETE", False, False),
        ("INSERT INTO t (a) VALUES (place(1))", "INSERT", False, True),
        ("UPDATE t SET a = shop.place(a)", "UPDATE", False, True),
        ("DO place(1)", "DO", False, True),
        ("DO SLEEP(0)", "DO", False, False),
        ("DO GET_LOCK('a', 1)", "DO", False, True),
        ("SET ROLE admin", "SET", False, True),
    ],
)
def test_what_a_statement_does_to_its_session(
    sql: str, word: str, controls: bool, keeps: bool
) -> None:
    assert (first_word(sql), controls_transaction(sql), changes_session(sql)) == (
        word,
        controls,
        keeps,
    )


@pytest.mark.parametrize(
    ("sql", "does"),
    [
        ("CREATE TABLE t (a INT)", True),
        ("/* a */ truncate t", True),
        ("SET PASSWORD = 'x'", True),
        ("SET DEFAULT ROLE a TO b", True),
        ("SET autocommit = 1", True),
        ("SET @@session.autocommit = 1", True),
        ("LOAD INDEX INTO CACHE t", True),
        ("START REPLICA", True),
        ("STOP SLAVE", True),
        ("CHANGE MASTER TO MASTER_HOST = 'x'", True),
        ("UNLOCK TABLES", True),
        ("IMPORT TABLE FROM 'x'", True),
        ("START TRANSACTION", False),
        ("SET @a = 'autocommit'", False),
        ("SET @password = 1", False),
        ("LOAD DATA INFILE 'x' INTO TABLE t", False),
        ("SELECT 'CREATE TABLE'", False),
        ("INSERT INTO t VALUES (1)", False),
    ],
)
def test_statements_that_commit(sql: str, does: bool) -> None:
    assert commits(sql) is does


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("begin", "BEGIN"),
        ("/* a */ START  TRANSACTION READ ONLY", "START TRANSACTION"),
        ("commit; ", "COMMIT"),
        ("-- a\nROLLBACK", "ROLLBACK"),
        ("rollback to savepoint a", "ROLLBACK"),
        ("SAVEPOINT a", "SAVEPOINT"),
        ("RELEASE SAVEPOINT a", "RELEASE SAVEPOINT"),
        ("LOCK TABLES t READ", "LOCK TABLES"),
        ("UNLOCK TABLES", "UNLOCK TABLES"),
        ("FLUSH LOCAL TABLES a, b WITH\nREAD LOCK", "FLUSH TABLES WITH READ LOCK"),
        ("FLUSH TABLES", ""),
        ("BACKUP STAGE START", "BACKUP STAGE"),
        ("BACKUP LOCK t", "BACKUP LOCK"),
        ("XA START 'a'", "XA START"),
        ("SET autocommit = 0", "SET autocommit"),
        ("set  transaction isolation level serializable", "SET TRANSACTION"),
        ("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE", ""),
        ("set @a = 'it''s, x', @@session.autocommit = 0", "SET autocommit"),
        ("SET LOCAL `autocommit` := 0", "SET autocommit"),
        ("/*!40101 SET autocommit = 0 */", "SET autocommit"),
        ("/*M!100100 COMMIT */", "COMMIT"),
        ("SET STATEMENT max_statement_time = 1 FOR COMMIT", "COMMIT"),
        ("SET @a = 'it\\\\', autocommit = 0", "SET autocommit"),
        ("SET GLOBAL autocommit = 0", ""),
        ("SET @a = ', autocommit = 0'", ""),
        ('SET @a = ", autocommit = 0"', ""),
        ("SET @autocommit = 0", ""),
        ("SELECT 'COMMIT'", ""),
        ("BEGIN NOT ATOMIC SELECT 1; END", ""),
        ("XA RECOVER", ""),
        ("START REPLICA", ""),
        ("INSERT INTO begin VALUES (1)", ""),
        ("COMMITTED", ""),
        ("RELEASE/*x*/SAVEPOINT a", "RELEASE SAVEPOINT"),
    ],
)
def test_statements_about_the_session_that_runs_them(sql: str, words: str) -> None:
    assert session_bound(sql) == words


READS = "SELECT SHOW DESC DESCRIBE EXPLAIN WITH TABLE VALUES"
PLAIN = f"{READS} INSERT UPDATE DELETE REPLACE DO"
COMMITTING = (
    "ALTER ANALYZE BACKUP CACHE CHANGE CHECK CREATE DROP FLUSH GRANT IMPORT INSTALL LOCK OPTIMIZE "
    "RENAME REPAIR RESET REVOKE STOP TRUNCATE UNINSTALL"
)
OTHERS = "SET USE SAVEPOINT RELEASE ROLLBACK KILL LOAD PREPARE DEALLOCATE HANDLER UNLOCK"


def test_the_first_words_by_what_they_do() -> None:
    assert set(PLAIN.split()) == classify.PLAIN
    assert set(COMMITTING.split()) == classify.COMMITTING
    assert set(f"{PLAIN} {COMMITTING} {OTHERS}".split()) == classify.OPEN


@pytest.mark.parametrize("word", READS.split())
def test_a_read_may_begin_with(word: str) -> None:
    assert is_plain_read(f"{word} (1)" if word == "VALUES" else f"{word} t")
    assert is_plain_read(f"((\n\t{word} t")


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("SET STATEMENT max_statement_time=1 FOR UPDATE t SET a = 1", "UPDATE"),
        ("set  statement a=1 for set statement b=2 for select 1", "SELECT"),
        ("SET STATEMENT a='x FOR DELETE y' FOR SELECT 1", "SELECT"),
        ("SET @statement = 1", "SET"),
    ],
)
def test_set_statement_is_about_the_statement_that_follows(sql: str, word: str) -> None:
    assert first_word(sql) == word


@pytest.mark.parametrize("quoted", ['"a;b"', "`a;b`", '"a""b"', "`a``b`", "'a;b'", "'a''b'"])
def test_what_is_quoted_is_not_read(quoted: str) -> None:
    assert is_plain_read(f"SELECT {quoted} FROM t")


@pytest.mark.parametrize("length", [10, 20_000])
def test_long_statements_are_judged_as_short_ones(length: int) -> None:
    padding = " " * length
    assert first_word(f"SELECT{padding}1") == "SELECT"
    assert changes_session(f"SELECT{padding}@a := 1")
    assert not changes_session(f"SELECT{padding}1")
