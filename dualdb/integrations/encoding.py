"""Rows as JSON text, in chunks."""

import base64
import datetime
import json
from typing import Any, Callable, Dict, Optional

from typing_extensions import Literal

#: Bytes after which rows are sent.
CHUNK = 1 << 14

Format = Literal["ndjson", "json"]

MEDIA_TYPES: Dict[Format, str] = {"ndjson": "application/x-ndjson", "json": "application/json"}


class RowsEncoder:
    """Writes rows one by one.

    Args:
        format: "ndjson", one row on each line; or "json", one array.
        encode: Returns what JSON has no type for; by default ``plain``.
    """

    def __init__(self, format: Format, encode: Optional[Callable[[Any], Any]] = None) -> None:
        self._array = format == "json"
        self._encode = encode or plain
        self._text = "[" if self._array else ""
        self._first = True

    def add(self, row: object) -> bytes:
        """Return what is to be sent now; nothing while little has been written."""
        if not self._first:
            self._text += ",\n" if self._array else "\n"
        self._first = False
        self._text += json.dumps(row, default=self._encode, separators=(",", ":"))
        if len(self._text) < CHUNK:
            return b""
        sent, self._text = self._text, ""
        return sent.encode()

    def end(self) -> bytes:
        """Return the rest."""
        if self._array:
            return (self._text + "]").encode()
        return self._text.encode() if self._first else (self._text + "\n").encode()


def plain(value: Any) -> Any:
    """Return a value that JSON has: ISO 8601 for dates and times, base64 for bytes, a
    dict for a pydantic model, and ``str`` of anything else.
    """
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return str(value)
