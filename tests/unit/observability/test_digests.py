"""Statements without their values, and the figures of each."""

import random
import string
from typing import List, Optional

import pytest

from dualdb.observability.digests import (
    OTHER,
    DigestTable,
    bucket_of,
    digest_of,
    percentile,
)
from dualdb.observability.events import QueryEvent
from dualdb.observability.observers import rows_of
from dualdb.results import CallResult, ResultSet


def text(sql: str) -> str:
    return digest_of(sql).statement


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (
            "SELECT a FROM t WHERE b IN (1, 2) AND c = 'x'",
            "SELECT a FROM t WHERE b IN (?) AND c = ?",
        ),
        ("select * from t where id=%s and x in (%s,%s)", "select * from t where id=? and x in (?)"),
        ("SELECT %(name)s, 7 %% 2", "SELECT ? % ?"),
        ("INSERT INTO t VALUES (1,NULL,-2),(3,TRUE,4)", "INSERT INTO t VALUES (?)"),
        ("INSERT INTO t1 (a, b) VALUES (%s, %s)", "INSERT INTO t1 (a, b) VALUES (?)"),
        ("SELECT t1.a, .5, 1e5, -3, 0xAF FROM t1 WHERE a=-1", "SELECT t1.a, ? FROM t1 WHERE a=?"),
        ("SELECT 'it''s', \"x\", N'a', x'00', _utf8mb4'b' 'c'", "SELECT ?"),
        ("SELECT 1 -- secret\n, a /* hidden */ # and this", "SELECT ?, a"),
        ("SELECT `a b` FROM db.t2 LIMIT 10, 20;", "SELECT `a b` FROM db.t2 LIMIT ?"),
        ("UPDATE t SET a = NULL WHERE b IS NULL", "UPDATE t SET a = ? WHERE b IS NULL"),
        ("SELECT a.1b, `1`, @v1, 2x FROM t_1", "SELECT a.1b, `1`, @v1, 2x FROM t_1"),
        ("CALL `p`", "CALL `p`"),
        ("", ""),
        ("'never closed", "?"),
    ],
)
def test_values_and_comments_are_left_out(sql: str, expected: str) -> None:
    assert text(sql) == expected
    assert len(digest_of(sql).id) == 16


@pytest.mark.parametrize("number", range(1, 40))
def test_lists_of_any_length_are_the_same(number: int) -> None:
    values = ", ".join(str(each) for each in range(number))
    assert text(f"SELECT a FROM t WHERE b IN ({values})") == "SELECT a FROM t WHERE b IN (?)"
    rows = ",".join(f"({each}, 'x{each}')" for each in range(number))
    assert text(f"INSERT INTO t (a, b) VALUES {rows}") == "INSERT INTO t (a, b) VALUES (?)"


def test_long_statements_are_cut_and_still_the_same() -> None:
    digests = {
        digest_of("INSERT INTO t (a, b) VALUES " + ",".join(["(1, 'text')"] * number))
        for number in range(3000, 3040)
    }
    assert [each.statement for each in digests] == ["INSERT INTO t (a, b) VALUES (?) ..."]
    assert len(text("SELECT " + "a + " * 5000 + "a")) < 1100


def test_no_value_is_left_in_any_sql_mode() -> None:
    """What a backslash means depends on the session."""
    for sql in (r"SELECT 'a\' , 'canary' , b", r"SELECT 'a\'', 'canary'", "SELECT '\\', canary '"):
        assert "canary" not in text(sql)
    assert text("SELECT '\\n', a") == "SELECT ?, a", "the same in both"


def test_canaries_are_never_in_a_digest(seed: int) -> None:
    choice = random.Random(seed)
    for _ in range(500):
        noise = "".join(choice.choices(string.ascii_letters + " \n%_;-#/*()", k=12))
        quote = choice.choice("'\"")
        sql = f"SELECT a, {quote}{noise}canary{noise}{quote} FROM t WHERE b = 4711"
        assert "canary" not in text(sql)
        assert "4711" not in text(sql)


def event(
    sql: str, seconds: float, rows: Optional[int] = 1, error: Optional[Exception] = None
) -> QueryEvent:
    digest = digest_of(sql)
    return QueryEvent(
        "query", "shard 1", 1, digest.statement, digest.id, 0.25 * seconds, 0.75 * seconds,
        rows, 1, error, False, None,  # type: ignore[arg-type]
    )  # fmt: skip


def test_figures_are_those_of_the_events() -> None:
    table = DigestTable()
    seconds = [each / 1000 for each in range(1, 101)]
    for number, each in enumerate(seconds):
        table.add(event(f"SELECT {number}", each, rows=2))
    table.add(event("SELECT a", 9.0, None, ValueError()))
    slow, quick = table.top(5)
    assert (slow.statement, slow.calls, slow.errors, slow.rows) == ("SELECT a", 1, 1, 0)
    assert (slow.total, slow.mean, slow.p95, slow.longest, slow.waited) == (9, 9, 9, 9, 2.25)
    assert (quick.statement, quick.calls, quick.errors, quick.rows) == ("SELECT ?", 100, 0, 200)
    assert quick.total == pytest.approx(sum(seconds))
    assert quick.mean == pytest.approx(sum(seconds) / 100)
    assert 0.095 <= quick.p95 <= 0.095 * 1.1
    assert table.top(1, "calls") == [quick]
    assert quick.as_dict()["digest"] == quick.digest


def test_memory_is_bounded() -> None:
    table = DigestTable(most=3)
    for name in "abcdefg":
        table.add(event(f"SELECT {name}", 1.0))
    table.add(event("SELECT a", 1.0))
    found = {each.statement: each.calls for each in table.top(100)}
    assert found == {"SELECT a": 2, "SELECT b": 1, "SELECT c": 1, OTHER.statement: 4}


def test_a_percentile_is_a_bucket_too_high_at_most(seed: int) -> None:
    choice = random.Random(seed)
    for _ in range(50):
        times = sorted(choice.lognormvariate(-6, 2) for _ in range(choice.randrange(1, 300)))
        buckets: List[int] = [bucket_of(each) for each in times]
        counts = {bucket: buckets.count(bucket) for bucket in buckets}
        exact = times[max(0, -(-len(times) * 95 // 100) - 1)]
        assert exact <= percentile(counts, 0.95) * (1 + 1e-9)
        assert percentile(counts, 0.95) <= max(exact, 1e-6) * 1.1


def test_rows_are_counted_in_each_kind_of_result() -> None:
    read = ResultSet([{"a": 1}, {"a": 2}], ("a",), 2, 0, 0)
    written = ResultSet([], (), 5, 0, 0)
    assert rows_of([read]) == 2
    assert rows_of([written]) == 5
    assert rows_of(CallResult([read, read], {}, 0, 0)) == 4
    assert rows_of((16_777_216, None)) == 0
