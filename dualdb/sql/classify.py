"""What a statement does, by its text: read, write, commit, change the session."""

import re
from functools import lru_cache
from typing import AbstractSet, NamedTuple

from .. import errors
from . import functions, lexer
from .charset import changes_charset

_FIRST_WORD = re.compile(r"[\s(;]*([A-Za-z]+)")


# SET STATEMENT ... FOR is about the one statement that follows.
_FOR_ONE = re.compile(r"(?:SET\s+STATEMENT\b.*?\bFOR\s+)+([A-Za-z]+)", re.S | re.I)


_READS = frozenset({"SELECT", "SHOW", "DESC", "DESCRIBE", "EXPLAIN", "WITH", "TABLE", "VALUES"})


# What makes a statement that begins as a read another one. INSERT and REPLACE are
# functions, too; LAST_INSERT_ID with an argument sets what it gives.
_WRITES = re.compile(
    r"(?i)\b(?:INTO|FOR\s+UPDATE|FOR\s+SHARE|LOCK\s+IN|(?:INSERT|REPLACE)\b(?!\s*\()|UPDATE|DELETE"
    r"|ANALYZE|NEXT\s+VALUE|PROCEDURE)\b|\.\s*NEXTVAL\b|\bLAST_INSERT_ID\s*\((?!\s*\))"
)
_SIGNS = {
    ":=": "an assignment to a variable",
    "/*": "a comment that is executed",
    ";": "a second statement",
    '"': "a quotation mark that is not closed",
    "`": "a quotation mark that is not closed",
}
_SIGN = re.compile(r":=|/\*|;|[\"`]")

# A name before a parenthesis is a call's, but for a type or a new name after AS, the
# name of a WITH clause and its columns, and COLUMNS after the path of a JSON_TABLE.
_CALLS = re.compile(
    r"(?i)(?P<no_call>(?:''|\bquoted)\s+(?!\.)|\b(?:AS|WITH|RECURSIVE)\s+)?"
    r"(?P<name>(?:\.\s*)?[\w$.]+)(?P<gap>\s*)\((?P<of_with>[\w$\s,]*\)\s*AS\s*\()?"
)


def is_plain_read(sql: str) -> bool:
    """True if the statement surely changes nothing and takes no lock, so that it may be
    sent again after a lost connection.

    Errs on the safe side; see ``why_no_read``.
    """
    return not why_no_read(sql)


def why_no_read(sql: str) -> str:
    """Which word of a statement keeps it from being known as a read, or nothing.

    Errs on the safe side: a SELECT that calls a function which is not built in (a
    stored one may write) is not known as a read, nor is one with a backslash, which may
    or may not end a text.

    Example:
        >>> why_no_read("SELECT GET_LOCK('a', 1)")
        'GET_LOCK() takes a lock'
    """
    bare = lexer.code(sql).lstrip("( \n\t").rstrip("; \n\t")
    first = re.match(r"[A-Za-z]+", bare)
    if first is None or first[0].upper() not in _READS:
        return f"{first[0].upper() if first else 'the statement'} is not known to be a read"
    if "\\" in sql:
        return "a backslash may or may not end a text"
    sign = _SIGN.search(bare)
    if sign:
        return f"it has {_SIGNS[sign[0]]}"
    is_show = first[0].upper() == "SHOW"
    written = None if is_show else _WRITES.search(bare)
    if written:
        words = " ".join(written[0].upper().split())
        if words.startswith("LAST_INSERT_ID"):
            return "LAST_INSERT_ID() with an argument changes the session"
        return f"{words} may write or lock"
    return _unknown_call(functions.KNOWN_READS, bare)


def _unknown_call(known: AbstractSet[str], bare: str) -> str:
    """Why a name before a parenthesis is none of these; empty if all are.

    Names are compared unqualified: a qualified one is a stored function's.
    """
    for found in _CALLS.finditer(bare):
        name = "".join(found["name"].upper().split())
        if found["no_call"] or found["of_with"] or name.isdigit():
            continue
        if name in functions.ADJACENT_PARENTHESIS and found["gap"]:
            return f"{name} with a space before its parenthesis may be a stored function"
        if name not in known:
            called = "a function with a quoted name" if name == "QUOTED" else f"{name}()"
            return f"{called} {functions.NOT_READS.get(name, 'may be a stored function')}"
    return ""


#: Functions of which it is known that they leave the session as it was.
_KEEPS_SESSION = (functions.KNOWN_READS | functions.NOT_READS.keys()) - functions.SESSION_FUNCTIONS


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


#: Statements that commit an open transaction before they begin (MySQL manual,
#: "Statements That Cause an Implicit Commit"; MariaDB manual, "SQL statements That
#: Cause an Implicit Commit").
COMMITTING = frozenset(
    {
        "ALTER",
        "ANALYZE",
        "BACKUP",
        "CACHE",
        "CHANGE",
        "CHECK",
        "CREATE",
        "DROP",
        "FLUSH",
        "GRANT",
        "IMPORT",
        "INSTALL",
        "LOCK",
        "OPTIMIZE",
        "RENAME",
        "REPAIR",
        "RESET",
        "REVOKE",
        "STOP",
        "TRUNCATE",
        "UNINSTALL",
    }
)

# The others that do, by more than their first word.
_COMMITS = re.compile(
    r"(?i)^[\s(;]*(?:LOAD\s+INDEX|START\s+(?!TRANSACTION\b)|UNLOCK\s+TABLES?"
    r"|SET\s+(?:PASSWORD|DEFAULT\s+ROLE)|SET\b.*\bAUTOCOMMIT)\b",
    re.S,
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
    r"(?i)\bGET_LOCK\s*\(|\bLAST_INSERT_ID\s*\(\s*[^)\s]|:=|\bINTO\s*@|\bRETURNING\b|/\*!"
    r"|^[\s(;]*(?:BACKUP|LOCK|LOAD|HANDLER|FLUSH|XA|SET|USE|PREPARE|BEGIN\s+NOT"
    r"|CREATE\b(?:.*\bSELECT|\s+(?:OR\s+REPLACE\s+)?TEMPORARY))\b",
    re.S,
)

# Of a procedure the server is asked, and the user is (``reset_after_call``). Any other
# word that is not known is a program's, or a statement's that runs another text.
_KNOWN_WORDS = OPEN | {"BEGIN", "CALL", "COMMIT", "HELP", "START"}

# Statements that call functions; those of a procedure are the server's to report.
_CALLING = _READS | {"ANALYZE", "INSERT", "REPLACE", "UPDATE", "DELETE", "DO"}

# The table and the columns of an INSERT look like a call.
_INTO_TABLE = re.compile(
    r"(?i)^[\s(;]*(?:INSERT|REPLACE)\s+(?:(?:LOW_PRIORITY|DELAYED|HIGH_PRIORITY|IGNORE|INTO)\s+)*"
    r"[\w$]+(?:\s*\.\s*[\w$]+)?\s*(?=\()"
)

_CONTROL = re.compile(r"[\s(;]*(?:/\*!\s*)*(BEGIN|START|COMMIT|ROLLBACK|XA)\b", re.I)
_NO_CONTROL = re.compile(
    r"(?i)(?:BEGIN\s+NOT\s|START\s+(?!TRANSACTION)|ROLLBACK\s+(?:WORK\s+)?TO\s)"
)


class Judgement(NamedTuple):
    """What a statement does to its session.

    Attributes:
        word: The word it begins with, in upper case; empty where that is anything else.
        commits: It commits an open transaction before it begins, as DDL does.
        changes_session: It may leave the session otherwise than it was.
        control: The word by which it begins or ends a transaction; empty for others.
        session_bound: The words by which it is about whichever session runs it; empty
            for others. See ``session_bound``.
        changes_charset: It changes the character set of its session.
    """

    word: str
    commits: bool
    changes_session: bool
    control: str
    session_bound: str
    changes_charset: bool


def changes_session(sql: str) -> bool:
    """True if the statement may leave the session otherwise than it was: with a lock, a
    variable, a temporary table.

    After rows the server does not say so; of a lock it never does, and what a stored
    function does the text does not show. A function behind a view or a trigger is not
    seen here.
    """
    return judge(sql).changes_session


def refuse_charset_change(sql: str) -> None:
    """Check that a statement leaves the session's character set as it is: in another
    one a bound parameter may become SQL.

    Raises:
        InterfaceError: It would change it.
    """
    if isinstance(sql, str) and judge(sql).changes_charset:
        raise charset_refusal()


def charset_refusal() -> errors.InterfaceError:
    """The error of a statement that would change the session's character set."""
    return errors.InterfaceError(
        "the character set of a pooled session is not changed: set charset in the "
        "configuration, and use CONVERT(... USING ...) for a single value"
    ).with_context(None, sent=False)


def first_word(sql: str) -> str:
    """The word a statement begins with, in upper case; empty where it begins with
    anything else than a word or a comment.
    """
    return judge(sql).word


def commits(sql: str) -> bool:
    """True if the statement commits an open transaction before it begins."""
    return judge(sql).commits


def controls_transaction(sql: str) -> bool:
    """True if the statement begins or ends a transaction by name.

    ROLLBACK TO a savepoint does neither.
    """
    return bool(judge(sql).control)


def control_word(sql: str) -> str:
    """The word by which a statement begins or ends a transaction; empty for others.

    Example:
        >>> control_word("/*!50000 commit */")
        'COMMIT'
    """
    return judge(sql).control


def judge(sql: str) -> Judgement:
    """What a statement does to its session, by its text.

    Where a backslash makes it two statements, by the session's SQL mode, it does what
    either does.
    """
    return _judge_short(sql) if len(sql) < 10_000 else _judge(sql)


def _judge(sql: str) -> Judgement:
    usual = _judged(sql, backslash_escapes=True)
    if "\\" not in sql:
        return usual
    other = _judged(sql, backslash_escapes=False)
    return Judgement(
        usual.word,
        usual.commits or other.commits,
        usual.changes_session or other.changes_session,
        usual.control or other.control,
        usual.session_bound or other.session_bound,
        usual.changes_charset or other.changes_charset,
    )


def _judged(sql: str, *, backslash_escapes: bool) -> Judgement:
    bare = lexer.code(sql, backslash_escapes=backslash_escapes)
    inner = _FOR_ONE.match(bare)
    found = inner or _FIRST_WORD.match(bare)
    word = found[1].upper() if found else ""
    control = _CONTROL.match(bare, inner.start(1) if inner else 0)
    ends = control is not None and not _NO_CONTROL.match(bare, control.start(1))
    calls = word in _CALLING and _unknown_call(_KEEPS_SESSION, _INTO_TABLE.sub("IN ", bare, 1))
    return Judgement(
        word,
        word in COMMITTING or _COMMITS.match(bare) is not None,
        bool(_KEEPS.search(bare) or calls or word not in _KNOWN_WORDS),
        control[1].upper() if control is not None and ends else "",
        _session_words(lexer.executed_code(sql, backslash_escapes=backslash_escapes)),
        changes_charset(sql, backslash_escapes=backslash_escapes),
    )


_judge_short = lru_cache(maxsize=1024)(_judge)


# A statement of this kind is about the session that runs it: outside a block the next
# call may get another one.
_SESSION_BOUND = re.compile(
    r"""(?ix)^[\s(;]*(?:
    BEGIN\b(?!\s+NOT\b) | START\s+TRANSACTION\b | COMMIT\b | ROLLBACK\b | SAVEPOINT\b
    | FLUSH\b.*\bREAD\s+LOCK\b | BACKUP\s+(?:STAGE|LOCK|UNLOCK)\b
    | RELEASE\s+SAVEPOINT\b | (?:UN)?LOCK\s+(?:TABLES?|INSTANCE)\b | XA\s+(?!RECOVER\b)\w+
    | SET\s+TRANSACTION\b
    | SET\b(?:.*,)?\s*(?:(?:SESSION|LOCAL)\s+|@@\s*(?:(?:SESSION|LOCAL)\s*\.\s*)?)?AUTOCOMMIT\s*:?=
    )""",
    re.S,
)


def session_bound(sql: str) -> str:
    """The words of a statement that would begin or end a transaction, or lock tables,
    in whichever session runs it; empty for any other statement.

    Example:
        >>> session_bound("set @a = 1, @@session.autocommit = 0")
        'SET autocommit'
        >>> session_bound("SELECT 'COMMIT'")
        ''
    """
    return judge(sql).session_bound


_SESSION_WORDS = frozenset(
    """
    BEGIN START COMMIT ROLLBACK SAVEPOINT RELEASE LOCK UNLOCK XA SET FLUSH BACKUP
    """.split()
)


def _session_words(bare: str) -> str:
    first = _FIRST_WORD.match(bare)
    if first is None or first[1].upper() not in _SESSION_WORDS:
        return ""
    inner = _FOR_ONE.match(bare)
    found = _SESSION_BOUND.match(bare[inner.start(1) :] if inner else bare)
    if not found:
        return ""
    words = " ".join(found[0].upper().split()).lstrip("( ;")
    if words.startswith("FLUSH"):
        return "FLUSH TABLES WITH READ LOCK"
    if words.startswith("SET"):
        return words if words == "SET TRANSACTION" else "SET autocommit"
    return words
