"""Cutting the rows of an INSERT into statements that the server takes."""

import re
from typing import List, NamedTuple, Optional, Tuple

from ..errors import ParameterError
from . import lexer
from .literals import DEFAULT_STYLE, LiteralStyle, StyleDependent
from .parameters import Params, bind, has_placeholders

# One table, its columns, VALUES, one row, and ON DUPLICATE KEY UPDATE or the like. ~
# stands for what is quoted.
_BULK = re.compile(
    r"(?is)(\s*(?:INSERT|REPLACE)\s+"
    r"(?:(?:LOW_PRIORITY|DELAYED|HIGH_PRIORITY|IGNORE)\s+)*(?:INTO\s+)?"
    r"[\w$~]+(?:\s*\.\s*[\w$~]+)?\s*"
    r"(?:PARTITION\s*\([^()]*\)\s*)?(?:\([^()]*\)\s*)?VALUES?\s*)"
    r"(\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))"
    r"(\s*(?:(?:ON\s+DUPLICATE|AS|RETURNING)\b.*)?;?\s*)"
)

# A quote that is not closed or a comment, of which it is not certain where it ends.
_NOT_BULK = re.compile(r"['\"`#]|--|/\*")

# Each row would see the one before.
_ROW_BY_ROW = re.compile(r"(?i)\b(?:LAST_INSERT_ID|ROW_COUNT|FOUND_ROWS|SELECT)\b|@")


class _Parts(NamedTuple):
    """An INSERT that takes several rows.

    Attributes:
        head: What stands before a row.
        row: The row, with its placeholders.
        tail: What stands after it.
    """

    head: str
    row: str
    tail: str


def _parts(sql: str) -> Optional[_Parts]:
    """None where the statement does not take several rows."""
    if "\\" in sql:  # which may or may not hide the end of a text
        return None
    masked = lexer.masked(sql)
    found = _BULK.fullmatch(masked)
    if found is None or _NOT_BULK.search(masked) or _ROW_BY_ROW.search(found[2]):
        return None
    head, row, tail = [sql[slice(*found.span(part))] for part in (1, 2, 3)]
    if has_placeholders(head) or has_placeholders(tail):
        return None
    return _Parts(head % (), row, tail % ())


class Chunk(NamedTuple):
    """Rows that are written by one statement.

    Attributes:
        sql: The statement, with its placeholders.
        texts: The rows as SQL; None for one that such a session does not take.
        plain: The same where a backslash is no more than a backslash.
        first: The number of the first row, from 0, of all that were given.
    """

    sql: str
    texts: Tuple[Optional[str], ...]
    plain: Tuple[Optional[str], ...]
    first: int

    def text(self, *, backslash_escapes: bool = True) -> str:
        """The statement with its rows.

        Args:
            backslash_escapes: As the session reads it.

        Raises:
            StyleDependent: Such a session does not take it.
        """
        head, _, tail = _parts(self.sql) or ("", self.sql, "")
        rows: List[str] = []
        for row in self.texts if backslash_escapes else self.plain:
            if row is None:
                raise StyleDependent("a placeholder is within quotes, as this session reads it")
            rows.append(row)
        return head + ",".join(rows) + tail


class Chunks:
    """Cuts rows, given one by one, into chunks: those of an ``INSERT ... VALUES (%s,
    ...)`` by so many, as long as several make no statement of more than so many bytes;
    others one by one. A row that is longer alone is a chunk of its own: whether the
    server takes it is seen when it is sent.

    Args:
        sql: The statement for one row.
        most_rows: Rows in a chunk.
        most_bytes: Bytes in a chunk of several rows.
        style: How the session reads literals.
    """

    def __init__(
        self, sql: str, most_rows: int, most_bytes: int, style: LiteralStyle = DEFAULT_STYLE
    ) -> None:
        parts = _parts(sql) if isinstance(sql, str) else None
        head, self._template, tail = parts or ("", sql, "")
        self._sql = sql
        self._most_rows = most_rows if parts else 1
        self._room = most_bytes - len(head + tail) * 4
        self._style = style
        self._texts: List[Optional[str]] = []
        self._plain: List[Optional[str]] = []
        self._first = self._size = 0

    def add(self, params: Params) -> Optional[Chunk]:
        """Take one more row.

        Args:
            params: The row's parameters.

        Returns:
            The chunk of the rows before it, where it does not go with them.

        Raises:
            ParameterError: The row does not fit the statement; with its number, from 0.
        """
        number = self._first + len(self._texts)
        if params is None:
            raise ParameterError(f"row {number}: a row is a tuple, list or mapping, not None")
        try:
            text = bind(self._template, params, self._style)
            # How it is read is certain when it is sent, and the caller may use his row
            # for the next one until then.
            other = self._in_the_other_style(params) if "\\" in text else text
        except ParameterError as error:
            raise ParameterError(f"row {number}: {error.args[0]}") from error.__cause__
        length = (len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))) + 1
        full = None
        if len(self._texts) >= self._most_rows or self._size + length > self._room:
            full = self.rest()
        escapes = self._style.backslash_escapes
        self._texts.append(text if escapes else other)
        self._plain.append(other if escapes else text)
        self._size += length
        return full

    def _in_the_other_style(self, params: Params) -> Optional[str]:
        style = self._style._replace(backslash_escapes=not self._style.backslash_escapes)
        try:
            return bind(self._template, params, style)
        except StyleDependent:
            return None

    def rest(self) -> Optional[Chunk]:
        """The chunk of what has been taken and not yet given."""
        if not self._texts:
            return None
        chunk = Chunk(self._sql, tuple(self._texts), tuple(self._plain), self._first)
        self._first += len(self._texts)
        self._texts = []
        self._plain = []
        self._size = 0
        return chunk
