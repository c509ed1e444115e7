"""Transactions on several databases beside recoveries without any grace, and blocks
that are broken off at their end.
"""

import random
import threading
from typing import Any, Callable, Iterator, List

import pytest
from io_kinds import IO
from waiting import wait_for

import dualdb
from dualdb import DatabaseService
from dualdb.coordination import protocol
from dualdb.sandbox import Sandbox

pytestmark = pytest.mark.slow

ADD = "UPDATE amounts SET value = value + %s WHERE id = 1"


@pytest.fixture(scope="module")
def xa_servers(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox(2, program=request.config.getoption("--server-program")) as made:
        for name in ("global", 1, 2):
            made.run(
                name,
                "CREATE TABLE amounts (id INT PRIMARY KEY, value INT NOT NULL) ENGINE=InnoDB",
                "INSERT INTO amounts VALUES (1, 0), (2, 0), (3, 0), (4, 0)",
            )
        yield made


@pytest.fixture
def sandbox(xa_servers: Sandbox) -> Sandbox:
    for name in ("global", 1, 2):
        xa_servers.run(name, "UPDATE amounts SET value = 0")
    return xa_servers


def sums(sandbox: Sandbox) -> List[int]:
    query = "SELECT CAST(SUM(value) AS SIGNED) AS n FROM amounts"
    return [sandbox.run(name, query)[0]["n"] for name in ("global", 1, 2)]


def prepared(sandbox: Sandbox) -> int:
    return sum(len(sandbox.run(name, "XA RECOVER")) for name in (1, 2))


def test_coordinators_beside_recoveries_without_grace(sandbox: Sandbox, seed: int) -> None:
    outcomes = {True: 0, False: 0}
    lock = threading.Lock()
    stop = threading.Event()
    faults: List[BaseException] = []

    def transfers(number: int) -> None:
        chance = random.Random(seed + number)
        change = f"UPDATE amounts SET value = value + %s WHERE id = {number + 1}"
        for _ in range(40):
            try:
                with db.shards([1, 2]).transaction(global_=chance.random() < 0.5) as tx:
                    tx[1].execute(change, (1,))
                    tx[2].execute(change, (-1,))
                committed = True
            except dualdb.TransactionAborted:
                committed = False
            with lock:
                outcomes[committed] += 1

    def recoveries() -> None:
        while not stop.is_set():
            db.coordination.recover(grace=0)

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            faults.append(error)

    with DatabaseService(sandbox.config) as db:
        works = [lambda n=n: transfers(n) for n in range(4)]
        threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
        sweeper = threading.Thread(target=guarded, args=(recoveries,))
        for thread in [sweeper, *threads]:
            thread.start()
        for thread in threads:
            thread.join()
        stop.set()
        sweeper.join()
        assert not faults, faults
        wait_for(lambda: db.coordination.recover(grace=0).ok and not prepared(sandbox))
    assert sum(outcomes.values()) == 160
    assert sums(sandbox) == [0, outcomes[True], -outcomes[True]]
    assert outcomes[True] > 0


@pytest.mark.parametrize(("method", "word"), [("send_next", "PREPARE"), ("send", "COMMIT")])
def test_an_end_that_is_broken_off_is_finished_at_once(
    sandbox: Sandbox, io: IO, monkeypatch: pytest.MonkeyPatch, method: str, word: str
) -> None:
    """By the background of the same process, without any grace."""
    send = getattr(protocol.Part, method)

    def interrupted(self: Any, words: str, *args: Any) -> Any:
        result = yield from send(self, words, *args)
        if words == word:
            raise Stop
        return result

    db = io.Service(sandbox.config, xa_grace=1000.0)
    io(db.init_service())
    try:
        with monkeypatch.context() as patched:
            patched.setattr(protocol.Part, method, interrupted)
            with pytest.raises(Stop):
                with io.entered(db.shards([1, 2]).transaction()) as tx:
                    io(tx[1].execute(ADD, (1,)))
                    io(tx[2].execute(ADD, (-1,)))
        io.wait_for(lambda: not prepared(sandbox))
        assert sums(sandbox) == ([0, 1, -1] if word == "COMMIT" else [0, 0, 0])
    finally:
        io(db.close_service())


class Stop(Exception):
    """What the test's plan raises: no error of the package."""
