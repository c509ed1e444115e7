"""What the verbs return, in asyncio."""

from ..api.target import Reads, Writes
from ..coordination import idempotency
from .results import Called, Column, Count, OneRow, Rows, Value
from .runner import Tasks
from .stream import Stream


class Verbs(Tasks, Reads[Rows, OneRow, Value, Column], Writes[Count, Called]):
    """The verbs of targets and of transactions, in asyncio."""

    _stream_class = Stream
    _run_once = staticmethod(idempotency.run)
