"""A middleware for WSGI applications, whatever their framework."""

import atexit
import contextlib
import http
import logging
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, List, Optional, Tuple, Union

from .. import blocks, errors
from ..deadlines import Deadline, seconds
from ..sync_impl import DatabaseService
from .http import CausalCarrier, ErrorAnswer, error_answer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["DatabaseMiddleware", "open_at_first_use"]

log = logging.getLogger("dualdb.integrations")


def open_at_first_use(service: DatabaseService) -> None:
    """Open a service if it is not open, and close it when the process ends.

    A WSGI server has no event at which a worker process begins. A service that was
    opened before the server forked its workers (``gunicorn --preload``) opens
    connections of its own in each of them.

    Args:
        service: The service.
    """
    try:
        service.get_global_client()
    except errors.ServiceNotOpen:
        service.init_service()
        atexit.unregister(service.close_service)
        atexit.register(service.close_service)


class DatabaseMiddleware:
    """Give each request a deadline and a current database, and answer its errors.

    It opens the service before the first request of each process. The blocks end when
    the response has been sent or its client has left, whatever the application raised.
    Errors of a database are answered as by the ASGI middleware; see ``error_answer``.

    Args:
        app: The application.
        service: The service.
        timeout: Seconds for all calls of one request together; or a function that
            takes the WSGI environment and returns them. None for no limit.
        timeout_header: The name of a request header with a shorter limit in seconds,
            as a gateway sets it. None to ignore the client's wishes.
        session: Takes the WSGI environment and returns the client session:
            ``db.current`` is its database. For None there is no current database, and
            every shard may be used.
        lock: Refuse calls to other shards than the session's; see ``db.scope``.
        causal_header: The name of a header in which the token of ``db.causal`` comes
            with a request, and goes with its response: reads of replicas see what the
            same client has written before. None for none.
        causal_cookie: The name of a cookie for the same.

    Example:
        >>> app.wsgi_app = DatabaseMiddleware(app.wsgi_app, db, timeout=10)
    """

    def __init__(
        self,
        app: "WSGIApplication",
        service: DatabaseService,
        *,
        timeout: "Union[float, Callable[[WSGIEnvironment], Optional[float]], None]" = None,
        timeout_header: Optional[str] = None,
        session: "Optional[Callable[[WSGIEnvironment], object]]" = None,
        lock: bool = True,
        causal_header: Optional[str] = None,
        causal_cookie: Optional[str] = None,
    ) -> None:
        self._app = app
        self._service = service
        self._timeout = timeout if timeout is None or callable(timeout) else seconds(timeout)
        self._timeout_key = None if timeout_header is None else _key_of(timeout_header)
        self._session = session
        self._lock = lock
        self._causal = CausalCarrier(causal_header, causal_cookie)

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Handle one request; see PEP 3333.

        Args:
            environ: What is asked for.
            start_response: Takes the status and the headers.
        """
        stack = contextlib.ExitStack()
        started = _Started(start_response)
        try:
            self._enter(stack, environ, started)
            body = self._app(environ, started)
        except Exception as error:
            stack.close()
            answer = error_answer(error)
            if answer is None or started.called:
                raise
            log.warning(
                "%s %s answered with %d: %s (shard %s)",
                environ.get("REQUEST_METHOD"),
                environ.get("PATH_INFO"),
                answer.status,
                answer.error,
                answer.shard_id,
            )
            return _send(answer, start_response)
        except BaseException:
            stack.close()
            raise
        return _Body(body, stack)

    def _enter(
        self, stack: contextlib.ExitStack, environ: "WSGIEnvironment", started: "_Started"
    ) -> None:
        stack.enter_context(blocks.outside_all())
        open_at_first_use(self._service)
        timeout = self._limit(environ)
        if timeout is not None:
            stack.enter_context(Deadline(timeout))
        session = None if self._session is None else self._session(environ)
        if session is not None:
            stack.enter_context(self._service.scope(session, lock=self._lock))
        carrier = self._causal
        if carrier.is_used:
            given = environ.get(_key_of(carrier.header or ""))
            block = carrier.block(self._service, given, environ.get("HTTP_COOKIE"))
            stack.enter_context(block)
            secure = environ.get("wsgi.url_scheme") == "https"
            started.more_headers = lambda: carrier.headers(block.token, secure=secure)

    def _limit(self, environ: "WSGIEnvironment") -> Optional[float]:
        timeout = self._timeout(environ) if callable(self._timeout) else self._timeout
        asked = environ.get(self._timeout_key or "")
        if asked is not None:
            with contextlib.suppress(ValueError, errors.ParameterError):
                given = seconds(float(asked))
                return given if timeout is None else min(given, timeout)
        return timeout


def _key_of(header: str) -> str:
    """Return the key of a request's header."""
    return f"HTTP_{header.upper().replace('-', '_')}"


class _Started:
    """The server's ``start_response``, and whether it was called."""

    def __init__(self, start_response: "StartResponse") -> None:
        self._start_response = start_response
        self.called = False
        #: Gives headers to be added to the response.
        self.more_headers: Callable[[], List[Tuple[str, str]]] = list

    def __call__(
        self, status: str, headers: List[Tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        self.called = True
        whole = [*headers, *self.more_headers()]
        write: Callable[[bytes], object] = self._start_response(status, whole, exc_info)
        return write


def _send(answer: ErrorAnswer, start_response: "StartResponse") -> Iterable[bytes]:
    status = f"{answer.status} {http.HTTPStatus(answer.status).phrase}"
    headers = [*answer.headers.items(), ("content-length", str(len(answer.body)))]
    start_response(status, headers)
    return [answer.body]


class _Body:
    """The body of a response, during which its request goes on."""

    def __init__(self, body: Iterable[bytes], stack: contextlib.ExitStack) -> None:
        self._body = body
        self._stack = stack

    def __iter__(self) -> Iterator[bytes]:
        yield from self._body
        self.close()

    def close(self) -> None:
        """Called by the server, when the response is over or the client has left."""
        body: Iterable[bytes] = self._body
        self._body = ()
        try:
            close = getattr(body, "close", None)
            if close is not None:
                close()
        finally:
            self._stack.close()
