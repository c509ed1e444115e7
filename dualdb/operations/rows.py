"""Differences between the rows of a table in two databases."""

from typing import Any, Callable, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from ..execution import steps
from .places import Databases
from .reports import RowsReport


class Options(NamedTuple):
    """The arguments of ``check_rows``."""

    table: str
    between: Tuple[Union[int, str], Union[int, str]]
    where: Optional[str]
    params: Optional[Mapping[str, Any]]
    columns: Optional[Sequence[str]]
    chunk_rows: int
    after: Optional[Sequence[Any]]
    max_differences: int
    throttle: float
    progress: Optional[Callable[[RowsReport], object]]


def run(databases: Databases, options: Options) -> steps.Plan[RowsReport]:
    raise NotImplementedError
