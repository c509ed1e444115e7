"""Reading the shard table: strange rows, unchanged rows, and lost ones."""

import datetime
import logging
import math
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, Dict, List

import pytest
from scripted_plans import executor, follow
from shard_rows import BASE, row

from dualdb.errors import InternalError, ProgrammingError, TooManyRows
from dualdb.execution import steps
from dualdb.topology import shard_map, table_reader
from dualdb.topology.passwords import AllowedReferences
from dualdb.topology.shard_map import RowRules, Status
from dualdb.topology.table_reader import TableReader

CLIENT = executor(name="global", shard_id=None)


def reader(**options: Any) -> TableReader:
    return TableReader("t", RowRules(BASE), **options)


def read(there: TableReader, rows: List[Dict[str, Any]], **options: Any) -> Any:
    """Have the reader find these rows; the map afterwards."""
    plan = there.read(CLIENT, **options)
    step = next(plan)
    assert isinstance(step, steps.Execute)
    try:
        step = plan.send([SimpleNamespace(rows=rows, lastrowid=0)])
        while True:
            assert step == steps.Sleep(0.0), "nothing else than letting others run"
            step = plan.send(None)
    except StopIteration:
        return there.loaded


STRANGE = [
    Decimal(10) ** 30,
    Decimal("1e999999"),
    Decimal("NaN"),
    Decimal("sNaN"),
    Decimal("Infinity"),
    math.nan,
    math.inf,
    10**30,
    -(10**30),
    "9" * 5000,
    "x" * 1_000_000,
    "\x00",
    b"\xff\xfe",
    datetime.date(2024, 1, 1),
    datetime.timedelta(1),
    [],
    {},
    object(),
]


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize(
    "column", ["shard_id", "port", "max_connections", "host", "status", "password", "shard_name"]
)
def test_a_strange_value_hurts_its_row_alone(column: str, value: Any) -> None:
    there = reader()
    rows = [row(1), {**row(2), column: value}, row(3)]
    found = read(there, rows)
    assert {1, 3} <= set(found.active)
    assert len("".join(found.problems)) < 500, "a message that a log can hold"
    assert read(there, rows) is found, "the same rows are the same map"
    assert read(there, [row(1), row(2), row(3)]).active == [1, 2, 3]


def test_a_row_that_has_not_changed_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: List[Any] = []
    real = shard_map.parse_row

    def counted(raw: Any, rules: Any) -> Any:
        parsed.append(raw["shard_id"])
        return real(raw, rules)

    monkeypatch.setattr(table_reader, "parse_row", counted)
    there = reader()
    first = read(there, [row(1), row(2), row(3)])
    assert parsed == [1, 2, 3]
    parsed.clear()
    assert read(there, [row(1), row(2), row(3)]) is first
    assert parsed == []
    second = read(there, [row(1), row(2, port=3307), row(4)])
    assert parsed == [2, 4]
    assert second.shards[1] is first.shards[1]
    assert (sorted(second.shards), second.version) == ([1, 2, 4], 2)
    again = read(there, [row(1), row(2, port=3307, updated_at="now"), row(4)])
    assert again is second, "a column that means nothing here"


def test_a_row_that_cannot_be_used_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    there = reader()
    rows = [row(1, password="env:DUALDB_LATE")]
    assert read(there, rows).shards[1].status is Status.INVALID
    monkeypatch.setenv("DUALDB_LATE", "one")
    assert read(there, rows).shards[1].config.reveal_password() == "one"
    monkeypatch.setenv("DUALDB_LATE", "two")
    assert read(there, rows).shards[1].config.reveal_password() == "two"


def test_a_table_that_loses_all_its_shards_is_not_believed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    there = reader()
    with caplog.at_level(logging.WARNING, "dualdb"):
        assert read(there, []).shards == {}, "it may begin empty"
        assert there.warning is None
        full = read(there, [row(1), row(2, database_name="s2")])
        for rows in ([], [], [row("x")]):
            assert read(there, rows) is full
        assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "no shards any more" in str(there.warning)
    assert (there.failure, there.failures) == (None, 0)
    assert read(there, [row(2)]).active == [2], "a table with a shard is believed"
    assert there.warning is None
    assert read(there, [], force=True).active == []


def test_what_fails_is_an_error_of_the_tree_and_leaves_the_map() -> None:
    there = reader(max_shards=2)
    known = read(there, [row(1)])
    for failure, cls in (
        (ProgrammingError(1054, "no column"), ProgrammingError),
        (ProgrammingError(1146, "no table"), ProgrammingError),
        (RuntimeError("odd"), InternalError),
        (MemoryError(), InternalError),
    ):
        with pytest.raises(cls):
            follow(there.read(CLIENT), [(steps.Execute, failure)])
    with pytest.raises(TooManyRows, match=r"more than 2 rows \(max_shards\)"):
        follow(there.read(CLIENT), [(steps.Execute, TooManyRows("there are more"))])
    assert there.loaded is known
    assert there.failures == 5
    assert "max_shards" in str(there.failure)
    assert read(there, [row(1)]) is known
    assert (there.failure, there.failures) == (None, 0)


def test_a_password_of_a_row_is_in_no_local_variable_of_an_error() -> None:
    there = reader()
    plan = there.read(CLIENT)
    next(plan)
    there.rules = None  # type: ignore[assignment]
    with pytest.raises(InternalError) as caught:
        plan.send([SimpleNamespace(rows=[row(1, password="canary-7")], lastrowid=0)])
    trace: Any = caught.tb
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.endswith("topology/table_reader.py") and (
            "tests" not in trace.tb_frame.f_code.co_filename
        ):
            assert "canary-7" not in repr(trace.tb_frame.f_locals)
        trace = trace.tb_next


def test_references_of_rows_are_those_that_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_SECRET", "canary")
    monkeypatch.setenv("DUALDB_SHARD_2", "fine")
    allowed = AllowedReferences(["env:DUALDB_*"])
    there = TableReader("t", RowRules(BASE, references=allowed))
    found = read(
        there,
        [
            row(1, password="env:CLOUD_SECRET"),
            row(2, password="env:DUALDB_SHARD_2"),
            row(3, password="file:/etc/hostname"),
        ],
    )
    assert found.active == [2]
    assert "allowed_references" in str(found.shards[1].reason)
    assert "canary" not in repr(found)
