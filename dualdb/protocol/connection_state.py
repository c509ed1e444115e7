"""What both implementations' connections know of themselves, beside the socket."""

import enum
import os
import random
import struct
import threading
import time
from abc import abstractmethod
from typing import Any, List, Optional, Sequence, Tuple

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

#: What a driver raises where the server's bytes are not what it expects, by exact type:
#: an exception of the application's own may come out of a signal handler at any time.
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
    """The password as a driver wants it: both write it as Latin-1, where a server
    expects what it was given in UTF-8.

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
    """Whether a driver raised this because it could not make sense of what it read."""
    return type(error) in _UNREADABLE


def handshake_error(error: BaseException) -> pymysql.err.OperationalError:
    """A driver's error in place of what it raised over an unreadable handshake, or for
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
    """What is on its way between this process and the server.

    Attributes:
        CLOSED: There is no session, or it must not be used any more.
        IDLE: Nothing; the next command can be sent.
        BUSY: A command, or its answer.
        STREAMING: The rows of a stream.
        RESETTING: The answers to a reset, which are read before the next use.
        ABANDONED: An answer that nobody waits for; the server may still be at work.
    """

    CLOSED = "closed"
    IDLE = "idle"
    BUSY = "busy"
    STREAMING = "streaming"
    RESETTING = "resetting"
    ABANDONED = "abandoned"


class KillState(enum.Enum):
    """Whether a session is being killed although its borrower still holds it.

    Attributes:
        NONE: It is not.
        PENDING: The kill is to be done; the borrower has not returned it.
        DONE: The session has ended; the borrower has not returned it.
    """

    NONE = "none"
    PENDING = "pending"
    DONE = "done"


# An enum's member takes longer to look up than a name of the module.
_IDLE = WireState.IDLE
_BUSY = WireState.BUSY
_NO_KILL = KillState.NONE


class Lifetime:
    """When, and by whom, a connection was opened; when it was last used, and when it is
    too old.

    Args:
        max_lifetime: Seconds; None for no limit.

    Attributes:
        opened_at: By time.monotonic(), as are the others.
        last_used_at: When it was put into the store of idle connections.
        expires_at: When it is to be replaced.
        refused_at: When its server was found not to be the primary, or not in service;
            0 if it has not.
        owner_pid: The process that opened it.
        endpoint: The host that it is connected to.
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
        # Spread over a tenth, so that connections made together are not all replaced
        # together.
        self.expires_at = (
            float("inf")
            if max_lifetime is None
            else self.opened_at + max_lifetime * random.uniform(0.9, 1)
        )


class Codec:
    """How a connection reads and writes text and rows.

    Args:
        decoder: What decodes its rows.

    Attributes:
        decoder_name: The same.
        cached_decoder: Of the last result, whose columns the next one may have again.
        text_encoding: How the last statement was written.
        response: What is being read.
    """

    __slots__ = ("cached_decoder", "decoder_name", "response", "text_encoding")

    def __init__(self, decoder: DecoderName) -> None:
        self.decoder_name = decoder
        self.cached_decoder: Any = None
        self.text_encoding: Optional[TextEncoding] = None
        self.response: Any = None


class ConnectionState:
    """Mixed into a driver's connection: what is on the wire, whether the session is
    clean, how it wants its text.

    ``server_status``, ``client_flag``, ``server_capabilities`` and ``encoding`` are the
    driver's. The flags come from the OK packets
    alone: a SELECT inside a transaction that was opened with autocommit off would not
    set IN_TRANS in either driver, which is why autocommit stays on and BEGIN is always
    explicit.
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

    #: Where the driver keeps host and port.
    ADDRESS_ATTRIBUTES = ("host", "port")

    #: Whether this package's row decoder fits the driver.
    MATCHES_DRIVER = False
    #: How the rows of the statement at hand are wanted.
    row_options = ANY_ROWS

    #: Its socket, from the first byte on; it stays when it is closed.
    transport: Any = None
    #: What of the pool goes with it while it is out: its slot, and in threads DBUtils'
    #: handle.
    lease: Any = None
    #: The permit of its server's budget by which it is open; None without a budget.
    permit: Any = None
    wire = WireState.CLOSED
    kill_state = KillState.NONE
    #: A borrower has changed the session beyond a transaction.
    dirty = False
    #: A statement left warnings or an error, which SHOW WARNINGS shows.
    has_diagnostics = False
    #: The session is that of the process this one was forked from.
    inherited = False
    #: The pool has broken it off, because its borrower did not return it in time.
    aborted = False
    #: The whole of the last command has left this process.
    _written = False
    #: The same of any command of the statement or the transaction's end that is on its
    #: way; whoever begins one sets it to False.
    sent = False
    #: Where its writes are recorded.
    writes: Optional[WriteLog] = None
    #: Why nothing more may be sent in this session although the server would take it.
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
        """Nothing is on its way. Set it to False to have the session closed."""
        return self.wire is _IDLE

    @idle.setter
    def idle(self, value: bool) -> None:
        if self.wire is WireState.IDLE and not value:
            self.wire = WireState.CLOSED

    @property
    def streaming(self) -> bool:
        """The rows of a stream are being read."""
        return self.wire is WireState.STREAMING

    @property
    def resetting(self) -> bool:
        """A reset has been sent, and its answers not yet been read."""
        return self.wire is WireState.RESETTING

    @property
    def _timed_out(self) -> bool:
        """A limit has passed during the command at hand."""
        return self.transport is not None and bool(self.transport.timed_out)

    @property
    def needs_kill(self) -> bool:
        """The server may still be working on a command whose answer nobody reads."""
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
        """What decodes the rows of connections with this configuration."""
        return decoder_name(config.row_decoder, driver_fits=cls.MATCHES_DRIVER)

    @property
    def uses_own_decoder(self) -> bool:
        """Whether responses are decoded by this package and not by the driver, which
        honours converters that a cursor's user has set.
        """
        if self.codec.decoder_name == "driver":
            return False
        return not self.dirty or bool(self.decoders == pymysql.converters.decoders)

    def column_definitions(self) -> Sequence[Any]:
        """Return the definitions of the columns of the stream that has just begun."""
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
        """The server's CONNECTION_ID() of it, from the server's greeting."""
        return self.server_thread_id[0]

    @property
    def text_encoding(self) -> TextEncoding:
        """How it wants text."""
        escapes = not self.server_status & _NO_BACKSLASH_ESCAPES
        known = self.codec.text_encoding
        if known is None or known[0] != self.encoding or known[1] is not escapes:
            zone = time_zone(self._config.time_zone)
            known = self.codec.text_encoding = TextEncoding(self.encoding, escapes, zone)
        return known

    @property
    def set_names(self) -> bytes:
        """The command that gives its session the configuration's character set."""
        return session_setup.set_names(self._config).encode("ascii")

    @property
    def in_transaction(self) -> bool:
        """The server says that a transaction is open."""
        return bool(self.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)

    @property
    def reusable(self) -> bool:
        """Idle, in autocommit and outside a transaction: the next borrower finds it as
        it was, if it is not ``dirty``.
        """
        return (
            self.wire is _IDLE
            and self.server_status & _STATUS_OF_TRANSACTIONS == _AUTOCOMMIT
            # or an exception came just when its command began or ended
            and not self._in_use.locked()
        )

    @property
    def untouched(self) -> bool:
        """Reusable, and nothing is to be done before: what it mostly is."""
        return (
            self.wire is _IDLE
            and self.server_status & _STATUS_OF_TRANSACTIONS == _AUTOCOMMIT
            and self.kill_state is _NO_KILL
            and not (self.dirty or self.has_diagnostics or self.inherited)
            and not self._in_use.locked()
        )

    def aim_at(self, endpoint: Endpoint) -> None:
        """Have the driver connect to a host; without an address, to that of the
        configuration.
        """
        if endpoint.address is not None:
            for name, value in zip(self.ADDRESS_ATTRIBUTES, endpoint.address):
                setattr(self, name, value)

    def begin_session(self) -> None:
        """Before a session is opened; the object may have had another one before."""
        self._in_use = threading.Lock()

    def session_opened(self, endpoint: Endpoint = NOWHERE) -> None:
        """Record that the set-up is complete.

        Args:
            endpoint: The host that it is connected to.
        """
        self.wire = WireState.IDLE
        self.kill_state = KillState.NONE
        self.sent = self._written = self.aborted = self.dirty = self.has_diagnostics = False
        self.failure = None
        self.lifetime = Lifetime(self._config.max_lifetime, endpoint)

    def is_too_old(self, now: float) -> bool:
        """Whether it is to be replaced: by its own age, or because its host is no
        longer used.

        Args:
            now: By time.monotonic().
        """
        return self.lifetime.expires_at < now or self.retired

    @property
    def retired(self) -> bool:
        """Its host was found demoted or silent after it was opened."""
        return self.lifetime.opened_at <= self.lifetime.endpoint.replace_before

    def _forked(self) -> None:
        self.inherited = True
        self.wire = WireState.CLOSED
        self._in_use = threading.Lock()
        self._close_descriptor()

    def quit(self) -> None:
        """Close it, with a word to the server if it is idle."""
        raise NotImplementedError

    @abstractmethod
    def abort(self) -> None:
        """Close the socket at once, without a word to the server."""

    @abstractmethod
    def _close_descriptor(self) -> None:
        """Close this process's descriptor of the socket; the session goes on."""

    # One command.

    def check_length(self, command: bytes) -> None:
        """Check that the server takes a command: less than its limit, with a byte for
        the kind of command (measured with MariaDB 10.11 and MySQL 9.7).

        Raises:
            PacketTooLarge: It does not; no byte was written.
        """
        most = self.facts.max_packet
        if most is not None and len(command) + 1 >= most:
            raise errors.PacketTooLarge(
                f"the statement has {len(command)} bytes, and the server takes less than "
                f"{most - 1} (max_allowed_packet)"
            )

    def learn_max_packet(self, most: int) -> None:
        """Keep the server's limit on one packet: a session has the one that it began
        with.

        Args:
            most: In bytes.
        """
        self.facts = self.facts._replace(max_packet=most)

    def begin_command(self) -> None:
        """Take the wire for a command.

        Raises:
            ConcurrentUseError: Another thread or task is in the middle of a command;
                nothing was written.
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
        """The response is complete.

        Args:
            info: The rest of an OK packet; None after rows.
            warnings: How many the server counts.
        """
        if warnings:
            self.has_diagnostics = True
        if info is not None and self.server_status & session_setup.STATE_CHANGED:
            self.record_change(info)
        self.wire = _IDLE if self.failure is None else WireState.CLOSED
        self._in_use.release()

    def record_change(self, info: bytes) -> None:
        """Keep what an OK packet reports of the session.

        Args:
            info: What follows its flags.
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
        """An error ended the command: a server's refusal, which is a response too, or a
        lost connection, or nobody waits any more.

        Args:
            error: What is raised.
            gave_up: This side did not wait for the response.
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
        """The error to raise in place of one that a driver raised over bytes that it
        could not read.
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
        """Read no further."""
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
            result.unbuffered_active = False  # or the driver would read the rest of it
        self.break_command(error, gave_up=self._timed_out)

    # Statements of a cursor, which nobody here sends.

    def check_cursor_statement(self, sql: Any) -> None:
        """Check what a driver's cursor is about to send.

        Raises:
            InterfaceError: It would change the character set.
            TransactionAborted: The session must not be used any more.
        """
        if self.failure is not None:
            raise errors.TransactionAborted(self.failure).with_context(None, sent=False)
        text = sql.decode("latin1") if isinstance(sql, (bytes, bytearray)) else sql
        classify.refuse_charset_change(text)

    def may_have_other_charset(self, sql: Any, error: BaseException) -> bool:
        """Whether a cursor's statement may have changed the character set before it
        failed, of which the server says nothing then.
        """
        text = sql.decode("latin1") if isinstance(sql, (bytes, bytearray)) else sql
        return errors.is_server_error(error) and classify.first_word(text) not in classify.OPEN

    # The response, where it is not the driver that reads it.

    def new_response(self, command: bytes, *, stream: bool = False) -> Any:
        """What is fed with the bytes of the response to a command.

        Args:
            command: The command.
            stream: Its rows are taken as they come.
        """
        wanted = self.row_options
        options = ResponseOptions(
            self.encoding,
            stream or wanted.as_tuples,
            stream,
            None if stream else wanted.most,
            self.codec.decoder_name == "compiled",
        )
        if type(command) is commands.Batch:
            return BatchResponse(options)
        number = commands.query_packets(command) & 255
        return Response(options, number, self.codec.cached_decoder)

    def apply_response(self, response: Any) -> None:
        """Keep what a response, whole or not, says of the session."""
        self.codec.cached_decoder = response.cached_decoder
        if response.server_status is not None:
            self.server_status = response.server_status
        for change in response.changes:
            if change is None:
                self.dirty = True
            else:
                self.record_change(change)
        # the server has sent something unasked, as it does when it shuts down
        if response.rest:
            self.abort()

    def new_responses(self, count: int) -> Responses:
        """What is fed with the bytes of the responses to commands that are sent
        together.

        Args:
            count: The number of commands.
        """
        options = ResponseOptions(self.encoding, tuples=True)
        return Responses(count, lambda: Response(options))

    def apply_responses(self, responses: Responses) -> List[Any]:
        """Keep what they say of the session; return the answers."""
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
        """The error of a connection that was found closed."""
        return pymysql.err.OperationalError(CR.CR_SERVER_GONE_ERROR, "MySQL server has gone away")

    def deadline_exceeded(self) -> errors.DeadlineExceeded:
        """The error of a deadline that passed before the response was complete."""
        return errors.DeadlineExceeded(
            CR.CR_SERVER_LOST, "the deadline passed before the answer was complete"
        )

    # What a session is given when it is opened, and again when it is reset.

    def track_changes(self) -> None:
        """Before authentication: have the server report when a statement changes the
        session.
        """
        if self.server_capabilities & _SESSION_TRACK:
            self.client_flag |= _SESSION_TRACK

    @property
    def profile(self) -> EngineProfile:
        """What its server can do."""
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
        """The commands of a new session; see ``session_setup``."""
        self.facts = session_setup.SessionFacts()
        statement = self._setup_statement(lock)
        return session_setup.setup_commands(self._config, statement, self._questions)

    def finish_setup(self, answers: Sequence[Any], lock: Optional[str]) -> bool:
        """Keep what the answers to ``setup_commands`` say.

        Args:
            answers: For each command its response, or the server's error.
            lock: What ``setup_commands`` was given.

        Returns:
            False where the set-up is to be tried without the lock.
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
        """The commands that make the session as new, or that clear the diagnostics
        area alone.
        """
        if only_diagnostics:
            return [(COMMAND.COM_QUERY, session_setup.CLEAR_DIAGNOSTICS)]
        return session_setup.reset_commands(
            self._config, self._setup_statement(self.facts.lock), self.encoding
        )

    def finish_reset_with(self, answers: Sequence[Any]) -> None:
        """Check the answers to ``reset_commands``.

        Raises:
            pymysql.err.MySQLError: The session is not as new.
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
    """What the answer to ``PROBE`` says of a session; old servers refuse it."""
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
