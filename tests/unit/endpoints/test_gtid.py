"""Positions by global transaction ids."""

from typing import Any, List, Optional

import pytest

from dualdb.endpoints.gtid import MOST_INTERVALS, GtidKind, Position, parse_position

A = "9f1c2f6e-0b5c-11ef-9d1a-0242ac120002"
B = "9f1c2f6e-0b5c-11ef-9d1a-0242ac120003"


def position(kind: GtidKind, text: str) -> Position:
    found = parse_position(kind, text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kind", "text", "written"),
    [
        ("gtid", f"{A}:1-5", f"{A}:1-5"),
        ("gtid", f"{A.upper()}:7", f"{A}:7"),
        ("gtid", f"{A}:3:1-2:9", f"{A}:1-3:9"),
        ("gtid", f"{A}:1, {B}:2-3", f"{A}:1,{B}:2-3"),
        ("gtid", f"{A}:1,{A}:2", f"{A}:1-2"),
        ("gtid", f"{A}:1:orders:4-6", f"{A}:1,{A}:orders:4-6"),
        ("mariadb_gtid", "0-1-9", "0-1-9"),
        ("mariadb_gtid", "0-1-9,1-2-3", "0-1-9,1-2-3"),
        ("mariadb_gtid", "0-1-9,0-2-11", "0-2-11"),
    ],
)
def test_texts_of_servers(kind: GtidKind, text: str, written: str) -> None:
    found = position(kind, text)
    assert found.text == written
    assert position(kind, found.text) == found


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("gtid", ""),
        ("gtid", A),
        ("gtid", f"{A}:"),
        ("gtid", f"{A}:5-3"),
        ("gtid", f"{A}:0"),
        ("gtid", f"{A}:1'"),
        ("gtid", "0-1-9"),
        ("mariadb_gtid", ""),
        ("mariadb_gtid", "0-1"),
        ("mariadb_gtid", "0-1-9'"),
        ("mariadb_gtid", f"{A}:1"),
    ],
)
def test_other_texts(kind: GtidKind, text: str) -> None:
    assert parse_position(kind, text) is None


@pytest.mark.parametrize(
    ("kind", "known", "wanted", "covered"),
    [
        ("gtid", f"{A}:1-5", f"{A}:2-4", True),
        ("gtid", f"{A}:1-5:7-9", f"{A}:5-7", False),
        ("gtid", f"{A}:1-5", f"{A}:6", False),
        ("gtid", f"{A}:1-5", f"{A}:1,{B}:1", False),
        ("gtid", f"{A}:1-5,{B}:1", f"{A}:1,{B}:1", True),
        ("mariadb_gtid", "0-1-9", "0-2-9", True),
        ("mariadb_gtid", "0-1-9", "0-1-10", False),
        ("mariadb_gtid", "0-1-9", "1-1-1", False),
    ],
)
def test_covers(kind: GtidKind, known: str, wanted: str, covered: bool) -> None:
    assert position(kind, known).covers(position(kind, wanted)) is covered


def test_positions_of_other_kinds_do_not_cover() -> None:
    assert not position("mariadb_gtid", "0-1-9").covers(position("gtid", f"{A}:1"))


def test_joined_covers_both() -> None:
    one, other = position("gtid", f"{A}:1-3"), position("gtid", f"{A}:5,{B}:1")
    joined = one.joined(other)
    assert joined.covers(one)
    assert joined.covers(other)
    assert joined.text == f"{A}:1-3:5,{B}:1"
    assert position("mariadb_gtid", "0-1-9").joined(position("mariadb_gtid", "0-1-7")).text == (
        "0-1-9"
    )


def test_shortened_keeps_the_last() -> None:
    holes: List[Any] = [str(number) for number in range(1, 40, 2)]
    short: Optional[Position] = position("gtid", f"{A}:{':'.join(holes)}").shortened()
    assert short is not None
    assert short.text == f"{A}:{':'.join(holes[-MOST_INTERVALS:])}"
