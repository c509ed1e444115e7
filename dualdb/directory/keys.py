"""Validation of keys by the type of their column, and hash buckets of keys."""

import enum
import hashlib
import operator
import re
import uuid
from typing import Any, NamedTuple, Optional, Union

from ..errors import ParameterError

#: The types of stored keys.
StoredKey = Union[int, str, bytes]

_INTEGER_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_TEXT = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "uuid"})
_BINARY = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})

_IDENTIFIER = re.compile(r"[\w$]{1,64}")


class KeyKind(enum.Enum):
    """How the values of a key column compare."""

    INTEGER = "integer"
    TEXT = "text"  # by the collation of the column
    BINARY = "binary"


class KeyColumn(NamedTuple):
    """The key column of a lookup table.

    Servers convert values in comparisons: on a BIGINT column ``= 'abc'`` matches key 0,
    and on a VARCHAR ``= 7`` matches '7x'. So keys of another type are refused.
    """

    name: str
    kind: KeyKind
    data_type: str
    low: int = 0
    high: int = 0
    length: Optional[int] = None

    def stored(self, key: object) -> StoredKey:
        """Return the key as the column stores it.

        Raises:
            ParameterError: It is not a valid key of this column.
        """
        if self.kind is KeyKind.INTEGER:
            return self._integer(key)
        if self.kind is KeyKind.BINARY:
            return self._binary(key)
        return self._text(key)

    def _integer(self, key: Any) -> int:
        try:
            if isinstance(key, bool):
                raise TypeError
            number = operator.index(key)
        except TypeError:
            raise self._unfit(key, "an int") from None
        if not self.low <= number <= self.high:
            raise self._unfit(key, f"from {self.low} to {self.high}")
        return number

    def _text(self, key: object) -> str:
        text = str(key) if isinstance(key, (int, uuid.UUID)) else key
        if isinstance(key, bool) or not isinstance(text, str):
            raise self._unfit(key, "a str, an int or a UUID")
        if self.length is not None and len(text) > self.length:
            raise self._unfit(key, f"{self.length} characters at most")
        return text

    def _binary(self, key: object) -> bytes:
        data = key.bytes if isinstance(key, uuid.UUID) else key
        if not isinstance(data, bytes):
            raise self._unfit(key, "bytes or a UUID")
        if self.length is not None and len(data) > self.length:
            raise self._unfit(key, f"{self.length} bytes at most")
        return data

    def _unfit(self, key: object, expected: str) -> ParameterError:
        return ParameterError(
            f"a key of the column {self.name} ({self.data_type}) is {expected}, not {key!r}"
        )


def key_column(name: str, data_type: str, column_type: str, length: Optional[int]) -> KeyColumn:
    """A key column by its row in ``information_schema.COLUMNS``.

    Raises:
        ParameterError: The type holds no keys: a FLOAT, a DATE and their like.
    """
    kind = data_type.lower()
    if kind in _INTEGER_BITS:
        bits = _INTEGER_BITS[kind]
        unsigned = "unsigned" in column_type.lower()
        low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return KeyColumn(name, KeyKind.INTEGER, kind, low, high)
    if kind in _TEXT:
        return KeyColumn(name, KeyKind.TEXT, kind, length=length)
    if kind in _BINARY:
        return KeyColumn(name, KeyKind.BINARY, kind, length=length)
    raise ParameterError(f"the column {name} is a {data_type}: keys are integers, text or bytes")


def bucket_of(key: object, buckets: int) -> int:
    """The hash bucket of a key, from 0; the same in every process and version.

    An int and its decimal text are the same key, as they are in a URL; so are a UUID
    and its text.

    Raises:
        ParameterError: The key is no int, str, bytes or UUID.
    """
    if isinstance(key, bool) or not isinstance(key, (int, str, bytes, uuid.UUID)):
        raise ParameterError(f"a key is an int, a str, bytes or a UUID, not {key!r}")
    data = key if isinstance(key, bytes) else str(key).encode()
    digest = hashlib.blake2b(data, digest_size=8).digest()
    return int.from_bytes(digest, "big") % buckets


def table_name(name: object, what: str) -> str:
    """A table's ``name`` or ``schema.name``.

    Raises:
        ValueError: It is no such name.
    """
    parts = name.split(".") if isinstance(name, str) else []
    if not 1 <= len(parts) <= 2 or not all(_IDENTIFIER.fullmatch(part) for part in parts):
        raise ValueError(f"{what} must be name or schema.name, not {name!r}")
    return str(name)


def column_name(name: object, what: str) -> str:
    """A column's name.

    Raises:
        ValueError: It is no such name.
    """
    if not isinstance(name, str) or not _IDENTIFIER.fullmatch(name):
        raise ValueError(f"{what} must be the name of a column, not {name!r}")
    return name


def quoted(name: str) -> str:
    """A name that was checked, in backticks."""
    return ".".join([f"`{part}`" for part in name.split(".")])
