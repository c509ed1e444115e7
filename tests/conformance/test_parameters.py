"""Values that are sent come back, or are refused before anything is sent."""

import datetime
import decimal
import random
import uuid
from typing import Any, Callable, List

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import ParameterError
from dualdb.sql import lexer

AWARE = datetime.datetime(2024, 7, 2, 3, 4, 5, 6, tzinfo=datetime.timezone.utc)

VALUES: List[Any] = [
    0,
    -(2**63),
    2**64 - 1,
    10**60,
    0.1,
    -1.5e300,
    5e-324,
    decimal.Decimal("-123456789.000000001"),
    "it's \\ \"\n\r\0\x1a%s 🙂",
    "",
    b"\x00\xff'\\",
    datetime.date(1, 1, 1),
    datetime.datetime(9999, 12, 31, 23, 59, 59, 999999),
]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_comes_back(db: Any, io: IO, value: Any) -> None:
    found = io(db.query_value("SELECT %s", (value,)))
    if isinstance(value, datetime.date):
        found = io(db.query_value(f"SELECT CAST(%s AS {_type(value)})", (value,)))
    assert found == value


def _type(value: Any) -> str:
    return "DATETIME(6)" if isinstance(value, datetime.datetime) else "DATE"


@pytest.mark.parametrize("seconds", [0, -1, -0.25, 3661.5, -86400, 838 * 3600, -838 * 3600 - 1])
def test_an_interval_comes_back(db: Any, io: IO, seconds: float) -> None:
    delta = datetime.timedelta(seconds=seconds)
    assert io(db.query_value("SELECT CAST(%s AS TIME(6))", (delta,))) == delta


def test_a_value_that_is_refused_is_not_sent(db: Any, io: IO) -> None:
    class NoTime(datetime.datetime):
        """As pandas' NaT: a datetime by its class, and no time."""

        def __eq__(self, other: object) -> bool:
            return False

        __hash__ = datetime.datetime.__hash__

    calls: List[Callable[[], Any]] = [
        lambda: db.query("SELECT %s", (NoTime(1, 1, 1),)),
        lambda: db.executemany("INSERT INTO nowhere VALUES (%s)", [(NoTime(1, 1, 1),)]),
        lambda: db.call("nowhere", (NoTime(1, 1, 1),)),
    ]
    for call in calls:
        with pytest.raises(ParameterError, match="would be a different value"):
            io(call())


def test_an_aware_datetime_is_refused_without_a_time_zone_in_the_configuration(
    db: Any, io: IO
) -> None:
    calls: List[Callable[[], Any]] = [
        lambda: db.query("SELECT %s", (AWARE,)),
        lambda: db.executemany("INSERT INTO accounts (email) VALUES (%s)", [(AWARE,)]),
        lambda: db.call("nowhere", (AWARE,)),
    ]
    for call in calls:
        with pytest.raises(ParameterError, match=r"time_zone="):
            io(call())
    with io.entered(db.transaction()) as tx:
        with pytest.raises(ParameterError, match=r"time_zone="):
            io(tx.query("SELECT %s", (AWARE,)))
        assert io(tx.query_value("SELECT 1")) == 1


def test_an_aware_datetime_is_converted_to_the_time_zone_of_the_configuration(
    databases: Databases, open_service: Callable[..., Any], io: IO
) -> None:
    db = open_service(databases.config.model_copy(update={"time_zone": "+05:30"}))
    local = datetime.datetime(2024, 7, 2, 8, 34, 5, 6)
    sql = "SELECT CAST(%s AS DATETIME(6))"
    assert io(db.query_value(sql, (AWARE,))) == local
    assert [row for (row,) in io.collect(db.stream(sql, (AWARE,), as_=tuple))] == [local]
    io(db.executemany("INSERT INTO accounts (email) VALUES (%s)", [(AWARE,), (AWARE.date(),)]))
    emails = io(db.query_column("SELECT email FROM accounts ORDER BY id"))
    assert emails == ["2024-07-02 08:34:05.000006", "2024-07-02"]


def test_quoted_text_is_what_the_server_takes_for_it(db: Any, io: IO, seed: int) -> None:
    spread = random.Random(seed)
    pieces = ["''", '"', "`", "\\\\", "\\'", "a", "-- ", "#", "/*", "*/", "\n", "%"]
    texts = ["'" + "".join(spread.choices(pieces, k=6)) + "'" for _ in range(60)]
    for text in texts:
        assert [token.stop for token in lexer.tokens(text)] == [len(text)]
    sql = "SELECT " + ", ".join([f"{text} AS c{number}" for number, text in enumerate(texts)])
    assert len(io(db.query_one(sql))) == len(texts)


def test_comments_hide_what_the_server_does_not_see(db: Any, io: IO, seed: int) -> None:
    spread = random.Random(seed)
    comments = ["/* ' */", "-- it's\n", '# "\n', "/**/", "/* -- */", "--\t`\n", " ", "\n"]
    for number in range(30):
        before, after = ["".join(spread.choices(comments, k=3)) for _ in range(2)]
        sql = f"SELECT {before} {number} {after}"
        assert io(db.query_value(sql)) == number
        assert lexer.code(sql).split() == ["SELECT", str(number)]


def test_uuids_and_sets(db: Any, io: IO) -> None:
    key = uuid.UUID(int=5)
    assert io(db.query_value("SELECT %s", (key,))) == str(key)
    assert io(db.query_value("SELECT 2 IN %s", ({1, 2},))) == 1
