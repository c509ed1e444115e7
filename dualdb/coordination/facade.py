"""``db.coordination``: list and finish XA transactions that were left prepared."""

import time
from functools import partial
from typing import Any, Callable, Dict, Generic, List, Literal, Mapping, Optional, Tuple

from .. import deadlines, errors
from ..execution import steps
from ..execution.detached import DetachedExecutor
from ..operations.kinds import Group, KindT, operation
from ..operations.places import Databases
from ..topology.shard_map import Status
from . import recovery
from .coordinator import is_mariadb, read_facts
from .decision_log import Decision, DecisionLog, LogRow
from .recovery import Found, Server
from .reports import XaList, XaRecovery, XaTransaction
from .xid import Xid, begun_at, is_gtrid

#: Seconds that one statement may take.
_TIMEOUT = 10.0
#: How often what is still prepared is tried again, and the pause in seconds: MariaDB
#: takes a moment to notice that its owner has died.
_ATTEMPTS = 5
_PAUSE = 0.2


class Coordination(Group[KindT], Generic[KindT]):
    """The XA transactions of a service: ``db.coordination``.

    In asyncio every call is awaited. They use connections of their own, with the
    accounts of the shard table; see ``with_account``. MySQL lists what is prepared only
    to an account with the privilege ``XA_RECOVER_ADMIN``.
    """

    def with_account(self, user: str, password: str) -> "Coordination[KindT]":
        """The same with another account on the shards.

        Args:
            user: The account's name.
            password: Its password.
        """
        return Coordination(Databases(self._databases.service, user, password))

    @operation
    def list(self) -> steps.Plan[XaList]:
        """List the XA transactions that have not ended everywhere.

        Example:
            >>> db.coordination.list().transactions
            ()
        """
        return _with_servers(self._databases, _list)

    @operation
    def recover(self, *, grace: float = 1.0, dry_run: bool = False) -> steps.Plan[XaRecovery]:
        """Finish transactions that were left: commit those that were decided to be
        committed, and roll back the others.

        It is safe at any time and in any number of processes. A transaction whose
        coordinator is alive and slow is rolled back everywhere, or nowhere.

        Args:
            grace: Seconds that are waited, if something is prepared, for those that are
                just being committed.
            dry_run: Change nothing, and say what would be done.

        Returns:
            The names of what was committed and rolled back, and what is left.

        Example:
            >>> db.coordination.recover().ok
            True
        """
        seconds = deadlines.seconds(grace)
        return _with_servers(self._databases, partial(_recover, grace=seconds, dry_run=dry_run))

    @operation
    def resolve(
        self,
        gtrid: str,
        decision: Literal["commit", "abort"],
        *,
        force: bool = False,
        dry_run: bool = False,
    ) -> steps.Plan[XaRecovery]:
        """Finish one transaction now.

        Args:
            gtrid: Its name, as in ``list``.
            decision: What is expected: if another decision is recorded, nothing is
                done. "abort" is always safe.
            force: Record "commit" although nothing is recorded: only if it is known
                that the transaction was prepared on all of its shards, and that its
                process is dead. Otherwise it may be committed on some shards alone.
            dry_run: Change nothing, and say what would be done.

        Raises:
            ParameterError: It is no name, or the decision is another one, or there is
                none, so that recovery would roll back, and ``force`` is not set.
        """
        if decision not in ("commit", "abort"):
            raise errors.ParameterError(f"decision must be 'commit' or 'abort', not {decision!r}")
        if not is_gtrid(gtrid):
            raise errors.ParameterError(f"a transaction's name is 32 hex digits, not {gtrid!r}")
        wanted = Decision(decision)
        return _with_servers(
            self._databases,
            partial(_resolve, gtrid=gtrid, wanted=wanted, force=force, dry_run=dry_run),
        )


class _Servers:
    """The log, and the servers of all shards with their own connections.

    Attributes:
        log: The decision log.
        cluster: The name of the global database; None if XA has not been used.
    """

    def __init__(self, databases: Databases, log: DecisionLog, cluster: Optional[str]) -> None:
        self.log = log
        self.cluster = cluster
        self._databases = databases
        self.clients: Dict[int, Any] = {}

    @staticmethod
    def until() -> float:
        """Return the deadline of one statement."""
        return time.monotonic() + _TIMEOUT

    def find(self) -> steps.Plan[Found]:
        """Return the prepared transactions."""
        servers: Dict[int, recovery.FindServer] = {}
        shards = self._databases.internals.lifecycle.require_open().shard_map.shards
        for shard_id, shard in sorted(shards.items()):
            if shard.status is not Status.INACTIVE:
                servers[shard_id] = partial(self._server, shard_id)
        return (yield from recovery.find(servers, self.cluster or "", self.until()))

    def _server(self, shard_id: int) -> steps.Plan[Server]:
        client = self.clients.get(shard_id)
        if client is None:
            place = self._databases.one(shard_id)
            client = self._databases.internals.new_client(place.usable(), place.label, shard_id)
            self.clients[shard_id] = client
        facts = yield from read_facts(client, self.until())
        return Server(DetachedExecutor(client), is_mariadb(facts))


def _with_servers(
    databases: Databases, work: "Callable[[_Servers], steps.Plan[Any]]"
) -> steps.Plan[Any]:
    log = databases.internals.coordinator.log
    lease = yield from log.lease()
    servers = _Servers(databases, log, None if lease is None else lease.cluster)
    try:
        return (yield from work(servers))
    finally:
        if servers.clients:
            yield steps.Close(tuple(servers.clients.values()))


def _transactions(
    grouped: Mapping[str, List[Xid]], decisions: Mapping[str, Optional[Decision]]
) -> Tuple[XaTransaction, ...]:
    now = time.time()
    return tuple(
        [
            XaTransaction(
                gtrid,
                _word(decisions.get(gtrid)),
                tuple([xid.shard_id for xid in branches]),
                max(0.0, now - begun_at(gtrid)),
            )
            for gtrid, branches in grouped.items()
        ]
    )


def _word(decision: Optional[Decision]) -> Optional[str]:
    return None if decision is None else decision.value


def _messages(found: Found) -> Dict[int, str]:
    return {key: recovery.why_not_listed(error) for key, error in found.failed.items()}


def _list(servers: _Servers) -> steps.Plan[XaList]:
    rows: List[LogRow] = yield from servers.log.rows(servers.until(), committed=True)
    found = yield from servers.find()
    grouped = recovery.by_transaction(found.branches)
    decisions: Dict[str, Optional[Decision]] = {}
    for gtrid in grouped:
        decisions[gtrid] = yield from servers.log.decision(gtrid, servers.until())
    for row in rows:
        unknown = any(shard_id not in found.prepared for shard_id in row.shard_ids)
        if row.gtrid not in grouped and unknown:
            grouped[row.gtrid] = []
            decisions[row.gtrid] = row.decision
    foreign = {key: each.foreign for key, each in found.prepared.items() if each.foreign}
    return XaList(_transactions(grouped, decisions), foreign, _messages(found))


def _recover(servers: _Servers, grace: float, dry_run: bool) -> steps.Plan[XaRecovery]:
    rows: List[LogRow] = yield from servers.log.rows(servers.until(), committed=True)
    found = yield from servers.find()
    if grace and found.gtrids:
        before = found.gtrids
        yield steps.Sleep(grace)
        found = yield from servers.find()
        wanted = found.gtrids & before
    else:
        wanted = found.gtrids
    report = yield from _finish(servers, found, wanted, dry_run)
    if not dry_run:
        yield from servers.log.forget(recovery.deletable(rows, found), servers.until())
    return report


def _finish(
    servers: _Servers, found: Found, wanted: "set[str]", dry_run: bool
) -> steps.Plan[XaRecovery]:
    """Finish the given transactions of those that were found."""
    grouped = recovery.by_transaction(found.branches)
    decisions: Dict[str, Decision] = {}
    pending: Dict[str, str] = {}
    left = {gtrid: branches for gtrid, branches in grouped.items() if gtrid in wanted}
    for attempt in range(1 if dry_run else _ATTEMPTS):
        if attempt:
            yield steps.Sleep(_PAUSE)
        pending = {}
        for gtrid, branches in [*left.items()]:
            if dry_run:
                known = yield from servers.log.decision(gtrid, servers.until())
                decisions[gtrid] = known or Decision.ABORT
                continue
            ended = yield from recovery.finish(
                servers.log, found.servers, branches, servers.until()
            )
            if ended.decision is not None:
                decisions[gtrid] = ended.decision
            if ended.pending:
                left[gtrid] = [*ended.pending]
                pending[gtrid] = _why_pending(ended)
            else:
                del left[gtrid]
        if not pending:
            break
    done = {gtrid: decision for gtrid, decision in decisions.items() if gtrid not in pending}
    return XaRecovery(
        tuple([gtrid for gtrid, each in done.items() if each is Decision.COMMIT]),
        tuple([gtrid for gtrid, each in done.items() if each is Decision.ABORT]),
        pending,
        _messages(found),
        dry_run,
    )


def _why_pending(ended: recovery.Ended) -> str:
    where = ", ".join(f"shard {xid.shard_id}" for xid in ended.pending)
    if ended.error is not None:
        return f"{where}: {ended.error.summary}"
    return f"{where}: the session that prepared it is still connected"


def _resolve(
    servers: _Servers, gtrid: str, wanted: Decision, force: bool, dry_run: bool
) -> steps.Plan[XaRecovery]:
    known = yield from servers.log.decision(gtrid, servers.until())
    if known is not None and known is not wanted:
        raise errors.ParameterError(
            f"the transaction {gtrid} was decided to {known.value}, and is not {wanted.value}ed"
        )
    if known is None and wanted is Decision.COMMIT:
        if not force:
            raise errors.ParameterError(
                f"no decision about the transaction {gtrid} is recorded, so it is to be rolled "
                "back; to commit it all the same, force it"
            )
        if not dry_run:
            yield from servers.log.force_commit(gtrid, servers.until())
    found = yield from servers.find()
    report: XaRecovery = yield from _finish(servers, found, {gtrid}, dry_run)
    if dry_run and report.rolled_back and wanted is Decision.COMMIT:
        return XaRecovery(report.rolled_back, (), report.pending, report.errors, dry_run=True)
    return report
