"""The two row decoders beside each other, on results that are made up.

The unit tests run this on generated rows, and ``scripts/fuzz`` on what libFuzzer finds.
"""

import array
import random
import struct
from functools import lru_cache
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from pymysql.constants import FIELD_TYPE

from dualdb.protocol import compiled_decoder, row_decoder

Text = Optional[bytes]

BINARY, UTF8MB4 = 63, 45

INTEGERS = [b"0", b"7", b"-1", b"9223372036854775807", b"-9223372036854775808"]
INTEGERS += [b"9999999999999999999", b"18446744073709551615", b"0000012", b"-0", b"-" + b"9" * 18]
ODD_INTEGERS = [b"", b"-", b"+5", b" 5", b"5 ", b"1_0", b"--5", b"1.0", b"9" * 300, b"\xff", b"x"]
FLOATS = [b"0", b"-0", b"0.1", b"1.5e-30", b"1.7976931348623157e308", b"5e-324", b"-3.25", b"1e22"]
ODD_FLOATS = [
    b"",
    b"-",
    b"e5",
    b"1e",
    b"1e999",
    b".5",
    b"5.",
    b"nan",
    b"-inf",
    b" 1",
    b"1_0",
    b"1E5",
]
ODD_FLOATS += [b"0x1p3", b"1.2.3", b"1" * 47, b"1" * 48, b"0." + b"3" * 300, b"\xb2"]
DECIMALS = [b"0", b"-0.10", b"12345678901234567890.123456789", b"-" + b"9" * 65]
ODD_DECIMALS = [b"", b"NaN", b"sNaN", b"Infinity", b"1e5", b"1_0", b" 1", b"x", b"\xff", b"1" * 400]
DATETIMES = [b"2024-02-29 23:59:59", b"2024-02-29 23:59:59.000001", b"0000-00-00 00:00:00"]
DATETIMES += [b"9999-12-31 23:59:59.9", b"0001-01-01 00:00:00.123", b"1999-00-10 00:00:00"]
ODD_DATETIMES = [b"", b"2024-02-31 00:00:00", b"2024-02-29T23:59:59", b"2024-02-29 24:00:00"]
ODD_DATETIMES += [b"2024-02-29 23:59:60", b"2024-02-29 23:59:59.", b"2024-02-29 23:59:59.1234567"]
ODD_DATETIMES += [b"2024-02-29", b"24-2-9 1:2:3", b"2024-02-29 23:59:59+01:00", b"\xff" * 19]
ODD_DATETIMES += [b"2024-02-29 23:59:59.00000x", b"2024-02-29 23-59:59", b"20-4-02-29 23:59:59"]
ODD_DATETIMES += [b"0000-01-01 00:00:00", b"2024-13-01 00:00:00", b"2024-02-29 23:60:59.5"]
DATES = [b"2024-02-29", b"0000-00-00", b"9999-12-31", b"0001-01-01", b"2024-00-10", b"2024-10-00"]
ODD_DATES = [b"", b"2024-02-31", b"2024-2-9", b"24-02-29", b"2024/02/29", b"20240229", b"\xff" * 10]
ODD_DATES += [
    b"0000-01-01",
    b"2024-02-29 ",
    b"2024-02-29x",
    b"-024-02-29",
    b"2024-+2-29",
    b"2024-02-2x",
    b"1-2-3",
]
TIMES = [
    b"00:00:00",
    b"-838:59:59",
    b"838:59:59.999999",
    b"-00:00:01",
    b"12:00:00.5",
    b"-01:02:03.4",
]
ODD_TIMES = [b"", b"-", b"1:2:3", b"0838:59:59", b"99:99:99", b"12:00", b"12:00:00.", b"--1:00:00"]
ODD_TIMES += [b"12:00:00.1234567", b"-999:99:99.999999", b"12-00:00", b"\xff" * 8, b"1:000:00"]
ODD_TIMES += [b"12:00:0x", b"+12:00:00", b"100:0:000", b"-0:00:00"]
TEXTS = [b"", b"a", "é€😀".encode(), b"x" * 250, b"x" * 251, b"y" * 70_000, b'{"a": [1, null]}']
ODD_TEXTS = [
    b"\xff",
    b"\xc3",
    b"a\xe2\x82",
    b"\xed\xa0\x80",
    b"\xc0\x80",
    b"\x81",
    b"\x00",
    b"\x8f",
]
BYTES = [b"\x00\xff", b"\xfb", b"\xfe" * 9, b"", b"\x01", b"\x00" * 300, *ODD_TEXTS]


class Kind(NamedTuple):
    """A kind of column, and texts for it: as servers write them, and others."""

    type_code: int
    charset: int
    usual: Sequence[bytes]
    odd: Sequence[bytes] = ()


KINDS: Dict[str, Kind] = {
    **{
        f"integer {code}": Kind(code, BINARY, INTEGERS, ODD_INTEGERS)
        for code in (
            FIELD_TYPE.TINY,
            FIELD_TYPE.SHORT,
            FIELD_TYPE.INT24,
            FIELD_TYPE.LONG,
            FIELD_TYPE.LONGLONG,
            FIELD_TYPE.YEAR,
        )
    },
    "FLOAT": Kind(FIELD_TYPE.FLOAT, BINARY, FLOATS, ODD_FLOATS),
    "DOUBLE": Kind(FIELD_TYPE.DOUBLE, BINARY, FLOATS, ODD_FLOATS),
    "DECIMAL": Kind(FIELD_TYPE.NEWDECIMAL, BINARY, DECIMALS, ODD_DECIMALS),
    "old DECIMAL": Kind(FIELD_TYPE.DECIMAL, BINARY, DECIMALS, ODD_DECIMALS),
    "DATETIME": Kind(FIELD_TYPE.DATETIME, BINARY, DATETIMES, ODD_DATETIMES),
    "TIMESTAMP": Kind(FIELD_TYPE.TIMESTAMP, BINARY, DATETIMES, ODD_DATETIMES),
    "DATE": Kind(FIELD_TYPE.DATE, BINARY, DATES, ODD_DATES),
    "TIME": Kind(FIELD_TYPE.TIME, BINARY, TIMES, ODD_TIMES),
    "BIT": Kind(FIELD_TYPE.BIT, BINARY, BYTES),
    "JSON": Kind(FIELD_TYPE.JSON, BINARY, TEXTS, ODD_TEXTS),
    "VARCHAR": Kind(FIELD_TYPE.VAR_STRING, UTF8MB4, TEXTS, ODD_TEXTS),
    "CHAR": Kind(FIELD_TYPE.STRING, UTF8MB4, TEXTS, ODD_TEXTS),
    "TEXT": Kind(FIELD_TYPE.BLOB, UTF8MB4, TEXTS, ODD_TEXTS),
    "LONGTEXT": Kind(FIELD_TYPE.LONG_BLOB, UTF8MB4, TEXTS, ODD_TEXTS),
    "VARBINARY": Kind(FIELD_TYPE.VAR_STRING, BINARY, BYTES),
    "BLOB": Kind(FIELD_TYPE.BLOB, BINARY, BYTES),
    "GEOMETRY": Kind(FIELD_TYPE.GEOMETRY, BINARY, BYTES),
    "VECTOR": Kind(row_decoder.VECTOR, BINARY, BYTES),
    "ENUM": Kind(FIELD_TYPE.ENUM, UTF8MB4, [b"", b"a"], ODD_TEXTS),
    "NULL": Kind(FIELD_TYPE.NULL, BINARY, [b"", b"x"], ODD_TEXTS),
}
#: Python's names for connection character sets, of one byte and of several.
ENCODINGS = ["utf8", "cp1252", "ascii", "gbk", "cp932", "koi8_r", "euc_jp", "big5"]


def length_encoded(value: Text, rng: Optional[random.Random] = None) -> bytes:
    """A value with its length; with ``rng``, at times in more bytes than it needs."""
    if value is None:
        return b"\xfb"
    size = len(value)
    prefixes = [b"\xfe" + struct.pack("<Q", size)]
    if size < 1 << 24:
        prefixes.append(b"\xfd" + struct.pack("<I", size)[:3])
    if size < 1 << 16:
        prefixes.append(b"\xfc" + struct.pack("<H", size))
    if size < 251:
        prefixes.append(bytes([size]))
    longer = rng is not None and rng.random() < 0.02
    return (rng.choice(prefixes) if rng is not None and longer else prefixes[-1]) + value


def definition(name: str, kind: Kind) -> bytes:
    words = (b"def", b"db", b"t", b"t", name.encode("ascii"), b"c")
    tail = struct.pack("<BHIBHBxx", 12, kind.charset, 20, kind.type_code, 0, 0)
    return b"".join([length_encoded(word) for word in words]) + tail


def packet(payload: bytes, number: int) -> bytes:
    return struct.pack("<I", len(payload) | (number & 255) << 24) + payload


class Pair(NamedTuple):
    """Both decoders of one list of columns."""

    python: Callable[..., Any]
    compiled: Callable[..., Any]


@lru_cache(maxsize=512)
def pair(kinds: Tuple[str, ...], encoding: str, tuples: bool) -> Pair:
    payloads = [definition(f"c{n}", KINDS[name]) for n, name in enumerate(kinds)]
    definitions = b"".join([packet(each, n + 2) for n, each in enumerate(payloads)])
    made = row_decoder.row_decoder_of(definitions, encoding, tuples=tuples, compiled=False)
    columns = [row_decoder._column_codec(field, encoding) for field in made.fields]
    converters = [row_decoder._converter(*column) for column in columns]

    def fallback(buffer: Any, *rest: Any) -> Any:
        return made.read(bytes(buffer), *rest)

    compiled = compiled_decoder.compiled_read(
        made.names, columns, converters, lambda: fallback, tuples=tuples
    )
    return Pair(made.read, compiled)


def exact(data: bytes) -> memoryview:
    """In memory of exactly this size, so that a sanitizer sees a read behind it."""
    made = memoryview(array.array("B", bytes(1)) * len(data))  # of bytes it takes more
    made[:] = data
    return made


def outcome(read: Callable[..., Any], buffer: Any, position: int, number: int) -> Any:
    """What it returned or raised, and the rows with the types of their values."""
    rows: List[Any] = []
    try:
        ended: Any = read(buffer, position, len(buffer), number, rows)
    except Exception as error:
        ended = (type(error), str(error))
    return ended, [typed(row) for row in rows]


def typed(row: Any) -> Any:
    if isinstance(row, dict):
        return [(name, type(value), repr(value)) for name, value in row.items()]
    return [(type(value), repr(value)) for value in row]


def compare(both: Pair, data: bytes, position: int = 0, number: int = 1) -> Any:
    """Raise AssertionError unless both decoders do the same; return what they did."""
    expected = outcome(both.python, data, position, number)
    found = outcome(both.compiled, exact(data), position, number)
    assert found == expected, (found, expected, data)
    return expected


#: What one byte of a fuzzer's input chooses among.
FUZZED: List[Tuple[Tuple[str, ...], str]] = [
    *[((name,), "utf8") for name in sorted(KINDS)],
    *[(("VARCHAR", "integer 8"), encoding) for encoding in ENCODINGS],
    (tuple(sorted(KINDS)), "utf8"),
    (("integer 8", "VARCHAR", "DECIMAL", "DATETIME", "BLOB"), "utf8"),
    (("integer 3",) * 120, "utf8"),
]


def fuzz_one(data: bytes) -> None:
    """Decode an input: columns, flags, sequence number, then the bytes of packets, or
    (by a flag) payloads of packets, each with a byte of length before it.
    """
    if len(data) < 3:
        return
    kinds, encoding = FUZZED[data[0] % len(FUZZED)]
    flags, number, rest = data[1], data[2], data[3:]
    if flags & 2:
        rest = as_packets(rest, number)
    compare(pair(kinds, encoding, bool(flags & 1)), rest, number=number)


def as_packets(data: bytes, number: int) -> bytes:
    made: List[bytes] = []
    while data:
        size = data[0]
        made.append(packet(data[1 : 1 + size], number + len(made)))
        data = data[1 + size :]
    return b"".join(made)


def fuzz_seed(rng: random.Random) -> bytes:
    """An input that has rows, for a fuzzer to begin with."""
    chosen = rng.randrange(len(FUZZED))
    number, tuples = rng.randrange(256), rng.randrange(2)
    kinds, _ = FUZZED[chosen]
    payloads = [row(rng, kinds) for _ in range(rng.randrange(1, 4))]
    if rng.random() < 0.5:
        short = [bytes([len(each)]) + each for each in payloads if len(each) < 256]
        return bytes([chosen, tuples | 2, number]) + b"".join(short)
    body = b"".join([packet(each, number + n) for n, each in enumerate(payloads)])
    return bytes([chosen, tuples, number]) + body


def row(rng: random.Random, kinds: Sequence[str], odd: float = 0.1) -> bytes:
    """A row's payload; so many of its values are such as no server writes."""
    values: List[Text] = []
    for name in kinds:
        kind = KINDS[name]
        texts = kind.odd if kind.odd and rng.random() < odd else kind.usual
        values.append(None if rng.random() < 0.1 else rng.choice(texts))
    return b"".join([length_encoded(value, rng) for value in values])
