"""Advisory locks: nobody else holds one meanwhile, and whoever has lost it gets an
error.
"""

import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import DeadlineExceeded, InterfaceError, LockLost, LockNotAvailable, ParameterError


@pytest.fixture
def client(databases: Databases, io: IO) -> Iterator[Any]:
    made = io.Client(databases.config_of(1, pool_size=3, max_overflow=0))
    yield made
    io(made.close_pool())
    assert made.stats().in_use == 0


class Locks:
    """What the locks of shard 1's engine are: sessions' locks, or rows in a table where
    GET_LOCK does not exclude everybody.

    Args:
        databases: The databases.
        io: The implementation.
    """

    def __init__(self, databases: Databases, io: IO) -> None:
        self._databases = databases
        self._io = io
        self.are_rows = databases.profile.row_locks

    def is_free(self, name: str) -> bool:
        """Nobody holds the lock."""
        written = f"CONVERT(X'{name.encode().hex()}' USING utf8mb4)"
        if not self.are_rows:
            return bool(self._databases.value(1, f"SELECT IS_FREE_LOCK({written})"))
        held = f"SELECT COUNT(*) FROM dualdb_lock WHERE name = {written}"
        return not self._databases.value(1, f"{held} AND until > UTC_TIMESTAMP(6)")

    def take_away(self, name: str) -> None:
        """Make the holder lose the lock, and wait until it is free."""
        if self.are_rows:
            self._databases.run(1, self.released_by_sql(name))
            return
        holder = f"SELECT IS_USED_LOCK('{name}')"
        self._databases.run(1, f"KILL {self._databases.value(1, holder)}")
        self._io.wait_for(lambda: self._databases.value(1, holder) is None)

    def end_lease(self, name: str) -> None:
        """Let the time of a row pass."""
        past = "UTC_TIMESTAMP(6) - INTERVAL 1 SECOND"
        self._databases.run(1, f"UPDATE dualdb_lock SET until = {past} WHERE name = '{name}'")

    def released_by_sql(self, name: str) -> str:
        """The statement that frees a lock in its own session."""
        if self.are_rows:
            return f"DELETE FROM dualdb_lock WHERE name = '{name}'"
        return f"DO RELEASE_LOCK('{name}')"


@pytest.fixture
def locks(databases: Databases, io: IO) -> Locks:
    return Locks(databases, io)


def test_it_is_held_inside_its_block_alone(client: Any, io: IO, locks: Locks) -> None:
    lock = client.lock("it's a \\ lock", timeout=0)
    with io.entered(lock) as held:
        assert held is lock
        assert not locks.is_free("it's a \\ lock")
        io(lock.check())
        io(lock.check())
        with pytest.raises(InterfaceError):
            io.entered(lock).__enter__()
    assert locks.is_free("it's a \\ lock")
    with pytest.raises(InterfaceError):
        io(lock.check())
    with io.entered(lock):  # and again
        assert client.stats().in_use == 1
    with pytest.raises(ZeroDivisionError), io.entered(client.lock("other", timeout=0)):
        raise ZeroDivisionError
    assert locks.is_free("other")
    # The session is as it was.
    assert io(client.query_value("SELECT @@SESSION.wait_timeout = @@GLOBAL.wait_timeout"))


@pytest.mark.slow
@pytest.mark.parametrize("timeout", [0, 0.3, 1])
def test_a_second_one_waits_in_vain(
    client: Any, io: IO, databases: Databases, timeout: float
) -> None:
    with io.entered(client.lock("mine", timeout=0)):
        before = time.monotonic()
        with pytest.raises(LockNotAvailable) as caught:
            io.entered(client.lock("mine", timeout=timeout)).__enter__()
        assert time.monotonic() - before >= timeout
        assert (caught.value.retryable, caught.value.target) == (True, client.name)
        with io.entered(client.lock("another", timeout=0)):
            pass
    assert client.stats().opened <= 2


def held_for(io: IO, client: Any, seconds: float) -> Any:
    """A call that waits for the lock and holds it for so long; from when to when."""

    def body(lock: Any) -> Any:
        began = time.monotonic()
        yield io.pause(seconds)
        return began, time.monotonic()

    return io.block(lambda: client.lock("taken", timeout=30), body)


@pytest.mark.slow
def test_who_waits_gets_it_afterwards(client: Any, io: IO) -> None:
    one, other = sorted(io.concurrently([held_for(io, client, 0.2)] * 2))
    assert one[1] < other[0]


@pytest.mark.slow
def test_a_read_timeout_is_not_in_its_way(io: IO, databases: Databases) -> None:
    client = io.Client(databases.config_of(1, pool_size=2, max_overflow=0, read_timeout=2.1))
    with io.entered(client.lock("slow", timeout=0)):
        with pytest.raises(LockNotAvailable):
            io.entered(client.lock("slow", timeout=3)).__enter__()
    io(client.close_pool())


@pytest.mark.slow
def test_a_deadline_and_an_interrupt_end_the_wait(
    client: Any, io: IO, databases: Databases
) -> None:
    with io.entered(client.lock("mine", timeout=0)) as lock:
        with pytest.raises(DeadlineExceeded), io.deadline(0.2):
            io.entered(client.lock("mine", timeout=30)).__enter__()
        waiting = client.lock("mine", timeout=30)
        io.interrupted(lambda: io.enter(waiting))
        io(lock.check())
    # Nobody holds it who does not wait any more.
    with io.entered(client.lock("mine", timeout=5)):
        pass


def test_a_deadline_that_passes_inside_does_not_lose_it(client: Any, io: IO, locks: Locks) -> None:
    with io.deadline(0.1), io.entered(client.lock("mine", timeout=0)) as lock:
        io.sleep(0.2)
        with pytest.raises(DeadlineExceeded) as caught:
            io(lock.check())
        assert (caught.value.sent, caught.value.target) == (False, client.name)
        assert not locks.is_free("mine")
    assert locks.is_free("mine")
    assert client.stats().opened == 1, "its session is used again"


@pytest.mark.slow
def test_a_lock_that_nobody_holds_any_more_is_released(client: Any, io: IO, locks: Locks) -> None:
    lock = client.lock("dropped", timeout=0)
    io(io.enter(lock))
    assert not locks.is_free("dropped")
    del lock
    gc.collect()
    if locks.are_rows:
        locks.end_lease("dropped")  # which nobody renews
        with io.entered(client.lock("dropped", timeout=0)):
            pass
    io.wait_for(lambda: locks.is_free("dropped"))
    assert io(client.query_value("SELECT 1")) == 1


def test_a_wait_in_vain_leaves_no_lock_behind(client: Any, io: IO, locks: Locks) -> None:
    with io.entered(client.lock("mine", timeout=0)):
        with pytest.raises(LockNotAvailable):
            io.entered(client.lock("mine", timeout=0)).__enter__()
    assert locks.is_free("mine")
    assert client.stats().in_use == 0


def test_whoever_has_lost_it_gets_an_error(client: Any, io: IO, locks: Locks) -> None:
    lock = client.lock("lost", timeout=0)
    with pytest.raises(LockLost) as caught, io.entered(lock):
        locks.take_away("lost")
        with pytest.raises(LockLost):
            io(lock.check())
    assert caught.value.target == client.name
    assert caught.value.retryable is False
    # An error of the block goes first.
    with pytest.raises(ZeroDivisionError), io.entered(client.lock("lost", timeout=0)):
        locks.take_away("lost")
        raise ZeroDivisionError
    with io.entered(client.lock("lost", timeout=0)):
        pass


def test_a_lock_that_was_let_go_behind_its_back_is_lost(client: Any, io: IO, locks: Locks) -> None:
    lock = client.lock("freed", timeout=0)
    with pytest.raises(LockLost), io.entered(lock):
        io(lock._connection.query(locks.released_by_sql("freed")))


@pytest.mark.parametrize("name", ["", "x" * 65, None, 7, b"x"])
def test_names_that_are_none(client: Any, io: IO, name: Any) -> None:
    with pytest.raises(ParameterError, match="1 to 64 characters"):
        client.lock(name, timeout=0)
    with pytest.raises(ParameterError, match="number of seconds"):
        client.lock("x", timeout=-1)


TORTURE = """
import asyncio, json, sys, time
import dualdb

config = dualdb.DatabaseConfig(**json.loads(sys.argv[2]), pool_size=1)
path = sys.argv[3]

def work():
    # Two at once would read the same number.
    with open(path) as file:
        number = int(file.read())
    time.sleep(0.001)
    with open(path, "w") as file:
        file.write(str(number + 1))

def threads():
    client = dualdb.MySQLClient(config)
    for _ in range(10):
        with client.lock("torture", timeout=120):
            work()
    client.close_pool()

async def tasks():
    client = dualdb.AsyncMySQLClient(config)
    for _ in range(10):
        async with client.lock("torture", timeout=120):
            work()
    await client.close_pool()

threads() if sys.argv[1] == "sync" else asyncio.run(tasks())
"""


@pytest.mark.slow
def test_no_two_of_sixteen_processes_hold_it(databases: Databases, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    config = databases.config_of(1)
    address = {
        **config.model_dump(include={"host", "port", "user", "database"}),
        "password": config.reveal_password(),
    }
    commands = [
        [
            sys.executable,
            "-c",
            TORTURE,
            ("sync", "async")[number % 2],
            json.dumps(address),
            str(counter),
        ]
        for number in range(16)
    ]
    for process in [subprocess.Popen(command) for command in commands]:
        assert process.wait(240) == 0
    assert counter.read_text() == "160"
