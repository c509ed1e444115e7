"""Flask: a deadline, a current database and answers to errors for each request."""

import contextlib
from typing import Any, Callable, Iterator, Optional, Union

import pymysql.err
from flask import Flask, Response, request

from ..sync_impl import DatabaseService, Merge, Stream
from .encoding import MEDIA_TYPES, Format, RowsEncoder
from .http import error_answer
from .wsgi import DatabaseMiddleware

__all__ = ["DualDB", "rows_response"]

_BLOCKS = "dualdb.blocks"


class DualDB:
    """A service for the views of a Flask application.

    It is opened before the first request of each process, after a ``gunicorn
    --preload``, too. Errors of a database are answered with 503, 504, 409, 429 or 404
    (see ``error_answer``); an error handler of the application for a more specific
    class comes first.

    Args:
        app: The application; or None, and ``init_app`` later.
        service: The service.
        session: Returns the client session of the request, or None: ``db.current`` is
            its database. It is called before the view and the functions of
            ``before_request`` that are registered later, inside the request's context.
        timeout: Seconds for all calls of one request together; None for no limit.
        lock: Refuse calls to other shards than the session's; see ``db.scope``.

    Example:
        >>> DualDB(app, service=db, session=lambda: flask.session.get("client"))
    """

    def __init__(
        self,
        app: Optional[Flask] = None,
        *,
        service: DatabaseService,
        session: Optional[Callable[[], object]] = None,
        timeout: Optional[float] = None,
        lock: bool = True,
    ) -> None:
        self.service = service
        self._session = session
        self._timeout = timeout
        self._lock = lock
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Serve an application.

        Args:
            app: The application.
        """
        middleware = DatabaseMiddleware(app.wsgi_app, self.service, timeout=self._timeout)
        app.wsgi_app = middleware  # type: ignore[method-assign]
        app.register_error_handler(pymysql.err.Error, _answer)
        if self._session is not None:
            app.before_request(self._enter)
            app.teardown_request(self._leave)

    def _enter(self) -> None:
        assert self._session is not None
        session = self._session()
        if session is not None:
            blocks = request.environ[_BLOCKS] = contextlib.ExitStack()
            blocks.enter_context(self.service.scope(session, lock=self._lock))

    @staticmethod
    def _leave(error: Optional[BaseException]) -> None:
        blocks = request.environ.pop(_BLOCKS, None)
        if blocks is not None:
            blocks.close()


def _answer(error: Exception) -> Response:
    answer = error_answer(error)
    if answer is None:
        raise error
    return Response(answer.body, answer.status, answer.headers)


def rows_response(
    rows: "Union[Stream[Any], Merge]",
    *,
    format: Format = "ndjson",
    encode: Optional[Callable[[Any], Any]] = None,
) -> Response:
    """Send the rows of a stream or merge as they arrive, in constant memory.

    When the response ends or its client leaves, the stream is closed: its connection is
    free, and its query is aborted on the server. The first rows are read before
    anything is sent, so that a query that fails has an error's status.

    Args:
        rows: ``db.shard(2).stream(...)`` or ``db.shards().merge(...)``.
        format: "ndjson", one row on each line; or "json", one array.
        encode: Returns what JSON has no type for; see ``plain``.

    Returns:
        The response.

    Example:
        >>> return rows_response(db.current.stream("SELECT * FROM trades"))
    """
    chunks = _chunks(rows, RowsEncoder(format, encode))
    first = next(chunks)
    response = Response(_all(first, chunks), mimetype=MEDIA_TYPES[format])
    response.call_on_close(rows.close)
    return response


def _chunks(rows: "Union[Stream[Any], Merge]", encoder: RowsEncoder) -> Iterator[bytes]:
    for row in rows:
        chunk = encoder.add(row)
        if chunk:
            yield chunk
    yield encoder.end()


def _all(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
