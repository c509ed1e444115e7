"""Splitting many rows into commands that fit max_allowed_packet: an INSERT of several
rows, or several statements.
"""

import contextlib
import itertools
import re
from typing import Iterable, Iterator, List, NamedTuple, Optional, Tuple

from ..errors import ParameterError
from . import lexer
from .literals import DEFAULT_STYLE, LiteralStyle, is_refused_by_style, refused_by_style
from .parameters import Params, bind, has_placeholders, text_of

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


#: The most statements of a command. More are hardly faster, and the server's answers
#: must fit into the buffers of the connection while the command is still being sent.
MOST_STATEMENTS = 256
#: On a line of its own, because a statement may end with a comment.
SEPARATOR = "\n;\n"
_BATCHED = re.compile(r"(?is)\s*(?:INSERT|REPLACE|UPDATE|DELETE|SELECT)\b[^;]*")


def can_be_batched(sql: str) -> bool:
    """Return whether a statement can be sent together with others.

    It must be certain where it ends, and that it is one. Only statements that give one
    result each are.

    Example:
        >>> can_be_batched("UPDATE t SET a = 'x;y' WHERE id = %s")
        True
        >>> can_be_batched("UPDATE t SET a = 1; DROP TABLE t")
        False
    """
    masked = lexer.masked(sql)
    return "\\" not in sql and not _NOT_BULK.search(masked) and bool(_BATCHED.fullmatch(masked))


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
    """Rows that one command writes.

    Attributes:
        sql: The statement, with its placeholders.
        texts: The rows as SQL, for sessions with backslash escapes; None if invalid
            there.
        plain: The rows as SQL, for sessions without them (NO_BACKSLASH_ESCAPES).
        first: The number of its first row, counted from 0 over all chunks.
        is_batch: Each row has a statement of its own.
    """

    sql: str
    texts: Tuple[Optional[str], ...]
    plain: Tuple[Optional[str], ...]
    first: int
    is_batch: bool = False

    def text(self, *, backslash_escapes: bool = True) -> str:
        """Return the statement with its rows, or the statements.

        Args:
            backslash_escapes: The style of the session.

        Raises:
            ParameterError: A row is invalid in this style.
        """
        rows = self.rows(backslash_escapes=backslash_escapes)
        if self.is_batch:
            return SEPARATOR.join(rows)
        head, _, tail = _parts(self.sql) or ("", self.sql, "")
        return head + ",".join(rows) + tail

    def rows(self, *, backslash_escapes: bool = True) -> List[str]:
        """Return its rows as SQL; see ``text``."""
        rows: List[str] = []
        for row in self.texts if backslash_escapes else self.plain:
            if row is None:
                raise refused_by_style(
                    "a placeholder is within quotes in the literal style of this session"
                )
            rows.append(row)
        return rows


class Chunks:
    """Groups rows into chunks.

    Rows of an ``INSERT ... VALUES (%s, ...)`` are one statement, and other statements
    that write rows are sent together, both up to the limits; rows of any other
    statement are chunks of one. A row that exceeds the limit alone is a chunk, which
    the server may reject.

    Args:
        sql: The statement for one row.
        most_rows: The most rows of a chunk.
        most_bytes: The most bytes of a chunk of several rows.
        style: How the session parses literals.
    """

    def __init__(
        self, sql: str, most_rows: int, most_bytes: int, style: LiteralStyle = DEFAULT_STYLE
    ) -> None:
        sql = text_of(sql)
        parts = _parts(sql)
        head, self._template, tail = parts or ("", sql, "")
        self._sql = sql
        self._is_batch = parts is None and can_be_batched(sql)
        self._most_rows = most_rows
        self._gap = len(SEPARATOR if self._is_batch else ",")
        if parts is None:
            self._most_rows = min(most_rows, MOST_STATEMENTS) if self._is_batch else 1
        self._room = most_bytes - len(head + tail) * 4
        self._style = style
        self._texts: List[Optional[str]] = []
        self._plain: List[Optional[str]] = []
        self._first = self._size = 0

    def add(self, params: Params) -> Optional[Chunk]:
        """Add a row.

        Args:
            params: The row's parameters.

        Returns:
            The chunk of the rows before it, if it does not fit into that chunk.

        Raises:
            ParameterError: The row does not match the statement; the message has its
                number, from 0.
        """
        number = self._first + len(self._texts)
        if params is None:
            raise ParameterError(f"row {number}: a row must be a tuple, list or mapping, not None")
        try:
            text = bind(self._template, params, self._style)
            # The style is known only when it is sent, and the caller may modify the row
            # until then, so both texts are made now.
            other = self._in_the_other_style(params) if "\\" in text else text
        except ParameterError as error:
            raise ParameterError(f"row {number}: {error.args[0]}") from error.__cause__
        length = (
            len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        ) + self._gap
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
        except ParameterError as error:
            if not is_refused_by_style(error):
                raise
            return None

    def rest(self) -> Optional[Chunk]:
        """Remove and return the chunk of the remaining rows; None if there are none."""
        if not self._texts:
            return None
        chunk = Chunk(
            self._sql, tuple(self._texts), tuple(self._plain), self._first, self._is_batch
        )
        self._first += len(self._texts)
        self._texts = []
        self._plain = []
        self._size = 0
        return chunk


class ChunksAhead:
    """The chunks of rows, each of which may be made before it is asked for.

    Args:
        chunks: Groups the rows.
        rows: The parameters of each.
    """

    def __init__(self, chunks: Chunks, rows: Iterable[Params]) -> None:
        self._chunks = chunks
        self._rows = iter(rows)
        self._failed: Tuple[Params, ...] = ()
        self._ahead: Optional[Chunk] = None

    def prepare(self) -> None:
        """Make the next chunk, unless that was done. A row that fails is tried again
        when the chunk is asked for, so that its error is raised then, if it has one
        then: its values may be looked up on the connection that is in use now.
        """
        if self._ahead is None:
            with contextlib.suppress(Exception):
                self._ahead = self._make()

    def __iter__(self) -> Iterator[Chunk]:
        chunk = self._make()
        while chunk is not None:
            yield chunk
            chunk = self._ahead or self._make()
            self._ahead = None

    def _make(self) -> Optional[Chunk]:
        rows = itertools.chain(self._failed, self._rows)
        params = None
        try:
            for params in rows:
                full = self._chunks.add(params)
                if full is not None:
                    self._failed = ()
                    return full
        except Exception:
            self._failed = (params,)
            raise
        self._failed = ()
        return self._chunks.rest()
