"""Many moves under many writers: transactions and single calls of both implementations,
and programs that do not use the package and go on writing where a tenant was. Each
acknowledged write is found once, where its tenant is.

``--moves 100 --writers 50`` makes more of it; ``--server`` names the servers.
"""

import asyncio
import contextlib
import itertools
import random
import statistics
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

import pymysql
import pytest
from database_servers import Databases

from dualdb import AsyncDatabaseService, DatabaseService, LookupTable
from dualdb.operations import TenantTable, jobs
from dualdb.operations import move_tables as names

pytestmark = pytest.mark.slow

SCHEMA = [
    "CREATE TABLE entry (token VARCHAR(40) PRIMARY KEY, owner BIGINT NOT NULL, n INT NOT NULL, "
    "KEY (owner))",
    "CREATE TABLE part (token VARCHAR(40), no INT, PRIMARY KEY (token, no), "
    "FOREIGN KEY (token) REFERENCES entry (token) ON DELETE CASCADE)",
    "CREATE TABLE account (owner BIGINT PRIMARY KEY, balance BIGINT NOT NULL)",
]
TABLES = [
    TenantTable("part", parent="entry", parent_column="token", parent_key="token"),
    TenantTable("entry", "owner"),
    TenantTable("account", "owner"),
]
NAMES = ["part", "entry", "account"]
WHERE = "SELECT shard_id FROM table_user_shard_mapping WHERE account_db_key = %s"
#: Seconds that the package keeps what it has read there, and after which the rows are
#: deleted where they were: later than the last transaction that was routed by it.
TTL = 0.3
SETTLE = 2.0
#: Movers of each implementation.
MOVERS = 2
#: What a fence answers.
FENCED = 31001
#: Conflicts between transactions, after which nothing of one is left.
CONFLICTS = (1205, 1213)

INSERT = "INSERT INTO entry VALUES (%s, %s, 1)"
INSERT_PART = "INSERT INTO part VALUES (%s, 1)"
COUNT = "UPDATE account SET balance = balance + 1 WHERE owner = %s"
CHANGE = "UPDATE entry SET n = n + 1 WHERE token = %s AND owner = %s"
DELETE = "DELETE FROM entry WHERE token = %s AND owner = %s"


class Ledger:
    """The acknowledged writes of one writer.

    Args:
        name: The writer's; tokens begin with it.
        seed: The seed of its random choices.
    """

    def __init__(self, name: str, seed: str) -> None:
        self.name = name
        self.random = random.Random(f"{seed} {name}")
        #: Tokens that must exist: the owner, and how often they were written.
        self.there: Dict[str, Tuple[int, int]] = {}
        self.counted: Dict[int, int] = {}
        self.refused = 0
        self.errors: List[BaseException] = []
        self._numbers = itertools.count()

    @property
    def acknowledged(self) -> int:
        """The number of acknowledged transactions and calls."""
        return sum(self.counted.values())

    def next(self, keys: List[int]) -> Tuple[str, int, str]:
        """Choose the next write: its kind, its owner, and its token."""
        what = self.random.choice(["insert", "insert", "change", "delete", "count"])
        if what == "count":
            return what, self.random.choice(keys), ""
        if what != "insert" and self.there:
            token = self.random.choice(list(self.there))
            return what, self.there[token][0], token
        return "insert", self.random.choice(keys), f"{self.name}-{next(self._numbers)}"

    def has(self, what: str, key: int, token: str) -> None:
        """Record an acknowledged write."""
        self.counted[key] = self.counted.get(key, 0) + 1
        if what == "count":
            return
        if what == "delete":
            del self.there[token]
        else:
            self.there[token] = (key, self.there.get(token, (key, 0))[1] + 1)


def statements(what: str, key: int, token: str) -> List[Tuple[str, Tuple[Any, ...]]]:
    """Return the statements of one write; a count is a single one, the others are
    transactions.
    """
    written: Dict[str, List[Tuple[str, Tuple[Any, ...]]]] = {
        "insert": [(INSERT, (token, key)), (INSERT_PART, (token,))],
        "change": [(CHANGE, (token, key))],
        "delete": [(DELETE, (token, key))],
        "count": [],
    }
    return [*written[what], (COUNT, (key,))]


class Load:
    """Tenants that are moved, and the writers."""

    def __init__(self, databases: Databases, moves: int, writers: int, seed: int) -> None:
        self.databases = databases
        self.keys = list(range(1, max(2 * MOVERS, moves // 6) + 1))
        self.left = moves
        self.seed = str(seed)
        #: The longest pause of a writer, in seconds: of more writers each is slower.
        self.pause = writers / 200
        #: The tasks have moved what is theirs; writers are to end.
        self.moved = threading.Event()
        self.done = threading.Event()
        self.windows: List[float] = []
        self.failures: List[BaseException] = []
        self._lock = threading.Lock()
        plain = max(2, writers // 5)
        threaded = (writers - plain) // 2
        self.plain = [Ledger(f"plain{n}", self.seed) for n in range(plain)]
        self.threaded = [Ledger(f"sync{n}", self.seed) for n in range(threaded)]
        self.tasks = [Ledger(f"async{n}", self.seed) for n in range(writers - plain - threaded)]

    @property
    def ledgers(self) -> List[Ledger]:
        return [*self.plain, *self.threaded, *self.tasks]

    def take(self, keys: List[int], number: int) -> Optional[int]:
        """The tenant that is moved next; None when there were enough moves."""
        with self._lock:
            if not self.left or self.failures:
                return None
            self.left -= 1
        return keys[number % len(keys)]


def run(load: Load) -> None:
    """Move, and write meanwhile."""
    config = load.databases.config.model_copy(update={"pool_size": 30, "max_overflow": 10})
    threads = [threading.Thread(target=write_plainly, args=(load, each)) for each in load.plain]
    with DatabaseService(config, directory=LookupTable(ttl=TTL)) as db:
        threads += [
            threading.Thread(target=write_in_a_thread, args=(load, db, each))
            for each in load.threaded
        ]
        movers = [
            threading.Thread(target=move_in_a_thread, args=(load, db, number))
            for number in range(MOVERS)
        ]
        tasks = threading.Thread(target=lambda: asyncio.run(in_tasks(load, config)))
        for each in (*threads, *movers, tasks):
            each.start()
        for each in movers:
            each.join()
        load.moved.wait()
        load.done.set()
        for each in (*threads, tasks):
            each.join()


def move_in_a_thread(load: Load, db: DatabaseService, mover: int) -> None:
    keys = load.keys[mover :: 2 * MOVERS]
    for number in itertools.count():
        key = load.take(keys, number)
        if key is None:
            return
        with failures(load):
            to = 3 - (db.directory.get(key) or 0)
            report = db.operations.move(key, to, TABLES, settle=SETTLE, chunk_rows=100)
            assert report.ok
            load.windows.append(report.window_seconds or 0.0)


async def move_in_a_task(load: Load, db: AsyncDatabaseService, mover: int) -> None:
    keys = load.keys[MOVERS + mover :: 2 * MOVERS]
    for number in itertools.count():
        key = load.take(keys, number)
        if key is None:
            return
        with failures(load):
            to = 3 - (await db.directory.get(key) or 0)
            report = await db.operations.move(key, to, TABLES, settle=SETTLE, chunk_rows=100)
            assert report.ok
            load.windows.append(report.window_seconds or 0.0)


async def in_tasks(load: Load, config: Any) -> None:
    try:
        async with AsyncDatabaseService(config, directory=LookupTable(ttl=TTL)) as db:
            writers = [
                asyncio.ensure_future(write_in_a_task(load, db, each)) for each in load.tasks
            ]
            await asyncio.gather(*[move_in_a_task(load, db, number) for number in range(MOVERS)])
            load.moved.set()
            await asyncio.gather(*writers)
    finally:
        load.moved.set()


@contextlib.contextmanager
def failures(load: Load) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        load.failures.append(error)


class NoEffect(Exception):
    """A statement matched no row: it was sent to where the rows are no longer."""


def require_effect(count: int, sql: str) -> None:
    """Check that a statement has written one row."""
    if count != 1:
        raise NoEffect(f"{count} rows: {sql}")


def write_in_a_thread(load: Load, db: DatabaseService, ledger: Ledger) -> None:
    while not load.done.wait(ledger.random.uniform(0.0, load.pause)):
        what, key, token = ledger.next(load.keys)

        def body(tx: Any, written: Any = (what, key, token)) -> None:
            for sql, params in statements(*written):
                require_effect(tx.execute(sql, params), sql)

        try:
            if what == "count":
                require_effect(db.key(key).execute(COUNT, (key,)), COUNT)
            else:
                db.key(key).run(body, attempts=50)
        except Exception as error:
            ledger.errors.append(error)
            return
        ledger.has(what, key, token)


async def write_in_a_task(load: Load, db: AsyncDatabaseService, ledger: Ledger) -> None:
    while not load.done.is_set():
        await asyncio.sleep(ledger.random.uniform(0.0, load.pause))
        what, key, token = ledger.next(load.keys)

        async def body(tx: Any, written: Any = (what, key, token)) -> None:
            for sql, params in statements(*written):
                require_effect(await tx.execute(sql, params), sql)

        try:
            if what == "count":
                require_effect(await db.key(key).execute(COUNT, (key,)), COUNT)
            else:
                await db.key(key).run(body, attempts=50)
        except Exception as error:
            ledger.errors.append(error)
            return
        ledger.has(what, key, token)


class Plain:
    """A program that knows the lookup table, keeps what it has read there, and nothing
    of the package.
    """

    def __init__(self, databases: Databases) -> None:
        self.sessions = {name: connect(databases, name) for name in ("global", *databases.ids)}
        self._known: Dict[int, int] = {}

    def close(self) -> None:
        for session in self.sessions.values():
            session.close()

    def shard_of(self, key: int) -> int:
        if key not in self._known:
            with self.sessions["global"].cursor() as cursor:
                cursor.execute(WHERE, (key,))
                self._known[key] = cursor.fetchall()[0][0]
        return self._known[key]

    def forget(self, key: int) -> None:
        self._known.pop(key, None)

    def write(self, what: str, key: int, token: str) -> bool:
        """Whether every statement had an effect, and COMMIT succeeded.

        Raises:
            pymysql.err.MySQLError: Refused; nothing is left of it.
        """
        session = self.sessions[self.shard_of(key)]
        with session.cursor() as cursor:
            cursor.execute("BEGIN")
            try:
                for sql, params in statements(what, key, token):
                    if not cursor.execute(sql, params):
                        cursor.execute("ROLLBACK")  # its rows are elsewhere
                        return False
                cursor.execute("COMMIT")
            except pymysql.err.MySQLError:
                cursor.execute("ROLLBACK")
                raise
        return True


def write_plainly(load: Load, ledger: Ledger) -> None:
    program = Plain(load.databases)
    while not load.done.wait(ledger.random.uniform(0.0, load.pause)):
        what, key, token = ledger.next(load.keys)
        try:
            written = program.write(what, key, token)
        except pymysql.err.MySQLError as error:
            if error.args[0] == FENCED:
                ledger.refused += 1
                program.forget(key)
            elif error.args[0] not in CONFLICTS:
                ledger.errors.append(error)
                break
            continue
        if written:
            ledger.has(what, key, token)
        else:
            program.forget(key)
    program.close()


def connect(databases: Databases, name: Any) -> Any:
    config = databases.config_of(name)
    return pymysql.connect(
        host=config.host, port=config.port, user=config.user, autocommit=True,
        database=config.database, password=config.reveal_password(), ssl_disabled=True,
    )  # fmt: skip


def clean(databases: Databases) -> None:
    for shard in databases.ids:
        databases.run(shard, f"DROP TABLE IF EXISTS {', '.join([*NAMES, *names.TABLES])}")
    databases.run(
        "global", f"DROP TABLE IF EXISTS table_user_shard_mapping, {names.EPOCHS}, {jobs.TABLE}"
    )


@pytest.fixture
def load(databases: Databases, request: pytest.FixtureRequest, seed: int) -> Iterator[Load]:
    clean(databases)
    for shard in databases.ids:
        databases.run(shard, *SCHEMA)
    option: Callable[[str], Any] = request.config.getoption
    made = Load(databases, option("--moves"), option("--writers"), seed)
    with DatabaseService(databases.config, directory=LookupTable()) as db:
        db.directory.create_tables()
        for key in made.keys:
            db.directory.set(key, 1 + key % 2)
            db.key(key).execute("INSERT INTO account VALUES (%s, 0)", (key,))
        db.operations.prepare_moves(TABLES)
    yield made
    clean(databases)


def test_no_write_is_lost_doubled_or_misplaced(load: Load) -> None:
    moves = load.left
    began = time.monotonic()
    run(load)
    seconds = time.monotonic() - began
    assert load.failures == []
    assert [each.errors for each in load.ledgers if each.errors] == []
    assert len(load.windows) == moves
    check(load)
    for kind in (load.plain, load.threaded, load.tasks):
        assert sum(each.acknowledged for each in kind) > 0
    assert sum(each.refused for each in load.plain) > 0
    milliseconds = sorted(1000 * each for each in load.windows)
    print(  # noqa: T201
        f"{moves} moves under {len(load.ledgers)} writers in {seconds:.0f} s: "
        f"{sum(each.acknowledged for each in load.ledgers)} transactions, "
        f"{sum(each.refused for each in load.plain)} refused by the fence, window "
        f"{statistics.median(milliseconds):.0f} ms (median), {milliseconds[-1]:.0f} ms (most)"
    )


def check(load: Load) -> None:
    """Count on all servers."""
    where = {
        row["account_db_key"]: row["shard_id"]
        for row in load.databases.run("global", "SELECT * FROM table_user_shard_mapping")
    }
    expected = {
        (token, owner, n, where[owner])
        for ledger in load.ledgers
        for token, (owner, n) in ledger.there.items()
    }
    found: List[Tuple[str, int, int, int]] = []
    parts: List[Tuple[str, int]] = []
    balances: List[Tuple[int, int, int]] = []
    for shard in load.databases.ids:
        rows = load.databases.run(shard, "SELECT * FROM entry")
        found += [(row["token"], row["owner"], row["n"], shard) for row in rows]
        rows = load.databases.run(shard, "SELECT * FROM part")
        parts += [(row["token"], shard) for row in rows]
        rows = load.databases.run(shard, "SELECT * FROM account")
        balances += [(row["owner"], row["balance"], shard) for row in rows]
    compare("entries", found, expected)
    compare("parts", parts, {(token, shard) for token, _, _, shard in expected})
    counted = {
        (key, sum(ledger.counted.get(key, 0) for ledger in load.ledgers), where[key])
        for key in load.keys
    }
    compare("accounts", balances, counted)


def compare(what: str, found: List[Any], expected: Set[Any]) -> None:
    """Nothing is lost, doubled, or where or as it should not be."""
    wrong = sorted(set(found) ^ expected)[:10]
    assert (what, wrong, len(found)) == (what, [], len(expected))
