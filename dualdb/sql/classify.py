"""Classification of statements: reads, implicit commits, session changes."""

import re
from functools import lru_cache
from typing import AbstractSet, NamedTuple

from .. import errors
from . import functions, lexer
from .charset import changes_charset

_FIRST_WORD = re.compile(r"[\s(;]*([A-Za-z]+)")


# SET STATEMENT ... FOR applies to the statement that follows it.
_FOR_ONE = re.compile(r"(?:SET\s+STATEMENT\b.*?\bFOR\s+)+([A-Za-z]+)", re.S | re.I)


_READS = frozenset({"SELECT", "SHOW", "DESC", "DESCRIBE", "EXPLAIN", "WITH", "TABLE", "VALUES"})


# Parts of a statement that begins as a read which make it write or lock. INSERT and
# REPLACE are functions, too; LAST_INSERT_ID with an argument changes its value.
_WRITES = re.compile(
    r"(?i)\b(?:INTO|FOR\s+UPDATE|FOR\s+SHARE|LOCK\s+IN|(?:INSERT|REPLACE)\b(?!\s*\()|UPDATE|DELETE"
    r"|ANALYZE|NEXT\s+VALUE|PROCEDURE)\b|\.\s*NEXTVAL\b|\bLAST_INSERT_ID\s*\((?!\s*\))"
)
_SIGNS = {
    ":=": "an assignment to a variable",
    "/*": "an executable comment",
    ";": "a second statement",
    '"': "an unterminated quotation",
    "`": "an unterminated quotation",
}
_SIGN = re.compile(r":=|/\*|;|[\"`]")

# A name before a parenthesis is a function call, except for a type or an alias after
# AS, the name of a WITH clause with columns, and COLUMNS in a JSON_TABLE.
_CALLS = re.compile(
    r"(?i)(?P<no_call>(?:''|\bquoted)\s+(?!\.)|\b(?:AS|WITH|RECURSIVE)\s+)?"
    r"(?P<name>(?:\.\s*)?[\w$.]+)(?P<gap>\s*)\((?P<of_with>[\w$\s,]*\)\s*AS\s*\()?"
)


#: The longest statement whose judgement is kept, in characters.
_LONGEST_CACHED = 2000


def is_plain_read(sql: str) -> bool:
    """Return whether a statement certainly changes nothing and takes no lock, so that
    it may be sent again after a lost connection.

    Conservative; see ``why_no_read``.
    """
    return not why_no_read(sql)


def why_no_read(sql: str) -> str:
    """Return why a statement is not known to be a read; empty if it is.

    Conservative: a SELECT that calls a function which is not built in is not known to
    be a read, because a stored function may write; nor is one with a backslash, whose
    meaning depends on the SQL mode.

    Example:
        >>> why_no_read("SELECT GET_LOCK('a', 1)")
        'GET_LOCK() takes a lock'
    """
    return _cached_why_no_read(sql) if len(sql) <= _LONGEST_CACHED else _why_no_read(sql)


def _why_no_read(sql: str) -> str:
    bare = lexer.code(sql).lstrip("( \n\t").rstrip("; \n\t")
    first = re.match(r"[A-Za-z]+", bare)
    if first is None or first[0].upper() not in _READS:
        return f"{first[0].upper() if first else 'the statement'} is not known to be a read"
    if "\\" in sql:
        return "the meaning of a backslash depends on the SQL mode"
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


#: Most statements of a program are the same ones again, with other parameters.
_cached_why_no_read = lru_cache(maxsize=1024)(_why_no_read)


def _unknown_call(known: AbstractSet[str], bare: str) -> str:
    """Return why a called function is not among the known ones; empty if all are.

    A qualified name is always that of a stored function.
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


#: Functions known not to change session state.
_KEEPS_SESSION = (functions.KNOWN_READS | functions.NOT_READS.keys()) - functions.SESSION_FUNCTIONS


#: Statements that do not change an open transaction when they fail, unless the error
#: rolls it back as a whole.
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

# Other committing statements, recognised by more than their first word.
_COMMITS = re.compile(
    r"(?i)^[\s(;]*(?:LOAD\s+INDEX|START\s+(?!TRANSACTION\b)|UNLOCK\s+TABLES?"
    r"|SET\s+(?:PASSWORD|DEFAULT\s+ROLE)|SET\b.*\bAUTOCOMMIT)\b",
    re.S,
)


#: Statements whose effect on a transaction is visible in their text. Others call a
#: procedure, execute another text, or are compound statements.
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


# Session changes that the server does not report, or only since MariaDB 10.2 and MySQL
# 5.7.
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

# The table and column list of an INSERT, which looks like a function call.
_INTO_TABLE = re.compile(
    r"(?i)^[\s(;]*(?:INSERT|REPLACE)\s+(?:(?:LOW_PRIORITY|DELAYED|HIGH_PRIORITY|IGNORE|INTO)\s+)*"
    r"[\w$]+(?:\s*\.\s*[\w$]+)?\s*(?=\()"
)

_CONTROL = re.compile(r"[\s(;]*(?:/\*!\s*)*(BEGIN|START|COMMIT|ROLLBACK|XA)\b", re.I)
_NO_CONTROL = re.compile(
    r"(?i)(?:BEGIN\s+NOT\s|START\s+(?!TRANSACTION)|ROLLBACK\s+(?:WORK\s+)?TO\s)"
)


class Judgement(NamedTuple):
    """The effects of a statement on its session.

    Attributes:
        word: The first word in upper case; empty if it does not begin with a word.
        commits: It commits an open transaction before it begins, as DDL does.
        changes_session: It may change session state.
        control: The word that begins or ends a transaction; empty for others.
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
    """Return whether a statement may change session state: locks, variables, temporary
    tables.

    The server does not report changes after rows, and never locks. Stored functions
    count as changes; functions called by a view or trigger are not detected.
    """
    return judge(sql).changes_session


def refuse_charset_change(sql: str) -> None:
    """Refuse a statement that changes the session's character set, which would allow
    SQL injection through bound parameters.

    Raises:
        InterfaceError: It is such a statement.
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
    """Return the first word of a statement in upper case, ignoring comments; empty if
    there is none.
    """
    return judge(sql).word


def commits(sql: str) -> bool:
    """Return whether a statement commits an open transaction implicitly."""
    return judge(sql).commits


def controls_transaction(sql: str) -> bool:
    """Return whether a statement explicitly begins or ends a transaction.

    ROLLBACK TO SAVEPOINT does neither.
    """
    return bool(judge(sql).control)


def control_word(sql: str) -> str:
    """Return the word that begins or ends a transaction; empty for other statements.

    Example:
        >>> control_word("/*!50000 commit */")
        'COMMIT'
    """
    return judge(sql).control


def judge(sql: str) -> Judgement:
    """Return the effects of a statement on its session, by its text.

    If a backslash has two possible meanings, depending on the SQL mode, the effects of
    both are combined.
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


# Statements that affect only their session: outside a block the next call may use
# another one.
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
    """Return the words of a statement that begins or ends a transaction or locks
    tables, and so affects only its session; empty for other statements.

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
