"""A SQL file as its statements, as the servers' own clients split it.

``DELIMITER`` is a command of the clients, which the servers do not know. The body of a
routine needs none here: its end is found by its blocks.
"""

import hashlib
import re
from typing import Iterable, List, NamedTuple, Tuple

from .. import errors
from ..sql import lexer


class ScriptStatement(NamedTuple):
    """One statement of a script.

    Attributes:
        text: The statement, without the comments before it.
        line: The line on which it begins, from 1.
    """

    text: str
    line: int


#: What is neither quoted nor a comment, and the commands of clients.
_CODE = re.compile(
    r"(?P<delimiter>^[ \t]*DELIMITER[ \t]+(?P<new>\S+)[^\n]*)"
    r"|(?P<command>^[ \t]*(?:SOURCE[ \t]|\\\.)[^\n]*)"
    r"|(?P<word>[^\W\d]\w*)|(?P<space>\n|[^\S\n]+)|(?P<other>.)",
    re.S | re.M | re.I,
)

#: What makes a routine, whose body has statements of its own.
_ROUTINE = re.compile(
    r"CREATE\b(?:(?!\b(?:TABLE|VIEW|INDEX)\b).)*?\b(?:PROCEDURE|FUNCTION|TRIGGER|EVENT|PACKAGE)\b"
    r"|ALTER\b(?:(?!\bTABLE\b).)*?\bEVENT\b"
    r"|BEGIN NOT ATOMIC\b",
    re.S | re.I,
)

#: Words that a statement of a body follows.
_BEFORE_STATEMENT = {";", ":", ")", "THEN", "ELSE", "BEGIN", "LOOP", "DO", "REPEAT", "ROW"}
#: Words that open a block wherever they stand, and at the beginning of a statement.
_OPENING = {"BEGIN", "CASE"}
_OPENING_STATEMENT = {"IF", "LOOP", "WHILE", "REPEAT"}


class _Splitter:
    def __init__(self, script: str, *, backslash_escapes: bool) -> None:
        self._script = script
        self._backslash_escapes = backslash_escapes
        self._delimiter = ";"
        self._found: List[ScriptStatement] = []
        self._begin()

    def _begin(self) -> None:
        self._start = -1  # of the statement; -1 before its first character
        self._depth = 0
        self._words: List[str] = []  # the first of it, by which a routine is known
        self._before = ""  # the word or character before
        self._is_routine = False

    def statements(self) -> List[ScriptStatement]:
        position = 0
        script = self._script
        while position < len(script):
            if script.startswith(self._delimiter, position) and not self._is_inside():
                self._finish(position)
                position += len(self._delimiter)
                continue
            token = lexer.token_at(script, position, backslash_escapes=self._backslash_escapes)
            position = self._take_code(position) if token is None else self._take_token(token)
        if self._is_inside():
            raise self._error(self._start, "its block is not closed by END")
        self._finish(position)
        return self._found

    def _is_inside(self) -> bool:
        return self._depth > 0 and self._delimiter == ";"

    def _take_token(self, token: lexer.Token) -> int:
        """What is quoted, or a comment. Returns where it ends."""
        if not token.closed:
            raise self._error(token.start, "a quotation mark or comment is not closed")
        if token.kind is lexer.Kind.COMMENT:
            return token.stop
        if self._start < 0:
            self._start = token.start
        if token.kind is not lexer.Kind.EXECUTABLE:  # the servers run what follows
            self._count(self._script[token.start : token.stop])
        return token.stop

    def _take_code(self, position: int) -> int:
        """A word, a character or a client's command. Returns where it ends."""
        found = _CODE.match(self._script, position)
        assert found is not None
        if found["delimiter"] is not None and not self._is_inside():
            self._finish(position)
            self._delimiter = found["new"]
        elif found["command"] is not None and self._start < 0:
            raise self._error(
                position, f"{found[0].strip()!r} is a command of a client, not of a server"
            )
        elif found["space"] is None:
            if self._start < 0:
                self._start = position
            self._count(found[0].upper())
        return found.end()

    def _count(self, word: str) -> None:
        if len(self._words) < 24 and not self._is_routine:
            self._words.append(word)
            self._is_routine = bool(_ROUTINE.match(" ".join(self._words)))
            self._depth = int(self._is_routine and self._words[0] == "BEGIN")
        if self._is_routine:
            self._depth += self._change(word)
        self._before = word

    def _change(self, word: str) -> int:
        """By how much a word opens or closes blocks."""
        if self._before in (".", "@"):
            return 0
        if word == "END":
            return -1 if self._depth else 0
        opens = word in _OPENING or (
            word in _OPENING_STATEMENT and self._before in _BEFORE_STATEMENT
        )
        return int(opens and self._before != "END")  # END IF: the END has closed it

    def _finish(self, end: int) -> None:
        if self._start >= 0:
            text = self._script[self._start : end].strip()
            self._found.append(ScriptStatement(text, self._line(self._start)))
        self._begin()

    def _line(self, position: int) -> int:
        return self._script.count("\n", 0, position) + 1

    def _error(self, position: int, what: str) -> errors.ParameterError:
        return errors.ParameterError(f"line {self._line(position)} of the script: {what}")


def split(script: str, *, backslash_escapes: bool = True) -> List[ScriptStatement]:
    """The statements of a script.

    Args:
        script: The text of a SQL file.
        backslash_escapes: As for the lexer of SQL.

    Raises:
        ParameterError: A quotation mark, a comment or a block is not closed, or there
            is a command of a client other than ``DELIMITER``.

    Example:
        >>> [each.text for each in split("SELECT 1; -- one\\nSELECT ';';")]
        ['SELECT 1', "SELECT ';'"]
    """
    if not isinstance(script, str):
        raise errors.ParameterError(f"a script must be str, not {type(script).__name__}")
    return _Splitter(
        script.replace("\r\n", "\n").lstrip("\ufeff"), backslash_escapes=backslash_escapes
    ).statements()


def digest(texts: Iterable[str]) -> str:
    """A hash of statements, which does not change with comments between them."""
    joined = "\0".join(texts)
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()


_BARE_OR_QUOTED = r"(?:`(?:[^`]|``)+`|[\w$]+)"
_TABLE = rf"({_BARE_OR_QUOTED}(?:\s*\.\s*{_BARE_OR_QUOTED})?)"
_ALTER = re.compile(rf"ALTER\s+(?:ONLINE\s+|IGNORE\s+)*TABLE\s+(?:IF\s+EXISTS\s+)?{_TABLE}", re.I)
# DROP INDEX keeps nobody waiting, and takes no ALGORITHM in MariaDB.
_INDEX = re.compile(
    r"CREATE\s+(?:OR\s+REPLACE\s+)?(?:ONLINE\s+)?(?:UNIQUE\s+|FULLTEXT\s+|SPATIAL\s+)?INDEX"
    rf"\s.*?\sON\s+{_TABLE}",
    re.I | re.S,
)
_HOW = re.compile(
    r"\b(?:ALGORITHM|LOCK)\s*=?\s*(?:DEFAULT|INSTANT|INPLACE|NOCOPY|COPY|NONE|"
    r"SHARED|EXCLUSIVE)\b",
    re.I,
)


def altered_table(statement: str, *, backslash_escapes: bool = True) -> str:
    """The table that a statement alters, as it is written there; empty for a statement
    that alters none, or says itself how (``ALGORITHM``, ``LOCK``).

    Args:
        statement: The statement.
        backslash_escapes: As for the lexer of SQL.
    """
    plain = lexer.without_comments(statement, backslash_escapes=backslash_escapes)
    found = _ALTER.match(plain) or _INDEX.match(plain)
    says_how = _HOW.search(lexer.code(plain, backslash_escapes=backslash_escapes))
    return found[1] if found is not None and not says_how else ""


def online_forms(statement: str, *, backslash_escapes: bool = True) -> Tuple[str, str]:
    """An altering statement as it must be done at once, and as it must be done without
    keeping writers waiting.

    Args:
        statement: The statement. Its comments are left out: the last of them would
            hide what is added.
        backslash_escapes: As for the lexer of SQL.
    """
    plain = lexer.without_comments(statement, backslash_escapes=backslash_escapes)
    comma = ", " if _ALTER.match(plain) else " "
    instant = f"{plain}{comma}ALGORITHM=INSTANT"
    return instant, f"{plain}{comma}ALGORITHM=INPLACE{comma}LOCK=NONE"
