"""The original service's surface: every name, argument and result, and its own snippets
as they stand.
"""

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any, Callable, List

import pytest
from apis import session
from database_servers import Databases
from io_kinds import IO

import dualdb
from dualdb import DatabaseConfig, ServiceNotOpen
from dualdb.async_impl import DatabaseService

SURFACE = {
    "init_service": [],
    "close_service": ["timeout"],
    "load_shard_configs": [],
    "init_shard_connections": [],
    "get_global_client": [],
    "get_shard_client": ["shard_id"],
    "get_client_by_session": ["client_session"],
    "call_global_procedure": ["procedure_name", "params"],
    "execute_global_query": ["query", "params"],
    "call_global_procedure_update": ["query", "params"],
    "call_global_read_query": ["query", "params"],
    "call_shard_procedure": ["shard_id", "procedure_name", "params"],
    "execute_shard_query": ["shard_id", "query", "params"],
    "call_shard_procedure_update": ["shard_id", "query", "params"],
    "call_shard_read_query": ["shard_id", "query", "params"],
    "execute_shard_procedure": ["shard_id", "procedure_name", "params"],
    "call_procedure_by_session": ["client_session", "procedure_name", "params"],
    "execute_query_by_session": ["client_session", "query", "params"],
    "call_stored_procedure": ["procedure_name", "params"],
    "call_procedure": ["procedure_name", "params"],
    "execute_query": ["query", "params"],
    "execute_non_query": ["query", "params"],
    "get_last_insert_id": [],
    "get_active_shard_ids": [],
    "get_transaction": [],
    "health_check": [],
}
CLIENT_SURFACE = {
    "init_pool": [],
    "close_pool": ["timeout"],
    "execute_stored_procedure": ["procedure_name", "params"],
    "execute_query": ["query", "params"],
    "execute_non_query": ["query", "params"],
    "get_last_insert_id": [],
    "get_connection": [],
}


@pytest.mark.parametrize(("name", "arguments"), SURFACE.items())
def test_the_service_has_every_name_and_argument(io: IO, name: str, arguments: List[str]) -> None:
    parameters = inspect.signature(getattr(io.Service, name)).parameters
    assert list(parameters) == ["self", *arguments]
    if "params" in arguments:
        assert parameters["params"].default == ()


@pytest.mark.parametrize(("name", "arguments"), CLIENT_SURFACE.items())
def test_the_client_has_every_name_and_argument(io: IO, name: str, arguments: List[str]) -> None:
    for cls in (io.Client, io.Transaction):
        if cls is io.Client or hasattr(cls, name):
            assert list(inspect.signature(getattr(cls, name)).parameters) == ["self", *arguments]


SELECT = "SELECT %s AS a"
CALLS: List[Any] = [
    (lambda db: db.call_global_procedure("find_account", ("x",)), []),
    (lambda db: db.execute_global_query(SELECT, (1,)), [{"a": 1}]),
    (
        lambda db: db.call_global_procedure_update(
            "INSERT INTO accounts (email) VALUES (%s)", ("x",)
        ),
        1,
    ),
    (lambda db: db.call_global_read_query(SELECT, (1,)), [{"a": 1}]),
    (lambda db: db.call_shard_procedure(1, "portfolio", (1,)), [{"ErrorCode": 0, "trades": 0}]),
    (lambda db: db.execute_shard_query(1, SELECT, (1,)), [{"a": 1}]),
    (lambda db: db.call_shard_procedure_update(1, "UPDATE trades SET qty = %s", (1,)), 0),
    (lambda db: db.call_shard_read_query(1, SELECT, (1,)), [{"a": 1}]),
    (lambda db: db.execute_shard_procedure(1, "portfolio", (1,)), [{"ErrorCode": 0, "trades": 0}]),
    (
        lambda db: db.call_procedure_by_session(session(2), "portfolio", (1,)),
        [{"ErrorCode": 0, "trades": 0}],
    ),
    (lambda db: db.execute_query_by_session(session(2), SELECT, (1,)), [{"a": 1}]),
    (lambda db: db.call_stored_procedure("find_account", ("x",)), []),
    (lambda db: db.call_procedure("find_account", ("x",)), []),
    (lambda db: db.execute_query(SELECT, (1,)), [{"a": 1}]),
    (lambda db: db.execute_query("SELECT 1 AS a"), [{"a": 1}]),
    (lambda db: db.execute_non_query("UPDATE accounts SET email = email"), 0),
    (lambda db: db.get_last_insert_id(), 0),
    (lambda db: db.get_active_shard_ids(), [1, 2]),
    (lambda db: db.get_shard_client(1).execute_query(SELECT, (1,)), [{"a": 1}]),
    (lambda db: db.get_global_client().execute_stored_procedure("find_account", ("x",)), []),
    (
        lambda db: db.get_client_by_session(session(1)).execute_non_query(
            "UPDATE trades SET qty = 1"
        ),
        0,
    ),
]


@pytest.mark.parametrize(("ask", "expected"), CALLS)
def test_what_each_method_gives(
    db: Any, call: IO, ask: Callable[[Any], Any], expected: Any
) -> None:
    found = call(ask(db))
    assert found == expected
    if isinstance(expected, list):
        assert type(found) is list
    else:
        assert isinstance(found, int)


def test_the_attributes(db: Any, io: IO, databases: Databases) -> None:
    assert db.global_config == databases.config
    assert db.global_client is db.get_global_client()
    assert sorted(db.shard_clients) == sorted(db.shard_configs) == [1, 2]
    assert isinstance(db.shard_configs[1], DatabaseConfig)
    assert isinstance(db.shard_clients[1], io.Client)
    assert db.shard_clients[1] is db.get_shard_client(1) is db.get_client_by_session(session(1))
    assert db.get_shard_client(99) is None
    assert db.get_client_by_session(None) is db.global_client


def test_before_init_and_after_close(databases: Databases, io: IO) -> None:
    db = io.Service(databases.config)
    for _ in range(2):
        assert (db.global_client, db.shard_clients, db.shard_configs) == (None, {}, {})
        with pytest.raises(RuntimeError, match="Global database not initialized"):
            db.get_global_client()
        with pytest.raises(ServiceNotOpen, match="init_service"):
            io(db.execute_query("SELECT 1"))
        io(db.init_service())
        assert io(db.execute_query("SELECT 1 AS a")) == [{"a": 1}]
        io(db.close_service())
    io(db.close_service())


def test_the_last_insert_id_is_this_caller_s_own(db: Any, io: IO) -> None:
    insert = "INSERT INTO accounts (email) VALUES (%s)"
    assert io(db.get_last_insert_id()) == 0
    io(db.execute_non_query(insert, ("mine",)))
    assert io(db.get_last_insert_id()) == 1
    io.concurrently(
        [lambda name=name: db.execute_non_query(insert, (f"theirs {name}",)) for name in range(20)]
    )
    assert io(db.get_last_insert_id()) == 1
    assert io.in_other_caller(db.get_last_insert_id) == 0
    two = "INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1), (1, 'A', 1)"
    before = io(db.shard(2).execute(two)).lastrowid
    io(db.shard(2).execute("UPDATE trades SET qty = 2"))
    assert io(db.get_last_insert_id()) == 1
    io(
        db.call_shard_procedure_update(
            2, "INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1)"
        )
    )
    last = io(db.get_last_insert_id())
    assert last > before
    assert io(db.get_shard_client(2).get_last_insert_id()) == last
    assert io(db.get_global_client().get_last_insert_id()) == 1
    assert io(db.get_shard_client(1).get_last_insert_id()) == 0


def test_the_client_stands_alone(databases: Databases, io: IO) -> None:
    client = io.Client(databases.config_of(1))
    io(client.init_pool())
    io(client.init_pool())
    assert (
        io(
            client.execute_non_query(
                "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, %s, %s)", (7, "A", 2)
            )
        )
        == 1
    )
    assert io(client.get_last_insert_id()) == 1
    assert io(client.execute_query("SELECT user_id, qty FROM trades")) == [{"user_id": 7, "qty": 2}]
    assert io(client.execute_stored_procedure("portfolio", (7,)))[0] == {
        "ErrorCode": 0,
        "trades": 1,
    }
    assert client.config.address in repr(client)
    assert databases.config.reveal_password() not in repr(client)
    io(client.close_pool())
    with pytest.raises(ServiceNotOpen):
        io(client.execute_query("SELECT 1"))
    io(client.init_pool())
    assert io(client.execute_query("SELECT 1 AS a")) == [{"a": 1}]
    io(client.close_pool())


def test_the_client_connects_when_it_is_first_used(databases: Databases, io: IO) -> None:
    client = io.Client(databases.config_of(1))
    assert io(client.execute_query("SELECT 1 AS a")) == [{"a": 1}]
    io(client.close_pool())


def test_a_borrowed_connection_is_the_driver_s_and_comes_back(databases: Databases, io: IO) -> None:
    client = io.Client(databases.config_of(1, pool_size=1, max_overflow=0, pool_timeout=2))
    for borrow in (client.get_connection, client.connection):
        with io.entered(borrow()) as raw:

            def misuse(cursor: Any) -> Any:
                yield cursor.execute("SET @mine = 1, autocommit = 0")

            io(io.block(raw.cursor, misuse)())
        assert io(client.execute_query("SELECT @mine AS m, @@autocommit AS a")) == [
            {"m": None, "a": 1}
        ]
    io(client.close_pool())


def test_a_borrowed_connection_without_a_block(databases: Databases, io: IO) -> None:
    client = io.Client(databases.config_of(1, pool_size=1, max_overflow=0, pool_timeout=2))
    for _ in range(2):
        raw = io.awaited(client.get_connection())
        assert raw.get_autocommit() is True
        raw.close()
        raw.close()
        with pytest.raises(dualdb.InterfaceError):
            raw.get_autocommit()
    io(client.close_pool())


def test_health_check(db: Any, io: IO, databases: Databases) -> None:
    assert io(db.health_check()) == {
        "healthy": True,
        "global": {"healthy": True, "status": "active"},
        "shards": {
            1: {"healthy": True, "status": "active"},
            2: {"healthy": True, "status": "active"},
        },
    }
    databases.set_row(2, status="maintenance")
    databases.set_row(3, status="inactive")
    io(db.load_shard_configs())
    io(db.init_shard_connections())
    report = io(db.health_check())
    assert report["healthy"] is True
    assert report["shards"][2] == {"healthy": False, "status": "maintenance"}
    assert report["shards"][3] == {"healthy": False, "status": "inactive"}


def test_active_shard_ids_are_the_table_s_of_this_moment(
    db: Any, io: IO, databases: Databases
) -> None:
    databases.set_row(2, status="inactive")
    databases.set_row(7)
    assert io(db.get_active_shard_ids()) == [1, 7]
    databases.run("global", "DROP TABLE table_shard_config")
    assert io(db.get_active_shard_ids()) == [1, 2], "the last that was known"


def test_the_original_s_snippets_run_as_they_stand(databases: Databases) -> None:
    """The documentation's own lines, with the import changed. The original is
    asyncio.
    """
    user_id = 7

    async def snippets() -> None:
        given = databases.config
        config = DatabaseConfig(
            type="mysql",
            host=given.host,
            port=given.port,
            database=given.database,
            user=given.user,
            password=given.reveal_password(),
        )
        db_service = DatabaseService(config)
        await db_service.init_service()
        assert await db_service.execute_global_query("SELECT * FROM accounts") == []
        result = await db_service.call_shard_procedure(
            shard_id=1, procedure_name="portfolio", params=(user_id,)
        )
        assert result == [{"ErrorCode": 0, "trades": 0}]
        trades = await db_service.execute_shard_query(
            shard_id=1,
            query="SELECT * FROM trades WHERE user_id = %s ORDER BY id DESC",
            params=(user_id,),
        )
        assert trades == []
        client_session = SimpleNamespace(session=SimpleNamespace(shard_id=2))
        assert await db_service.call_procedure_by_session(
            client_session, "portfolio", (user_id,)
        ) == [{"ErrorCode": 0, "trades": 0}]
        assert (
            await db_service.execute_query_by_session(
                client_session, "SELECT * FROM trades WHERE id = %s", (user_id,)
            )
            == []
        )
        assert await db_service.get_active_shard_ids() == [1, 2]
        shard_client = db_service.get_shard_client(shard_id=1)
        assert shard_client
        async with await db_service.get_transaction() as transaction:
            await transaction.execute("INSERT INTO accounts (email) VALUES ('x')")
        async with db_service.get_transaction() as transaction:
            assert await transaction.query_value("SELECT COUNT(*) FROM accounts") == 1
        await db_service.close_service()

    asyncio.run(snippets())


@pytest.mark.parametrize("first", [True, False])
def test_a_subclass_of_the_client_may_assign_its_config(
    databases: Databases, io: IO, *, first: bool
) -> None:
    class Traced(io.Client):  # type: ignore[misc, name-defined]
        """As code for the original client has it."""

        def __init__(self, config: DatabaseConfig) -> None:
            if first:
                self.config = config
            super().__init__(config)
            self.config = config.with_sizes(2, 0)

    client = Traced(databases.config_of(1))
    try:
        assert io(client.query_value("SELECT 1")) == 1
        assert client.stats().limit == client.config.pool_size == 2
    finally:
        io(client.close_pool())
