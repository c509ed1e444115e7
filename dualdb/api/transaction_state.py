"""The state of one open transaction, which its savepoints share."""

import enum
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, Union

from .. import deadlines, error_codes, errors
from ..protocol.statements import Call, Statement
from ..protocol.transaction_commands import TransactionOptions, Verdict
from . import membership
from .time_limit import TimeLimit

#: Seconds that a COMMIT, or what else ends a transaction, may take beyond the
#: transaction's own time: it is not cut short, and not waited for without end.
END_GRACE = 3.0

#: Seconds that it may take where neither the transaction, a deadline nor
#: ``read_timeout`` limits it.
END_TIMEOUT = 60.0


class Status(enum.Enum):
    """Where a transaction is between BEGIN and the end of its block."""

    NEW = "not begun"
    OPEN = "open"
    #: A statement committed it; the next one begins another in the same block.
    IMPLICITLY_COMMITTED = "committed by a statement"
    #: It is gone; its block is still running.
    FAILED = "failed"
    ENDED = "over"


class Ending(NamedTuple):
    """How a block ends, and what the transaction failed for, if it did."""

    verdict: Verdict
    failure: Optional[BaseException] = None


class Savepoints:
    """The savepoints of one transaction that are open, innermost last; 0 is the
    transaction itself.
    """

    def __init__(self, entry: membership.Entry) -> None:
        self._open: List[int] = [0]
        self._entries: Dict[int, membership.Entry] = {0: entry}
        self._made = 0
        #: The newest savepoint that an implicit commit has removed on the server.
        self.lost_upto = 0
        self._hooks: List[Tuple[int, Callable[[], Any]]] = []

    def new_number(self) -> int:
        """A number for another savepoint."""
        self._made += 1
        return self._made

    def opened(self, number: int, entry: membership.Entry) -> None:
        """It has been set on the server."""
        membership.enter_savepoint(entry)
        self._entries[number] = entry
        self._open.append(number)

    def is_open(self, number: int) -> bool:
        """True until its block, or one around it, has been left."""
        return number in self._open

    def is_entered_by(self, caller: object) -> bool:
        """Whether this caller runs inside one of the open savepoints."""
        return any(self._entries[number].is_by(caller) for number in self._open if number)

    def check_innermost(self, caller: object) -> None:
        """Savepoints are a stack: one of another caller, released in the middle, would
        take this one's rows along.

        Raises:
            ConcurrentUseError: The innermost savepoint is another caller's.
        """
        innermost = self._open[-1]
        if innermost and not self._entries[innermost].is_by(caller):
            raise errors.ConcurrentUseError(
                "another thread or task has a savepoint open in this transaction"
            )

    def check_caller(self, number: int, caller: Callable[[], object]) -> None:
        """Keep the writes of others out of an open savepoint: if it is rolled back,
        they would be, too, although they were acknowledged.

        Args:
            number: Of what the call is made through; 0 for the transaction itself.
            caller: Gives the thread, task or greenlet that calls.

        Raises:
            ConcurrentUseError: Another savepoint is innermost, and the caller does not
                run inside its block.
        """
        innermost = self._open[-1] if self._open else number
        if innermost != number and not self._entries[innermost].covers(caller()):
            raise errors.ConcurrentUseError(
                "another thread, task or suspended generator has a savepoint open in this "
                "transaction, which would take this statement along if it is rolled back: wait "
                "for its end, or use the savepoint itself"
            )

    def close(self, number: int) -> None:
        """Its block is left, and with it what is open inside."""
        if number in self._open:
            first = self._open.index(number)
            closed = self._open[first:]
            del self._open[first:]
            for inner in closed:
                self._entries.pop(inner).left()

    def lose_all(self) -> None:
        """An implicit commit has removed what has been made so far."""
        self.lost_upto = self._made

    def lost(self, number: int) -> bool:
        """True if the server does not have it any more."""
        return 0 < number <= self.lost_upto

    def add_hook(self, number: int, hook: Callable[[], Any]) -> None:
        """Call it when the whole is committed, unless this savepoint is rolled back."""
        self._hooks.append((number, hook))

    def keep_hooks(self, number: int) -> None:
        """The savepoint was released: its hooks are those of the one around it."""
        outer = self._open[-1] if self._open else 0
        self._hooks = [(outer if of >= number else of, hook) for of, hook in self._hooks]

    def take_hooks(self, number: int) -> Tuple[Callable[[], Any], ...]:
        """Remove the hooks of a savepoint that stands for a whole transaction, and
        return them; none if another savepoint is around it.
        """
        if self._open[-1:] != [0]:
            return ()
        taken = tuple(hook for of, hook in self._hooks if of >= number)
        self.drop_hooks(number)
        return taken

    def drop_hooks(self, number: int) -> None:
        """The savepoint, or with 0 the whole, was rolled back."""
        self._hooks = [(of, hook) for of, hook in self._hooks if of < number]

    @property
    def hooks(self) -> Tuple[Callable[[], Any], ...]:
        """What is to be called after COMMIT, in the order in which it was given."""
        return tuple(hook for _, hook in self._hooks)


class TransactionState:
    """One outermost transaction, made when its block is entered.

    Attributes:
        client: The client of the database it is on.
        connection: What it is open on; None once that was given back.
        entry: The caller that entered its block.
        limit: Its time.
        token: What it has left in the table of commit markers.
        topology: What was in use when it began, for a service's.
        failure: Why it is gone as a whole.
        partially_committed: An implicit commit has committed a part of it.
        read_only: Its shard took only reads when it began, or it is limited to them.
        gate: One call at a time, where children may join; an implementation's lock.
        wrote: Of a part of a transaction on several databases: it may have something to
            commit.
    """

    #: It stands for the database itself: every caller takes part, and its end is never
    #: COMMIT.
    testing = False

    def __init__(
        self,
        client: Any,
        connection: Any,
        entry: membership.Entry,
        options: TransactionOptions,
        limit: TimeLimit,
    ) -> None:
        self.client, self.connection = client, connection
        self.entry, self.options, self.limit = entry, options, limit
        self.status = Status.NEW
        self.savepoints = Savepoints(entry)
        self.token: Optional[str] = None
        self.topology: Any = None
        self.failure: Optional[BaseException] = None
        self.partially_committed = False
        self.read_only = bool(client.shard_read_only) or options.reads_only
        self.gate: Any = None
        self.wrote = False
        self._checked_out_at = client.pool.checked_out_at(connection)

    @property
    def is_open(self) -> bool:
        """Its block has begun and has not ended."""
        return self.status in (Status.OPEN, Status.IMPLICITLY_COMMITTED, Status.FAILED)

    @property
    def seconds(self) -> float:
        """Seconds since the checkout of its connection."""
        began = self._checked_out_at
        return 0.0 if began is None else time.monotonic() - began

    def fail(self, failure: "BaseException | str") -> None:
        """It is gone as a whole, and nothing more may be sent in it."""
        if self.failure is None:
            self.failure = errors.OperationalError(failure) if isinstance(failure, str) else failure
        if self.is_open:
            self.status = Status.FAILED

    def check_part(self, statement: Union[Statement, Call]) -> None:
        """Note what a statement means for a part of a transaction on several databases.

        Raises:
            InterfaceError: It would commit this part alone.
        """
        if not self.options.distributed:
            return
        if statement.commits:
            raise errors.InterfaceError(
                "a statement that commits, such as DDL, would end this part of a transaction on "
                "several databases alone: use it outside"
            ).with_context(self.client.name, self.client.shard_id, sent=False)
        self.wrote = self.wrote or statement.calls or bool(statement.why_no_read)

    def must_roll_back_after(self, error: errors.Error) -> bool:
        """Whether an error ends it although the server goes on: of a part of a
        transaction on several databases, a lock that was not available has undone one
        statement, and what follows would be committed without it.
        """
        return self.options.distributed and (
            isinstance(
                error, (errors.Deadlock, errors.LockWaitTimeout, errors.StatementInterrupted)
            )
            or error.errno in error_codes.XA_STATE
        )

    def record_implicit_commit(self) -> None:
        """A statement has committed it: as with autocommit off, another follows."""
        self.partially_committed = True
        self.savepoints.lose_all()
        if self.status is Status.OPEN:
            self.status = Status.IMPLICITLY_COMMITTED

    def timeout_error(self) -> errors.DeadlineExceeded:
        """What a call or the block's end raises when its time was over."""
        error = errors.DeadlineExceeded(
            "the transaction's time was over before its block ended, and it has been rolled back"
        )
        error.in_transaction, error.partially_committed = True, self.partially_committed
        return error

    def cut(self) -> None:
        """End it on the server although its block goes on: its time is over."""
        connection = self.connection
        if connection is not None:
            connection.abort_in_use()
            # the server does not see a broken line before it wants to write
            if not connection.idle:
                self.client.pool.kill_checked_out(connection)

    # How a block ends. Nothing is changed here.

    def ending(self, number: int, error: Optional[BaseException]) -> Ending:
        """What to do when the block of savepoint ``number``, 0 for the whole, is left
        with ``error`` or without.
        """
        if self.limit.is_over():
            return Ending(Verdict.CLOSE, self.timeout_error())
        if error is not None and not isinstance(error, Exception):
            return Ending(Verdict.CLOSE, error)
        if not self.connection.idle:
            return Ending(
                Verdict.CLOSE,
                errors.OperationalError(
                    "a statement of this transaction was interrupted, or is still running"
                ),
            )
        if error is not None and deadlines.passed():
            return Ending(Verdict.CLOSE, error)  # no time is left to wait for a ROLLBACK
        if self.failure is not None:
            return Ending(Verdict.NOTHING if number else Verdict.ROLLBACK)
        if self.status is Status.IMPLICITLY_COMMITTED or self.savepoints.lost(number):
            return self._ending_of_what_is_committed(number, error)
        if not self.connection.in_transaction:
            return Ending(
                Verdict.NOTHING,
                errors.OperationalError("the transaction was ended through its cursor"),
            )
        if number:
            return Ending(Verdict.RELEASE if error is None else Verdict.ROLLBACK_TO)
        return self._ending_of_the_whole(error)

    def _ending_of_what_is_committed(self, number: int, error: Optional[BaseException]) -> Ending:
        if error is None or not number:
            return Ending(Verdict.NOTHING)
        return Ending(
            Verdict.NOTHING,
            errors.OperationalError(
                "an implicit commit has swept this savepoint away, "
                "so what follows it cannot be undone alone"
            ),
        )

    def _ending_of_the_whole(self, error: Optional[BaseException]) -> Ending:
        # The server has ended the session, or sent an error packet unasked, as it does
        # before it ends one: COMMIT has not been sent, and nothing is applied.
        if self.connection.is_stale():
            lost = errors.ConnectionLost(
                2006, "the server had ended the session before the end of the block was sent"
            ).with_context(self.client.name, self.client.shard_id, sent=False)
            lost.in_transaction, lost.partially_committed = True, self.partially_committed
            return Ending(Verdict.CLOSE, lost)
        return Ending(Verdict.COMMIT if error is None else Verdict.ROLLBACK)

    def end_until(self) -> float:
        """When what ends it must be over, by ``time.monotonic()``.

        A COMMIT has a little more than the transaction's own time, because its outcome
        is unknown if it is cut short; but a connection that never answers must not
        block the caller for ever.
        """
        now = time.monotonic()
        if self.limit.at is not None:
            limit = max(now, self.limit.at) + END_GRACE
        else:
            limit = now + (self.client.config.read_timeout or END_TIMEOUT)
        return min(limit, deadlines.deadline_after() or limit)

    # Its end.

    def ends(self, error: Optional[BaseException]) -> None:
        """Its block is being left: no call takes part in it from now on."""
        self.status = Status.ENDED
        self.limit.stop()  # what follows is not cut short
        if self.failure is None:
            self.failure = error

    def give_back(self) -> None:
        """Give the connection back to its pool, which closes one that is not as it
        was.
        """
        if self.connection is not None:
            self.client.pool.release(self.connection)
            self.connection = None

    def abandon(self) -> None:
        """Nobody will leave the block: close the connection, which rolls back.

        Called by finalisers, in any thread, and perhaps a second time.
        """
        self.status = Status.ENDED
        self.limit.stop()
        self.entry.left()
        connection, self.connection = self.connection, None
        pool = self.client.pool
        # whether it was given back before whatever has interrupted that
        if connection is not None and pool.checked_out_at(connection) == self._checked_out_at:
            pool.abandon(connection)
