"""Django behind gunicorn and uvicorn: models on shards, and their migrations."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Iterator

import httpx
import pytest
from database_servers import Databases
from programs import environment, url_of, web_server
from waiting import wait_for

pytestmark = pytest.mark.slow

TABLES = "order_lines, orders, django_migrations, django_content_type"
SETTINGS = {"DJANGO_SETTINGS_MODULE": "django_project.settings"}


def manage(servers: Databases, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "django", *arguments],
        env=environment(url_of(servers.config), **SETTINGS),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def drop_tables(servers: Databases) -> None:
    for shard_id in (1, 2):
        servers.run(shard_id, f"DROP TABLE IF EXISTS {TABLES}")


@pytest.fixture(scope="module")
def migrated(servers: Databases) -> Iterator[Databases]:
    servers.reset()
    drop_tables(servers)
    done = manage(servers, "migrate_shards")
    assert done.returncode == 0, done.stderr
    assert "shard 1:" in done.stdout
    yield servers
    drop_tables(servers)
    servers.drop_leftovers()


SERVERS = {
    "wsgi": ["--worker-class", "gthread", "--workers", "2", "--threads", "6", "--preload"],
    "asgi": [],
}


@pytest.fixture(scope="module", params=list(SERVERS))
def address(request: pytest.FixtureRequest, migrated: Databases) -> Iterator[str]:
    kind = request.param
    more = {**SETTINGS, "server": "gunicorn"} if kind == "wsgi" else SETTINGS
    url = url_of(migrated.config)
    module = f"django_project.{kind}:application"
    with web_server(module, url, *SERVERS[kind], **more) as address:
        yield address


@pytest.fixture
def client(address: str, migrated: Databases) -> Iterator[httpx.Client]:
    migrated.reset()
    for shard_id in (1, 2):
        migrated.run(shard_id, "DELETE FROM order_lines", "DELETE FROM orders")
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client


def test_models_are_on_the_shard_of_the_request(client: Any, migrated: Databases) -> None:
    def place(number: int) -> int:
        headers = {"X-Shard": str(1 + number % 2)}
        return int(client.get(f"/place/{number}", headers=headers).status_code)

    with ThreadPoolExecutor(12) as executor:
        statuses = list(executor.map(place, range(120)))
    assert statuses == [500 if number % 3 == 1 else 200 for number in range(120)]
    for shard_id in (1, 2):
        wanted = [n for n in range(120) if 1 + n % 2 == shard_id and n % 3 != 1]
        headers = {"X-Shard": str(shard_id)}
        found = client.get("/orders", headers=headers).json()
        alias = f"shard_{shard_id}"
        assert found["orders"] == [[n, "12:30:00", alias, [f"line of {n}"]] for n in wanted]
        assert found["database"] == migrated.config_of(shard_id).database
        in_tasks = client.get("/async/orders", headers=headers)
        if in_tasks.status_code == 200:  # the service of asyncio lives under ASGI alone
            assert in_tasks.json() == {"orders": wanted, "database": found["database"]}


def test_errors_of_the_mapper_are_answered(client: Any, migrated: Databases) -> None:
    headers = {"X-Shard": "1"}
    assert client.get("/duplicate", headers=headers).status_code == 409
    assert client.get("/slow", headers=headers).status_code == 504
    assert client.get("/orders").status_code == 500, "there is no scope"
    migrated.set_row(1, status="maintenance")
    found = wait_for(lambda: unavailable(client.get("/orders", headers=headers)))
    assert int(found.headers["retry-after"]) >= 1
    migrated.set_row(1, status="active")
    wait_for(lambda: client.get("/orders", headers=headers).status_code == 200)


def unavailable(response: httpx.Response) -> Any:
    return response if response.status_code == 503 else None


def test_a_shard_that_appears_is_served_without_a_restart(client: Any, migrated: Any) -> None:
    migrated.set_row(3, status="active")
    headers = {"X-Shard": "3"}
    assert client.get("/place/3", headers=headers).status_code == 200
    assert client.get("/orders", headers=headers).json()["orders"][0][2] == "shard_3"


def test_migrations(migrated: Databases) -> None:
    again = manage(migrated, "migrate_shards", "--shards", "2")
    assert "No migrations to apply" in again.stdout
    assert "shard 1:" not in again.stdout
    assert manage(migrated, "migrate_shards", "--shards", "9").returncode != 0
    tables = {next(iter(row.values())) for row in migrated.run(1, "SHOW TABLES")}
    assert {"orders", "order_lines"} <= tables
    assert "auth_user" not in tables
    assert manage(migrated, "check").returncode == 0
