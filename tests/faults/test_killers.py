"""What ends late statements on the server survives whatever happens to it."""

import threading
from typing import Any, List

import pytest
from database_servers import Databases
from io_kinds import IO
from waiting import wait_for

import dualdb


@pytest.mark.slow
@pytest.mark.parametrize("failures", [1, 1000])
def test_slots_come_back_where_no_thread_can_be_started(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    start, left = threading.Thread.start, [failures]

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "dualdb-kill" and left[0]:
            left[0] -= 1
            raise RuntimeError("can't start new thread")
        start(thread)

    client = dualdb.MySQLClient(
        databases.config_of(1, pool_size=2, max_overflow=0, pool_timeout=5.0)
    )
    client.query("SELECT 1")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(4):
        with pytest.raises(dualdb.WriteTimedOut):
            client.query("SELECT SLEEP(5)", timeout=0.2)
    assert client.query_value("SELECT 7") == 7
    left[0] = 0
    client.pool.prune_idle()
    wait_for(lambda: client.stats().in_use == 0)
    client.close_pool()


def test_a_foreign_exception_does_not_end_the_killer(
    databases: Databases, io: IO, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = io.Client(databases.config_of(1, pool_size=1, max_overflow=0, pool_timeout=5.0))
    failed: List[int] = []

    def fail(*args: Any) -> Any:
        failed.append(1)
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(client.pool, "_send_kill", fail)
        for _ in range(2):
            with pytest.raises(dualdb.WriteTimedOut):
                io(client.query("SELECT SLEEP(1)", timeout=0.1))
            assert io(client.query_value("SELECT 7")) == 7
    assert len(failed) == 2
    assert caplog.text.count("could not be killed on the server") == 2
    with pytest.raises(dualdb.WriteTimedOut):
        io(client.query("SELECT SLEEP(20)", timeout=0.1))
    assert io(client.query_value("SELECT 7")) == 7
    io(client.close_pool())


def test_a_session_is_looked_for_once_where_there_is_one_server(
    databases: Databases, io: IO, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = io.Client(databases.config_of(1, pool_size=1, max_overflow=0, pool_timeout=5.0))
    attempts: List[int] = []
    send_kill = client.pool._send_kill

    def count(*args: Any) -> Any:
        attempts.append(1)
        return send_kill(*args)

    monkeypatch.setattr(client.pool, "_send_kill", count)
    with pytest.raises(dualdb.WriteTimedOut):
        io(client.query("SELECT RELEASE_ALL_LOCKS(), SLEEP(1)", timeout=0.2))
    assert io(client.query_value("SELECT 7")) == 7
    assert len(attempts) == 1
    assert "was not found on its server" in caplog.text
    io(client.close_pool())
