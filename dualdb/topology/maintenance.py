"""The background plan of a service: refreshes the map, reconnects to unreachable
shards, and prunes idle connections.
"""

import logging
import random
import time
from typing import Any, Callable, List, NamedTuple, Optional, Set, Tuple

from .. import errors
from ..execution import retry, steps
from ..observability.logs import about
from .manager import TopologyManager
from .slices import in_slices
from .table_reader import TableReader, read_or_warn

log = logging.getLogger("dualdb.topology")

#: Number of clients that one step connects or prunes.
_BATCH = 128


class Timing(NamedTuple):
    """Intervals and timeouts of the background plan, in seconds.

    Attributes:
        interval: Between two rounds of pool maintenance.
        reconnect_timeout: For connecting to unresponsive servers, during which the
            background plan does nothing else.
        refresh_timeout: For reading the shard table.
        max_refresh_pause: The longest pause between attempts to read a shard table that
            cannot be read.
    """

    interval: float = 1.0
    reconnect_timeout: float = 1.0
    refresh_timeout: float = 5.0
    max_refresh_pause: float = 10.0


class Maintenance:
    """The plan that runs in the background of an open service.

    Args:
        manager: The topology manager.
        reader: The reader of the shard table.
        refresh: Makes the step that refreshes the shard table under the service's lock,
            with a timeout in seconds.
        refresh_interval: Seconds between two periodic refreshes; None for none.
        timing: The other intervals.
        clock: Returns seconds.
    """

    def __init__(
        self,
        manager: TopologyManager,
        reader: TableReader,
        refresh: Callable[[float], steps.Step],
        refresh_interval: Optional[float],
        *,
        timing: Timing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._manager = manager
        self._reader = reader
        self._refresh = refresh
        self._refresh_interval = refresh_interval
        self.timing = timing
        self._clock = clock
        self._mark: Optional[object] = None
        self._failing: Set[str] = set()
        self._seen_at = clock()
        self._chores: List[Tuple[str, Callable[[], steps.Plan[None]]]] = []

    def add_chore(self, what: str, chore: Callable[[], steps.Plan[None]]) -> None:
        """Have something else done in each round.

        Args:
            what: What it is, for the log.
            chore: Makes its plan, which must not take long.
        """
        self._chores.append((what, chore))

    def forked(self) -> None:
        """Reset to the state of a process without a background plan."""
        self._mark = None

    def stop(self) -> None:
        """Make the loop end at its next step."""
        self._mark = None

    def ensure(self) -> steps.Plan[None]:
        """Start the loop, unless it runs or the service is not open."""
        if self._mark is not None or self._manager.topology is None:
            return
        mark = self._mark = object()
        self._seen_at = self._clock()
        try:
            yield steps.Spawn(self.loop(mark))
        except Exception as error:
            # Started again by the next refresh.
            self._mark = None
            log.error(
                "the background maintenance cannot be started: %s",
                error,
                extra=about("background_not_started"),
            )

    def silent_for(self) -> float:
        """Return the seconds since the loop was last seen."""
        return self._clock() - self._seen_at

    def loop(self, mark: object) -> steps.Plan[None]:
        """Run until the service is closed; failures of its parts do not end it."""
        attempt = 0
        retry_at = float("inf")
        refresh_at = self._clock() + self.next_refresh_delay()
        try:
            while self._manager.topology is not None and self._mark is mark:
                now = self._seen_at = self._clock()
                pause = min(self.timing.interval, refresh_at - now, retry_at - now)
                yield steps.Sleep(max(0.0, pause))
                if self._clock() >= refresh_at:
                    yield from self._guarded("reading the shard table", self._refresh_table())
                    refresh_at = self._clock() + self.next_refresh_delay()
                unreachable = yield from self.unreachable_shards()
                if unreachable and (attempt == 0 or self._clock() >= retry_at):
                    start = attempt * _BATCH % len(unreachable)
                    plan = self.connect(
                        unreachable[start:] + unreachable[:start],
                        self._clock() + self.timing.reconnect_timeout,
                    )
                    yield from self._guarded("connecting to shards", plan)
                    attempt += 1
                    retry_at = self._clock() + retry.backoff(attempt, base=0.25, cap=5.0)
                elif not unreachable:
                    attempt = 0
                    retry_at = float("inf")
                yield from self._guarded("closing idle connections", self._prune())
                yield from self._guarded("draining pools", self.reap_draining())
                yield from self._guarded("calling hooks", self._manager.dispatch())
                for what, chore in self._chores:
                    yield from self._guarded(what, chore())
        finally:
            if self._mark is mark:
                self._mark = None

    def _guarded(self, what: str, plan: steps.Plan[None]) -> steps.Plan[None]:
        """Run a part of the loop. Its first exception in a row is logged; none ends the
        loop.
        """
        try:
            yield from plan
        except Exception:
            if what not in self._failing:
                self._failing.add(what)
                log.exception(
                    "%s failed in the background, which continues",
                    what,
                    extra=about("background_failed"),
                )
        else:
            self._failing.discard(what)

    def next_refresh_delay(self) -> float:
        """Return the seconds until the next refresh of the shard table.

        Random jitter keeps the processes of an application from refreshing in step;
        failures back off exponentially.
        """
        failures = self._reader.failures
        limit = self.timing.max_refresh_pause
        if self._refresh_interval is None:
            return limit if failures else float("inf")
        longest = min(
            self._refresh_interval * 2.0 ** min(failures, 16), max(limit, self._refresh_interval)
        )
        return longest * random.uniform(0.75, 1.0)

    def _refresh_table(self) -> steps.Plan[None]:
        yield from read_or_warn(
            self._reader,
            self._refresh(self.timing.refresh_timeout),
            "the shard table cannot be read; the last map stays in use: %s",
        )

    def unreachable_shards(self) -> steps.Plan[Tuple[int, ...]]:
        """Return the shards that are new, or unreachable at the last connect."""
        topology = self._manager.topology
        clients = {} if topology is None else topology.clients
        found: List[int] = []

        def visit(item: Tuple[int, Any]) -> None:
            shard_id, client = item
            if client.needs_connection:
                found.append(shard_id)

        yield from in_slices(clients.items(), visit)
        return tuple(found)

    def connect(
        self,
        shard_ids: Tuple[int, ...],
        until: Optional[float],
        begin_until: Optional[float] = None,
    ) -> steps.Plan[None]:
        """Connect to shards concurrently, and log which are unreachable.

        Args:
            shard_ids: The shards; those that are opened when they are first used are
                left out.
            until: The deadline, by time.monotonic(); None for no limit.
            begin_until: When no further ones are begun, which the loop does later; by
                default ``until``.
        """
        topology = self._manager.topology
        if topology is None:
            return
        last = until if begin_until is None else begin_until
        clients: List[Any] = []

        def visit(shard_id: int) -> None:
            client = topology.clients.get(shard_id)
            if client is not None and client.needs_connection:
                clients.append(client)

        yield from in_slices(shard_ids, visit)
        for start in range(0, len(clients), _BATCH):
            if start and last is not None and self._clock() >= last:
                return
            batch = clients[start : start + _BATCH]
            known = [client.failure for client in batch]
            outcomes = yield steps.Gather(tuple([steps.Open(each, until) for each in batch]))
            for client, failure, outcome in zip(batch, known, outcomes):
                _report(client, failure, outcome)

    def _prune(self) -> steps.Plan[None]:
        topology = self._manager.topology
        if topology is not None:
            clients: List[Any] = []

            def visit(client: Any) -> None:
                if client.has_pool:
                    clients.append(client)

            yield from in_slices(topology.all_clients, visit)
            for start in range(0, len(clients), _BATCH):
                yield steps.PruneIdle(tuple(clients[start : start + _BATCH]))
                if start + _BATCH < len(clients):
                    yield steps.Sleep(0.0)

    def reap_draining(self) -> steps.Plan[None]:
        """Forget draining pools without work in progress, and abort those that are
        overdue.
        """
        now = self._clock()
        late = tuple(
            [each.client for each in self._manager.draining if each.in_use and now >= each.until]
        )
        if late:
            yield steps.AbortInUse(late)
        self._manager.drop_drained(late, now + self.timing.max_refresh_pause)


def _report(client: Any, failure: Optional[Exception], outcome: Optional[Exception]) -> None:
    if outcome is None:
        if failure is None:
            log.info(
                "%s database initialized: %s",
                client.name,
                client.config.address,
                extra=about("database_initialized", client),
            )
        return
    # an open circuit has been logged where the connect failed
    logged = client.pool.breaker.is_open or isinstance(outcome, errors.ServiceNotOpen)
    if failure is None and not logged:
        reason = errors.reason_of(outcome)
        log.error(
            "%s cannot be reached and is retried in the background: %s",
            client.name,
            reason,
            extra=about("shard_unreachable", client),
        )
