"""SQLAlchemy's engines and sessions over the service's pools."""

import asyncio
import contextlib
from typing import Any, Awaitable, Callable, Iterator, List, Tuple

import pytest
import sqlalchemy as sa
from database_servers import Databases
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from waiting import statements_running, wait_for

import dualdb
from dualdb import AsyncDatabaseService, DatabaseService

pytestmark = pytest.mark.slow


class Base(DeclarativeBase):
    pass


class Trade(Base):
    __tablename__ = "trades"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    symbol: Mapped[str]
    qty: Mapped[int]


@pytest.fixture
def db(databases: Databases) -> Iterator[DatabaseService]:
    with DatabaseService(databases.config.model_copy(update={"pool_size": 2})) as service:
        yield service


def in_asyncio(databases: Databases, body: Callable[[AsyncDatabaseService], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with AsyncDatabaseService(databases.config) as adb:
            return await body(adb)

    return asyncio.run(main())


def rows(databases: Databases, shard_id: int) -> List[Tuple[Any, ...]]:
    found = databases.run(shard_id, "SELECT user_id, symbol FROM trades ORDER BY id")
    return [tuple(row.values()) for row in found]


def test_an_engine_is_on_its_database_and_uses_its_pool(db: Any, databases: Any) -> None:
    for shard_id in (1, 2, None):
        engine = db.sqlalchemy.engine(shard_id)
        assert engine is db.sqlalchemy.engine(shard_id)
        name = "global" if shard_id is None else shard_id
        for _ in range(5):
            with engine.connect() as connection:
                found = connection.execute(sa.text("SELECT DATABASE()")).scalar()
                assert found == databases.config_of(name).database
                assert db.stats()[name].in_use == 1
        assert db.stats()[name].opened == 1
        assert db.stats()[name].in_use == 0


def test_a_block_is_a_transaction(db: Any, databases: Any) -> None:
    engine = db.sqlalchemy.engine(1)
    insert = sa.text("INSERT INTO trades (user_id, symbol, qty) VALUES (:u, 'A', 1)")
    with engine.begin() as connection:
        connection.execute(insert, [{"u": 1}, {"u": 2}])
    with contextlib.suppress(ZeroDivisionError), engine.begin() as connection:
        connection.execute(insert, {"u": 3})
        raise ZeroDivisionError
    with engine.connect() as connection:
        connection.execute(insert, {"u": 4})
    alone = db.sqlalchemy.engine(1, isolation_level="AUTOCOMMIT")
    with alone.connect() as connection:
        connection.execute(insert, {"u": 5})
    assert rows(databases, 1) == [(1, "A"), (2, "A"), (5, "A")]


def test_the_session_is_given_back_as_it_was(db: Any) -> None:
    with db.sqlalchemy.engine(1).begin() as connection:
        connection.execute(sa.text("SET @a = 1, sql_mode = 'ANSI'"))
    assert db.shard(1).query_one("SELECT @a AS a, @@sql_mode LIKE '%ANSI%' AS b") == {
        "a": None,
        "b": 0,
    }
    assert db.stats()[1].opened == 1


def test_rows_that_stay_as_they_were_are_counted(db: Any, databases: Any) -> None:
    databases.run(1, "INSERT INTO trades VALUES (1, 1, 'A', 1), (2, 1, 'A', 1), (3, 1, 'B', 1)")
    with db.sqlalchemy.engine(1).begin() as connection:
        found = connection.execute(sa.text("UPDATE trades SET qty = 1 WHERE symbol = 'A'"))
        assert found.rowcount == 2
        many = connection.execute(
            sa.text("UPDATE trades SET qty = 1 WHERE id = :key"),
            [{"key": 1}, {"key": 2}],
        )
        assert many.rowcount == 2
    assert db.shard(1).execute("UPDATE trades SET qty = 1") == 0


def test_a_session_is_on_the_shard_of_its_scope(db: Any, databases: Any) -> None:
    sessions = db.sqlalchemy.sharded_sessionmaker()
    for shard_id in (1, 2):
        with db.scope(shard_id=shard_id), sessions.begin() as session:
            session.add(Trade(id=7, user_id=shard_id, symbol="ORM", qty=1))
    with sessions(shard_id=1) as one, sessions(shard_id=2) as two:
        assert one.get(Trade, 7).user_id == 1
        assert two.get(Trade, 7).user_id == 2
        assert one.get(Trade, 7) is not two.get(Trade, 7)
        one.get(Trade, 7).qty = 1
        one.commit()
    with pytest.raises(dualdb.InterfaceError, match="this session has no shard"):
        sessions()
    with sessions(shard_id=None) as session:
        assert session.scalar(sa.text("SELECT DATABASE()")) == databases.config.database


def test_limits_and_states_of_the_pool_hold(databases: Any) -> None:
    limits = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.2}
    with DatabaseService(databases.config.model_copy(update=limits)) as db:
        engine = db.sqlalchemy.engine(2)
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
            with pytest.raises(sa.exc.OperationalError) as busy:
                engine.connect()
            assert isinstance(busy.value.orig, dualdb.PoolTimeout)
            with pytest.raises(dualdb.PoolTimeout):
                db.shard(2).query("SELECT 1")
        databases.set_row(2, status="maintenance")
        db.refresh()
        with pytest.raises(sa.exc.OperationalError) as suspended:
            engine.connect()
        assert isinstance(suspended.value.orig, dualdb.ShardUnavailable)
        databases.set_row(2, status="active")
        db.refresh()
        with engine.connect() as connection:
            assert connection.execute(sa.text("SELECT 1")).scalar() == 1


def test_a_lost_connection_is_replaced(db: Any, databases: Any) -> None:
    engine = db.sqlalchemy.engine(1)
    with engine.connect() as connection:
        number = connection.execute(sa.text("SELECT CONNECTION_ID()")).scalar()
        databases.run(1, f"KILL {number}")
        with pytest.raises(sa.exc.OperationalError):
            connection.execute(sa.text("SELECT 1"))
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT 1")).scalar() == 1
    assert db.stats()[1].in_use == 0


def test_asyncio(databases: Any) -> None:
    async def body(adb: AsyncDatabaseService) -> None:
        engine = adb.sqlalchemy.engine(1)
        insert = sa.text("INSERT INTO trades (user_id, symbol, qty) VALUES (:u, 'A', 1)")
        async with engine.begin() as connection:
            await connection.execute(insert, [{"u": 1}, {"u": 2}])
        with contextlib.suppress(ZeroDivisionError):
            async with engine.begin() as connection:
                await connection.execute(insert, {"u": 3})
                raise ZeroDivisionError
        async with engine.begin() as connection:
            found = await connection.execute(sa.text("UPDATE trades SET qty = 1"))
            assert found.rowcount == 2
        async with engine.connect() as connection:
            streamed = await connection.stream(sa.text("SELECT user_id FROM trades"))
            assert [row[0] async for row in streamed] == [1, 2]
        sessions = adb.sqlalchemy.sharded_sessionmaker()
        async with adb.scope(shard_id=2), sessions.begin() as session:
            session.add(Trade(user_id=9, symbol="ORM", qty=1))
        async with sessions(shard_id=2) as session:
            assert (await session.scalars(sa.select(Trade.user_id))).all() == [9]
        assert adb.stats()[1].opened == 1
        assert all(each.in_use == 0 for each in adb.stats().values())

    in_asyncio(databases, body)
    assert rows(databases, 1) == [(1, "A"), (2, "A")]


def test_a_cancelled_query_is_killed(databases: Any) -> None:
    async def body(adb: AsyncDatabaseService) -> None:
        async def hang() -> None:
            async with adb.sqlalchemy.engine(1).connect() as connection:
                await connection.execute(sa.text("SELECT SLEEP(50) /* alchemy */"))

        task = asyncio.ensure_future(hang())
        await asyncio.to_thread(
            wait_for, lambda: statements_running(databases, 1, "SLEEP(50) /* alchemy")
        )
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(
            wait_for, lambda: statements_running(databases, 1, "SLEEP(50) /* alchemy") == 0
        )
        assert await adb.shard(1).query_value("SELECT 1") == 1

    in_asyncio(databases, body)
