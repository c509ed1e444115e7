"""Waiting for the end of a move of a tenant, whose fence has refused a write."""

import random
import time
from typing import Any, Callable, Dict, Hashable, Optional, Union

from .. import deadlines, errors, fork_safety
from ..buffer import BufferedWait, Buffers, Refusal
from ..protocol.statements import Call, Statement
from .steps import Execute, Executor, Plan, Route, Sleep

#: The calls that wait for fences, by the pool of the shard that has refused a write.
_buffers = Buffers()
fork_safety.register(_buffers)

#: The longest pause before it is tried again, in seconds.
PAUSE = 0.02


def waiting() -> Dict[Hashable, int]:
    """Return the number of calls that wait for fences, by the pool of their shard."""
    return _buffers.counts()


class FenceWait:
    """The wait of one call for fences; ``leave`` ends it.

    It lasts ``buffer_timeout`` at most, and ``buffer_size`` calls of a shard wait at
    the same time.

    Args:
        until: When the call must be over, by ``clock``; None for no limit.
        clock: Gives the time.
    """

    def __init__(
        self, until: Optional[float] = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._limit = deadlines.earliest(until, deadlines.deadline_after())
        self._wait: Optional[BufferedWait] = None
        self._moved_from: Optional[object] = None

    def pause(self, fenced: errors.TenantFenced, executor: Executor) -> float:
        """Seconds to wait; the shard of the key is looked up again after it.

        Raises:
            TenantFenced: The time is over, or too many calls wait; or the tenant has
                moved, and the call goes to its old shard all the same, by a session or
                a shard id.
        """
        now = self._clock()
        client = executor.client
        if self._wait is None:
            buffer = _buffers.of(client.pool)
            self._wait = BufferedWait(buffer, client.config, now, self._limit)
        if fenced.has_moved and self._moved_from is client:
            raise fenced
        refusal = self._wait.refusal(now)
        if refusal is Refusal.FULL:
            raise errors.fence_buffer_full(fenced, client.config.buffer_size) from fenced
        if refusal is not None:
            raise fenced
        self._moved_from = client if fenced.has_moved else None
        shared = client.shared
        if shared is not None and shared.forget_keys is not None:
            shared.forget_keys()
        return PAUSE * random.random()

    def leave(self) -> None:
        """End the wait."""
        if self._wait is not None:
            self._wait.leave()


def send_again(
    route: Route,
    executor: Executor,
    statement: Union[Statement, Call],
    until: Optional[float],
    fenced: errors.TenantFenced,
) -> Plan[Any]:
    """Send a statement that a fence has refused when the fence has ended, wherever the
    route leads then.

    In a transaction the whole must be repeated, and of a procedure a part may have been
    applied before it was refused: the error is raised.

    Raises:
        TenantFenced: It cannot be sent again, or the fence did not end in time.
    """
    if statement.calls or executor.current_transaction() is not None:
        raise fenced
    wait = FenceWait(until)
    try:
        while True:
            yield Sleep(wait.pause(fenced, executor))
            executor = yield from route(until)
            try:
                result = yield Execute(executor, statement, until)
            except errors.TenantFenced as error:
                fenced = error
                continue
            if type(result) is list and result[0].lastrowid:
                executor.record_insert_id(result[0].lastrowid)
            return result
    finally:
        wait.leave()
