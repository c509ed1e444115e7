"""Detection of statements that change the session's character set."""

import re
from typing import Iterator, List

from . import lexer

_WORD = re.compile(r"\*/|(?P<word>@@|:=|[@=,;()]|[\w$]+|[^\s\w])")

#: The variables by which a server reads a statement, or writes its answer, and the one
#: by which it says that one of these has changed.
_VARIABLES = frozenset(
    {
        "SESSION_TRACK_SYSTEM_VARIABLES",
        "CHARACTER_SET_CLIENT",
        "CHARACTER_SET_CONNECTION",
        "CHARACTER_SET_RESULTS",
        "COLLATION_CONNECTION",
    }
)
_SESSION = frozenset({"SESSION", "LOCAL"})
_ELSEWHERE = frozenset({"GLOBAL", "PERSIST", "PERSIST_ONLY"})


def changes_charset(sql: str, *, backslash_escapes: bool = True) -> bool:
    """Return whether a SET in the statement changes the session's character set.

    In compound statements (``BEGIN NOT ATOMIC ... END``) every SET counts, even if it
    might not be executed.

    Args:
        sql: The statement, with whatever comments.
        backslash_escapes: As for ``lexer.tokens``.
    """
    if _QUICK.search(sql) is None:
        return False
    words = list(_words(sql, backslash_escapes))
    if words[0] in ("CREATE", "ALTER"):  # of a program that is stored and not run
        return False
    starts = [
        number
        for number, word in enumerate(words)
        if word == "SET" and (number == 0 or words[number - 1] in _BEFORE)
    ]
    return any(_sets_charset(words[start + 1 :]) for start in starts)


_QUICK = re.compile(r"(?i)\bSET\b")
#: What a statement may come after; another SET is a part of one (``UPDATE t SET``).
_BEFORE = frozenset({";", "(", "FOR", "ATOMIC", "BEGIN", "THEN", "ELSE", "DO", "LOOP", "REPEAT"})


def _words(sql: str, backslash_escapes: bool) -> Iterator[str]:
    """Yield words in upper case and signs; ``''`` for literals, and quoted names."""
    position = 0
    for token in lexer.tokens(sql, backslash_escapes=backslash_escapes):
        yield from _words_of_code(sql[position : token.start])
        text = sql[token.start : token.stop]
        if not token.closed:
            yield from _words_of_code(text)
        elif token.kind is lexer.Kind.TEXT:
            yield "''"
        elif token.kind is lexer.Kind.DOUBLE_QUOTED:  # a name, where ANSI_QUOTES is on
            yield text[1:-1].upper()
        elif token.kind is lexer.Kind.NAME:
            yield text[1:-1].replace("``", "`").upper()
        position = token.stop
    yield from _words_of_code(sql[position:])


def _words_of_code(text: str) -> Iterator[str]:
    for found in _WORD.finditer(text):
        if found["word"] is not None:
            yield found["word"].upper()


def _sets_charset(words: List[str]) -> bool:
    """Return whether the assignments after a SET change the character set."""
    item: List[str] = []
    depth = 0
    for word in [*words, ";"]:
        depth += (word == "(") - (word == ")")
        ends = word == ";" or (word in (",", "FOR") and depth == 0)
        if not ends:
            item.append(word)
            continue
        if _item_sets_charset(item[1:] if item[:1] == ["STATEMENT"] else item):
            return True
        if word == ";":
            return False
        item = []
    return False


def _item_sets_charset(item: List[str]) -> bool:
    """Return whether one assignment changes the character set."""
    if item[:1] == ["NAMES"] and item[1:2] not in (["="], [":="]):
        return True
    if item[:2] == ["CHARACTER", "SET"] or item[:1] == ["CHARSET"]:
        return True
    if item[:1] == ["CHAR"] and item[1:2] == ["SET"]:
        return True
    if item[:1] == ["@"]:
        return False
    name = [word for word in item[:5] if word not in ("@@", ".") and word not in _SESSION]
    return bool(name) and name[0] in _VARIABLES and not _ELSEWHERE & set(item[:2])
