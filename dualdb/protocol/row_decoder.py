"""Decoding of rows: makes a function for the columns of a result that decodes its row
packets.

The values are identical to the drivers', including their types. Encoding and converter
of a column are selected as in the drivers. The fast conversions here apply only to the
usual formats; any other text is passed to the driver's converter.
"""

import datetime
import re
import struct
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any, Callable, Dict, List, Literal, NamedTuple, Optional, Tuple

import pymysql.converters
from pymysql.constants import FIELD_TYPE
from pymysql.protocol import FieldDescriptorPacket

from ..results import column_names
from . import compiled_decoder

#: The drivers' converters from text to values, by column type.
DECODERS: Dict[int, Callable[[Any], Any]] = pymysql.converters.decoders

#: A column type of MySQL 9, which PyMySQL does not know and treats as ASCII text.
VECTOR = 242

#: Columns of text, or of bytes if their character set is binary; all others are numbers
#: and dates in ASCII.
_TEXT_TYPES = frozenset(
    {
        FIELD_TYPE.BIT,
        FIELD_TYPE.TINY_BLOB,
        FIELD_TYPE.BLOB,
        FIELD_TYPE.MEDIUM_BLOB,
        FIELD_TYPE.LONG_BLOB,
        FIELD_TYPE.GEOMETRY,
    }
    | {FIELD_TYPE.STRING, FIELD_TYPE.VAR_STRING, FIELD_TYPE.VARCHAR}
)
_BINARY = 63

#: For more columns, compiling a specialised function takes longer than it saves.
_MOST_GENERATED = 100


#: The decoders of rows.
DecoderName = Literal["compiled", "python", "driver"]


def decoder_name(choice: str, *, driver_fits: bool) -> DecoderName:
    """Select the decoder by a configuration's ``row_decoder``.

    Args:
        choice: "auto", "python" or "driver".
        driver_fits: The package's decoder is compatible with the installed driver.
    """
    if choice == "driver" or not driver_fits:
        return "driver"
    return "compiled" if choice == "auto" and compiled_decoder.AVAILABLE else "python"


class Malformed(Exception):
    """The packets violate the protocol."""


class UndecodableValue(UnicodeDecodeError):
    """A text that is not valid in the connection's character set."""

    #: The name of its column.
    column = ""


class RowDecoder(NamedTuple):
    """The columns of a result, and the functions that decode its rows.

    Attributes:
        definitions: The packets of the column definitions it was made from.
        encoding: Python's name for the connection's character set.
        tuples: Rows are tuples and not dicts.
        fields: The column definitions, as the driver parses them.
        names: The keys of a row.
        read: Decodes the rows of all complete packets in a buffer: ``(buffer, position,
            end, sequence number, rows) -> (position, sequence number, over)``. It stops
            at an incomplete packet, at one of 16 MiB, or (over) at one that is not a
            row.
        read_one: Decodes the row of a payload.
        prefix: How the first result of a response with these columns begins, up to the
            warnings after the definitions; None if there are more than 250 columns.
    """

    definitions: bytes
    encoding: str
    tuples: bool
    fields: Tuple[Any, ...]
    names: Tuple[str, ...]
    read: Callable[[bytes, int, int, int, List[Any]], Tuple[int, int, bool]]
    read_one: Callable[[bytes], Any]
    prefix: Optional[bytes] = None

    def fits(self, columns: int, number: int, encoding: str, tuples: bool) -> bool:
        """Return whether it can be reused for a result.

        Args:
            columns: The number of columns.
            number: The sequence number of the first definition.
            encoding: Python's name for the connection's character set.
            tuples: Rows are tuples and not dicts.
        """
        same = len(self.names) == columns and self.definitions[3] == number
        return same and self.tuples is tuples and self.encoding == encoding

    def undecodable_column(self, payload: bytes) -> str:
        """Return the name of the first column of a row with an undecodable text."""
        try:
            self.read_one(payload)
        except UndecodableValue as error:
            return error.column
        return ""


def row_decoder_of(
    definitions: bytes, encoding: str, *, tuples: bool = False, compiled: bool = True
) -> RowDecoder:
    """Make the decoder for the columns of a result.

    Args:
        definitions: The packets of the column definitions, with their headers.
        encoding: Python's name for the connection's character set.
        tuples: Rows are tuples and not dicts.
        compiled: Use the compiled decoder if it was built.

    Raises:
        Malformed: A definition is invalid.
    """
    compiled = compiled and compiled_decoder.AVAILABLE
    # Results of very many columns are too rare to be cached.
    make = _row_decoder_of if len(definitions) < 20_000 else _new_row_decoder
    return make(definitions, encoding, tuples, compiled)


class ColumnDefinition(FieldDescriptorPacket):
    """A column definition, in which a VECTOR is treated as a BLOB."""

    type_code: int
    charsetnr: int

    def __init__(self, data: bytes, encoding: str) -> None:
        super().__init__(data, encoding)
        if self.type_code == VECTOR:
            self.type_code = FIELD_TYPE.BLOB
            self.charsetnr = _BINARY


def _new_row_decoder(definitions: bytes, encoding: str, tuples: bool, compiled: bool) -> RowDecoder:
    fields: List[Any] = []
    position = 0
    while position < len(definitions):
        stop = position + 4 + int.from_bytes(definitions[position : position + 3], "little")
        try:
            fields.append(ColumnDefinition(definitions[position + 4 : stop], encoding))
        except (
            ValueError,
            IndexError,
            AttributeError,
            TypeError,
            AssertionError,
            struct.error,
        ) as error:
            raise Malformed(f"a column definition is invalid ({error})") from error
        position = stop
    names = tuple(column_names(fields))
    columns = [_column_codec(field, encoding) for field in fields]
    converters = [_converter(encoding, converter) for encoding, converter in columns]
    one = _reader_of_one(names, converters, tuples)

    make_read = partial(_python_read, names, columns, one, tuples)
    if compiled:
        read = compiled_decoder.compiled_read(names, columns, converters, make_read, tuples=tuples)
    else:
        read = make_read()
    prefix = _prefix(definitions, len(names))
    return RowDecoder(definitions, encoding, tuples, tuple(fields), names, read, one, prefix)


def _prefix(definitions: bytes, columns: int) -> Optional[bytes]:
    """The packet with the number of columns, the definitions, and the beginning of the
    EOF packet.
    """
    if columns > 250 or definitions[3] != 2:
        return None
    return b"\1\0\0\1%c%b\5\0\0%c\xfe" % (columns, definitions, columns + 2)


_row_decoder_of = lru_cache(maxsize=512)(_new_row_decoder)


def _python_read(
    names: Tuple[str, ...], columns: List[Any], one: Callable[[bytes], Any], tuples: bool
) -> Any:
    if len(columns) <= _MOST_GENERATED:
        return _generated(names, columns, tuples)
    return _reader_of_many(one)


def _column_codec(
    field: ColumnDefinition, connection_encoding: str
) -> Tuple[Optional[str], Optional[Callable[[Any], Any]]]:
    """Return a column's encoding (None for bytes) and converter (None for none)."""
    converter = DECODERS.get(field.type_code)
    if converter is pymysql.converters.through:
        converter = None
    if field.type_code == FIELD_TYPE.JSON:  # its character set is binary, but it is text
        return connection_encoding, converter
    if field.type_code in _TEXT_TYPES:
        return None if field.charsetnr == _BINARY else connection_encoding, converter
    return "ascii", converter


def _datetime(text: bytes) -> Any:
    # Only in this exact format: fromisoformat() also accepts others, which the drivers
    # return as str.
    if (len(text) == 19 and text[4::3] == b"-- ::") or (
        len(text) == 26 and text[4:20:3] == b"-- ::." and text[20:].isdigit()
    ):
        try:
            return datetime.datetime.fromisoformat(text.decode("ascii"))
        except ValueError:
            pass
    return pymysql.converters.convert_datetime(text.decode("ascii"))


def _date(text: bytes) -> Any:
    if len(text) == 10 and text[4::3] == b"--":
        try:
            return datetime.date.fromisoformat(text.decode("ascii"))
        except ValueError:
            pass
    return pymysql.converters.convert_date(text.decode("ascii"))


def _timedelta(text: bytes) -> Any:
    if len(text) == 8 and text[2::3] == b"::":
        digits = text[:2] + text[3:5] + text[6:]
        if digits.isdigit():
            return datetime.timedelta(
                0, int(digits[:2]) * 3600 + int(digits[2:4]) * 60 + int(digits[4:])
            )
    return pymysql.converters.convert_timedelta(text.decode("ascii"))


#: Expressions for converters of ASCII text in the generated function; each uses the
#: bytes ``x`` once.
_FAST = {
    int: "int(x)",  # accepts bytes
    float: "float(x)",
    Decimal: "Decimal(x.decode('ascii'))",
    pymysql.converters.convert_datetime: "_datetime(x)",
    pymysql.converters.convert_date: "_date(x)",
    pymysql.converters.convert_timedelta: "_timedelta(x)",
}
_NEXT = "buffer[(b := p + 1):(p := b + n)]"
# Inlined, because a call of _datetime would take as long as the conversion.
_NEXT_DATETIME = f"""x = {_NEXT}
            try:
                usual = n == 19 and x[4::3] == b"-- ::"
                v{{i}} = fromisoformat(x.decode('ascii')) if usual else _datetime(x)
            except ValueError:
                v{{i}} = _datetime(x)"""


def _decode_expression(number: int, encoding: Optional[str], converter: object) -> str:
    if encoding == "ascii" and converter in _FAST:
        return _FAST[converter]
    text = f"x.decode({encoding!r})"
    if encoding is None:
        text = "x"
    elif encoding in ("utf8", "utf-8"):
        text = "x.decode()"
    return text if converter is None else f"_convert{number}({text})"


# A header is three bytes of length and one of sequence number. For packets below 64 KiB
# a single comparison checks the third byte and the sequence number.
_HEAD = """
def read(buffer, position, end, number, rows):
    append = rows.append
    last = end - 4
    mark = number << 8
    while position <= last:
        length, high = unpack(buffer, position)
        p = position + 4
        stop = p + length
        if high != mark:
            length |= (high & 255) << 16
            stop = p + length
            if length == 0xFFFFFF or high & 0xFF00 != mark:
                break
        if stop > end:
            break
"""
# 251 is NULL; 252 to 254 announce a length of 2, 3 or 8 bytes. A packet that begins
# with 255, or with 254 and is short, is not a row.
_COLUMN = """
        n = buffer[p]
        if n < 251:
            {short}
        elif n == 251:
            v{i} = None
            p += 1
        else:{first}
            begin, p = long(buffer, p, stop)
            {long}
"""
_FIRST = """
            if n == 255 or length < 9:
                return position, mark >> 8, True"""
_TAIL = """
        if p != stop:
            raise Malformed("the length of a row differs from its packet")
        append({row})
        position = stop
        mark = mark + 256 & 0xFF00
    return position, mark >> 8, False
"""


def _generated(names: Tuple[str, ...], columns: List[Any], tuples: bool) -> Any:
    known: Dict[str, Any] = {
        "unpack": struct.Struct("<HH").unpack_from,
        "long": _long,
        "Malformed": Malformed,
        "Decimal": Decimal,
        "_datetime": _datetime,
        "_date": _date,
        "_timedelta": _timedelta,
        "fromisoformat": datetime.datetime.fromisoformat,
    }
    body = []
    for i, (encoding, converter) in enumerate(columns):
        known[f"_convert{i}"] = converter
        assign = f"v{i} = " + re.sub(r"\bx\b", "{x}", _decode_expression(i, encoding, converter))
        is_datetime = encoding == "ascii" and converter is pymysql.converters.convert_datetime
        short = _NEXT_DATETIME.format(i=i) if is_datetime else assign.format(x=_NEXT)
        body.append(
            _COLUMN.format(
                i=i, short=short, long=assign.format(x="buffer[begin:p]"), first="" if i else _FIRST
            )
        )
    pairs = [f"v{i}," if tuples else f"{name!r}: v{i}," for i, name in enumerate(names)]
    row = "(" + "".join(pairs) + ")" if tuples else "{" + "".join(pairs) + "}"
    # Only column names of the server are in the source, quoted by repr().
    exec(
        compile(_HEAD + "".join(body) + _TAIL.format(row=row), "<rows of a result>", "exec"), known
    )
    return known["read"]


_LENGTHS = {252: 2, 253: 3, 254: 8}


def _long(buffer: bytes, position: int, stop: int) -> Tuple[int, int]:
    """Return begin and end of a value of more than 250 bytes."""
    size = _LENGTHS.get(buffer[position])
    begin = position + 1 + (size or 0)
    if size is None or begin > stop:
        raise Malformed("the length of a value is invalid")
    end = begin + int.from_bytes(buffer[position + 1 : begin], "little")
    if end > stop:
        raise Malformed("a value is longer than its packet")
    return begin, end


def _reader_of_one(
    names: Tuple[str, ...], converters: List[Callable[[bytes], Any]], tuples: bool
) -> Callable[[bytes], Any]:
    def read_one(payload: bytes) -> Any:
        values: List[Any] = []
        position = 0
        stop = len(payload)
        for value_of in converters:
            if position >= stop:
                raise Malformed("a row has fewer values than columns")
            length = payload[position]
            if length == 251:
                values.append(None)
                position += 1
                continue
            if length < 251:
                begin = position + 1
                end = position + 1 + length
                if end > stop:
                    raise Malformed("a value is longer than its packet")
            else:
                begin, end = _long(payload, position, stop)
            try:
                values.append(value_of(payload[begin:end]))
            except UnicodeDecodeError as error:
                found = UndecodableValue(*error.args)
                found.column = names[len(values)]
                raise found from None
            position = end
        if position != stop:
            raise Malformed("a row is longer than its columns")
        return tuple(values) if tuples else dict(zip(names, values))

    return read_one


# Cached, because making a converter takes as long as decoding a hundred values.
@lru_cache(maxsize=256)
def _converter(encoding: Optional[str], converter: object) -> Callable[[bytes], Any]:
    known: Dict[str, Any] = {
        "Decimal": Decimal,
        "_datetime": _datetime,
        "_date": _date,
        "_timedelta": _timedelta,
        "_convert0": converter,
    }
    made: Callable[[bytes], Any] = eval(
        "lambda x: " + _decode_expression(0, encoding, converter), known
    )
    return made


def _reader_of_many(read_one: Optional[Callable[[bytes], Any]]) -> Any:
    """Make a ``read`` that decodes row by row, or skips rows if ``read_one`` is
    None.
    """
    unpack = struct.Struct("<I").unpack_from

    def read(
        buffer: bytes, position: int, end: int, number: int, rows: List[Any]
    ) -> Tuple[int, int, bool]:
        while end - position >= 4:
            (header,) = unpack(buffer, position)
            length = header & 0xFFFFFF
            stop = position + 4 + length
            if stop > end or length == 0xFFFFFF or header >> 24 != number:
                break
            if length and (
                buffer[position + 4] == 255 or (buffer[position + 4] == 254 and length < 9)
            ):
                return position, number, True
            if read_one is not None:
                rows.append(read_one(buffer[position + 4 : stop]))
            position = stop
            number = number + 1 & 255
        return position, number, False

    return read


#: Like ``RowDecoder.read``, but skips the rows.
skip_rows = _reader_of_many(None)
