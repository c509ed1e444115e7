"""Real Celery workers, in each pool, on a real Redis."""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
from typing import Any, Iterator, List

import celery.exceptions
import pytest
from database_servers import Databases
from programs import APPLICATIONS, environment, redis_server, url_of
from waiting import statements_running, wait_for

import dualdb
from dualdb.integrations.celery import RETRYABLE

pytestmark = pytest.mark.slow

POOLS = {
    "prefork": ["--pool", "prefork", "--concurrency", "4"],
    "threads": ["--pool", "threads", "--concurrency", "8"],
    "gevent": ["--pool", "gevent", "--concurrency", "20"],
    "solo": ["--pool", "solo"],
}


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="module")
def tasks(redis: str, servers: Databases) -> Iterator[Any]:
    """The module of the tasks, as their sender imports it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BROKER_URL", redis)
        patch.setenv("DUALDB_URL", url_of(servers.config))
        patch.syspath_prepend(str(APPLICATIONS))
        yield importlib.import_module("celery_app")


@contextlib.contextmanager
def worker(servers: Databases, redis: str, *arguments: str, **more: str) -> Iterator[Any]:
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", *arguments]
    variables = environment(url_of(servers.config), BROKER_URL=redis, **more)
    with subprocess.Popen(
        [*command, "--loglevel", "WARNING"], env=variables, stdout=subprocess.DEVNULL
    ) as process:
        try:
            yield process
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()


@pytest.fixture
def prefork(tasks: Any, servers: Databases, redis: str, databases: Databases) -> Iterator[Any]:
    tasks.app.control.purge()
    with worker(servers, redis, "--pool", "prefork", "--concurrency", "2") as process:
        yield process


def values(sent: List[Any]) -> List[Any]:
    return [each.get(timeout=60) for each in sent]


@pytest.mark.parametrize("pool", list(POOLS))
def test_one_service_serves_every_pool(
    pool: str, tasks: Any, servers: Databases, redis: str, databases: Databases
) -> None:
    with worker(servers, redis, *POOLS[pool]):
        found = values([tasks.database.delay(1 + number % 2) for number in range(400)])
        wrong = [each for each in found if each[1] != servers.config_of(each[0]).database]
    assert wrong == []
    processes = {each[2] for each in found}
    assert len(processes) == (4 if pool == "prefork" else 1)


def test_a_scope_and_a_deadline_travel(tasks: Any, prefork: Any) -> None:
    with tasks.db.scope(shard_id=2):
        assert tasks.current.delay().get(timeout=60)[0] == "shard 2"
        with tasks.adb.deadline(0.5):
            late = tasks.sleep.delay(50)
    with pytest.raises(dualdb.WriteTimedOut):
        late.get(timeout=60)
    assert tasks.current.delay().get(timeout=60)[0] == "InterfaceError"


@pytest.fixture(params=["json", "pickle"])
def serializer(request: pytest.FixtureRequest, tasks: Any) -> Iterator[str]:
    """Of results, for the sender, too."""

    def choose(name: str) -> str:
        tasks.app.conf.result_serializer = name
        tasks.app._backend = tasks.app._get_backend()
        return name

    yield choose(request.param)
    choose("json")


def test_errors_reach_the_sender_whole(
    tasks: Any, servers: Databases, redis: str, serializer: str, databases: Databases
) -> None:
    with worker(servers, redis, *POOLS["solo"], RESULTS=serializer):
        with pytest.raises(dualdb.ProgrammingError) as missing:
            tasks.fail.delay("").get(timeout=60)
        with pytest.raises(dualdb.ShardUnavailable) as unavailable:
            tasks.fail.delay("shard").get(timeout=60)
        with pytest.raises(dualdb.ScatterError) as scatter:
            tasks.fail.delay("scatter").get(timeout=60)
        with pytest.raises(dualdb.DataError) as rows:
            tasks.fail.delay("rows").get(timeout=60)
    error = missing.value
    assert (error.errno, error.target, error.shard_id, error.sent) == (1146, "shard 2", 2, True)
    assert (error.sqlstate, "nowhere" in str(error)) == ("42S02", True)
    assert (unavailable.value.shard_id, unavailable.value.reason) == (
        9,
        "it is not in the shard table",
    )
    assert unavailable.value.retryable
    assert {key: each.errno for key, each in scatter.value.result.errors.items()} == {
        1: 1146,
        2: 1146,
    }
    assert rows.value.rows == (0, 1)


def test_what_may_pass_is_retried(tasks: Any, prefork: Any) -> None:
    assert tasks.eventually.delay().get(timeout=60) == 2


def test_retryable_errors_are_all_there() -> None:
    """Each class whose errors can be retryable whatever their code."""
    found = {
        each
        for each in vars(dualdb).values()
        if isinstance(each, type) and issubclass(each, dualdb.Error)
        if each("x").retryable or (each(1213, "x").retryable and each.__name__ == "Deadlock")
    }
    covered = {each for each in found if issubclass(each, RETRYABLE)}
    assert found - covered == {dualdb.DeadlineExceeded}


def test_a_soft_limit_ends_the_query(tasks: Any, prefork: Any, databases: Any) -> None:
    with pytest.raises(celery.exceptions.SoftTimeLimitExceeded):
        tasks.hang.delay().get(timeout=60)
    wait_for(lambda: statements_running(databases, 1, "SLEEP(50) /* celery hang") == 0)
    assert tasks.database.delay(1).get(timeout=60)[0] == 1


def test_a_killed_process_loses_nothing(tasks: Any, prefork: Any, databases: Any) -> None:
    """The task that it was running is run again, because it is acknowledged late."""
    victims = {each[2] for each in values([tasks.database.delay(1) for _ in range(50)])}
    sent = [tasks.buy.delay(1 + number % 2, number, "KILL") for number in range(300)]
    os.kill(victims.pop(), signal.SIGKILL)
    assert values(sent) == [1] * 300
    stored = [
        row["user_id"]
        for shard_id in (1, 2)
        for row in databases.run(shard_id, "SELECT user_id FROM trades")
    ]
    assert set(stored) == set(range(300))
    assert len(stored) <= 301


def test_children_are_replaced(
    tasks: Any, servers: Databases, redis: str, databases: Databases
) -> None:
    with worker(servers, redis, *POOLS["prefork"], "--max-tasks-per-child", "10"):
        found = values([tasks.database.delay(1 + number % 2) for number in range(100)])
    assert len({each[2] for each in found}) >= 10
    assert {each[1] for each in found} == {servers.config_of(n).database for n in (1, 2)}


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_warm_shutdown_lets_tasks_end(
    tasks: Any, servers: Databases, redis: str, pool: str, databases: Databases
) -> None:
    with worker(servers, redis, *POOLS[pool]) as process:
        running = tasks.sleep.delay(1)
        wait_for(lambda: statements_running(databases, 1, "SLEEP(1.*/* celery") or running.ready())
        process.terminate()
        assert running.get(timeout=60) == 0
        process.wait(60)
    name = servers.config.user
    alive = f"SELECT COUNT(*) FROM information_schema.processlist WHERE user = '{name}'"
    wait_for(lambda: databases.value(1, alive) == 0)
