"""All rows of one tenant."""

from typing import Any, NamedTuple, Optional, Tuple

from ..execution import steps
from .places import Databases
from .reports import TenantExport, TenantPurge, TenantTable


class PurgeOptions(NamedTuple):
    """The arguments of ``tenant_purge``."""

    shard_id: Optional[int]
    chunk_rows: int
    throttle: float
    dry_run: bool


def export(
    databases: Databases, key: Any, tables: Tuple[TenantTable, ...], chunk_rows: int
) -> steps.Plan[TenantExport]:
    raise NotImplementedError


def purge(
    databases: Databases, key: Any, tables: Tuple[TenantTable, ...], options: PurgeOptions
) -> steps.Plan[TenantPurge]:
    raise NotImplementedError
