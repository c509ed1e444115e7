"""Reference tables: the same rows in the global database and on every shard."""

from typing import Any, Iterator, List

import pytest

from dualdb import ParameterError

#: They make and compare many tables.
pytestmark = pytest.mark.slow

SCHEMA = """CREATE TABLE symbols (
    id INT, part INT, name VARCHAR(20) NOT NULL UNIQUE, price DECIMAL(9,2), ratio FLOAT,
    logo BLOB, info JSON, at TIMESTAMP NULL, twice DECIMAL(10,2) AS (price * 2) STORED,
    PRIMARY KEY (id, part)
)"""
COLUMNS = "(id, part, name, price, ratio, logo, info, at)"
ROWS = [
    "(0, 1, 'it''s %s', 1.25, 0.1234567, 0x00ff, '{\"a\": 1}', '2026-01-01 10:00:00')",
    "(1, 1, 'B', NULL, 1e20, NULL, NULL, NULL)",
    "(1, 2, 'C', -3, 16777216, '', '[]', '2026-06-01 10:00:00')",
]


@pytest.fixture
def reference(db: Any, databases: Any) -> Iterator[Any]:
    """Three rows in the global database, and none on the shards."""
    places = ["global", *databases.ids]
    for each in places:
        databases.run(each, "DROP TABLE IF EXISTS symbols", SCHEMA)
    insert = f"INSERT INTO symbols {COLUMNS} VALUES {', '.join(ROWS)}"
    databases.run("global", "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO'", insert)
    yield db.operations
    for each in places:
        databases.run(each, "DROP TABLE IF EXISTS symbols")


def numbers(report: Any) -> List[Any]:
    return [
        (each.database, each.inserted, each.updated, each.deleted, each.error)
        for each in report.results
    ]


def rows(databases: Any, place: Any) -> Any:
    return databases.run(place, "SELECT *, ratio * 1e0 AS exact FROM symbols ORDER BY id, part")


def test_what_differs_is_written_and_only_once(reference: Any, io: Any, databases: Any) -> None:
    planned = io(reference.reference_sync("symbols", dry_run=True))
    assert [each[1:] for each in numbers(planned)] == [(3, 0, 0, None)] * 2
    assert rows(databases, 1) == []
    done = io(reference.reference_sync(["symbols"]))
    assert (done.ok, done.changed) == (True, 6)
    assert rows(databases, 1) == rows(databases, 2) == rows(databases, "global")
    assert io(reference.reference_sync(["symbols"])).changed == 0
    databases.run(
        "global",
        "UPDATE symbols SET price = 7 WHERE part = 2",
        "DELETE FROM symbols WHERE name = 'B'",
        f"INSERT INTO symbols {COLUMNS} VALUES (5, 5, 'B', 1, 1, NULL, NULL, NULL)",
    )
    for chunk_rows in (1, 1000):
        done = io(reference.reference_sync("symbols", chunk_rows=chunk_rows, shards=1))
        assert [each[1:] for each in numbers(done)] in ([(1, 1, 1, None)], [(0, 0, 0, None)])
    assert rows(databases, 1) == rows(databases, "global")
    assert [
        each[1:] for each in numbers(io(reference.reference_sync("symbols", shards=[1, 2])))
    ] == [
        (0, 0, 0, None),
        (1, 1, 1, None),
    ]


def test_what_the_global_database_has_not_can_be_kept(
    reference: Any, io: Any, databases: Any
) -> None:
    databases.run(2, "INSERT INTO symbols (id, part, name) VALUES (9, 9, 'own')")
    done = io(reference.reference_sync("symbols", delete=False))
    assert [each[1:] for each in numbers(done)] == [(3, 0, 0, None)] * 2
    assert len(rows(databases, 2)) == 4
    assert io(reference.reference_sync("symbols")).changed == 1


def test_a_failure_leaves_the_shard_as_it_was_and_the_others_go_on(
    reference: Any, io: Any, databases: Any
) -> None:
    databases.run(1, "ALTER TABLE symbols MODIFY name VARCHAR(1) NOT NULL")
    done = io(reference.reference_sync("symbols"))
    assert [each.error is None for each in done.results] == [False, True]
    assert "DataError" in done.results[0].error
    assert (done.ok, rows(databases, 1)) == (False, [])
    databases.run(2, "DROP TABLE symbols")
    done = io(reference.reference_sync("symbols", shards=2))
    assert "has no table 'symbols'" in done.results[0].error


def test_wrong_arguments_are_refused(reference: Any, io: Any) -> None:
    for arguments, message in [
        (([],), "no table is named"),
        ((["nothing"],), "no table 'nothing'"),
    ]:
        with pytest.raises(ParameterError, match=message):
            io(reference.reference_sync(*arguments))
    with pytest.raises(ParameterError, match="none is named"):
        io(reference.reference_sync("symbols", shards="global"))
    with pytest.raises(ParameterError, match="chunk_rows"):
        io(reference.reference_sync("symbols", chunk_rows=0))
