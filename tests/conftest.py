"""Fixtures: the servers, the two colours, the two faces of the service."""

import random
from typing import Any, Callable, Iterator, Optional

import pytest
from apis import APIS
from database_servers import Databases
from io_kinds import IO_KINDS

from dualdb.execution import retry


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--server",
        action="append",
        default=[],
        metavar="NAME=[USER[:PASSWORD]@]HOST:PORT",
        help="run on this server and not on private ones; NAME is global, 1 or 2 (what is not "
        "given shares the first); the account must be able to create databases and users. Tests "
        "that kill servers start private ones all the same.",
    )
    parser.addoption(
        "--seed",
        type=int,
        metavar="NUMBER",
        help="of what is done at random, to repeat what failed",
    )


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Of what a test does at random; a failure prints it, and ``--seed`` does the same
    again.
    """
    given: Optional[int] = request.config.getoption("--seed")
    chosen = random.randrange(1_000_000) if given is None else given
    print(f"--seed={chosen}")  # noqa: T201
    return chosen


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Iterator[Databases]:
    with Databases(request.config.getoption("--server")) as databases:
        yield databases


@pytest.fixture
def databases(servers: Databases) -> Iterator[Databases]:
    """The global database and two shards, empty; put back in order afterwards."""
    servers.reset()
    yield servers


@pytest.fixture(params=list(IO_KINDS))
def io(request: pytest.FixtureRequest) -> Iterator[Any]:
    made: Any = IO_KINDS[request.param]()
    yield made
    made.close()


@pytest.fixture
def call(io: Any) -> Any:
    """``call(db.query(...))`` is the value, whichever colour made it."""
    return io


@pytest.fixture
def open_service(databases: Databases, io: Any) -> Iterator[Callable[..., Any]]:
    """A function that opens a service on the test's servers; all are closed
    afterwards.
    """
    opened = []

    def open_one(config: Any = None, **options: Any) -> Any:
        service = io.Service(config or databases.config, **options)
        opened.append(service)
        io(service.init_service())
        return service

    yield open_one
    for service in opened:
        io(service.close_service())


@pytest.fixture
def db(open_service: Callable[..., Any]) -> Any:
    """An open service."""
    return open_service()


@pytest.fixture(params=list(APIS))
def api(request: pytest.FixtureRequest, db: Any, io: Any) -> Any:
    """The same calls through the verbs and through the original service's methods."""
    return APIS[request.param](db, io)


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between attempts, for tests of what happens after the last."""
    monkeypatch.setattr(retry, "backoff", lambda attempt, **kwargs: 0.0)
