"""Advisory locks, in threads."""

import threading
import weakref
from typing import Any, Callable, List, Optional, Tuple

from .. import deadlines, errors
from ..api.lock import RELEASE_GRACE, BaseLock
from ..blocks import ends_block
from ..execution import execute
from ..protocol.exchange import Exchange, readable
from .connection import Connection
from .runner import run_plan, run_step


class Lock(BaseLock):
    """An advisory lock, in threads: ``with db.lock("rebalance", timeout=5):``."""

    _renewal: Optional["_Renewal"] = None

    def __enter__(self) -> "Lock":
        self._check_unused()
        until = deadlines.deadline_after()
        borrowed: List[Tuple[Any, Any]] = []
        try:
            run_plan(execute.check_out(self._route, until=until, into=borrowed), run_step)
            self._client, connection = borrowed[0]
            run_plan(
                readable(self._acquire_exchange(connection), connection),
                lambda command: connection.run(command, self._until(self._client, self._timeout)),
            )
            self._connection = connection
            if self._lease is not None:
                self._renewal = _Renewal(self._renew_every, weakref.WeakMethod(self._renew))
                self._renewal.start()
            return self
        except BaseException as error:
            errors.raise_translated(error, self._not_acquired(error, borrowed))

    def check(self) -> None:
        """Ask the server whether the lock is still held.

        Raises:
            LockLost: It is not.
            DeadlineExceeded: The deadline of the block had passed before.
            InterfaceError: Outside the block.
        """
        connection = self._held()
        self._check_deadline()
        renewal = self._renewal
        if renewal is None:
            held = self._answer(self._check_exchange(connection), connection)
        else:
            with renewal.turn:
                held = self._answer(self._check_exchange(connection), connection)
        if not held:
            raise self._lost_error()

    @ends_block
    def __exit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        connection = self._held()
        if self._renewal is not None:
            self._renewal.end()
            self._renewal = None
        self._connection = None
        try:
            kept = (error is None or isinstance(error, Exception)) and self._answer(
                self._release_exchange(connection), connection, RELEASE_GRACE
            )
        except errors.Error:
            if error is None:
                raise
        else:
            if error is None and not kept:
                raise self._lost_error()
        finally:
            self._client.pool.release(connection)

    def _answer(self, exchange: Exchange, connection: Connection, grace: float = 0.0) -> Any:
        try:
            return run_plan(
                readable(exchange, connection),
                lambda command: connection.run(command, self._until(self._client, grace=grace)),
            )
        except BaseException as error:
            errors.raise_translated(error, self._translate_while_held(error, connection))

    def _renew(self) -> bool:
        """Renew the lease of a lock that is held; return whether it is still held."""
        connection = self._connection
        if connection is None:
            return False
        try:
            return bool(self._answer(self._check_exchange(connection), connection))
        except errors.Error:
            return False


class _Renewal(threading.Thread):
    """Renews the lease of a lock while its block runs.

    It has no reference to the lock, so that a lock whose block is never left can be
    garbage-collected.
    """

    def __init__(self, every: float, renew: "weakref.WeakMethod[Callable[[], bool]]") -> None:
        super().__init__(name="dualdb-lock", daemon=True)
        self._every = every
        self._renew = renew
        self._ended = threading.Event()
        #: Held by who uses the lock's connection.
        self.turn = threading.Lock()

    def run(self) -> None:
        """Renew the lease until the block is left or the lock is lost. A loss is
        detected by ``check`` and at the end of the block.
        """
        while not self._ended.wait(self._every):
            with self.turn:
                renew = self._renew()
                if self._ended.is_set() or renew is None or not renew():
                    return
                del renew  # a lock that nobody holds can be collected while it waits

    def end(self) -> None:
        """Stop renewing; wait for a renewal in progress."""
        self._ended.set()
        with self.turn:
            pass
