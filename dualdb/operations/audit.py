"""Rows that are in another shard than their key belongs to."""

from typing import NamedTuple, Optional

from ..execution import steps
from .places import Databases, Shards
from .reports import AuditReport


class Options(NamedTuple):
    """The arguments of ``audit``."""

    table: str
    key_column: str
    shards: Shards
    where: Optional[str]
    batch_keys: int
    max_misplaced: int
    throttle: float


def run(databases: Databases, options: Options) -> steps.Plan[AuditReport]:
    raise NotImplementedError
