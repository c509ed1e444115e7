"""A script on several databases."""

from typing import Callable, Literal, NamedTuple, Optional, Union

from ..execution import steps
from ..sql.parameters import Params
from .places import Databases, Shards
from .reports import DatabaseResult, SqlReport

#: Whether an error on one database keeps others from beginning.
OnError = Literal["stop", "go on"]


class Options(NamedTuple):
    """The arguments of ``sql``."""

    script: str
    params: Params
    shards: Shards
    canary: Union[bool, int, str]
    max_concurrency: int
    on_error: OnError
    dry_run: bool
    resume: Optional[SqlReport]
    doubtful: Optional[str]
    progress: Optional[Callable[[DatabaseResult], object]]


def run(databases: Databases, options: Options) -> steps.Plan[SqlReport]:
    raise NotImplementedError
