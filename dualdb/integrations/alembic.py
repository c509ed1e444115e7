"""Alembic on every shard: an SQLAlchemy engine for each, and one runner at a time."""

import logging
import time
from typing import Any, Callable, List, Optional, Union

import sqlalchemy

from .. import errors
from ..config import DatabaseConfig
from ..observability.logs import about
from ..operations.places import Databases, Place, Shards
from ..protocol import tls
from ..sync_impl.connection import Connection
from ..sync_impl.service import DatabaseService

log = logging.getLogger("dualdb.operations")

#: The advisory lock of the one who migrates, on the global database's server.
LOCK = "dualdb:alembic:"


class _OwnConnection(Connection):
    def check_cursor_statement(self, sql: object) -> None:
        """Nothing is refused: SQLAlchemy sets the character set, and no pool hands the
        session to somebody else.

        Args:
            sql: The statement.
        """


def engine(config: DatabaseConfig, **options: Any) -> sqlalchemy.Engine:
    """An SQLAlchemy engine for a database of this configuration.

    Its connections are opened as this package opens its own: TLS, the look-up of the
    password, ``connect_timeout``, ``init_command`` and ``sql_mode`` are the same. It
    keeps none (``NullPool``); the limits of the service's pools
    do not count them.

    Args:
        config: Of the database, such as one of ``db.shard_configs``.
        options: Of ``sqlalchemy.create_engine``.

    Returns:
        The engine. Connecting raises sqlalchemy.exc.OperationalError, whose ``orig`` is
        this package's ConnectionFailed.

    Example:
        >>> with engine(db.shard_configs[1]).connect() as connection:
        ...     connection.execute(sqlalchemy.text("SELECT 1")).scalar()
        1
    """

    def connect() -> Connection:
        connection = _OwnConnection(config)
        until = time.monotonic() + config.connect_timeout
        connection.open_session(tls.context(config), until)
        # SQLAlchemy begins a transaction by sending nothing
        connection.autocommit(False)
        return connection

    options = {"poolclass": sqlalchemy.NullPool, **options}
    return sqlalchemy.create_engine("mysql+pymysql://", creator=connect, **options)


def migrate_shards(
    db: DatabaseService,
    migrate: Callable[[sqlalchemy.Connection], object],
    *,
    shards: Shards = "all",
    canary: Optional[Union[int, str]] = None,
    lock_timeout: float = 30.0,
) -> List[str]:
    """Migrate one database after the other, as the only one who does.

    After an error no further database is begun, so the first one is the canary. Call it
    again when the cause is mended: Alembic finds nothing to do where it was done.

    Args:
        db: The open service.
        migrate: Called with a connection to each database, from ``env.py``.
        shards: The databases, as for ``db.operations``.
        canary: The one that goes first; by default the first of ``shards``.
        lock_timeout: Seconds to wait for another runner.

    Returns:
        The databases, in the order in which they were migrated.

    Raises:
        LockNotAvailable: Another runner did not end in time.
        LockLost: The lock was lost, and another runner may have begun.
        OperationalError: ``migrate`` failed; it says where, what was done before, and
            what was not begun. Its cause is the error.
        ParameterError: ``shards`` or ``canary`` names no database.
    """
    databases = Databases(db)
    places = databases.chosen(shards)
    if canary is not None:
        first = databases.one(canary)
        if first not in places:
            raise errors.ParameterError(f"the canary {canary!r} is not among the databases")
        places = [first, *[place for place in places if place != first]]
    done: List[str] = []
    with db.lock(_lock_name(db.global_config), timeout=lock_timeout) as lock:
        for place in places:
            lock.check()
            _migrate(place, migrate, done, places)
            done.append(place.name)
    return done


def _migrate(
    place: Place,
    migrate: Callable[[sqlalchemy.Connection], object],
    done: List[str],
    places: List[Place],
) -> None:
    log.info("alembic: migrating %s", place.name, extra=about("migrating", place))
    made = engine(place.usable())
    try:
        with made.connect() as connection:
            migrate(connection)
    except Exception as error:
        not_begun = [each.name for each in places[len(done) + 1 :]]
        raise errors.OperationalError(
            f"the migration failed on {place.name} (done: {', '.join(done) or 'none'}; "
            f"not begun: {', '.join(not_begun) or 'none'}): {error}"
        ) from error
    finally:
        made.dispose()


def _lock_name(config: DatabaseConfig) -> str:
    # a lock's name has 64 characters at most, as a database's
    return (LOCK + config.database)[:64]
