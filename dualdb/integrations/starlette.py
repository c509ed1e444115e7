"""Responses for Starlette and FastAPI whose rows are sent as they arrive."""

import itertools
from typing import Any, AsyncIterator, Callable, Iterator, List, Mapping, Optional, Union

from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ..async_impl import Merge as AsyncMerge
from ..async_impl import Stream as AsyncStream
from ..sync_impl import Merge, Stream
from .asgi import DatabaseMiddleware, lifespan
from .encoding import MEDIA_TYPES, Format, RowsEncoder

__all__ = ["DatabaseMiddleware", "RowsResponse", "lifespan"]

#: Rows that are read at a time where reading needs a thread.
BATCH = 200

Rows = Union["Stream[Any]", "AsyncStream[Any]", Merge, AsyncMerge]


class RowsResponse(StreamingResponse):
    """The rows of a stream or merge, sent as they arrive, in constant memory.

    However it ends, and above all when the client leaves, the stream is closed at once:
    its connection is free, and its query is aborted on the server. The first row is
    read before anything is sent, so that a query that fails has an error's status.

    Args:
        rows: ``db.shard(2).stream(...)`` or ``db.shards().merge(...)``, of either
            implementation.
        format: "ndjson", one row on each line; or "json", one array.
        encode: Returns what JSON has no type for: by default ISO 8601 for dates and
            times, base64 for bytes, and ``str`` of anything else.
        status_code: The HTTP status.
        headers: Further headers.

    Example:
        >>> return RowsResponse(db.shard(2).stream("SELECT * FROM trades"))
    """

    def __init__(
        self,
        rows: Rows,
        *,
        format: Format = "ndjson",
        encode: "Optional[Callable[[Any], Any]]" = None,
        status_code: int = 200,
        headers: Optional[Mapping[str, str]] = None,
    ) -> None:
        self._rows = rows
        super().__init__(
            _chunks(_iterate(rows), RowsEncoder(format, encode)),
            status_code,
            headers,
            MEDIA_TYPES[format],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; see the ASGI specification.

        Args:
            scope: As there.
            receive: As there.
            send: As there.
        """
        try:
            await super().__call__(scope, receive, send)
        finally:
            if isinstance(self._rows, (Stream, Merge)):
                # It waits for a thread that is just reading a row.
                await run_in_threadpool(self._rows.close)
            else:
                self._rows.close()

    async def stream_response(self, send: Send) -> None:
        """Send the status with the first rows, and then the rest.

        Args:
            send: Takes the messages.
        """
        start = {"status": self.status_code, "headers": self.raw_headers}
        started = False
        async for chunk in self.body_iterator:
            if not started:
                await send({"type": "http.response.start", **start})
                started = True
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if not started:
            await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _iterate(rows: Rows) -> AsyncIterator[Any]:
    if isinstance(rows, (Stream, Merge)):
        async for batch in iterate_in_threadpool(_batches(rows)):
            for row in batch:
                yield row
    else:
        async for row in rows:
            yield row


def _batches(rows: Iterator[Any]) -> Iterator[List[Any]]:
    batch = list(itertools.islice(rows, BATCH))
    while batch:
        yield batch
        batch = list(itertools.islice(rows, BATCH))


async def _chunks(rows: AsyncIterator[Any], encoder: RowsEncoder) -> AsyncIterator[bytes]:
    async for row in rows:
        chunk = encoder.add(row)
        if chunk:
            yield chunk
    yield encoder.end()
