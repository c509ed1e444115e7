"""The status page as an ASGI application."""

import asyncio
import time
from typing import Any, Awaitable, Callable, Dict, List, MutableMapping, Tuple

from ... import errors
from ...api.service_life import AnyService
from ...async_impl import DatabaseService as AsyncDatabaseService
from .responses import (
    EVENTS_TYPE,
    SECURITY_HEADERS,
    Response,
    event,
    json_response,
    make_response,
    static_response,
)
from .snapshot import SAMPLE_INTERVAL, Recorder, job_rows

__all__ = ["asgi_app"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Seconds after which a stream of events ends and the browser begins another, so that a
#: server that stops does not wait long for it.
STREAM_SECONDS = 20.0
#: The most streams of events at the same time.
MOST_STREAMS = 50
#: Seconds for reading the jobs, and for which they are shown until they are read again.
JOBS_TIMEOUT = 1.0
JOBS_CACHED = 5.0


def asgi_app(service: AnyService, *, jobs: bool = True) -> Application:
    """Return the status page of a service as an ASGI application.

    It is read-only, shows no secrets, and works while databases are down. It does not
    ask who is there: mount it where only operators get.

    Args:
        service: The service, of threads or of asyncio.
        jobs: Show the durable jobs, which are read from the global database.

    Example:
        >>> app.mount("/status", asgi_app(db))
    """
    return _Page(service, jobs=jobs)


class _Page:
    def __init__(self, service: AnyService, *, jobs: bool) -> None:
        self._service = service
        self._recorder = Recorder(service)
        self._shows_jobs = jobs
        self._jobs_read_at = float("-inf")
        self._streams = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"the status page takes no {scope['type']}")
        root = scope.get("root_path", "")
        path = scope["path"]
        if root and path.startswith(root):
            path = path[len(root) :]
        found = static_response(scope["method"], root, path)
        if found is None and path == "/status.json":
            found = json_response(await self._snapshot())
        if found is None and self._streams >= MOST_STREAMS:
            found = make_response("503 Service Unavailable", "text/plain", b"too many streams\n")
        if found is None:
            await self._stream(receive, send)
        else:
            await _send(found, send, head=scope["method"] == "HEAD")

    async def _snapshot(self) -> Dict[str, Any]:
        if self._shows_jobs and time.monotonic() - self._jobs_read_at >= JOBS_CACHED:
            self._jobs_read_at = time.monotonic()
            await self._read_jobs()
        return self._recorder.snapshot()

    async def _read_jobs(self) -> None:
        service: Any = self._service
        try:
            if isinstance(service, AsyncDatabaseService):
                with service.deadline(JOBS_TIMEOUT):
                    found = await service.operations.jobs.list()
            else:
                found = await asyncio.to_thread(_list_jobs, service)
            self._recorder.jobs = job_rows(found)
            self._recorder.jobs_failure = None
        except errors.Error as error:
            self._recorder.jobs_failure = errors.reason_of(error)

    async def _stream(self, receive: Receive, send: Send) -> None:
        self._streams += 1
        left = asyncio.ensure_future(_left(receive))
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": _encoded([("Content-Type", EVENTS_TYPE), *SECURITY_HEADERS]),
                }
            )
            ends_at = time.monotonic() + STREAM_SECONDS
            while not left.done() and time.monotonic() < ends_at:
                body = event(await self._snapshot())
                await send({"type": "http.response.body", "body": body, "more_body": True})
                await asyncio.wait({left}, timeout=SAMPLE_INTERVAL)
            if not left.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._streams -= 1
            left.cancel()


def _list_jobs(service: Any) -> Any:
    with service.deadline(JOBS_TIMEOUT):
        return service.operations.jobs.list()


async def _left(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _lifespan(receive: Receive, send: Send) -> None:
    for what in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{what}.complete"})


async def _send(response: Response, send: Send, *, head: bool) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": response.code,
            "headers": _encoded(response.headers),
        }
    )
    await send({"type": "http.response.body", "body": b"" if head else response.body})


def _encoded(headers: List[Tuple[str, str]]) -> List[Tuple[bytes, bytes]]:
    return [(name.lower().encode("latin1"), value.encode("latin1")) for name, value in headers]
