"""The reader of answers against the driver's own, on bytes that no server needs to
send.
"""

import random
import struct
from typing import Any, List, Tuple

import pymysql.err
import pytest
from pymysql.connections import Connection, MySQLResult
from pymysql.constants import FIELD_TYPE
from pymysql.converters import decoders
from pymysql.protocol import MysqlPacket

from dualdb import NotSupportedError
from dualdb.protocol import driver_check
from dualdb.protocol.driver_check import _payloads
from dualdb.protocol.response import Response

OK = b"\x00\x03\x07\x02\x00\x01\x00said"
END, MORE = b"\xfe\x00\x00\x02\x00", b"\xfe\x00\x00\x0a\x00"


def packets(payloads: List[bytes], number: int = 1) -> bytes:
    made = []
    for payload in payloads:
        for begin in range(0, len(payload) + 1, 0xFFFFFF):
            piece = payload[begin : begin + 0xFFFFFF]
            made.append(struct.pack("<I", len(piece) | (number & 255) << 24) + piece)
            number += 1
    return b"".join(made)


def text(value: bytes) -> bytes:
    return (
        bytes([len(value)]) if len(value) < 251 else b"\xfe" + struct.pack("<Q", len(value))
    ) + value


def column(
    name: str, kind: int = FIELD_TYPE.LONGLONG, charset: int = 63, table: str = "t"
) -> bytes:
    words = b"".join(
        [text(word) for word in (b"def", b"db", table.encode(), b"t", name.encode(), b"c")]
    )
    return words + struct.pack("<BHIBHBxx", 12, charset, 20, kind, 0, 0)


def table(names: List[str], rows: List[List[bytes]], end: bytes = END) -> List[bytes]:
    count = bytes([len(names)]) if len(names) < 251 else b"\xfc" + struct.pack("<H", len(names))
    return [
        count,
        *[column(name) for name in names],
        END,
        *[b"".join([text(value) for value in row]) for row in rows],
        end,
    ]


class Recorded:
    """A driver's connection, as far as reading an answer goes, over bytes."""

    use_unicode, encoding, unbuffered_active, _local_infile = True, "utf8", False, False
    decoders = decoders

    def __init__(self, data: bytes) -> None:
        self._data, self._number = data, 1

    def _read_packet(self, packet_type: Any = MysqlPacket) -> Any:
        payload = b""
        while True:
            (header,) = struct.unpack("<I", self._data[:4])
            length, self._data = header & 0xFFFFFF, self._data[4:]
            if header >> 24 != self._number & 255 or len(self._data) < length:
                raise pymysql.err.InternalError("out of sequence, or cut")
            self._number += 1
            payload, self._data = payload + self._data[:length], self._data[length:]
            if length < 0xFFFFFF:
                packet = packet_type(payload, self.encoding)
                if packet.is_error_packet():
                    packet.raise_for_error()
                return packet


def by_driver(data: bytes) -> Any:
    result: Any = MySQLResult(Recorded(data))  # type: ignore[arg-type]
    result.read()
    return result


def kinds(rows: Any) -> List[Any]:
    return [[(type(value), value) for value in row] for row in rows]


def answered(data: bytes, sizes: Any = None, **options: Any) -> Response:
    response = Response("utf8", **options)
    position = 0
    while position < len(data):
        size = len(data) if sizes is None else next(sizes)
        if response.feed(data[position : position + size]):
            return response
        position += size
    raise AssertionError("not complete")


def test_every_kind_of_column_has_the_drivers_values() -> None:
    data = packets(_payloads())
    assert kinds(answered(data, tuples=True).results[0].rows) == kinds(by_driver(data).rows)


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
    strange = Response("latin1", cached_decoder=cached_decoder)
    strange.feed(data)
    assert strange.cached_decoder is not cached_decoder


def test_an_error_of_the_server_is_told_with_its_code_and_is_an_answer() -> None:
    failed = b"\xff\x28\x04#42000no such thing"
    for payloads in ([failed], [*table(["a"], [[b"1"]])[:-1], failed]):
        with pytest.raises(pymysql.err.ProgrammingError) as caught:
            answered(packets(payloads))
        assert (caught.value.args, caught.value.sqlstate) == ((1064, "no such thing"), "42000")


def test_rows_before_an_error_are_given_to_a_stream() -> None:
    stream = Response("utf8", tuples=True)
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
    stream = answered(data, tuples=True)
    assert stream.take() == [(1,)]
    assert [len(result.rows) for result in stream.results] == [0, 0, 0]
    assert [len(result.rows) for result in answered(data).results] == [1, 9, 0]


def test_what_comes_after_the_answer_is_noticed() -> None:
    assert answered(packets([OK, OK])).has_unexpected_data
    assert not answered(packets([OK])).has_unexpected_data


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


def outcome(read: Any) -> Tuple[bool, Any]:
    try:
        return True, read()
    except Exception as error:
        return False, error


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
            assert isinstance(
                response, (AssertionError, UnicodeDecodeError, pymysql.err.MySQLError)
            ), response
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
            (AssertionError, UnicodeDecodeError, pymysql.err.MySQLError, NotSupportedError),
        ), response


def test_a_driver_that_changes_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    def changed() -> Any:
        result: Any = MySQLResult(Recorded(packets(_payloads())))  # type: ignore[arg-type]
        result.connection.decoders = {**decoders, FIELD_TYPE.LONGLONG: float}
        result.read()
        return result.rows

    assert driver_check.why_not(Connection, lambda: by_driver(packets(_payloads())).rows) == ""
    assert not driver_check.trusted(Connection, changed, "9.9")
    assert "pymysql 9.9 reads its answers itself" in caplog.text
    assert driver_check.why_not(Connection, lambda: 1 / 0) == "ZeroDivisionError: division by zero"
    assert driver_check.why_not(object, changed) == "builtins has no _execute_command"
