"""Fixtures for pytest: private servers, and services on them."""

from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Iterable, Iterator, Union

import pytest

from ..sandbox import Sandbox
from ..sync_impl import DatabaseService

if TYPE_CHECKING:
    from ..async_impl import DatabaseService as AsyncDatabaseService

try:  # asynchronous fixtures are its own; anyio's plugin takes pytest's
    import pytest_asyncio
except ImportError:
    _async_fixture: Callable[..., Any] = pytest.fixture
else:
    _async_fixture = pytest_asyncio.fixture


@pytest.fixture(scope="session")
def dualdb_shards() -> Union[int, Iterable[int]]:
    """The number of shards, or their ids; override it for others than 1 and 2."""
    return 2


@pytest.fixture(scope="session")
def dualdb_schema() -> Callable[[Sandbox], object]:
    """Takes the sandbox once, to create the tables; override it."""
    return lambda sandbox: None


@pytest.fixture(scope="session")
def dualdb_sandbox(
    dualdb_shards: Union[int, Iterable[int]], dualdb_schema: Callable[[Sandbox], object]
) -> Iterator[Sandbox]:
    """Private servers for all tests of this process, and so for one worker of
    pytest-xdist.
    """
    with Sandbox(dualdb_shards) as sandbox:
        dualdb_schema(sandbox)
        yield sandbox


@pytest.fixture
def sandbox(dualdb_sandbox: Sandbox) -> Iterator[Sandbox]:
    """The same servers, with empty tables after the test."""
    yield dualdb_sandbox
    dualdb_sandbox.reset()


@pytest.fixture
def db(dualdb_sandbox: Sandbox) -> Iterator[DatabaseService]:
    """An open service, in whose testing transaction the test runs: what is written
    through it vanishes.
    """
    with DatabaseService(dualdb_sandbox.config) as service, service.testing_transaction():
        yield service


@_async_fixture
async def adb(dualdb_sandbox: Sandbox) -> "AsyncIterator[AsyncDatabaseService]":
    """As ``db``, in asyncio; with pytest-asyncio or anyio's plugin."""
    from ..async_impl import DatabaseService as AsyncDatabaseService  # noqa: PLC0415

    service = AsyncDatabaseService(dualdb_sandbox.config)
    async with service, service.testing_transaction():
        yield service
