"""Differences between the schemas of several databases."""

from typing import FrozenSet, Tuple, Union

from ..execution import steps
from .places import Databases, Shards
from .reports import SchemaDiff


def run(
    databases: Databases,
    reference: Union[int, str, None],
    shards: Shards,
    ignore: FrozenSet[str],
    ignore_tables: Tuple[str, ...],
) -> steps.Plan[SchemaDiff]:
    raise NotImplementedError
