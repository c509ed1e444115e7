"""The stores of idle connections, in both implementations, with connections that only
record what is asked of them.
"""

import threading
import time
from types import SimpleNamespace
from typing import Any, Callable, List

import pytest

from dualdb import DatabaseConfig
from dualdb.async_impl.idle_store import IdleStore as AsyncStore
from dualdb.sync_impl import idle_store

CONFIG = DatabaseConfig(database="d", user="u", password="", pool_size=5)


class Connection:
    """What a store uses of a connection."""

    handle: Any = None

    def __init__(self, config: Any = None) -> None:
        self.open = True
        self.budget: Any = None
        self.retired = False
        self.lifetime = SimpleNamespace(last_used_at=0.0)

    def close(self) -> None:
        self.open = False


@pytest.fixture(params=["threads", "asyncio"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(idle_store, "Connection", Connection)
    return idle_store.IdleStore(CONFIG) if request.param == "threads" else AsyncStore(CONFIG)


@pytest.fixture
def threaded(monkeypatch: pytest.MonkeyPatch) -> idle_store.IdleStore:
    monkeypatch.setattr(idle_store, "Connection", Connection)
    return idle_store.IdleStore(CONFIG)


def filled(store: Any, count: int) -> List[Any]:
    """Connections in the order in which they were put into a store."""
    made = [store.take() or Connection() for _ in range(count)]
    for connection in made:
        store.put(connection)
    return made


def test_the_last_one_is_used_and_the_first_one_is_pruned(store: Any) -> None:
    first, second, third = filled(store, 3)
    for _ in range(3):
        last = store.take()
        assert last is third
        store.put(last)
    before = time.monotonic()
    second.lifetime.last_used_at = before
    third.lifetime.last_used_at = before + 1
    assert store.prune(before) == [first]
    assert store.prune(before + 2) == [second, third]
    assert store.count() == 0


def test_a_server_s_oldest_connection_is_given_up(store: Any) -> None:
    budgets = [object(), object()]
    made = filled(store, 4)
    for number, connection in enumerate(made):
        connection.budget = budgets[number % 2]
    assert store.oldest_at(budgets[1]) == made[1].lifetime.last_used_at
    assert store.take_oldest(budgets[1]) is made[1]
    assert store.oldest_at(budgets[1]) == made[3].lifetime.last_used_at
    assert store.take_oldest() is made[0]
    assert store.resize(CONFIG.model_copy(update={"pool_size": 1})) == [made[2]]
    assert store.is_full
    made[3].retired = True
    assert store.prune_retired() == [made[3]]
    assert (store.count(), store.take_oldest(), store.oldest_at(budgets[1])) == (0, None, None)


def test_a_closed_connection_is_not_stored(threaded: idle_store.IdleStore) -> None:
    connection: Any = threaded.take()
    connection.open = False
    threaded.put(connection)
    assert threaded.count() == 0
    assert threaded.take() is not connection


def test_a_new_connection_keeps_nobody_waiting(
    threaded: idle_store.IdleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making one may run the garbage collector, and so the finalizers of callers, which
    wait for whoever stores a connection.
    """
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Connection):
        def __init__(self, config: Any = None) -> None:
            begun.set()
            assert go_on.wait(30)
            super().__init__(config)

    filled(threaded, 1)
    connection = threaded.take()
    monkeypatch.setattr(idle_store, "Connection", Slow)
    maker = threading.Thread(target=threaded.take, daemon=True)
    maker.start()
    assert begun.wait(30)
    other = threading.Thread(target=lambda: threaded.put(connection), daemon=True)
    other.start()
    other.join(10)
    stored = threaded.count()
    go_on.set()
    maker.join(30)
    assert stored == 1


class TakenFrom(List[Any]):
    """The stored ones, of which another thread takes one after they were listed."""

    def __init__(self, stored: List[Any], take: Callable[[], Any]) -> None:
        super().__init__(stored)
        self._take = take

    def __iter__(self) -> Any:
        listed = self.copy()
        self._take()
        return iter(listed)


@pytest.mark.parametrize(
    ("use", "left"),
    [
        (lambda store: store.count(), 2),
        (lambda store: store.oldest_at(None), 2),
        (lambda store: store.take_oldest(), 1),
        (lambda store: store.prune(float("inf")), 0),
        (lambda store: store.prune_retired(), 2),
    ],
)
def test_a_connection_may_be_taken_meanwhile(
    threaded: idle_store.IdleStore, use: Callable[[Any], Any], left: int
) -> None:
    made = filled(threaded, 3)
    taken: List[Any] = []
    cache = TakenFrom(threaded._pool._idle_cache, lambda: taken.append(threaded.take()))
    threaded._pool._idle_cache = cache
    given = use(threaded)
    assert taken == [made[2]]
    assert given not in (made[2], [made[2]])
    assert len(cache) == left
