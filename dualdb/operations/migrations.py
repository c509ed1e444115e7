"""Numbered SQL files, applied once to every database."""

import os
from typing import Callable, Literal, Mapping, NamedTuple, Optional, Union

from .. import errors
from ..execution import steps
from .places import Databases, Shards
from .reports import DatabaseRun, MigrationReport, MigrationRun

#: What to do with a statement that may or may not have been performed.
Doubtful = Literal["repeat", "done"]

#: The folder of the files, or their texts by name.
Directory = Union[str, "os.PathLike[str]", Mapping[str, str]]


class MigrationError(errors.ProgrammingError):
    """The files of the migrations, and what was applied of them, do not fit
    together.
    """


class Options(NamedTuple):
    """The arguments of ``migrate.up`` and ``migrate.down``."""

    shards: Shards
    to: Optional[int]
    canary: Union[bool, int, str]
    max_concurrency: int
    dry_run: bool
    allow_blocking: bool
    doubtful: Optional[Doubtful]
    lock_timeout: float
    ddl_timeout: float
    progress: Optional[Callable[[DatabaseRun], object]]


def status(
    databases: Databases, directory: Directory, shards: Shards
) -> steps.Plan[MigrationReport]:
    raise NotImplementedError


def up(databases: Databases, directory: Directory, options: Options) -> steps.Plan[MigrationRun]:
    raise NotImplementedError


def down(databases: Databases, directory: Directory, options: Options) -> steps.Plan[MigrationRun]:
    raise NotImplementedError
