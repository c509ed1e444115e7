"""Statements and procedure calls, with their exchanges."""

import re
from datetime import timezone
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import pymysql.converters
import pymysql.err

from .. import error_codes, errors
from ..observability.query_call import ObservedCall
from ..results import CallResult, ResultSet
from ..sql import bulk, classify, identifiers, literals, parameters
from .commands import Batch
from .exchange import LONG_STATEMENT, Exchange, TextEncoding
from .response import BatchRefused

_OWN_SESSION = "connection(), which is one session for the whole of its block"
#: The alternative to a statement that affects only its session, by its first word.
_INSTEAD = {
    "BEGIN": "a block of transaction(), which commits at its end, or rolls back",
    "SAVEPOINT": "a transaction() inside another, which is a savepoint",
    "RELEASE": "a transaction() inside another, which is a savepoint",
    "SET": "a block of transaction(), with isolation= or read_only= where they matter",
    "BACKUP": _OWN_SESSION,
    "FLUSH": _OWN_SESSION,
    "LOCK": _OWN_SESSION,
    "UNLOCK": _OWN_SESSION,
    "XA": _OWN_SESSION,
}


class Statement:
    """One statement with its parameters.

    Parameters are bound first, so that invalid input is refused before a connection is
    checked out.

    Args:
        text: The statement, with placeholders.
        params: A tuple or list, a mapping, or None.
        idempotent: It may be sent again after its connection was lost.
        read_only: It is declared to be a read, regardless of its text.
        max_rows: The most rows of its result.
        tuples: Return its rows as tuples.

    Raises:
        ParameterError: The statement or its parameters are invalid.
        InterfaceError: It would change the session's character set.

    Attributes:
        judgement: What it does to its session, by its text.
        is_long: Perhaps longer than the server takes.
    """

    __slots__ = (
        "_by_style",
        "_idempotent",
        "_read_only",
        "is_long",
        "judgement",
        "max_rows",
        "observation",
        "params",
        "sql",
        "text",
        "tuples",
    )

    #: The result is a Described: the columns and the only row.
    describes = False
    #: The result is the maximum length of a statement and the literal style.
    asks_packet_limit = False
    #: Is called between sending and receiving, perhaps several times, and fails never.
    while_waiting: Optional[Callable[[], None]] = None

    def __init__(
        self,
        text: str,
        params: parameters.Params = None,
        *,
        idempotent: bool = False,
        read_only: bool = False,
        max_rows: Optional[int] = None,
        tuples: bool = False,
    ) -> None:
        if type(text) is not str:
            text = parameters.text_of(text)
        self.sql = text
        self.params = params
        self.tuples = tuples
        self.max_rows = max_rows
        self._idempotent = idempotent
        self._read_only = read_only
        #: The call that it is sent for, if that is observed.
        self.observation: Optional[ObservedCall] = None
        if max_rows is not None and (
            not isinstance(max_rows, int) or isinstance(max_rows, bool) or max_rows < 0
        ):
            raise errors.ParameterError(
                f"max_rows must be an int from 0 up or None, not {max_rows!r}"
            )
        self.text, self._by_style = parameters.bind_early(text, params)
        self.judgement = classify.judge(text)
        if self.judgement.changes_charset:
            raise classify.charset_refusal()
        self.is_long = self.asks_packet_limit or len(self.text) >= LONG_STATEMENT

    def exchange(self, text_encoding: TextEncoding) -> Exchange:
        """Yield the statement; return its result sets."""
        text = self.text
        if self._by_style or not text_encoding.backslash_escapes:
            text = parameters.bind(self.sql, self.params, text_encoding.style)
        return (yield text_encoding.encode(text))

    @property
    def reads(self) -> bool:
        """It is known to change nothing."""
        return self._read_only or not classify.why_no_read(self.sql)

    @property
    def why_no_read(self) -> str:
        """Why it is not known to be a read; empty if it is."""
        return classify.why_no_read(self.sql)

    @property
    def repeatable(self) -> bool:
        """It may be sent again although the first outcome is unknown."""
        return self._idempotent or self.reads

    @property
    def commits(self) -> bool:
        """It commits an open transaction implicitly, as DDL does."""
        return self.judgement.commits

    @property
    def changes_session(self) -> bool:
        """It may change session state without the server reporting it."""
        return self.judgement.changes_session

    @property
    def calls(self) -> bool:
        """Its effects are not visible in its text: it calls a procedure, or similar."""
        return self.judgement.word not in classify.OPEN

    @property
    def features(self) -> Tuple[str, ...]:
        """What its engine must be able to do; see ``EngineProfile``."""
        return ("procedures",) if self.judgement.word == "CALL" else ()

    def check_in_transaction(self) -> None:
        """Refuse statements that would begin or end the transaction of a block.

        Raises:
            InterfaceError: It is such a statement.
        """
        word = self.judgement.control
        if word:
            raise errors.InterfaceError(
                f"{word} inside a transaction: it is committed or rolled back by its block"
            )

    def check_outside_transaction(self) -> None:
        """Refuse statements that affect only their session, because the next call may
        use another one.

        Raises:
            InterfaceError: It is such a statement.
        """
        words = self.judgement.session_bound
        if words:
            raise errors.InterfaceError(
                f"{words} outside a transaction would do nothing, because each call may get "
                f"another session: use {_INSTEAD.get(words.split()[0], _INSTEAD['BEGIN'])}"
            )

    def leaves_doubt(self, error: BaseException, *, in_transaction: bool) -> bool:
        """Return whether it may have changed the transaction before it failed."""
        if self.judgement.word not in classify.PLAIN:
            return True
        return in_transaction and not isinstance(
            error, (pymysql.err.IntegrityError, pymysql.err.DataError, pymysql.err.ProgrammingError)
        )


class PacketLimit(Statement):
    """Queries the connection's maximum statement length, in bytes, and literal
    style.
    """

    __slots__ = ()

    asks_packet_limit = True

    def __init__(self) -> None:
        super().__init__("SELECT @@max_allowed_packet")

    def exchange(self, text_encoding: TextEncoding) -> Exchange:
        """Send nothing; the limit is a property of the connection."""
        yield from ()
        return []


class Bulk(Statement):
    """A chunk of rows of one statement.

    Args:
        chunk: The rows.
        idempotent: It may be sent again after its connection was lost.
        while_waiting: As its attribute.
    """

    __slots__ = ("_chunk", "_escapes", "while_waiting")

    def __init__(
        self,
        chunk: bulk.Chunk,
        *,
        idempotent: bool = False,
        while_waiting: Optional[Callable[[], None]] = None,
    ) -> None:
        # without the rows, it is the same kind of statement
        super().__init__(chunk.sql, idempotent=idempotent)
        self.while_waiting = while_waiting
        self._chunk = chunk
        self._escapes = None not in chunk.texts
        self.text = chunk.text(backslash_escapes=self._escapes)
        self.is_long = len(self.text) >= LONG_STATEMENT

    def exchange(self, text_encoding: TextEncoding) -> Exchange:
        """Yield the statement of the chunk, or its statements together; return the
        result sets.
        """
        escapes = text_encoding.backslash_escapes
        text = self.text
        if escapes is not self._escapes:
            text = self._chunk.text(backslash_escapes=escapes)
        command = text_encoding.encode(text)
        if len(self._chunk.texts) == 1 or not self._chunk.is_batch:
            return (yield command)
        try:
            return (yield Batch(command))
        except BatchRefused:
            rows = self._chunk.rows(backslash_escapes=escapes)
            return (yield from _one_by_one([text_encoding.encode(row) for row in rows]))


class Group(Statement):
    """Statements of a transaction that are sent together.

    Args:
        statements: At least two that ``can_be_batched``.
    """

    __slots__ = ("statements",)

    def __init__(self, statements: Sequence[Statement]) -> None:
        super().__init__(statements[0].sql, statements[0].params)
        self.statements = statements
        self.is_long = sum([len(each.text) for each in statements]) >= LONG_STATEMENT

    def exchange(self, text_encoding: TextEncoding) -> Exchange:
        """Yield the statements together; return the result sets."""
        commands = [next(each.exchange(text_encoding)) for each in self.statements]
        try:
            return (yield Batch(text_encoding.encode(bulk.SEPARATOR).join(commands)))
        except BatchRefused:
            return (yield from _one_by_one(commands))

    @property
    def reads(self) -> bool:
        """All are known to change nothing."""
        return all(each.reads for each in self.statements)

    @property
    def why_no_read(self) -> str:
        """Why one is not known to be a read; empty if all are."""
        return next((each.why_no_read for each in self.statements if not each.reads), "")

    @property
    def changes_session(self) -> bool:
        """One may change session state without the server reporting it."""
        return any(each.changes_session for each in self.statements)

    def leaves_doubt(self, error: BaseException, *, in_transaction: bool) -> bool:
        """Return True: it is not known here which one failed."""
        return True


def _one_by_one(statements: Sequence[bytes]) -> Exchange:
    """Yield statements; return the result sets of all."""
    results: List[ResultSet] = []
    for statement in statements:
        try:
            results += yield statement
        except pymysql.err.MySQLError as error:
            error.completed = len(results)  # type: ignore[attr-defined]
            raise
    return results


# The format of a date, a time or both, including negative times.
_MOMENT = re.compile(r"-?\d+[-:]\d\d[-:]\d\d")

#: Converters from text, by type name in information_schema.
_MOMENTS: Dict[str, Callable[[str], Any]] = {
    "date": pymysql.converters.convert_date,
    "time": pymysql.converters.convert_timedelta,
    "datetime": pymysql.converters.convert_datetime,
    "timestamp": pymysql.converters.convert_datetime,
}


class Call:
    """A call of a stored procedure.

    Values are sent as literals, in one round trip. Only a parameter marked ``Out`` or
    ``InOut`` is passed in a user variable, which is read back on the same connection.
    If an OUT parameter is a plain value, as in code written for the drivers'
    ``callproc``, the server refuses the call before entering the procedure (error 1414,
    ER_SP_NOT_VAR_ARG). The call is then repeated with variables for the OUT parameters
    in information_schema.PARAMETERS; but only if there are any, because a nested
    procedure may have raised the same error later.

    Args:
        procedure: The name, ``name`` or ``schema.name``.
        params: The parameters.
        idempotent: It may be called again after its connection was lost.
        read_only: It is declared to be a read.

    Raises:
        ParameterError: The name or the parameters are invalid.
    """

    __slots__ = (
        "_by_style",
        "_marks",
        "_parts",
        "_texts",
        "_values",
        "is_long",
        "name",
        "observation",
        "params",
        "reads",
        "repeatable",
    )

    def __init__(
        self,
        procedure: str,
        params: Sequence[Any] = (),
        *,
        idempotent: bool = False,
        read_only: bool = False,
    ) -> None:
        self.name = identifiers.procedure(procedure)
        self.params = params
        #: As for a Statement.
        self.observation: Optional[ObservedCall] = None
        self._parts = identifiers.parts(procedure)
        # A procedure may write, so it is sent again only if it was declared idempotent
        # or a read.
        self.reads = read_only
        self.repeatable = idempotent or read_only
        if not isinstance(params, (tuple, list)):
            raise errors.ParameterError(
                f"params of a procedure must be a tuple or list, not {type(params).__name__}; "
                "for one parameter write (value,)"
            )
        self._marks = {
            position: value
            for position, value in enumerate(params)
            if isinstance(value, parameters.Out)
        }
        self._values = [
            value.value if isinstance(value, parameters.Out) else value for value in params
        ]
        names = [mark.name for mark in self._marks.values()]
        if len(set(names)) != len(names):
            raise errors.ParameterError(f"OUT parameters must have distinct names, not {names}")
        self._by_style = False
        try:
            self._texts = self._literals(literals.DEFAULT_STYLE)
        except errors.ParameterError as error:
            # The literal style of the session is not known yet.
            if not literals.is_refused_by_style(error):
                raise
            self._by_style = True
            self._texts = self._literals(literals.LiteralStyle(time_zone=timezone.utc))
        self.is_long = sum(map(len, self._texts)) >= LONG_STATEMENT

    def exchange(self, text_encoding: TextEncoding) -> Exchange:
        """Yield the commands of the call; return a CallResult."""
        assigned = [
            position for position, mark in self._marks.items() if isinstance(mark, parameters.InOut)
        ]
        try:
            results = yield from self._call(text_encoding, list(self._marks), assigned)
        except pymysql.err.MySQLError as error:
            if errors.code_of(error) != error_codes.NOT_A_VARIABLE:
                raise
            (answer,) = yield self._out_parameters(text_encoding)
            unmarked = [row["p"] - 1 for row in answer.rows if row["p"] - 1 not in self._marks]
            if not unmarked:
                raise
            results = yield from self._call(
                text_encoding, [*self._marks, *unmarked], [*assigned, *unmarked]
            )
        out: Dict[str, Any] = {}
        if self._marks:
            columns = ",".join(
                [f"{_variable(position)} AS `{position}`" for position in self._marks]
            )
            (answer,) = yield text_encoding.encode(f"SELECT {columns}")
            values = {position: answer.rows[0][str(position)] for position in self._marks}
            if any(isinstance(value, str) and _MOMENT.match(value) for value in values.values()):
                yield from self._restore_moments(text_encoding, values)
            out = {mark.name: values[position] for position, mark in self._marks.items()}
        *sets, last = results
        return CallResult(sets, out, last.rowcount, last.warnings)

    def _restore_moments(self, text_encoding: TextEncoding, values: Dict[int, Any]) -> Exchange:
        """Convert dates and times, which user variables hold as text."""
        (answer,) = yield self._out_parameters(text_encoding)
        for row in answer.rows:
            position = row["p"] - 1
            convert = _MOMENTS.get(row["type"].lower())
            if convert is not None and isinstance(values.get(position), str):
                values[position] = convert(values[position])

    def _call(
        self, text_encoding: TextEncoding, variables: List[int], assigned: List[int]
    ) -> Exchange:
        texts = self._texts
        if self._by_style or not text_encoding.backslash_escapes:
            texts = self._literals(text_encoding.style)
        if assigned:
            values = [f"{_variable(position)}={texts[position]}" for position in assigned]
            yield text_encoding.encode(f"SET {','.join(values)}")
        arguments = [
            _variable(position) if position in variables else text
            for position, text in enumerate(texts)
        ]
        return (yield text_encoding.encode(f"CALL {self.name}({','.join(arguments)})"))

    def _out_parameters(self, text_encoding: TextEncoding) -> bytes:
        """Return the query for positions (from 1) and types of the OUT parameters."""
        *schema, name = [literals.literal(part, text_encoding.style) for part in self._parts]
        return text_encoding.encode(
            "SELECT ORDINAL_POSITION AS p, DATA_TYPE AS type FROM information_schema.PARAMETERS "
            "WHERE ROUTINE_TYPE = 'PROCEDURE' AND PARAMETER_MODE <> 'IN' "
            f"AND SPECIFIC_SCHEMA = {schema[0] if schema else 'DATABASE()'} "
            f"AND SPECIFIC_NAME = {name}"
        )

    def _literals(self, style: literals.LiteralStyle) -> List[str]:
        return [literals.literal(value, style) for value in self._values]

    @property
    def features(self) -> Tuple[str, ...]:
        """What its engine must be able to do; see ``EngineProfile``."""
        return ("procedures", "out_parameters") if self._marks else ("procedures",)

    @property
    def sql(self) -> str:
        """The statement without its parameters."""
        return f"CALL {self.name}"

    why_no_read = "a procedure that is not declared read_only may write"

    #: The effects on a transaction are unknown in advance; those on the session are
    #: reported by the server after a success.
    commits = changes_session = describes = asks_packet_limit = tuples = False
    calls = True
    max_rows = while_waiting = None

    def check_in_transaction(self) -> None:
        """Do nothing: a procedure that ends the transaction is detected afterwards."""

    def check_outside_transaction(self) -> None:
        """Do nothing: changes of the session are detected afterwards."""

    def leaves_doubt(self, error: BaseException, *, in_transaction: bool) -> bool:
        """Return True: it may have begun or ended a transaction before it failed."""
        return True


def _variable(position: int) -> str:
    return f"@_dualdb_{position}"


#: What a connection can send.
AnyStatement = Union[Statement, Call]
