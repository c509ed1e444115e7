"""Who migrates a database: one runner at a time.

A server's own lock (GET_LOCK) goes with the session that holds it: when the runner is
gone, a statement that still runs keeps the lock until its end. A node of a Galera
cluster keeps such locks to itself, so there a row is the lease of its owner, which is
renewed while a statement runs. What is recorded there confirms the lease in the same
transaction: of two transactions that write the row the cluster commits one, so that no
other runner can have taken it in between.
"""

import contextlib
import hashlib
import os
import secrets
import time
from abc import ABC, abstractmethod
from typing import TypeVar

from .. import errors
from ..execution import alongside, steps
from .places import Databases, Session

T = TypeVar("T")

TABLE = "dualdb_migration_lock"

DDL = f"""CREATE TABLE IF NOT EXISTS {TABLE} (
    name VARCHAR(64) PRIMARY KEY,
    owner VARCHAR(255) NOT NULL,
    token CHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    lease_until DATETIME(6) NOT NULL
)"""

#: Seconds that a lease is held after its last renewal; it is renewed thrice as often.
LEASE = 15.0
#: Seconds between two attempts to take it.
_TRY_AGAIN = 0.25

_NOW = "UTC_TIMESTAMP(6)"


def owner() -> str:
    """Return the name of this process, for the records."""
    return f"{os.uname().nodename}:{os.getpid()}"


def lock_of(databases: Databases, session: Session, timeout: float) -> "steps.Plan[RunnerLock]":
    """Return the kind of lock that excludes others on the session's server, not taken.

    Args:
        databases: Makes further sessions.
        session: The session that migrates.
        timeout: Seconds to wait for somebody else.
    """
    found = yield from session.query("SHOW VARIABLES LIKE 'wsrep_on'")
    if found and found[0]["Value"] == "ON":
        return RunnerLease(databases, session, timeout)
    return ServerLock(session, timeout)


class RunnerLock(ABC):
    """The right to migrate a database.

    Args:
        session: The session that migrates.
        timeout: Seconds to wait for somebody else.
    """

    def __init__(self, session: Session, timeout: float) -> None:
        self._session = session
        self._timeout = timeout

    @abstractmethod
    def acquire(self) -> steps.Plan[None]:
        """Wait for it.

        Raises:
            LockNotAvailable: Somebody else had it until the wait timed out.
        """

    @abstractmethod
    def check(self) -> steps.Plan[None]:
        """Check that it is held.

        Raises:
            LockLost: It is not, and somebody else may hold it.
        """

    @abstractmethod
    def release(self) -> steps.Plan[None]:
        """Let others have it."""

    def keep(self, plan: steps.Plan[T]) -> steps.Plan[T]:
        """Run a plan, and keep the lock meanwhile."""
        return (yield from plan)

    def record(self, write: steps.Plan[None]) -> steps.Plan[None]:
        """Run a plan that writes a record, if the lock is held."""
        yield from write

    def confirm(self) -> steps.Plan[None]:
        """In a transaction before its end: check that the lock is held until then."""
        yield from ()

    def _not_available(self, who: str) -> errors.LockNotAvailable:
        error = errors.LockNotAvailable(
            f"{who} migrates this database, and was not done within {self._timeout:g} s"
        )
        error.with_context(self._session.name, self._session.shard_id, sent=True)
        return error

    def _lost(self) -> errors.LockLost:
        error = errors.LockLost(
            "the lock of the migrations was lost, and somebody else may hold it"
        )
        error.with_context(self._session.name, self._session.shard_id, sent=True)
        return error


class ServerLock(RunnerLock):
    """A lock of the server, held by the session."""

    def __init__(self, session: Session, timeout: float) -> None:
        super().__init__(session, timeout)
        # Short and in lower case: MySQL takes 64 characters and knows no case.
        database = session.place.usable().database
        self._name = f"dualdb_migrate_{hashlib.sha256(database.encode()).hexdigest()[:16]}"

    def acquire(self) -> steps.Plan[None]:
        until = time.monotonic() + self._timeout
        while not (yield from self._session.value("SELECT GET_LOCK(%s, 1)", (self._name,))):
            if time.monotonic() >= until:
                raise self._not_available("somebody else")

    def check(self) -> steps.Plan[None]:
        held = yield from self._session.value(
            "SELECT IS_USED_LOCK(%s) = CONNECTION_ID()", (self._name,)
        )
        if not held:
            raise self._lost()

    def release(self) -> steps.Plan[None]:
        yield from self._session.value("SELECT RELEASE_LOCK(%s)", (self._name,))


class RunnerLease(RunnerLock):
    """A row that names the runner until its lease is over, on a Galera cluster.

    Args:
        databases: Makes the sessions that renew it.
        session: The session that migrates.
        timeout: Seconds to wait for somebody else.
    """

    def __init__(self, databases: Databases, session: Session, timeout: float) -> None:
        super().__init__(session, timeout)
        self._databases = databases
        self._token = secrets.token_hex(16)

    def acquire(self) -> steps.Plan[None]:
        until = time.monotonic() + self._timeout
        session = self._session
        # what this session reads or writes comes after what others have committed
        yield from session.execute("SET SESSION wsrep_sync_wait = 7")
        yield from session.execute(DDL)
        while not (yield from self._take()):
            if time.monotonic() >= until:
                who = yield from session.value(f"SELECT owner FROM {TABLE}")
                raise self._not_available(str(who or "somebody else"))
            yield steps.Sleep(_TRY_AGAIN)

    def _take(self) -> steps.Plan[bool]:
        try:
            yield from self._session.execute(
                f"INSERT IGNORE INTO {TABLE} VALUES ('runner', '', '', '1970-01-01')"
            )
            taken = yield from self._session.execute(
                f"UPDATE {TABLE} SET owner = %s, token = %s, "
                f"lease_until = {_NOW} + INTERVAL %s SECOND "
                f"WHERE name = 'runner' AND lease_until < {_NOW}",
                (owner(), self._token, LEASE),
            )
        except errors.Deadlock:  # another node was faster
            return False
        return bool(taken)

    def check(self) -> steps.Plan[None]:
        try:
            held = yield from _renew(self._session, self._token)
        except errors.Deadlock as error:
            raise self._lost() from error
        if not held:
            raise self._lost()

    confirm = check

    def release(self) -> steps.Plan[None]:
        yield from self._session.execute(
            f"UPDATE {TABLE} SET lease_until = '1970-01-01', token = '' WHERE token = %s",
            (self._token,),
        )

    def record(self, write: steps.Plan[None]) -> steps.Plan[None]:
        yield from self._session.execute("START TRANSACTION")
        try:
            yield from self.confirm()
            yield from write
            yield from self._session.execute("COMMIT")
        except errors.Error as error:
            if errors.is_server_error(error) or isinstance(error, errors.LockLost):
                yield from self._session.execute("ROLLBACK")
            raise

    def keep(self, plan: steps.Plan[T]) -> steps.Plan[T]:
        return (yield from alongside.repeated(plan, self._renew_apart, LEASE / 3))

    def _renew_apart(self) -> steps.Plan[bool]:
        """Renew the lease on a session of its own. What fails here is noticed by the
        next ``check``.
        """
        with contextlib.suppress(errors.Error):
            yield from self._databases.session(
                self._session.place, lambda session: _renew(session, self._token)
            )
        return True


def _renew(session: Session, token: str) -> steps.Plan[bool]:
    renewed = yield from session.execute(
        f"UPDATE {TABLE} SET lease_until = {_NOW} + INTERVAL %s SECOND WHERE token = %s",
        (LEASE, token),
    )
    return bool(renewed)
