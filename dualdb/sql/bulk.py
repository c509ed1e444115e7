"""Cutting the rows of an INSERT into statements that the server takes."""

import re
from typing import Any, List, NamedTuple, Optional, Tuple

from ..errors import ParameterError
from .parameters import _placeholders, bind

_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`")


# One table, its columns, VALUES, one row, and ON DUPLICATE KEY UPDATE or the like. ~
# stands for what is quoted.
_BULK = re.compile(
    r"(?is)(\s*(?:INSERT|REPLACE)\s+(?:(?:LOW_PRIORITY|DELAYED|HIGH_PRIORITY|IGNORE)\s+)*(?:INTO\s+)?[\w$~]+(?:\s*\.\s*[\w$~]+)?\s*"
    r"(?:PARTITION\s*\([^()]*\)\s*)?(?:\([^()]*\)\s*)?VALUES?\s*)"
    r"(\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))(\s*(?:(?:ON\s+DUPLICATE|AS|RETURNING)\b.*)?;?\s*)"
)


# A backslash may or may not hide the end of a text; of a comment it is not certain
# where it ends; and each row would see the one before.
_NOT_BULK = re.compile(r"(?i)[\\'\"`#]|--|/\*")


_ROW_BY_ROW = re.compile(r"(?i)\b(?:LAST_INSERT_ID|ROW_COUNT|FOUND_ROWS|SELECT)\b|@")


def _bulk(sql: str) -> Optional[Tuple[str, str, str]]:
    """What stands before a row, the row, and what stands after; None where the
    statement does not take several rows.
    """
    bare = _QUOTED.sub(lambda quoted: "~" * len(quoted[0]), sql)
    found = _BULK.fullmatch(bare)
    if found is None or "\\" in sql or _NOT_BULK.search(bare) or _ROW_BY_ROW.search(found[2]):
        return None
    head, row, tail = [sql[slice(*found.span(part))] for part in (1, 2, 3)]
    if any(_placeholders(part) != ([], 0) for part in (head, tail)):
        return None
    return head % (), row, tail % ()


class Chunk(NamedTuple):
    """Rows that are written by one statement: from row number ``first`` on, of all that
    were given.

    ``texts`` are the rows, ``plain`` the same where a backslash is no more than a
    backslash.
    """

    sql: str
    texts: Tuple[str, ...]
    plain: Tuple[str, ...]
    first: int

    def text(self, *, backslash_escapes: bool = True) -> str:
        head, _, tail = _bulk(self.sql) or ("", self.sql, "")
        return head + ",".join(self.texts if backslash_escapes else self.plain) + tail


class Chunks:
    """Cuts rows, given one by one, into chunks: those of an ``INSERT ... VALUES (%s,
    ...)`` by so many, as long as several make no statement of more than so many bytes;
    others one by one. A row that is longer alone is a chunk of its own: whether the
    server takes it is seen when it is sent.
    """

    def __init__(self, sql: str, most_rows: int, most_bytes: int) -> None:
        bulk = _bulk(sql) if isinstance(sql, str) else None
        head, self._template, tail = bulk or ("", sql, "")
        self._sql = sql
        self._most_rows = most_rows if bulk else 1
        self._room = most_bytes - len(head + tail) * 4
        self._texts: List[str] = []
        self._plain: List[str] = []
        self._first = self._size = 0

    def add(self, params: Any) -> Optional[Chunk]:
        """Take one more row; gives the chunk of those before it, where it does not go
        with them.

        Raises:
            ParameterError: the row does not fit the statement; told with its number,
                from 0.
        """
        number = self._first + len(self._texts)
        if params is None:
            raise ParameterError(f"row {number}: a row is a tuple, list or mapping, not None")
        try:
            text = bind(self._template, params)
        except ParameterError as error:
            raise ParameterError(f"row {number}: {error.args[0]}") from None
        length = (len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))) + 1
        full = (
            self.rest()
            if len(self._texts) >= self._most_rows or self._size + length > self._room
            else None
        )
        self._texts.append(text)
        # Which of the two is right is known when it is sent, and the caller may use his
        # row for the next one until then.
        self._plain.append(
            text if "\\" not in text else bind(self._template, params, backslash_escapes=False)
        )
        self._size += length
        return full

    def rest(self) -> Optional[Chunk]:
        """The chunk of what has been taken and not yet given."""
        if not self._texts:
            return None
        chunk = Chunk(self._sql, tuple(self._texts), tuple(self._plain), self._first)
        self._texts, self._plain, self._size, self._first = (
            [],
            [],
            0,
            self._first + len(self._texts),
        )
        return chunk
