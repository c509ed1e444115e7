"""A caller's query as a derived table: ``SELECT ... FROM (query) AS q``. Pure."""

import re
from typing import Any, List, Optional, Tuple

from ..errors import ParameterError
from ..protocol.statements import Statement
from ..sql import classify, lexer, parameters

_PARENTHESES = re.compile(r"[()]")
_QUERY = re.compile(r"(?i)\s*(?:SELECT|WITH|VALUES|TABLE)\b")
# Each of these would apply to the rows of one shard only, or do more than read.
_NOT_DERIVED = re.compile(
    r"(?i)(?<![.\w$@])(LIMIT|OFFSET\s+[\d%]|FETCH\s+(?:FIRST|NEXT)|ORDER\s+BY|INTO|PROCEDURE"
    r"|FOR\s+UPDATE|FOR\s+SHARE|LOCK\s+IN)(?![\w$])"
)
_INSTEAD = {"LIMIT": "use limit=", "ORDER BY": "use order_by="}


def _code(text: str, what: str, comment: str = " ") -> str:
    """Return a text whose quoted parts and comments cannot be taken for code.

    Positions do not change.

    Args:
        text: A query or an expression.
        what: The same, for messages.
        comment: What each character of a comment becomes; one of a quoted part becomes
            ``~``.

    Raises:
        ParameterError: A quoted part or a comment has no end, or ends elsewhere in the
            SQL mode NO_BACKSLASH_ESCAPES; or a comment is executable.
    """
    if re.search(r"/\*M?!", text):
        raise ParameterError(f"{what} has an executable comment, /*! */")
    readings = [_masked(text, comment, backslash_escapes=True)]
    if "\\" in text:
        readings.append(_masked(text, comment, backslash_escapes=False))
    found = [each for each in readings if each is not None]
    if not found:
        raise ParameterError(f"{what} has an unterminated text, name or comment")
    if found[0] != found[-1]:
        raise ParameterError(f"a backslash in {what} is ambiguous: pass the text as a parameter")
    return found[0]


def _masked(text: str, comment: str, *, backslash_escapes: bool) -> Optional[str]:
    """See ``_code``; None where a quoted part or a comment has no end."""
    parts = []
    position = 0
    for token in lexer.tokens(text, backslash_escapes=backslash_escapes):
        if not token.closed:
            return None
        mask = comment if token.kind is lexer.Kind.COMMENT else "~"
        parts.append(text[position : token.start])
        parts.append(mask * (token.stop - token.start))
        position = token.stop
    return "".join([*parts, text[position:]])


def _outermost(bare: str, what: str) -> str:
    """Return the text outside of all parentheses, with ``()`` in place of each pair.

    Raises:
        ParameterError: The parentheses do not match.
    """
    pieces = []
    depth = 0
    end = 0
    for found in _PARENTHESES.finditer(bare):
        if not depth:
            pieces.append(bare[end : found.start()])
        depth += 1 if found[0] == "(" else -1
        end = found.end()
        if depth < 0:
            break
    if depth:
        raise ParameterError(f"the parentheses in {what} do not match")
    return " () ".join([*pieces, bare[end:]])


def body(text: str) -> str:
    """Check that a query can be put in parentheses; return it without its semicolon.

    Raises:
        ParameterError: It is not a single query, or has its own LIMIT, ORDER BY or
            lock, which would apply to each shard separately.
    """
    text = parameters.text_of(text)
    bare = _code(text, "the statement")
    while bare.rstrip().endswith(";"):
        end = len(bare.rstrip()) - 1
        text = text[:end] + " " + text[end + 1 :]
        bare = bare[:end]
    if ";" in bare:
        raise ParameterError("sql has more than one statement")
    if not _QUERY.match(bare):
        raise ParameterError("sql must be a query: SELECT or WITH")
    found = _NOT_DERIVED.search(_outermost(bare, "the statement"))
    if found is not None:
        word = " ".join(found[1].upper().split())
        raise ParameterError(
            f"the statement has its own {word}, which would apply to each shard separately: "
            f"{_INSTEAD.get(word, 'leave it out')}"
        )
    return text


def expression(text: str) -> str:
    """Check that a text is one expression over the columns of a query; return it.

    Raises:
        ParameterError: It is no expression, or more than one, or has a placeholder.
    """
    if not isinstance(text, str) or not text.strip():
        raise ParameterError(f"an expression is a str like 'qty * px', not {text!r}")
    bare = _code(text, repr(text), ";")
    if ";" in bare or "," in _outermost(bare, repr(text)):
        raise ParameterError(f"{text!r} is not one expression")
    if re.match(r"(?i)\s*(?:DISTINCT|ALL)\b", bare):
        raise ParameterError(
            f"{text!r}: values that are distinct on each shard may be equal on two shards"
        )
    if re.search(r"%(?:s\b|\()", bare):
        raise ParameterError(f"{text!r} has a placeholder: params are those of the statement alone")
    return text


class Subquery(Statement):
    """``head (query) tail``: a read if the query in it is one.

    Args:
        head: The text before the query.
        query: The query.
        tail: The text after the query.
        params: The parameters of the query; the other texts have none.
        read_only: The query is declared to be a read.
    """

    __slots__ = ("_inner",)

    def __init__(
        self,
        head: str,
        query: str,
        tail: str,
        params: parameters.Params,
        *,
        read_only: bool = False,
    ) -> None:
        self._inner = query
        if params is not None:
            head = head.replace("%", "%%")
            tail = tail.replace("%", "%%")
        # On lines of its own, because the query may end in a comment.
        super().__init__(f"{head} (\n{query}\n) {tail}", params, read_only=read_only)

    @property
    def reads(self) -> bool:
        """It is declared read-only, or its query is known to be a read."""
        return self._read_only or classify.is_plain_read(self._inner)

    @property
    def why_no_read(self) -> str:
        """Why its query is not known to be a read; empty if it is."""
        return classify.why_no_read(self._inner)

    @property
    def changes_session(self) -> bool:
        """Its query may change session state."""
        return classify.changes_session(self._inner)


#: The text of a query, its parameters, and whether it is declared to be a read.
Query = Tuple[str, Any, bool]


def select(what: str, query: Query, tail: str = "") -> Subquery:
    """Return ``SELECT what FROM (query) AS q tail``."""
    text, params, read_only = query
    return Subquery(
        f"SELECT {what} FROM", text, f"AS q {tail}".rstrip(), params, read_only=read_only
    )


def missing(wanted: List[str], columns: Tuple[str, ...]) -> Optional[str]:
    """Return the first wanted name that no column has, regardless of case."""
    known = {column.lower() for column in columns}
    return next((each for each in wanted if each.lower() not in known), None)
