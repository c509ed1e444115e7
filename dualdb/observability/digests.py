"""Statements without their values, and the figures of each."""

import re
from functools import lru_cache
from hashlib import blake2b
from typing import List, NamedTuple

from ..sql.lexer import Kind, Token, tokens

#: Only so many characters of a statement count.
LONGEST_SOURCE = 8192
#: Longer statements are not kept with their digests.
LONGEST_CACHED = 2048
#: The length of a digest's text.
LONGEST_TEXT = 1024


class Digest(NamedTuple):
    """A statement without its values.

    Attributes:
        statement: The statement with ``?`` in place of its values.
        id: Identifies it: 16 hexadecimal digits.
    """

    statement: str
    id: str


def digest_of(sql: str) -> Digest:
    """Return a statement without its values.

    Statements that differ in literals, comments, white space, or the number of values
    in a list, have the same digest.

    Args:
        sql: The statement, with placeholders or literals.

    Example:
        >>> digest_of("SELECT a FROM t WHERE b IN (1, 2) AND c = 'x'").statement
        'SELECT a FROM t WHERE b IN (?) AND c = ?'
    """
    return _cached(sql) if len(sql) <= LONGEST_CACHED else _digest(sql[: LONGEST_SOURCE + 1])


def _digest(sql: str) -> Digest:
    text = _normalized(sql[:LONGEST_SOURCE])
    if len(sql) > LONGEST_SOURCE:
        text = _PARTIAL_END.sub("", text) + " ..."
    if len(text) > LONGEST_TEXT:
        text = text[:LONGEST_TEXT] + "..."
    return Digest(text, blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest())


_cached = lru_cache(maxsize=1024)(_digest)

_VALUE_KINDS = (Kind.TEXT, Kind.DOUBLE_QUOTED)

#: Numbers, which are not part of a name, and placeholders.
_VALUES = re.compile(
    r"(?<![\w$@.`])(?:0[xX][0-9a-fA-F]+|0b[01]+|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)(?![\w$`])"
    r"|(?<=\w)\.\d+(?![\w$`])"
    r"|%s|%\(\w+\)s"
)
#: Each with its replacement, in this order.
_REPLACEMENTS = [
    # x'00', N'text', _utf8mb4'text', and texts that are written one after the other
    (re.compile(r"(?<![\w$@])(?:[xXbBnN]|_\w+\s*)\?"), "?"),
    (re.compile(r"\?(?:\s*\?)+"), "?"),
    (re.compile(r"\s+"), " "),
    (re.compile(r"([=<>(,] ?|\b(?:THEN|ELSE|BETWEEN|AND|SELECT) )[-+] ?\?", re.I), r"\1?"),
    (re.compile(r"([=(,] ?)(?:NULL|TRUE|FALSE)\b(?=\s*[,)]|\s*$)", re.I), r"\1?"),
    (re.compile(r" ?, ?"), ", "),
    (re.compile(r"\( +"), "("),
    (re.compile(r" +\)"), ")"),
    (re.compile(r"\?(?:, \?)+"), "?"),
    (re.compile(r"\(\?\)(?:, \(\?\))+"), "(?)"),
]
#: What is left of a list that has been cut off.
_PARTIAL_END = re.compile(r"(?:,? ?\(?[?, ]*)?$")


def _normalized(sql: str) -> str:
    parts: List[str] = []
    position = 0
    for token in _certain_tokens(sql):
        parts.append(_code(sql[position : token.start]))
        parts.append(_stand_in(sql, token))
        position = token.stop
    text = "".join([*parts, _code(sql[position:])])
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    return text.strip(" ;")


def _certain_tokens(sql: str) -> List[Token]:
    """Return the tokens; from the first on that depends on the SQL mode, one unclosed
    text, so that no part of a literal is taken for code.
    """
    found = list(tokens(sql))
    if "\\" not in sql:
        return found
    other = list(tokens(sql, backslash_escapes=False))
    for number, token in enumerate(found):
        if number >= len(other) or token != other[number]:
            return [*found[:number], Token(Kind.TEXT, token.start, len(sql), closed=False)]
    return found


def _code(text: str) -> str:
    return _VALUES.sub("?", text).replace("%%", "%")


def _stand_in(sql: str, token: Token) -> str:
    if token.kind in _VALUE_KINDS:
        return "?"
    if token.kind is Kind.NAME and token.closed:
        return sql[token.start : token.stop]
    return " "
