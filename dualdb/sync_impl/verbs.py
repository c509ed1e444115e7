"""What the verbs return, in threads."""

from typing import Any, List, Optional

from ..api.target import Reads, Writes
from ..coordination import idempotency
from ..results import CallResult, Row, RowCount
from .runner import Threads
from .stream import Stream


class Verbs(Threads, Reads[List[Row], Optional[Row], Any, List[Any]], Writes[RowCount, CallResult]):
    """The verbs of targets and of transactions, in threads."""

    _stream_class = Stream
    _run_once = staticmethod(idempotency.run)
