"""A shard whose server goes away: what the log and the hooks get."""

import logging
from typing import Any, List

import pytest
from io_kinds import IO

from dualdb import ShardUnavailable
from dualdb.sandbox import Sandbox

#: They start servers of their own.
pytestmark = pytest.mark.slow


def test_an_outage_is_logged_once_and_posted_to_the_hooks(
    io: IO, caplog: pytest.LogCaptureFixture, quick_retries: None
) -> None:
    seen: List[Any] = []
    circuits: List[Any] = []
    with Sandbox(2) as sandbox:
        db = io.Service(sandbox.config)
        with io.entered(db):
            for name in ("shard_down", "shard_up"):
                db.on(name, lambda event: seen.append((event.name, event.shard_id, event.reason)))
            for circuit in ("circuit_opened", "circuit_closed"):
                db.on(circuit, lambda event: circuits.append((event.name, event.target)))
            io(db.shard(2).query("SELECT 1"))
            sandbox.servers[2].kill()
            with caplog.at_level(logging.INFO, "dualdb"):
                caplog.clear()
                for _ in range(20):
                    with pytest.raises(ShardUnavailable, match="^Shard 2 not available: "):
                        io(db.shard(2).query("SELECT 1"))
                io.wait_for(lambda: seen)
                assert db.status().shards[2].state == "unreachable"
                sandbox.servers[2].start()
                io.wait_for(lambda: len(seen) == 2)
                assert io(db.shard(2).query_value("SELECT 1")) == 1
            assert [(name, shard_id) for name, shard_id, _ in seen] == [
                ("shard_down", 2),
                ("shard_up", 2),
            ]
            assert circuits == [("circuit_opened", "shard 2"), ("circuit_closed", "shard 2")]
            assert "Can't connect" in seen[0][2]
            assert seen[1][2] is None
            records = [
                (record.levelname, record.getMessage().partition(":")[0])
                for record in caplog.records
                if "be reached" in record.getMessage()
            ]
            assert records == [
                ("WARNING", "shard 2 cannot be reached"),
                ("INFO", "shard 2 can be reached again"),
            ]
            assert [
                (record.name, vars(record)["event"], vars(record)["shard_id"])
                for record in caplog.records
                if vars(record).get("event", "").startswith("circuit_")
            ] == [("dualdb.pool", "circuit_opened", 2), ("dualdb.pool", "circuit_closed", 2)]


@pytest.mark.slow
def test_a_shard_that_is_down_at_the_start_is_logged_once(
    io: IO, caplog: pytest.LogCaptureFixture, quick_retries: None
) -> None:
    with Sandbox(1) as sandbox:
        sandbox.servers[1].kill()
        db = io.Service(sandbox.config)
        with caplog.at_level(logging.INFO, "dualdb"), io.entered(db):
            with pytest.raises(ShardUnavailable):
                io(db.shard(1).query("SELECT 1"))
        records = [
            (record.levelname, vars(record)["event"])
            for record in caplog.records
            if "cannot be reached" in record.getMessage()
        ]
        assert records == [("WARNING", "circuit_opened")]
