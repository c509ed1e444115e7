"""The state of a connection beside its socket, shared by both implementations."""

import enum
import os
import random
import struct
import threading
import time
from abc import abstractmethod
from functools import lru_cache
from typing import Any, Callable, List, Optional, Sequence, Tuple

import pymysql.converters
import pymysql.err
from pymysql.constants import CLIENT, COMMAND, CR, SERVER_STATUS

from .. import error_codes, errors, fork_safety
from ..config import DatabaseConfig
from ..endpoints.causal import WriteLog
from ..endpoints.node import questions, read_node
from ..endpoints.profiles import EngineProfile, greeted_engine, profile_of
from ..endpoints.state import NOWHERE, Endpoint
from ..sql import classify
from ..sql.literals import time_zone
from . import commands, session_setup
from .exchange import ANY_ROWS, TextEncoding
from .response import BatchResponse, Response, ResponseOptions, Responses
from .row_decoder import DecoderName, decoder_name

_SESSION_TRACK = CLIENT.SESSION_TRACK
_AUTOCOMMIT = SERVER_STATUS.SERVER_STATUS_AUTOCOMMIT
_NO_BACKSLASH_ESCAPES = SERVER_STATUS.SERVER_STATUS_NO_BACKSLASH_ESCAPES
_STATUS_OF_TRANSACTIONS = _AUTOCOMMIT | SERVER_STATUS.SERVER_STATUS_IN_TRANS

#: What a driver raises if it cannot parse a response. Compared by exact type, because a
#: signal handler may raise an exception of the application's own at any time.
_UNREADABLE = frozenset(
    {
        AssertionError,
        AttributeError,
        ImportError,
        IndexError,
        KeyError,
        ModuleNotFoundError,
        NotImplementedError,
        OverflowError,
        RuntimeError,
        TypeError,
        UnboundLocalError,
        UnicodeDecodeError,
        ValueError,
        struct.error,
    }
)


def password_for_driver(config: DatabaseConfig) -> str:
    """Return the password as text for a driver. The drivers encode it as Latin-1, while
    the server expects UTF-8.

    Raises:
        ValueError: It could not be looked up, or is not text that can be encoded. The
            message shows no password.
    """
    password = config.reveal_password()
    try:
        return password.encode("utf-8", "surrogateescape").decode("latin1")
    except UnicodeEncodeError:  # it holds the password
        pass
    raise ValueError("password: it has a character that UTF-8 does not encode")


def is_unreadable(error: BaseException) -> bool:
    """Return whether a driver raised this because it could not parse what it
    received.
    """
    return type(error) in _UNREADABLE


def handshake_error(error: BaseException) -> pymysql.err.OperationalError:
    """Return the error to raise for a handshake that the driver could not parse, or for
    an authentication plugin whose library is missing.
    """
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, (RuntimeError, ImportError)):
        return pymysql.err.OperationalError(
            CR.CR_AUTH_PLUGIN_CANNOT_LOAD, f"the server's way to log in cannot be followed ({what})"
        )
    return pymysql.err.OperationalError(
        CR.CR_SERVER_HANDSHAKE_ERR, f"the server's handshake cannot be read ({what})"
    )


class WireState(enum.Enum):
    """What is in progress on the connection.

    Attributes:
        CLOSED: There is no session, or it must not be used any more.
        IDLE: Nothing; the next command can be sent.
        BUSY: A command has been begun, and its response is not complete.
        STREAMING: The rows of a stream are being read.
        RESETTING: A reset was sent; its responses are read before the next use.
        ABANDONED: Nobody waits for a response; the server may still be executing.
    """

    CLOSED = "closed"
    IDLE = "idle"
    BUSY = "busy"
    STREAMING = "streaming"
    RESETTING = "resetting"
    ABANDONED = "abandoned"


class KillState(enum.Enum):
    """Whether a session is being killed while its borrower still holds it.

    Attributes:
        NONE: It is not.
        PENDING: The kill is queued; the borrower has not returned the connection.
        DONE: The session has ended; the borrower has not returned the connection.
    """

    NONE = "none"
    PENDING = "pending"
    DONE = "done"


# An enum's member takes longer to look up than a name of the module.
_IDLE = WireState.IDLE
_BUSY = WireState.BUSY
_NO_KILL = KillState.NONE


class Lifetime:
    """When and by whom a connection was opened, when it was last used, and when it
    expires.

    Args:
        max_lifetime: Seconds; None for no limit.
        endpoint: The host that it is connected to.

    Attributes:
        owner_pid: The process that opened it.
        endpoint: The host that it is connected to.
        opened_at: When it was opened. All times are by time.monotonic().
        last_used_at: When it was last returned to the store of idle connections.
        expires_at: When it is to be replaced.
        refused_at: When its server was found not to be the primary, or not in service;
            0 if it has not been.
    """

    __slots__ = (
        "endpoint",
        "expires_at",
        "last_used_at",
        "opened_at",
        "owner_pid",
        "refused_at",
    )

    def __init__(self, max_lifetime: Optional[float] = None, endpoint: Endpoint = NOWHERE) -> None:
        self.owner_pid = os.getpid()
        self.endpoint = endpoint
        self.refused_at = 0.0
        self.opened_at = self.last_used_at = time.monotonic()
        # Jitter of a tenth, so that connections opened together are not replaced
        # together.
        self.expires_at = (
            float("inf")
            if max_lifetime is None
            else self.opened_at + max_lifetime * random.uniform(0.9, 1)
        )


class Codec:
    """How a connection encodes text and decodes rows.

    Args:
        decoder: The decoder of its rows.

    Attributes:
        decoder_name: The decoder of its rows.
        cached_decoder: The decoder of the last result, reused for the same columns.
        text_encoding: The encoding of the last statement.
        response: The response that is being read.
    """

    __slots__ = ("cached_decoder", "decoder_name", "response", "text_encoding")

    def __init__(self, decoder: DecoderName) -> None:
        self.decoder_name = decoder
        self.cached_decoder: Any = None
        self.text_encoding: Optional[TextEncoding] = None
        self.response: Any = None


#: Most responses of a program are wanted in the same few ways.
_response_options = lru_cache(maxsize=256)(ResponseOptions)


class ConnectionState:
    """Mixin for the drivers' connections: what is in progress, whether the session is
    clean, and how it encodes text.

    ``server_status``, ``client_flag``, ``server_capabilities`` and ``encoding`` are the
    driver's attributes.

    The transaction flags come from OK packets only. With autocommit off, a SELECT that
    opens a transaction sets IN_TRANS in neither driver. Therefore autocommit stays on,
    and BEGIN is always explicit.
    """

    server_status: int
    server_capabilities: int
    client_flag: int
    encoding: Any
    server_version: str = ""
    server_thread_id: Tuple[int]
    _config: DatabaseConfig
    _result: Any
    decoders: Any

    #: The driver's attributes for host and port.
    ADDRESS_ATTRIBUTES = ("host", "port")

    #: This package's row decoder is compatible with the driver.
    MATCHES_DRIVER = False
    #: How the rows of the current statement are returned.
    row_options = ANY_ROWS
    #: Is called when a command was sent, before its response is awaited.
    while_waiting: Optional[Callable[[], None]] = None

    #: Its socket, since it was opened; kept after it is closed.
    transport: Any = None
    #: What the pool attaches while it is checked out: its slot, and in threads the
    #: handle of DBUtils.
    lease: Any = None
    #: The budget of its server, in which it counts while it is open; None without one.
    budget: Any = None
    wire = WireState.CLOSED
    kill_state = KillState.NONE
    #: A borrower has changed session state, so that a reset is needed.
    dirty = False
    #: SHOW WARNINGS would show warnings or an error of a statement.
    has_diagnostics = False
    #: It was opened by the process from which this one was forked.
    inherited = False
    #: The pool has aborted it, because its borrower did not return it in time.
    aborted = False
    #: The last command was sent completely.
    _written = False
    #: A command of the current statement, or of the transaction's end, was sent
    #: completely. Reset to False when a statement begins.
    sent = False
    #: The log of the database's writes.
    writes: Optional[WriteLog] = None
    #: Why the session must not be used any more; None if it may be.
    failure: Optional[str] = None

    def __init__(self, **driver_options: Any) -> None:
        self._in_use = threading.Lock()
        self.codec = Codec(self.decoder_for(self._config))
        self.facts = session_setup.SessionFacts()
        self.lifetime = Lifetime()
        super().__init__(**driver_options)
        fork_safety.register(self)

    @property
    def idle(self) -> bool:
        """Whether nothing is in progress. Set it to False to have the session
        closed.
        """
        return self.wire is _IDLE

    @idle.setter
    def idle(self, value: bool) -> None:
        if self.wire is WireState.IDLE and not value:
            self.wire = WireState.CLOSED

    @property
    def streaming(self) -> bool:
        """Whether the rows of a stream are being read."""
        return self.wire is WireState.STREAMING

    @property
    def resetting(self) -> bool:
        """Whether a reset was sent whose responses have not been read."""
        return self.wire is WireState.RESETTING

    @property
    def _timed_out(self) -> bool:
        """Whether a time limit has passed during the current command."""
        return self.transport is not None and bool(self.transport.timed_out)

    @property
    def needs_kill(self) -> bool:
        """Whether the server may still be executing a command whose response nobody
        reads.
        """
        if self.kill_state is KillState.DONE:
            return False
        return self.wire is WireState.ABANDONED or (
            self._written and self.wire in (WireState.BUSY, WireState.STREAMING)
        )

    @property
    def reset_after_call(self) -> bool:
        """See ``DatabaseConfig``."""
        return self._config.reset_after_call

    @classmethod
    def decoder_for(cls, config: DatabaseConfig) -> DecoderName:
        """Return the decoder of rows with this configuration."""
        return decoder_name(config.row_decoder, driver_fits=cls.MATCHES_DRIVER)

    @property
    def uses_own_decoder(self) -> bool:
        """Whether this package decodes responses, and not the driver, which honours the
        converters that a cursor's user has set.
        """
        if self.codec.decoder_name == "driver":
            return False
        return not self.dirty or bool(self.decoders == pymysql.converters.decoders)

    def column_definitions(self) -> Sequence[Any]:
        """Return the column definitions of the stream that has just begun."""
        if not self.uses_own_decoder:
            return getattr(self._result, "fields", ())
        response = self.codec.response
        return response.cached_decoder.fields if response.names else ()

    @property
    def max_rows(self) -> Optional[int]:
        """See ``DatabaseConfig``."""
        return self._config.max_rows

    @property
    def session_id(self) -> int:
        """The server's CONNECTION_ID(), from its greeting."""
        return self.server_thread_id[0]

    @property
    def text_encoding(self) -> TextEncoding:
        """How statements are encoded for the session."""
        escapes = not self.server_status & _NO_BACKSLASH_ESCAPES
        known = self.codec.text_encoding
        if known is None or known[0] != self.encoding or known[1] is not escapes:
            zone = time_zone(self._config.time_zone)
            known = self.codec.text_encoding = TextEncoding(self.encoding, escapes, zone)
        return known

    @property
    def set_names(self) -> bytes:
        """The command that sets the session's character set to that of the
        configuration.
        """
        return session_setup.set_names(self._config).encode("ascii")

    @property
    def in_transaction(self) -> bool:
        """Whether the server has a transaction open."""
        return bool(self.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)

    @property
    def reusable(self) -> bool:
        """Whether it is idle, in autocommit mode and outside a transaction, so that it
        can be used again, after a reset if it is ``dirty``.
        """
        return (
            self.wire is _IDLE
            and self.server_status & _STATUS_OF_TRANSACTIONS == _AUTOCOMMIT
            # locked: an exception was raised just when a command began or ended
            and not self._in_use.locked()
        )

    @property
    def untouched(self) -> bool:
        """Whether it is reusable as it is: the usual case."""
        return (
            self.wire is _IDLE
            and self.server_status & _STATUS_OF_TRANSACTIONS == _AUTOCOMMIT
            and self.kill_state is _NO_KILL
            and not (self.dirty or self.has_diagnostics or self.inherited)
            and not self._in_use.locked()
        )

    def aim_at(self, endpoint: Endpoint) -> None:
        """Set the address to which the driver connects; without one, it stays that of
        the configuration.
        """
        if endpoint.address is not None:
            for name, value in zip(self.ADDRESS_ATTRIBUTES, endpoint.address):
                setattr(self, name, value)

    def begin_session(self) -> None:
        """Prepare for opening a session; the object may have had another one before."""
        self._in_use = threading.Lock()

    def session_opened(self, endpoint: Endpoint = NOWHERE) -> None:
        """Record that the session was set up.

        Args:
            endpoint: The host that it is connected to.
        """
        self.wire = WireState.IDLE
        self.kill_state = KillState.NONE
        self.sent = self._written = self.aborted = self.dirty = self.has_diagnostics = False
        self.failure = None
        self.lifetime = Lifetime(self._config.max_lifetime, endpoint)

    def is_too_old(self, now: float) -> bool:
        """Return whether it is to be replaced, because of its age or because its host
        is no longer used.

        Args:
            now: By time.monotonic().
        """
        return self.lifetime.expires_at < now or self.retired

    @property
    def retired(self) -> bool:
        """Whether its host was found demoted or unresponsive after it was opened."""
        return self.lifetime.opened_at <= self.lifetime.endpoint.replace_before

    def _forked(self) -> None:
        self.inherited = True
        self.wire = WireState.CLOSED
        self._in_use = threading.Lock()
        self._close_descriptor()

    def quit(self) -> None:
        """Close it, with COM_QUIT if it is idle."""
        raise NotImplementedError

    @abstractmethod
    def abort(self) -> None:
        """Close the socket at once, without COM_QUIT."""

    @abstractmethod
    def _close_descriptor(self) -> None:
        """Close this process's descriptor of the socket; the server's session
        continues.
        """

    # One command.

    def check_length(self, command: bytes) -> None:
        """Check that a command is within the server's limit.

        The limit applies to the command and one byte for its kind (measured with
        MariaDB 10.11 and MySQL 9.7).

        Raises:
            PacketTooLarge: It is not; nothing was sent.
        """
        most = self.facts.max_packet
        if most is not None and len(command) + 1 >= most:
            raise errors.PacketTooLarge(
                f"the statement has {len(command)} bytes, and the server takes less than "
                f"{most - 1} (max_allowed_packet)"
            )

    def learn_max_packet(self, most: int) -> None:
        """Record the server's limit on one packet. A session keeps the limit with which
        it began.

        Args:
            most: The limit in bytes.
        """
        self.facts = self.facts._replace(max_packet=most)

    def begin_command(self) -> None:
        """Reserve the connection for one command.

        Raises:
            ConcurrentUseError: Another thread or task is in the middle of a command;
                nothing was sent.
            TransactionAborted: The session must not be used any more.
        """
        if self.failure is not None:
            raise errors.TransactionAborted(self.failure).with_context(None, sent=False)
        if not self._in_use.acquire(blocking=False):
            raise errors.ConcurrentUseError(
                "a stream is being read on this connection: read it to its end, or close it, "
                "before anything else is sent there"
                if self.streaming
                else "another thread or task is using this connection: "
                "a transaction belongs to one at a time"
            )
        self._written = False
        self.wire = _BUSY

    def end_command(self, info: Optional[bytes], warnings: int = 0) -> None:
        """Record that the response is complete.

        Args:
            info: The payload of an OK packet after its flags; None after rows.
            warnings: The server's number of warnings.
        """
        if warnings:
            self.has_diagnostics = True
        if info is not None and self.server_status & session_setup.STATE_CHANGED:
            self.record_change(info)
        self.wire = _IDLE if self.failure is None else WireState.CLOSED
        self._in_use.release()

    def record_change(self, info: bytes) -> None:
        """Record the session changes that an OK packet reports.

        Args:
            info: The payload of the OK packet after its flags.
        """
        change = session_setup.session_change(info)
        if change.gtid is not None and self.writes is not None:
            self.writes.record(*change.gtid)
        self.dirty = self.dirty or change.dirty
        if self.facts.changes_charset(change.charsets):
            self.failure = (
                "a statement changed the character set of the session, in which a parameter "
                "would not stay a value: nothing more is sent in it. Set charset in the "
                "configuration instead"
            )

    def break_command(self, error: BaseException, *, gave_up: bool) -> None:
        """Record that an error ended the command: the server's error, which is a
        response too, a lost connection, or the end of the wait.

        Args:
            error: The error that is raised.
            gave_up: This side stopped waiting for the response.
        """
        if isinstance(error, pymysql.err.MySQLError) and "MariaDB" in self.server_version:
            error.is_from_mariadb = True  # type: ignore[attr-defined]
        # A Galera node that leaves its component in the middle of a COMMIT says 1180.
        if errors.means_not_primary(error) or errors.code_of(error) in error_codes.OUTCOME_UNKNOWN:
            self.lifetime.refused_at = time.monotonic()
        gave_up = (
            gave_up
            or self.aborted
            or isinstance(error, errors.TooManyRows)
            or not isinstance(error, errors.DRIVER_ERRORS)
        )
        if errors.ends_answer(error):
            self.has_diagnostics = True
            self.wire = WireState.IDLE
        elif gave_up and self._written:
            self.wire = WireState.ABANDONED
            if self._timed_out:
                self.lifetime.endpoint.record_silence(time.monotonic())
        else:
            self.wire = WireState.CLOSED
        self._in_use.release()

    def readable(self, error: BaseException) -> BaseException:
        """Return the error to raise for one that a driver raised because it could not
        parse a response; other errors are returned unchanged.
        """
        # A text in another character set is an error of its row; see errors.
        if not is_unreadable(error) or isinstance(error, UnicodeDecodeError):
            return error
        malformed = pymysql.err.OperationalError(
            CR.CR_MALFORMED_PACKET,
            f"the server's answer cannot be read ({type(error).__name__}: {error})",
        )
        malformed.__cause__ = error
        return malformed

    def drop_stream(self) -> None:
        """Stop reading the stream."""
        self._end_stream(GeneratorExit())

    def _end_stream(self, error: Optional[BaseException]) -> None:
        result = self._result
        response = self.codec.response
        if response is not None:
            self.codec.response = None
            self.apply_response(response)
        if error is None:
            if response is not None:
                self.end_command(response.message, response.results[-1].warnings)
            else:
                self.end_command(result.message, result.warning_count)
            return
        if result is not None:
            result.unbuffered_active = False  # otherwise the driver would read the rest
        self.break_command(error, gave_up=self._timed_out)

    # Statements that a driver's cursor sends.

    def check_cursor_statement(self, sql: Any) -> None:
        """Check a statement that a driver's cursor is about to send.

        Raises:
            InterfaceError: It would change the character set.
            TransactionAborted: The session must not be used any more.
        """
        if self.failure is not None:
            raise errors.TransactionAborted(self.failure).with_context(None, sent=False)
        text = sql.decode("latin1") if isinstance(sql, (bytes, bytearray)) else sql
        classify.refuse_charset_change(text)

    def may_have_other_charset(self, sql: Any, error: BaseException) -> bool:
        """Return whether a cursor's failed statement may have changed the character
        set, which an error packet does not report.
        """
        text = sql.decode("latin1") if isinstance(sql, (bytes, bytearray)) else sql
        return errors.is_server_error(error) and classify.first_word(text) not in classify.OPEN

    # Responses that this package parses, rather than the driver.

    def new_response(self, command: bytes, *, stream: bool = False) -> Any:
        """Return the parser of the response to a command.

        Args:
            command: The command.
            stream: Its rows are taken while they arrive.
        """
        wanted = self.row_options
        codec = self.codec
        options = _response_options(
            self.encoding,
            stream or wanted.as_tuples,
            stream,
            None if stream else wanted.most,
            codec.decoder_name == "compiled",
        )
        if type(command) is commands.Batch:
            return BatchResponse(options)
        number = commands.query_packets(command) & 255
        return Response(options, number, codec.cached_decoder)

    def apply_response(self, response: Any) -> None:
        """Record what a response, complete or not, reports of the session."""
        self.codec.cached_decoder = response.cached_decoder
        if response.server_status is not None:
            self.server_status = response.server_status
        for change in response.changes:
            if change is None:
                self.dirty = True
            else:
                self.record_change(change)
        # The server has sent unexpected data, as it does when it shuts down.
        if response.rest:
            self.abort()

    def new_responses(self, count: int) -> Responses:
        """Return the parser of the responses to commands that are sent together.

        Args:
            count: The number of commands.
        """
        options = ResponseOptions(self.encoding, tuples=True)
        return Responses(count, lambda: Response(options))

    def apply_responses(self, responses: Responses) -> List[Any]:
        """Record what responses report of the session; return them."""
        for answer in responses.answers:
            if isinstance(answer, Response) and answer.server_status is not None:
                self.server_status = answer.server_status
        if responses.rest:
            self.abort()
        return responses.answers

    @property
    def fields(self) -> Any:
        """The column definitions of the last result."""
        return self.codec.cached_decoder.fields if self.uses_own_decoder else self._result.fields

    def gone_away(self) -> pymysql.err.OperationalError:
        """Return the error for a connection that was found closed."""
        return pymysql.err.OperationalError(CR.CR_SERVER_GONE_ERROR, "MySQL server has gone away")

    def deadline_exceeded(self) -> errors.DeadlineExceeded:
        """Return the error for a deadline that passed before the response was
        complete.
        """
        return errors.DeadlineExceeded(
            CR.CR_SERVER_LOST, "the deadline passed before the answer was complete"
        )

    # The set-up of a session, repeated when it is reset.

    def track_changes(self) -> None:
        """Request that the server report session changes; called before
        authentication.
        """
        if self.server_capabilities & _SESSION_TRACK:
            self.client_flag |= _SESSION_TRACK

    @property
    def profile(self) -> EngineProfile:
        """What the server can do."""
        node = self.facts.node
        if node is not None:
            return node.profile
        return profile_of(self._config.engine, self.server_version)

    def _setup_statement(self, lock: Optional[str]) -> str:
        profile = self.profile
        return session_setup.setup_statement(
            self._config,
            mariadb="MariaDB" in self.server_version,
            tracks=bool(self.client_flag & _SESSION_TRACK),
            lock=lock if profile.kill else None,
            plain=profile.plain_sessions,
        )

    @property
    def _questions(self) -> Tuple[str, ...]:
        engine = greeted_engine(self.server_version)
        return questions(self._config.engine, engine, several="," in self._config.host)

    def setup_commands(self, lock: Optional[str]) -> List[Tuple[int, bytes]]:
        """Return the commands that set up a new session; see ``session_setup``."""
        self.facts = session_setup.SessionFacts()
        statement = self._setup_statement(lock)
        return session_setup.setup_commands(self._config, statement, self._questions)

    def finish_setup(self, answers: Sequence[Any], lock: Optional[str]) -> bool:
        """Record the responses to ``setup_commands``.

        Args:
            answers: For each command its response, or the server's error.
            lock: The argument of ``setup_commands``.

        Returns:
            False if the set-up is to be repeated without the lock.
        """
        first = len(answers) - len(self._questions)
        *before, setup, probe = answers[:first]
        for answer in before:
            if isinstance(answer, BaseException):
                raise answer
        if isinstance(setup, BaseException):
            if lock is None:
                raise setup
            return False
        about_node = [
            each if isinstance(each, BaseException) else each.results[0] for each in answers[first:]
        ]
        node = read_node(self.profile, self._config.engine, about_node)
        self.facts = _facts(probe, lock if self.profile.kill else None)._replace(node=node)
        return True

    def reset_commands(self, *, only_diagnostics: bool) -> List[Tuple[int, bytes]]:
        """Return the commands that reset the session.

        Args:
            only_diagnostics: Clear the diagnostics area only.
        """
        if only_diagnostics:
            return [(COMMAND.COM_QUERY, session_setup.CLEAR_DIAGNOSTICS)]
        return session_setup.reset_commands(
            self._config, self._setup_statement(self.facts.lock), self.encoding
        )

    def finish_reset_with(self, answers: Sequence[Any]) -> None:
        """Check the responses to ``reset_commands``.

        Raises:
            pymysql.err.MySQLError: The session is not reset.
        """
        *before, last = answers
        for answer in before:
            if isinstance(answer, BaseException):
                raise answer
        if before:
            now = _facts(last, self.facts.lock)
            kept = now._replace(max_packet=self.facts.max_packet, node=self.facts.node)
            if kept != self.facts:
                raise _not_as_new("the session's roles are not those of a new session")
        elif isinstance(last, BaseException):
            raise last
        elif last.changes or (last.server_status or 0) & session_setup.STATE_CHANGED:
            raise _not_as_new("a statement changed the session and did not report it")
        self.wire = WireState.IDLE
        self.has_diagnostics = False


def _facts(probe: Any, lock: Optional[str]) -> session_setup.SessionFacts:
    """Return what the response to ``PROBE`` reports of a session; old servers refuse
    it.
    """
    if isinstance(probe, BaseException) or not probe.results[0].rows:
        return session_setup.SessionFacts(lock)
    init_connect, roles, *charsets, server = probe.results[0].rows[0]
    return session_setup.SessionFacts(
        lock,
        dict(zip(session_setup.CHARSET_VARIABLES, charsets)),
        roles,
        bool(init_connect),
        server=server,
    )


def _not_as_new(why: str) -> pymysql.err.OperationalError:
    return pymysql.err.OperationalError(CR.CR_SERVER_LOST, why)
