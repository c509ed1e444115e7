"""A primary that is lost or demoted while it is written to, with a replica that is
promoted: what is acknowledged is there, once.
"""

from typing import Any, Iterator

import pytest
from clusters import Load, ReplicaPair, replica_pair, stored_tokens
from io_kinds import IO

from dualdb.testing import FaultProxy

pytestmark = pytest.mark.slow


@pytest.fixture
def pair() -> Iterator[ReplicaPair]:
    with replica_pair() as pair:
        yield pair


@pytest.fixture
def client(pair: ReplicaPair, io: IO) -> Iterator[Any]:
    made = io.Client(pair.config())
    yield made
    io(made.close_pool())
    assert made.stats().in_use == 0


def test_a_planned_switch(pair: ReplicaPair, client: Any, io: IO) -> None:
    load = Load(io, client)
    old, new = pair.nodes

    def switch(load: Load) -> None:
        old.run("SET GLOBAL read_only = 1")
        pair.wait_until_caught_up(new, old)
        pair.promote(new)
        load.wait_for_writes()
        pair.follow(old, new)

    load.run(switch)
    pair.wait_until_caught_up(old, new)
    load.check_errors()
    load.check(new)
    load.check(old)


@pytest.mark.parametrize("fault", ["frozen", "behind a silent line"])
def test_a_primary_that_does_not_respond(pair: ReplicaPair, io: IO, fault: str) -> None:
    """What it was sent may be applied when it wakes, so it is not woken."""
    old, new = pair.nodes
    with FaultProxy("127.0.0.1", old.port) as proxy:
        hosts = f"127.0.0.1:{proxy.port},127.0.0.1:{new.port}"
        client = io.Client(pair.config(host=hosts, read_timeout=2.0))
        load = Load(io, client)

        def freeze(load: Load) -> None:
            pair.wait_until_caught_up(new, old)
            if fault == "frozen":
                old.pause()
            else:
                proxy.silent.set()
            pair.promote(new)
            load.wait_for_writes(50)
            old.resume()

        load.run(freeze)
        load.check_errors()
        io(client.close_pool())
    given_up = stored_tokens(old).keys() - stored_tokens(new).keys()
    load.check(new, given_up)


def test_a_primary_that_is_killed(pair: ReplicaPair, client: Any, io: IO) -> None:
    load = Load(io, client)
    old, new = pair.nodes

    def crash(load: Load) -> None:
        old.kill()
        pair.promote(new)
        load.wait_for_writes()

    load.run(crash)
    old.start()
    given_up = stored_tokens(old).keys() - stored_tokens(new).keys()
    load.check_errors()
    load.check(new, given_up)
