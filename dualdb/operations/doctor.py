"""What is wrong with the servers, the accounts and the configuration."""

from typing import FrozenSet, NamedTuple, Tuple

from ..execution import steps
from .places import Databases, Shards
from .reports import DoctorReport

#: What an application's account needs on a database.
PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "EXECUTE")


class Options(NamedTuple):
    """The arguments of ``doctor``."""

    shards: Shards
    processes: int
    privileges: Tuple[str, ...]
    audit: Tuple[Tuple[str, str], ...]
    skip: FrozenSet[str]


def run(databases: Databases, options: Options) -> steps.Plan[DoctorReport]:
    raise NotImplementedError
