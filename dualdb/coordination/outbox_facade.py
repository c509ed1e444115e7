"""``db.outbox``: deliver events, inspect them, and deliver dead ones again."""

from typing import Any, Callable, Dict, Generic, Iterable, List, Optional, Tuple, TypeVar

from .. import deadlines, errors
from ..execution import steps, verbs
from ..operations import rollout
from ..operations.kinds import Group, KindT, operation
from ..operations.places import Shards
from .consumer import Consumer, Options, Place, places_of, unusable_rows
from .outbox import OutboxEvent, OutboxTable, needed_tables
from .outbox_reports import ConsumeReport, DeadEvents, EventCount, OutboxStatus

T = TypeVar("T")

#: Seconds that delivered events are kept: a week.
RETENTION = 604_800.0


class Outbox(Group[KindT], Generic[KindT]):
    """The events that transactions have written with ``tx.outbox``: ``db.outbox``.

    In asyncio every call is awaited. ``shards`` is as for ``db.operations``:
    ``"everything"`` is the global database and all shards.
    """

    @property
    def table(self) -> OutboxTable:
        """The table of events, as configured."""
        table: OutboxTable = self._databases.internals.shared.outbox
        return table

    @operation
    def consume(
        self,
        handler: Callable[[OutboxEvent], Any],
        *,
        shards: Shards = "everything",
        batch: int = 100,
        lease: float = 30.0,
        concurrency: int = 1,
        poll_interval: float = 0.5,
        max_attempts: int = 25,
        retry_delay: float = 1.0,
        max_retry_delay: float = 300.0,
        retention: Optional[float] = RETENTION,
        until_idle: bool = False,
        stop: Optional[Callable[[], Any]] = None,
    ) -> steps.Plan[ConsumeReport]:
        """Deliver events to a handler, until it is stopped.

        Every committed event is delivered at least once, those with one key in the
        order of their commits. What was delivered before a process died, and not yet
        recorded, is delivered again, with the same id. Any number of processes, threads
        and tasks may consume at the same time.

        Args:
            handler: Takes an OutboxEvent; in asyncio it may be a coroutine function.
                When it returns, the event is delivered. When it raises, the event is
                delivered again later, and others with its key wait for it.
            shards: The databases. Shards that are added later are found.
            batch: The most events that are delivered again if a process dies.
            lease: Seconds after which others take over from a consumer that is gone. A
                call of the handler must be shorter, or its event is delivered twice.
            concurrency: How many events are delivered at the same time, by threads or
                tasks of this call.
            poll_interval: Seconds to wait when there was nothing to deliver.
            max_attempts: An event that has failed so often is given up: its status is
                ``dead``, and others with its key go on.
            retry_delay: Seconds after the first failure; twice that after the next.
            max_retry_delay: Seconds at most.
            retention: Seconds that delivered events are kept; 0 deletes them at once,
                None keeps them.
            until_idle: Return when there is nothing that can be delivered now. A
                database that cannot be asked is in the report.
            stop: Asked between two events; consuming ends when it returns True.

        Returns:
            What was done, when it ends.

        Raises:
            ParameterError: An argument is wrong.
            ProgrammingError: There is no table; ``create_tables`` makes it.
            OperationalError: With ``until_idle``: no database can be asked.
            ServiceNotOpen: The service was closed.

        Example:
            >>> db.outbox.consume(lambda event: print(event.topic), until_idle=True)
            ConsumeReport(delivered=0, failed=0, dead=0, errors={})
        """
        if not callable(handler):
            raise errors.ParameterError(f"the handler must be a function, not {handler!r}")
        options = Options(
            shards, batch, lease, concurrency, poll_interval, max_attempts, retry_delay,
            max_retry_delay, retention, until_idle, stop,
        ).checked()  # fmt: skip
        return Consumer(self._databases, self.table, handler, options).run()

    @operation
    def status(self, *, shards: Shards = "everything") -> steps.Plan[OutboxStatus]:
        """Return the number of pending events, and the age of the oldest.

        Args:
            shards: The databases.
        """
        found, failed = yield from self._on_each(shards, lambda place: place.status())
        return OutboxStatus(tuple(found), failed)

    @operation
    def dead(self, *, shards: Shards = "everything", limit: int = 100) -> steps.Plan[DeadEvents]:
        """Return the dead events, with their errors.

        A database that cannot be asked is in ``errors``, and the others are asked.

        Args:
            shards: The databases.
            limit: The most of one database.
        """
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
            raise errors.ParameterError(f"limit must be a number from 0 up, not {limit!r}")
        found, failed = yield from self._on_each(shards, lambda place: place.dead(limit))
        return DeadEvents([event for events in found for event in events], failed)

    @operation
    def requeue(
        self,
        event_ids: Optional[Iterable[str]] = None,
        *,
        shards: Shards = "everything",
        dry_run: bool = False,
    ) -> steps.Plan[EventCount]:
        """Make dead events pending.

        Events with the same key that were written later may have been delivered before.

        Args:
            event_ids: Their ids; None for all.
            shards: The databases.
            dry_run: Count the events only.

        Returns:
            How many they are. A database that could not be asked is in its ``errors``.
        """
        ids = None if event_ids is None else tuple(event_ids)
        if isinstance(event_ids, str):
            raise errors.ParameterError("event_ids is a list of ids: one is written [event_id]")
        if ids is not None and not ids:
            return EventCount(0)

        def work(place: Place) -> steps.Plan[int]:
            return place.requeue(ids, dry_run=dry_run)

        found, failed = yield from self._on_each(shards, work)
        return EventCount(sum(found), failed)

    @operation
    def sweep(
        self,
        *,
        retention: float = RETENTION,
        shards: Shards = "everything",
        dry_run: bool = False,
    ) -> steps.Plan[EventCount]:
        """Delete events that were delivered before the retention; ``consume`` does so
        once a minute.

        Args:
            retention: Seconds since they were delivered.
            shards: The databases.
            dry_run: Count the events only.

        Returns:
            How many were deleted, or would be. A database that could not be asked is in
            its ``errors``.
        """
        deadlines.seconds(retention)
        numbers: List[int] = []

        def work(place: Place) -> steps.Plan[None]:
            if dry_run:
                numbers.append((yield from place.count_old(retention)))
                return
            while True:
                numbers.append((yield from place.sweep(retention)))
                if not numbers[-1]:
                    return

        _, failed = yield from self._on_each(shards, work)
        return EventCount(sum(numbers), failed)

    @operation
    def create_tables(self, *, shards: Shards = "everything") -> steps.Plan[None]:
        """Create the missing tables of the outbox, as ``dualdb init`` does.

        A table of the application's is not made.

        Args:
            shards: The databases.
        """
        for place in self._places(shards):
            for _, ddl in needed_tables(self.table).values():
                yield from verbs.execute(place.route, ddl, None)

    def _places(self, shards: Shards) -> List[Place]:
        return places_of(self._databases, self.table, shards)

    def _on_each(
        self, shards: Shards, work: Callable[[Place], steps.Plan[T]]
    ) -> steps.Plan[Tuple[List[T], Dict[str, str]]]:
        """Perform a plan on each database; return what it gave, and the errors of the
        others by database.
        """
        failed = unusable_rows(self._databases, shards)
        found: List[T] = []
        for place in self._places(shards):
            try:
                found.append((yield from work(place)))
            except errors.ServiceNotOpen:
                raise
            except errors.Error as error:
                failed[place.database] = rollout.message(error)
        return found, failed
