"""The compiled row decoder, an optional extension module."""

from decimal import Decimal
from functools import cache
from sys import intern
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

import pymysql.converters

try:
    from . import _row_decoder
except ImportError:  # there was no C compiler
    AVAILABLE = False
else:
    AVAILABLE = True

#: Converts a value's bytes.
Converter = Callable[[bytes], Any]
#: ``(buffer, position, end, number, rows) -> (position, number, over)``, as RowDecoder.
Read = Callable[..., Tuple[int, int, bool]]


def compiled_read(
    names: Sequence[str],
    columns: Sequence[Tuple[Optional[str], Any]],
    converters: Sequence[Converter],
    make_fallback: Callable[[], Read],
    *,
    tuples: bool,
) -> Read:
    """Make the compiled counterpart of a Python ``read``.

    Args:
        names: The keys of a row.
        columns: Each column's encoding and driver's converter, as in row_decoder.
        converters: Python functions from a value's bytes to the value, for uncommon
            types and formats.
        make_fallback: Makes the Python ``read``, on the first row that the compiled
            decoder cannot read: it decodes such rows and raises their errors.
        tuples: Rows are tuples, not dicts.
    """
    made = cache(make_fallback)

    def fallback(*arguments: object) -> Tuple[int, int, bool]:
        return made()(*arguments)

    codecs = tuple([_codec(*column, convert) for column, convert in zip(columns, converters)])
    return _row_decoder.RowReader(tuple(map(intern, names)), codecs, fallback, tuples).read


def _codec(
    encoding: Optional[str], converter: object, convert: Converter
) -> Tuple[int, Optional[str], Callable[[Any], Any]]:
    if converter is None:
        return _text_kind(encoding), encoding, convert
    if encoding != "ascii":
        return _row_decoder.CONVERT, None, convert
    if converter is Decimal:
        return _row_decoder.CONVERT_ASCII, None, Decimal
    return _kinds().get(converter, _row_decoder.CONVERT), None, convert


def _text_kind(encoding: Optional[str]) -> int:
    if encoding is None:
        return _row_decoder.BYTES
    if encoding in ("utf8", "utf-8"):
        return _row_decoder.UTF8
    return _row_decoder.ASCII if encoding == "ascii" else _row_decoder.ENCODED


def _kinds() -> Dict[Any, int]:
    return {
        int: _row_decoder.INTEGER,
        float: _row_decoder.FLOAT,
        pymysql.converters.convert_datetime: _row_decoder.DATETIME,
        pymysql.converters.convert_date: _row_decoder.DATE,
        pymysql.converters.convert_timedelta: _row_decoder.TIME,
    }
