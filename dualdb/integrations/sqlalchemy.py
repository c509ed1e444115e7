"""SQLAlchemy over a service's pools."""

from typing import Any, Callable, Dict, Generic, Optional, TypeVar, Union

import sqlalchemy
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker

from .. import errors
from ..api import session_scope
from ..api.interfaces import route_of
from ..async_impl import DatabaseService as AsyncDatabaseService
from ..async_impl import Target as AsyncTarget
from ..sync_impl import DatabaseService, Target
from .dbapi import AsyncConnection, Connection

__all__ = ["AsyncEngines", "Engines", "ShardedSession"]

ServiceT = TypeVar("ServiceT", DatabaseService, AsyncDatabaseService)
EngineT = TypeVar("EngineT", sqlalchemy.Engine, AsyncEngine)

#: The default of an argument for which None is a value: the database of ``db.scope``.
_CURRENT: Any = object()


class _Engines(Generic[ServiceT, EngineT]):
    """One engine for each database, made when it is first asked for."""

    _create: Callable[..., EngineT]
    _service: ServiceT

    def __init__(self, service: ServiceT) -> None:
        self._service = service
        self._engines: Dict[Optional[int], EngineT] = {}

    def engine(self, shard_id: Optional[int] = None, **options: Any) -> EngineT:
        """Return the engine of a database.

        Its connections are those of the service's pool, within the pool's limits, and
        go back to it at the end of each unit of work. They are routed as calls are: a
        shard that moves is found, one that is suspended or read-only raises
        ShardUnavailable, and ``db.deadline`` limits the wait for a connection.

        Args:
            shard_id: The shard; None for the global database.
            options: Of ``sqlalchemy.create_engine``, such as ``echo`` and
                ``isolation_level``. With options it is a new engine.

        Returns:
            The engine. It needs no ``dispose``.

        Raises:
            ParameterError: The id is not an int.

        Example:
            >>> with db.sqlalchemy.engine(1).begin() as connection:
            ...     connection.execute(sqlalchemy.text("SELECT 1")).scalar()
            1
        """
        if shard_id is _CURRENT:
            shard_id = self._current_shard()
        target: Any = self._service if shard_id is None else self._service.shard(shard_id)
        if options or shard_id not in self._engines:
            made = self._create(target, **options)
            if options:
                return made
            self._engines.setdefault(shard_id, made)
        return self._engines[shard_id]

    def _current_shard(self) -> Optional[int]:
        scope = session_scope.innermost(self._service)
        if scope is None:
            raise errors.InterfaceError(
                "this session has no shard: open it in db.scope(...), or name one, as by "
                "Session(shard_id=2); None is the global database"
            )
        shard_id: Optional[int] = scope.shard_id()
        return shard_id


class Engines(_Engines[DatabaseService, sqlalchemy.Engine]):
    """The engines of a service, in threads."""

    @staticmethod
    def _create(target: "Union[Target, DatabaseService]", **options: Any) -> sqlalchemy.Engine:
        return sqlalchemy.create_engine(
            "mysql+pymysql://",
            creator=lambda: Connection(route_of(target)),
            **{"poolclass": sqlalchemy.NullPool, **options},
        )

    def sharded_sessionmaker(self, **options: Any) -> "sessionmaker[ShardedSession]":
        """Make a factory of sessions, each of which is on one shard.

        Each session has an identity map of its own, and so has each shard.

        Args:
            options: Of ``sqlalchemy.orm.sessionmaker``.

        Returns:
            The factory. ``Session()`` is a session on the database of ``db.scope``;
            ``Session(shard_id=2)`` on that shard, and with None on the global database.

        Example:
            >>> Session = db.sqlalchemy.sharded_sessionmaker()
            >>> with db.scope(client_session), Session.begin() as session:
            ...     session.add(Trade(symbol="ABC"))
        """
        return sessionmaker(class_=ShardedSession, engines=self, **options)


class AsyncEngines(_Engines[AsyncDatabaseService, AsyncEngine]):
    """The engines of a service, in asyncio."""

    @staticmethod
    def _create(target: "Union[AsyncTarget, AsyncDatabaseService]", **options: Any) -> AsyncEngine:
        return create_async_engine(
            "mysql+aiomysql://",
            async_creator=lambda: AsyncConnection.connect(route_of(target)),
            **{"poolclass": sqlalchemy.NullPool, **options},
        )

    def sharded_sessionmaker(self, **options: Any) -> "async_sessionmaker[AsyncShardedSession]":
        """Make a factory of sessions, each of which is on one shard.

        Args:
            options: Of ``sqlalchemy.ext.asyncio.async_sessionmaker``.

        Returns:
            The factory; as that of threads.
        """
        return async_sessionmaker(class_=AsyncShardedSession, engines=self, **options)


class ShardedSession(Session):
    """A session on the database of the scope in which it was made, or of a shard.

    Args:
        engines: ``db.sqlalchemy``.
        shard_id: The shard; None for the global database; by default the database of
            ``db.scope``.
        options: Of ``sqlalchemy.orm.Session``.

    """

    def __init__(
        self, *, engines: Engines, shard_id: Optional[int] = _CURRENT, **options: Any
    ) -> None:
        super().__init__(**{**options, "bind": engines.engine(shard_id)})


class AsyncShardedSession(AsyncSession):
    """As ShardedSession, in asyncio.

    Args:
        engines: ``db.sqlalchemy``.
        shard_id: As there.
        options: Of ``sqlalchemy.ext.asyncio.AsyncSession``.
    """

    def __init__(
        self, *, engines: AsyncEngines, shard_id: Optional[int] = _CURRENT, **options: Any
    ) -> None:
        super().__init__(**{**options, "bind": engines.engine(shard_id)})
