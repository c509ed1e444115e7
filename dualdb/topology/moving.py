"""Calls to a shard whose row says that it is moving: they wait until it has moved."""

import threading
import time
from typing import TYPE_CHECKING, Callable, Optional

from .. import deadlines, errors
from ..buffer import BufferedWait, Refusal
from ..execution import steps
from .shard_map import Shard, Status
from .table_reader import read_or_warn

if TYPE_CHECKING:
    from .lifecycle import ServiceLifecycle

#: Seconds between two readings of the shard table for calls that wait; no less than a
#: reading takes.
REFRESH_INTERVAL = 0.2

#: The most seconds that such a reading may take.
REFRESH_TIMEOUT = 2.0

#: Seconds after which a call that was refused is worth another attempt.
RETRY_AFTER = 1.0


def refused(shard_id: int, why: str = "") -> errors.ShardUnavailable:
    """Make the error for a call that does not wait for a shard, or no longer.

    Args:
        shard_id: The shard.
        why: Why it does not wait; empty for a call that never does.
    """
    reason = f"it is moving; {why}" if why else "it is moving"
    return errors.shard_unavailable(shard_id, reason, RETRY_AFTER)


class MovingShards:
    """Has calls wait for shards that are moving.

    One of the calls that wait reads the shard table again and again, in case that it
    was changed by another process. The activation of a map wakes all.

    Args:
        lifecycle: The service's lifecycle.
        clock: Returns seconds.
    """

    def __init__(
        self, lifecycle: "ServiceLifecycle", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lifecycle = lifecycle
        self._clock = clock
        self.forked()

    def forked(self) -> None:
        """Reset to the state of a process without callers."""
        self._lock = threading.Lock()
        self._refresh_at = float("-inf")

    def wait(self, shard_id: int, until: Optional[float] = None) -> steps.Plan[None]:
        """Wait while a shard is moving, as the active map has it.

        Args:
            shard_id: The shard.
            until: The call's deadline, by the clock; None for no limit.

        Raises:
            ShardUnavailable: ``buffer_timeout`` is over, or ``buffer_size`` calls wait.
            DeadlineExceeded: The deadline has passed.
            ServiceNotOpen: The service was closed.
        """
        manager = self._lifecycle.manager
        until = deadlines.earliest(until, deadlines.deadline_after())
        wait: Optional[BufferedWait] = None
        reads = False
        try:
            while True:
                topology = manager.require_open()
                shard: Optional[Shard] = topology.shard_map.shards.get(shard_id)
                if shard is None or shard.status is not Status.MOVING or shard.config is None:
                    return
                now = self._clock()
                if wait is None:
                    buffer = manager.waiting.of(shard_id)
                    wait = BufferedWait(buffer, shard.config, now, until)
                refusal = wait.refusal(now)
                if refusal is not None:
                    raise _error(refusal, shard)
                if manager.topology is not topology:
                    continue  # replaced before this call had its place and could be woken
                left = wait.seconds_left(now)
                pause = self._seconds_until_refresh(now)
                if pause is None:
                    reads = True
                    yield from self._refresh(min(left, REFRESH_TIMEOUT))
                else:
                    yield steps.AwaitSignal(wait.subscribe, min(left, pause))
        finally:
            if wait is not None:
                wait.leave()
            if reads:
                manager.waiting.wake()  # for another one to read the table

    def _seconds_until_refresh(self, now: float) -> Optional[float]:
        """Return None if the caller is to read the shard table, which others are not
        then; otherwise in how many seconds somebody is.
        """
        with self._lock:
            if now < self._refresh_at:
                return self._refresh_at - now
            self._refresh_at = now + REFRESH_TIMEOUT
            return None

    def _refresh(self, seconds: float) -> steps.Plan[None]:
        lifecycle = self._lifecycle
        began = self._clock()
        try:
            yield from read_or_warn(
                lifecycle.reader,
                lifecycle.exclusive(lifecycle.refresh(seconds), 0.0),
                "the shard table cannot be read for calls to a shard that is moving: %s",
            )
        finally:
            now = self._clock()
            pause = max(REFRESH_INTERVAL, now - began)
            if lifecycle.reader.failures:
                pause = max(pause, lifecycle.maintenance.next_refresh_delay())
            with self._lock:
                self._refresh_at = now + pause


def _error(refusal: Refusal, shard: Shard) -> errors.Error:
    assert shard.config is not None  # of a shard that is moving
    shard_id = shard.shard_id
    if refusal is Refusal.DEADLINE:
        return errors.DeadlineExceeded(
            f"the deadline passed while waiting for shard {shard_id}, which is moving"
        ).with_context(f"shard {shard_id}", shard_id, sent=False)
    if refusal is Refusal.FULL:
        return refused(shard_id, f"{shard.config.buffer_size} calls wait for it (buffer_size)")
    return refused(
        shard_id, f"the call has waited for {shard.config.buffer_timeout:g} s (buffer_timeout)"
    )
