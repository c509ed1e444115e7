"""Tokens of what was written, and what a read has to see."""

import threading
from contextvars import copy_context
from typing import Any, Optional

import pytest

from dualdb import InterfaceError, ParameterError
from dualdb.endpoints import causal
from dualdb.endpoints.causal import CausalBlock, Needed, WriteLog, wait_statement
from dualdb.endpoints.gtid import parse_position
from dualdb.endpoints.profiles import PROFILES

UUID = "9f1c2f6e-0b5c-11ef-9d1a-0242ac120002"
OWNER = object()


def log(shard_id: Optional[int] = 1, address: str = "db1:3306/app", owner: Any = OWNER) -> WriteLog:
    return WriteLog(shard_id, address, owner)


def text_of(needed: Needed) -> Optional[str]:
    return None if needed.position is None else needed.position.text


def test_a_token_carries_what_was_written_inside_a_block() -> None:
    first, second, other = log(1), log(None, "global:3306/app"), log(1, owner=object())
    with CausalBlock(OWNER) as block:
        assert block.token == ""
        first.record("mariadb_gtid", "0-1-7")
        first.record("mariadb_gtid", "0-1-9")
        second.record("gtid", f"{UUID}:5")
        other.record("mariadb_gtid", "0-1-99")
        assert text_of(causal.needed_by(first)) == "0-1-9"
        token = block.token
    assert causal.needed_by(first) == Needed()
    with CausalBlock(OWNER, token, 0.5):
        assert causal.needed_by(log(1)) == Needed(
            True, False, parse_position("mariadb_gtid", "0-1-9"), 0.5
        )
        assert text_of(causal.needed_by(log(None, "global:3306/app"))) == f"{UUID}:5"
        assert causal.needed_by(log(2)) == Needed(anything=True, limit=0.5)


def test_a_shard_that_has_moved_is_read_on_its_primary() -> None:
    with CausalBlock(OWNER) as block:
        log().record("mariadb_gtid", "0-1-7")
        assert causal.needed_by(log(1, "db2:3306/app")).only_primary
        assert not causal.needed_by(log(1, "DB1:3306/app")).only_primary
        assert block.token


@pytest.mark.parametrize("later", [None, "0-1-8"])
def test_a_write_of_unknown_position_sends_reads_to_the_primary(later: Optional[str]) -> None:
    writes = log()
    with CausalBlock(OWNER) as block:
        writes.record("mariadb_gtid", "0-1-7")
        writes.record("gtid", None)
        writes.record("mariadb_gtid", later)
        assert causal.needed_by(writes).only_primary
    with CausalBlock(OWNER, block.token):
        assert causal.needed_by(writes).only_primary
    entry = writes.entry
    assert entry is not None
    assert entry.position is None


def test_all_writes_of_a_process() -> None:
    assert log().entry is None
    writes = log()
    for number in range(1, 400):
        writes.record("mariadb_gtid", f"0-1-{number}")
    entry = writes.entry
    assert entry is not None
    assert entry.position is not None
    assert entry.position.text == "0-1-399"
    assert len(writes._pending) == 0


def test_a_token_is_bounded_and_then_speaks_for_all_others() -> None:
    with CausalBlock(OWNER) as block:
        logs = [log(number, f"db{number}:3306/app") for number in range(300)]
        for number, each in enumerate(logs):
            each.record("gtid", f"{UUID[:-3]}{number:03d}:{10**15}")
        token = block.token
    assert len(token) <= 3600
    with CausalBlock(OWNER, token):
        assert text_of(causal.needed_by(logs[-1])) == f"{UUID[:-3]}299:{10**15}"
        assert not causal.needed_by(logs[-1]).only_primary
        assert causal.needed_by(logs[0]).only_primary


@pytest.mark.parametrize(
    "token",
    ["1", "0abc", "1!!!", "1" + "A" * 9000, "1bnVsbA", "1WzEsW11d", "1W2ZhbHNlLFtbMSwyLDNdXV0", 7],
)
def test_other_texts_are_refused(token: Any) -> None:
    with pytest.raises(ParameterError, match="causal_token"):
        CausalBlock(OWNER, token)


def test_children_write_into_the_block_of_their_parent() -> None:
    with CausalBlock(OWNER) as block:
        context = copy_context()
        thread = threading.Thread(target=lambda: context.run(log().record, "mariadb_gtid", "0-1-7"))
        thread.start()
        thread.join()
        assert text_of(causal.needed_by(log())) == "0-1-7"
    log().record("mariadb_gtid", "0-1-8")
    with CausalBlock(OWNER, block.token):
        assert text_of(causal.needed_by(log())) == "0-1-7", "it was written after the block"


def test_blocks_inside_each_other() -> None:
    with CausalBlock(OWNER) as outer, CausalBlock(OWNER, timeout=2) as inner:
        log().record("mariadb_gtid", "0-1-7")
        assert outer.token == inner.token != ""
        assert causal.needed_by(log()).limit == 2
        with pytest.raises(InterfaceError), inner:
            pass


@pytest.mark.parametrize(
    ("engine", "kind", "text", "limit", "statement"),
    [
        ("mysql", "gtid", f"{UUID}:5", 0.0, "WAIT_FOR_EXECUTED_GTID_SET"),
        ("group_replication", "gtid", f"{UUID}:5", 1.0, "WAIT_FOR_EXECUTED_GTID_SET"),
        ("mariadb", "mariadb_gtid", "0-1-7", 0.0, "MASTER_GTID_WAIT"),
        ("galera", "mariadb_gtid", "0-1-7", 1.0, "wsrep_sync_wait"),
        ("tidb", "gtid", f"{UUID}:5", 1.0, None),
        ("mysql", "mariadb_gtid", "0-1-7", 1.0, "SELECT 1"),
        ("vitess", "gtid", f"{UUID}:5", 1.0, "SELECT 1"),
    ],
)
def test_how_an_engine_is_waited_for(
    engine: str, kind: Any, text: str, limit: float, statement: Optional[str]
) -> None:
    needed = Needed(True, False, parse_position(kind, text))
    found = wait_statement(PROFILES[engine], needed, limit)
    assert (found is None) is (statement is None)
    if found is not None and statement is not None:
        assert statement in found[0]
        if "WAIT_FOR" in statement:
            assert found[1][1] > 0, "0 would wait without end"


@pytest.mark.parametrize("engine", ["mysql", "mariadb"])
def test_nothing_is_waited_for_where_nothing_was_written(engine: str) -> None:
    assert wait_statement(PROFILES[engine], Needed(anything=True), 1.0) is None
