"""The lease of a job: how whoever runs it learns that it is lost."""

import time

from .. import errors


class JobLost(errors.LockLost):
    """The job's lease was over, and somebody else has taken it."""


class JobLease:
    """The lease of a running job, as far as its worker knows.

    Args:
        name: The job's name.
        seconds: How long the lease is held after it was renewed.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self._name = name
        self._seconds = seconds
        self._taken = False
        self.renewed()

    def renewed(self) -> None:
        """It is held from now on for its whole time."""
        self._expires_at = time.monotonic() + self._seconds

    def taken(self) -> None:
        """Somebody else has the job, or it was deleted."""
        self._taken = True

    @property
    def lost(self) -> bool:
        """Somebody else has the job, or may have: the lease could not be renewed."""
        return self._taken or time.monotonic() >= self._expires_at

    def check(self) -> None:
        """Raise JobLost if the lease is lost."""
        if self.lost:
            raise lost(self._name)


def lost(name: str) -> JobLost:
    """Make the error of a worker whose lease is over."""
    return JobLost(
        f"the lease of the job {name!r} was over before its step was, and somebody else took it"
    )
