"""The blocks of transactions and savepoints: what both implementations decide, beside
the waiting.
"""

import logging
import secrets
from abc import ABC, abstractmethod
from typing import Any, Callable, List, Literal, Optional, Tuple, cast

import pymysql.err

from .. import error_codes, errors
from ..execution import commit_outcome, execute, observed, steps
from ..observability.events import TransactionEvent
from ..observability.logs import about
from ..observability.observers import Observers
from ..protocol import exchange, transaction_commands
from ..protocol.statements import AnyStatement
from ..protocol.transaction_commands import DEFAULT_OPTIONS, TransactionOptions, Verdict
from . import membership, read_blocks
from .database_client import BaseDatabaseClient
from .time_limit import TimeLimit
from .transaction_state import Status, TransactionState

log = logging.getLogger("dualdb.transaction")


class BaseTransactionBlock(ABC):
    """The block of a transaction, or of a savepoint inside one, as the package itself
    uses it: an executor of statements (``steps.Executor``).

    Users hold a Transaction over it, which has the verbs. An implementation adds the
    I/O: it checks a connection out, sends what is decided here, and gives the
    connection back.

    Args:
        route: Finds the database.
        outer: The transaction around it, of a savepoint that is made from one.
        options: How it is opened.

    Attributes:
        outer: As given, or the transaction in which the caller takes part.
        options: As given.
        state: The transaction's state; None until the block is entered.
        number: Of the savepoint; 0 for the transaction itself.
        rolled_back: Its user has rolled it back.
    """

    def __init__(
        self,
        route: steps.Route,
        outer: Optional[TransactionState] = None,
        *,
        options: TransactionOptions = DEFAULT_OPTIONS,
    ) -> None:
        self._resolve = route
        self.outer = outer
        self.options = options
        self.state: Optional[TransactionState] = None
        self.number = 0
        self.rolled_back = False

    def __repr__(self) -> str:
        state = self.state
        if state is None:
            return f"<{type(self).__name__}, not begun>"
        return (
            f"<{type(self).__name__} on {state.client.name}, {'open' if self.is_open else 'over'}>"
        )

    def __del__(self) -> None:
        state = self.__dict__.get("state")
        if state is not None and not self.number and state.connection is not None:
            self.abandon()

    def abandon(self) -> None:
        """Its block was not left as it should have been."""
        state = self.state
        if state is None:
            return
        if not self.number:
            if state.connection is not None or state.is_open:
                state.abandon()
                membership.leave(self)
        elif state.savepoints.is_open(self.number):
            state.savepoints.close(self.number)
            state.fail("a savepoint of this transaction was not left: its end was interrupted")

    # A target for statements.

    @property
    def is_open(self) -> bool:
        """True from the beginning of its block to its end."""
        state = self.state
        return state is not None and state.is_open and state.savepoints.is_open(self.number)

    @property
    def begun(self) -> TransactionState:
        """Its state.

        Raises:
            InterfaceError: The block has not been entered.
        """
        if self.state is None:
            raise errors.InterfaceError("this transaction has not begun: use it in a with block")
        return self.state

    @property
    def name(self) -> str:
        """The database it is on: "global", "shard 7", or the client's address."""
        return str(self.begun.client.name)

    @property
    def shard_id(self) -> Optional[int]:
        """The shard it is on; None for the global database."""
        shard_id: Optional[int] = self.begun.client.shard_id
        return shard_id

    refresh_on_miss = None  # what has begun ends where it began
    replica = None
    write_refusal = None

    @property
    def client(self) -> BaseDatabaseClient:
        """The client of its database."""
        client: BaseDatabaseClient = self.begun.client
        return client

    @property
    def read_only(self) -> bool:
        """Only known reads are sent."""
        return self.begun.read_only or self.reads_only

    @property
    def reads_only(self) -> bool:
        """The call or the transaction, and not the shard, is limited to reads."""
        client = self.begun.client
        return self.begun.options.reads_only or client.reads_only

    @property
    def observers(self) -> Observers:
        """The hooks and interceptors of its calls."""
        observers: Observers = self.begun.client.observers
        return observers

    def record_insert_id(self, lastrowid: int) -> None:
        """Record the caller's last insert."""
        self.begun.client.record_insert_id(lastrowid)

    @abstractmethod
    def run_statement(self, statement: AnyStatement, until: Optional[float] = None) -> Any:
        """Send a statement on the transaction's connection; its exchange's result."""

    def take_retry_token(self) -> bool:
        """Return False: nothing is sent a second time in a transaction."""
        return False

    def current_transaction(self) -> Any:
        """Itself."""
        return self

    def route(self, until: Optional[float] = None) -> steps.Plan[steps.Executor]:
        """The route of the calls in it."""
        yield from ()
        self.check()
        return self

    def check(self) -> TransactionState:
        """Its state, if something may be sent in it.

        Raises:
            InterfaceError: It has not begun, or is over.
            DeadlineExceeded: Its time is over.
            TransactionAborted: It is gone.
        """
        state = self.begun
        if not self.is_open:
            raise errors.InterfaceError("this transaction is over")
        if state.connection.inherited:
            raise errors.InterfaceError(
                "this transaction belongs to process "
                f"{state.connection.lifetime.owner_pid}, from which this one was forked inside "
                "its block: leave the block, and begin one here"
            )
        if state.limit.is_over():
            raise state.timeout_error().with_context(self.name, self.shard_id, sent=False)
        if state.failure is not None:
            raise errors.TransactionAborted(
                "this transaction is gone, so nothing more is sent in it: "
                "leave the block and begin again"
            ).with_context(self.name, self.shard_id, sent=False) from state.failure
        return state

    def check_caller(self, state: TransactionState) -> None:
        """Refuse a statement that would be part of another caller's savepoint."""
        if state.testing:
            return
        try:
            state.savepoints.check_caller(self.number, state.client.caller)
        except errors.ConcurrentUseError as error:
            raise error.with_context(self.name, self.shard_id, sent=False) from None

    @staticmethod
    def no_turn(state: TransactionState) -> errors.Error:
        """What a call raises that could not be made before its deadline."""
        error = errors.DeadlineExceeded(
            "the deadline passed while another call was made in this transaction"
        )
        error.in_transaction = True
        return error.with_context(state.client.name, state.client.shard_id, sent=False)

    # How it begins.

    def check_unused(self) -> TimeLimit:
        """Its time, before the block is entered for the first time."""
        if self.state is not None:
            raise errors.InterfaceError("a transaction is used once: ask for a new one")
        return TimeLimit(self.options.begun().until)

    def outer_state(self, client: BaseDatabaseClient) -> Optional[TransactionState]:
        """The transaction to begin a savepoint in, if any."""
        if self.options.commit_marker and client.read_only:
            raise execute.write_refusal(client, "a commit marker is written")
        outer = self.outer
        if outer is None:
            joined = client.current_transaction()
            if joined is None:
                return None
            outer = joined.check()
        if self.options != DEFAULT_OPTIONS and not outer.testing:
            raise errors.InterfaceError(
                "the options of a transaction belong to the outermost, and this one is inside "
                "another"
            )
        self.outer = outer
        self.number = outer.savepoints.new_number()
        return outer

    def begin_outermost(
        self, borrowed: List[Tuple[Any, Any]], limit: TimeLimit
    ) -> TransactionState:
        """The state of a transaction on the connection that was checked out for it."""
        client, connection = borrowed[0]
        entry = membership.Entry(client.caller())
        options = self.options
        if client.reads_only:
            options = read_blocks.limited_to_reads(options)
        return TransactionState(client, connection, entry, options, limit)

    def begin_exchange(self, state: TransactionState) -> exchange.Exchange:
        """Begin it on the server."""
        if self.number:
            state.savepoints.check_innermost(state.client.caller())
        state.connection.sent = False
        if self.number:
            state.connection.profile.require("savepoints")
            yield from transaction_commands.begin(self.number, None)
            return
        options = state.options
        if options.xid is not None:
            state.connection.profile.require("xa")
        state.token = secrets.token_hex(16) if options.commit_marker else None
        yield from transaction_commands.begin(0, state.token, options)

    def opened(self, state: TransactionState) -> None:
        """It has begun on the server.

        The timer, which may fail to start, comes first, and last the one assignment
        that opens the transaction to others.
        """
        self.state = state
        if self.number:
            state.savepoints.opened(self.number, membership.Entry(state.client.caller()))
            return
        client = state.client
        state.limit.start(self.set_timer, state.cut)
        if client.shared is not None:
            state.topology = client.shared.topology()
        if client.child_tasks == "join":
            state.gate = self.new_gate()
        membership.enter(self)
        state.status = Status.OPEN

    def begin_failed(
        self, state: Optional[TransactionState], borrowed: List[Tuple[Any, Any]], error: Any
    ) -> BaseException:
        """Undo what ``__enter__`` has done; the error that it raises."""
        if state is not None:
            sent = state.connection is not None and state.connection.sent
            error = errors.translate_error(
                error, state.client.name, state.client.shard_id, sent=sent
            )
        self.state = self.state or state  # it is not used again
        if self.number:
            if state is not None:
                state.savepoints.close(self.number)
        elif borrowed:
            if state is not None:
                state.ends(None)
                membership.leave(self)
                state.give_back()
            else:
                client, connection = borrowed[0]
                client.pool.release(connection)
        return cast(BaseException, error)

    @abstractmethod
    def set_timer(self, at: float, function: Callable[[], None]) -> Any:
        """Have a function called at this ``time.monotonic()``; it has ``cancel()``."""

    @abstractmethod
    def new_gate(self) -> Any:
        """What lets the calls of one transaction through one at a time."""

    # What a statement does to it.

    def statement_exchange(self, statement: AnyStatement) -> exchange.Exchange:
        """Send a statement; find out whether the transaction is still there."""
        state = self.begun
        statement.check_in_transaction()
        if state.testing and statement.commits:
            raise errors.InterfaceError(
                "this statement commits, and what is done in a testing transaction vanishes: "
                "create tables before it begins"
            ).with_context(self.name, self.shard_id, sent=False)
        state.check_part(statement)
        if state.status is Status.IMPLICITLY_COMMITTED:
            yield from self._begin_again(state)
        with_tracking = exchange.with_session_tracking(
            statement, state.connection, in_transaction=True
        )
        # an XA branch refuses to be ended by a procedure
        is_xa = state.options.xid is not None
        guarded = statement.calls and state.connection.profile.savepoints and not is_xa
        if guarded:
            exchange.check_engine(statement, state.connection)
        result = yield from (self._guarded(state, with_tracking) if guarded else with_tracking)
        if not state.connection.in_transaction:
            if statement.commits:
                # As it would be with autocommit off: what was done is committed, and
                # what follows is a new transaction.
                log.warning(
                    "%s: a statement inside a transaction committed it; "
                    "what follows is a transaction of its own",
                    self.name,
                    extra=about("implicit_commit", self),
                )
                state.record_implicit_commit()
            else:
                state.fail("a statement inside the transaction has committed it or rolled it back")
        return result

    @staticmethod
    def _begin_again(state: TransactionState) -> exchange.Exchange:
        state.connection.sent = False
        state.token = secrets.token_hex(16) if state.options.commit_marker else None
        yield from transaction_commands.begin(0, state.token, state.options)
        state.status = Status.OPEN

    def _guarded(self, state: TransactionState, exchange: exchange.Exchange) -> exchange.Exchange:
        """Detect a procedure that ends the transaction.

        IN_TRANS is also set if it began another one, so a savepoint set before the call
        tells them apart: it is gone with the transaction it was set in.
        """
        yield transaction_commands.GUARD
        try:
            result = yield from exchange
        except pymysql.err.MySQLError as error:
            if errors.ends_answer(error) and state.connection.in_transaction:
                yield from self._release_guard(state)
            raise
        if state.connection.in_transaction:
            yield from self._release_guard(state)
        return result

    @staticmethod
    def _release_guard(state: TransactionState) -> exchange.Exchange:
        try:
            yield transaction_commands.UNGUARD
        except pymysql.err.MySQLError as error:
            if errors.code_of(error) != error_codes.NO_SUCH_SAVEPOINT:
                raise
            state.fail(
                "a procedure inside the transaction has ended it, or rolled back a part of it, "
                "and begun another"
            )

    def clamp(self, until: Optional[float]) -> Optional[float]:
        """Until when something in it must be over."""
        return self.begun.limit.clamp(until)

    def fail(self, failure: "BaseException | str") -> None:
        """It is gone as a whole."""
        self.begun.fail(failure)

    def on_error(self, error: BaseException) -> BaseException:
        """What to raise for a statement's error; marks the transaction failed where the
        error means that.
        """
        state, translated = self.begun, self._translate_error(error)
        connection = state.connection
        # its block was left meanwhile, perhaps by another thread
        if connection is None:
            return translated
        if (
            isinstance(translated, (errors.ConnectionLost, errors.DeadlineExceeded))
            and not connection.idle
        ):
            translated.in_transaction = True
            state.fail(translated)
        elif isinstance(translated, errors.Error) and translated.sent:
            if (
                not connection.in_transaction
                or not connection.idle
                or state.must_roll_back_after(translated)
            ):
                state.fail(translated)
        elif not isinstance(translated, errors.Error) and not connection.idle:
            state.fail(error)
        return translated

    def _translate_error(self, error: BaseException) -> BaseException:
        state = self.begun
        if (
            state.limit.passed
            and isinstance(error, errors.DRIVER_ERRORS)
            and not errors.is_server_error(error)
        ):
            error = state.timeout_error()  # it was the timer that has cut it
        sent = state.connection is None or state.connection.sent
        translated = errors.translate_error(error, self.name, self.shard_id, sent=sent)
        if state.partially_committed and isinstance(translated, errors.Error):
            translated.partially_committed = True
        return translated

    # How it ends.

    def ending(self, verdict: Verdict) -> Tuple[bytes, ...]:
        """Return the commands that carry out a verdict."""
        connection = self.begun.connection
        explicit = (
            connection is not None and connection.dirty and not connection.profile.plain_sessions
        )
        return transaction_commands.commands_for(verdict, self.number, explicit=explicit)

    def end(self, error: Optional[BaseException]) -> Verdict:
        """Take the transaction, or the savepoint, out of use; how it ends."""
        state = self.begun
        if not state.savepoints.is_open(self.number) or not state.is_open:
            return Verdict.NOTHING
        connection = state.connection
        if connection.idle:
            connection.sent = False
        if not self.number:
            state.limit.stop()  # what follows is not cut short
        verdict, failure = state.ending(self.number, error)
        if failure is not None:
            state.fail(failure)
        if verdict is Verdict.CLOSE:
            connection.idle = False  # closing the connection rolls back
        state.savepoints.close(self.number)
        if not self.number:
            state.ends(error)
            membership.leave(self)
        return verdict

    def on_end_error(
        self, failure: BaseException, verdict: Verdict
    ) -> Optional[errors.OutcomeUnknown]:
        """A command that carries out the verdict failed.

        Gives what is to be resolved.
        """
        state, translated = self.begun, self._translate_error(failure)
        state.fail(translated)
        state.connection.idle = False
        if verdict not in (Verdict.COMMIT, Verdict.RELEASE):
            log.warning(
                "%s: rollback failed, the connection is closed instead: %s",
                self.name,
                translated,
                extra=about("rollback_failed", self),
            )
            return None
        lost = isinstance(translated, (errors.ConnectionLost, errors.DeadlineExceeded))
        if lost and cast(errors.Error, translated).sent and verdict is Verdict.COMMIT:
            unknown = execute.outcome_unknown(cast(errors.Error, translated), "COMMIT")
            unknown.__cause__ = translated
            return unknown
        try:
            return errors.raise_translated(failure, translated)
        finally:
            del failure, translated  # see raise_translated

    def block_left(self, *, finished: bool) -> None:
        """Give the connection back, if it was the whole that ended; it is not
        ``finished`` where an exception from outside interrupted the end.
        """
        state = self.begun
        if not self.number:
            state.ends(None)
            state.give_back()
        elif not finished:
            state.savepoints.close(self.number)
            state.fail("the end of a savepoint of this transaction was interrupted")

    def after_end(
        self,
        verdict: Verdict,
        error: Optional[BaseException],
        unknown: Optional[errors.OutcomeUnknown],
    ) -> steps.Plan[None]:
        """Called last: a block that ended well although its transaction is gone must
        not look as if it had been committed.
        """
        watched = not self.number and verdict is not Verdict.NOTHING
        if not watched or not self.observers.hooks("transaction"):
            yield from self._finish_block(error, unknown)
            return
        try:
            yield from self._finish_block(error, unknown)
        except errors.Error as failure:
            yield from self.post_end(verdict, failure)
            raise
        yield from self.post_end(verdict, error)

    def post_end(self, verdict: Verdict, error: Optional[BaseException]) -> steps.Plan[None]:
        """Call the hooks for its end."""
        state = self.begun
        outcome: Literal["committed", "rolled_back", "unknown"] = "rolled_back"
        if isinstance(error, errors.OutcomeUnknown):
            outcome = "unknown"
        elif error is None and verdict is Verdict.COMMIT:
            outcome = "committed"
        failure = None if isinstance(error, errors.Rollback) else error
        event = TransactionEvent(
            "transaction", self.name, self.shard_id, outcome, state.seconds, failure
        )
        yield from observed.finish(self.observers, event)

    def _finish_block(
        self, error: Optional[BaseException], unknown: Optional[errors.OutcomeUnknown]
    ) -> steps.Plan[None]:
        state = self.begun
        try:
            if unknown is not None:
                yield from self._resolve_commit(unknown)
            elif error is None and not self.rolled_back:
                self.raise_if_aborted()
        finally:
            if not self.number and state.failure is not None:
                # A savepoint's block that is left later must still learn of it; the
                # failure itself would keep the frames of this block alive.
                state.failure = errors.OperationalError("the transaction is over")
        if error is not None or self.rolled_back:
            state.savepoints.drop_hooks(self.number)
        elif self.number:
            state.savepoints.keep_hooks(self.number)
            hooks = state.savepoints.take_hooks(0) if state.testing else ()
            if hooks:
                yield steps.CallHooks(hooks)
        elif state.savepoints.hooks:
            yield steps.CallHooks(state.savepoints.hooks)

    def _resolve_commit(self, unknown: errors.OutcomeUnknown) -> steps.Plan[None]:
        """Find out what became of a COMMIT, where that is possible.

        Raises:
            TransactionAborted: It was not applied.
            OutcomeUnknown: That is not known.
        """
        state, committed = self.begun, None
        if state.token is not None and not isinstance(unknown, errors.WriteTimedOut):
            committed = yield from commit_outcome.resolve_commit_outcome(
                state.client, state.token, state.end_until() if state.limit.at else None
            )
        if committed is None:
            raise unknown
        if not committed:
            since = (
                "what followed the implicit commit"
                if state.partially_committed
                else "the transaction"
            )
            raise errors.TransactionAborted(
                f"the connection was lost before COMMIT was applied, so nothing of {since} was"
            ).with_context(self.name, self.shard_id, sent=True) from unknown.__cause__

    def raise_if_aborted(self) -> None:
        """Raise the error of a block that ended well although its transaction is
        gone.
        """
        state = self.begun
        if state.failure is None:
            return
        if state.limit.passed:
            raise state.timeout_error().with_context(self.name, self.shard_id) from state.failure
        raise errors.TransactionAborted(
            "the transaction was not committed as a whole: it was gone before its block ended"
        ).with_context(self.name, self.shard_id, sent=True) from state.failure
