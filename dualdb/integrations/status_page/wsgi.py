"""The status page as a WSGI application."""

import threading
import time
from typing import TYPE_CHECKING, Any, Dict, Iterable

from ... import errors
from ...api.service_life import AnyService
from ...sync_impl import DatabaseService
from .responses import EVENTS_TYPE, Response, event, json_response, make_response, static_response
from .snapshot import Recorder, job_rows

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["wsgi_app"]

#: Seconds for reading the jobs, and for which they are shown until they are read again.
JOBS_TIMEOUT = 1.0
JOBS_CACHED = 5.0


def wsgi_app(service: AnyService, *, jobs: bool = True) -> "WSGIApplication":
    """Return the status page of a service as a WSGI application.

    As the ASGI application, but that each server-sent event is a response of its own,
    after which the browser asks again, so that no worker is busy with a page that is
    open.

    Args:
        service: The service, of threads; the jobs of one of asyncio are not shown.
        jobs: Show the durable jobs, which are read from the global database.

    Example:
        >>> from werkzeug.middleware.dispatcher import DispatcherMiddleware
        >>> app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/status": wsgi_app(db)})
    """
    return _Page(service, jobs=jobs and isinstance(service, DatabaseService))


class _Page:
    def __init__(self, service: AnyService, *, jobs: bool) -> None:
        self._service = service
        self._recorder = Recorder(service)
        self._shows_jobs = jobs
        self._jobs_read_at = float("-inf")
        self._reading = threading.Lock()

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        response = self._response(
            environ["REQUEST_METHOD"], environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
        )
        start_response(response.status, response.headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]

    def _response(self, method: str, root: str, path: str) -> Response:
        found = static_response(method, root, path)
        if found is not None:
            return found
        snapshot = self._snapshot()
        if path == "/status.json":
            return json_response(snapshot)
        return make_response("200 OK", EVENTS_TYPE, event(snapshot))

    def _snapshot(self) -> Dict[str, Any]:
        due = time.monotonic() - self._jobs_read_at >= JOBS_CACHED
        # one thread reads them, the others show what was read before
        if self._shows_jobs and due and self._reading.acquire(blocking=False):
            try:
                self._jobs_read_at = time.monotonic()
                self._read_jobs()
            finally:
                self._reading.release()
        return self._recorder.snapshot()

    def _read_jobs(self) -> None:
        service: Any = self._service
        try:
            with service.deadline(JOBS_TIMEOUT):
                self._recorder.jobs = job_rows(service.operations.jobs.list())
            self._recorder.jobs_failure = None
        except errors.Error as error:
            self._recorder.jobs_failure = errors.reason_of(error)
