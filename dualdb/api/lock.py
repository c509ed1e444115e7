"""Advisory locks: GET_LOCK on a session of its own, for what must not be done twice at
once.
"""

import math
import time
from typing import Any

from .. import deadlines, errors
from ..execution import steps
from ..protocol.exchange import Talk
from ..sql import parameters

#: The server must not end the session because its holder is busy elsewhere: 24 days,
#: the most that MySQL takes on every platform.
_STAY = b"SET SESSION wait_timeout = 2147483"


class BaseLock:
    """A lock of one server by its name, held from the beginning of its block to the
    end; see ``lock``.
    """

    def __init__(self, route: steps.Route, name: str, timeout: float) -> None:
        if not isinstance(name, str) or not 0 < len(name) <= 64:
            raise errors.ParameterError(
                f"a lock's name is a str of 1 to 64 characters, not {name!r}"
            )
        self.name = name
        self._route, self._timeout = route, deadlines.seconds(timeout)
        self._client: Any = None
        self._raw: Any = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}, {'not held' if self._raw is None else f'held on {self._client.name}'}>"

    def _unused(self) -> None:
        if self._raw is not None:
            raise errors.InterfaceError("this lock is held by another block: ask for another one")

    def _held(self) -> Any:
        if self._raw is None:
            raise errors.InterfaceError("a lock is held inside its block alone")
        return self._raw

    def _taking(self, raw: Any) -> Talk:
        # a lock of which nobody knows goes when the session is made as new
        raw.changed = True
        (answer,) = yield b"SHOW VARIABLES LIKE 'wsrep_on'"
        if answer.rows and answer.rows[0]["Value"] == "ON":
            raise errors.NotSupportedError(
                "a node of a Galera cluster keeps its locks to itself: GET_LOCK excludes nobody on the others"
            )
        yield _STAY
        # A longer silence would be taken for a lost connection.
        longest = (self._client.config.read_timeout or float("inf")) / 2
        ends, left = time.monotonic() + self._timeout, self._timeout
        while True:
            wait = min(left, longest)
            if "MariaDB" not in raw.server_version:
                # MySQL would round it, and give up at once for less than half a second
                wait = math.ceil(wait)
            (answer,) = yield self._ask(raw, "GET_LOCK", f", {wait:.3f}")
            taken = answer.rows[0]["answer"]
            if taken is None:
                raise errors.OperationalError(f"the server could not give the lock {self.name!r}")
            if taken:
                return
            if left <= longest:
                raise errors.LockNotFree(
                    f"the lock {self.name!r} was not free within {self._timeout:g} s"
                )
            left = max(0.0, ends - time.monotonic())

    def _checking(self, raw: Any) -> Talk:
        (answer,) = yield self._ask(raw, "IS_USED_LOCK", "", " = CONNECTION_ID()")
        return bool(answer.rows[0]["answer"])

    def _letting_go(self, raw: Any) -> Talk:
        (answer,) = yield self._ask(raw, "RELEASE_LOCK")
        return bool(answer.rows[0]["answer"])

    def _ask(self, raw: Any, function: str, more: str = "", compared: str = "") -> bytes:
        voice = raw.voice
        name = parameters.literal(self.name, backslash_escapes=voice.backslash_escapes)
        asked: bytes = voice.encode(f"SELECT {function}({name}{more}){compared} AS answer")
        return asked

    def _told(self, error: BaseException, raw: Any) -> BaseException:
        """What the caller is to be told, who has waited for the lock."""
        told = errors.told(error, self._client.name, self._client.shard_id, sent=raw.sent)
        return (
            told.about(self._client.name, self._client.shard_id, sent=raw.sent)
            if isinstance(told, errors.Error)
            else told
        )

    def _told_while_held(self, error: BaseException, raw: Any) -> BaseException:
        broken = (
            isinstance(error, errors.DRIVER_ERRORS)
            and not errors.is_answer(error)
            and not isinstance(error, errors.ConcurrentUseError)
        )
        return self._lost() if broken else self._told(error, raw)

    def _lost(self) -> errors.LockLost:
        message = f"the lock {self.name!r} was lost before its block ended: its session is gone, and somebody else may hold it"
        return errors.LockLost(message).about(self._client.name, self._client.shard_id, sent=True)
