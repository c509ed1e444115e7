"""FastAPI behind a real uvicorn: whose database a request has, what it is answered, and
what is left when its client goes away.
"""

import asyncio
import contextlib
import json
from typing import Any, Dict, Iterator, List

import httpx
import pytest
from database_servers import Databases
from programs import url_of, web_server
from waiting import statements_running, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(servers: Databases) -> Iterator[str]:
    with web_server("fastapi_app:app", url_of(servers.config)) as address:
        yield address


@pytest.fixture
def client(address: str, databases: Databases) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client


async def at_once(address: str, requests: List[Any]) -> List[httpx.Response]:
    limits = httpx.Limits(max_connections=500)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
        calls = [client.request(method, path, headers=head) for method, path, head in requests]
        return list(await asyncio.gather(*calls))


def test_each_of_many_requests_has_its_own_shard(client: httpx.Client, databases: Any) -> None:
    paths = ["/database", "/async/database", "/scope/database"]
    requests = [
        ("GET", paths[number % 3], {"X-Shard": str(1 + number // 3 % 2)}) for number in range(500)
    ]
    wrong = [
        (request, response.text)
        for request, response in zip(requests, asyncio.run(at_once(str(client.base_url), requests)))
        if response.json()[0] != databases.config_of(int(request[2]["X-Shard"])).database
        or response.status_code != 200
    ]
    assert wrong == []


def test_without_a_session_it_is_the_global_database(client: Any, databases: Any) -> None:
    for path in ("/database", "/async/database", "/scope/database"):
        assert client.get(path).json()[0] == databases.config.database


def test_nothing_is_answered_200_and_missing(client: httpx.Client, databases: Any) -> None:
    """Of every four transactions one succeeds, one handler raises, one cannot be
    committed any more, one has a deadlock.
    """
    requests = [
        ("POST", f"{'/async' if number % 2 else ''}/buy/{number // 2}", {"X-Shard": "2"})
        for number in range(300)
    ]
    responses = asyncio.run(at_once(str(client.base_url), requests))
    done = [response.json()["number"] for response in responses if response.status_code == 200]
    stored = [row["user_id"] for row in databases.run(2, "SELECT user_id FROM trades")]
    assert sorted(done) == sorted(stored)
    assert len(done) == 76
    statuses = [response.status_code for response in responses]
    assert [statuses.count(status) for status in (418, 503, 409)] == [76, 74, 74]


def test_errors_are_answered_with_a_status_and_no_message(client: Any, databases: Any) -> None:
    databases.set_row(2, status="maintenance")
    found = wait_for(lambda: answered(client.get("/async/database", headers={"X-Shard": "2"}), 503))
    assert found.json() == {"error": "ShardUnavailable", "shard_id": 2, "retryable": True}
    assert int(found.headers["retry-after"]) >= 1
    wait_for(lambda: answered(client.get("/database", headers={"X-Shard": "2"}), 503))
    assert client.get("/slow").status_code == 504
    hasty = client.get("/async/sleep", headers={"X-Timeout": "0.2"})
    assert (hasty.status_code, hasty.json()["error"]) == (504, "WriteTimedOut")
    late = client.get("/async/stream/wrong")
    assert (late.status_code, late.json()["error"]) == (504, "WriteTimedOut")
    databases.set_row(2, status="active")
    for path in ("/database", "/async/database"):
        wait_for(lambda: answered(client.get(path, headers={"X-Shard": "2"}), 200))  # noqa: B023


def answered(response: httpx.Response, status: int) -> Any:
    return response if response.status_code == status else None


def leave_after(client: httpx.Client, path: str, size: int) -> None:
    """Ask, read so many bytes of the answer, and hang up."""
    with client.stream("GET", path, headers={"X-Shard": "1"}) as response:
        assert response.status_code == 200
        read = 0
        for chunk in response.iter_raw():
            read += len(chunk)
            if read >= size:
                break


def test_a_query_is_killed_when_its_client_leaves(client: Any, databases: Any) -> None:
    for _ in range(3):
        with contextlib.suppress(httpx.ReadTimeout):
            client.get("/async/sleep", headers={"X-Shard": "1"}, timeout=0.5)
    wait_for(lambda: statements_running(databases, 1, "SLEEP(50) /* web */") == 0)
    wait_for(lambda: client.get("/pools").json() == {"sync": 0, "async": 0})


@pytest.mark.parametrize("path", ["/stream", "/async/stream"])
def test_a_stream_frees_its_connection_when_its_client_leaves(
    client: Any, databases: Any, path: str
) -> None:
    values = ", ".join(["(1, 'MANY', 1)"] * 400)
    databases.run(1, f"INSERT INTO trades (user_id, symbol, qty) VALUES {values}")
    for _ in range(3):
        leave_after(client, f"{path}?rows=160000", 200_000)
    wait_for(lambda: client.get("/pools").json() == {"sync": 0, "async": 0})
    wait_for(lambda: statements_running(databases, 1, "CROSS JOIN") == 0)


@pytest.mark.parametrize("path", ["/stream", "/async/stream"])
def test_a_stream_is_sent_whole(client: Any, databases: Any, path: str) -> None:
    databases.run(1, "INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1), (2, 'B', 1)")
    for rows in (0, 1, 3):
        text = client.get(f"{path}?rows={rows}", headers={"X-Shard": "1"}).text
        found: List[Dict[str, Any]] = (
            json.loads(text)
            if "async" in path
            else [json.loads(line) for line in text.split("\n")[:-1]]
        )
        assert found == [{"x": "x" * 1000}] * rows


def test_shards_are_merged(client: Any, databases: Any) -> None:
    for shard_id, user_id in ((1, 9), (2, 8)):
        databases.run(
            shard_id, f"INSERT INTO trades (user_id, symbol, qty) VALUES ({user_id}, 'A', 1)"
        )
    assert client.get("/async/merge").text == '{"user_id":8}\n{"user_id":9}\n'


def test_a_body_that_nobody_reads_does_not_stop_a_request(client: Any, address: str) -> None:
    """More than the middleware reads ahead, and more than the server buffers."""
    body = b"x" * 5_000_000
    assert client.post("/async/body", content=body).json() == len(body)
    assert client.post("/buy/0", headers={"X-Shard": "1"}, content=body).status_code == 200
