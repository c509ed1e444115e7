"""The contestants of asyncio, on its own event loop.

As in threads: autocommit, dicts, and given back after each call.
"""

import asyncio
from types import SimpleNamespace
from typing import Any, ClassVar, Dict, List, Sequence, Tuple, Type

import aiomysql

import dualdb

from . import data, threaded
from .peers import ASYNCIO, Peer, Unsupported, dicts


async def total(rows: Any) -> int:
    """The sum of the ids of rows as they come: sum() over a list would hold them
    all.
    """
    found = 0
    async for row in rows:
        found += row["id"]
    return found


class Floor(threaded.Floor):
    key, title, implementation = "floor-asyncio", "raw stream", ASYNCIO

    async def open(self) -> Any:
        super().open()
        self._socket.settimeout(None)
        self._socket.setblocking(False)
        self._reader, self._writer = await asyncio.open_connection(sock=self._socket)

    async def close(self) -> Any:
        self._scout.close()
        self._writer.close()
        self._session._force_close()

    async def ask(self, command: bytes, length: int) -> bytes:  # type: ignore[override]
        self._writer.write(command)
        return await self._reader.readexactly(length)


class AioMySQL(Peer):
    """One connection, as the reference of this implementation."""

    key, title, implementation, distributions = (
        "aiomysql",
        "aiomysql",
        ASYNCIO,
        ("aiomysql", "PyMySQL"),
    )
    per_call = "One connection, a cursor for each call; nothing is sent beside the statement"

    async def open(self) -> Any:
        self.connection = await aiomysql.connect(
            **self.server.arguments(db=self.server.database, cursorclass=aiomysql.DictCursor)
        )

    async def close(self) -> Any:
        await self.connection.ensure_closed()

    async def point(self, id_: int) -> Any:
        async with self.connection.cursor() as cursor:
            await cursor.execute(data.POINT, (id_,))
            return await cursor.fetchone()

    async def rows(self, count: int) -> Any:
        async with self.connection.cursor() as cursor:
            await cursor.execute(data.ROWS, (count,))
            return await cursor.fetchall()

    async def stream(self, count: int) -> Any:
        async with self.connection.cursor(aiomysql.SSDictCursor) as cursor:
            await cursor.execute(data.ROWS, (count,))
            return await total(cursor)

    async def insert(self, rows: Any) -> Any:
        async with self.connection.cursor() as cursor:
            return await cursor.executemany(data.INSERT, rows)

    async def update(self, rows: Any) -> Any:
        async with self.connection.cursor() as cursor:
            return await cursor.executemany(data.UPDATE, rows)

    async def call(self, id_: int) -> Any:
        # Not callproc(), which sends one more statement before it. Closing the cursor
        # reads the rest of the answer.
        async with self.connection.cursor() as cursor:
            await cursor.execute(data.CALL, (id_,))
            return await cursor.fetchall()


class DriverPool(Peer):
    implementation = ASYNCIO
    pooled = True
    pool: Any
    streaming: Any

    async def close(self) -> Any:
        self.pool.close()
        await self.pool.wait_closed()

    async def point(self, id_: int) -> Any:
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(data.POINT, (id_,))
            return await cursor.fetchone()

    async def rows(self, count: int) -> Any:
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(data.ROWS, (count,))
            return await cursor.fetchall()

    async def stream(self, count: int) -> Any:
        async with self.pool.acquire() as connection, connection.cursor(self.streaming) as cursor:
            await cursor.execute(data.ROWS, (count,))
            return await total(cursor)

    async def insert(self, rows: Any) -> Any:
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            return await cursor.executemany(data.INSERT, rows)

    async def update(self, rows: Any) -> Any:
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            return await cursor.executemany(data.UPDATE, rows)

    async def call(self, id_: int) -> Any:
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(data.CALL, (id_,))
            return await cursor.fetchall()


class AioMySQLPool(DriverPool):
    key, title, distributions = "aiomysql-pool", "aiomysql pool", ("aiomysql", "PyMySQL")
    per_call = "A connection out of the pool, a cursor; no ping, no rollback"

    async def open(self) -> Any:
        self.streaming = aiomysql.SSDictCursor
        self.pool = await aiomysql.create_pool(
            **self.server.arguments(
                db=self.server.database, cursorclass=aiomysql.DictCursor, minsize=1, maxsize=10
            )
        )


class AsyncmyPool(DriverPool):
    key, title, distributions = "asyncmy-pool", "asyncmy pool", ("asyncmy",)
    per_call = (
        "A connection out of the pool, a cursor; no ping, no rollback. The protocol is "
        "compiled (Cython)"
    )

    async def open(self) -> Any:
        import asyncmy
        import asyncmy.cursors

        self.streaming = asyncmy.cursors.SSDictCursor
        self.pool = await asyncmy.create_pool(
            **self.server.arguments(
                db=self.server.database,
                cursor_cls=asyncmy.cursors.DictCursor,
                minsize=1,
                maxsize=10,
            )
        )


class SQLAlchemy(Peer):
    """As in threads: Core with text()."""

    implementation = ASYNCIO
    per_call = threaded.SQLAlchemy.per_call
    pooled = True
    driver = ""

    async def open(self) -> Any:
        from sqlalchemy import text
        from sqlalchemy.ext.asyncio import create_async_engine

        self.engine = create_async_engine(
            self.server.url.replace("mysql://", f"mysql+{self.driver}://") + "?charset=utf8mb4",
            pool_size=10,
            max_overflow=0,
            isolation_level="AUTOCOMMIT",
        )
        self._point, self._call = (
            text(data.named(data.POINT, "id")),
            text(data.named(data.CALL, "id")),
        )
        self._rows, self._insert = (
            text(data.named(data.ROWS, "count")),
            text(data.named(data.INSERT, *data.TRADE[1:])),
        )
        self._update = text(data.named(data.UPDATE, *data.CHANGE))

    async def close(self) -> Any:
        await self.engine.dispose()

    def form(self, rows: List[Tuple[Any, ...]], columns: Sequence[str]) -> Any:
        return dicts(rows, columns)

    async def point(self, id_: int) -> Any:
        async with self.engine.connect() as connection:
            return (await connection.execute(self._point, {"id": id_})).mappings().one()

    async def rows(self, count: int) -> Any:
        async with self.engine.connect() as connection:
            return (await connection.execute(self._rows, {"count": count})).mappings().all()

    async def stream(self, count: int) -> Any:
        async with self.engine.connect() as connection:
            found = await connection.stream(
                self._rows, {"count": count}, execution_options={"yield_per": 1000}
            )
            return await total(found.mappings())

    async def insert(self, rows: Any) -> Any:
        async with self.engine.connect() as connection:
            return (await connection.execute(self._insert, rows)).rowcount

    async def update(self, rows: Any) -> Any:
        async with self.engine.connect() as connection:
            return (await connection.execute(self._update, rows)).rowcount

    async def call(self, id_: int) -> Any:
        async with self.engine.connect() as connection:
            return (await connection.execute(self._call, {"id": id_})).mappings().all()


class SQLAlchemyAioMySQL(SQLAlchemy):
    key, title, driver = "sqlalchemy-aiomysql", "SQLAlchemy (aiomysql)", "aiomysql"
    distributions = ("SQLAlchemy", "aiomysql", "PyMySQL")


class SQLAlchemyAsyncmy(SQLAlchemy):
    key, title, driver = "sqlalchemy-asyncmy", "SQLAlchemy (asyncmy)", "asyncmy"
    distributions = ("SQLAlchemy", "asyncmy")


class Databases(Peer):
    key, title, implementation, distributions = (
        "databases",
        "databases (aiomysql)",
        ASYNCIO,
        ("databases", "SQLAlchemy", "aiomysql", "PyMySQL"),
    )
    per_call = (
        "A connection of aiomysql's pool for each call, text() compiled for each; "
        "execute_many sends row by row"
    )
    pooled = True

    async def open(self) -> Any:
        import databases

        self.database = databases.Database(
            self.server.url.replace("mysql://", "mysql+aiomysql://"),
            min_size=1,
            max_size=10,
            charset="utf8mb4",
        )
        await self.database.connect()
        self._point, self._call = data.named(data.POINT, "id"), data.named(data.CALL, "id")
        self._rows, self._insert = (
            data.named(data.ROWS, "count"),
            data.named(data.INSERT, *data.TRADE[1:]),
        )
        self._update = data.named(data.UPDATE, *data.CHANGE)

    async def close(self) -> Any:
        await self.database.disconnect()

    def form(self, rows: List[Tuple[Any, ...]], columns: Sequence[str]) -> Any:
        return dicts(rows, columns)

    def plain(self, row: Any) -> Any:
        return dict(row._mapping)

    async def point(self, id_: int) -> Any:
        return await self.database.fetch_one(self._point, {"id": id_})

    async def rows(self, count: int) -> Any:
        return await self.database.fetch_all(self._rows, {"count": count})

    async def stream(self, count: int) -> Any:
        return await total(self.database.iterate(self._rows, {"count": count}))

    async def insert(self, rows: Any) -> Any:
        await self.database.execute_many(self._insert, rows)
        return len(rows)

    async def update(self, rows: Any) -> Any:
        await self.database.execute_many(self._update, rows)
        return len(rows)

    async def call(self, id_: int) -> Any:
        return await self.database.fetch_all(self._call, {"id": id_})


class Tortoise(Peer):
    """Through models, as its documentation has it; a procedure by its raw SQL."""

    key, title, implementation, distributions = (
        "tortoise",
        "Tortoise",
        ASYNCIO,
        ("tortoise-orm", "asyncmy", "aiomysql"),
    )
    per_call = (
        "Models, .values() for dicts, bulk_create (which makes an object of each row): a "
        "connection of the driver's pool for each call"
    )
    pooled = True

    async def open(self) -> Any:
        from tortoise import Tortoise as Library
        from tortoise.backends.mysql import client

        from . import models

        self._driver = client.mysql.__name__
        self._library, self._models = Library, models
        credentials = {**self.server._asdict(), "minsize": 1, "maxsize": 10, "charset": "utf8mb4"}
        await Library.init(
            config={
                "connections": {
                    "default": {"engine": "tortoise.backends.mysql", "credentials": credentials}
                },
                "apps": {"models": {"models": [models.__name__], "default_connection": "default"}},
                "use_tz": False,
            }
        )
        self._connection = Library.get_connection("default")

    async def close(self) -> Any:
        await self._library.close_connections()

    def note(self) -> str:
        return f"over {self._driver}, which it takes where both drivers are installed"

    def form(self, rows: List[Tuple[Any, ...]], columns: Sequence[str]) -> Any:
        return dicts(rows, columns)

    async def point(self, id_: int) -> Any:
        return await self._models.Account.get(id=id_).values(*data.ACCOUNT)

    async def rows(self, count: int) -> Any:
        return await self._models.Trade.filter(id__lte=count).values(*data.TRADE)

    async def stream(self, count: int) -> Any:
        raise Unsupported("it has no way to read rows as they come")

    async def insert(self, rows: Any) -> Any:
        await self._models.Inserted.bulk_create([self._models.Inserted(**row) for row in rows])
        return len(rows)

    async def update(self, rows: Any) -> Any:
        raise Unsupported("it has no executemany of a statement")

    async def call(self, id_: int) -> Any:
        return await self._connection.execute_query_dict(data.CALL, [id_])


class DualDB(Peer):
    key, title, implementation = "dualdb-asyncio", "dualdb", ASYNCIO
    distributions = ("dualdb", "aiomysql", "PyMySQL")
    per_call = (
        "Through the service, to the global database: nothing is sent beside the statement, "
        "a look at the stream at check-out"
    )
    pooled = True

    options: ClassVar[Dict[str, Any]] = {}

    async def open(self) -> Any:
        config = threaded.service_config(self.server, **self.options)
        self.service = dualdb.AsyncDatabaseService(config)
        await self.service.init_service()

    async def close(self) -> Any:
        await self.service.close_service()

    async def point(self, id_: int) -> Any:
        return await self.service.query_one(data.POINT, (id_,))

    async def rows(self, count: int) -> Any:
        return await self.service.query(data.ROWS, (count,))

    async def stream(self, count: int) -> Any:
        return await total(self.service.stream(data.ROWS, (count,)))

    async def typed(self, count: int) -> Any:
        return await self.rows(count)

    async def insert(self, rows: Any) -> Any:
        return int(await self.service.executemany(data.INSERT, rows))

    async def update(self, rows: Any) -> Any:
        return int(await self.service.executemany(data.UPDATE, rows))

    async def call(self, id_: int) -> Any:
        return (await self.service.call("find_account", (id_,))).rows


class DualDBSession(DualDB):
    key, title, only = "dualdb-asyncio-session", "dualdb, by session", ("point",)
    per_call = threaded.DualDBSession.per_call

    async def open(self) -> Any:
        await super().open()
        self._session = SimpleNamespace(session=SimpleNamespace(user_id=7, shard_id=1))

    async def point(self, id_: int) -> Any:
        return await self.service.session(self._session).query_one(data.POINT, (id_,))


class DualDBPython(DualDB):
    key, title = "dualdb-asyncio-python", threaded.DualDBPython.title
    only = threaded.DualDBPython.only
    per_call = threaded.DualDBPython.per_call
    options: ClassVar[Dict[str, Any]] = threaded.DualDBPython.options


class DualDBDataclass(DualDB):
    key, title = "dualdb-asyncio-dataclass", threaded.DualDBDataclass.title
    only = threaded.DualDBDataclass.only
    per_call = threaded.DualDBDataclass.per_call
    row_type = threaded.DualDBDataclass.row_type

    async def typed(self, count: int) -> Any:
        return await self.service.query(data.ROWS, (count,), as_=self.row_type)

    def plain(self, row: Any) -> Dict[str, Any]:
        return vars(row) if isinstance(row, self.row_type) else super().plain(row)


class DualDBPydantic(DualDBDataclass):
    key, title = "dualdb-asyncio-pydantic", threaded.DualDBPydantic.title
    per_call = threaded.DualDBPydantic.per_call
    row_type = threaded.DualDBPydantic.row_type


#: What is measured on uvloop.
ON_UVLOOP = ("point", "rows1000", "callers1", "callers10", "callers100")


class AsyncmyPoolUvloop(AsyncmyPool):
    key, title, only = "asyncmy-pool-uvloop", "asyncmy pool, uvloop", ON_UVLOOP
    uvloop = True


class DualDBUvloop(DualDB):
    key, title, only = "dualdb-asyncio-uvloop", "dualdb, uvloop", ON_UVLOOP
    uvloop = True


class PyroMySQL(Peer):
    """One connection: written in Rust, on a thread of its own."""

    key, title, implementation, distributions = (
        "pyro-asyncio",
        "pyro-mysql",
        ASYNCIO,
        ("pyro-mysql",),
    )
    per_call = threaded.PyroMySQL.per_call

    async def open(self) -> Any:
        from pyro_mysql.async_ import Conn

        self.connection = await Conn.new(threaded.pyro_options(self.server))
        await self.connection.query_drop("SET NAMES utf8mb4")

    async def close(self) -> Any:
        await self.connection.close()

    async def point(self, id_: int) -> Any:
        return await self.connection.exec_first(threaded.PYRO_POINT, (id_,), as_dict=True)

    async def rows(self, count: int) -> Any:
        return await self.connection.exec(threaded.PYRO_ROWS, (count,), as_dict=True)

    async def stream(self, count: int) -> Any:
        raise Unsupported(threaded.PyroMySQL.no_streams)

    async def insert(self, rows: Any) -> Any:
        await self.connection.exec_batch(threaded.PYRO_INSERT, rows)
        return len(rows)

    async def update(self, rows: Any) -> Any:
        await self.connection.exec_batch(threaded.PYRO_UPDATE, rows)
        return len(rows)

    async def call(self, id_: int) -> Any:
        return await self.connection.exec(threaded.PYRO_CALL, (id_,), as_dict=True)


PEERS: List[Type[Peer]] = [
    Floor,
    AioMySQL,
    AioMySQLPool,
    AsyncmyPool,
    AsyncmyPoolUvloop,
    PyroMySQL,
    SQLAlchemyAioMySQL,
    SQLAlchemyAsyncmy,
    Databases,
    Tortoise,
    DualDB,
    DualDBUvloop,
    DualDBPython,
    DualDBSession,
    DualDBDataclass,
    DualDBPydantic,
]
