"""What every verb gives, on every target, in both implementations."""

import datetime
import decimal
import pickle
from typing import Any, Callable

import pytest
from apis import Verbs, session
from database_servers import Databases
from io_kinds import IO

from dualdb import (
    CallResult,
    InOut,
    IntegrityError,
    Out,
    ParameterError,
    ProgrammingError,
    RowCount,
    TooManyRows,
    TransactionAborted,
)


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (None, "global"),
        (1, 1),
        (2, 2),
        (session(2), 2),
        (session(None), "global"),
        (object(), "global"),
    ],
)
def test_a_target_is_the_database_it_names(
    api: Verbs, databases: Databases, where: Any, name: Any
) -> None:
    assert api.rows(where, "SELECT DATABASE() AS name") == [
        {"name": databases.config_of(name).database}
    ]


@pytest.mark.parametrize("where", [None, 1, session(2)])
def test_rows_are_a_list_of_dicts_and_counts_are_affected_rows(
    api: Verbs, databases: Databases, where: Any
) -> None:
    api.count(where, "CREATE TEMPORARY TABLE IF NOT EXISTS unused (a INT)")
    table = "accounts" if where is None else "trades"
    insert = (
        "INSERT INTO accounts (email) VALUES (%s)"
        if where is None
        else "INSERT INTO trades (user_id, symbol, qty) VALUES (7, %s, 1)"
    )
    assert [api.count(where, insert, (text,)) for text in "abc"] == [1, 1, 1]
    ids = [row["id"] for row in api.rows(where, f"SELECT id FROM {table} ORDER BY id")]
    rows = api.rows(where, f"SELECT id FROM {table} WHERE id > %s ORDER BY id", (ids[0],))
    assert rows == [{"id": ids[1]}, {"id": ids[2]}]
    assert type(rows) is list
    assert api.rows(where, f"SELECT id FROM {table} WHERE FALSE") == []
    assert type(api.rows(where, f"SELECT id FROM {table} WHERE FALSE")) is list
    assert api.count(where, f"DELETE FROM {table} WHERE id <= %s", [ids[1]]) == 2
    assert api.rows(where, f"DELETE FROM {table}") == []


def test_one_row_and_one_value(db: Any, call: IO) -> None:
    two = "SELECT 1 AS a, 'x' AS b UNION SELECT 2, 'y' ORDER BY a"
    assert call(db.query_one(two)) == {"a": 1, "b": "x"}
    assert call(db.query_value(two)) == 1
    assert call(db.shard(1).query_one("SELECT id FROM trades")) is None
    assert call(db.shard(1).query_value("SELECT id FROM trades")) is None
    assert call(db.session(session(1)).query_value("SELECT %(x)s", {"x": "v"})) == "v"


def test_a_write_gives_its_own_id(db: Any, call: IO) -> None:
    insert = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, 'A', 1)"
    count = call(db.shard(1).execute(insert, (7,)))
    assert (count, count.lastrowid) == (1, 1)
    assert isinstance(count, RowCount)
    second = call(db.shard(1).execute(insert, (8,))).lastrowid
    assert second == call(db.shard(1).query_value("SELECT id FROM trades WHERE user_id = 8")) > 1
    assert call(db.shard(1).execute("UPDATE trades SET qty = 5")).lastrowid == 0
    many = call(
        db.shard(1).execute(
            "INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'B', 1), (1, 'C', 1)"
        )
    )
    assert many == 2
    assert many.lastrowid == call(
        db.shard(1).query_value("SELECT id FROM trades WHERE symbol = 'B'")
    )


@pytest.mark.parametrize("where", [1, session(1)])
def test_a_procedure_s_sets_come_in_one_list_through_the_legacy_form(
    api: Verbs, where: Any
) -> None:
    for symbol, qty in (("B", 2), ("A", 1), ("B", 3)):
        assert api.procedure(where, "buy", (7, symbol, qty)) == []
    assert api.procedure(where, "portfolio", (7,)) == [
        {"ErrorCode": 0, "trades": 3},
        {"symbol": "A", "qty": decimal.Decimal(1)},
        {"symbol": "B", "qty": decimal.Decimal(5)},
    ]
    assert api.procedure(where, "portfolio", [8]) == [{"ErrorCode": 0, "trades": 0}]


def test_a_call_keeps_every_set_apart(db: Any, call: IO) -> None:
    call(db.shard(1).call("buy", (7, "A", 1)))
    result = call(db.shard(1).call("portfolio", (7,)))
    assert isinstance(result, CallResult)
    assert [found.columns for found in result.sets] == [
        ("ErrorCode", "trades"),
        ("symbol", "qty"),
        ("id",),
    ]
    assert [len(found.rows) for found in result.sets] == [1, 1, 0]
    assert call(db.shard(1).call("buy", (7, "A", 1))) == CallResult([], {}, 1, 0)


def test_out_and_inout_values_by_name(db: Any, call: IO) -> None:
    call(db.shard(1).call("buy", (7, "A", 4)))
    result = call(db.shard(1).call("totals", (7, Out("count"), InOut("sum", 10))))
    assert result.out == {"count": 1, "sum": 14}
    assert [found.rows for found in result.sets] == [[{"user_id": 7}]]
    assert call(db.shard(1).call("totals", (None, Out("count"), InOut("sum", None)))).out == {
        "count": 0,
        "sum": None,
    }


def test_out_parameters_given_as_values_work_as_with_callproc(api: Verbs) -> None:
    assert api.procedure(1, "totals", (7, 0, 10)) == [{"user_id": 7}]


def test_a_procedure_that_calls_another_wrongly_is_executed_once(
    api: Verbs, databases: Databases
) -> None:
    with pytest.raises(Exception, match="not a variable"):
        api.procedure(1, "insert_and_call_wrongly", (7,))
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == 1


def test_a_procedure_in_another_schema(db: Any, call: IO, databases: Databases) -> None:
    schema = databases.config_of(1).database
    assert call(db.shard(1).call(f"{schema}.portfolio", (7,))).rows == [
        {"ErrorCode": 0, "trades": 0}
    ]


def test_an_error_after_a_set_leaves_a_usable_connection_and_one_row(
    api: Verbs, databases: Databases
) -> None:
    for _ in range(2):
        with pytest.raises(Exception, match="no more") as caught:
            api.procedure(1, "insert_and_fail", (7,))
        assert caught.value.args == (1644, "no more")
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == 2, "each was executed once"
    assert api.rows(1, "SELECT 1 AS one") == [{"one": 1}]


VALUES = [
    (None, "NULL", None),
    (True, "%s", 1),
    (2**63, "%s", 2**63),
    (-1.5, "%s", -1.5),
    (
        decimal.Decimal("12345678901234567890.123456789"),
        "%s",
        decimal.Decimal("12345678901234567890.123456789"),
    ),
    ('it\'s \\ "x" \0 \n %s 한국어 🙂', "%s", 'it\'s \\ "x" \0 \n %s 한국어 🙂'),
    (b"\x00\xff'\\", "%s", b"\x00\xff'\\"),
    (datetime.date(2026, 2, 28), "CAST(%s AS DATE)", datetime.date(2026, 2, 28)),
    (
        datetime.datetime(2026, 2, 28, 1, 2, 3, 456789),
        "CAST(%s AS DATETIME(6))",
        datetime.datetime(2026, 2, 28, 1, 2, 3, 456789),
    ),
    (
        datetime.timedelta(hours=-30, seconds=-1),
        "CAST(%s AS TIME)",
        datetime.timedelta(hours=-30, seconds=-1),
    ),
    (
        datetime.time(23, 59, 59),
        "CAST(%s AS TIME)",
        datetime.timedelta(hours=23, minutes=59, seconds=59),
    ),
    ("0000-00-00", "CAST(%s AS CHAR)", "0000-00-00"),
]


@pytest.mark.parametrize(("value", "sql", "back"), VALUES, ids=lambda value: str(value)[:20])
def test_values_travel_there_and_back(db: Any, call: IO, value: Any, sql: str, back: Any) -> None:
    found = call(db.query_value(f"SELECT {sql if value is not None else '%s'} AS v", (value,)))
    assert found == back
    assert type(found) is type(back)


def test_in_lists(api: Verbs) -> None:
    numbers = (
        "SELECT n FROM (SELECT 1 AS n UNION SELECT 2 UNION SELECT 3) AS t WHERE n {} %s ORDER BY n"
    )
    assert api.rows(None, numbers.format("IN"), ([1, 3],)) == [{"n": 1}, {"n": 3}]
    assert api.rows(None, numbers.format("IN"), ([],)) == []
    assert len(api.rows(None, numbers.format("NOT IN"), ((),))) == 3


def test_percent_signs(db: Any, call: IO) -> None:
    assert call(db.query_value("SELECT 'a%b'")) == "a%b"
    assert call(db.query_value("SELECT CONCAT('a%%b', %s)", ("%",))) == "a%b%"
    assert call(db.execute_query("SELECT 'a%%b' AS v")) == [{"v": "a%b"}]


def test_two_columns_of_one_name(api: Verbs) -> None:
    rows = api.rows(None, "SELECT a.n, b.n FROM (SELECT 1 AS n) AS a, (SELECT 2 AS n) AS b")
    assert rows == [{"n": 1, "b.n": 2}]


def test_a_backslash_is_a_backslash_in_either_sql_mode(databases: Databases, io: IO) -> None:
    client = io.Client(databases.config_of("global", pool_size=1, max_overflow=0))
    with io.entered(client.transaction()) as tx:
        io(tx.execute("SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES'"))
        assert io(tx.query_value("SELECT %s", ("it's \\",))) == "it's \\"
    io(client.close_pool())


def test_statements_are_never_two(api: Verbs, databases: Databases) -> None:
    with pytest.raises(ProgrammingError) as caught:
        api.rows(None, "SELECT 1; DELETE FROM accounts")
    assert caught.value.errno == 1064


def test_what_the_server_says_keeps_its_class_and_code(api: Verbs) -> None:
    api.count(None, "INSERT INTO accounts (email) VALUES ('a')")
    with pytest.raises(IntegrityError) as caught:
        api.count(None, "INSERT INTO accounts (email) VALUES ('a')")
    error = caught.value
    assert (error.errno, error.sqlstate, error.target, error.shard_id) == (
        1062,
        "23000",
        "global",
        None,
    )
    assert str(error).endswith("[global]")
    assert type(error.driver_error).__module__ == "pymysql.err"
    with pytest.raises(ProgrammingError) as caught_too:
        api.rows(2, "SELECT * FROM nowhere")
    assert (caught_too.value.errno, caught_too.value.shard_id) == (1146, 2)


def test_both_implementations_open_the_same_session(
    db: Any, call: IO, databases: Databases
) -> None:
    session_is = call(
        db.query_one(
            "SELECT @@autocommit AS a, @@character_set_client AS c, "
            "@@collation_connection AS n, @@sql_mode AS m, @@time_zone AS z"
        )
    )
    import pymysql

    config = databases.config
    plain = pymysql.connect(
        host=config.host,
        port=config.port,
        user=config.user,
        password=config.reveal_password(),
        database=config.database,
        autocommit=True,
    )
    with plain, plain.cursor() as cursor:
        cursor.execute(
            "SELECT @@autocommit, @@character_set_client, @@collation_connection, "
            "@@sql_mode, @@time_zone"
        )
        assert tuple(session_is.values()) == cursor.fetchone()


NUMBERS = " UNION ALL ".join([f"SELECT {number} AS n" for number in range(10)])
HUGE = (
    "SELECT REPEAT('x', 1000) AS x FROM "
    f"{', '.join([f'({NUMBERS}) t{number}' for number in range(6)])}"
)


def test_no_more_rows_than_are_asked_for(db: Any, io: IO, databases: Databases) -> None:
    target = db.shard(1)
    assert io(target.query("SELECT 1 AS n UNION SELECT 2", max_rows=2)) == [{"n": 1}, {"n": 2}]
    opened = target_opened(db)
    with pytest.raises(TooManyRows, match="more than 1 rows") as caught:
        io(target.query("SELECT 1 AS n UNION SELECT 2", max_rows=1))
    assert (caught.value.shard_id, caught.value.sent) == (1, True)
    # the answer was short, and the connection is kept
    assert target_opened(db) == opened
    with pytest.raises(TooManyRows):
        # a gigabyte, if it were all waited for
        io(target.query_column(HUGE, max_rows=1000))
    assert io(target.query_value("SELECT 7")) == 7
    with io.entered(target.transaction()) as tx:
        with pytest.raises(TooManyRows):
            io(tx.query("SELECT 1 UNION SELECT 2", max_rows=1))
        io(tx.execute("INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 1)"))
    with pytest.raises(TransactionAborted), io.entered(target.transaction()) as tx:
        io(tx.execute("INSERT INTO trades (user_id, symbol, qty) VALUES (2, 'A', 1)"))
        with pytest.raises(TooManyRows):
            io(tx.query(HUGE, max_rows=1000))
        io(tx.query("SELECT 1"))
    assert databases.value(1, "SELECT COUNT(*) FROM trades") == 1
    wrong: Any
    for wrong in (-1, "9", True, 1.5):
        with pytest.raises(ParameterError, match="max_rows"):
            io(target.query("SELECT 1", max_rows=wrong))


@pytest.mark.parametrize("row_decoder", ["auto", "python", "driver"])
def test_a_limit_on_rows_for_all_that_is_read_whole(
    databases: Databases, open_service: Callable[..., Any], io: IO, row_decoder: str
) -> None:
    for shard_id in (3, 4, 5, 6):
        databases.set_row(shard_id)
    db = open_service(
        databases.config.model_copy(update={"max_rows": 5, "row_decoder": row_decoder})
    )
    assert len(db.shard_clients) == 6  # the service's own reading has no limit
    assert len(io(db.query("SELECT 1 UNION SELECT 2"))) == 2
    six = "SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6"
    with pytest.raises(TooManyRows):
        io(db.query(six))
    assert len(io(db.query(six, max_rows=6))) == 6
    assert len(io.collect(db.stream(six))) == 6
    databases.run(
        1,
        "INSERT INTO trades (user_id, symbol, qty) VALUES "
        + ", ".join([f"(7, 'S{number}', 1)" for number in range(6)]),
    )
    with pytest.raises(TooManyRows):
        io(db.shard(1).call("portfolio", (7,)))
    # What writes is performed to its end.
    insert = "INSERT INTO trades (user_id, symbol, qty) VALUES (8, 'A', 1)"
    rows = "SELECT REPEAT('x', 1000) FROM trades a, trades b, trades c, trades d"
    databases.run(
        1,
        "DROP PROCEDURE IF EXISTS works",
        f"CREATE PROCEDURE works() BEGIN {insert}; {rows}; {insert}; END",
    )
    with pytest.raises(TooManyRows):
        io(db.shard(1).call("works"))
    assert databases.value(1, "SELECT COUNT(*) FROM trades WHERE user_id = 8") == 2


def target_opened(db: Any) -> int:
    return int(db.stats()[1].opened)


def test_a_count_carries_the_id_and_the_warnings(db: Any, io: IO) -> None:
    made = io(
        db.shard(1).execute(
            "INSERT IGNORE INTO trades (id, user_id, symbol, qty) VALUES (5, 1, REPEAT('x', 50), 1)"
        )
    )
    assert (made, made.lastrowid, made.warnings) == (1, 5, 1)
    assert io(db.shard(1).execute("DELETE FROM trades")).warnings == 0
    many = io(
        db.shard(1).executemany(
            "INSERT IGNORE INTO trades (user_id, symbol, qty) VALUES (%s, %s, 1)",
            [(1, "y" * 50)] * 3,
        )
    )
    assert (many, many.warnings) == (3, 3)
    assert pickle.loads(pickle.dumps(many)).warnings == 3
