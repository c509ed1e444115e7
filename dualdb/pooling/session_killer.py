"""The queue of sessions to be killed on the server.

A call that timed out or was cancelled leaves its statement running. It is killed from a
separate connection, and its slot stays taken until then, so that the server never runs
more sessions than the limit. Pure; the pools do the I/O.
"""

import logging
import time
from collections import deque
from typing import Any, Callable, Deque, NamedTuple, Optional, Set

from ..observability.logs import about
from ..protocol.kill import KillOutcome

log = logging.getLogger("dualdb.pool")

#: Seconds between attempts to kill a session that cannot be killed yet.
KILL_RETRY_INTERVAL = 0.1
#: Attempts for a session that the server does not know: behind a load balancer another
#: connection may reach its server.
MOST_SEARCHES = 8


class KillJob(NamedTuple):
    """One session to be killed.

    Attributes:
        connection: The connection of that session; its socket stays open meanwhile.
        searches: Attempts in which the server did not know the session.
        since: When it was queued, by time.monotonic().
    """

    connection: Any
    searches: int = 0
    since: float = 0.0


class SessionKiller:
    """The queue of one pool's sessions to be killed.

    Args:
        name: The database's name, for the log.
        retry_interval: Seconds between attempts to kill a session that cannot be killed
            yet.
        on_end: Called at the end of each job, with its seconds and what came of it.
        shard_id: The database's shard id, for the log.
    """

    def __init__(
        self,
        name: str,
        retry_interval: float = KILL_RETRY_INTERVAL,
        on_end: Optional[Callable[[float, str], None]] = None,
        shard_id: Optional[int] = None,
    ) -> None:
        self.name = name
        self.shard_id = shard_id
        self.retry_interval = retry_interval
        self._jobs: Deque[KillJob] = deque()
        self._warned: Set[int] = set()
        self._on_end = on_end

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, connection: object) -> None:
        """Queue a connection's session to be killed."""
        self._jobs.append(KillJob(connection, since=time.monotonic()))

    def next(self) -> Optional[KillJob]:
        """Remove and return the next job; None if there is none."""
        return self._jobs.popleft() if self._jobs else None

    def put_back(self, job: KillJob) -> None:
        """Queue a job again whose attempt was cancelled."""
        self._jobs.append(job)

    def is_over(self, job: KillJob, outcome: KillOutcome, *, closed: bool) -> bool:
        """Decide after an attempt whether the job is done; otherwise queue it again.

        Args:
            job: The job.
            outcome: The outcome of the attempt.
            closed: The pool is closed, so that the slot is not needed; or so is the
                connection, with which its session has ended.

        Returns:
            True if there will be no further attempt.
        """
        if outcome is KillOutcome.ENDED or closed:
            self._report(job, outcome.value)
            return True
        if outcome is KillOutcome.NOT_YET:
            self._warn_once(job, "runs with a definer's rights and cannot be killed yet")
            self._jobs.append(job)
            return False
        if outcome is KillOutcome.NOT_FOUND and job.searches + 1 < MOST_SEARCHES:
            self._jobs.append(job._replace(searches=job.searches + 1))
            return False
        where = "its server" if outcome is KillOutcome.NOT_HELD else "any server that was reached"
        self._warn_once(job, f"was not found on {where}, and its statement may continue")
        self._report(job, outcome.value)
        return True

    def warn_failed(self, job: KillJob, error: BaseException) -> None:
        """Log that an attempt failed with an error."""
        log.warning(
            "%s: session %d could not be killed on the server: %s",
            self.name,
            job.connection.session_id,
            error,
            extra=about("kill_failed", self),
        )
        self._report(job, "failed")

    def warn_unproven(self, job: KillJob) -> None:
        """Log that a session is not killed, because it holds no lock to identify it."""
        self._warn_once(job, "cannot be identified safely on this server and is not killed")

    def _report(self, job: KillJob, outcome: str) -> None:
        if self._on_end is not None:
            unproven = outcome == KillOutcome.ENDED.value and job.connection.facts.lock is None
            self._on_end(time.monotonic() - job.since, "unproven" if unproven else outcome)

    def _warn_once(self, job: KillJob, what: str) -> None:
        session_id = job.connection.session_id
        if session_id not in self._warned:
            self._warned.add(session_id)
            log.warning(
                "%s: session %d %s",
                self.name,
                session_id,
                what,
                extra=about("kill_not_possible", self),
            )
