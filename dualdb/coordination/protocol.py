"""Two-phase commit: which commands are sent, in which order, and what follows from each
response.

Everything here is a plan, without I/O. ``docs/coordination.md`` explains why the order
is safe.
"""

import enum
import time
from typing import Any, Callable, Iterable, List, NamedTuple, Optional, Sequence

from .. import deadlines, errors
from ..execution import retry
from ..execution.steps import Execute, Gather, Plan, RunPlan, Sleep
from .commands import Command, PinnedExecutor
from .decision_log import DECIDE_WITHIN, Decision, DecisionLog, is_undecided
from .xid import Xid

#: Seconds that the second phase may take beyond the deadline of the first: what it
#: does not finish, recovery does.
SECOND_PHASE = 3.0
#: The most seconds that are spent on reading a decision whose answer was lost.
SETTLE_TIMEOUT = 30.0
#: Seconds after which a coordinator does not say any more what was decided: its row may
#: have been deleted, when the transaction was committed by recovery. Less than
#: ``decision_log.KEEP_COMMITTED``.
SETTLE_WITHIN = 300.0

#: ER_XAER_NOTA: no such transaction (any more). On MariaDB also: its owner is
#: connected.
UNKNOWN_XID = 1397
#: ER_XA_RBROLLBACK: on MariaDB, of a branch that had nothing to commit.
NOTHING_TO_COMMIT = 1402


class PartState(enum.Enum):
    """The state of one database's part."""

    ACTIVE = "active"
    #: XA END has been sent.
    IDLE = "idle"
    PREPARED = "prepared"
    #: The answer to XA PREPARE, COMMIT or ROLLBACK was lost or was no success.
    UNSURE = "unsure"
    #: Its transaction is over, and the session can be used for another.
    ENDED = "ended"
    #: The session is lost, and its transaction with it.
    LOST = "lost"


class Part:
    """One database's part of a transaction on several.

    Attributes:
        executor: Sends on its connection.
        xid: Its name; None for a plain transaction.
        wrote: Something in it may have to be committed.
        compound: Its server takes several commands as one statement, as MariaDB does.
        state: How far it is.
    """

    def __init__(
        self,
        executor: PinnedExecutor,
        xid: Optional[Xid],
        *,
        wrote: bool = False,
        compound: bool = False,
    ) -> None:
        self.executor = executor
        self.xid = xid
        self.wrote = wrote
        self.compound = compound and xid is not None
        self.state = PartState.ACTIVE

    @property
    def shard_id(self) -> Optional[int]:
        """None for the global database."""
        shard_id: Optional[int] = self.executor.shard_id
        return shard_id

    @property
    def in_doubt(self) -> bool:
        """The server may have it prepared."""
        return self.xid is not None and self.state in (PartState.PREPARED, PartState.UNSURE)

    def send(self, words: str, until: Optional[float], options: str = "") -> Plan[Any]:
        """Send a command for this part.

        Args:
            words: ``"END"``, ``"PREPARE"``, ``"COMMIT"`` or ``"ROLLBACK"``.
            until: The deadline, by time.monotonic().
            options: What follows the xid.
        """
        text = words if self.xid is None else f"XA {words} {self.xid.sql}{options}"
        return (yield Execute(self.executor, Command(text), until))

    def finish_branch(self, until: Optional[float]) -> Plan[None]:
        """Send XA END, unless it is sent together with the next command."""
        if not self.compound:
            if self.xid is not None and self.state is PartState.ACTIVE:
                yield from self.send("END", until)
            self.state = PartState.IDLE

    def send_next(self, words: str, until: Optional[float], options: str = "") -> Plan[None]:
        """Send the command after ``finish_branch``; see ``send``."""
        if not self.compound or self.xid is None:
            yield from self.send(words, until, options)
            return
        name = self.xid.sql
        text = f"BEGIN NOT ATOMIC XA END {name}; XA {words} {name}{options}; END"
        yield Execute(self.executor, Command(text), until)


class Outcome(NamedTuple):
    """The outcome of a transaction.

    Attributes:
        committed: None if it is not known.
        cause: Why it was not committed, or is not known.
        logged: A decision was recorded, whose row can be deleted.
        left: Recovery has something to finish.
    """

    committed: Optional[bool]
    cause: Optional[Exception] = None
    logged: bool = False
    left: bool = False


class Coordination(NamedTuple):
    """The parameters of one commit.

    Attributes:
        gtrid: The transaction's name.
        log: The decision log.
        begun_at: When it began, by ``clock``.
        until: When it must be decided, by ``clock``.
        clock: Returns seconds.
    """

    gtrid: str
    log: DecisionLog
    begun_at: float
    until: Optional[float] = None
    clock: Callable[[], float] = time.monotonic

    @property
    def late(self) -> bool:
        """It is too late for a decision to commit."""
        now = self.clock()
        return now - self.begun_at > DECIDE_WITHIN or (self.until is not None and now >= self.until)


def commit(parts: Sequence[Part], on: Coordination) -> Plan[Outcome]:
    """Commit on every database, or on none.

    Args:
        parts: The parts, all active.
        on: The parameters.
    """
    writers = [part for part in parts if part.wrote]
    if len(writers) < 2:
        return (yield from _commit_one(parts, on))
    shards = [part for part in writers if part.xid is not None]
    failed = yield from _each([_prepare(part, on.until) for part in shards])
    if failed is None and on.late:
        failed = errors.DeadlineExceeded("the deadline passed before the decision was recorded")
        failed.with_context("global", sent=False)
    if failed is not None:
        return (yield from roll_back(parts, on, failed))
    decided = yield from _decide(writers, shards, on)
    if decided.committed is None:
        return decided
    if not decided.committed:
        return (yield from roll_back(parts, on, decided.cause))
    until = on.clock() + SECOND_PHASE if on.until is None else on.until + SECOND_PHASE
    yield from _each(
        [_commit_decided(part, until) for part in writers]
        + [_release(part, until) for part in parts if not part.wrote]
    )
    return Outcome(True, None, logged=True, left=any(part.in_doubt for part in parts))


def roll_back(parts: Sequence[Part], on: Coordination, cause: Optional[Exception]) -> Plan[Outcome]:
    """Roll back on every database. A part that cannot be reached is rolled back by its
    server when the session is closed, or, if it was prepared, by recovery: no decision
    is recorded.
    """
    until = on.clock() + SECOND_PHASE
    yield from _each([_roll_back(part, until) for part in parts])
    return Outcome(False, cause, left=any(part.in_doubt for part in parts))


def _each(plans: Iterable[Plan[Any]]) -> Plan[Optional[Exception]]:
    """Run plans at the same time; return the first error, if there is any."""
    members = tuple([RunPlan(plan) for plan in plans])
    if not members:
        return None
    outcomes: List[Any] = yield Gather(members, max(2, len(members)))
    found = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    for error in found:
        if not isinstance(error, errors.Error):
            raise error
    return found[0] if found else None


def start(parts: Sequence[Part], until: Optional[float]) -> Plan[None]:
    """Begin the branches, at the same time.

    Raises:
        Error: One could not be begun.
    """
    failed = yield from _each([part.send("START", until) for part in parts])
    if failed is not None:
        raise failed


# The first phase.


def _commit_one(parts: Sequence[Part], on: Coordination) -> Plan[Outcome]:
    """Commit if at most one database has something to commit, so that its COMMIT is the
    decision.
    """
    plans: List[Plan[Any]] = []
    writer: Optional[Part] = None
    for part in parts:
        if part.wrote:
            writer = part
            plans.append(_commit_alone(part, on.until))
        else:
            plans.append(_release(part, on.until))
    failed = yield from _each(plans)
    if writer is None or writer.state is PartState.ENDED:
        return Outcome(True)
    if writer.state is PartState.UNSURE:
        writer.state = PartState.LOST  # it was never prepared
        return Outcome(None, failed)
    return (yield from roll_back(parts, on, failed))


def _commit_alone(part: Part, until: Optional[float]) -> Plan[None]:
    yield from _guarded(part, part.finish_branch(until))
    try:
        yield from part.send_next("COMMIT", until, " ONE PHASE")
    except errors.Error as error:
        if may_be_applied(error):
            part.state = PartState.UNSURE
        raise
    part.state = PartState.ENDED


def _prepare(part: Part, until: Optional[float]) -> Plan[None]:
    yield from _guarded(part, part.finish_branch(until))
    before = part.state
    part.state = PartState.UNSURE  # and that remains if nobody waits for the answer
    try:
        yield from part.send_next("PREPARE", until)
    except errors.Error as error:
        if not may_be_applied(error):
            part.state = before
        raise
    part.state = PartState.PREPARED


def _release(part: Part, until: Optional[float]) -> Plan[None]:
    """End a part that, judging by its statements, has nothing to commit; a failure is
    ignored. It is committed rather than rolled back, because a view can hide a function
    that writes.
    """
    try:
        yield from _guarded(part, part.finish_branch(until))
        yield from part.send_next("COMMIT", until, " ONE PHASE")
    except errors.Error:
        part.state = PartState.LOST
    else:
        part.state = PartState.ENDED


def _guarded(part: Part, plan: Plan[None]) -> Plan[None]:
    """Run a plan for a part that is not prepared: if its session is lost, so is the
    part.
    """
    try:
        yield from plan
    except errors.Error as error:
        if not _session_survives(error):
            part.state = PartState.LOST
        raise


def _session_survives(error: errors.Error) -> bool:
    """Return whether the server refused the command, and the session can be used."""
    return not isinstance(error, (errors.ConnectionLost, errors.DeadlineExceeded))


def may_be_applied(error: errors.Error) -> bool:
    """Return whether a command that failed with this error may have been executed."""
    if error.sent is False:
        return False
    return not _session_survives(error) or isinstance(error, errors.OutcomeUnknown)


# The decision.


def _decide(writers: Sequence[Part], shards: Sequence[Part], on: Coordination) -> Plan[Outcome]:
    ids = [part.shard_id for part in shards if part.shard_id is not None]
    sent_at = on.clock()
    try:
        plain = [part for part in writers if part.xid is None]
        if plain:
            # The global database takes part: the decision is a row of its transaction.
            yield Execute(plain[0].executor, on.log.commit_row(on.gtrid, ids), on.until)
            yield from _commit_alone(plain[0], on.until)
        else:
            yield from on.log.commit(on.gtrid, ids, on.until)
    except errors.Error as error:
        if not is_undecided(error):
            return Outcome(False, error)
        for part in writers:
            if part.xid is None and not _session_survives(error):
                part.state = PartState.LOST
        return (yield from _settle(on, error, sent_at))
    return Outcome(True, logged=True)


def _settle(on: Coordination, doubt: errors.Error, sent_at: float) -> Plan[Outcome]:
    """Find out what was decided, whoever recorded it.

    Args:
        on: The transaction.
        doubt: Why that is not known.
        sent_at: When the decision was sent, by ``on.clock``.
    """
    limit = on.clock() + SETTLE_TIMEOUT
    block = deadlines.deadline_after()
    if block is not None:
        limit = min(limit, block + SECOND_PHASE)
    attempt = 0
    while on.clock() < limit:
        try:
            decision = yield from on.log.settle(on.gtrid, limit)
        except errors.Error as error:
            doubt.__context__ = error
            yield Sleep(retry.backoff(attempt, base=0.1, cap=1.0))
            attempt += 1
        else:
            if on.clock() - sent_at > SETTLE_WITHIN:
                break
            return Outcome(decision is Decision.COMMIT, doubt, logged=True)
    return Outcome(None, doubt, left=True)


# The second phase.


def _commit_decided(part: Part, until: Optional[float]) -> Plan[None]:
    if part.state in (PartState.ENDED, PartState.LOST):
        return  # the global database's, whose COMMIT was the decision
    try:
        yield from part.send("COMMIT", until)
    except errors.Error as error:
        if error.errno not in (UNKNOWN_XID, NOTHING_TO_COMMIT):
            part.state = PartState.UNSURE
            raise
    part.state = PartState.ENDED  # by recovery, if it is not known any more


def _roll_back(part: Part, until: Optional[float]) -> Plan[None]:
    if part.state in (PartState.ENDED, PartState.LOST, PartState.UNSURE):
        return
    prepared = part.state is PartState.PREPARED
    try:
        if part.xid is not None and part.state is PartState.ACTIVE:
            try:
                yield from part.send("END", until)
            except errors.Error as error:
                # A branch that the server has rolled back cannot be ended, and XA
                # ROLLBACK is the only thing that it takes.
                if not _session_survives(error):
                    raise
        yield from part.send("ROLLBACK", until)
    except errors.Error as error:
        ended = prepared and error.errno == UNKNOWN_XID
        if not ended:
            part.state = PartState.UNSURE if prepared else PartState.LOST
            raise
    part.state = PartState.ENDED


# Without XA.


class InOrder(NamedTuple):
    """The outcome of a transaction that was committed on one database after the other.

    Attributes:
        committed: Where it was committed.
        failed: Where nothing was applied.
        unknown: The one whose answer to COMMIT was lost.
        cause: Why it ended before all were committed.
    """

    committed: List[Optional[int]]
    failed: List[Optional[int]]
    unknown: List[Optional[int]]
    cause: Optional[errors.Error] = None


def commit_in_order(parts: Sequence[Part], until: Optional[float]) -> Plan[InOrder]:
    """Commit plain transactions one after the other, until one fails."""
    committed: List[Optional[int]] = []
    unknown: List[Optional[int]] = []
    cause: Optional[errors.Error] = None
    for part in parts:
        try:
            yield from _commit_alone(part, until)
        except errors.Error as error:
            cause = error
            if part.state is PartState.UNSURE:
                unknown.append(part.shard_id)
                part.state = PartState.LOST
            break
        committed.append(part.shard_id)
    rest = [part for part in parts if part.state is not PartState.ENDED]
    yield from _each([_roll_back(part, until) for part in rest])
    failed = [part.shard_id for part in rest if part.shard_id not in unknown]
    return InOrder(committed, failed, unknown, cause)
