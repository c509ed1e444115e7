"""How cost grows: with the number of shards, of callers, and of rows."""

import contextlib
import itertools
from typing import Any, Callable, Dict, List, Tuple, Type

import dualdb
from dualdb.sandbox import Sandbox
from dualdb.topology.shard_map import DDL

from . import data
from .data import Server
from .measure import interleaved
from .peers import ASYNCIO, THREADS, Peer, peers
from .results import Results
from .threaded import service_config
from .workers import Worker

#: The shards are databases of one server. The last number is simulated: the shards are
#: in the table, and nothing listens at their addresses.
SHARDS = (10, 100, 1_000)
SIMULATED = 10_000
CALLERS = (1, 10, 100, 1_000)
ROWS = (1, 1_000, 100_000, 1_000_000)

#: Whose rows are counted: the drivers, and the pools of callers, by what they are
#: compared with.
STREAMS = ("pymysql", "mysqlclient", "dualdb", "aiomysql", "asyncmy-pool", "dualdb-asyncio")
#: Who reads the most rows into a list: pyro-mysql has no streams.
LISTS = (
    "pymysql",
    "mysqlclient",
    "pyro",
    "dualdb",
    "aiomysql",
    "asyncmy-pool",
    "pyro-asyncio",
    "dualdb-asyncio",
)
POOLS = (
    "dbutils",
    "sqlalchemy-pymysql",
    "dualdb",
    "aiomysql-pool",
    "asyncmy-pool",
    "dualdb-asyncio",
)

#: What is measured for a number of shards, in seconds; memory is in kB a shard.
FIGURES = ("open", "memory", "lookup", "scatter", "in_turn", "refresh")

#: How often the short ones are repeated in a batch, by what they are.
_REPEATED = {"lookup": 200, "scatter": 1, "in_turn": 1, "refresh": 3}


def growth_key(peer: str, number: int) -> str:
    return f"{peer}/{number}"


def table_of(shards: int) -> str:
    return f"growth_{shards}"


class Growth(Peer):
    """A service over so many shards, opened anew for each number."""

    key, title, implementation = "growth", "dualdb", THREADS

    def open(self) -> Any:
        self.service: Any = None
        self._number = itertools.count()

    def close(self) -> Any:
        if self.service is not None:
            self.service.close_service()

    def _made(self, service_class: Any, shards: int) -> Any:
        config = service_config(self.server, warm_up=int(shards != SIMULATED))
        return service_class(config, shard_table=table_of(shards))

    def opened(self, shards: int) -> Any:
        self.close()
        self.service = self._made(dualdb.DatabaseService, shards)
        self.service.init_service()

    def lookup(self, shards: int) -> Any:
        return self.service.shard(self._next(shards)).query_one("SELECT 1 AS one")

    def scatter(self, shards: int) -> Any:
        return self.service.shards(range(1, shards + 1)).query("SELECT 1 AS one").rows

    def in_turn(self, shards: int) -> Any:
        return [
            self.service.shard(number).query_one("SELECT 1 AS one")
            for number in range(1, shards + 1)
        ]

    def refresh(self, shards: int) -> Any:
        self.service.refresh()

    def _next(self, shards: int) -> int:
        return next(self._number) * 7919 % shards + 1


class AsyncGrowth(Growth):
    key, implementation = "growth-asyncio", ASYNCIO

    async def open(self) -> Any:
        super().open()

    async def close(self) -> Any:
        if self.service is not None:
            await self.service.close_service()

    async def opened(self, shards: int) -> Any:
        await self.close()
        self.service = self._made(dualdb.AsyncDatabaseService, shards)
        await self.service.init_service()

    async def lookup(self, shards: int) -> Any:
        return await self.service.shard(self._next(shards)).query_one("SELECT 1 AS one")

    async def scatter(self, shards: int) -> Any:
        found = await self.service.shards(range(1, shards + 1)).query("SELECT 1 AS one")
        return found.rows

    async def in_turn(self, shards: int) -> Any:
        return [
            await self.service.shard(number).query_one("SELECT 1 AS one")
            for number in range(1, shards + 1)
        ]

    async def refresh(self, shards: int) -> Any:
        await self.service.refresh()


PEERS: Tuple[Type[Peer], ...] = (Growth, AsyncGrowth)


def create_shards(sandbox: Sandbox, server: Server) -> None:
    """Make the databases, and a shard table for each number of shards."""
    with (
        sandbox.servers["global"].admin(server.database) as connection,
        connection.cursor() as cursor,
    ):
        for number in range(1, max(SHARDS) + 1):
            cursor.execute(f"CREATE DATABASE growth_{number}")
        cursor.execute(f"GRANT ALL ON `growth\\_%`.* TO {server.user}")
        for shards in (*SHARDS, SIMULATED):
            cursor.execute(DDL.format(table=table_of(shards)))
            port = 1 if shards == SIMULATED else server.port
            rows = [
                (number, server.host, port, f"growth_{number}", server.user, server.password)
                for number in range(1, shards + 1)
            ]
            cursor.executemany(
                f"INSERT INTO {table_of(shards)} (shard_id, host, port, database_name, username, "
                "password, status) VALUES (%s, %s, %s, %s, %s, %s, 'active')",
                rows,
            )


def create_rows(sandbox: Sandbox) -> None:
    """Fill ``trades`` up to the most rows that are read."""
    columns = ", ".join(data.TRADE[1:])
    for start in range(data.TRADES, max(ROWS), data.TRADES):
        sandbox.run(
            "global",
            f"INSERT INTO trades SELECT id + {start}, {columns} FROM trades "
            f"WHERE id <= {data.TRADES}",
        )


def measure(
    rounds: int, sandbox: Sandbox, server: Server, results: Results, say: Callable[[str], None]
) -> None:
    """Measure shards and rows; callers are among the scenarios of all."""
    say("making databases and rows, to see how cost grows")
    create_shards(sandbox, server)
    create_rows(sandbox)
    _measure_shards(rounds, server, results, say)
    _measure_rows(rounds, server, results, say)


def _measure_shards(
    rounds: int, server: Server, results: Results, say: Callable[[str], None]
) -> None:
    say(f"{SHARDS[0]} to {SIMULATED:,} shards")
    keys = {
        growth_key(peer.key, shards): (peer.key, shards)
        for peer in PEERS
        for shards in (*SHARDS, SIMULATED)
    }

    def once(key: str) -> Dict[str, Any]:
        peer, shards = keys[key]
        with contextlib.closing(Worker(peer, server)) as worker:
            return figures_of(worker, shards)

    answers = interleaved(keys, rounds, once, results.missing.setdefault("growth-shards", {}))
    for figure in FIGURES:
        results.tables[f"growth-{figure}"] = {
            key: [each[figure] for each in found if figure in each]
            for key, found in answers.items()
        }


def figures_of(worker: Worker, shards: int) -> Dict[str, float]:
    """Open a service over so many shards in a fresh process; what all of it took."""
    opened = worker.ask({"do": "memory", "op": "opened", "argument": shards})
    found = {"open": opened["seconds"], "memory": opened["megabytes"] * 1e3 / shards}
    for operation, count in _REPEATED.items():
        if shards == SIMULATED and operation != "refresh":
            continue
        command = {"do": "batch", "op": operation, "argument": shards, "count": count}
        seconds = worker.ask(command)["seconds"]
        found[operation] = seconds / shards if operation in ("scatter", "in_turn") else seconds
    return found


def _measure_rows(
    rounds: int, server: Server, results: Results, say: Callable[[str], None]
) -> None:
    say(f"{ROWS[0]} to {ROWS[-1]:,} rows")
    missing = results.missing.setdefault("growth-rows", {})

    def once(key: str) -> Dict[str, Any]:
        found: Dict[str, Any] = {}
        with contextlib.closing(Worker(key, server)) as worker:
            for count in ROWS:
                found[str(count)] = worker.ask({"do": "memory", "op": "stream", "argument": count})
        return found

    answers = interleaved(STREAMS, rounds, once, missing)
    for name, figure in (("growth-rows", "seconds"), ("growth-rows-memory", "megabytes")):
        results.tables[name] = {
            growth_key(key, count): [each[str(count)][figure] for each in found]
            for key, found in answers.items()
            for count in ROWS
        }
    _measure_lists(rounds, server, results, say)


def _measure_lists(
    rounds: int, server: Server, results: Results, say: Callable[[str], None]
) -> None:
    say(f"{ROWS[-1]:,} rows as a list")
    missing = results.missing.setdefault("growth-list", {})

    def once(key: str) -> Dict[str, Any]:
        with contextlib.closing(Worker(key, server)) as worker:
            return worker.ask({"do": "memory", "op": "rows", "argument": ROWS[-1]})

    answers = interleaved(LISTS, rounds, once, missing)
    results.tables["growth-list"] = {
        growth_key(key, ROWS[-1]): [each["seconds"] for each in found]
        for key, found in answers.items()
    }


def titles(keys: Tuple[str, ...]) -> List[Tuple[str, str]]:
    """Contestants and what they are called, in the order of the report."""
    return [(key, f"{peers()[key].title}, {peers()[key].implementation}") for key in keys]
