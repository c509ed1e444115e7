"""The reports of ``db.outbox``."""

import dataclasses
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from ..operations.reports import Report, plain


@dataclasses.dataclass(frozen=True)
class ConsumeReport(Report):
    """The result of a call of ``consume``.

    Attributes:
        delivered: Events that the handler took.
        failed: Times that it raised, and the event is delivered again later.
        dead: Events that were given up.
        errors: Why a database could not be asked at the end, by database.
    """

    delivered: int = 0
    failed: int = 0
    dead: int = 0
    errors: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether no event was given up, and every database could be asked."""
        return not self.dead and not self.errors


@dataclasses.dataclass(frozen=True)
class DatabaseOutbox(Report):
    """The outbox of one database.

    Attributes:
        database: ``"global"`` or the shard id as text.
        pending: Events that are to be delivered.
        waiting: Keys whose next event has failed, and waits for its next time.
        dead: Events that were given up.
        oldest_seconds: The age of the oldest pending event; None if there is none, or
            the table does not say.
    """

    database: str
    pending: int
    waiting: int
    dead: int
    oldest_seconds: Optional[int]


@dataclasses.dataclass(frozen=True)
class OutboxStatus(Report):
    """The outboxes of several databases.

    Attributes:
        databases: One for each.
        errors: Why a database could not be asked.
    """

    databases: Tuple[DatabaseOutbox, ...]
    errors: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def pending(self) -> int:
        """The number of pending events."""
        return sum(each.pending for each in self.databases)

    @property
    def dead(self) -> int:
        """The number of dead events."""
        return sum(each.dead for each in self.databases)

    @property
    def ok(self) -> bool:
        """Whether no event was given up, and every database could be asked."""
        return not self.dead and not self.errors


@dataclasses.dataclass(frozen=True)
class DeadEvent(Report):
    """A dead event: its deliveries have failed too often.

    Attributes:
        database: ``"global"`` or the shard id as text.
        id: The event's id.
        topic: What kind of event it is.
        key: Its key.
        payload: The JSON text of its payload.
        attempts: How often its delivery failed.
        error: What it failed with last.
    """

    database: str
    id: str
    topic: str
    key: Optional[str]
    payload: str
    attempts: Optional[int]
    error: Optional[str]


class DeadEvents(List[DeadEvent], Report):
    """The dead events of several databases: a list with an attribute.

    Attributes:
        errors: Why a database could not be asked, by database.
    """

    def __init__(
        self, events: Iterable[DeadEvent] = (), errors: Optional[Mapping[str, str]] = None
    ) -> None:
        super().__init__(events)
        self.errors = dict(errors or {})

    @property
    def ok(self) -> bool:
        """Whether every database could be asked."""
        return not self.errors

    def to_dict(self) -> Dict[str, Any]:
        """The events and errors as JSON has them, and ``ok``."""
        return {"ok": self.ok, "events": plain(list(self)), "errors": self.errors}


class EventCount(int):
    """A number of events: an int with an attribute.

    Attributes:
        errors: Why a database could not be asked, by database. Its events are not
            counted.
    """

    errors: Mapping[str, str]

    def __new__(cls, number: int, errors: Optional[Mapping[str, str]] = None) -> "EventCount":
        self = super().__new__(cls, number)
        self.errors = dict(errors or {})
        return self

    def __reduce__(self) -> Tuple[Any, ...]:
        return EventCount, (int(self), self.errors)
