"""Statements without their values, and the figures of each."""

import math
import re
import threading
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Dict, List, Literal, Mapping, NamedTuple

from ..sql.lexer import Kind, Token, tokens
from .events import QueryEvent

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
    (re.compile(r"(= ?)(?:NULL|TRUE|FALSE)\b", re.I), r"\1?"),
    (re.compile(r"([(,] ?)(?:NULL|TRUE|FALSE)\b(?= ?[,)])", re.I), r"\1?"),
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


class DigestStats(NamedTuple):
    """The figures of one statement.

    Attributes:
        statement: The statement with ``?`` in place of its values.
        digest: Identifies it.
        calls: The number of calls.
        errors: How many of them failed.
        rows: The rows they read or affected.
        total: Their seconds.
        waited: The seconds of them that were spent waiting for a connection.
        mean: The mean of their seconds.
        p95: The seconds that 95 % of them did not exceed, a tenth too high at most.
        longest: The seconds of the longest.
    """

    statement: str
    digest: str
    calls: int
    errors: int
    rows: int
    total: float
    waited: float
    mean: float
    p95: float
    longest: float

    def as_dict(self) -> Dict[str, Any]:
        """Return it as a dict of plain values, for ``json.dumps``."""
        return self._asdict()


#: The orders of ``DigestTable.top``.
DigestOrder = Literal["total", "mean", "p95", "longest", "calls", "errors", "rows", "waited"]

#: The statement of the calls that are not counted by statement.
OTHER = Digest("(other statements)", "0" * 16)


class _Figures:
    """The counters of one statement."""

    __slots__ = ("buckets", "count", "digest", "errors", "longest", "rows", "total", "waited")

    def __init__(self, digest: Digest) -> None:
        self.digest = digest
        self.count = self.errors = self.rows = 0
        self.total = self.waited = self.longest = 0.0
        #: The number of calls by the logarithm of their seconds.
        self.buckets: Dict[int, int] = {}

    def stats(self) -> DigestStats:
        """Return them as they are now."""
        return DigestStats(
            *self.digest,
            self.count,
            self.errors,
            self.rows,
            self.total,
            self.waited,
            self.total / self.count,
            min(self.longest, percentile(self.buckets, 0.95)),
            self.longest,
        )


class DigestTable:
    """Counts calls by statement, in bounded memory.

    Args:
        most: The number of statements that are counted by themselves; calls of further
            ones are counted together.
    """

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._figures: Dict[str, _Figures] = {}
        self._lock = threading.Lock()

    def forked(self) -> None:
        """Reset the lock in a forked child."""
        self._lock = threading.Lock()

    def add(self, event: QueryEvent) -> None:
        """Count a call that has ended."""
        seconds = event.waited + event.ran
        with self._lock:
            figures = self._figures.get(event.digest) or self._new(event)
            figures.count += 1
            figures.total += seconds
            figures.waited += event.waited
            figures.longest = max(figures.longest, seconds)
            if event.error is not None:
                figures.errors += 1
            if event.rows:
                figures.rows += event.rows
            bucket = bucket_of(seconds)
            figures.buckets[bucket] = figures.buckets.get(bucket, 0) + 1

    def _new(self, event: QueryEvent) -> _Figures:
        digest = Digest(event.statement, event.digest)
        if len(self._figures) >= self._most:
            digest = OTHER
        return self._figures.setdefault(digest.id, _Figures(digest))

    def top(self, limit: int, by: DigestOrder = "total") -> List[DigestStats]:
        """Return the statements with the highest figures.

        Args:
            limit: The most statements.
            by: The figure.
        """
        with self._lock:
            found = [figures.stats() for figures in self._figures.values()]
        return sorted(found, key=lambda stats: float(getattr(stats, by)), reverse=True)[:limit]


#: Buckets for each doubling: 8 of them are 9 % wide.
_PER_DOUBLING = 8


def bucket_of(seconds: float) -> int:
    """Return the bucket of a time: the logarithm of its microseconds."""
    return math.ceil(math.log2(max(seconds, 1e-6) * 1e6) * _PER_DOUBLING)


def percentile(buckets: Mapping[int, int], part: float) -> float:
    """Return the upper bound of the bucket that has a percentile, in seconds.

    Args:
        buckets: The number of times by ``bucket_of``.
        part: The percentile, from 0 to 1.
    """
    left = sum(buckets.values()) * part
    for bucket, count in sorted(buckets.items()):
        left -= count
        if left <= 1e-9:
            return float(2 ** (bucket / _PER_DOUBLING) / 1e6)
    return 0.0
