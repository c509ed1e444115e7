"""Advisory locks as leases in a table, for a cluster whose members keep the locks of
GET_LOCK to themselves.

A row is written and committed before the lock counts as held: of two that take it on
different members at once, the certification of the cluster refuses one. A lease ends by
itself if its holder does not renew it, because the death of a session on one member is
not seen by another one.
"""

import time
from typing import Callable, NamedTuple

import pymysql.err

from .. import error_codes, errors
from .exchange import Exchange, TextEncoding

#: The table of the leases, in the database of the lock.
TABLE = "dualdb_lock"
DDL = (
    f"CREATE TABLE IF NOT EXISTS {TABLE} (name VARCHAR(64) CHARACTER SET utf8mb4 "
    "COLLATE utf8mb4_bin PRIMARY KEY, owner CHAR(24) CHARACTER SET ascii NOT NULL, "
    "until DATETIME(6) NOT NULL) ENGINE=InnoDB"
)
#: Seconds that a lease lasts, and after which it is renewed.
LEASE = 30
RENEW_EVERY = 10.0
#: Seconds between two attempts to take a lock that is held.
RETRY_INTERVAL = 0.1


class Lease(NamedTuple):
    """A lock in the table.

    Attributes:
        name: The lock's name, as a literal of the session.
        owner: The token of the holder.
    """

    name: str
    owner: str

    def acquire(
        self, encoding: TextEncoding, wait: float, clock: Callable[[], float] = time.monotonic
    ) -> Exchange:
        """Take the lock; return whether it was taken.

        Args:
            encoding: The session's.
            wait: The most seconds to wait for it.
            clock: Returns seconds.
        """
        ends = clock() + wait
        # What follows waits for a release that another member has committed.
        yield b"SET SESSION wsrep_sync_wait = 7"
        while True:
            try:
                # The assignments are made from left to right.
                yield encoding.encode(
                    f"INSERT INTO {TABLE} VALUES ({self.name}, '{self.owner}', {_END}) "
                    "ON DUPLICATE KEY UPDATE "
                    "owner = IF(until < UTC_TIMESTAMP(6), VALUES(owner), owner), "
                    "until = IF(owner = VALUES(owner), VALUES(until), until)"
                )
                if (yield from self._is_held(encoding)):
                    return True
            except pymysql.err.MySQLError as error:
                code = errors.code_of(error)
                if code == error_codes.NO_SUCH_TABLE:
                    yield DDL.encode()
                    continue
                if code not in error_codes.CONFLICT:
                    raise
            left = ends - clock()
            if left <= 0:
                return False
            yield b"DO SLEEP(%.3f)" % min(left, RETRY_INTERVAL)

    def renew(self, encoding: TextEncoding) -> Exchange:
        """Renew the lease; return whether the lock is still held.

        A member that has left the cluster cannot commit it.
        """
        while True:
            try:
                yield encoding.encode(f"UPDATE {TABLE} SET until = {_END} WHERE {self._row}")
            except pymysql.err.MySQLError as error:
                if errors.code_of(error) not in error_codes.CONFLICT:
                    raise
                continue
            return (yield from self._is_held(encoding))

    def release(self, encoding: TextEncoding) -> Exchange:
        """Release the lock; return whether it was still held."""
        while True:
            try:
                held = yield from self._is_held(encoding)
                yield encoding.encode(f"DELETE FROM {TABLE} WHERE {self._row}")
            except pymysql.err.MySQLError as error:
                if errors.code_of(error) not in error_codes.CONFLICT:
                    raise
                continue
            return held

    @property
    def _row(self) -> str:
        return f"name = {self.name} AND owner = '{self.owner}'"

    def _is_held(self, encoding: TextEncoding) -> Exchange:
        (answer,) = yield encoding.encode(
            f"SELECT COUNT(*) AS held FROM {TABLE} WHERE {self._row} AND until > UTC_TIMESTAMP(6)"
        )
        return bool(answer.rows[0]["held"])


_END = f"UTC_TIMESTAMP(6) + INTERVAL {LEASE} SECOND"
