"""A lexer that finds string literals, quoted names and comments in SQL.

It has no grammar. The rules are those of MySQL and MariaDB (MySQL manual, "String
Literals", "Schema Object Names", "Comments").
"""

import enum
import re
from typing import Iterator, NamedTuple, Optional


class Kind(enum.Enum):
    """The kind of a token. The text between two tokens is plain code."""

    #: ``'text'``, with a quote written twice or, where backslashes escape, as ``\\'``.
    TEXT = "text"
    #: ``"text"``, or a name in the SQL mode ANSI_QUOTES.
    DOUBLE_QUOTED = "double"
    #: A name in backticks.
    NAME = "name"
    #: ``-- text`` and ``# text`` to the end of the line, and ``/* text */``.
    COMMENT = "comment"
    #: ``/*!``, ``/*M!`` and the version after it: some servers run what follows.
    EXECUTABLE = "executable"


class Token(NamedTuple):
    """A part of a statement.

    Attributes:
        kind: What it is.
        start: Its first character.
        stop: The character after its last.
        closed: It is terminated, rather than running into the end of the statement.
    """

    kind: Kind
    start: int
    stop: int
    closed: bool = True


def _quoted(kind: Kind, quote: str, *, escapes: bool) -> str:
    """Return the pattern of quoted text; unterminated text extends to the end."""
    if escapes:
        inside = rf"[^{quote}\\]*(?:(?:{quote}{quote}|\\(?:.|\Z))[^{quote}\\]*)*"
    else:
        inside = rf"[^{quote}]*(?:{quote}{quote}[^{quote}]*)*"
    return rf"(?P<{kind.name}>{quote}{inside}(?:(?P<{kind.name}_END>{quote})|\Z))"


def _pattern(*, backslash_escapes: bool) -> "re.Pattern[str]":
    # The first match wins. "--" begins a comment only before a space or control
    # character.
    parts = [
        _quoted(Kind.TEXT, "'", escapes=backslash_escapes),
        _quoted(Kind.DOUBLE_QUOTED, '"', escapes=backslash_escapes),
        _quoted(Kind.NAME, "`", escapes=False),
        rf"(?P<{Kind.EXECUTABLE.name}>/\*M?!\d*)",
        rf"(?P<{Kind.COMMENT.name}>/\*.*?(?:(?P<{Kind.COMMENT.name}_END>\*/)|\Z)"
        r"|(?:--(?=[\s\x00-\x1f\x7f]|\Z)|\#)[^\n]*)",
    ]
    return re.compile("|".join(parts), re.S)


_PATTERNS = {escapes: _pattern(backslash_escapes=escapes) for escapes in (True, False)}


def tokens(sql: str, *, backslash_escapes: bool = True) -> Iterator[Token]:
    """Find literals, quoted names and comments.

    Args:
        sql: The statement.
        backslash_escapes: A backslash in quoted text escapes the next character, as it
            does unless the SQL mode has NO_BACKSLASH_ESCAPES.

    Yields:
        The tokens, in order. The end of an executable comment, ``*/``, is plain code,
        and so is what is in it.

    Example:
        >>> [token.kind.value for token in tokens("SELECT 'a', `b` -- c")]
        ['text', 'name', 'comment']
    """
    for found in _PATTERNS[backslash_escapes].finditer(sql):
        yield _token(found)


def token_at(sql: str, position: int, *, backslash_escapes: bool = True) -> Optional[Token]:
    """The token that begins at a position outside of all others; None for plain code.

    Args:
        sql: The statement.
        position: Where it would begin.
        backslash_escapes: As for ``tokens``.

    Example:
        >>> token_at("SELECT 'a'", 7).stop
        10
    """
    found = _PATTERNS[backslash_escapes].match(sql, position)
    return None if found is None else _token(found)


def _token(found: "re.Match[str]") -> Token:
    kind = Kind[found.lastgroup.removesuffix("_END")]  # type: ignore[union-attr]
    return Token(kind, found.start(), found.end(), _is_closed(kind, found))


def _is_closed(kind: Kind, found: "re.Match[str]") -> bool:
    if kind is Kind.EXECUTABLE:
        return True
    if kind is Kind.COMMENT and not found[0].startswith("/*"):
        return True
    return found[f"{kind.name}_END"] is not None


#: The replacement of each kind in ``code``.
_STAND_INS = {
    Kind.TEXT: " '' ",
    Kind.DOUBLE_QUOTED: " quoted ",
    Kind.NAME: " quoted ",
    Kind.COMMENT: " ",
    Kind.EXECUTABLE: " /*! ",
}


def code(sql: str, *, backslash_escapes: bool = True) -> str:
    """Return a statement without the contents of its comments and quoted texts.

    A literal becomes ``''``, a quoted name ``quoted``, and a comment a space;
    unterminated tokens are kept.

    Args:
        sql: The statement.
        backslash_escapes: As for ``tokens``.

    Example:
        >>> code("SELECT 'INTO' /* x */ FROM `t`")
        "SELECT  ''   FROM  quoted"
    """
    parts = []
    position = 0
    for token in tokens(sql, backslash_escapes=backslash_escapes):
        parts.append(sql[position : token.start])
        parts.append(_STAND_INS[token.kind] if token.closed else sql[token.start : token.stop])
        position = token.stop
    return "".join([*parts, sql[position:]]).strip()


def executed_code(sql: str, *, backslash_escapes: bool = True) -> str:
    """Like ``code``, but with the contents of executable comments and quoted names.

    Example:
        >>> executed_code("/*!40101 SET `autocommit` = 0 */").split()
        ['SET', 'autocommit', '=', '0']
    """
    parts = []
    position = 0
    for token in tokens(sql, backslash_escapes=backslash_escapes):
        parts.append(sql[position : token.start].replace("*/", " "))
        text = sql[token.start : token.stop]
        if token.kind is Kind.NAME and text[1:-1].isidentifier():
            parts.append(text[1:-1])
        elif token.kind is Kind.EXECUTABLE:
            parts.append(" ")
        else:
            parts.append(_STAND_INS[token.kind] if token.closed else text)
        position = token.stop
    return "".join([*parts, sql[position:].replace("*/", " ")]).strip()


def masked(sql: str, *, backslash_escapes: bool = True) -> str:
    """Return a statement with ``~`` for each character of quoted texts and names.

    Positions do not change. Comments and unterminated tokens are kept.

    Example:
        >>> masked("VALUES ('a)')")
        'VALUES (~~~~)'
    """
    parts = []
    position = 0
    for token in tokens(sql, backslash_escapes=backslash_escapes):
        hidden = token.closed and token.kind not in (Kind.COMMENT, Kind.EXECUTABLE)
        parts.append(sql[position : token.start])
        text = sql[token.start : token.stop]
        parts.append("~" * len(text) if hidden else text)
        position = token.stop
    return "".join([*parts, sql[position:]])


def without_comments(sql: str, *, backslash_escapes: bool = True) -> str:
    """A statement with a space in place of each comment. Executable ones stay.

    Example:
        >>> without_comments("ALTER TABLE/* x */t ADD a INT -- y")
        'ALTER TABLE t ADD a INT'
    """
    parts = []
    position = 0
    for token in tokens(sql, backslash_escapes=backslash_escapes):
        if token.kind is Kind.COMMENT and token.closed:
            parts.append(sql[position : token.start] + " ")
            position = token.stop
    return "".join([*parts, sql[position:]]).strip()
