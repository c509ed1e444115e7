"""Names of procedures."""

import enum
from typing import Any, Type

import pytest

from dualdb import ParameterError
from dualdb.sql import identifiers
from dualdb.sql.identifiers import parts, procedure


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("p", "`p`"),
        ("shop.get_user", "`shop`.`get_user`"),
        ("$x1", "`$x1`"),
        ("절차", "`절차`"),
        ("1st", "`1st`"),
        ("end of day", "`end of day`"),
        ("my-shop.end-of-day", "`my-shop`.`end-of-day`"),
        ("p`", "`p```"),
        ("a`b.c`d", "`a``b`.`c``d`"),
        ("`p`", "`p`"),
        ("`a.b`.`c;(d``e)`", "`a.b`.`c;(d``e)`"),
        ("shop.`a.b`", "`shop`.`a.b`"),
        ("x" * 64, "`" + "x" * 64 + "`"),
    ],
)
def test_procedure_names(name: str, quoted: str) -> None:
    assert procedure(name) == quoted


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a.b.c",
        "p(1)",
        "p; DROP TABLE t",
        "p` ()",
        "`p`(",
        "`p``",
        "p -- '",
        " p",
        "p .q",
        "``",
        "`a`b`.`c`.d",
        "\U0001f600",
        ".p",
        "p.",
        "x" * 65,
        None,
        7,
        b"p",
        "p\n",
    ],
)
def test_other_names_are_refused(name: Any) -> None:
    with pytest.raises(ParameterError, match="is not a procedure name"):
        procedure(name)


class OfAnyCase(str):
    """Equal to the same text in another case."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self.lower() == other.lower()

    def __hash__(self) -> int:
        return hash(self.lower())


class Unhashable(str):
    __hash__ = None  # type: ignore[assignment]


class Procedure(str, enum.Enum):
    END_OF_DAY = "shop.end_of_day"


@pytest.mark.parametrize("kind", [str, OfAnyCase, Unhashable])
def test_a_name_is_its_text_whatever_its_type(kind: Type[str]) -> None:
    assert procedure(kind("Shop.P")) == "`Shop`.`P`"
    assert procedure(kind("shop.p")) == "`shop`.`p`"
    assert procedure(Procedure.END_OF_DAY) == "`shop`.`end_of_day`"
    for part in parts(kind("p")):
        assert type(part) is str
    with pytest.raises(ParameterError, match="is not a procedure name"):
        procedure(kind("p("))


@pytest.mark.parametrize("part", ["`" * 64, "a" * 64, "a`" * 32, "절" * 64])
def test_the_longest_names(part: str) -> None:
    whole = ".".join(["`" + part.replace("`", "``") + "`"] * 2)
    assert parts(whole) == (part, part)
    for longer in (whole[:-1] + "a`", "a" + whole[1:] + "`"):
        with pytest.raises(ParameterError, match="is not a procedure name"):
            procedure(longer)


def test_a_text_that_is_longer_than_any_name_is_neither_kept_nor_shown_whole() -> None:
    kept = identifiers._parts.cache_info().currsize
    for number in range(3):
        with pytest.raises(ParameterError) as caught:
            procedure(f"{number}" * 100_000)
        assert len(str(caught.value)) < 400
    assert identifiers._parts.cache_info().currsize == kept
