"""A service of threads inside a running event loop."""

import asyncio
import pathlib
import warnings
from typing import Iterator

import pytest

from dualdb import DatabaseService, SyncInLoopWarning
from dualdb.testing import FakeRouter


@pytest.fixture
def db() -> Iterator[DatabaseService]:
    with FakeRouter(1) as fake, DatabaseService(fake.config) as service:
        yield service


def test_each_place_is_warned_of_once(db: DatabaseService) -> None:
    def begin() -> None:
        with db.transaction():
            pass

    async def main() -> None:
        for _ in range(3):
            db.query("SELECT 1")
        begin()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default", SyncInLoopWarning)
        asyncio.run(main())
        asyncio.run(main())
    assert [each.category for each in caught] == [SyncInLoopWarning] * 2
    assert {each.filename for each in caught} == {__file__}
    lines = pathlib.Path(__file__).read_text("utf-8").splitlines()
    assert "db.query" in lines[caught[0].lineno - 1]


def test_threads_of_a_loop_are_not(db: DatabaseService) -> None:
    async def main() -> None:
        assert await asyncio.to_thread(db.query_value, "SELECT 1") == 1
        with db.scope(shard_id=1):
            assert db.current.name == "shard 1"

    asyncio.run(main())
    assert db.query_value("SELECT 1") == 1
