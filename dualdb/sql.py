"""Text that goes to the server: parameters bound, names quoted, statements judged. Pure; nothing here knows a connection.

Both colours bind here and not in their drivers, because the drivers differ (bytes, sequences, unknown types) and check late.
"""

import datetime
import decimal
import enum
import math
import re
import time
import uuid
from functools import lru_cache
from typing import AbstractSet, Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from pymysql.converters import encoders, escape_string

from .errors import ParameterError

#: Parameters of a statement: a tuple or list for ``%s``, a mapping for ``%(name)s``, None for a statement that is sent as it stands.
Params = Union[Sequence[Any], Mapping[str, Any], None]

_PLACEHOLDER = re.compile(r"%(?:\((?P<name>[^()]*)\)s|(?P<plain>s)|(?P<percent>%)|)")

# IN () is a syntax error and IN (NULL) makes NOT IN false as well; an empty subquery is right for both.
_AFTER_IN = re.compile(r"(?i)\bIN[\s(]*\Z")
_EMPTY_LIST = "(SELECT NULL FROM DUAL WHERE FALSE)"


def bind(sql: str, params: Params, *, backslash_escapes: bool = True) -> str:
    """The statement with its parameters written in.

    The placeholders are the drivers': ``%s`` with a tuple or list, ``%(name)s`` with a mapping. With parameters, even empty ones, a
    literal percent sign is written ``%%``; with ``params=None`` the statement is sent as it stands. A sequence among the parameters
    becomes ``(1,2,3)`` for ``IN``; an empty one matches nothing.

    Raises:
        ParameterError: wrong number, missing name, wrong kind or type of parameter. Nothing has been sent.
    """
    if not isinstance(sql, str):
        raise ParameterError(f"a statement is a str, not {type(sql).__name__}")
    if not sql.strip():
        raise ParameterError("the statement is empty")
    if params is None:
        return sql
    names, positions = _placeholders(sql)
    if isinstance(params, (tuple, list)):
        if names:
            raise ParameterError(f"the statement names its parameters (%({names[0]})s): pass a mapping, not a {type(params).__name__}")
        if len(params) != positions:
            raise ParameterError(f"the statement has {positions} placeholder(s) %s, but {len(params)} parameter(s) were given")
        try:
            texts = tuple([_literal(value, backslash_escapes) for value in params])
        except (TypeError, ValueError, RecursionError) as error:
            raise _refused(error) from None
        if _EMPTY_LIST in texts:
            _check_empty(sql, iter(texts))
        return sql % texts
    if isinstance(params, Mapping):
        if positions:
            raise ParameterError("the statement has %s placeholders: pass a tuple or list, not a mapping")
        missing = [name for name in names if name not in params]
        if missing:
            raise ParameterError(f"no parameter named {missing[0]!r}; the names given are {sorted(map(str, params))}")
        named = {}
        for name in names:
            try:
                named[name] = _literal(params[name], backslash_escapes)
            except (TypeError, ValueError, RecursionError) as error:
                raise _refused(error, f"parameter {name!r}: ") from None
        if _EMPTY_LIST in named.values():
            _check_empty(sql, (named[name] for name in names))
        return sql % named
    raise ParameterError(
        f"params is a tuple or list, a mapping, or None, not {type(params).__name__}"
        + ("; one parameter is written (value,)" if isinstance(params, (str, bytes, int, float)) else "")
    )


def _check_empty(sql: str, texts: Iterator[str]) -> None:
    """An empty sequence matches nothing after IN; in place of a value it would be NULL."""
    for found in _PLACEHOLDER.finditer(sql):
        if not found["percent"] and next(texts) == _EMPTY_LIST and not _AFTER_IN.search(sql, 0, found.start()):
            raise ParameterError("an empty sequence is for IN alone, as in 'id IN %s'")


def names(sql: str) -> List[str]:
    """The names of a statement's ``%(name)s`` placeholders."""
    return _placeholders(sql)[0]


def _placeholders(sql: str) -> Tuple[List[str], int]:
    # A long statement is one with its values written in: it will not be seen again, and would be kept for nothing.
    return _kept_placeholders(sql) if len(sql) < 10_000 else _found_placeholders(sql)


def _found_placeholders(sql: str) -> Tuple[List[str], int]:
    """The names of those that have one, and how many have none. What is neither, nor ``%%``, is refused: Python's ``%`` can do the rest."""
    names: List[str] = []
    positions = 0
    for found in _PLACEHOLDER.finditer(sql):
        if found["plain"]:
            positions += 1
        elif found["name"] is not None:
            names.append(found["name"])
        elif not found["percent"]:
            raise ParameterError(
                f"{sql[found.start() : found.start() + 2]!r} at character {found.start()} is no placeholder: "
                "use %s or %(name)s, and write %% for a percent sign (or pass params=None)"
            )
    if names and positions:
        raise ParameterError("the statement mixes %s and %(name)s")
    return names, positions


_kept_placeholders = lru_cache(maxsize=1024)(_found_placeholders)


def _refused(error: Exception, place: str = "") -> ParameterError:
    # A ParameterError is a TypeError and a ValueError; an int of too many digits or a broken __index__ is one of these.
    itself = isinstance(error, RecursionError)
    return ParameterError(f"{place}{'a sequence among the parameters contains itself' if itself else error}")


_Writer = Callable[[Any], str]


def _finite(value: Any) -> str:
    is_decimal = isinstance(value, decimal.Decimal)
    if not (value.is_finite() if is_decimal else math.isfinite(value)):
        raise ParameterError(f"{value} has no place in SQL: a number must be finite")
    # Not the value's own methods: numpy's float64 and other subclasses write themselves in words of their own.
    return decimal.Decimal.__format__(value, "f") if is_decimal else str(encoders[float](float.__float__(value)))


def _whole(value: int) -> str:
    try:
        return int.__repr__(value)
    except ValueError:  # Python writes no number of more than some thousand digits
        raise ParameterError("an int has more digits than any column") from None


def _moment(value: datetime.datetime) -> str:
    if value.tzinfo is not None:  # which the drivers leave out, too
        value = value.replace(tzinfo=None)
    return f"'{datetime.datetime.isoformat(value, ' ')}'"


_PLAIN: Dict[type, _Writer] = {
    type(None): lambda value: "NULL",
    bool: lambda value: "1" if value else "0",
    int: _whole,
    float: _finite,
    decimal.Decimal: _finite,
    bytes: lambda value: f"_binary X'{bytes.hex(value)}'",
    bytearray: lambda value: f"_binary X'{bytearray.hex(value)}'",
    memoryview: lambda value: f"_binary X'{memoryview.hex(value)}'",
    datetime.datetime: _moment,
    datetime.date: encoders[datetime.date],
    datetime.time: encoders[datetime.time],
    datetime.timedelta: encoders[datetime.timedelta],
    time.struct_time: encoders[time.struct_time],
    uuid.UUID: lambda value: f"'{uuid.UUID.__str__(value)}'",
}


def literal(value: Any, *, backslash_escapes: bool = True) -> str:
    """One value as SQL text.

    Known are None, bool, int, float, Decimal, str, bytes and their like, date, time, datetime, timedelta, struct_time, UUID, an Enum (by
    its value), whatever is an integer by ``__index__``, and a tuple, list, set or frozenset of these.

    Raises:
        ParameterError: any other type, or a number that is not finite.
    """
    try:
        return _literal(value, backslash_escapes)
    except RecursionError as error:
        raise _refused(error) from None


def _literal(value: Any, backslash_escapes: bool) -> str:
    kind = type(value)
    if kind is str:
        return "'" + (escape_string(value) if backslash_escapes else value.replace("'", "''")) + "'"
    writer = _PLAIN.get(kind)
    if writer is not None:
        return writer(value)
    if isinstance(value, enum.Enum):
        return _literal(value.value, backslash_escapes)
    if isinstance(value, str):
        return _literal(str.__str__(value), backslash_escapes)
    for base in kind.__mro__[1:]:
        if base in _PLAIN:
            return _PLAIN[base](value)
    if isinstance(value, (tuple, list, set, frozenset)):
        return "(" + ",".join([_literal(item, backslash_escapes) for item in value]) + ")" if value else _EMPTY_LIST
    if hasattr(value, "__index__"):
        return repr(value.__index__())
    raise ParameterError(f"a {kind.__name__} cannot be a parameter: convert it to a str, a number, bytes, a date or a sequence of these")


_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`")
# One table, its columns, VALUES, one row, and ON DUPLICATE KEY UPDATE or the like. ~ stands for what is quoted.
_BULK = re.compile(
    r"(?is)(\s*(?:INSERT|REPLACE)\s+(?:(?:LOW_PRIORITY|DELAYED|HIGH_PRIORITY|IGNORE)\s+)*(?:INTO\s+)?[\w$~]+(?:\s*\.\s*[\w$~]+)?\s*"
    r"(?:PARTITION\s*\([^()]*\)\s*)?(?:\([^()]*\)\s*)?VALUES?\s*)"
    r"(\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))(\s*(?:(?:ON\s+DUPLICATE|AS|RETURNING)\b.*)?;?\s*)"
)
# A backslash may or may not hide the end of a text; of a comment it is not certain where it ends; and each row would see the one before.
_NOT_BULK = re.compile(r"(?i)[\\'\"`#]|--|/\*")
_ROW_BY_ROW = re.compile(r"(?i)\b(?:LAST_INSERT_ID|ROW_COUNT|FOUND_ROWS|SELECT)\b|@")


def _bulk(sql: str) -> Optional[Tuple[str, str, str]]:
    """What stands before a row, the row, and what stands after; None where the statement does not take several rows."""
    bare = _QUOTED.sub(lambda quoted: "~" * len(quoted[0]), sql)
    found = _BULK.fullmatch(bare)
    if found is None or "\\" in sql or _NOT_BULK.search(bare) or _ROW_BY_ROW.search(found[2]):
        return None
    head, row, tail = [sql[slice(*found.span(part))] for part in (1, 2, 3)]
    if any(_placeholders(part) != ([], 0) for part in (head, tail)):
        return None
    return head % (), row, tail % ()


class Chunk(NamedTuple):
    """Rows that are written by one statement: from row number ``first`` on, of all that were given.

    ``texts`` are the rows, ``plain`` the same where a backslash is no more than a backslash.
    """

    sql: str
    texts: Tuple[str, ...]
    plain: Tuple[str, ...]
    first: int

    def text(self, *, backslash_escapes: bool = True) -> str:
        head, _, tail = _bulk(self.sql) or ("", self.sql, "")
        return head + ",".join(self.texts if backslash_escapes else self.plain) + tail


class Chunks:
    """Cuts rows, given one by one, into chunks: those of an ``INSERT ... VALUES (%s, ...)`` by so many, as long as they make no longer
    statement, others one by one.
    """

    def __init__(self, sql: str, most_rows: int, most_bytes: int) -> None:
        bulk = _bulk(sql) if isinstance(sql, str) else None
        head, self._template, tail = bulk or ("", sql, "")
        self._sql, self._most_bytes = sql, most_bytes
        self._most_rows = most_rows if bulk else 1
        self._room = most_bytes - len(head + tail) * 4
        self._texts: List[str] = []
        self._plain: List[str] = []
        self._first = self._size = 0

    def add(self, params: Any) -> Optional[Chunk]:
        """Take one more row; gives the chunk of those before it, where it does not go with them.

        Raises:
            ParameterError: the row does not fit the statement, or is too long alone; told with its number, from 0.
        """
        number = self._first + len(self._texts)
        if params is None:
            raise ParameterError(f"row {number}: a row is a tuple, list or mapping, not None")
        try:
            text = bind(self._template, params)
        except ParameterError as error:
            raise ParameterError(f"row {number}: {error.args[0]}") from None
        length = (len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))) + 1
        if length > self._room:
            raise ParameterError(f"row {number} makes {length} bytes, and the server takes {self._most_bytes} at once (max_allowed_packet)")
        full = self.rest() if len(self._texts) >= self._most_rows or self._size + length > self._room else None
        self._texts.append(text)
        # Which of the two is right is known when it is sent, and the caller may use his row for the next one until then.
        self._plain.append(text if "\\" not in text else bind(self._template, params, backslash_escapes=False))
        self._size += length
        return full

    def rest(self) -> Optional[Chunk]:
        """The chunk of what has been taken and not yet given."""
        if not self._texts:
            return None
        chunk = Chunk(self._sql, tuple(self._texts), tuple(self._plain), self._first)
        self._texts, self._plain, self._size, self._first = [], [], 0, self._first + len(self._texts)
        return chunk


_IDENTIFIER = re.compile(r"[\w$]{1,64}(?:\.[\w$]{1,64})?")


def procedure(name: str) -> str:
    """A procedure's name, ``name`` or ``schema.name``, quoted.

    Raises:
        ParameterError: anything that is not such a name.
    """
    if not isinstance(name, str) or not _IDENTIFIER.fullmatch(name):
        raise ParameterError(f"{name!r} is no procedure name: use name or schema.name, of letters, digits, _ and $")
    return ".".join([f"`{part}`" for part in name.split(".")])


# What comments and quoted text say is not what a statement does; a quoted name may be any function's. MySQL runs /*! ... */. Whichever
# begins first has what is inside it, so all are looked for at once.
_COMMENT = r"/\*(?!M?!).*?\*/|--(?=\s|\Z)[^\n]*|\#[^\n]*"
_LEXEME = re.compile(r"""(?P<text>'(?:[^']|'')*')|(?P<name>"(?:[^"]|"")*"|`(?:[^`]|``)*`)|""" + _COMMENT, re.S)
_FIRST_WORD = re.compile(rf"(?:[\s(;]|{_COMMENT})*([A-Za-z]+)", re.S)
# SET STATEMENT ... FOR is about the one statement that follows.
_FOR_ONE = re.compile(r"(?:SET\s+STATEMENT\b.*?\bFOR\s+)+([A-Za-z]+)", re.S | re.I)


def _bare(sql: str) -> str:
    """A statement without its comments and texts, and with "quoted" for every quoted name."""
    return _LEXEME.sub(lambda found: " '' " if found["text"] else " quoted " if found["name"] else " ", sql).strip()


_READS = frozenset({"SELECT", "SHOW", "DESC", "DESCRIBE", "EXPLAIN", "WITH", "TABLE", "VALUES"})
_WRITES = re.compile(
    r"(?i)\b(?:INTO|FOR\s+UPDATE|FOR\s+SHARE|LOCK\s+IN|INSERT|UPDATE|DELETE|REPLACE|ANALYZE|NEXTVAL|SETVAL|NEXT\s+VALUE|PROCEDURE)\b"
    r"|:=|/\*|;\s*\S|[\"`]"
)
_CALLS = re.compile(r"((?:\.\s*)?[\w$.]+)\s*\(")
#: Functions and words before a parenthesis that change nothing, so that a SELECT with them may be read again.
_HARMLESS = frozenset(
    """ABS ALL AND ANY AS AVG BETWEEN BIN BIT_AND BIT_COUNT BIT_OR BIT_XOR BY CASE CAST CEIL CEILING CHAR CHAR_LENGTH CHARACTER_LENGTH
    COALESCE CONCAT CONCAT_WS CONNECTION_ID CONVERT COUNT CRC32 CURDATE CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER CURTIME
    DATABASE DATE DATE_ADD DATE_FORMAT DATE_SUB DATEDIFF DAY DAYNAME DAYOFMONTH DAYOFWEEK DAYOFYEAR DECIMAL DENSE_RANK DISTINCT ELSE ELT
    EXCEPT EXISTS EXTRACT FIELD FIND_IN_SET FIRST_VALUE FLOOR FORCE FORMAT FROM FROM_DAYS FROM_UNIXTIME GREATEST GROUP_CONCAT HAVING HEX
    HOUR IF IFNULL IGNORE IN INDEX INET_ATON INET_NTOA INSTR INTERSECT INTERVAL IS ISNULL JOIN JSON_ARRAY JSON_ARRAYAGG JSON_CONTAINS
    JSON_EXTRACT JSON_LENGTH JSON_OBJECT JSON_OBJECTAGG JSON_UNQUOTE JSON_VALUE KEY LAG LAST_DAY LAST_VALUE LCASE LEAD LEAST LEFT LENGTH
    LIKE LIMIT LN LOCATE LOG LOG10 LOG2 LOWER LPAD LTRIM MATCH AGAINST MAX MD5 MICROSECOND MID MIN MINUTE MOD MONTH MONTHNAME NOT NOW
    NTILE NULLIF OCTET_LENGTH ON OR ORDER OVER PARTITION PERCENT_RANK POSITION POW POWER QUARTER QUOTE RADIANS RAND RANK REGEXP REPEAT
    REVERSE RIGHT ROUND ROW ROW_NUMBER RPAD RTRIM SECOND SELECT SHA1 SHA2 SIGN SOUNDEX SPACE SQRT STD STDDEV STR_TO_DATE SUBDATE SUBSTR
    SUBSTRING SUBSTRING_INDEX SUM SYSDATE THEN TIME TIME_FORMAT TIME_TO_SEC TIMEDIFF TIMESTAMP TIMESTAMPADD TIMESTAMPDIFF TO_DAYS TRIM
    TRUNCATE UCASE UNHEX UNION UNIX_TIMESTAMP UPPER USE USER USING UTC_DATE UTC_TIMESTAMP VALUES VARCHAR VARIANCE VERSION WEEK WEEKDAY WHEN
    WHERE WITH XOR YEAR""".split()
)


def is_plain_read(sql: str) -> bool:
    """True if the statement surely changes nothing and takes no lock, so that it may be sent again after a lost connection.

    Errs on the safe side: a SELECT that calls a function this module does not know (a stored one may write) is not a plain read, nor is
    one with a backslash, which may or may not end a text.
    """
    bare = _bare(sql).lstrip("( \n\t").rstrip("; \n\t")
    first = re.match(r"[A-Za-z]+", bare)
    if "\\" in sql or first is None or first[0].upper() not in _READS or _WRITES.search(bare):
        return False
    return _calls_but(_HARMLESS, bare) or first[0].upper() == "SHOW"


def _calls_but(known: AbstractSet[str], bare: str) -> bool:
    """Calls nothing but these, by their unqualified names, which no stored function can have."""
    return all(name.upper() in known or name.isdigit() for name in _CALLS.findall(bare))


#: With those that say something else the second time, or wait.
_BUILT_IN = _HARMLESS | frozenset(
    """AES_DECRYPT AES_ENCRYPT ANY_VALUE BENCHMARK CHARSET COERCIBILITY COLLATION COMPRESS CONVERT_TZ FOUND_ROWS INET6_ATON INET6_NTOA
    IS_FREE_LOCK IS_USED_LOCK JSON_CONTAINS_PATH JSON_DEPTH JSON_EXISTS JSON_INSERT JSON_KEYS JSON_MERGE_PATCH JSON_MERGE_PRESERVE
    JSON_QUERY JSON_REMOVE JSON_REPLACE JSON_SEARCH JSON_SET JSON_TABLE JSON_TYPE JSON_VALID LAST_INSERT_ID MAKEDATE MAKETIME
    PERIOD_ADD PERIOD_DIFF POINT RANDOM_BYTES REGEXP_INSTR REGEXP_REPLACE REGEXP_SUBSTR RELEASE_LOCK ROW_COUNT SCHEMA SEC_TO_TIME
    SESSION_USER SLEEP ST_ASBINARY ST_ASGEOJSON ST_ASTEXT ST_ASWKB ST_ASWKT ST_CONTAINS ST_DISTANCE ST_DISTANCE_SPHERE ST_GEOMFROMTEXT
    ST_GEOMFROMWKB ST_INTERSECTS ST_SRID ST_WITHIN ST_X ST_Y SYSTEM_USER UNCOMPRESS UUID UUID_SHORT VAR_POP VAR_SAMP WEIGHT_STRING
    YEARWEEK""".split()
)


#: Statements that leave an open transaction as it was when they fail, or end it altogether by their error.
PLAIN = frozenset(
    {"SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "WITH", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "DO", "TABLE", "VALUES"}
)

#: Statements that commit an open transaction before they begin.
COMMITTING = frozenset(
    {"ALTER", "ANALYZE", "CACHE", "CHECK", "CREATE", "DROP", "FLUSH", "GRANT", "INSTALL", "LOCK", "OPTIMIZE", "RENAME", "REPAIR", "RESET"}
    | {"REVOKE", "TRUNCATE", "UNINSTALL"}
)


#: Statements whose words say what they do to a transaction. Others call a procedure, execute another text, or are programs themselves.
OPEN = PLAIN | COMMITTING | {"SET", "USE", "SAVEPOINT", "RELEASE", "ROLLBACK", "KILL", "LOAD", "PREPARE", "DEALLOCATE", "HANDLER", "UNLOCK"}

# What outlives a statement although the server does not say so by its flags, and what it says only from MariaDB 10.2 and MySQL 5.7 on.
_KEEPS = re.compile(
    r"(?i)\bGET_LOCK\s*\(|\bLAST_INSERT_ID\s*\(\s*[^)\s]|:=|\bINTO\s+@|\bRETURNING\b|/\*!|/\*M!"
    r"|^[\s(;]*(?:LOCK|HANDLER|FLUSH\s+TABLES|XA|SET|USE|PREPARE|CREATE\s+(?:OR\s+REPLACE\s+)?TEMPORARY)\b"
)


def changes_session(sql: str) -> bool:
    """True if the statement may leave the session otherwise than it was: with a lock, a variable, a temporary table.

    After rows the server does not say so, and what a stored function does the text does not show.
    """
    return _judged(sql)[1]


def first_word(sql: str) -> str:
    """The word a statement begins with, in upper case; empty where it begins with anything else than a word or a comment."""
    return _judged(sql)[0]


def controls_transaction(sql: str) -> bool:
    """True if the statement begins or ends a transaction by name. ROLLBACK TO a savepoint does neither."""
    word = first_word(sql)
    return word in ("BEGIN", "START", "COMMIT", "ROLLBACK", "XA") and not _NO_CONTROL.search(_bare(sql))


_NO_CONTROL = re.compile(r"(?i)^(?:BEGIN\s+NOT\s|START\s+(?!TRANSACTION)|ROLLBACK\s+(?:WORK\s+)?TO\s)")


def _judged(sql: str) -> Tuple[str, bool]:
    return _judge_short(sql) if len(sql) < 10_000 else _judge(sql)


def _judge(sql: str) -> Tuple[str, bool]:
    bare = _bare(sql)
    found = _FIRST_WORD.match(sql)
    inner = _FOR_ONE.match(bare)
    word = inner[1].upper() if inner else found[1].upper() if found else ""
    return word, bool(_KEEPS.search(bare)) or (word in _READS and not _calls_but(_BUILT_IN, bare))


_judge_short = lru_cache(maxsize=1024)(_judge)


class Out:
    """An OUT parameter of a procedure: ``call("totals", (7, Out("total")))`` gives ``result.out["total"]``."""

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise ParameterError(f"an {type(self).__name__} parameter is named by a str, not {name!r}")
        self.name = name

    #: The value sent to the procedure: None for an OUT parameter, which the server sets to NULL in any case.
    value: Any = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class InOut(Out):
    """An INOUT parameter of a procedure: sent as ``value`` and read back by name."""

    def __init__(self, name: str, value: Any) -> None:
        super().__init__(name)
        self.value = value
