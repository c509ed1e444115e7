"""Rows as models, dataclasses, NamedTuples, TypedDicts and tuples, without a server."""

import dataclasses
import decimal
import pickle
import typing
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import pydantic
import pydantic.dataclasses
import pytest
import typing_extensions
from pydantic import BaseModel, Field

from dualdb import DataError, ParameterError, RowError
from dualdb.results import ResultSet
from dualdb.row_mapping import check_kind, maker, takes_tuples, typed


@dataclasses.dataclass
class Trade:
    id: int
    symbol: str
    qty: int = 1


@dataclasses.dataclass(frozen=True)
class Positive:
    n: int
    twice: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError("it is negative")


@pydantic.dataclasses.dataclass
class Checked:
    id: int
    symbol: str


class Pair(NamedTuple):
    id: int
    symbol: str = "none"


class Model(BaseModel):
    id: int
    symbol: str = Field(alias="sym")


class Keys(typing_extensions.TypedDict):
    id: int
    symbol: typing_extensions.NotRequired[str]


class OldKeys(typing.TypedDict):
    id: int
    price: float


class LooseKeys(typing.TypedDict, total=False):
    id: int


@dataclasses.dataclass
class Anything:
    id: int
    others: Dict[str, Any]

    def __init__(self, id: int, **others: Any) -> None:
        self.id, self.others = id, others


def rows_as(as_: Any, *rows: Tuple[Any, ...], columns: str = "id symbol") -> List[Any]:
    names = tuple(columns.split())
    given: List[Any] = list(rows)
    if not takes_tuples(as_):
        given = [dict(zip(names, row)) for row in rows]
    return typed(ResultSet(given, names, len(rows), 0, 0), as_)


@pytest.mark.parametrize(
    ("as_", "columns", "row", "made"),
    [
        (tuple, "a a.a", (1, 2), (1, 2)),
        (Trade, "id symbol qty", (1, "A", 5), Trade(1, "A", 5)),
        (Trade, "id symbol", (1, "A"), Trade(1, "A", 1)),
        (Trade, "qty symbol id", (5, "A", 1), Trade(1, "A", 5)),
        (Checked, "id symbol", ("7", "A"), Checked(7, "A")),
        (Checked, "symbol id", ("A", 7), Checked(7, "A")),
        (Pair, "id symbol", (1, "A"), Pair(1, "A")),
        (Pair, "symbol id", ("A", 1), Pair(1, "A")),
        (Pair, "id", (1,), Pair(1)),
        (Model, "sym id other", ("A", "7", None), Model(id=7, sym="A")),
        (Keys, "id symbol other", (1, "A", 3), {"id": 1, "symbol": "A"}),
        (Keys, "id", (1,), {"id": 1}),
        (OldKeys, "price id", (decimal.Decimal("1.5"), "7"), {"id": 7, "price": 1.5}),
        (LooseKeys, "other", (1,), {}),
        (Anything, "id a b", (1, 2, 3), Anything(1, a=2, b=3)),
    ],
)
def test_a_row_is_made_by_the_names_of_its_columns(
    as_: Any, columns: str, row: Any, made: Any
) -> None:
    check_kind(as_)
    response = rows_as(as_, row, columns=columns)
    assert response == [made]
    assert type(response[0]) is type(made)
    names = tuple(columns.split())
    assert maker(as_, names).of(names, row) == made


def test_values_go_by_position_where_the_order_allows() -> None:
    assert not maker(Trade, ("id", "symbol")).by_name
    assert maker(Trade, ("symbol", "id")).by_name
    assert maker(Trade, ("id", "symbol")) is maker(Trade, ("id", "symbol")), "it is made once"


def test_columns_that_do_not_fit_are_named_before_a_row_is_made() -> None:
    cases: List[Tuple[Any, str, str, Tuple[str, ...]]] = [
        (Trade, "qty", "no column for id, symbol", ("id", "symbol")),
        (Trade, "id symbol t.id", "no field for the column t.id", ("t.id",)),
        (
            Trade,
            "id price",
            "no column for symbol; no field for the column price",
            ("symbol", "price"),
        ),
        (Positive, "n twice", "no field for the column twice", ("twice",)),
        (Pair, "symbol", "no column for id", ("id",)),
        (Keys, "symbol", "no column for id", ("id",)),
        (OldKeys, "id", "no column for price", ("price",)),
        (Anything, "a", "no column for id", ("id",)),
    ]
    for as_, columns, why, named in cases:
        with pytest.raises(RowError, match=f"rows do not match {as_.__name__}: {why}$") as caught:
            rows_as(as_, columns=columns)
        assert (caught.value.row, caught.value.columns, caught.value.sent) == (None, named, True)
        with pytest.raises(RowError):
            maker(as_, tuple(columns.split()))


def test_a_value_that_does_not_fit_is_named_with_its_row() -> None:
    good, bad = (1, "A"), ("one", "A")
    for as_, columns, named in [
        (Model, "id sym", "id"),
        (Checked, "id symbol", "id"),
        (Keys, "id symbol", "id"),
    ]:
        with pytest.raises(
            RowError,
            match=f"row 2 does not match {as_.__name__}: {named}: Input should be a valid integer",
        ) as caught:
            rows_as(as_, good, good, bad, columns=columns)
        assert (caught.value.row, caught.value.columns) == (2, (named,))
        assert isinstance(caught.value.__cause__, pydantic.ValidationError)
        assert "one" not in str(caught.value), "values are not in messages"
    with pytest.raises(RowError, match="row 1 does not match Positive: ValueError: it is negative"):
        rows_as(Positive, (1,), (-1,), columns="n")
    with pytest.raises(RowError, match="row 0 does not match Model: sym: Field required") as caught:
        rows_as(Model, (1,), columns="id")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy), copy.row, copy.columns) == (
        RowError,
        str(caught.value),
        0,
        ("sym",),
    )
    assert isinstance(copy, DataError)


def test_a_model_that_validates_in_its_own_way_is_asked_for_each_row() -> None:
    class Own(Model):
        @classmethod
        def model_validate(cls, obj: Any, **options: Any) -> Any:
            return super().model_validate({**obj, "sym": "own"}, **options)

    assert rows_as(Own, (1, "A"), (2, "B"), columns="id sym") == [
        Own(id=1, sym="own"),
        Own(id=2, sym="own"),
    ]


def test_a_model_that_is_not_complete_when_it_is_first_used() -> None:
    later: Any = typing.ForwardRef("Later")
    Outer: Any = pydantic.create_model("Outer", id=(later, ...))
    check_kind(Outer)
    Outer.model_rebuild(_types_namespace={"Later": int})
    assert rows_as(Outer, (1,), ("2",), columns="id") == [Outer(id=1), Outer(id=2)]


def test_a_validator_sees_each_row_in_order() -> None:
    seen = []

    class Watching(pydantic.BaseModel):
        n: int

        @pydantic.field_validator("n")
        @classmethod
        def watch(cls, value: int) -> int:
            seen.append(value)
            return value

    assert [each.n for each in rows_as(Watching, (1,), (2,), (3,), columns="n")] == seen
    assert seen == [1, 2, 3]


def test_a_statement_without_rows_makes_none() -> None:
    assert typed(ResultSet([], (), 3, 0, 0), Trade) == []
    assert rows_as(Trade) == []


class Plain:
    pass


class Unknown(typing_extensions.TypedDict):
    id: "Nowhere"  # type: ignore[name-defined] # noqa: F821


class Unfit(typing_extensions.TypedDict):
    id: Plain


@pytest.mark.parametrize(
    "wrong",
    [
        Plain,
        dict,
        list,
        int,
        Trade(1, "A"),
        "Trade",
        Optional[Trade],
        List[int],
        Tuple[int, ...],
        Unknown,
        Unfit,
    ],
)
def test_what_rows_cannot_be_made_is_refused(wrong: Any) -> None:
    with pytest.raises(ParameterError):
        check_kind(wrong)


def test_an_alias_is_no_class() -> None:
    for wrong in (tuple[int, str], list[int]):
        with pytest.raises(ParameterError, match="as_ must be a pydantic model, a dataclass"):
            check_kind(wrong)
