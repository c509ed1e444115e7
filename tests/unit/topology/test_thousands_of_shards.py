"""Thousands of shards in one process: what is done between two yields to the event
loop, and what an unused shard costs. Counted, not timed.
"""

import asyncio
import gc
import threading
import tracemalloc
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Type

import pytest
from shard_rows import BASE, row

from dualdb import errors
from dualdb.async_impl.client import DatabaseClient as AsyncDatabaseClient
from dualdb.async_impl.runner import run_step
from dualdb.execution import steps
from dualdb.lazily import made_on_first_use
from dualdb.sync_impl.client import DatabaseClient
from dualdb.topology import maintenance, shard_map
from dualdb.topology.maintenance import Maintenance, Timing
from dualdb.topology.manager import TopologyManager
from dualdb.topology.shard_map import RowRules
from dualdb.topology.slices import SLICE_ITEMS
from dualdb.topology.table_reader import TableReader

SHARDS = 3 * SLICE_ITEMS
LAZY = BASE.model_copy(update={"warm_up": 0})


@pytest.fixture(params=[DatabaseClient, AsyncDatabaseClient], ids=["threads", "asyncio"])
def client_class(request: pytest.FixtureRequest) -> Type[Any]:
    found: Type[Any] = request.param
    return found


class Counter:
    """What was done since the last yield to the event loop, and the most of it."""

    def __init__(self) -> None:
        self.now = self.most = self.total = 0

    def count(self, *_: object) -> None:
        self.now += 1
        self.total += 1
        self.most = max(self.most, self.now)


class Shards:
    """A reader, a manager and its maintenance over a table of rows in this process."""

    def __init__(self, client_class: Type[Any], base: Any = LAZY) -> None:
        self.rows: List[Dict[str, Any]] = []
        self.made: List[Any] = []
        self.done = Counter()
        self.reader = TableReader("t", RowRules(base))
        self.client_class = client_class
        self.manager = TopologyManager(self.new_client, 30.0)
        self.maintenance = Maintenance(
            self.manager, self.reader, lambda timeout: steps.Sleep(0), None, timing=Timing()
        )
        self.manager.open(client_class(base, name="global"))

    def new_client(self, config: Any, name: str, shard_id: Any) -> Any:
        self.done.count()
        return self.client_class(config, name=name, shard_id=shard_id)

    def follow(self, plan: Any, respond: Callable[[Any], Any] = lambda step: None) -> Any:
        """Run a plan; the event loop has its turn where it sleeps."""
        try:
            step = next(plan)
            while True:
                if isinstance(step, steps.Sleep):
                    self.done.now = 0
                step = plan.send(respond(step))
        except StopIteration as end:
            return end.value

    def read(self) -> None:
        rows = [dict(each) for each in self.rows]
        result = [SimpleNamespace(rows=rows, lastrowid=0)]
        self.follow(
            self.reader.read(self.manager.require_open().global_client),
            lambda step: result if isinstance(step, steps.Execute) else None,
        )

    def activate(self, counted: Any = ()) -> None:
        """Activate what was read, and count these steps."""
        self.follow(
            self.manager.activate(self.reader.loaded),
            lambda step: self.done.count() if isinstance(step, counted) else None,
        )

    def refresh(self) -> None:
        self.read()
        self.activate()

    @property
    def clients(self) -> List[Any]:
        return list(self.manager.require_open().clients.values())


@pytest.fixture
def shards(client_class: Type[Any]) -> Shards:
    found = Shards(client_class)
    found.rows = [row(number, host="127.0.0.1") for number in range(1, SHARDS + 1)]
    return found


def test_clients_are_made_in_slices(shards: Shards) -> None:
    shards.refresh()
    assert shards.done.total == SHARDS
    # a slice may also end because its time is over
    assert 0 < shards.done.most <= SLICE_ITEMS


def test_rows_are_parsed_in_slices(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shard_map.parse_row

    def counted(raw: Any, rules: Any) -> Any:
        shards.done.count()
        return real(raw, rules)

    monkeypatch.setattr("dualdb.topology.table_reader.parse_row", counted)
    shards.read()
    assert shards.done.total == SHARDS
    assert shards.done.most <= SLICE_ITEMS


@pytest.mark.parametrize(
    ("kind", "change"),
    [(steps.CallHooks, {"status": "readonly"}), (steps.Resize, {"max_connections": 3})],
)
def test_what_changes_is_done_in_slices(shards: Shards, kind: Any, change: Any) -> None:
    shards.refresh()
    shards.manager.observers.on("shard_state_changed", lambda event: None)
    shards.rows = [{**each, **change} for each in shards.rows]
    shards.read()
    shards.done = Counter()
    shards.activate(kind)
    assert shards.done.total == SHARDS
    assert shards.done.most <= SLICE_ITEMS
    assert {client.shard_read_only for client in shards.clients} == {kind is steps.CallHooks}


def test_a_table_that_has_not_changed_is_only_compared(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards.refresh()
    before = shards.reader.loaded

    def unexpected(*_: object) -> None:
        raise AssertionError("the map is built again")

    monkeypatch.setattr("dualdb.topology.table_reader.MapBuilder", unexpected)
    shards.refresh()
    assert shards.reader.loaded is before


def test_a_row_instead_of_another_one_is_a_change(shards: Shards) -> None:
    shards.rows = [row(1), row(2)]
    shards.refresh()
    shards.rows = [row(1), row(1)]
    shards.refresh()
    assert shards.reader.loaded.problems == ("shard 1: more than one row has this shard_id",)


# Pools that are made on first use.


def test_a_shard_that_is_not_used_has_no_pool(shards: Shards) -> None:
    shards.refresh()
    asked: List[Any] = []

    def respond(step: Any) -> Any:
        asked.append(type(step))
        return [None] * len(step.steps) if isinstance(step, steps.Gather) else None

    shards.follow(shards.maintenance.connect(tuple(range(1, SHARDS)), None), respond)
    assert shards.follow(shards.maintenance.unreachable_shards(), respond) == ()
    shards.follow(shards.maintenance._prune(), respond)
    assert set(asked) == {steps.Sleep}, "nothing is connected, nothing is pruned"
    first = shards.clients[0]
    assert first.stats() == first.pool.stats()
    assert [client.has_pool for client in shards.clients] == [True] + [False] * (SHARDS - 1)


def test_shards_that_are_warmed_up_are_connected(client_class: Type[Any]) -> None:
    shards = Shards(client_class, BASE)
    shards.rows = [row(1), row(2)]
    shards.refresh()
    assert shards.follow(shards.maintenance.unreachable_shards()) == (1, 2)


def test_an_unreachable_shard_is_connected_again(shards: Shards) -> None:
    shards.refresh()
    pool = shards.clients[4].pool
    pool.breaker.record_failure(0.0, errors.ConnectionFailed(2003, "refused"))
    assert shards.follow(shards.maintenance.unreachable_shards()) == (5,)
    assert pool._first_connections == 1, "although none are opened at first"


def test_the_start_does_not_wait_for_every_unreachable_shard(
    client_class: Type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_BATCH", 10)
    shards = Shards(client_class, BASE)
    shards.rows = [row(number) for number in range(100)]
    shards.refresh()
    now = 0.0
    shards.maintenance._clock = lambda: now
    opened: List[int] = []

    def respond(step: Any) -> Any:
        nonlocal now
        if not isinstance(step, steps.Gather):
            return None
        opens: Any = step.steps
        now += 5.0
        opened.extend(each.client.shard_id for each in opens)
        assert {each.until for each in opens} == {None}, "each has its own limit"
        return [errors.shard_unavailable(1, "refused")] * len(step.steps)

    shards.follow(shards.maintenance.connect(tuple(range(100)), None, 10.0), respond)
    assert opened == list(range(20))


@pytest.mark.slow
def test_an_unused_shard_takes_few_objects_and_little_memory(shards: Shards) -> None:
    gc.collect()
    objects = len(gc.get_objects())
    tracemalloc.start()
    try:
        shards.refresh()
        memory, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    gc.collect()
    assert len(shards.clients) == SHARDS
    # Each full collection visits every object; before Python 3.11 the attributes of an
    # instance are one more, and take more.
    assert (len(gc.get_objects()) - objects) / SHARDS < 12
    assert memory / SHARDS < 6_000


@pytest.mark.slow
def test_a_used_shard_takes_little_memory(shards: Shards) -> None:
    tracemalloc.start()
    try:
        shards.refresh()
        for client in shards.clients:
            client.pool.breaker.record_failure(0.0, errors.ConnectionFailed(2003, "refused"))
        memory, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert memory / SHARDS < 20_000


def test_a_client_that_was_closed_gets_no_open_pool(client_class: Type[Any]) -> None:
    client = client_class(BASE)
    client.close()
    assert not client.has_pool
    assert client.pool.closed


def test_a_pool_is_closed_though_whoever_made_it_was_interrupted(client_class: Type[Any]) -> None:
    client = client_class(BASE)
    interrupted = made_on_first_use(lambda client: client.make_pool(), _interrupt)
    interrupted.__set_name__(client_class, "pool")
    with pytest.raises(KeyboardInterrupt):
        interrupted.__get__(client)
    client.close()
    assert client.pool.closed


def _interrupt(*made: object) -> None:
    raise KeyboardInterrupt


def test_a_client_that_was_resized_gets_a_pool_of_that_size(client_class: Type[Any]) -> None:
    client = client_class(BASE)
    client.resize(BASE.with_sizes(3, 4))
    assert not client.has_pool
    assert (client.stats().limit, client.pool.stats().limit) == (7, 7)


@pytest.mark.parametrize("change", ["close", "resize"])
def test_what_is_done_while_the_pool_is_made_is_not_missed(
    client_class: Type[Any], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_class(BASE)
    real = client.make_pool

    def made_slowly() -> Any:
        pool = real()
        if change == "close":
            client.close()
        else:
            client.resize(BASE.with_sizes(3, 4))
        return pool

    monkeypatch.setattr(client, "make_pool", made_slowly)
    assert client.pool.closed is (change == "close")
    assert client.pool.stats().limit == client.config.pool_size + client.config.max_overflow


def test_threads_that_use_a_client_first_get_one_pool(client_class: Type[Any]) -> None:
    client = client_class(BASE)
    barrier = threading.Barrier(4)
    real = client.make_pool
    found: List[Any] = []

    def made_together() -> Any:
        barrier.wait(30)
        return real()

    client.make_pool = made_together
    threads = [threading.Thread(target=lambda: found.append(client.pool)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert {id(each) for each in found} == {id(client.pool)}


def test_closing_lets_the_event_loop_run_and_is_finished_when_it_is_cancelled() -> None:
    clients = [AsyncDatabaseClient(BASE) for _ in range(SHARDS)]
    closed_at_turns: List[int] = []

    def closed() -> int:
        return sum(client.closed for client in clients)

    async def main() -> None:
        closing = asyncio.ensure_future(_awaited(run_step(steps.Close(tuple(clients)))))
        await asyncio.sleep(0)
        closed_at_turns.append(closed())
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        closed_at_turns.append(closed())

    asyncio.run(main())
    assert 0 < closed_at_turns[0] <= SLICE_ITEMS
    assert closed_at_turns[1] == SHARDS


async def _awaited(awaitable: Any) -> Any:
    return await awaitable
