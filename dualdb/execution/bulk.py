"""``executemany`` as a plan: chunks of rows, and what an error means for them."""

import inspect
import time
from typing import (
    Any,
    Callable,
    List,
    Optional,
)

from .. import deadlines, errors
from ..protocol.statements import Bulk, PacketLimit
from ..results import ResultSet, RowCount
from ..sql.bulk import Chunk, Chunks
from .execute import execute_statement
from .steps import AwaitUser, Plan, Route

#: A chunk of several rows is not longer than this, whatever the server takes: more
#: would only wait longer.
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

    An error carries the numbers of the rows of its chunk; the chunks before it have
    been written.

    ``awaits`` says whether there is a loop in which the caller's rows and progress can
    be awaited.
    """
    until = deadlines.deadline_after(timeout)
    is_async = hasattr(rows, "__aiter__")
    _check_arguments(rows, chunk_rows, progress, awaits)
    limit, style = yield from execute_statement(route, PacketLimit(), timeout)
    cut = Chunks(sql, chunk_rows, min(limit or LONGEST_CHUNK, LONGEST_CHUNK) - 64, style)
    affected = written = lastrowid = warnings = 0

    def write(chunk: Chunk) -> Plan[None]:
        nonlocal affected, written, lastrowid, warnings
        left = None if until is None else max(0.0, until - time.monotonic())
        try:
            results: List[ResultSet] = yield from execute_statement(
                route, Bulk(chunk, idempotent=idempotent), left
            )
        except errors.Error as error:
            error.rows = (chunk.first, chunk.first + len(chunk.texts) - 1)
            raise
        affected = affected + results[0].rowcount
        written = written + len(chunk.texts)
        lastrowid = results[0].lastrowid or lastrowid
        warnings = warnings + results[0].warnings
        translated = None if progress is None else progress(written)
        if awaits and inspect.isawaitable(translated):
            yield AwaitUser(translated)

    if is_async:
        source = rows.__aiter__()
        while True:
            try:
                params = yield AwaitUser(source.__anext__())
            except StopAsyncIteration:
                break
            full = cut.add(params)
            if full is not None:
                yield from write(full)
    else:
        for params in rows:
            full = cut.add(params)
            if full is not None:
                yield from write(full)
    rest = cut.rest()
    if rest is not None:
        yield from write(rest)
    return RowCount(affected, lastrowid, warnings)


def _check_arguments(
    rows: Any, chunk_rows: int, progress: Optional[Callable[[int], Any]], awaits: bool
) -> None:
    if not isinstance(chunk_rows, int) or isinstance(chunk_rows, bool) or chunk_rows < 1:
        raise errors.ParameterError(f"chunk_rows is a number of rows from 1 up, not {chunk_rows!r}")
    is_async = hasattr(rows, "__aiter__")
    if not is_async and not hasattr(rows, "__iter__"):
        raise errors.ParameterError(f"rows is an iterable of parameters, not {type(rows).__name__}")
    if not awaits and (is_async or inspect.iscoroutinefunction(progress)):
        raise errors.ParameterError(
            f"{'rows that are' if is_async else 'a progress that is'} awaited are for "
            "the asyncio service"
        )
