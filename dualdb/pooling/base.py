"""What the pools of both implementations decide and keep, beside the waiting."""

import enum
import logging
import os
import ssl
import sys
import time
import weakref
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, Type

from pymysql.constants import CR

from .. import errors
from ..config import DatabaseConfig
from ..protocol import tls
from ..protocol.connection_state import ConnectionState, KillState
from ..protocol.row_decoder import DecoderName
from .circuit_breaker import CircuitBreaker
from .retry_budget import RetryBudget
from .session_killer import SessionKiller

log = logging.getLogger("dualdb")

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class PoolStats(NamedTuple):
    """A pool at one moment, counted without I/O.

    Attributes:
        limit: the most connections there may be: ``pool_size + max_overflow``.
        in_use, idle: the connections that there are; those that are still being ended
            on the server count as in use.
        waiting: callers who wait for one.
        opened: how many have been opened in all.
        timeouts: how many callers have waited in vain.
        circuit: "closed", or "open" while the server cannot be reached and calls fail
            at once.
    """

    limit: int
    in_use: int
    idle: int
    waiting: int
    opened: int
    timeouts: int
    circuit: str

    def as_dict(self) -> Dict[str, Any]:
        """The same as a dict of plain values, ready for ``json.dumps``."""
        return self._asdict()


class Disposition(enum.Enum):
    """What is to be done with a connection that was returned.

    Attributes:
        DROP: Forget it: it is the parent process's.
        KILLER_OWNS_IT: Nothing: the killer checks it in when it is done.
        KILL: Kill its session; the slot stays taken until then.
        CLOSE: Close it.
        RESET: Have the server make its session as new.
        CLEAR: Have the server forget the last statement's warnings and errors.
        REUSE: Nothing: the next borrower finds it as it was.
    """

    DROP = "drop"
    KILLER_OWNS_IT = "killer owns it"
    KILL = "kill"
    CLOSE = "close"
    RESET = "reset"
    CLEAR = "clear"
    REUSE = "reuse"


_REUSE = Disposition.REUSE


class BasePool:
    """One database's connections: who has them, and whether the server is there.

    Args:
        config: The database's, and the pool's limits.
        name: The database's, for messages.
        shard_id: None for a database that is no shard.
    """

    #: Seconds between attempts to end a session that cannot be ended yet.
    KILL_RETRY_INTERVAL = 0.1

    _slots: Any
    #: The driver's connection with this package's state.
    _connection_type: Type[ConnectionState]

    #: Called when the circuit opens, with the failure, and when it closes, with None.
    on_outage: Optional[Callable[[Optional[Exception]], None]] = None

    def __init__(self, config: DatabaseConfig, name: str, shard_id: Optional[int]) -> None:
        self.config = config
        self.name = name
        self.shard_id = shard_id
        self.closed = False
        self._resets_always = config.reset == "always"
        self._tls: Optional[ssl.SSLContext] = None
        self.opened = self._timeouts = 0
        self.breaker = CircuitBreaker()
        #: Connections that were opened before are replaced, by time.monotonic().
        self._opened_after = 0.0
        self._reset()

    def retire_older(self, now: float) -> None:
        """Replace the connections that were opened before a moment: idle ones when they
        are asked for, others after their return.

        Args:
            now: The moment, by time.monotonic().
        """
        self._opened_after = max(self._opened_after, now)

    def _reset(self) -> None:
        """Be a pool that has no connection."""
        self.breaker = CircuitBreaker(failure=self.breaker.failure)
        self.retry_budget = RetryBudget()
        self._kills = SessionKiller(self.name, self.KILL_RETRY_INTERVAL)
        #: By the id of each connection in use: a weak reference to it, since when, and
        #: by which line of whose program where leaks are looked for. Whoever loses a
        #: connection must not have it kept alive here.
        self._checked_out: Dict[int, Tuple[weakref.ReferenceType[Any], float, str]] = {}

    @property
    def row_decoder(self) -> DecoderName:
        """What decodes the rows of its connections."""
        return self._connection_type.decoder_for(self.config)

    @property
    def in_use(self) -> int:
        """How many slots are taken: by callers, and by sessions that are still being
        ended on the server.
        """
        return int(self._slots.in_use)

    def disposition(self, connection: Any) -> Disposition:
        """What to do with a returned connection. Pure; called under the pool's lock."""
        if connection.untouched and connection.open and not (self.closed or self._resets_always):
            return _REUSE
        if connection.inherited:
            return Disposition.DROP
        if connection.kill_state is KillState.PENDING:
            return Disposition.KILLER_OWNS_IT
        if connection.open and connection.needs_kill:
            return Disposition.KILL
        if self.closed or not connection.open or not connection.reusable:
            return Disposition.CLOSE
        if connection.dirty or self._resets_always:
            # a reset does not run what the server runs in each new session
            return Disposition.CLOSE if connection.facts.runs_init_connect else Disposition.RESET
        return Disposition.CLEAR

    def stats(self) -> PoolStats:
        return PoolStats(
            self._slots.limit,
            self.in_use,
            self._idle_count(),
            self._slots.waiting,
            self.opened,
            self._timeouts,
            "open" if self.breaker.is_open else "closed",
        )

    def _idle_count(self) -> int:
        raise NotImplementedError

    def _tls_context(self) -> Optional[ssl.SSLContext]:
        try:
            return tls.context(self.config)
        except OSError as error:  # an ssl.SSLError too
            raise errors.ConnectionFailed(
                CR.CR_SSL_CONNECTION_ERROR, f"the files for TLS cannot be used: {error}"
            ) from error

    def _record_checkout(self, connection: Any, now: float) -> None:
        self._checked_out[id(connection)] = (
            weakref.ref(connection),
            now,
            "" if self.config.leak_threshold is None else _caller(),
        )

    def checked_out_at(self, connection: Any) -> Optional[float]:
        """When a connection was checked out, by time.monotonic(); None if it is not
        out.
        """
        entry = self._checked_out.get(id(connection))
        return None if entry is None else entry[1]

    def _connections_out(self) -> List[Any]:
        found = [entry[0]() for entry in list(self._checked_out.values())]
        return [connection for connection in found if connection is not None]

    def abort_in_use(self) -> int:
        """Cut the connections that are still in use.

        Returns:
            How many there were.
        """
        connections = self._connections_out()
        for connection in connections:
            connection.abort_in_use()
        return len(connections)

    def _warn_of_leaks(self) -> None:
        """Say once of every connection that has been out for longer than
        ``leak_threshold``, who has it.
        """
        limit = self.config.leak_threshold
        now = time.monotonic()
        for key, (connection, since, place) in list(self._checked_out.items()):
            if limit is not None and place and now - since > limit:
                log.warning(
                    "%s: a connection has been in use for %.1f s, since it was taken at %s",
                    self.name,
                    now - since,
                    place,
                )
                self._checked_out[key] = (connection, since, "")

    def _timeout(self, waited: float) -> errors.PoolTimeout:
        self._timeouts += 1
        self._warn_of_leaks()
        error: errors.PoolTimeout = self._slots.timeout(self.name, self.shard_id, waited)
        return error

    def _deadline_error(self, doing: str) -> errors.DeadlineExceeded:
        return errors.DeadlineExceeded(f"the deadline passed while {doing}").with_context(
            self.name, self.shard_id, sent=False
        )

    def _closed_error(self) -> errors.ServiceNotOpen:
        return errors.ServiceNotOpen(f"the connection pool of {self.name} is closed").with_context(
            self.name, self.shard_id, sent=False
        )


def _caller() -> str:
    """The innermost line that is not this package's."""
    frame: Any = sys._getframe(2)
    while frame is not None and (
        frame.f_code.co_filename.startswith(_PACKAGE)
        or frame.f_code.co_filename.endswith("/asyncio/events.py")
    ):
        frame = frame.f_back
    return (
        "?"
        if frame is None
        else f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
    )
