"""Refusing writes by key while the mapping of keys is too old."""

from typing import Any

from .. import errors
from ..execution.steps import Executor


class FrozenExecutor:
    """An executor that accepts only reads, because the mapping is too old.

    Args:
        client: The shard's executor.
        age: Seconds since the mapping was last read.
        max_staleness: The allowed number of seconds.
    """

    read_only = True

    def __init__(self, client: Executor, age: float, max_staleness: float) -> None:
        self._executor = client
        self._age = age
        self._max_staleness = max_staleness

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def write_refusal(self) -> errors.StaleMap:
        """Make the error for a write."""
        since = "never" if self._age == float("inf") else f"not for {self._age:.1f} s"
        return errors.StaleMap(
            f"the shard of the key has been confirmed {since}, and max_staleness is "
            f"{self._max_staleness:g} s: only reads are allowed"
        ).with_context(self._executor.name, self._executor.shard_id, sent=False)
