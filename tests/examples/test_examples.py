"""The examples, run as a user runs them: real servers, a real ASGI server, a real
Celery worker on a real Redis.
"""

import concurrent.futures
import importlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any, Iterator

import pytest
from waiting import wait_for

import dualdb
from dualdb.sandbox import Sandbox
from dualdb.sandbox.server import free_port

#: They start servers of their own.
pytestmark = pytest.mark.slow

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Two shards with the examples' schema and an account on each."""
    sys.path.insert(0, str(EXAMPLES))
    schema: Any = importlib.import_module("schema")
    script: Any = importlib.import_module("script")
    with Sandbox(2) as made:
        schema.create(made)
        with dualdb.DatabaseService(made.config) as db:
            assert [script.sign_up(db, f"{name}@x")["shard_id"] for name in ("ann", "bob")] == [
                1,
                2,
            ]
        yield made
    sys.path.remove(str(EXAMPLES))


def environment(sandbox: Sandbox, **more: str) -> Any:
    path = os.pathsep.join([str(EXAMPLES), str(pathlib.Path(dualdb.__file__).parents[1])])
    return {**os.environ, "DUALDB_URL": sandbox.url, "PYTHONPATH": path, **more}


def wait_for_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    def listens() -> bool:
        assert process.poll() is None, "it ended before it listened"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(listens)


def test_the_demo_shows_the_main_job() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / "demo.py")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for line in (
        "bob@example.com signs up on global, gets shard 2, and buys: trades [1] there",
        "ok ann@example.com holds {'ABC': 10, 'XYZ': 5}",
        "ann swaps one ABC for one NEW in a transaction: {'ABC': 9, 'NEW': 1, 'XYZ': 5}",
        (
            "no bob@example.com: Shard 2 not available (it is in maintenance); nothing was "
            "written anywhere else"
        ),
        "active shards: [1, 2, 3]",
        "zoe@example.com signs up and gets the emptiest, shard 3",
    ):
        assert line in done.stdout
    final = done.stdout[done.stdout.index("Where the rows are now") :]
    assert [int(found) for found in re.findall(r"(\d+) (?:accounts|trades)", final)] == [4, 6, 2, 1]
    assert "\033[" not in done.stdout, "no colours where there is no terminal"


@pytest.fixture
def web(sandbox: Sandbox) -> Iterator[str]:
    port = free_port(sandbox)
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "web:app",
        "--port",
        str(port),
        "--log-level",
        "warning",
    ]
    with subprocess.Popen(command, env=environment(sandbox)) as process:
        try:
            wait_for_port(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            assert process.wait(20) in (0, -signal.SIGTERM)


def test_the_web_handler_serves_many_users_at_once(web: str, sandbox: Sandbox) -> None:
    def ask(path: str) -> Any:
        with urllib.request.urlopen(web + path, timeout=20) as response:
            return json.load(response)

    with concurrent.futures.ThreadPoolExecutor(20) as executor:
        buying = [
            f"/buy?email={name}@x&symbol=S{number}&quantity={number}"
            for number in range(1, 21)
            for name in ("ann", "bob")
        ]
        assert len([answer["trade"] for answer in executor.map(ask, buying)]) == 40
    for shard_id, name in ((1, "ann"), (2, "bob")):
        assert ask(f"/portfolio?email={name}@x") == {
            f"S{number}": number for number in range(1, 21)
        }
        assert sandbox.run(
            shard_id, "SELECT COUNT(*) AS n, COUNT(DISTINCT user_id) AS users FROM trades"
        ) == [{"n": 20, "users": 1}]


def test_a_shard_that_dies_is_a_503_to_its_users_alone(web: str, sandbox: Sandbox) -> None:
    sandbox.servers[2].kill()
    try:
        with urllib.request.urlopen(f"{web}/portfolio?email=ann@x", timeout=20) as response:
            assert response.status == 200
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{web}/portfolio?email=bob@x", timeout=20)
        with caught.value as response:
            assert (response.code, json.load(response)) == (503, {"error": "Shard 2 not available"})
    finally:
        sandbox.servers[2].start()


@pytest.fixture
def redis(tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[str]:
    program = shutil.which("redis-server")
    assert program, (
        "no redis-server on PATH: install it (Debian and Ubuntu: apt-get install redis-server)"
    )
    port = free_port(request.node)
    command = [
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        str(tmp_path),
        "--loglevel",
        "warning",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for_port(port, process)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


CLIENT = """
import json, tasks
names = ("ann", "bob")
sent = [tasks.buy.delay(f"{names[number % 2]}@x", "TASK", 1) for number in range(40)]
done = [task.get(timeout=40) for task in sent]
try:
    tasks.fail.delay(2).get(timeout=20)
except Exception as error:
    failure = [type(error).__name__, error.args[0] if error.args else None, str(error)]
print(json.dumps([done, failure]))
"""


def test_celery_workers_write_through_services_of_their_own(sandbox: Sandbox, redis: str) -> None:
    for shard_id in (1, 2):
        sandbox.run(shard_id, "DELETE FROM trades WHERE symbol = 'TASK'")
    variables = environment(sandbox, BROKER_URL=redis)
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "tasks",
        "worker",
        "--pool",
        "prefork",
        "--concurrency",
        "2",
        "--loglevel",
        "ERROR",
    ]
    with subprocess.Popen(
        command, env=variables, cwd=EXAMPLES, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as worker:
        try:
            asked = subprocess.run(
                [sys.executable, "-c", CLIENT],
                env=variables,
                capture_output=True,
                text=True,
                check=False,
                timeout=90,
            )
            assert asked.returncode == 0, asked.stderr
            done, failure = json.loads(asked.stdout)
        finally:
            worker.terminate()
            worker.wait(30)
    assert len({answer["process"] for answer in done}) == 2
    assert len(done) == 40
    for shard_id in (1, 2):
        assert sandbox.run(shard_id, "SELECT COUNT(*) AS n FROM trades WHERE symbol = 'TASK'") == [
            {"n": 20}
        ]
    assert failure[0] == "ProgrammingError"
    assert "nowhere" in failure[2]
