"""A check, at import, that this package's row decoder is compatible with the installed
driver.

A new release of a driver may change the values it produces, or an internal name that
the decoder uses. So both decode the same recorded response with columns of all types.
If the rows differ, the driver's decoder is used.
"""

import logging
import struct
from typing import Any, Callable, Iterable, List, Optional, Tuple, Type

import pymysql.converters
from pymysql.constants import FIELD_TYPE
from pymysql.protocol import MysqlPacket

from ..observability.logs import about
from .response import Response, ResponseOptions

log = logging.getLogger("dualdb.protocol")

_UTF8 = 45
_BINARY = 63
#: Column types with sample values in text format; None is NULL.
_SAMPLES: List[Tuple[int, int, Tuple[Any, ...]]] = [
    (FIELD_TYPE.LONGLONG, _BINARY, (b"-9223372036854775808", b"0", None)),
    (FIELD_TYPE.YEAR, _BINARY, (b"2024", b"0000", b"1901")),
    (FIELD_TYPE.DOUBLE, _BINARY, (b"-1.5e-300", b"0.1", None)),
    (FIELD_TYPE.NEWDECIMAL, _BINARY, (b"-0.10", b"12345678901234567890.123456789", None)),
    (
        FIELD_TYPE.DATETIME,
        _BINARY,
        (b"2024-02-29 23:59:59", b"2024-02-29 23:59:59.000001", b"0000-00-00 00:00:00"),
    ),
    (
        FIELD_TYPE.TIMESTAMP,
        _BINARY,
        (b"2024-02-29 23:59:59.12", b"2024-02-31 00:00:00", b"2024-01-01T00:00:00"),
    ),
    (FIELD_TYPE.DATE, _BINARY, (b"2024-02-29", b"0000-00-00", b"2024-00-01")),
    (FIELD_TYPE.TIME, _BINARY, (b"-838:59:59", b"00:00:01", b"12:00:00.5")),
    (FIELD_TYPE.BIT, _BINARY, (b"\x00\xff", b"\x01", None)),
    (FIELD_TYPE.JSON, _BINARY, ('{"a": "é"}'.encode(), b"[]", None)),
    (FIELD_TYPE.VAR_STRING, _UTF8, ("é€😀".encode(), b"", b"x" * 300)),
    (FIELD_TYPE.VAR_STRING, _BINARY, (b"\xff\x00", b"", None)),
    (FIELD_TYPE.BLOB, _UTF8, (b"text", b"y" * 70_000, None)),
    (FIELD_TYPE.BLOB, _BINARY, (b"\xfe", b"\xfb", b"\x00")),
    (FIELD_TYPE.STRING, _UTF8, (b"enum", b"", None)),
    (FIELD_TYPE.GEOMETRY, _BINARY, (b"\x00\x00\x00\x00\x01", None, None)),
    (FIELD_TYPE.NULL, _BINARY, (None, None, None)),
]


def _text(value: Optional[bytes]) -> bytes:
    if value is None:
        return b"\xfb"
    if len(value) < 251:
        return bytes([len(value)]) + bytes(value)
    return b"\xfd" + struct.pack("<I", len(value))[:3] + bytes(value)


def _payloads() -> List[bytes]:
    definitions = [
        b"".join(
            [_text(word) for word in (b"def", b"db", b"t", b"t", b"c%d" % (number // 2), b"c")]
        )
        + struct.pack("<BHIBHBxx", 12, charset, 1024, kind, 0, 0)
        for number, (kind, charset, _) in enumerate(_SAMPLES)
    ]
    rows = [b"".join([_text(texts[number]) for _, _, texts in _SAMPLES]) for number in range(3)]
    end = b"\xfe\x00\x00\x02\x00"
    return [bytes([len(_SAMPLES)]), *definitions, end, *rows, end]


class Recorded:
    """A stub of a driver's connection, with what reading a result uses."""

    use_unicode = True
    encoding = "utf8"
    unbuffered_active = False
    decoders = pymysql.converters.decoders

    def __init__(self) -> None:
        self._packets = iter(_payloads())

    def packet(self, packet_type: Type[Any] = MysqlPacket) -> Any:
        """Return the next recorded packet."""
        return packet_type(next(self._packets), self.encoding)


def _kinds(rows: Iterable[Iterable[Any]]) -> List[Any]:
    return [[(type(value), value) for value in row] for row in rows]


def why_not(driver: object, by_driver: Callable[[], Any]) -> str:
    """Return why the decoder is incompatible with a driver; empty if it is compatible.

    Args:
        driver: The driver's connection class.
        by_driver: Returns the rows of the recorded response, decoded by the driver.
    """
    missing = [name for name in ("_read_query_result", "_read_packet") if not hasattr(driver, name)]
    if missing:
        return f"{driver.__module__} has no {missing[0]}"
    packets = [
        struct.pack("<I", len(payload) | (number + 1 & 255) << 24) + payload
        for number, payload in enumerate(_payloads())
    ]
    try:
        expected = _kinds(by_driver())
        for compiled in (True, False):
            response = Response(ResponseOptions("utf8", tuples=True, compiled=compiled))
            response.feed(b"".join(packets))
            if _kinds(response.results[0].rows) != expected:
                return "the values differ"
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def trusted(driver: object, by_driver: Callable[[], Any], version: str) -> bool:
    """Return whether this package's decoder is used with a driver; log if not.

    Args:
        driver: The driver's connection class.
        by_driver: Returns the rows of the recorded response, decoded by the driver.
        version: The driver's version, for the log.
    """
    why = why_not(driver, by_driver)
    if why:
        name = driver.__module__.partition(".")[0]
        log.warning(
            (
                "%s %s decodes rows itself, which is slower: dualdb's row decoder is not "
                "compatible with it (%s)"
            ),
            name,
            version,
            why,
            extra=about("driver_decodes_rows"),
        )
    return not why
