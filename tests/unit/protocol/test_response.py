"""Reading responses, against the driver's reader, on bytes made here."""

import contextlib
import random
import struct
from typing import Any, List, Tuple

import pymysql.err
import pytest
from packets import END, MORE, answered, by_driver, column, kinds, packets, table, text
from pymysql.constants import FIELD_TYPE

from dualdb import NotSupportedError, UndecodableText
from dualdb.protocol.driver_check import _payloads
from dualdb.protocol.response import Response, ResponseOptions

pytestmark = pytest.mark.usefixtures("each_decoder")

OK = b"\x00\x03\x07\x02\x00\x01\x00said"


@pytest.mark.slow
def test_bytes_may_be_split_anywhere() -> None:
    data = packets(
        [
            *table(["a", "b"], [[b"1", b"2"], [b"3", b"4" * 300]], MORE),
            OK[:5] + b"\x08\x00\x00\x00",
            *table(["c"], [[b"5"]]),
        ]
    )
    whole = answered(data)
    assert whole.results[0].rows == [{"a": 1, "b": 2}, {"a": 3, "b": int("4" * 300)}]
    for size in (1, 2, 3, 5, 7):
        assert answered(data, iter([size] * len(data))).results == whole.results
    for cut in range(1, len(data)):
        assert answered(data, iter([cut, len(data)])).results == whole.results
    recorded = packets(_payloads())
    spread = random.Random(7)
    for _ in range(50):
        again = answered(recorded, iter([spread.choice((1, 4, 60, 5000)) for _ in recorded]))
        assert again.results == answered(recorded).results


def test_an_ok_packet_says_what_was_done() -> None:
    response = answered(packets([OK]))
    assert response.results[0][1:] == ((), 3, 7, 1)
    assert (response.server_status, response.message, response.names) == (2, b"said", ())


@pytest.mark.slow
def test_rows_of_more_than_one_packet() -> None:
    for size in (0xFFFFFF - 9, 0xFFFFFF - 10, 0xFFFFFF, 40_000_000):
        huge = [
            b"\x02",
            column("a", FIELD_TYPE.BLOB),
            column("b"),
            END,
            text(b"x" * size) + text(b"7"),
            text(b"y") + text(b"8"),
            END,
        ]
        response = answered(packets(huge), iter([100, 1 << 20, 1 << 22, *[1 << 24] * 9]))
        assert [(len(row["a"]), row["b"]) for row in response.results[0].rows] == [
            (size, 7),
            (1, 8),
        ]


def test_an_error_of_the_server_is_raised_with_its_code_and_is_an_answer() -> None:
    failed = b"\xff\x28\x04#42000no such thing"
    for payloads in ([failed], [*table(["a"], [[b"1"]])[:-1], failed]):
        with pytest.raises(pymysql.err.ProgrammingError) as caught:
            answered(packets(payloads))
        assert (caught.value.args, caught.value.sqlstate) == ((1064, "no such thing"), "42000")


def test_rows_before_an_error_are_given_to_a_stream() -> None:
    stream = Response(ResponseOptions("utf8", tuples=True, stream=True))
    stream.feed_stream(packets([*table(["a"], [[b"1"], [b"2"]])[:-1], b"\xff\x28\x04#42000no"]))
    assert stream.take() == [(1,), (2,)]
    with pytest.raises(pymysql.err.ProgrammingError):
        stream.take()


def test_what_comes_after_the_result_that_is_streamed_is_not_kept() -> None:
    more = b"\xfe\x00\x00\x08\x00"  # another result follows
    data = packets(
        table(["a"], [[b"1"]], more)
        + table(["b"], [[b"2"]] * 9, more)
        + [b"\x00\x00\x00\x02\x00\x00\x00"]
    )
    stream = answered(data, tuples=True, stream=True)
    assert stream.take() == [(1,)]
    assert [len(result.rows) for result in stream.results] == [0, 0, 0]
    assert [len(result.rows) for result in answered(data).results] == [1, 9, 0]


def test_what_comes_after_the_answer_is_noticed() -> None:
    assert answered(packets([OK, OK])).rest
    assert not answered(packets([OK])).rest


@pytest.mark.parametrize(
    "payloads",
    [
        [b""],
        [b"\x00\x01"],
        [b"\xff\x01"],
        [b"\xff\x28\x04#420\xff0no"],
        [b"\xfe" + b"\xff" * 8],
        [b"\x01", b"\x03de", END],
        [b"\x01", column("a"), b"\x01x"],
        [b"\x01", column("a"), END, b""],
        [b"\x01", column("a"), END, b"\x05123"],
        [b"\x01", column("a"), END, b"\x011\x012"],
        [b"\x01", column("a"), END, b"\x01x"],
        [b"\x02", column("a"), column("b"), END, b"\x011"],
        [b"\x02", column("a"), column("b"), END, b"\x011", b"\x012"],
        [b"\x01", column("a"), END, b"\xfe" + struct.pack("<Q", 1 << 40)],
        [b"\x01", column("a"), END, b"\xfc\x01"],
        [b"\x01", column("a"), END, b"\xfe\x00"],
        [*table([f"c{number}" for number in range(200)], [])[:-1], b"\x01"],
        [*table([f"c{number}" for number in range(200)], [])[:-1], text(b"1") * 201],
    ],
)
def test_what_is_no_answer_is_refused(payloads: List[bytes]) -> None:
    with pytest.raises(pymysql.err.OperationalError, match="Malformed packet") as caught:
        answered(packets(payloads))
    assert caught.value.args[0] == 2027


def test_packets_out_of_sequence() -> None:
    rows = packets(table(["a"], [[b"1"]])[:-1])
    for number, code in ((0, 2013), (9, 2027)):
        with pytest.raises(pymysql.err.OperationalError) as caught:
            answered(rows + packets([END], number))
        assert caught.value.args[0] == code
        with pytest.raises(pymysql.err.OperationalError) as caught:
            answered(packets([OK], number))
        assert caught.value.args[0] == code


@pytest.mark.slow
@pytest.mark.parametrize("tuples", [True, False])
def test_a_response_in_one_piece_is_read_as_in_many(seed: int, tuples: bool) -> None:
    spread = random.Random(seed)
    rows = [[b"1", b"a"], [b"2", b"b" * 300]]
    usual = packets(undecodable(rows))
    known = answered(usual, tuples=tuples).cached_decoder
    assert known is not None
    assert known.prefix is not None
    assert usual.startswith(known.prefix)
    recorded = [
        usual,
        usual + b"x",
        packets([OK]),
        packets([OK[:5] + b"\x08\x00\x00\x00", *undecodable(rows)]),
        packets([OK[:3]]),
        packets([*undecodable(rows, more=True), OK]),
        packets([*undecodable(rows)[:-1], b"\xfe\x02\x00\x02\x40"]),
        packets([*undecodable(rows)[:-1], b"\xff\x28\x04#42000no"]),
        packets(undecodable([*rows, [b"3", BAD]])),
        packets(undecodable([])),
        packets([*undecodable([])[:-1], *[text(b"7") + text(b"c")] * 300, END]),
    ]
    read_at_once = 0
    for number in range(3000):
        data = bytearray(recorded[number % len(recorded)])
        if number >= len(recorded):
            data[spread.randrange(min(len(data), 300))] = spread.randrange(256)
        cut = spread.randrange(1, len(data) + 1)
        whole, halves, pieces = [
            comparable(
                outcome(
                    lambda data=bytes(data), sizes=sizes: answered(
                        data, sizes, known, tuples=tuples
                    )
                )
            )
            for sizes in (None, iter([cut, len(data)]), iter([40] * len(data)))
        ]
        assert whole == halves == pieces
        read_at_once += whole[0]
    assert read_at_once > 500


@pytest.mark.parametrize("rows", [251, 252, 253, 508])
@pytest.mark.parametrize("second", [[OK], [*table(["a"], [[b"5"]] * 3, MORE), OK]])
def test_a_sequence_number_that_is_as_at_the_beginning_begins_nothing_again(
    rows: int, second: List[bytes]
) -> None:
    """The number of a packet has a byte: after 256 it is the first one's again."""
    first = table(["a"], [[b"%d" % number] for number in range(rows)], MORE)
    data = packets([*first, *second])
    known = answered(data).cached_decoder
    assert known is not None
    expected = [rows, *[3] * (len(second) > 1), 0]
    end = len(packets(first))
    for cut in (*range(end - 10, end + 10), len(data)):
        response = answered(data, iter([cut, len(data)]), known)
        assert [len(result.rows) for result in response.results] == expected


def test_each_row_is_decoded_once() -> None:
    rows = [[b"%d" % number, b"9" * 40] for number in range(100)]
    data = packets(table(["a", "b"], rows))
    known = answered(data).cached_decoder
    assert known is not None
    assert known.prefix is not None
    decoded: List[int] = []

    def read(data: bytes, position: int, end: int, number: int, rows: List[Any]) -> Any:
        before = len(rows)
        result = known.read(data, position, end, number, rows)
        decoded.append(len(rows) - before)
        return result

    for cut in range(len(known.prefix) + 4, len(data), 50):
        decoded.clear()
        response = answered(data, iter([cut, len(data)]), known._replace(read=read))
        assert len(response.results[0].rows) == sum(decoded) == 100


def comparable(outcome: Tuple[bool, Any]) -> Tuple[bool, Any]:
    """Return what can be compared of an outcome: the text of an error contains the
    received bytes.
    """
    well, response = outcome
    if not well:
        return False, (type(response), response.args[0])
    sets = [(kinds([map(repr, each.rows)]), each[1:]) for each in response.results]
    return True, (sets, response.server_status, response.message, response.changes)


def outcome(read: Any) -> Tuple[bool, Any]:
    try:
        return True, read()
    except Exception as error:
        return False, error


@pytest.mark.slow
def test_bytes_gone_wrong_give_no_wrong_row(seed: int) -> None:
    spread = random.Random(seed)
    recorded = [
        packets(_payloads()),
        packets(table(["a", "b"], [[b"%d" % n, b"2" * n] for n in range(1, 40)])),
    ]
    require_same_kind = 0
    for _ in range(4000):
        data = bytearray(spread.choice(recorded))
        for _ in range(spread.choice((1, 1, 1, 2, 8))):
            at = spread.randrange(min(len(data), 4000))
            if spread.random() < 0.7:
                data[at] = spread.randrange(256)
            else:
                del data[at : at + spread.randrange(1, 9)]
        well, response = outcome(lambda data=bytes(data): answered(data, tuples=True))
        if well and response.results[0].columns:
            # Where there are rows, they are those that the driver would give, and it
            # does not find fault with them either.
            translated, result = outcome(lambda data=bytes(data): by_driver(data))
            assert translated, result
            assert kinds(response.results[0].rows) == kinds(result.rows)
            require_same_kind += 1
        elif not well:
            assert isinstance(response, (AssertionError, pymysql.err.MySQLError)), response
    assert require_same_kind > 100


def test_bytes_at_random_come_to_an_end(seed: int) -> None:
    spread = random.Random(seed)
    for _ in range(20_000):
        payloads = [
            bytes([spread.randrange(256) for _ in range(spread.randrange(12))])
            for _ in range(spread.randrange(1, 6))
        ]
        well, response = outcome(lambda payloads=payloads: answered(packets(payloads)))
        assert well or isinstance(
            response,
            (AssertionError, pymysql.err.MySQLError, NotSupportedError),
        ), response


BAD = b"caf\xe9"


def undecodable(rows: List[List[bytes]], more: bool = False) -> List[bytes]:
    """A result of an id and a text of that name, in UTF-8."""
    kinds = [column("id"), column("text", FIELD_TYPE.VAR_STRING, 45)]
    made = [b"".join([text(value) for value in row]) for row in rows]
    return [b"\x02", *kinds, END, *made, MORE if more else END]


@pytest.mark.parametrize("sizes", [[10**6], [1], [3], [60, 5, 200]])
@pytest.mark.parametrize("tuples", [True, False])
def test_a_text_that_cannot_be_decoded_ends_the_rows_and_not_the_reading(
    sizes: List[int], tuples: bool
) -> None:
    rows = [[b"1", b"a"], [b"2", b"b" * 300], [b"3", BAD], [b"4", b"x"], [b"x", BAD]]
    data = packets([*undecodable(rows, more=True), *table(["c"], [[b"5"]])])
    response = Response(ResponseOptions("utf8", tuples=tuples))
    position, parts = 0, iter(sizes * len(data))
    with pytest.raises(UndecodableText) as caught:
        while True:
            size = next(parts)
            response.feed(data[position : position + size])
            position += size
    assert (caught.value.row, caught.value.columns) == (2, ("text",))
    assert "row 2, column 'text'" in str(caught.value)
    assert response.complete
    assert not response.rest
    assert [len(result.rows) for result in response.results] == [2, 1]


def test_a_huge_row_that_cannot_be_decoded() -> None:
    rows = [[b"1", b"a"], [b"2", b"b" * 0xFFFFFF + BAD], [b"3", b"c" * 0x1000000], [b"4", b"d"]]
    response = Response(ResponseOptions("utf8"))
    with pytest.raises(UndecodableText) as caught:
        response.feed(packets(undecodable(rows)))
    assert (caught.value.row, caught.value.columns) == (1, ("text",))
    assert response.complete


def test_a_stream_gives_the_rows_before_a_text_that_cannot_be_decoded() -> None:
    data = packets(undecodable([[b"1", b"a"], [b"2", b"b"], [b"3", BAD], [b"4", b"c"]]))
    response = Response(ResponseOptions("utf8", tuples=True, stream=True))
    taken = []
    for position in range(0, len(data), 7):
        response.feed_stream(data[position : position + 7])
        with contextlib.suppress(UndecodableText):
            taken += response.take()
    assert taken == [(1, "a"), (2, "b")]
    assert response.complete
    with pytest.raises(UndecodableText, match="row 2"):
        response.take()


def test_an_error_of_the_server_after_it_is_the_answer() -> None:
    refused = b"\xff\x15\x04#42000no"
    with pytest.raises(pymysql.err.MySQLError) as caught:
        answered(packets([*undecodable([[b"1", BAD]])[:-1], refused]))
    assert caught.value.args[0] == 1045
