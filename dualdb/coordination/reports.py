"""The reports of ``db.coordination``."""

import dataclasses
from typing import Dict, Optional, Tuple

from ..operations.reports import Report


@dataclasses.dataclass(frozen=True)
class XaTransaction(Report):
    """An XA transaction that has not ended everywhere.

    Attributes:
        gtrid: Its name.
        decision: ``"commit"`` or ``"abort"``; None where none is recorded, so that it
            will be rolled back.
        shard_ids: The shards where it is prepared.
        age: Seconds since it began, by the clocks of its process and of this one.
    """

    gtrid: str
    decision: Optional[str]
    shard_ids: Tuple[int, ...]
    age: float


@dataclasses.dataclass(frozen=True)
class XaList(Report):
    """The XA transactions of a service that have not ended.

    Attributes:
        transactions: Those with a prepared branch, or with a decision whose shard did
            not answer. One that is just being committed is among them.
        foreign: By shard id, how many prepared transactions its server has that are not
            this service's; they are never touched.
        errors: By shard id, why a server could not be asked.
    """

    transactions: Tuple[XaTransaction, ...] = ()
    foreign: Dict[int, int] = dataclasses.field(default_factory=dict)
    errors: Dict[int, str] = dataclasses.field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Every server responded, and nothing is prepared."""
        return not self.transactions and not self.errors


@dataclasses.dataclass(frozen=True)
class XaRecovery(Report):
    """The result of a recovery, or with ``dry_run`` what it would do.

    Attributes:
        committed: The transactions that were committed.
        rolled_back: Those that were rolled back.
        pending: Those that are still prepared somewhere, with the reasons.
        errors: By shard id, why a server could not be asked.
        dry_run: Nothing was changed.
    """

    committed: Tuple[str, ...] = ()
    rolled_back: Tuple[str, ...] = ()
    pending: Dict[str, str] = dataclasses.field(default_factory=dict)
    errors: Dict[int, str] = dataclasses.field(default_factory=dict)
    dry_run: bool = False

    @property
    def ok(self) -> bool:
        """Every server responded, and nothing of what was found is left."""
        return not self.pending and not self.errors
