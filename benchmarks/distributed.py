"""What a transaction on several databases costs, beside plain ones.

``python -m benchmarks.distributed`` starts private servers, runs each kind in turn so
that all of them meet the same load, and prints the medians and their ratios to one
plain transaction. Each transaction updates one row on each of its databases.
"""

import argparse
import asyncio
import statistics
import time
from typing import Any, Awaitable, Callable, Dict, List

from dualdb import AsyncDatabaseService, DatabaseService
from dualdb.sandbox import Sandbox

UPDATE = "UPDATE amounts SET value = value + 1 WHERE id = 1"
PLAIN = "one plain"


def threaded(db: DatabaseService) -> Dict[str, Callable[[], None]]:
    """The kinds of transactions, in threads."""

    def plain(shard_id: int = 1) -> None:
        with db.shard(shard_id).transaction() as tx:
            tx.execute(UPDATE)

    def two_plain() -> None:
        plain(1)
        plain(2)

    def distributed(mode: Any, global_: bool, shard_ids: List[int]) -> Callable[[], None]:
        def run() -> None:
            with db.shards([1, 2]).transaction(mode=mode, global_=global_) as tx:
                for shard_id in shard_ids:
                    tx[shard_id].execute(UPDATE)
                if global_:
                    tx.global_.execute(UPDATE)

        return run

    return {
        PLAIN: plain,
        "two plain": two_plain,
        "best effort": distributed("best_effort", False, [1, 2]),
        "xa, one used": distributed("xa", False, [1]),
        "xa": distributed("xa", False, [1, 2]),
        "xa, global too": distributed("xa", True, [1, 2]),
    }


def in_tasks(db: AsyncDatabaseService) -> Dict[str, Callable[[], Awaitable[None]]]:
    """The same in asyncio."""

    async def plain(shard_id: int = 1) -> None:
        async with db.shard(shard_id).transaction() as tx:
            await tx.execute(UPDATE)

    async def two_plain() -> None:
        await plain(1)
        await plain(2)

    def distributed(
        mode: Any, global_: bool, shard_ids: List[int]
    ) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            async with db.shards([1, 2]).transaction(mode=mode, global_=global_) as tx:
                for shard_id in shard_ids:
                    await tx[shard_id].execute(UPDATE)
                if global_:
                    await tx.global_.execute(UPDATE)

        return run

    return {
        PLAIN: plain,
        "two plain": two_plain,
        "best effort": distributed("best_effort", False, [1, 2]),
        "xa, one used": distributed("xa", False, [1]),
        "xa": distributed("xa", False, [1, 2]),
        "xa, global too": distributed("xa", True, [1, 2]),
    }


def show(title: str, times: Dict[str, List[float]]) -> None:
    """Print medians in milliseconds, and their ratios."""
    base = statistics.median(times[PLAIN])
    print(f"\n| {title} | ms | x one plain |\n|---|--:|--:|")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"| {name} | {median * 1000:.2f} | {median / base:.2f} |")


def measure_threads(config: Any, rounds: int) -> Dict[str, List[float]]:
    """Seconds of each transaction, in threads."""
    times: Dict[str, List[float]] = {}
    with DatabaseService(config) as db:
        kinds = threaded(db)
        for number in range(rounds + 20):
            for name, run in kinds.items():
                begun = time.perf_counter()
                run()
                if number >= 20:
                    times.setdefault(name, []).append(time.perf_counter() - begun)
    return times


async def measure_tasks(config: Any, rounds: int) -> Dict[str, List[float]]:
    """Seconds of each transaction, in asyncio."""
    times: Dict[str, List[float]] = {}
    async with AsyncDatabaseService(config) as db:
        kinds = in_tasks(db)
        for number in range(rounds + 20):
            for name, run in kinds.items():
                begun = time.perf_counter()
                await run()
                if number >= 20:
                    times.setdefault(name, []).append(time.perf_counter() - begun)
    return times


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--program", help="the server program, such as a mysqld")
    parser.add_argument(
        "--flush", type=int, default=1, help="innodb_flush_log_at_trx_commit of all servers"
    )
    given = parser.parse_args()
    options = [f"--innodb-flush-log-at-trx-commit={given.flush}", "--log-bin=binlog"]
    with Sandbox(2, program=given.program, options=options) as sandbox:
        for name in ("global", 1, 2):
            sandbox.run(
                name,
                "CREATE TABLE amounts (id INT PRIMARY KEY, value INT NOT NULL)",
                "INSERT INTO amounts VALUES (1, 0)",
            )
        version = sandbox.run(1, "SELECT VERSION() AS v")[0]["v"]
        show(f"{version}, threads", measure_threads(sandbox.config, given.rounds))
        show(f"{version}, asyncio", asyncio.run(measure_tasks(sandbox.config, given.rounds)))


if __name__ == "__main__":
    main()
