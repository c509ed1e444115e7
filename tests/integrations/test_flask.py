"""Flask behind a real gunicorn that loads the application before it forks."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Iterator

import httpx
import pytest
from database_servers import Databases
from programs import url_of, web_server
from waiting import statements_running, wait_for

pytestmark = pytest.mark.slow

WORKERS = {
    "gthread": ["--preload", "--worker-class", "gthread", "--workers", "2", "--threads", "8"],
    "sync": ["--preload", "--worker-class", "sync", "--workers", "3"],
    # gevent patches what a worker imports, and not what was imported before the fork
    "gevent": ["--worker-class", "gevent", "--workers", "2"],
}


@pytest.fixture(scope="module", params=list(WORKERS))
def address(request: pytest.FixtureRequest, servers: Databases) -> Iterator[str]:
    url = url_of(servers.config)
    arguments = [*WORKERS[request.param], "--timeout", "60"]
    more = {"PRELOAD": "yes"} if "--preload" in arguments else {}
    with web_server("flask_app:app", url, *arguments, server="gunicorn", **more) as address:
        yield address


@pytest.fixture
def client(address: str, databases: Databases) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client


def test_each_request_has_its_own_shard(client: Any, databases: Any) -> None:
    def wrong(number: int) -> bool:
        shard_id = 1 + number % 2
        name, _ = client.get("/database", headers={"X-Shard": str(shard_id)}).json()
        return bool(name != databases.config_of(shard_id).database)

    with ThreadPoolExecutor(16) as executor:
        assert sum(executor.map(wrong, range(300))) == 0


def test_errors_are_answered_and_end_the_blocks(client: Any) -> None:
    for path, status in (("slow", 504), ("sql", 500), ("other", 500)):
        response = client.get(f"/fail/{path}", headers={"X-Shard": "2"})
        assert response.status_code == status
    assert client.get("/other", headers={"X-Shard": "2"}).status_code == 500, "it is locked"
    for _ in range(10):
        assert client.get("/other").json() == [1]
        assert client.get("/database").status_code == 500, "there is no scope"


def test_a_stream_frees_its_connection_when_its_client_leaves(client: Any, databases: Any) -> None:
    values = ", ".join(["(1, 'MANY', 1)"] * 400)
    databases.run(1, f"INSERT INTO trades (user_id, symbol, qty) VALUES {values}")
    whole = client.get("/stream?rows=1000", headers={"X-Shard": "1"})
    assert [json.loads(line) for line in whole.text.splitlines()] == [{"x": "x" * 1000}] * 1000
    with client.stream("GET", "/stream?rows=160000", headers={"X-Shard": "1"}) as response:
        assert next(response.iter_raw())
    wait_for(lambda: statements_running(databases, 1, "CROSS JOIN") == 0)
    wait_for(lambda: client.get("/pools").json() == [0])
