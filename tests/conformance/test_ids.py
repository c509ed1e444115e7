"""Ids that are unique everywhere, and the leases of worker numbers behind them."""

import subprocess
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, Set

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import (
    AsyncDatabaseService,
    ClockMovedBack,
    DatabaseService,
    Error,
    IdLayout,
    OperationalError,
    ParameterError,
)
from dualdb.directory import ids

WORKERS = "dualdb_worker"


@pytest.fixture
def workers(databases: Databases) -> Iterator[Any]:
    databases.run("global", f"DROP TABLE IF EXISTS {WORKERS}")
    yield databases
    databases.run("global", f"DROP TABLE IF EXISTS {WORKERS}")


@pytest.fixture
def numbered(workers: Any, open_service: Callable[..., Any]) -> Any:
    return open_service()


def test_an_id_names_its_shard_and_its_time(numbered: Any, io: IO) -> None:
    before = time.time()
    made = [io(numbered.ids.next(shard_id)) for shard_id in (0, 2, 511, 2)]
    assert made == sorted(set(made))
    assert [numbered.ids.shard_of(each) for each in made] == [0, 2, 511, 2]
    assert all(0 < each < 2**63 for each in made)
    for each in made:
        assert before - 0.01 <= numbered.ids.time_of(each).timestamp() <= time.time() + 0.01


def test_ids_fit_a_bigint_column(numbered: Any, io: IO, workers: Any) -> None:
    made = io(numbered.ids.next(1))
    io(numbered.shard(1).execute("INSERT INTO trades VALUES (%s, 7, 'A', 1)", (made,)))
    assert workers.value(1, "SELECT id FROM trades") == made


def test_callers_of_one_process_have_one_worker(numbered: Any, io: IO, workers: Any) -> None:
    made: List[int] = io.concurrently([lambda: numbered.ids.next(1)] * 100)
    assert len(set(made)) == 100
    assert workers.value("global", f"SELECT COUNT(*) FROM {WORKERS}") == 1


def test_services_have_different_workers(
    workers: Any, io: IO, open_service: Callable[..., Any]
) -> None:
    services = [open_service() for _ in range(5)]
    made = [io(each.ids.next(1)) for each in services for _ in range(20)]
    assert len(set(made)) == 100
    numbers: Set[int] = {each._ids._lease.worker for each in services}
    assert len(numbers) == 5


def test_all_numbers_in_use_is_an_error(
    workers: Any, io: IO, open_service: Callable[..., Any]
) -> None:
    layout = IdLayout(worker_bits=1)
    services = [open_service(id_layout=layout) for _ in range(3)]
    for each in services[:2]:
        io(each.ids.next(1))
    with pytest.raises(OperationalError, match="all 2 worker numbers"):
        io(services[2].ids.next(1))
    io(services[0].close_service())
    assert io(services[2].ids.next(1)) > 0, "the number was given back"


def test_a_lease_that_ran_out_is_taken_over(
    workers: Any, io: IO, open_service: Callable[..., Any]
) -> None:
    layout = IdLayout(worker_bits=1)
    first, second, third = [open_service(id_layout=layout) for _ in range(3)]
    for each in (first, second):
        io(each.ids.next(1))
    expired = f"UPDATE {WORKERS} SET expires_at = UTC_TIMESTAMP(3) - INTERVAL 1 SECOND"
    workers.run("global", expired)
    with pytest.raises(OperationalError, match="all 2 worker numbers"):
        io(third.ids.next(1))  # their ids may be ahead of this clock
    workers.run("global", f"{expired}, last_ms = last_ms - 120000")
    made = io(third.ids.next(1))
    lost = first if third._ids._lease.worker == first._ids._lease.worker else second
    lost._ids._lease = lost._ids._lease._replace(renew_at=0.0, expires=0.0)
    again = io(lost.ids.next(1))
    assert again != made
    assert lost._ids._lease.worker != third._ids._lease.worker


def test_a_lease_is_renewed_and_kept(numbered: Any, io: IO, workers: Any) -> None:
    io(numbered.ids.next(1))
    before = numbered._ids._lease
    numbered._ids._lease = before._replace(renew_at=0.0)
    io(numbered.ids.next(1))
    after = numbered._ids._lease
    assert after.worker == before.worker
    assert after.expires >= before.expires
    assert workers.value("global", f"SELECT COUNT(*) FROM {WORKERS}") == 1


def test_ids_go_on_while_a_renewal_fails_and_stop_with_the_lease(
    numbered: Any, io: IO, workers: Any
) -> None:
    io(numbered.ids.next(1))
    workers.run("global", f"RENAME TABLE {WORKERS} TO away")
    try:
        workers.run("global", f"CREATE TABLE {WORKERS} (x INT)")
        numbered._ids._lease = numbered._ids._lease._replace(renew_at=0.0)
        assert io(numbered.ids.next(1)) > 0
        numbered._ids._lease = numbered._ids._lease._replace(renew_at=0.0, expires=0.0)
        with pytest.raises(Error, match="Unknown column"):
            io(numbered.ids.next(1))
    finally:
        workers.run("global", f"DROP TABLE {WORKERS}", f"RENAME TABLE away TO {WORKERS}")
    assert io(numbered.ids.next(1)) > 0


@pytest.mark.slow
def test_a_clock_that_is_set_back_repeats_nothing(numbered: Any, io: IO) -> None:
    generator, offset = numbered._ids, {"seconds": 0.0}
    generator._wall = lambda: time.time() + offset["seconds"]
    made = [io(numbered.ids.next(1)) for _ in range(50)]
    offset["seconds"] = -5.0
    with pytest.raises(ClockMovedBack, match="behind the last id") as caught:
        io(numbered.ids.next(1))
    assert caught.value.retryable
    offset["seconds"] = -0.3
    began = time.monotonic()
    made += [io(numbered.ids.next(1)) for _ in range(50)]
    assert made == sorted(set(made))
    assert time.monotonic() - began > 0.05, "it waited for the clock"


def test_a_clock_that_is_set_forward_has_its_lease_first(
    numbered: Any, io: IO, workers: Any
) -> None:
    generator = numbered._ids
    made = [io(numbered.ids.next(1))]
    generator._wall = lambda: time.time() + 3600.0
    made.append(io(numbered.ids.next(1)))
    assert made == sorted(set(made))
    last = workers.value("global", f"SELECT last_ms FROM {WORKERS}")
    assert last > ids.IdLayout().unpack(made[-1]).ms


@pytest.mark.parametrize("shard_id", [-1, 512, "1", None, True, 1.0])
def test_a_shard_that_does_not_fit_is_refused(numbered: Any, io: IO, shard_id: Any) -> None:
    with pytest.raises(ParameterError, match="shard"):
        io(numbered.ids.next(shard_id))


PROGRAM = """
import sys
from dualdb import DatabaseConfig, DatabaseService
with DatabaseService(DatabaseConfig.from_env()) as db:
    print(*[db.ids.next(n % 4) for n in range(int(sys.argv[1]))], sep="\\n")
"""
ASYNC_PROGRAM = """
import asyncio, sys
from dualdb import AsyncDatabaseService, DatabaseConfig
async def main():
    async with AsyncDatabaseService(DatabaseConfig.from_env()) as db:
        print(*[await db.ids.next(n % 4) for n in range(int(sys.argv[1]))], sep="\\n")
asyncio.run(main())
"""


def _environment(config: Any) -> Dict[str, str]:
    return {
        "DUALDB_HOST": config.host,
        "DUALDB_PORT": str(config.port),
        "DUALDB_DATABASE": config.database,
        "DUALDB_USER": config.user,
        "DUALDB_PASSWORD": config.reveal_password(),
        "PYTHONPATH": ":".join(sys.path),
    }


@pytest.mark.slow
def test_processes_make_no_id_twice(workers: Any, io: IO) -> None:
    program = {DatabaseService: PROGRAM, AsyncDatabaseService: ASYNC_PROGRAM}[io.Service]
    each, processes = 100_000, 8
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(each)],
            env=_environment(workers.config),
            stdout=subprocess.PIPE,
        )
        for _ in range(processes)
    ]
    made: List[int] = []
    for process in running:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        own = [int(line) for line in output.split()]
        assert own == sorted(own), "each process's own are in their order"
        made += own
    assert len(made) == len(set(made)) == each * processes
    assert workers.value("global", f"SELECT COUNT(*) FROM {WORKERS}") <= processes
