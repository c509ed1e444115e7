"""Recovery: finishing the transactions that a coordinator has left. Any process can do
it at any time.

A prepared branch is committed if the log says so. Otherwise an abort is recorded first,
and then the branch is rolled back. So it is safe beside coordinators that are running,
and beside other recoveries.
"""

import dataclasses
import enum
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from .. import errors
from ..execution.steps import Execute, Executor, Gather, Plan, RunPlan
from .commands import Command
from .decision_log import KEEP_COMMITTED, Decision, DecisionLog, LogRow
from .protocol import NOTHING_TO_COMMIT, UNKNOWN_XID
from .xid import Prepared, Xid, prepared_of

#: Seconds that a process is given to finish an XA transaction, if nothing else is said.
GRACE = 10.0


def list_command(is_mariadb: bool) -> Command:
    """Return the command that lists a server's prepared transactions, with ``data`` in
    a form that no character set changes: bytes on MariaDB, hex digits on MySQL.
    """
    return Command("XA RECOVER" if is_mariadb else "XA RECOVER CONVERT XID")


class Server(NamedTuple):
    """The server of a shard.

    Attributes:
        executor: Sends there, on any session.
        is_mariadb: It is a MariaDB.
    """

    executor: Executor
    is_mariadb: bool


@dataclasses.dataclass
class Found:
    """The prepared transactions of all shards.

    Attributes:
        prepared: By shard id, for the shards that answered.
        failed: The errors of the others, by shard id.
        servers: By shard id, for the shards that answered.
    """

    prepared: Dict[int, Prepared] = dataclasses.field(default_factory=dict)
    failed: Dict[int, errors.Error] = dataclasses.field(default_factory=dict)
    servers: Dict[int, Server] = dataclasses.field(default_factory=dict)

    @property
    def branches(self) -> List[Xid]:
        """This service's branches."""
        return [xid for prepared in self.prepared.values() for xid in prepared.own]

    @property
    def gtrids(self) -> Set[str]:
        """The names of the transactions of these branches."""
        return {xid.gtrid for xid in self.branches}


#: ER_XAER_RMERR: what MySQL answers XA RECOVER without the privilege for it.
_NOT_ALLOWED = 1401


def why_not_listed(error: errors.Error) -> str:
    """Return in one line why a server does not list its prepared transactions."""
    if error.errno == _NOT_ALLOWED:
        return "the account needs the privilege XA_RECOVER_ADMIN (1401)"
    return errors.reason_of(error)


#: Makes the plan that finds the server of a shard.
FindServer = Callable[[], Plan[Server]]


def find(
    servers: Mapping[int, FindServer], cluster: str, until: Optional[float] = None
) -> Plan[Found]:
    """List the prepared transactions of every shard, concurrently.

    Args:
        servers: How each shard's server is found.
        cluster: The name of the global database.
        until: The deadline, by time.monotonic().
    """
    found = Found()
    members = [
        RunPlan(_find_on(shard_id, server, cluster, until)) for shard_id, server in servers.items()
    ]
    if not members:
        return found
    outcomes: List[Any] = yield Gather(tuple(members), 16)
    for shard_id, outcome in zip(servers, outcomes):
        if isinstance(outcome, errors.Error):
            found.failed[shard_id] = outcome
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            found.servers[shard_id], found.prepared[shard_id] = outcome
    return found


def _find_on(
    shard_id: int, find_server: FindServer, cluster: str, until: Optional[float]
) -> Plan[Tuple[Server, Prepared]]:
    server = yield from find_server()
    return server, (yield from _prepared_on(server, cluster, shard_id, until))


def _prepared_on(
    server: Server, cluster: str, shard_id: int, until: Optional[float]
) -> Plan[Prepared]:
    results = yield Execute(server.executor, list_command(server.is_mariadb), until)
    return prepared_of(results[0].rows, cluster, shard_id)


class Ended(NamedTuple):
    """The outcome of one transaction's branches.

    Attributes:
        decision: What was carried out; None where the log did not answer, or somebody
            else was faster.
        pending: The branches that are still prepared.
        error: Why.
    """

    decision: Optional[Decision]
    pending: Tuple[Xid, ...] = ()
    error: Optional[errors.Error] = None


def finish(
    log: DecisionLog,
    servers: Mapping[int, Server],
    branches: Sequence[Xid],
    until: Optional[float] = None,
) -> Plan[Ended]:
    """Finish the prepared branches of one transaction.

    Args:
        log: The decision log.
        servers: Those of the branches' shards.
        branches: The branches.
        until: The deadline, by time.monotonic().
    """
    try:
        decision = yield from log.settle(branches[0].gtrid, until)
    except errors.Error as error:
        return Ended(None, tuple(branches), error)
    members = [RunPlan(_end(servers[xid.shard_id], xid, decision, until)) for xid in branches]
    outcomes: List[Any] = yield Gather(tuple(members), 16)
    pending: List[Xid] = []
    cause: Optional[errors.Error] = None
    for xid, outcome in zip(branches, outcomes):
        if isinstance(outcome, errors.Error):
            cause = outcome
            pending.append(xid)
        elif isinstance(outcome, BaseException):
            raise outcome
        elif outcome is BranchEnd.OWNED:
            pending.append(xid)
    acted = BranchEnd.DONE in outcomes
    return Ended(decision if acted else None, tuple(pending), cause)


class BranchEnd(enum.Enum):
    """The outcome of one branch."""

    DONE = "the decision was carried out"
    GONE = "somebody else has ended it"
    OWNED = "the session that prepared it is connected, and has to end it"


def _end(server: Server, xid: Xid, decision: Decision, until: Optional[float]) -> Plan[BranchEnd]:
    """Carry out a decision on one shard."""
    words = "COMMIT" if decision is Decision.COMMIT else "ROLLBACK"
    try:
        yield Execute(server.executor, Command(f"XA {words} {xid.sql}"), until)
    except errors.Error as error:
        if error.errno == NOTHING_TO_COMMIT:
            return BranchEnd.DONE
        if error.errno != UNKNOWN_XID:
            raise
        # MariaDB answers so while the session that prepared it is connected, too.
        now = yield from _prepared_on(server, xid.cluster, xid.shard_id, until)
        return BranchEnd.OWNED if xid in now.own else BranchEnd.GONE
    return BranchEnd.DONE


def deletable(rows: Iterable[LogRow], found: Found) -> List[str]:
    """Return the transactions that have no branch left to commit.

    Args:
        rows: The rows of committed transactions, read before ``found``.
        found: What is prepared.
    """
    left = found.gtrids
    return [
        row.gtrid
        for row in rows
        if row.decision is Decision.COMMIT
        and row.gtrid not in left
        and row.age >= KEEP_COMMITTED
        and (row.shard_ids or not found.failed)  # what was forced names no shards
        and all(shard_id in found.prepared for shard_id in row.shard_ids)
    ]


def by_transaction(branches: Iterable[Xid]) -> Dict[str, List[Xid]]:
    """Group branches by their transactions, the oldest first."""
    grouped: Dict[str, List[Xid]] = {}
    for xid in sorted(branches):
        grouped.setdefault(xid.gtrid, []).append(xid)
    return grouped
