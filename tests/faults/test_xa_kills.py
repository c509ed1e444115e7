"""Transactions on several databases whose process or whose servers are killed at every
step: all or nothing, and nothing is left.
"""

import os
import pathlib
import subprocess
import sys
from typing import Any, Dict, Iterator, List

import pytest
import xa_steps
from io_kinds import IO
from waiting import wait_for
from xa_steps import MOMENTS, STEPS, Steps

import dualdb
from dualdb import DatabaseService
from dualdb.coordination import protocol
from dualdb.sandbox import Sandbox

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
NAMES: List[Any] = ["global", 1, 2]


class Servers:
    """Three servers with a table of amounts; a killed one can be started again."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        for name in NAMES:
            sandbox.run(
                name,
                "CREATE TABLE amounts (id INT PRIMARY KEY, value INT NOT NULL) ENGINE=InnoDB",
                "INSERT INTO amounts VALUES (1, 0)",
            )
        version = sandbox.run(1, "SELECT VERSION() AS v")[0]["v"]
        self.steps = STEPS["MariaDB" if "MariaDB" in version else "MySQL"]
        with DatabaseService(sandbox.config, xa_grace=None) as db:
            with db.shards([1, 2]).transaction() as tx:  # makes the log
                for part in (tx[1], tx[2]):
                    part.execute(xa_steps.ADD, (0,))

    def amounts(self) -> List[int]:
        """The value on the global database and on both shards."""
        return [self.sandbox.run(name, "SELECT value FROM amounts")[0]["value"] for name in NAMES]

    def prepared(self) -> List[int]:
        """How much is prepared on each shard."""
        return [len(self.sandbox.run(name, "XA RECOVER")) for name in (1, 2)]

    def locked(self) -> bool:
        """Whether somebody still has a lock on a row."""
        change = "UPDATE amounts SET value = value + 0 WHERE id = 1"
        for name in NAMES:
            self.sandbox.run(name, "SET innodb_lock_wait_timeout = 2", change)
        return False

    def restart(self, name: Any) -> None:
        """Kill a server, and start it again."""
        self.sandbox.servers[name].kill()
        self.sandbox.servers[name].start()

    def run_killed(self, kind: str, number: int, moment: str, parts: str) -> int:
        """Run a process that kills itself at a step; return its exit code."""
        environ: Dict[str, str] = {
            **os.environ,
            "DUALDB_URL": self.sandbox.url,
            "PYTHONPATH": str(ROOT),
        }
        program = [sys.executable, xa_steps.__file__, kind, str(number), moment, parts]
        done = subprocess.run(
            program, env=environ, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode in (-9, 0), done.stderr
        return done.returncode


@pytest.fixture(scope="module")
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    program = request.config.getoption("--server-program")
    with Sandbox(2, program=program, options=["--log-bin=binlog"]) as sandbox:
        yield Servers(sandbox)


def check_all_or_nothing(before: List[int], after: List[int], *, global_: bool) -> bool:
    """Whether it was committed."""
    changes = [new - old for new, old in zip(after, before)]
    committed = [1 if global_ else 0, 1, -1]
    assert changes in ([0, 0, 0], committed), f"halves: {changes}"
    return changes == committed


@pytest.mark.parametrize("parts", ["shards", "global"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_process_is_killed_at_every_step(
    servers: Servers, kind: str, moment: str, parts: str
) -> None:
    outcomes = []
    with DatabaseService(servers.sandbox.config, xa_grace=None) as db:
        for number in range(servers.steps + 2):
            before = servers.amounts()
            code = servers.run_killed(kind, number, moment, parts)
            wait_for(lambda: db.coordination.recover(grace=0).ok)
            after = servers.amounts()
            assert servers.prepared() == [0, 0], number
            assert not servers.locked()
            outcomes.append(check_all_or_nothing(before, after, global_=parts == "global"))
            if code == 0:  # there is no such step
                assert outcomes[-1]
                break
        else:
            raise AssertionError("more steps than were expected")
    assert len(outcomes) > servers.steps
    # nothing is committed before the decision, and everything after it
    assert outcomes == sorted(outcomes)
    assert not any(outcomes[: servers.steps - 3])


def test_a_killed_process_is_finished_by_others_in_the_background(servers: Servers) -> None:
    with DatabaseService(servers.sandbox.config, xa_grace=2.0):
        with DatabaseService(servers.sandbox.config, xa_grace=2.0):
            decision = servers.steps - 3
            for number in (decision, decision + 2):
                before = servers.amounts()
                assert servers.run_killed("sync", number, "before", "shards") == -9
                assert servers.prepared() != [0, 0]
                wait_for(lambda: servers.prepared() == [0, 0], 7.0)
                committed = check_all_or_nothing(before, servers.amounts(), global_=False)
                assert committed is (number > decision)


@pytest.mark.parametrize("stays_down", [False, True], ids=["comes back", "stays down"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("global_", [False, True], ids=["shards", "global too"])
def test_a_server_is_killed_at_every_step(
    servers: Servers,
    io: IO,
    monkeypatch: pytest.MonkeyPatch,
    name: Any,
    global_: bool,
    stays_down: bool,
) -> None:
    monkeypatch.setattr(protocol, "SETTLE_TIMEOUT", 1.0)
    killed = servers.sandbox.servers[name]
    outcomes = []
    for number in range(servers.steps + (1 if global_ else 0)):
        before = servers.amounts()
        db = io.Service(servers.sandbox.config, xa_grace=None)
        io(db.init_service())
        try:
            with monkeypatch.context() as patched:
                kill = killed.kill if stays_down else lambda: servers.restart(name)
                steps = Steps(number, MOMENTS[number % 2], kill)
                steps.install(patched.setattr)
                outcomes.append(run(io, db, global_=global_))
        finally:
            killed.start()
            io(db.close_service())
        with DatabaseService(servers.sandbox.config, xa_grace=None) as other:
            wait_for(lambda: other.coordination.recover(grace=0).ok)
        committed = check_all_or_nothing(before, servers.amounts(), global_=global_)
        assert servers.prepared() == [0, 0]
        assert not servers.locked()
        assert outcomes[-1] in (committed, None), (number, outcomes[-1], committed)
    assert True in outcomes  # after the decision it is committed, whatever is killed
    if name != "global":
        assert None not in outcomes  # the decision is known whatever happens to a shard


def run(io: IO, db: Any, *, global_: bool) -> Any:
    """What the caller learns: it is committed, it is not, or that is not known."""
    try:
        with io.entered(db.shards([1, 2]).transaction(mode="xa", global_=global_)) as tx:
            for part, amount in xa_steps.transfer(tx, global_=global_):
                io(part.execute(xa_steps.ADD, (amount,)))
    except dualdb.OutcomeUnknown:
        return None
    except dualdb.Error:
        return False
    return True
