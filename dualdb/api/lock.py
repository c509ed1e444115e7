"""Advisory locks: GET_LOCK on a session of its own, for work that must not run twice
at the same time; in a Galera cluster a lease in a table.
"""

import math
import secrets
import time
from typing import Any, Callable, Generic, List, Optional, Tuple

from .. import deadlines, errors
from ..blocks import EndedBlock
from ..execution import steps
from ..protocol.connection_state import ConnectionState
from ..protocol.exchange import Exchange
from ..protocol.lock_leases import RENEW_EVERY, Lease
from ..sql import literals
from .target import BaseTarget
from .typevars import LockT

#: The server must not end the session while its holder is busy elsewhere: 24 days, the
#: most that MySQL accepts on every platform.
_KEEP_SESSION = b"SET SESSION wait_timeout = 2147483"

#: Seconds that the release of a lock may take although a deadline has passed: the lock
#: was held until then, and others wait for it.
RELEASE_GRACE = 3.0

#: Seconds that the server may take to answer where neither a deadline nor
#: ``read_timeout`` limits it.
ANSWER_TIMEOUT = 10.0


class BaseLock(EndedBlock):
    """A lock of one server by its name, held from the beginning of its block to the
    end; see ``lock``.
    """

    #: Seconds between two renewals of a lease.
    _renew_every = RENEW_EVERY

    def __init__(self, route: steps.Route, name: str, timeout: float) -> None:
        if not isinstance(name, str) or not 0 < len(name) <= 64:
            raise errors.ParameterError(
                f"a lock's name is a str of 1 to 64 characters, not {name!r}"
            )
        self.name = name
        self._route, self._timeout = route, deadlines.seconds(timeout)
        self._client: Any = None
        self._connection: Any = None
        #: The row that is the lock, where GET_LOCK does not exclude everybody.
        self._lease: Optional[Lease] = None

    def __repr__(self) -> str:
        held = "not held" if self._connection is None else f"held on {self._client.name}"
        return f"<{type(self).__name__} {self.name!r}, {held}>"

    def __del__(self) -> None:
        if "_connection" in self.__dict__:
            self._abandon()

    @property
    def _entered(self) -> bool:
        return self._connection is not None

    def _abandon(self) -> None:
        """Release a lock whose block was not left: end its session."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._client.pool.abandon(connection)

    def _not_acquired(self, error: BaseException, borrowed: List[Tuple[Any, Any]]) -> BaseException:
        """Give back what was checked out; the error to raise."""
        self._connection = None
        if not borrowed:
            return error
        self._client, connection = borrowed[0]
        translated = self._translate_error(error, connection)
        self._client.pool.release(connection)
        return translated

    def _until(self, client: Any, wait: float = 0.0, grace: float = 0.0) -> float:
        """When the answer to what may take ``wait`` seconds must have come.

        With a ``grace`` it has that many seconds even if the deadline of the block
        around it has passed.
        """
        now = time.monotonic()
        limit = now + wait + (client.config.read_timeout or ANSWER_TIMEOUT)
        at = deadlines.deadline_after()
        return limit if at is None else min(limit, max(at, now + grace))

    def _check_unused(self) -> None:
        if self._connection is not None:
            raise errors.InterfaceError("this lock is held by another block: ask for another one")

    def _held(self) -> Any:
        if self._connection is None:
            raise errors.InterfaceError("a lock is held inside its block alone")
        return self._connection

    def _check_deadline(self) -> None:
        """Check the deadline of the block; the lock stays held.

        Raises:
            DeadlineExceeded: It has passed.
        """
        if deadlines.passed():
            raise errors.DeadlineExceeded(
                f"the deadline had passed before it was asked whether the lock {self.name!r} is "
                "still held"
            ).with_context(self._client.name, self._client.shard_id, sent=False)

    def _acquire_exchange(self, connection: Any) -> Exchange:
        if connection.profile.row_locks:
            yield from self._acquire_lease(connection)
            return
        connection.profile.require("get_lock")
        # the reset frees the lock if its block never begins
        connection.dirty = True
        yield _KEEP_SESSION
        # A longer silence would be taken for a lost connection.
        longest = (self._client.config.read_timeout or float("inf")) / 2
        ends, left = time.monotonic() + self._timeout, self._timeout
        while True:
            wait = min(left, longest)
            if "MariaDB" not in connection.server_version:
                # MySQL would round it, and give up at once for less than half a second
                wait = math.ceil(wait)
            (answer,) = yield self._ask(connection, "GET_LOCK", f", {wait:.3f}")
            taken = answer.rows[0]["answer"]
            if taken is None:
                raise errors.OperationalError(f"the server could not give the lock {self.name!r}")
            if taken:
                return
            if left <= longest:
                raise errors.LockNotAvailable(
                    f"the lock {self.name!r} was not free within {self._timeout:g} s"
                )
            left = max(0.0, ends - time.monotonic())

    def _acquire_lease(self, connection: ConnectionState) -> Exchange:
        encoding = connection.text_encoding
        # what the lease sets is not for the next borrower
        connection.dirty = True
        lease = Lease(literals.literal(self.name, encoding.style), secrets.token_hex(12))
        if not (yield from lease.acquire(encoding, self._timeout)):
            raise errors.LockNotAvailable(
                f"the lock {self.name!r} was not free within {self._timeout:g} s"
            )
        self._lease = lease

    def _check_exchange(self, connection: Any) -> Exchange:
        if self._lease is not None:
            return (yield from self._lease.renew(connection.text_encoding))
        (answer,) = yield self._ask(connection, "IS_USED_LOCK", "", " = CONNECTION_ID()")
        return bool(answer.rows[0]["answer"])

    def _release_exchange(self, connection: Any) -> Exchange:
        if self._lease is not None:
            lease, self._lease = self._lease, None
            return (yield from lease.release(connection.text_encoding))
        (answer,) = yield self._ask(connection, "RELEASE_LOCK")
        return bool(answer.rows[0]["answer"])

    def _ask(self, connection: Any, function: str, more: str = "", compared: str = "") -> bytes:
        text_encoding = connection.text_encoding
        name = literals.literal(self.name, text_encoding.style)
        asked: bytes = text_encoding.encode(f"SELECT {function}({name}{more}){compared} AS answer")
        return asked

    def _translate_error(self, error: BaseException, connection: Any) -> BaseException:
        """The error to raise for one that came while waiting for the lock."""
        translated = errors.translate_error(
            error, self._client.name, self._client.shard_id, sent=connection.sent
        )
        return (
            translated.with_context(self._client.name, self._client.shard_id, sent=connection.sent)
            if isinstance(translated, errors.Error)
            else translated
        )

    def _translate_while_held(self, error: BaseException, connection: Any) -> BaseException:
        broken = (
            isinstance(error, errors.DRIVER_ERRORS)
            and not errors.is_server_error(error)
            and not isinstance(error, errors.ConcurrentUseError)
        )
        return self._lost_error() if broken else self._translate_error(error, connection)

    def _lost_error(self) -> errors.LockLost:
        message = (
            f"the lock {self.name!r} was lost before its block ended: its session is gone, "
            "and somebody else may hold it"
        )
        return errors.LockLost(message).with_context(
            self._client.name, self._client.shard_id, sent=True
        )


class Locks(BaseTarget, Generic[LockT]):
    """Mixed into a target that advisory locks can be taken on."""

    #: The implementation's lock, made of a route, a name and a timeout.
    _lock_class: Callable[..., LockT]

    def lock(self, name: str, *, timeout: float) -> LockT:
        """Take an advisory lock of this database's server: ``with db.lock("rebalance",
        timeout=5):``, in asyncio ``async with``.

        Nobody else holds a lock of that name on that server meanwhile, by dualdb or by
        GET_LOCK. It is held by a session of its own, one of the pool's: what the block
        does to the database is committed or rolled back apart from it, and a second
        lock of the same name waits for the first, even in the same thread or task.
        In a Galera cluster, whose members keep such locks to themselves, it is a row of
        the table ``dualdb_lock``, which is renewed in the background and ends by itself
        half a minute after its holder has gone.
        If that session ends, so does the lock: ``lock.check()`` asks the server whether
        it is still held, and so does the end of the block.

        Args:
            name: 1 to 64 characters; MySQL takes upper and lower case for the same,
                MariaDB does not.
            timeout: Seconds to wait for the lock, 0 for not at all; MySQL counts in
                whole ones. It does not limit the block.

        Returns:
            A context manager, which can be used again after its block.

        Raises:
            ParameterError: The name or the time is none.
            LockNotAvailable: (when the block begins) It was held by others all the
                time.
            NotSupportedByEngine: (when the block begins) The engine has no such locks.
            LockLost: (from ``check()``, and at the end of a block that ended normally)
                It was lost before.

        Example:
            >>> with db.lock("rebalance", timeout=5) as lock:
            ...     lock.check()
        """
        return self._lock_class(self._route, name, timeout)
