"""Rows as what the caller wants them to be."""

import pickle
from dataclasses import dataclass
from typing import Any, Callable, List, NamedTuple

import pytest
from database_servers import Databases
from io_kinds import IO
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from dualdb import DatabaseError, ParameterError, RowError, TooManyRows


@dataclass
class Trade:
    user_id: int
    symbol: str
    qty: int = 0


class Held(NamedTuple):
    symbol: str
    qty: int


class Portfolio(BaseModel):
    user: int = Field(alias="user_id")
    symbol: str


class Keys(TypedDict):
    user_id: int
    symbol: str


SQL = "SELECT user_id, symbol, qty FROM trades ORDER BY user_id"
INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 5), (2, 'B', 6)"


@pytest.fixture
def client(databases: Databases, io: IO) -> Any:
    made = io.Client(databases.config_of(1, pool_size=1, max_overflow=0))
    yield made
    io(made.close_pool())


def test_every_target_makes_them(db: Any, io: IO, client: Any) -> None:
    io(client.execute(INSERT))
    with io.entered(client.transaction()) as tx, io.entered(db.shard(1).transaction()) as other:
        for target in (client, tx, db.shard(1), db.get_shard_client(1), other):
            assert io(target.query(SQL, as_=Trade)) == [Trade(1, "A", 5), Trade(2, "B", 6)]
            assert io(target.query_one(SQL, as_=Trade)) == Trade(1, "A", 5)
            assert io.collect(target.stream(SQL, as_=Trade)) == [
                Trade(1, "A", 5),
                Trade(2, "B", 6),
            ]
    assert io(db.query("SELECT 7 AS user_id, 'X' AS symbol", as_=Trade)) == [Trade(7, "X")]
    assert io(client.query_one(SQL + " LIMIT 0", as_=Trade)) is None
    assert io(client.query("DO 1", as_=Trade)) == io.collect(client.stream("DO 1", as_=Trade)) == []


@pytest.mark.parametrize(
    ("sql", "as_", "made"),
    [
        ("SELECT qty, symbol FROM trades WHERE user_id = %s", Held, Held("A", 5)),
        ("SELECT * FROM trades WHERE user_id = %s", Portfolio, Portfolio(user_id=1, symbol="A")),
        ("SELECT * FROM trades WHERE user_id = %s", Keys, {"user_id": 1, "symbol": "A"}),
        ("SELECT symbol, user_id, symbol FROM trades WHERE user_id = %s", tuple, ("A", 1, "A")),
        ("SELECT 1 AS a, %s AS a, 3 AS a, 4 AS a", tuple, (1, 1, 3, 4)),
    ],
)
def test_every_kind(client: Any, io: IO, sql: str, as_: Any, made: Any) -> None:
    io(client.execute(INSERT))
    assert io(client.query(sql, (1,), as_=as_)) == [made]
    assert io.collect(client.stream(sql, (1,), as_=as_)) == [made]
    assert type(io(client.query_one(sql, (1,), as_=as_))) is type(made)


def test_no_column_is_lost_in_a_dict(client: Any, io: IO) -> None:
    assert io(
        client.query_one("SELECT t.d, u.d, t.d FROM (SELECT 1 AS d) t, (SELECT 2 AS d) u")
    ) == {"d": 1, "u.d": 2, "t.d": 1}
    assert list(io(client.query_one("SELECT 1 AS a, 2 AS a, 3 AS a")).values()) == [1, 2, 3]


def test_rows_that_do_not_fit_leave_the_connection_usable(client: Any, io: IO) -> None:
    session = io(client.query_value("SELECT CONNECTION_ID()"))
    io(client.execute(INSERT))
    with pytest.raises(
        RowError, match="rows do not match Trade: no column for symbol; no field for the column x"
    ):
        io(client.query("SELECT user_id, 1 AS x FROM trades", as_=Trade))
    words = "SELECT user_id, IF(user_id = 1, 'A', NULL) AS symbol FROM trades ORDER BY user_id"
    for as_ in (Portfolio, Keys):
        with pytest.raises(
            RowError, match="row 1 .*symbol: Input should be a valid string"
        ) as caught:
            io(client.query(words, as_=as_))
        assert (caught.value.row, caught.value.columns) == (1, ("symbol",))
        assert io(client.query_one(words, as_=as_))
    assert io(client.query_value("SELECT CONNECTION_ID()")) == session
    with pytest.raises(RowError, match="row 1 does not match Portfolio") as caught:
        io.collect(client.stream(words, as_=Portfolio))
    assert (caught.value.row, caught.value.columns) == (1, ("symbol",))
    with pytest.raises(RowError, match="no column for symbol"):
        io.collect(client.stream("SELECT user_id FROM trades", as_=Trade))
    assert io(client.query_value("SELECT 7")) == 7
    with io.entered(client.transaction()) as tx:
        with pytest.raises(RowError):
            io(tx.query(words, as_=Portfolio))
        io(tx.execute("DELETE FROM trades WHERE user_id = 1"))
    assert io(client.query("SELECT user_id FROM trades", as_=tuple)) == [(2,)]


def test_another_class_is_refused_before_anything_is_sent(client: Any, io: IO) -> None:
    wrongs: Any = [dict, int, Trade(1, "A"), "Trade", List[int]]
    for wrong in wrongs:
        for verb in (client.query, client.query_one):
            with pytest.raises(ParameterError, match="as_ must be a pydantic model"):
                io(verb("INSERT INTO trades (user_id, symbol, qty) VALUES (1, 'A', 5)", as_=wrong))
        with pytest.raises(ParameterError, match="as_ must be a pydantic model"):
            client.stream("SELECT 1", as_=wrong)
    assert client.stats().opened == 0


def test_a_column_alone(client: Any, db: Any, io: IO) -> None:
    io(client.execute(INSERT))
    assert io(
        client.query_column("SELECT symbol, qty FROM trades WHERE qty > %s ORDER BY symbol", (0,))
    ) == ["A", "B"]
    assert (
        io(client.query_column("SELECT symbol FROM trades WHERE FALSE"))
        == io(client.query_column("DO 1"))
        == []
    )
    with io.entered(db.shard(1).transaction()) as tx:
        assert io(tx.query_column("SELECT qty FROM trades ORDER BY qty")) == [5, 6]


def test_one_row_at_most(client: Any, io: IO) -> None:
    io(client.execute(INSERT))
    assert io(client.query_one(SQL, as_=Trade)) == Trade(1, "A", 5)
    for as_ in (None, Trade):
        with pytest.raises(TooManyRows, match="at most one row, got 2") as caught:
            io(client.query_one(SQL, as_=as_, strict=True))
        assert pickle.loads(pickle.dumps(caught.value)).sent is True
    assert io(client.query_one(SQL + " LIMIT 1", strict=True)) == {
        "user_id": 1,
        "symbol": "A",
        "qty": 5,
    }
    assert io(client.query_one(SQL + " LIMIT 0", strict=True)) is None


@pytest.mark.parametrize("row_decoder", ["auto", "python", "driver"])
def test_rows_are_dicts_again_after_those_of_another_kind(
    databases: Databases, open_service: Callable[..., Any], io: IO, row_decoder: str
) -> None:
    options = {"pool_size": 1, "max_overflow": 0, "row_decoder": row_decoder}
    db = open_service(databases.config.model_copy(update=options))
    sql = "SELECT 1 AS a UNION ALL SELECT 2"
    with io.entered(db.transaction()) as tx:
        for _ in range(2):
            assert io(tx.query(sql, as_=tuple)) == [(1,), (2,)]
            assert io(tx.query(sql)) == [{"a": 1}, {"a": 2}]
            with pytest.raises(DatabaseError):
                io(tx.query("SELECT nothing", as_=tuple))
            assert io(tx.query_one(sql)) == {"a": 1}
    assert io(db.query(sql, as_=tuple)) == [(1,), (2,)]
    with io.entered(db.lock("typed rows", timeout=5)) as lock:  # which reads a row of its own
        assert lock is not None
