"""Result packets, made here, and read by the driver."""

import struct
from typing import Any, List

import pymysql.err
from pymysql.connections import MySQLResult
from pymysql.constants import FIELD_TYPE
from pymysql.converters import decoders
from pymysql.protocol import FieldDescriptorPacket, MysqlPacket

from dualdb.protocol.response import Response, ResponseOptions
from dualdb.protocol.row_decoder import ColumnDefinition

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
                if packet_type is FieldDescriptorPacket:  # as this package's connections
                    packet_type = ColumnDefinition
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


def answered(
    data: bytes, sizes: Any = None, cached_decoder: Any = None, **options: Any
) -> Response:
    response = Response(ResponseOptions("utf8", **options), cached_decoder=cached_decoder)
    position = 0
    while position < len(data):
        size = len(data) if sizes is None else next(sizes)
        if response.feed(data[position : position + size]):
            return response
        position += size
    raise AssertionError("not complete")
