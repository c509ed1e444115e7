"""What a statement does, by its text: read, write, commit, change the session."""

import re
from functools import lru_cache
from typing import AbstractSet, Tuple

# What comments and quoted text say is not what a statement does; a quoted name may be
# any function's. MySQL runs /*! ... */. Whichever begins first has what is inside it,
# so all are looked for at once.
_COMMENT = r"/\*(?!M?!).*?\*/|--(?=\s|\Z)[^\n]*|\#[^\n]*"


_LEXEME = re.compile(
    r"""(?P<text>'(?:[^']|'')*')|(?P<name>"(?:[^"]|"")*"|`(?:[^`]|``)*`)|""" + _COMMENT, re.S
)


_FIRST_WORD = re.compile(rf"(?:[\s(;]|{_COMMENT})*([A-Za-z]+)", re.S)


# SET STATEMENT ... FOR is about the one statement that follows.
_FOR_ONE = re.compile(r"(?:SET\s+STATEMENT\b.*?\bFOR\s+)+([A-Za-z]+)", re.S | re.I)


def _bare(sql: str) -> str:
    """A statement without its comments and texts, and with "quoted" for every quoted
    name.
    """
    return _LEXEME.sub(
        lambda found: " '' " if found["text"] else " quoted " if found["name"] else " ", sql
    ).strip()


_READS = frozenset({"SELECT", "SHOW", "DESC", "DESCRIBE", "EXPLAIN", "WITH", "TABLE", "VALUES"})


_WRITES = re.compile(
    r"(?i)\b(?:INTO|FOR\s+UPDATE|FOR\s+SHARE|LOCK\s+IN|INSERT|UPDATE|DELETE|REPLACE|ANALYZE|NEXTVAL|SETVAL|NEXT\s+VALUE|PROCEDURE)\b"
    r"|:=|/\*|;\s*\S|[\"`]"
)


_CALLS = re.compile(r"((?:\.\s*)?[\w$.]+)\s*\(")


#: Functions and words before a parenthesis that change nothing, so that a SELECT with
#: them may be read again.
_HARMLESS = frozenset(
    """ABS ALL AND ANY AS AVG BETWEEN BIN BIT_AND BIT_COUNT BIT_OR BIT_XOR BY CASE CAST CEIL CEILING CHAR CHAR_LENGTH CHARACTER_LENGTH
    COALESCE CONCAT CONCAT_WS CONNECTION_ID CONVERT COUNT CRC32 CURDATE CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER CURTIME
    DATABASE DATE DATE_ADD DATE_FORMAT DATE_SUB DATEDIFF DAY DAYNAME DAYOFMONTH DAYOFWEEK DAYOFYEAR DECIMAL DENSE_RANK DISTINCT ELSE ELT
    EXCEPT EXISTS EXTRACT FIELD FIND_IN_SET FIRST_VALUE FLOOR FORCE FORMAT FROM FROM_DAYS FROM_UNIXTIME GREATEST GROUP_CONCAT HAVING HEX
    HOUR IF IFNULL IGNORE IN INDEX INET_ATON INET_NTOA INSTR INTERSECT INTERVAL IS ISNULL JOIN JSON_ARRAY JSON_ARRAYAGG JSON_CONTAINS
    JSON_EXTRACT JSON_LENGTH JSON_OBJECT JSON_OBJECTAGG JSON_UNQUOTE JSON_VALUE KEY LAG LAST_DAY LAST_VALUE LCASE LEAD LEAST LEFT LENGTH
    LIKE LIMIT LN LOCATE LOG LOG10 LOG2 LOWER LPAD LTRIM MATCH AGAINST MAX MD5 MICROSECOND MID MIN MINUTE MOD MONTH MONTHNAME NOT NOW
    NTILE NULLIF OCTET_LENGTH ON OR ORDER OVER PARTITION PERCENT_RANK POSITION POW POWER QUARTER QUOTE RADIANS RAND RANK REGEXP REPEAT
    REVERSE RIGHT ROUND ROW ROW_NUMBER RPAD RTRIM SECOND SELECT SHA1 SHA2 SIGN SOUNDEX SPACE SQRT STD STDDEV STR_TO_DATE SUBDATE SUBSTR
    SUBSTRING SUBSTRING_INDEX SUM SYSDATE THEN TIME TIME_FORMAT TIME_TO_SEC TIMEDIFF TIMESTAMP TIMESTAMPADD TIMESTAMPDIFF TO_DAYS TRIM
    TRUNCATE UCASE UNHEX UNION UNIX_TIMESTAMP UPPER USE USER USING UTC_DATE UTC_TIMESTAMP VALUES VARCHAR VARIANCE VERSION WEEK WEEKDAY WHEN
    WHERE WITH XOR YEAR""".split()
)


def is_plain_read(sql: str) -> bool:
    """True if the statement surely changes nothing and takes no lock, so that it may be
    sent again after a lost connection.

    Errs on the safe side: a SELECT that calls a function this module does not know (a
    stored one may write) is not a plain read, nor is one with a backslash, which may or
    may not end a text.
    """
    bare = _bare(sql).lstrip("( \n\t").rstrip("; \n\t")
    first = re.match(r"[A-Za-z]+", bare)
    if "\\" in sql or first is None or first[0].upper() not in _READS or _WRITES.search(bare):
        return False
    return _calls_but(_HARMLESS, bare) or first[0].upper() == "SHOW"


def _calls_but(known: AbstractSet[str], bare: str) -> bool:
    """Calls nothing but these, by their unqualified names, which no stored function can
    have.
    """
    return all(name.upper() in known or name.isdigit() for name in _CALLS.findall(bare))


#: With those that say something else the second time, or wait.
_BUILT_IN = _HARMLESS | frozenset(
    """AES_DECRYPT AES_ENCRYPT ANY_VALUE BENCHMARK CHARSET COERCIBILITY COLLATION COMPRESS CONVERT_TZ FOUND_ROWS INET6_ATON INET6_NTOA
    IS_FREE_LOCK IS_USED_LOCK JSON_CONTAINS_PATH JSON_DEPTH JSON_EXISTS JSON_INSERT JSON_KEYS JSON_MERGE_PATCH JSON_MERGE_PRESERVE
    JSON_QUERY JSON_REMOVE JSON_REPLACE JSON_SEARCH JSON_SET JSON_TABLE JSON_TYPE JSON_VALID LAST_INSERT_ID MAKEDATE MAKETIME
    PERIOD_ADD PERIOD_DIFF POINT RANDOM_BYTES REGEXP_INSTR REGEXP_REPLACE REGEXP_SUBSTR RELEASE_LOCK ROW_COUNT SCHEMA SEC_TO_TIME
    SESSION_USER SLEEP ST_ASBINARY ST_ASGEOJSON ST_ASTEXT ST_ASWKB ST_ASWKT ST_CONTAINS ST_DISTANCE ST_DISTANCE_SPHERE ST_GEOMFROMTEXT
    ST_GEOMFROMWKB ST_INTERSECTS ST_SRID ST_WITHIN ST_X ST_Y SYSTEM_USER UNCOMPRESS UUID UUID_SHORT VAR_POP VAR_SAMP WEIGHT_STRING
    YEARWEEK""".split()
)


#: Statements that leave an open transaction as it was when they fail, or end it
#: altogether by their error.
PLAIN = frozenset(
    {
        "SELECT",
        "INSERT",
        "UPDATE",
        "DELETE",
        "REPLACE",
        "WITH",
        "SHOW",
        "DESCRIBE",
        "DESC",
        "EXPLAIN",
        "DO",
        "TABLE",
        "VALUES",
    }
)


#: Statements that commit an open transaction before they begin.
COMMITTING = frozenset(
    {
        "ALTER",
        "ANALYZE",
        "CACHE",
        "CHECK",
        "CREATE",
        "DROP",
        "FLUSH",
        "GRANT",
        "INSTALL",
        "LOCK",
        "OPTIMIZE",
        "RENAME",
        "REPAIR",
        "RESET",
    }
    | {"REVOKE", "TRUNCATE", "UNINSTALL"}
)


#: Statements whose words say what they do to a transaction. Others call a procedure,
#: execute another text, or are programs themselves.
OPEN = (
    PLAIN
    | COMMITTING
    | {
        "SET",
        "USE",
        "SAVEPOINT",
        "RELEASE",
        "ROLLBACK",
        "KILL",
        "LOAD",
        "PREPARE",
        "DEALLOCATE",
        "HANDLER",
        "UNLOCK",
    }
)


# What outlives a statement although the server does not say so by its flags, and what
# it says only from MariaDB 10.2 and MySQL 5.7 on.
_KEEPS = re.compile(
    r"(?i)\bGET_LOCK\s*\(|\bLAST_INSERT_ID\s*\(\s*[^)\s]|:=|\bINTO\s+@|\bRETURNING\b|/\*!|/\*M!"
    r"|^[\s(;]*(?:LOCK|HANDLER|FLUSH\s+TABLES|XA|SET|USE|PREPARE|CREATE\s+(?:OR\s+REPLACE\s+)?TEMPORARY)\b"
)


def changes_session(sql: str) -> bool:
    """True if the statement may leave the session otherwise than it was: with a lock, a
    variable, a temporary table.

    After rows the server does not say so, and what a stored function does the text does
    not show.
    """
    return _judged(sql)[1]


def first_word(sql: str) -> str:
    """The word a statement begins with, in upper case; empty where it begins with
    anything else than a word or a comment.
    """
    return _judged(sql)[0]


def controls_transaction(sql: str) -> bool:
    """True if the statement begins or ends a transaction by name.

    ROLLBACK TO a savepoint does neither.
    """
    word = first_word(sql)
    return word in ("BEGIN", "START", "COMMIT", "ROLLBACK", "XA") and not _NO_CONTROL.search(
        _bare(sql)
    )


_NO_CONTROL = re.compile(
    r"(?i)^(?:BEGIN\s+NOT\s|START\s+(?!TRANSACTION)|ROLLBACK\s+(?:WORK\s+)?TO\s)"
)


def _judged(sql: str) -> Tuple[str, bool]:
    return _judge_short(sql) if len(sql) < 10_000 else _judge(sql)


def _judge(sql: str) -> Tuple[str, bool]:
    bare = _bare(sql)
    found = _FIRST_WORD.match(sql)
    inner = _FOR_ONE.match(bare)
    word = inner[1].upper() if inner else found[1].upper() if found else ""
    return word, bool(_KEEPS.search(bare)) or (word in _READS and not _calls_but(_BUILT_IN, bare))


_judge_short = lru_cache(maxsize=1024)(_judge)
