"""The directory: lookup tables, hash buckets and functions, new keys, aliases."""

import asyncio
import threading
import uuid
from collections import Counter
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

import pytest
from database_servers import Databases
from io_kinds import IO

import dualdb
from dualdb import (
    AsyncDatabaseService,
    Candidate,
    DatabaseService,
    HashBuckets,
    IntegrityError,
    InterfaceError,
    KeyFunction,
    KeyNotFound,
    LookupTable,
    ParameterError,
    ProgrammingError,
    RoutingError,
    ScatterError,
    ShardUnavailable,
    StaleMap,
)

TABLE = "table_user_shard_mapping"
INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, %s, 1)"
SELECT = "SELECT user_id, symbol FROM trades WHERE user_id IN %(keys)s"
#: As an application made it long ago.
ORIGINAL = f"""CREATE TABLE {TABLE} (
    account_db_key BIGINT NOT NULL, shard_id INT NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, UNIQUE KEY (account_db_key))"""


@pytest.fixture
def mapping(databases: Databases) -> Iterator[Any]:
    """The original service's table: users 1 and 3 on shard 1, user 2 on shard 2."""
    drop = [f"DROP TABLE IF EXISTS {name}" for name in (TABLE, "dualdb_key_alias", "dualdb_bucket")]
    databases.run("global", *drop, ORIGINAL)
    insert(databases, {1: 1, 2: 2, 3: 1})
    yield databases
    databases.run("global", *drop)


def insert(databases: Databases, rows: Dict[int, int]) -> None:
    values = ", ".join([f"({key}, {shard_id})" for key, shard_id in rows.items()])
    databases.run("global", f"INSERT INTO {TABLE} (account_db_key, shard_id) VALUES {values}")


@pytest.fixture
def keyed(mapping: Any, open_service: Callable[..., Any]) -> Any:
    return open_service(directory=LookupTable())


class Lookups:
    """Counts the statements that the global server was sent about the table."""

    def __init__(self, databases: Databases, table: str = TABLE) -> None:
        self.databases, self.table = databases, table

    def __enter__(self) -> "Lookups":
        self.databases.run(
            "global",
            "SET GLOBAL log_output = 'TABLE'",
            "TRUNCATE mysql.general_log",
            "SET GLOBAL general_log = ON",
        )
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.databases.run(
            "global", "SET GLOBAL general_log = OFF", "SET GLOBAL log_output = 'FILE'"
        )

    @property
    def count(self) -> int:
        rows = self.databases.run(
            "global",
            "SELECT COUNT(*) AS n FROM mysql.general_log WHERE command_type = 'Query' AND "
            f"argument LIKE '%FROM `{self.table}`%' AND argument NOT LIKE '%general_log%'",
        )
        return int(rows[0]["n"])


def test_the_original_table_is_read_as_it_is(keyed: Any, io: IO, mapping: Any) -> None:
    for user_id in (1, 2, 3):
        io(keyed.key(user_id).execute(INSERT, (user_id, "A")))
    counts = [mapping.value(shard_id, "SELECT COUNT(*) FROM trades") for shard_id in (1, 2)]
    assert counts == [2, 1]
    assert io(keyed.shard_id_of(2)) == 2
    assert [io(keyed.directory.get(key)) for key in (1, 2, 3, 4)] == [1, 2, 1, None]
    with io.entered(keyed.key(2).transaction()) as tx:
        assert tx.shard_id == 2


def test_a_key_without_a_shard_goes_nowhere(keyed: Any, io: IO) -> None:
    asks: List[Callable[[], Any]] = [
        lambda: keyed.key(99).query("SELECT 1"),
        lambda: keyed.key(99).execute(INSERT, (99, "A")),
        lambda: keyed.shard_id_of(99),
        lambda: keyed.keys([1, 99]).query(SELECT),
    ]
    for ask in asks:
        with pytest.raises(KeyNotFound, match="the key 99 has no shard") as caught:
            io(ask())
        assert caught.value.sent is False


def test_a_key_on_a_shard_that_does_not_exist_is_unavailable(
    keyed: Any, io: IO, mapping: Any
) -> None:
    insert(mapping, {5: 9})
    with pytest.raises(ShardUnavailable, match="Shard 9 not available"):
        io(keyed.key(5).query("SELECT 1"))
    with pytest.raises(ScatterError, match="1 of 2 shards failed: shard 9"):
        io(keyed.keys([1, 5]).query(SELECT))


def test_names_of_table_and_columns_are_configured(
    mapping: Any, io: IO, open_service: Callable[..., Any]
) -> None:
    mapping.run(
        "global",
        "DROP TABLE IF EXISTS tenants",
        "CREATE TABLE tenants (name VARCHAR(20) PRIMARY KEY, home INT)",
        "INSERT INTO tenants VALUES ('ann', 2), ('bob', NULL)",
    )
    source = LookupTable("tenants", key_column="name", shard_column="home")
    db = open_service(directory=source)
    try:
        assert io(db.directory.get("ann")) == 2
        assert io(db.directory.get("bob")) is None, "NULL is no shard"
        assert io(db.directory.assign("bob")) in (1, 2)
        assert io(db.directory.assign("eve")) in (1, 2)
        rows = mapping.run("global", "SELECT COUNT(*) AS n FROM tenants WHERE home IN (1, 2)")
        assert rows == [{"n": 3}]
    finally:
        mapping.run("global", "DROP TABLE tenants")


def test_many_keys_are_one_query_and_then_none(keyed: Any, io: IO, mapping: Any) -> None:
    insert(mapping, {key: 1 + key % 2 for key in range(100, 1100)})
    io(keyed.directory.get(1))  # learns the type of the column
    keys = list(range(100, 1100))
    with Lookups(mapping) as lookups:
        assert io(keyed.keys(keys).query(SELECT)).by_shard == {1: [], 2: []}
        assert lookups.count == 1
        io(keyed.keys(keys).query(SELECT))
        io(keyed.key(500).query("SELECT 1"))
        assert lookups.count == 1


def test_absent_keys_are_cached_too_until_they_are_assigned(
    keyed: Any, io: IO, mapping: Any
) -> None:
    io(keyed.directory.get(1))
    with Lookups(mapping) as lookups:
        for _ in range(5):
            assert io(keyed.directory.get(50)) is None
        assert lookups.count == 1
    shard_id = io(keyed.directory.assign(50))
    assert io(keyed.directory.get(50)) == shard_id
    io(keyed.key(50).query("SELECT 1"))


@pytest.mark.parametrize("ttl", [0.0, 60.0])
def test_a_change_elsewhere_is_seen_when_the_cache_is_over(
    mapping: Any, io: IO, open_service: Callable[..., Any], ttl: float
) -> None:
    db = open_service(directory=LookupTable(ttl=ttl))
    assert io(db.directory.get(1)) == 1
    mapping.run("global", f"UPDATE {TABLE} SET shard_id = 2 WHERE account_db_key = 1")
    assert io(db.directory.get(1)) == (1 if ttl else 2)
    db.directory.clear_cache()
    assert io(db.directory.get(1)) == 2


@pytest.mark.slow
def test_many_callers_assign_the_same_keys_once(keyed: Any, io: IO, mapping: Any) -> None:
    keys = list(range(1000, 1010))

    def assign(key: int) -> Callable[[], Any]:
        return lambda: keyed.directory.assign(key)

    calls = [assign(keys[n % len(keys)]) for n in range(50)]
    answers = io.concurrently(calls)
    assert all(isinstance(answer, int) for answer in answers), answers
    rows = mapping.run(
        "global",
        f"SELECT account_db_key AS k, shard_id AS s FROM {TABLE} WHERE account_db_key >= 1000",
    )
    assert len(rows) == len(keys)
    stored = {row["k"]: row["s"] for row in rows}
    assert [stored[keys[n % len(keys)]] for n in range(50)] == answers


@pytest.mark.slow
def test_threads_and_tasks_assign_the_same_keys_once(mapping: Any) -> None:
    keys = list(range(2000, 2005))
    answers: Dict[int, List[int]] = {key: [] for key in keys}
    directory = LookupTable(placement="round_robin")
    start = threading.Barrier(51)

    async def tasks() -> None:
        async with AsyncDatabaseService(mapping.config, directory=directory) as db:
            await asyncio.get_running_loop().run_in_executor(None, start.wait, 30)

            async def one(n: int) -> None:
                for key in keys[n % 5 :] + keys[: n % 5]:
                    answers[key].append(await db.directory.assign(key))

            await asyncio.gather(*[one(n) for n in range(50)])

    with DatabaseService(mapping.config, directory=directory) as db:

        def one(n: int) -> None:
            start.wait(30)
            for key in keys[n % 5 :] + keys[: n % 5]:
                answers[key].append(db.directory.assign(key))

        threads = [threading.Thread(target=one, args=(n,)) for n in range(50)]
        threads.append(threading.Thread(target=lambda: asyncio.run(tasks())))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    rows = mapping.run("global", f"SELECT * FROM {TABLE} WHERE account_db_key >= 2000")
    assert sorted(row["account_db_key"] for row in rows) == keys
    for row in rows:
        assert answers[row["account_db_key"]] == [row["shard_id"]] * 100


def test_a_key_that_has_a_shard_keeps_it(keyed: Any, io: IO) -> None:
    assert [io(keyed.directory.assign(key)) for key in (1, 2, 3)] == [1, 2, 1]


def test_assigning_needs_a_unique_index(
    mapping: Any, io: IO, open_service: Callable[..., Any]
) -> None:
    mapping.run("global", f"ALTER TABLE {TABLE} DROP INDEX account_db_key")
    db = open_service(directory=LookupTable())
    assert io(db.directory.get(2)) == 2
    asks: List[Callable[[], Any]] = [
        lambda: db.directory.assign(50),
        lambda: db.directory.set(50, 1),
    ]
    for ask in asks:
        with pytest.raises(ProgrammingError, match="no unique index on account_db_key"):
            io(ask())
    assert mapping.value("global", f"SELECT COUNT(*) FROM {TABLE}") == 3
    mapping.run("global", f"INSERT INTO {TABLE} (account_db_key, shard_id) VALUES (2, 1)")
    db.directory.clear_cache()
    with pytest.raises(RoutingError, match="rows for shards"):
        io(db.key(2).query("SELECT 1"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "extra"),
    [
        ("maintenance", {}),
        ("readonly", {}),
        ("inactive", {}),
        ("active", {"accepts_new": "0"}),
        ("active", {"weight": "0"}),
        ("active", {"port": "1"}),
    ],
)
@pytest.mark.parametrize("placement", ["least_loaded", "weighted", "round_robin"])
def test_no_key_is_placed_where_none_are_taken(
    mapping: Any,
    io: IO,
    open_service: Callable[..., Any],
    status: str,
    extra: Dict[str, str],
    placement: Any,
) -> None:
    for column in extra.keys() - {"port"}:
        mapping.run("global", f"ALTER TABLE table_shard_config ADD {column} FLOAT DEFAULT 1")
    mapping.set_row(1, status=status, **extra)
    db = open_service(directory=LookupTable(placement=placement))
    assert {io(db.directory.assign(key)) for key in range(100, 106)} == {2}
    mapping.set_row(2, status="inactive")
    io(db.refresh())
    with pytest.raises(ShardUnavailable, match="no shard takes new keys"):
        io(db.directory.assign(200))


def test_new_keys_go_where_there_is_room(
    mapping: Any, io: IO, open_service: Callable[..., Any]
) -> None:
    mapping.run("global", "ALTER TABLE table_shard_config ADD weight DECIMAL(5,2)")
    mapping.set_row(1, weight="3")
    mapping.set_row(2, weight="1")
    even = open_service(directory=LookupTable(placement="round_robin"))
    weighted = open_service(directory=LookupTable(placement="weighted"))
    least = open_service(directory=LookupTable(placement="least_loaded"))
    first = Counter([io(even.directory.assign(key)) for key in range(100, 120)])
    assert abs(first[1] - first[2]) <= 1
    second = Counter([io(weighted.directory.assign(key)) for key in range(200, 220)])
    assert 14 <= second[1] <= 16
    for key in range(300, 340):
        io(least.directory.assign(key))
    total = Counter(
        {
            row["s"]: row["n"]
            for row in mapping.run(
                "global", f"SELECT shard_id AS s, COUNT(*) AS n FROM {TABLE} GROUP BY 1"
            )
        }
    )
    assert abs(total[1] - 3 * total[2]) <= 3, total


def test_a_function_places_keys(mapping: Any, io: IO, open_service: Callable[..., Any]) -> None:
    asked: List[Any] = []

    def last(key: Any, candidates: Sequence[Candidate]) -> Any:
        asked.append((key, [each.shard_id for each in candidates]))
        return candidates[-1].shard_id if key < 200 else 7

    db = open_service(directory=LookupTable(placement=last))
    assert io(db.directory.assign(100)) == 2
    assert asked == [(100, [1, 2])]
    with pytest.raises(ParameterError, match="not one of the candidates"):
        io(db.directory.assign(200))
    assert io(db.directory.get(200)) is None


def test_set_moves_a_key_and_forget_removes_it(keyed: Any, io: IO, mapping: Any) -> None:
    io(keyed.directory.set(1, 2))
    io(keyed.directory.set(60, 1))
    assert [io(keyed.directory.get(key)) for key in (1, 60)] == [2, 1]
    assert io(keyed.key(1).query_value("SELECT DATABASE()")).endswith("2")
    for shard_id, says in [(9, "not in the shard table"), ("1", "shard_id must be an int")]:
        with pytest.raises(ParameterError, match=says):
            io(keyed.directory.set(1, shard_id))
    io(keyed.directory.forget(1))
    io(keyed.directory.forget(12345))
    assert io(keyed.directory.get(1)) is None
    assert mapping.value("global", f"SELECT COUNT(*) FROM {TABLE}") == 3


def test_an_alias_leads_to_the_key(keyed: Any, io: IO, mapping: Any) -> None:
    with pytest.raises(ProgrammingError, match="dualdb_key_alias"):
        io(keyed.directory.alias("email", "ann@example.com"))
    io(keyed.directory.create_tables())
    io(keyed.directory.set_alias("email", "ann@example.com", 1))
    io(keyed.directory.set_alias("email", "Ann@Example.com", 1))
    io(keyed.directory.set_alias("phone", "123", 1))
    assert io(keyed.directory.alias("email", "ANN@example.com")) == 1
    assert io(keyed.directory.alias("email", "bob@example.com")) is None
    with pytest.raises(IntegrityError, match="belongs to another key"):
        io(keyed.directory.set_alias("email", "ann@example.com", 2))
    io(keyed.directory.set(1, 2))
    key = io(keyed.directory.alias("email", "ann@example.com"))
    assert io(keyed.shard_id_of(key)) == 2, "it follows a key that moves"
    io(keyed.directory.remove_alias("phone", "123"))
    assert io(keyed.directory.alias("phone", "123")) is None
    io(keyed.directory.forget(1))
    assert io(keyed.directory.alias("email", "ann@example.com")) is None
    for kind, value in [("", "x"), ("email", ""), ("email", None), ("k" * 33, "x")]:
        with pytest.raises(ParameterError, match="must be a str"):
            io(keyed.directory.alias(kind, value))


WRONG_KEYS: Dict[str, List[Any]] = {
    "BIGINT": ["7", "7abc", b"7", 7.5, 1.0, True, None, 2**63, uuid.uuid4()],
    "INT UNSIGNED": [-1, 2**32],
    "VARCHAR(5)": [b"7", 1.5, True, None, "sixsix", 123456],
    "VARBINARY(3)": ["7", 7, True, b"four"],
}


@pytest.mark.parametrize("column", WRONG_KEYS)
def test_a_key_of_another_type_is_never_compared(
    mapping: Any, io: IO, open_service: Callable[..., Any], column: str
) -> None:
    """A server would: ``BIGINT = '7abc'`` is true of 7."""
    mapping.run(
        "global",
        f"TRUNCATE {TABLE}",
        f"ALTER TABLE {TABLE} MODIFY account_db_key {column} NOT NULL",
    )
    insert(mapping, {7: 1})
    db = open_service(directory=LookupTable())
    for key in WRONG_KEYS[column]:
        asks: List[Callable[[], Any]] = [
            partial(db.directory.get, key),
            partial(db.directory.assign, key),
            partial(lambda key: db.key(key).query("SELECT 1"), key),
            partial(lambda key: db.keys([key]).query(SELECT), key),
        ]
        for ask in asks:
            with pytest.raises(ParameterError, match="key"):
                io(ask())
    assert mapping.value("global", f"SELECT COUNT(*) FROM {TABLE}") == 1


def test_text_keys_are_the_same_where_the_collation_says_so(
    mapping: Any, io: IO, open_service: Callable[..., Any]
) -> None:
    mapping.run(
        "global",
        f"TRUNCATE {TABLE}",
        f"ALTER TABLE {TABLE} MODIFY account_db_key VARCHAR(40) CHARACTER SET utf8mb4 "
        "COLLATE utf8mb4_general_ci NOT NULL",
    )
    db = open_service(directory=LookupTable())
    shard_id = io(db.directory.assign("Ann"))
    other = 3 - shard_id
    assert [io(db.directory.get(key)) for key in ("ann", "ANN", "Ánn", "anna", 7)] == [
        *[shard_id] * 3,
        None,
        None,
    ]
    assert io(db.directory.assign("aNN")) == shard_id
    io(db.directory.set("ann", other))
    assert {io(db.directory.get(key)) for key in ("Ann", "ann", "ANN")} == {other}
    found = io(db.keys(["ann", "ANN"]).query("SELECT 1 AS x FROM DUAL WHERE 'Ann' IN %(keys)s"))
    assert found.by_shard == {other: [{"x": 1}]}
    io(db.directory.forget("ANN"))
    assert io(db.directory.get("Ann")) is None


def test_uuids_are_keys_of_binary_and_text_columns(
    mapping: Any, io: IO, open_service: Callable[..., Any]
) -> None:
    keys = [uuid.uuid4() for _ in range(3)]
    for column in ("BINARY(16)", "CHAR(36)"):
        mapping.run(
            "global",
            f"TRUNCATE {TABLE}",
            f"ALTER TABLE {TABLE} MODIFY account_db_key {column} NOT NULL",
        )
        db = open_service(directory=LookupTable())
        placed = [io(db.directory.assign(key)) for key in keys]
        db.directory.clear_cache()
        assert [io(db.directory.get(key)) for key in keys] == placed
        assert io(db.directory.get(uuid.uuid4())) is None


def test_what_a_directory_says_is_outside_of_transactions(keyed: Any, io: IO, mapping: Any) -> None:
    class Undone(Exception):
        pass

    with pytest.raises(Undone), io.entered(keyed.transaction()):
        shard_id = io(keyed.directory.assign(70))
        raise Undone
    keyed.directory.clear_cache()
    assert io(keyed.directory.get(70)) == shard_id


def test_hash_buckets(mapping: Any, io: IO, open_service: Callable[..., Any]) -> None:
    source = HashBuckets(64)
    db = open_service(directory=source)
    with pytest.raises(ProgrammingError, match="dualdb_bucket"):
        io(db.key(7).query("SELECT 1"))
    io(db.directory.create_tables())
    io(db.directory.create_tables())
    rows = mapping.run(
        "global", "SELECT shard_id AS s, COUNT(*) AS n FROM dualdb_bucket GROUP BY 1"
    )
    assert sorted((row["s"], row["n"]) for row in rows) == [(1, 32), (2, 32)]
    shard_id = io(db.shard_id_of(7))
    assert io(db.directory.get("7")) == shard_id, "as it is in a URL"
    assert io(db.directory.assign(7)) == shard_id
    again = open_service(directory=HashBuckets(64))
    keys = [*range(50), "ann", b"\xff", uuid.UUID(int=7)]
    found = [io(db.directory.get(key)) for key in keys]
    assert [io(again.directory.get(key)) for key in keys] == found
    assert set(found) == {1, 2}
    assert io(db.directory.bucket_moves()) == {}
    mapping.set_row(2, status="maintenance")
    io(db.refresh())
    moves = io(db.directory.bucket_moves())
    assert (len(moves), set(moves.values())) == (32, {1})
    for bucket, home in moves.items():
        io(db.directory.set_bucket(bucket, home))
    assert {io(db.directory.get(key)) for key in keys} == {1}
    for wrong in (-1, 64, True, "1"):
        with pytest.raises(ParameterError, match="bucket"):
            io(db.directory.set_bucket(wrong, 1))
    asks: List[Callable[[], Any]] = [lambda: db.directory.set(7, 1), lambda: db.directory.forget(7)]
    for ask in asks:
        with pytest.raises(InterfaceError, match="HashBuckets"):
            io(ask())


def test_functions_that_wait_are_refused_by_threads(databases: Databases) -> None:
    async def one(key: int) -> int:
        return 1

    wrong: List[Dict[str, Any]] = [{"shard_of_key": one}, {"directory": KeyFunction(one)}]
    for options in wrong:
        with pytest.raises(TypeError, match="only the asyncio service"):
            DatabaseService(databases.config, **options)
    with DatabaseService(databases.config, shard_of_key=lambda key: one(key)) as db:  # noqa: PLW0108
        hidden = KeyFunction(lambda key: one(key), ttl=1)  # noqa: PLW0108
        with DatabaseService(databases.config, directory=hidden) as other:
            with pytest.raises(ParameterError, match="only the asyncio service"):
                other.shard_id_of(1)
        assert db.shards().query("SELECT 1").errors == {}


def test_functions_that_wait_are_awaited_by_tasks(databases: Databases) -> None:
    calls: List[Any] = []

    async def one(key: int) -> int:
        calls.append(key)
        await asyncio.sleep(0)
        return 1 + key % 2

    async def main() -> None:
        async with AsyncDatabaseService(databases.config, shard_of_key=one) as db:
            assert await db.shard_id_of(3) == 2
            assert (await db.key(4).query_value("SELECT DATABASE()")).endswith("1")
            assert sorted((await db.keys([1, 2, 3]).query(SELECT)).by_shard) == [1, 2]
        assert calls == [3, 4, 1, 2, 3]
        calls.clear()
        cached = KeyFunction(one, ttl=60)
        async with AsyncDatabaseService(databases.config, directory=cached) as db:
            assert [await db.shard_id_of(3) for _ in range(3)] == [2, 2, 2]
        assert calls == [3]

    asyncio.run(main())


def _always(answer: Any, keys: Any) -> Any:
    return answer


def test_a_batched_function_is_asked_once(io: IO, open_service: Callable[..., Any]) -> None:
    asked: List[Any] = []

    def shards(keys: List[int]) -> Dict[int, Optional[int]]:
        asked.append(keys)
        return {key: 1 + key % 2 for key in keys if key < 100}

    db = open_service(directory=KeyFunction(shards, batched=True))
    assert sorted(io(db.keys([1, 2, 3, 2]).query(SELECT)).by_shard) == [1, 2]
    assert asked == [[1, 2, 3]]
    assert io(db.directory.get(100)) is None
    with pytest.raises(KeyNotFound):
        io(db.key(100).query("SELECT 1"))
    in_order = open_service(directory=KeyFunction(lambda keys: (2,) * len(keys), batched=True))
    assert io(in_order.shard_id_of("x")) == 2
    answers: List[Any] = [[1, 2], 7, ["1"], [True]]
    for answer in answers:
        wrong = open_service(directory=KeyFunction(partial(_always, answer), batched=True))
        with pytest.raises(ParameterError, match="shard_of_key gives"):
            io(wrong.shard_id_of("x"))


def test_what_a_function_cannot_do_is_refused(io: IO, open_service: Callable[..., Any]) -> None:
    db = open_service(shard_of_key=lambda key: 1)
    assert io(db.directory.get(7)) == 1
    asks: List[Callable[[], Any]] = [
        lambda: db.directory.assign(7),
        lambda: db.directory.set(7, 1),
        lambda: db.directory.forget(7),
        lambda: db.directory.alias("email", "x"),
        db.directory.create_tables,
        db.directory.bucket_moves,
    ]
    for ask in asks:
        with pytest.raises(InterfaceError, match="KeyFunction"):
            io(ask())


def test_a_service_without_a_directory_says_so(db: Any, io: IO, databases: Databases) -> None:
    with pytest.raises(ParameterError, match="has no directory"):
        db.directory.get(1)
    for options in ({"directory": "users"}, {"directory": LookupTable(), "shard_of_key": id}):
        with pytest.raises(TypeError):
            io.Service(databases.config, **options)


def test_the_last_answers_hold_while_the_table_cannot_be_read(
    mapping: Any, io: IO, open_service: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    db = open_service(directory=LookupTable(ttl=0.0), refresh_interval=None)
    assert io(db.directory.get(1)) == 1
    _cut_off_from_global(db, monkeypatch)
    assert io(db.key(1).query_value("SELECT 1")) == 1
    io(db.key(1).execute(INSERT, (1, "A")))
    with pytest.raises(dualdb.ConnectionFailed):
        io(db.key(2).query_value("SELECT 1"))


def _cut_off_from_global(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every checkout of the global database's pool fail."""

    def refuse(*args: Any, **options: Any) -> Any:
        raise dualdb.ConnectionFailed(2003, "cut off").with_context("global", sent=False)

    monkeypatch.setattr(db.global_client.pool, "checkout", refuse)


@pytest.mark.slow
def test_writes_by_key_stop_when_the_map_is_too_old(
    mapping: Any, io: IO, open_service: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    db = open_service(directory=LookupTable(), refresh_interval=0.2, max_staleness=1.0)
    key, write = db.key(1), (INSERT, (1, "A"))
    io(key.execute(*write))
    with monkeypatch.context() as patch:
        _cut_off_from_global(db, patch)

        io.wait_for(lambda: not _takes_writes(io, key))
        with pytest.raises(StaleMap) as caught:
            io(key.execute(*write))
        error = caught.value
        assert (error.sent, error.shard_id, error.retryable) == (False, 1, True)
        asks: List[Callable[[], Any]] = [
            lambda: key.call("buy", (1, "B", 1)),
            lambda: io.enter(key.transaction()),
            lambda: db.keys([1]).execute("DELETE FROM trades WHERE user_id IN %(keys)s"),
        ]
        for ask in asks:
            with pytest.raises((StaleMap, ScatterError), match="max_staleness"):
                io(ask())
        assert io(key.query_value("SELECT COUNT(*) FROM trades")) >= 1, "reads go on"
        assert io(db.keys([1]).query(SELECT)).errors == {}
        io(db.shard(1).execute(*write))

    io.wait_for(lambda: _takes_writes(io, key))  # the map can be read again


def _takes_writes(io: IO, target: Any) -> bool:
    try:
        io(target.execute(INSERT, (1, "A")))
    except StaleMap:
        return False
    return True


def test_a_lease_shorter_than_the_refresh_is_refused(io: IO, databases: Databases) -> None:
    for options in (
        {"max_staleness": 5.0},
        {"max_staleness": 10.0, "refresh_interval": None},
        {"max_staleness": -1},
    ):
        with pytest.raises(ValueError, match="max_staleness|timeout"):
            io.Service(databases.config, **options)


@pytest.mark.slow
def test_where_a_call_would_go(mapping: Any, io: IO, open_service: Callable[..., Any]) -> None:
    from types import SimpleNamespace

    from apis import session

    from dualdb import RouteReason as Reason

    mapping.set_row(3, status="maintenance")
    mapping.set_row(4, status="readonly")
    mapping.set_row(5, port="1")
    mapping.set_row(6, host="a b")
    mapping.set_row(7, status="inactive")
    db = open_service(directory=LookupTable())
    strict = open_service(absent_shard="error", shard_of_key=lambda key: key)
    cases: List[Any] = [
        (db, {}, "global", Reason.NO_SHARD),
        (db, {"session": SimpleNamespace()}, "global", Reason.NO_SHARD),
        (db, {"session": session(1)}, "shard 1", Reason.ACTIVE),
        (db, {"shard_id": 2}, "shard 2", Reason.ACTIVE),
        (db, {"shard_id": 4}, "shard 4", Reason.READ_ONLY),
        (db, {"shard_id": 3}, None, Reason.MAINTENANCE),
        (db, {"session": session(3)}, None, Reason.MAINTENANCE),
        (db, {"shard_id": 6}, None, Reason.INVALID),
        (db, {"shard_id": 5}, "shard 5", Reason.UNREACHABLE),
        (db, {"shard_id": 9}, None, Reason.ABSENT_REFUSED),
        (db, {"session": session(9)}, "global", Reason.ABSENT),
        (db, {"session": session(7)}, "global", Reason.ABSENT),
        (strict, {"session": session(7)}, None, Reason.ABSENT_REFUSED),
        (strict, {"key": 2}, "shard 2", Reason.ACTIVE),
        (db, {"key": 2}, None, Reason.KEY_NOT_CACHED),
    ]
    for service, asked, target, reason in cases:
        found = service.explain_route(**asked)
        assert (found.target, found.reason) == (target, reason), asked
        assert found.detail
        assert found.map_version == service.status().version
    unreachable = db.explain_route(shard_id=5).detail
    assert "(2003)" in unreachable
    assert "(2003," not in unreachable
    io(db.shard_id_of(2))
    io(db.directory.get(99))
    assert db.explain_route(key=2).target == "shard 2"
    assert db.explain_route(key=99).reason is Reason.KEY_NOT_FOUND
    for wrong in ({"shard_id": 1, "key": 1}, {"shard_id": "1"}, {"session": session("1")}):
        with pytest.raises(ParameterError):
            db.explain_route(**wrong)
    assert "(2003)" in str(db.status().shards[5].reason)
    assert "(2003)" in io(db.health_check())["shards"][5]["error"]


def test_a_target_shows_its_key(mapping: Any, io: IO, open_service: Callable[..., Any]) -> None:
    db = open_service(directory=LookupTable())
    assert repr(db.key(2)).endswith("Target key 2>")
    io(db.shard_id_of(2))
    assert repr(db.key(2)).endswith("Target key 2 of shard 2>")
    computed = open_service(shard_of_key=len)
    assert repr(computed.key("a")).endswith("Target key 'a' of shard 1>")


def test_a_target_knows_which_database_it_is(
    mapping: Any, io: IO, open_service: Callable[..., Any]
) -> None:
    from apis import session

    db = open_service(directory=LookupTable())
    named = open_service(shard_of_key=lambda key: 2)
    assert (db.name, db.shard_id) == ("global", None)
    targets = {
        (1, "shard 1"): [db.shard(1), db.session(session(1))],
        (2, "shard 2"): [named.key("x"), db.shard(2)],
        (9, "shard 9"): [db.shard(9)],
        (None, "global"): [db.session(None), db.session(session(9))],
    }
    for expected, found in targets.items():
        assert [(each.shard_id, each.name) for each in found] == [expected] * len(found)
    target = db.key(3)
    with pytest.raises(RoutingError, match="has not been looked up: shard_id_of"):
        _ = target.shard_id
    assert io(target.query_value("SELECT 1")) == 1
    assert (target.shard_id, target.name) == (1, "shard 1")


# Callers who miss the same keys at the same time.


@pytest.mark.parametrize("key", [2, 77])
def test_callers_who_miss_a_key_at_once_share_one_lookup(
    keyed: Any, mapping: Any, io: IO, key: int
) -> None:
    io(keyed.directory.get(1))  # the type of the key column is known
    with Lookups(mapping) as lookups:
        outcomes = io.concurrently([lambda: keyed.directory.get(key)] * 50)
        assert outcomes == [2 if key == 2 else None] * 50
        assert lookups.count == 1


def test_a_batch_looks_up_what_nobody_else_does(keyed: Any, mapping: Any, io: IO) -> None:
    io(keyed.directory.get(7))
    calls = [lambda: keyed.directory.get(1), lambda: keyed.directory.get(2)]
    calls += [lambda: keyed.keys([1, 2, 3]).query(SELECT)] * 4
    with Lookups(mapping) as lookups:
        outcomes = io.concurrently(calls)
        assert outcomes[:2] == [1, 2]
        assert [len(each) for each in outcomes[2:]] == [2] * 4, "two shards each"
        assert lookups.count <= 3


def test_who_waits_for_a_lookup_that_fails_looks_for_itself(
    open_service: Callable[..., Any], io: IO
) -> None:
    calls: List[Any] = []
    began = threading.Event()

    def shards_of(keys: List[Any]) -> List[int]:
        calls.append(keys)
        if len(calls) == 1:
            began.wait(0.2)
            raise KeyError("for one caller alone")
        return [2 for _ in keys]

    db = open_service(directory=KeyFunction(shards_of, batched=True, ttl=60.0))
    outcomes = io.concurrently([lambda: db.key(5).query_value("SELECT 1")] * 8)
    assert sum(isinstance(each, KeyError) for each in outcomes) == 1
    assert sorted(str(each) for each in outcomes if not isinstance(each, KeyError)) == ["1"] * 7
