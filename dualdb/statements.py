"""What is said on one connection, as talks.

A *talk* is a generator: it yields the bytes of one command, is sent the result sets that came back (or has the server's error thrown in)
and returns what the whole exchange gave. It decides; a colour's connection carries it out. A talk is held on one connection from its
first command to its last, so nobody else's statement comes between.
"""

import logging
import random
from typing import Any, Callable, Dict, Generator, List, NamedTuple, Optional, Sequence, Tuple

import pymysql.err

from . import deadlines, errors, sql
from .results import CallResult, ResultSet, described

log = logging.getLogger("dualdb")

#: Commands out, result sets in, the exchange's result in the end.
Talk = Generator[bytes, List[ResultSet], Any]

#: Does nothing; its OK packet says whether a transaction is open and autocommit on.
ASK = b"DO 0"


class Voice(NamedTuple):
    """How a connection wants text.

    Attributes:
        encoding: of Python, for its character set.
        backslash_escapes: ``NO_BACKSLASH_ESCAPES`` is off.
    """

    encoding: str
    backslash_escapes: bool

    def encode(self, text: str) -> bytes:
        """Raises: ParameterError for a character that the connection's character set lacks."""
        try:
            encoded = text.encode(self.encoding)
        except UnicodeEncodeError as error:
            raise errors.ParameterError(f"{text[error.start : error.end]!r} is not in the connection's {self.encoding}") from None
        if self.encoding not in ("utf8", "ascii"):
            # Shift-JIS has no backslash: Python writes a yen sign as one, which would end what was escaped.
            for character in set(text):
                if character > "\x7f" and character.encode(self.encoding)[0] < 0x80:
                    raise errors.ParameterError(f"{character!r} stands for an ASCII character in the connection's {self.encoding}")
        return encoded


class Statement:
    """One statement with its parameters. Bound at once, so that bad input is refused before a connection is asked for."""

    __slots__ = ("_idempotent", "_read_only", "max_rows", "params", "sql", "text")

    #: What is asked for are the columns: their types, beside their only row.
    describes = False

    def __init__(
        self,
        text: str,
        params: sql.Params = None,
        *,
        idempotent: bool = False,
        read_only: bool = False,
        max_rows: Optional[int] = None,
    ) -> None:
        self.sql, self.params, self._idempotent, self._read_only, self.max_rows = text, params, idempotent, read_only, max_rows
        if max_rows is not None and (not isinstance(max_rows, int) or isinstance(max_rows, bool) or max_rows < 0):
            raise errors.ParameterError(f"max_rows is a number from 0 up, or None, not {max_rows!r}")
        self.text = sql.bind(text, params)

    def talk(self, voice: Voice) -> Talk:
        text = self.text if voice.backslash_escapes else sql.bind(self.sql, self.params, backslash_escapes=False)
        return (yield voice.encode(text))

    @property
    def reads(self) -> bool:
        """Surely changes nothing."""
        return self._read_only or sql.is_plain_read(self.sql)

    @property
    def repeatable(self) -> bool:
        """May be sent again after its connection was lost with the outcome unknown."""
        return self._idempotent or self.reads

    @property
    def commits(self) -> bool:
        """Commits an open transaction by itself, as DDL does."""
        return sql.first_word(self.sql) in sql.COMMITTING

    @property
    def changes_session(self) -> bool:
        """May leave the session otherwise than it was, without the server saying so."""
        return sql.changes_session(self.sql)

    @property
    def calls(self) -> bool:
        """Does what its text does not show: calls a procedure, executes another text."""
        return sql.first_word(self.sql) not in sql.OPEN

    def check_in_transaction(self) -> None:
        """Raises: InterfaceError for a statement that would begin or end the transaction behind its block's back."""
        if sql.controls_transaction(self.sql):
            raise errors.InterfaceError(f"{sql.first_word(self.sql)} inside a transaction: it is committed or rolled back by its block")

    def leaves_doubt(self, error: BaseException, *, in_transaction: bool) -> bool:
        """May have changed the session's transaction before it failed with ``error``."""
        if sql.first_word(self.sql) not in sql.PLAIN:
            return True
        return in_transaction and not isinstance(error, (pymysql.err.IntegrityError, pymysql.err.DataError, pymysql.err.ProgrammingError))


class Bulk(Statement):
    """Many rows of one INSERT."""

    __slots__ = ("_chunk",)

    def __init__(self, chunk: sql.Chunk, *, idempotent: bool = False) -> None:
        super().__init__(chunk.text(), idempotent=idempotent)
        self._chunk, self.sql = chunk, chunk.sql  # which says what kind of statement it is, in fewer words

    def talk(self, voice: Voice) -> Talk:
        text = self.text if voice.backslash_escapes else self._chunk.text(backslash_escapes=False)
        return (yield voice.encode(text))


class Call:
    """A call of a stored procedure.

    Values are sent as literals, in one round trip. Only a parameter marked ``Out`` or ``InOut`` goes through a user variable and is read
    back on the same connection. Where an OUT parameter was given a plain value, as code written for the drivers' ``callproc`` does, the
    server refuses the call before it enters the procedure (1414); the catalogue then says which parameters those are, and they go by
    variables. Without its word nothing is repeated: a procedure called from this one may have raised the same error halfway.
    """

    __slots__ = ("_marks", "_values", "name", "reads", "repeatable")

    def __init__(self, procedure: str, params: Sequence[Any] = (), *, idempotent: bool = False, read_only: bool = False) -> None:
        self.name = sql.procedure(procedure)
        # A procedure may write, whatever its name says: it is sent again only if the caller declared it idempotent or a read.
        self.reads, self.repeatable = read_only, idempotent or read_only
        if not isinstance(params, (tuple, list)):
            raise errors.ParameterError(f"a procedure's params are a tuple or list, not {type(params).__name__}; one is written (value,)")
        self._marks = {position: value for position, value in enumerate(params) if isinstance(value, sql.Out)}
        self._values = [value.value if isinstance(value, sql.Out) else value for value in params]
        names = [mark.name for mark in self._marks.values()]
        if len(set(names)) != len(names):
            raise errors.ParameterError(f"two OUT parameters share a name: {names}")
        self._literals(True)

    def talk(self, voice: Voice) -> Talk:
        assigned = [position for position, mark in self._marks.items() if isinstance(mark, sql.InOut)]
        try:
            results = yield from self._call(voice, list(self._marks), assigned)
        except pymysql.err.MySQLError as error:
            if errors.code_of(error) != errors.NOT_A_VARIABLE:
                raise
            (answer,) = yield voice.encode(self._unmarked_out_parameters())
            unmarked = [row["p"] - 1 for row in answer.rows if row["p"] - 1 not in self._marks]
            if not unmarked:
                raise
            results = yield from self._call(voice, [*self._marks, *unmarked], [*assigned, *unmarked])
        out: Dict[str, Any] = {}
        if self._marks:
            columns = ",".join([f"{_variable(position)} AS `{position}`" for position in self._marks])
            (answer,) = yield voice.encode(f"SELECT {columns}")
            out = {mark.name: answer.rows[0][str(position)] for position, mark in self._marks.items()}
        *sets, last = results
        return CallResult(sets, out, last.rowcount, last.warnings)

    def _call(self, voice: Voice, variables: List[int], assigned: List[int]) -> Talk:
        literals = self._literals(voice.backslash_escapes)
        if assigned:
            yield voice.encode("SET " + ",".join([f"{_variable(position)}={literals[position]}" for position in assigned]))
        arguments = [_variable(position) if position in variables else text for position, text in enumerate(literals)]
        return (yield voice.encode(f"CALL {self.name}({','.join(arguments)})"))

    def _unmarked_out_parameters(self) -> str:
        schema, _, name = self.name.replace("`", "").rpartition(".")
        where = f"'{schema}'" if schema else "DATABASE()"
        return (
            "SELECT ORDINAL_POSITION AS p FROM information_schema.PARAMETERS WHERE ROUTINE_TYPE = 'PROCEDURE' AND PARAMETER_MODE <> 'IN' "
            f"AND SPECIFIC_SCHEMA = {where} AND SPECIFIC_NAME = '{name}'"
        )

    def _literals(self, backslash_escapes: bool) -> List[str]:
        return [sql.literal(value, backslash_escapes=backslash_escapes) for value in self._values]

    #: What a procedure does to a transaction is not said beforehand; what to the session, the server says if it succeeds.
    commits = changes_session = describes = False
    calls, max_rows = True, None

    def check_in_transaction(self) -> None:
        """A procedure that ends the transaction is found out afterwards."""

    def leaves_doubt(self, error: BaseException, *, in_transaction: bool) -> bool:
        """A procedure may have begun, committed or rolled back before it failed."""
        return True


def settled(statement: Any, connection: Any, *, in_transaction: bool = False) -> Talk:
    """A statement's talk, after which what the connection knows of its session is true even if it failed.

    An error packet carries no flags: what a procedure did to the transaction before it failed, or a lock timeout on a server that rolls
    back on one, shows only in the next OK packet. So after such an error the server is asked.
    """
    most = connection.max_rows if statement.max_rows is None else statement.max_rows
    if connection.at_rest:  # otherwise it is somebody else's, and the command will be refused
        connection.sent = False
        # What may write is read to its end: it is ended in the middle of nothing.
        connection.most_rows = most if most is not None and statement.reads else None
    try:
        result = yield from statement.talk(connection.voice)
        if most is not None:
            for each in getattr(result, "sets", result):
                errors.check_rows(len(each.rows), most)
        if statement.changes_session or (connection.reset_after_call and statement.calls):
            connection.changed = True
        return described(connection.fields, result[0]) if statement.describes else result
    except pymysql.err.MySQLError as error:
        if errors.is_answer(error):
            # An error packet does not tell either what was changed before it; a reset costs nobody's time.
            connection.changed = connection.changed or statement.changes_session or statement.calls
            if statement.leaves_doubt(error, in_transaction=in_transaction):
                yield ASK
        raise


#: Around a statement that may end the transaction and begin another; see ``BaseTransaction._guarded``.
GUARD, UNGUARD = b"SAVEPOINT `dualdb_call`", b"RELEASE SAVEPOINT `dualdb_call`"


def end_session(session_id: int, age: float) -> Talk:
    """End a session, ``age`` seconds old, whose answer nobody waits for. Said on another. Gives whether it has ended.

    It has not where it is in a procedure, function or trigger with its definer's rights: until that is over it is another user's.

    The caller holds the session's socket open, so that the server has given its id to nobody else; unless it has been started anew,
    which it is asked first.
    """
    (answer,) = yield b"SHOW GLOBAL STATUS LIKE 'Uptime'"
    if int(answer.rows[0]["Value"]) >= int(age):
        try:
            yield b"KILL %d" % session_id
        except pymysql.err.MySQLError as error:
            if errors.code_of(error) == errors.NOT_OWNER:
                return False
            if errors.code_of(error) != errors.NO_SUCH_THREAD:
                raise
    return True


def _variable(position: int) -> str:
    return f"@_dualdb_{position}"


#: Where a transaction with a commit marker leaves its token, in its own database.
MARKERS = "dualdb_commit"
_NEW_MARKERS = (
    f"CREATE TABLE IF NOT EXISTS {MARKERS} (token CHAR(32) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY, "
    "at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, KEY (at)) ENGINE=InnoDB"
).encode()
_OLD_MARKERS = f"DELETE FROM {MARKERS} WHERE at < NOW() - INTERVAL 7 DAY LIMIT 1000".encode()
#: One transaction in so many also removes what is a week old.
SWEEP_EVERY = 500


_ISOLATION = ("READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")


class Mode(NamedTuple):
    """How a transaction is opened; see ``Target.transaction``."""

    commit_marker: bool = False
    isolation: Optional[str] = None
    read_only: bool = False
    snapshot: bool = False
    other_shards: bool = False
    timeout: Optional[float] = None

    def checked(self) -> "Mode":
        """Raises: ParameterError for an isolation level that there is not, no such time, or what excludes each other."""
        if self.timeout is not None:
            deadlines.seconds(self.timeout)
        if self.isolation is not None and (not isinstance(self.isolation, str) or self.isolation.upper() not in _ISOLATION):
            raise errors.ParameterError(f"isolation is one of {', '.join(_ISOLATION)}, not {self.isolation!r}")
        if self.commit_marker and self.read_only:
            raise errors.ParameterError("a transaction that only reads has nothing to mark: commit_marker and read_only exclude each other")
        return self

    @property
    def commands(self) -> List[bytes]:
        commands = [] if self.isolation is None else [f"SET TRANSACTION ISOLATION LEVEL {self.isolation.upper()}".encode()]
        asked = [words for words, is_asked in ((b"WITH CONSISTENT SNAPSHOT", self.snapshot), (b"READ ONLY", self.read_only)) if is_asked]
        return [*commands, b"START TRANSACTION " + b", ".join(asked) if asked else b"BEGIN"]


PLAIN_MODE = Mode()


def begin(savepoint: int, token: Optional[str], mode: Mode = PLAIN_MODE, spread: Callable[[], float] = random.random) -> Talk:
    """Open a transaction, or savepoint number 1 and up inside one; with a token, leave it where ``marker`` looks for it.

    First and not last: where the table is missing it can still be made, and from here on the token's row is locked until it is certain
    what became of it.
    """
    commands = [b"SAVEPOINT `dualdb_%d`" % savepoint] if savepoint else mode.commands
    if token is None:
        for command in commands:
            yield command
        return
    leave = f"INSERT INTO {MARKERS} (token) VALUES ('{token}')".encode()
    try:
        if spread() * SWEEP_EVERY < 1:
            yield from _sweep()
        for command in [*commands, leave]:
            yield command
    except pymysql.err.MySQLError as error:
        if errors.code_of(error) != errors.NO_SUCH_TABLE:
            raise
        for command in [_NEW_MARKERS, *commands, leave]:
            yield command


def _sweep() -> Talk:
    try:
        yield _OLD_MARKERS
    except pymysql.err.MySQLError as error:
        if not errors.is_answer(error) or errors.code_of(error) == errors.NO_SUCH_TABLE:
            raise
        log.warning("old rows of %s cannot be removed: %s", MARKERS, error)


def marker(token: str) -> Statement:
    """Finds a row where the token's transaction was committed. Waits where it is neither committed nor rolled back yet."""
    return Statement(f"SELECT 1 FROM {MARKERS} WHERE token = %s LOCK IN SHARE MODE", (token,), idempotent=True)


def transaction_end(savepoint: int, *, commit: bool) -> Tuple[bytes, ...]:
    """The commands that close what ``begin`` opened."""
    if not savepoint:
        return (b"COMMIT",) if commit else (b"ROLLBACK",)
    name = b"`dualdb_%d`" % savepoint
    return (b"RELEASE SAVEPOINT " + name,) if commit else (b"ROLLBACK TO SAVEPOINT " + name, b"RELEASE SAVEPOINT " + name)
