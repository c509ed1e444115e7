"""The shared state of a service's XA transactions, and their recovery in the
background.
"""

import logging
import os
import re
import secrets
import time
import weakref
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from .. import deadlines, errors
from ..api.database_client import BaseDatabaseClient
from ..execution import steps
from ..execution.detached import DetachedExecutor
from ..observability.logs import about
from ..observability.observers import Observers
from ..topology.manager import Topology
from . import recovery, xid
from .commands import Command
from .decision_log import DecisionLog
from .protocol import Outcome

log = logging.getLogger("dualdb.coordination")

#: Seconds that one statement of the background may take.
STATEMENT_TIMEOUT = 2.0
#: The most seconds between two searches for transactions that were left.
MAX_PERIOD = 2.0
#: The most seconds between two searches while nobody has used XA.
MAX_IDLE_PERIOD = 5.0
#: Seconds between two deletions of rows of transactions that were not committed.
FORGET_ABORTED_EVERY = 600.0
#: The most rows that wait for their deletion; recovery deletes further ones.
MOST_FINISHED = 10_000

_FACTS = "SHOW VARIABLES WHERE Variable_name IN ('version', 'wsrep_on', 'xa_detach_on_prepare')"


def is_mariadb(facts: Mapping[str, str]) -> bool:
    """Return whether a server with these variables is a MariaDB."""
    return "mariadb" in facts.get("version", "").lower()


def why_no_xa(facts: Mapping[str, str]) -> Optional[str]:
    """Return why a server cannot take part; None if it can.

    Args:
        facts: Its variables ``version``, ``wsrep_on`` and ``xa_detach_on_prepare``, as
            far as it has them.
    """
    if facts.get("wsrep_on", "OFF").upper() in ("ON", "1"):
        return "a node of a Galera cluster (wsrep_on=ON) has no XA"
    if is_mariadb(facts):
        return None
    detaches = facts.get("xa_detach_on_prepare")
    if detaches is None:
        return f"XA needs MariaDB, or MySQL 8.0.29 or later, not {facts.get('version')}"
    if detaches.upper() not in ("ON", "1"):
        return (
            "with xa_detach_on_prepare=OFF nobody can finish a prepared transaction while its "
            "session is connected, and MySQL may crash"
        )
    return None


def read_facts(
    client: BaseDatabaseClient, until: Optional[float] = None
) -> steps.Plan[Dict[str, str]]:
    """Read what ``why_no_xa`` needs."""
    results = yield steps.Execute(DetachedExecutor(client), Command(_FACTS), until)
    return {str(row["Variable_name"]): str(row["Value"]) for row in results[0].rows}


class Sightings:
    """Remembers when each prepared transaction was first seen.

    Args:
        grace: Seconds that a coordinator is given to finish it.
        clock: Gives seconds.
        wall_clock: Gives seconds since 1970.
    """

    def __init__(
        self,
        grace: float,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._grace = grace
        self._clock = clock
        self._wall_clock = wall_clock
        self._since: Dict[str, float] = {}
        self._shards: Dict[int, int] = {}

    def changed(self, counts: Mapping[int, int]) -> Dict[int, int]:
        """Return the numbers of prepared transactions of the shards that have some, or
        had some at the last call.

        Args:
            counts: The number on each shard that answered.
        """
        known = {key: count for key, count in counts.items() if count or self._shards.get(key)}
        self._shards = {**self._shards, **counts}
        return known

    def due(self, gtrids: Iterable[str]) -> Set[str]:
        """Return which of the transactions that are prepared now are to be finished.

        A transaction is due if it was seen for ``grace`` seconds; or if it began that
        long ago, by its process' clock, and was seen for a second. So a long
        transaction that is being committed is left alone.
        """
        now = self._clock()
        wall = self._wall_clock()
        self._since = {gtrid: self._since.get(gtrid, now) for gtrid in gtrids}
        return {
            gtrid
            for gtrid, since in self._since.items()
            if now - since >= self._grace
            or (now - since >= min(1.0, self._grace) and wall - xid.begun_at(gtrid) >= self._grace)
        }


class Coordinator:
    """The XA transactions of a service.

    Args:
        table: The name of the decision log.
        grace: Seconds after which what a coordinator has left is finished in the
            background; None for no background work.
        topology: Gives the service's topology; raises ServiceNotOpen.
        callers_transactions: Gives the transactions that the caller is in.
        clock: Gives seconds.

    Attributes:
        log: The decision log.
    """

    def __init__(
        self,
        table: str,
        grace: Optional[float],
        topology: Callable[[], Topology],
        callers_transactions: Callable[[], Sequence[Any]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.grace = None if grace is None else deadlines.seconds(grace)
        self._topology = topology
        self._callers_transactions = callers_transactions
        self._clock = clock
        self.log = DecisionLog(table, lambda: self._topology().global_client)
        self.forked()

    def forked(self) -> None:
        """Reset the state in a forked child."""
        self._cluster = ""
        host = re.sub(r"[^\w.-]", "_", os.uname().nodename)
        self._owner = f"{host}:{os.getpid()}:{secrets.token_hex(4)}"
        #: By client: it is a MariaDB.
        self._mariadb: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()
        #: Committed everywhere: their rows can be deleted.
        self._finished: List[str] = []
        #: Left by this process, with their shards: finished without grace.
        self._left: Dict[str, Tuple[int, ...]] = {}
        self._sightings = Sightings(self.grace or 0.0, self._clock)
        self._next = self._next_forgetting = self._clock() + (self.grace or 0.0) / 2
        self._warned: Set[int] = set()
        self._failing = False

    # For transactions.

    def global_route(self, until: Optional[float] = None) -> steps.Plan[steps.Executor]:
        """The route to the global database."""
        yield from ()
        client: steps.Executor = self._topology().global_client
        return client

    def refuse_inside_transaction(self) -> None:
        """Check that the global database can take part.

        Raises:
            InterfaceError: The caller has a transaction open there.
        """
        if any(each.shard_id is None for each in self._callers_transactions()):
            raise errors.InterfaceError(
                "the global database cannot take part: the same thread or task has a transaction "
                "open there"
            ).with_context("global", sent=False)

    def check_server(self, client: BaseDatabaseClient) -> steps.Plan[None]:
        """Check that a shard's server can take part.

        Raises:
            NotSupportedByEngine: It cannot.
            Error: It does not answer.
        """
        if client in self._mariadb:
            return
        facts = yield from read_facts(client, deadlines.deadline_after())
        why = why_no_xa(facts)
        if why is not None:
            refused = errors.not_supported_by_engine(
                "xa", f"XA transactions on {client.name}: {why}", client.last_profile.name
            )
            raise refused.with_context(client.name, client.shard_id, sent=False)
        self._mariadb[client] = is_mariadb(facts)

    def cluster(self) -> steps.Plan[str]:
        """Return the name of the global database in xids.

        Raises:
            Error: It does not answer, or the log is missing and cannot be made.
        """
        if not self._cluster:
            self._cluster = yield from self.log.cluster(deadlines.deadline_after())
        return self._cluster

    def record_left(self, gtrid: str, shard_ids: Iterable[int]) -> None:
        """Record that a transaction may be prepared on some shards."""
        self._left[gtrid] = tuple(shard_ids)

    def record_outcome(self, gtrid: str, outcome: Outcome) -> None:
        """Record the outcome of a transaction."""
        is_done = outcome.committed and outcome.logged and not outcome.left
        if is_done and len(self._finished) < MOST_FINISHED:
            self._finished.append(gtrid)
        if isinstance(outcome.cause, errors.ProgrammingError):
            self._cluster = ""  # the tables may have been made anew

    # In the background.

    def tick(self) -> steps.Plan[None]:
        """Run background work that is due; called about once a second."""
        try:
            yield from self.forget_finished()
            if self.grace is not None:
                yield from self._finish_due(self.grace)
        except errors.Error as error:
            if not self._failing:
                log.info(
                    "XA transactions cannot be searched for now: %s", error, extra=about("xa_later")
                )
            self._failing = True
        else:
            self._failing = False

    def _finish_due(self, grace: float) -> steps.Plan[None]:
        if self._left:
            yield from self._finish_left()
        now = self._clock()
        if now >= self._next:
            self._next = now + min(MAX_IDLE_PERIOD, max(1.0, grace / 2))
            yield from self._sweep(min(MAX_PERIOD, max(0.5, grace / 4)))

    def forget_finished(self) -> steps.Plan[None]:
        """Delete the rows of transactions that this process has committed."""
        finished = self._finished
        if finished:
            self._finished = []
            yield from self.log.forget(finished, self._until())

    def close(self) -> steps.Plan[None]:
        """Delete the rows of committed transactions, and release the lease."""
        try:
            yield from self.forget_finished()
            if self._cluster:
                yield from self.log.give_up_lease(self._owner, self._until())
        except errors.Error as error:
            log.info(
                "rows of %s are left to recovery: %s",
                self.log.table,
                error,
                extra=about("xa_rows_kept"),
            )

    def _until(self) -> float:
        return self._clock() + STATEMENT_TIMEOUT

    def _find_servers(self, shard_ids: Optional[Set[int]] = None) -> Dict[int, Any]:
        return {
            shard_id: lambda client=client: self._server(client)
            for shard_id, client in self._topology().clients.items()
            if shard_ids is None or shard_id in shard_ids
        }

    def _server(self, client: BaseDatabaseClient) -> steps.Plan[recovery.Server]:
        if client not in self._mariadb:
            facts = yield from read_facts(client, self._until())
            self._mariadb[client] = is_mariadb(facts)
        return recovery.Server(DetachedExecutor(client), self._mariadb[client])

    def _finish_left(self) -> steps.Plan[None]:
        """Finish the transactions that this process has left."""
        if not self._cluster:
            self._cluster = yield from self.log.cluster(self._until())
        left = dict(self._left)  # to which other threads add
        wanted = {shard_id for shards in left.values() for shard_id in shards}
        found = yield from recovery.find(self._find_servers(wanted), self._cluster, self._until())
        ended = yield from self._finish(found, set(left))
        for gtrid, shards in left.items():
            asked = all(shard_id in found.prepared for shard_id in shards)
            if asked and (gtrid in ended or gtrid not in found.gtrids):
                del self._left[gtrid]

    def _sweep(self, period: float) -> steps.Plan[None]:
        """Finish the transactions that other processes have left, if this process has
        the lease.
        """
        lease = yield from self.log.lease(self._owner, self._until())
        if lease is None:
            return
        self._next = self._clock() + period
        if not lease.free:
            return
        # Longer than the time until it is renewed.
        if not (yield from self.log.take_lease(self._owner, period * 2 + 2.0, self._until())):
            return
        self._cluster = lease.cluster
        rows = yield from self.log.rows(self._until(), committed=True)
        found = yield from recovery.find(self._find_servers(), self._cluster, self._until())
        self._warn(found)
        self._report(found)
        due = self._sightings.due(found.gtrids)
        yield from self._finish(found, due)
        done = recovery.deletable(rows, found)
        if done:
            yield from self.log.forget(done, self._until())
        if self._clock() >= self._next_forgetting:
            self._next_forgetting = self._clock() + FORGET_ABORTED_EVERY
            yield from self.log.forget_aborted(self._until())

    def _finish(self, found: recovery.Found, gtrids: Set[str]) -> steps.Plan[Set[str]]:
        """Finish transactions; return those without prepared branches."""
        done: Set[str] = set()
        for gtrid, branches in recovery.by_transaction(found.branches).items():
            if gtrid not in gtrids:
                continue
            ended = yield from recovery.finish(self.log, found.servers, branches, self._until())
            if ended.pending:
                log.info(
                    "the transaction %s is still prepared: %s",
                    gtrid,
                    ended.error,
                    extra=about("xa_still_prepared"),
                )
                continue
            done.add(gtrid)
            if ended.decision is None:
                continue
            self._observers.post_coordination(
                "xa_finished", "shards", None, subject=gtrid, detail=ended.decision.value
            )
            log.warning(
                "finished the transaction %s, which its coordinator had left prepared on %s: %s",
                gtrid,
                ", ".join(f"shard {each.shard_id}" for each in branches),
                ended.decision.value,
                extra=about("xa_finished"),
            )
        return done

    @property
    def _observers(self) -> Observers:
        observers: Observers = self._topology().global_client.observers
        return observers

    def _report(self, found: recovery.Found) -> None:
        """Post the numbers of prepared transactions."""
        counts = {shard_id: len(each.own) for shard_id, each in found.prepared.items()}
        clients = self._topology().clients
        for shard_id, count in self._sightings.changed(counts).items():
            if shard_id in clients:
                self._observers.post_coordination(
                    "xa_in_doubt", clients[shard_id].name, shard_id, number=count
                )

    def _warn(self, found: recovery.Found) -> None:
        """Log, once for each, the servers that cannot list prepared transactions."""
        for shard_id, error in found.failed.items():
            if shard_id not in self._warned and errors.is_server_error(error):
                self._warned.add(shard_id)
                log.warning(
                    "prepared transactions on shard %d cannot be listed, so nobody finishes them: "
                    "%s",
                    shard_id,
                    recovery.why_not_listed(error),
                    extra=about("xa_not_listed"),
                )
