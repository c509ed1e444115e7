"""The plan of ``executemany``: rows in chunks, and errors with row numbers."""

import inspect
from typing import (
    Any,
    Callable,
    List,
    Optional,
    Tuple,
)

from .. import deadlines, errors
from ..protocol.response import completed
from ..protocol.statements import Bulk, PacketLimit
from ..results import ResultSet, RowCount
from ..sql.bulk import Chunk, Chunks, ChunksAhead
from .execute import execute_statement
from .steps import AwaitUser, Plan, Route

#: Maximum length of a chunk of several rows, in bytes, even if the server allows more:
#: longer statements are no faster.
LONGEST_CHUNK = 4 * 1024 * 1024


def executemany(
    route: Route,
    sql: str,
    rows: Any,
    *,
    chunk_rows: int,
    progress: Optional[Callable[[int], Any]],
    timeout: Optional[float],
    idempotent: bool,
    awaits: bool,
) -> Plan[RowCount]:
    """Write rows chunk by chunk.

    Args:
        route: The route of all chunks.
        sql: The statement for one row.
        rows: An iterable, or in asyncio an async iterable, of parameters.
        chunk_rows: The most rows of a chunk.
        progress: Called with the number of rows written so far after each chunk.
        timeout: Seconds for all chunks; None for no limit.
        idempotent: A chunk may be sent again after its connection was lost.
        awaits: The runner can await the caller's rows and ``progress``.

    Raises:
        Error: Writing a chunk failed; ``rows`` has the numbers of its rows, or of the
            row whose statement failed. The rows before them have been written.
    """
    until = deadlines.deadline_after(timeout)
    is_async = hasattr(rows, "__aiter__")
    _check_arguments(rows, chunk_rows, progress, awaits)
    limit, style = yield from execute_statement(route, PacketLimit(), until)
    cut = Chunks(sql, chunk_rows, min(limit or LONGEST_CHUNK, LONGEST_CHUNK) - 64, style)
    chunks = None if is_async else ChunksAhead(cut, rows)
    # The caller's own iterator may use the connection, so it waits for the answer.
    ahead = chunks.prepare if chunks is not None and type(rows) in (list, tuple) else None
    affected = written = lastrowid = warnings = 0

    def write(chunk: Chunk) -> Plan[None]:
        nonlocal affected, written, lastrowid, warnings
        try:
            results: List[ResultSet] = yield from execute_statement(
                route, Bulk(chunk, idempotent=idempotent, while_waiting=ahead), until
            )
        except errors.Error as error:
            error.rows = _rows_of(chunk, error)
            raise
        for result in results:
            affected = affected + result.rowcount
            lastrowid = result.lastrowid or lastrowid
            warnings = warnings + result.warnings
        written = written + len(chunk.texts)
        pending = None if progress is None else progress(written)
        if awaits and inspect.isawaitable(pending):
            yield AwaitUser(pending)

    if chunks is not None:
        for chunk in chunks:
            yield from write(chunk)
    else:
        source = rows.__aiter__()
        while True:
            try:
                params = yield AwaitUser(source.__anext__())
            except StopAsyncIteration:
                break
            full = cut.add(params)
            if full is not None:
                yield from write(full)
        rest = cut.rest()
        if rest is not None:
            yield from write(rest)
    return RowCount(affected, lastrowid, warnings)


def _rows_of(chunk: Chunk, error: errors.Error) -> Tuple[int, int]:
    """Return the numbers of the first and the last row that an error is about."""
    if chunk.is_batch and errors.is_server_error(error):
        row = chunk.first + completed(error.driver_error or error)
        return row, row
    return chunk.first, chunk.first + len(chunk.texts) - 1


def _check_arguments(
    rows: object, chunk_rows: int, progress: Optional[Callable[[int], Any]], awaits: bool
) -> None:
    if not isinstance(chunk_rows, int) or isinstance(chunk_rows, bool) or chunk_rows < 1:
        raise errors.ParameterError(f"chunk_rows must be an int from 1 up, not {chunk_rows!r}")
    is_async = hasattr(rows, "__aiter__")
    if not is_async and not hasattr(rows, "__iter__"):
        raise errors.ParameterError(
            f"rows must be an iterable of parameters, not {type(rows).__name__}"
        )
    if not awaits and (is_async or inspect.iscoroutinefunction(progress)):
        raise errors.ParameterError(
            f"{'an async iterable of rows' if is_async else 'a coroutine function as progress'} "
            "requires the asyncio service"
        )
