"""Which sessions are to be killed on the server, and when to give one up.

A call that timed out or was cancelled leaves its statement running. It is killed over a
connection of its own, and its slot stays taken until then, so that the server never
runs more sessions than the limit. Pure; the pools do the waiting.
"""

import logging
from collections import deque
from typing import Any, Deque, NamedTuple, Optional, Set

from ..protocol.kill import KillOutcome

log = logging.getLogger("dualdb")

#: Seconds between attempts to end a session that cannot be ended yet.
KILL_RETRY_INTERVAL = 0.1
#: How often a session that the server does not know is looked for: behind a load
#: balancer another connection may reach its server.
MOST_SEARCHES = 8


class KillJob(NamedTuple):
    """One session to be killed.

    Attributes:
        connection: To that session; its socket stays open meanwhile.
        searches: How often a server has not known it.
    """

    connection: Any
    searches: int = 0


class SessionKiller:
    """The sessions of one pool that are to be killed, in their order.

    Args:
        name: The database's, for the log.
        retry_interval: Seconds before the next attempt at a session that cannot be
            ended yet.
    """

    def __init__(self, name: str, retry_interval: float = KILL_RETRY_INTERVAL) -> None:
        self.name = name
        self.retry_interval = retry_interval
        self._jobs: Deque[KillJob] = deque()
        self._warned: Set[int] = set()

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, connection: Any) -> None:
        """Have a connection's session killed."""
        self._jobs.append(KillJob(connection))

    def next(self) -> Optional[KillJob]:
        """The next session; None where there is none."""
        return self._jobs.popleft() if self._jobs else None

    def put_back(self, job: KillJob) -> None:
        """An attempt was broken off."""
        self._jobs.append(job)

    def is_over(self, job: KillJob, outcome: KillOutcome, *, closed: bool) -> bool:
        """Judge an attempt; another one is queued where it makes sense.

        Args:
            job: What was tried.
            outcome: What came of it.
            closed: The pool is closed, so that nobody waits for the slot.

        Returns:
            True where nothing more is done about the session.
        """
        if outcome is KillOutcome.ENDED or closed:
            return True
        if outcome is KillOutcome.NOT_YET:
            self._warn_once(job, "goes on with a definer's rights and cannot be ended yet")
            self._jobs.append(job)
            return False
        if job.searches + 1 < MOST_SEARCHES:
            self._jobs.append(job._replace(searches=job.searches + 1))
            return False
        self._warn_once(job, "is not known where a KILL could be sent, and its statement may go on")
        return True

    def warn_failed(self, job: KillJob, error: BaseException) -> None:
        """Log that an attempt failed altogether."""
        log.warning(
            "%s: what session %d was doing could not be ended on the server: %s",
            self.name,
            job.connection.session_id,
            error,
        )

    def warn_unproven(self, job: KillJob) -> None:
        """Log that no KILL can be sent, because the session has no lock."""
        self._warn_once(job, "cannot be told from others on this server and is not ended")

    def _warn_once(self, job: KillJob, what: str) -> None:
        session_id = job.connection.session_id
        if session_id not in self._warned:
            self._warned.add(session_id)
            log.warning("%s: session %d %s", self.name, session_id, what)
