"""Refusing writes by key where it cannot be confirmed any more where the keys are."""

from typing import Any

from .. import errors
from ..execution.steps import Executor


class FrozenExecutor:
    """A shard that takes reads alone, because the map that led to it is too old."""

    _read_only = True

    def __init__(self, client: Executor, age: float, max_staleness: float) -> None:
        self._client = client
        self._age = age
        self._max_staleness = max_staleness

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def write_refusal(self) -> errors.StaleMap:
        """What a write is refused with."""
        since = "never" if self._age == float("inf") else f"not for {self._age:.1f} s"
        return errors.StaleMap(
            f"where the key is has been confirmed {since}, and max_staleness is "
            f"{self._max_staleness:g} s: only what surely reads is sent"
        ).with_context(self._client.name, self._client.shard_id, sent=False)
