"""Decoding rows, against the driver's own decoders."""

from typing import Any

import pytest
from packets import END, answered, by_driver, column, kinds, packets, table, text

from dualdb.protocol.driver_check import _payloads
from dualdb.protocol.response import Response, ResponseOptions

pytestmark = pytest.mark.usefixtures("each_decoder")


def test_every_kind_of_column_has_the_drivers_values() -> None:
    data = packets(_payloads())
    assert kinds(answered(data, tuples=True).results[0].rows) == kinds(by_driver(data).rows)


def test_very_many_columns_and_rows() -> None:
    names = [f"c{number}" for number in range(1000)]
    rows = [[str(number * row).encode() for number in range(1000)] for row in range(3)]
    response = answered(packets(table(names, rows)), iter([1000] * 1000))
    assert response.results[0].rows == [
        {f"c{number}": number * row for number in range(1000)} for row in range(3)
    ]
    many = answered(packets(table(["n"], [[b"%d" % number] for number in range(1000)])))
    assert [row["n"] for row in many.results[0].rows] == list(range(1000))


def test_a_name_is_never_read_as_code() -> None:
    names = ["a'", 'b"', "c\\", "d\n", "{e}", "'+__import__('os').getcwd()+'", "\N{PILE OF POO}"]
    response = answered(packets(table(names, [[b"%d" % number for number in range(len(names))]])))
    assert response.results[0].rows == [{name: number for number, name in enumerate(names)}]


def test_two_columns_of_one_name() -> None:
    payloads = [
        b"\x02",
        column("id"),
        column("id", table="other"),
        END,
        text(b"1") + text(b"2"),
        END,
    ]
    assert answered(packets(payloads)).results[0].rows == [{"id": 1, "other.id": 2}]
    twice: Any = answered(packets(payloads), tuples=True).results[0].rows
    assert twice == [(1, 2)]


def test_the_layout_known_from_before_is_taken_only_where_it_fits() -> None:
    data = packets(table(["a", "b"], [[b"1", b"2"]]))
    cached_decoder = answered(data).cached_decoder
    assert answered(data, cached_decoder=cached_decoder).cached_decoder is cached_decoder
    assert answered(data, iter([1] * len(data)), cached_decoder=cached_decoder).results[0].rows == [
        {"a": 1, "b": 2}
    ]
    for other in (
        table(["a", "c"], [[b"1", b"2"]]),
        table(["a", "b", "c"], [[b"1", b"2", b"3"]]),
        table(["a"], [[b"1"]]),
    ):
        assert (
            answered(packets(other), cached_decoder=cached_decoder).results
            == answered(packets(other)).results
        )
    as_tuples: Any = answered(data, cached_decoder=cached_decoder, tuples=True).results[0].rows
    assert as_tuples == [(1, 2)]
    strange = Response(ResponseOptions("latin1"), cached_decoder=cached_decoder)
    strange.feed(data)
    assert strange.cached_decoder is not cached_decoder
