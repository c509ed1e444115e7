"""Many callers and many cancellations at once: every row is right afterwards, and every
pool whole.
"""

import asyncio
import itertools
import random
from collections import Counter
from functools import partial
from typing import Any, List, Set, Tuple

import pytest
from database_servers import Databases
from io_kinds import IO
from waiting import connections_to

import dualdb
from dualdb.pooling.session_killer import MOST_SEARCHES

pytestmark = pytest.mark.slow

WRITE = "INSERT INTO ledger VALUES (%s, %s)"


@pytest.fixture
def ledger(databases: Databases) -> Any:
    """A table without keys, where whatever is written twice is there twice."""
    databases.run(1, "DROP TABLE IF EXISTS ledger", "CREATE TABLE ledger (number INT, part INT)")
    databases.run(
        1, "DROP PROCEDURE IF EXISTS echo_tag", "CREATE PROCEDURE echo_tag(tag INT) SELECT tag"
    )
    return databases


def sessions(databases: Databases, config: Any) -> int:
    return int(
        databases.value(
            1, f"SELECT COUNT(*) FROM information_schema.processlist WHERE user = '{config.user}'"
        )
    )


async def some_work(client: Any, number: int, kind: int) -> bool:
    """One unit of work; what is read must be one's own. True where it leaves rows."""
    if kind == 0:
        assert await client.query_value("SELECT %s", (number,)) == number
    elif kind == 1:
        assert await client.query_one("SELECT %s AS tag, SLEEP(0.002) AS slept", (number,)) == {
            "tag": number,
            "slept": 0,
        }
    elif kind == 2:
        assert (await client.call("echo_tag", (number,))).rows == [{"tag": number}]
    elif kind == 3:
        assert await client.execute(WRITE, (number, 0)) == 1
    else:
        async with client.transaction() as tx:
            await tx.execute(WRITE, (number, 1))
            assert (
                await tx.query_value("SELECT number FROM ledger WHERE number = %s", (number,))
                == number
            )
            await tx.execute(WRITE, (number, 2))
    return kind >= 3


async def cancel_at_random(
    client: Any, seed: int, wanted: int, longest: float = 0.001
) -> Tuple[Set[int], List[BaseException]]:
    """Cancel until so many have been: the numbers whose rows were acknowledged, and
    what failed in any other way. The longest time before each is in seconds.
    """
    chance = random.Random(seed)
    acknowledged: Set[int] = set()
    failed: List[BaseException] = []
    numbers = itertools.count()
    cancelled = 0
    while cancelled < wanted:
        works = {}
        for number in itertools.islice(numbers, 16):
            works[number] = asyncio.ensure_future(some_work(client, number, chance.randrange(5)))
        for work in works.values():
            # after some turns of the loop, or after some time
            if chance.random() < 0.5:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
            else:
                await asyncio.sleep(chance.random() * longest)
            work.cancel()
        for done, outcome in zip(
            works, await asyncio.gather(*works.values(), return_exceptions=True)
        ):
            if isinstance(outcome, asyncio.CancelledError):
                cancelled += 1
            elif isinstance(outcome, BaseException):
                failed.append(outcome)
            elif outcome:
                acknowledged.add(done)
    return acknowledged, failed


def test_ten_thousand_random_cancellations(ledger: Any, seed: int) -> None:
    config = ledger.config_of(1, pool_size=4, max_overflow=4)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            await asyncio.sleep(0.1)
            most = max(
                most,
                await asyncio.get_running_loop().run_in_executor(None, sessions, ledger, config),
            )

    async def storm() -> Any:
        client = dualdb.AsyncMySQLClient(config)
        watching = asyncio.ensure_future(watch())
        acknowledged, failed = await cancel_at_random(client, seed, 10_000)
        watching.cancel()
        await client.pool.wait_for_kills(5)
        figures = client.stats()
        tags = await asyncio.gather(
            *[client.query_value("SELECT %s", (tag,)) for tag in range(100)]
        )
        await client.close_pool(timeout=5)
        return acknowledged, failed, figures, tags

    acknowledged, failed, figures, tags = asyncio.run(storm())
    assert failed == []
    assert len(acknowledged) > 20, "the storm has let nothing through, and proves nothing"
    assert (figures.in_use, figures.waiting) == (0, 0)
    assert 0 < most <= 8 + MOST_SEARCHES, "the pool's, and those that look for the rest"
    assert tags == list(range(100))
    rows = Counter(
        (row["number"], row["part"]) for row in ledger.run(1, "SELECT number, part FROM ledger")
    )
    assert set(rows.values()) == {1}, "a row was written twice"
    written = {part: {number for number, which in rows if which == part} for part in (0, 1, 2)}
    assert written[1] == written[2], "half a transaction"
    assert acknowledged <= written[0] | written[1], "an acknowledged row is missing"


def test_sixty_four_callers_on_eight_connections(ledger: Any, io: IO) -> None:
    config = ledger.config_of(1, pool_size=8, max_overflow=0)
    client = io.Client(config)

    def calls(caller: int) -> Any:
        return [
            lambda number=number: client.query_value("SELECT %s", (number,))
            for number in range(caller * 25, caller * 25 + 25)
        ]

    def ask(caller: int) -> Any:
        answers = []
        for call in calls(caller):
            answers.append((yield call()))
        return answers

    answers = io.concurrently([partial(io.function(ask), caller) for caller in range(64)])
    assert answers == [list(range(caller * 25, caller * 25 + 25)) for caller in range(64)]
    figures = client.stats()
    assert (figures.opened, figures.in_use, figures.waiting, figures.timeouts) == (8, 0, 0, 0)
    assert sessions(ledger, config) == 8
    io(client.close_pool())


@pytest.mark.parametrize("limit", [1, 2])
def test_cancellations_lose_no_place_on_a_server(ledger: Any, seed: int, limit: int) -> None:
    config = ledger.config_of(1, max_connections_per_server=limit, pool_timeout=20.0)

    async def storm() -> Any:
        clients = [dualdb.AsyncMySQLClient(config) for _ in range(3)]
        budget = clients[0].pool.budgets.all[0]
        most = 0
        stopped = asyncio.Event()

        async def watch() -> None:
            nonlocal most
            while not stopped.is_set():
                await asyncio.sleep(0.003)
                most = max(most, connections_to(config.port))

        watching = asyncio.ensure_future(watch())
        storms = [
            cancel_at_random(client, seed + number, 300, 0.03)
            for number, client in enumerate(clients)
        ]
        outcomes = await asyncio.gather(*storms)
        for client in clients:
            await client.pool.wait_for_kills(5)
        stopped.set()
        await watching
        values = [await client.query_value("SELECT %s", (7,)) for client in clients]
        figures = budget.stats()
        for client in clients:
            await client.close_pool(timeout=5)
        return outcomes, most, values, figures, budget.stats()

    before = connections_to(config.port)
    outcomes, most, values, figures, after = asyncio.run(storm())
    assert [failed for _, failed in outcomes] == [[]] * 3
    assert sum(len(acknowledged) for acknowledged, _ in outcomes) > 0
    assert values == [7] * 3
    assert 0 < most - before <= limit + 3, "the budget's, and one of each pool that kills"
    assert (figures.waiting, after.open) == (0, 0)
