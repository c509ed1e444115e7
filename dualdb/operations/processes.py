"""The sessions on the servers, and ending one."""

from typing import Union

from ..execution import steps
from .places import Databases, Shards
from .reports import KillReport, ProcessReport


def run(databases: Databases, shards: Shards, idle: bool) -> steps.Plan[ProcessReport]:
    raise NotImplementedError


def kill(
    databases: Databases,
    database: Union[int, str],
    session_id: int,
    connection: bool,
    dry_run: bool,
) -> steps.Plan[KillReport]:
    raise NotImplementedError
