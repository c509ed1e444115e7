"""Transactions and savepoints: what both implementations decide, beside the waiting."""

import logging
import secrets
from abc import abstractmethod
from typing import (
    Any,
    Callable,
    Coroutine,
    Generic,
    Iterable,
    List,
    Literal,
    Optional,
    Tuple,
    cast,
    overload,
)

import pymysql.err

from .. import error_codes, errors
from ..execution import commit_outcome, execute, observed, steps
from ..execution import pipeline as pipelines
from ..observability.events import TransactionEvent
from ..observability.logs import about
from ..observability.observers import Observers
from ..protocol import exchange, transaction_commands
from ..protocol.statements import AnyStatement
from ..protocol.transaction_commands import DEFAULT_OPTIONS, TransactionOptions, Verdict
from . import membership, read_blocks
from .client import AnyClient
from .membership import LastInserts
from .target import Blocks
from .time_limit import TimeLimit
from .transaction_state import Status, TransactionState
from .typevars import ConnectionT, InTasks, InThreads, TransactionT

log = logging.getLogger("dualdb.transaction")


class BaseTransaction(Blocks[TransactionT, ConnectionT], Generic[TransactionT, ConnectionT]):
    """A transaction on one database, or a savepoint inside one.

    Used once, as a context manager. An implementation adds the I/O: it checks a
    connection out, sends what is decided here, and gives the connection back.
    """

    _leaving: Any = None

    def __init__(
        self,
        route: steps.Route,
        outer: Optional[TransactionState] = None,
        *,
        options: TransactionOptions = DEFAULT_OPTIONS,
    ) -> None:
        self._resolve = route
        self._outer, self._options = outer, options
        self._state: Optional[TransactionState] = None
        self._number = 0  # of the savepoint; 0 for the transaction itself
        self._rolled_back = False

    def __repr__(self) -> str:
        state = self._state
        if state is None:
            return f"<{type(self).__name__}, not begun>"
        return (
            f"<{type(self).__name__} on {state.client.name}, {'open' if self.is_open else 'over'}>"
        )

    def __del__(self) -> None:
        state = self.__dict__.get("_state")
        if state is not None and not self._number and state.connection is not None:
            self._abandon()

    @property
    def _entered(self) -> bool:
        return self._state is not None

    def _abandon(self) -> None:
        """Its block was not left as it should have been."""
        state = self._state
        if state is None:
            return
        if not self._number:
            if state.connection is not None or state.is_open:
                state.abandon()
                membership.leave(self)
        elif state.savepoints.is_open(self._number):
            state.savepoints.close(self._number)
            state.fail("a savepoint of this transaction was not left: its end was interrupted")

    # A target for statements.

    @property
    def is_open(self) -> bool:
        """True from the beginning of its block to its end."""
        state = self._state
        return state is not None and state.is_open and state.savepoints.is_open(self._number)

    @property
    def _begun(self) -> TransactionState:
        if self._state is None:
            raise errors.InterfaceError("this transaction has not begun: use it in a with block")
        return self._state

    @property
    def _connection(self) -> Any:
        return self._begun.connection

    @property
    def name(self) -> str:
        """The database it is on: "global", "shard 7", or the client's address."""
        return str(self._begun.client.name)

    @property
    def shard_id(self) -> Optional[int]:
        """The shard it is on; None for the global database."""
        shard_id: Optional[int] = self._begun.client.shard_id
        return shard_id

    _refresh_on_miss = None  # what has begun ends where it began

    @property
    def _read_only(self) -> bool:
        return self._begun.read_only or self._reads_only

    @property
    def _reads_only(self) -> bool:
        """The call or the transaction, and not the shard, is limited to reads."""
        client = self._begun.client
        return self._begun.options.reads_only or client._reads_only

    @property
    def _observers(self) -> Observers:
        observers: Observers = self._begun.client._observers
        return observers

    def _record_insert_id(self, lastrowid: int) -> None:
        self._begun.client._record_insert_id(lastrowid)

    @abstractmethod
    def _execute(self, statement: AnyStatement, until: Optional[float] = None) -> Any:
        """Send a statement on the transaction's connection; its exchange's result."""

    def _take_retry_token(self) -> bool:
        return False

    def _current_transaction(self) -> Any:
        return self

    def _route(self, until: Optional[float] = None) -> steps.Plan[steps.Executor]:
        yield from ()
        self._check()
        return self

    def _check(self) -> TransactionState:
        state = self._begun
        if not self.is_open:
            raise errors.InterfaceError("this transaction is over")
        if getattr(state.connection, "inherited", False):
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

    def _check_caller(self, state: TransactionState) -> None:
        """Refuse a statement that would be part of another caller's savepoint."""
        if state.testing:
            return
        try:
            state.savepoints.check_caller(self._number, state.client._owner)
        except errors.ConcurrentUseError as error:
            raise error.with_context(self.name, self.shard_id, sent=False) from None

    @staticmethod
    def _no_turn(state: TransactionState) -> errors.Error:
        """What a call raises that could not be made before its deadline."""
        error = errors.DeadlineExceeded(
            "the deadline passed while another call was made in this transaction"
        )
        error.in_transaction = True
        return error.with_context(state.client.name, state.client.shard_id, sent=False)

    def _last_inserts(self) -> LastInserts:
        return self._check().client._last_inserts()

    @overload
    def pipeline(
        self: InThreads, statements: Iterable[pipelines.Piped], *, timeout: Optional[float] = None
    ) -> List[Any]: ...

    @overload
    def pipeline(
        self: InTasks, statements: Iterable[pipelines.Piped], *, timeout: Optional[float] = None
    ) -> Coroutine[Any, Any, List[Any]]: ...

    def pipeline(
        self, statements: Iterable[pipelines.Piped], *, timeout: Optional[float] = None
    ) -> Any:
        """Run several statements, many in one round trip.

        It is as if they were run one after the other: the first that fails is the last
        that is run. Statements that read or write rows are sent together, up to 256 in
        a command; others, such as calls, each by itself.

        Args:
            statements: A str, or a pair of a str and its parameters, for each.
            timeout: Seconds for all together.

        Returns:
            For each statement its rows, or if it returns none a RowCount.

        Raises:
            ParameterError: One is invalid; nothing was sent.
            Error: The server's error of a statement, whose number, from 0, is in
                ``rows``, twice. What came before it has been done in the transaction.
                If the connection was lost, the first and the last number of those that
                were sent together.

        Example:
            >>> with db.shard(2).transaction() as tx:
            ...     tx.pipeline(
            ...         [
            ...             ("UPDATE trades SET quantity = 0 WHERE user_id = %s", (7,)),
            ...             "SELECT COUNT(*) AS n FROM trades WHERE quantity = 0",
            ...         ]
            ...     )
            [1, [{'n': 1}]]
        """
        return self._run(pipelines.pipeline(self._route, statements, timeout))

    def cursor(self, *args: Any) -> Any:
        """Make a cursor of the driver on this transaction's connection.

        For code that is written for the driver. What is sent through it is not checked,
        and it must not be used after the block.

        Args:
            args: The cursor's class, as for the driver's own method.

        Returns:
            The driver's cursor; in asyncio its methods are awaited.

        Raises:
            ShardReadOnly: The shard accepts only reads.
            ReadOnlyTargetError: The transaction does.
        """
        state = self._check()
        self._check_caller(state)
        if self._read_only:
            why = "what a cursor sends is not known to be a read"
            raise execute.write_refusal(self, why)
        state.connection.dirty = True  # what is sent through it is not known here
        state.wrote = True
        return state.connection.cursor(*args)

    def _new_transaction(self, options: TransactionOptions) -> TransactionT:
        """Make a savepoint."""
        state = self._check()
        savepoint = type(self)(steps.fixed_route(state.client), state, options=options)
        return cast(TransactionT, savepoint)

    def _new_connection(self) -> ConnectionT:
        raise errors.InterfaceError(
            "a transaction does not hand out its connection: "
            "use cursor(), or connection() of the database itself"
        )

    def on_commit(self, function: Callable[[], Any]) -> None:
        """Call a function after the outermost transaction has been committed.

        It is called outside the transaction, and not if this one is rolled back. Such
        functions are called in their order. An exception that one raises is logged: the
        transaction is committed all the same.

        Args:
            function: Takes nothing; in asyncio it may be a coroutine function.

        Raises:
            InterfaceError: The block has ended, or has not begun.

        Example:
            >>> tx.on_commit(lambda: print("committed"))
        """
        self._check().savepoints.add_hook(self._number, function)

    # How it begins.

    def _check_unused(self) -> TimeLimit:
        if self._state is not None:
            raise errors.InterfaceError("a transaction is used once: ask for a new one")
        return TimeLimit(self._options.begun().until)

    def _outer_state(self, client: AnyClient) -> Optional[TransactionState]:
        """The transaction to begin a savepoint in, if any."""
        if self._options.commit_marker and client._read_only:
            raise execute.write_refusal(client, "a commit marker is written")
        outer = self._outer
        if outer is None:
            joined = client._current_transaction()
            if joined is None:
                return None
            outer = joined._check()
        if self._options != DEFAULT_OPTIONS and not outer.testing:
            raise errors.InterfaceError(
                "the options of a transaction belong to the outermost, and this one is inside "
                "another"
            )
        self._outer = outer
        self._number = outer.savepoints.new_number()
        return outer

    def _begin_outermost(
        self, borrowed: List[Tuple[Any, Any]], limit: TimeLimit
    ) -> TransactionState:
        """The state of a transaction on the connection that was checked out for it."""
        client, connection = borrowed[0]
        entry = membership.Entry(client._owner())
        options = self._options
        if client._reads_only:
            options = read_blocks.limited_to_reads(options)
        return TransactionState(client, connection, entry, options, limit)

    def _begin_exchange(self, state: TransactionState) -> exchange.Exchange:
        if self._number:
            state.savepoints.check_innermost(state.client._owner())
        state.connection.sent = False
        if self._number:
            state.connection.profile.require("savepoints")
            yield from transaction_commands.begin(self._number, None)
            return
        options = state.options
        if options.xid is not None:
            state.connection.profile.require("xa")
        state.token = secrets.token_hex(16) if options.commit_marker else None
        yield from transaction_commands.begin(0, state.token, options)

    def _opened(self, state: TransactionState) -> None:
        """It has begun on the server.

        The timer, which may fail to start, comes first, and last the one assignment
        that opens the transaction to others.
        """
        self._state = state
        if self._number:
            state.savepoints.opened(self._number, membership.Entry(state.client._owner()))
            return
        client = state.client
        state.limit.start(self._set_timer, state.cut)
        if client._shared is not None:
            state.topology = client._shared.topology()
        if client._child_tasks == "join":
            state.gate = self._new_gate()
        membership.enter(self)
        state.status = Status.OPEN

    def _begin_failed(
        self, state: Optional[TransactionState], borrowed: List[Tuple[Any, Any]], error: Any
    ) -> BaseException:
        """Undo what ``__enter__`` has done; the error that it raises."""
        if state is not None:
            sent = state.connection is not None and state.connection.sent
            error = errors.translate_error(
                error, state.client.name, state.client.shard_id, sent=sent
            )
        self._state = self._state or state  # it is not used again
        if self._number:
            if state is not None:
                state.savepoints.close(self._number)
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
    def _set_timer(self, at: float, function: Callable[[], None]) -> Any:
        """Have a function called at this ``time.monotonic()``; it has ``cancel()``."""

    @abstractmethod
    def _new_gate(self) -> Any:
        """What lets the calls of one transaction through one at a time."""

    # What a statement does to it.

    def _exchange(self, statement: AnyStatement) -> exchange.Exchange:
        """Send a statement; find out whether the transaction is still there."""
        state = self._begun
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

    def _clamp(self, until: Optional[float]) -> Optional[float]:
        """Until when something in it must be over."""
        return self._begun.limit.clamp(until)

    def _fail(self, failure: "BaseException | str") -> None:
        self._begun.fail(failure)

    def _on_error(self, error: BaseException) -> BaseException:
        """What to raise for a statement's error; marks the transaction failed where the
        error means that.
        """
        state, translated = self._begun, self._translate_error(error)
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
        state = self._begun
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

    def _ending(self, verdict: Verdict) -> Tuple[bytes, ...]:
        """Return the commands that carry out a verdict."""
        connection = self._begun.connection
        explicit = (
            connection is not None and connection.dirty and not connection.profile.plain_sessions
        )
        return transaction_commands.commands_for(verdict, self._number, explicit=explicit)

    def _end(self, error: Optional[BaseException]) -> Verdict:
        """Take the transaction, or the savepoint, out of use; how it ends."""
        state = self._begun
        if not state.savepoints.is_open(self._number) or not state.is_open:
            return Verdict.NOTHING
        connection = state.connection
        if connection.idle:
            connection.sent = False
        if not self._number:
            state.limit.stop()  # what follows is not cut short
        verdict, failure = state.ending(self._number, error)
        if failure is not None:
            state.fail(failure)
        if verdict is Verdict.CLOSE:
            connection.idle = False  # closing the connection rolls back
        state.savepoints.close(self._number)
        if not self._number:
            state.ends(error)
            membership.leave(self)
        return verdict

    def _on_end_error(
        self, failure: BaseException, verdict: Verdict
    ) -> Optional[errors.OutcomeUnknown]:
        """A command that carries out the verdict failed.

        Gives what is to be resolved.
        """
        state, translated = self._begun, self._translate_error(failure)
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

    def _block_left(self, *, finished: bool) -> None:
        """Give the connection back, if it was the whole that ended; it is not
        ``finished`` where an exception from outside interrupted the end.
        """
        state = self._begun
        if not self._number:
            state.ends(None)
            state.give_back()
        elif not finished:
            state.savepoints.close(self._number)
            state.fail("the end of a savepoint of this transaction was interrupted")

    def _after_end(
        self,
        verdict: Verdict,
        error: Optional[BaseException],
        unknown: Optional[errors.OutcomeUnknown],
    ) -> steps.Plan[None]:
        """Called last: a block that ended well although its transaction is gone must
        not look as if it had been committed.
        """
        watched = not self._number and verdict is not Verdict.NOTHING
        if not watched or not self._observers.hooks("transaction"):
            yield from self._finish_block(error, unknown)
            return
        try:
            yield from self._finish_block(error, unknown)
        except errors.Error as failure:
            yield from self._post_end(verdict, failure)
            raise
        yield from self._post_end(verdict, error)

    def _post_end(self, verdict: Verdict, error: Optional[BaseException]) -> steps.Plan[None]:
        """Call the hooks for its end."""
        state = self._begun
        outcome: Literal["committed", "rolled_back", "unknown"] = "rolled_back"
        if isinstance(error, errors.OutcomeUnknown):
            outcome = "unknown"
        elif error is None and verdict is Verdict.COMMIT:
            outcome = "committed"
        failure = None if isinstance(error, errors.Rollback) else error
        event = TransactionEvent(
            "transaction", self.name, self.shard_id, outcome, state.seconds, failure
        )
        yield from observed.finish(self._observers, event)

    def _finish_block(
        self, error: Optional[BaseException], unknown: Optional[errors.OutcomeUnknown]
    ) -> steps.Plan[None]:
        state = self._begun
        try:
            if unknown is not None:
                yield from self._resolve_commit(unknown)
            elif error is None and not self._rolled_back:
                self._raise_if_aborted()
        finally:
            if not self._number and state.failure is not None:
                # A savepoint's block that is left later must still learn of it; the
                # failure itself would keep the frames of this block alive.
                state.failure = errors.OperationalError("the transaction is over")
        if error is not None or self._rolled_back:
            state.savepoints.drop_hooks(self._number)
        elif self._number:
            state.savepoints.keep_hooks(self._number)
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
        state, committed = self._begun, None
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

    def _raise_if_aborted(self) -> None:
        state = self._begun
        if state.failure is None:
            return
        if state.limit.passed:
            raise state.timeout_error().with_context(self.name, self.shard_id) from state.failure
        raise errors.TransactionAborted(
            "the transaction was not committed as a whole: it was gone before its block ended"
        ).with_context(self.name, self.shard_id, sent=True) from state.failure


AnyTransaction = BaseTransaction[Any, Any]
