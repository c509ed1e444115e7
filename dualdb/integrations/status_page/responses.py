"""The responses of the status page, which both applications send."""

import json
import pathlib
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

_STATIC = pathlib.Path(__file__).parent / "static"

#: The files of the page, with their types.
FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
}
#: Milliseconds after which a browser asks again when a stream of events has ended.
RETRY = 2000

#: Nothing but this page's own files is loaded, and nothing is shown inside others.
SECURITY_HEADERS = [
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
]

EVENTS_TYPE = "text/event-stream; charset=utf-8"


class Response(NamedTuple):
    """A whole response.

    Attributes:
        status: The code and its phrase: ``200 OK``.
        headers: Names and values.
        body: The bytes.
    """

    status: str
    headers: List[Tuple[str, str]]
    body: bytes

    @property
    def code(self) -> int:
        """The status code."""
        return int(self.status[:3])


def make_response(status: str, content_type: str, body: bytes, *more: Tuple[str, str]) -> Response:
    """Return a response with the headers that every one has."""
    headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
    return Response(status, [*headers, *SECURITY_HEADERS, *more], body)


def static_response(method: str, root: str, path: str) -> Optional[Response]:
    """Return the response to a request that needs no figures; None for the others.

    Args:
        method: The request's method.
        root: Where the application is mounted, without a slash at its end.
        path: The path below it: empty, or beginning with a slash.
    """
    if method not in ("GET", "HEAD"):
        return make_response(
            "405 Method Not Allowed", "text/plain", b"read-only\n", ("Allow", "GET, HEAD")
        )
    if not path:
        # relative, so that it holds behind a proxy that changes the beginning
        where = f"{root.rsplit('/', 1)[-1]}/"
        return make_response("307 Temporary Redirect", "text/plain", b"", ("Location", where))
    name = path[1:]
    if name in FILES:
        file, content_type = FILES[name]
        return make_response("200 OK", content_type, (_STATIC / file).read_bytes())
    if name in ("status.json", "events"):
        return None
    return make_response("404 Not Found", "text/plain", b"not found\n")


def json_response(snapshot: Dict[str, Any]) -> Response:
    """Return the figures as JSON."""
    body = json.dumps(snapshot).encode("utf-8")
    return make_response("200 OK", "application/json", body)


def event(snapshot: Dict[str, Any]) -> bytes:
    """Return the figures as one server-sent event."""
    return f"retry: {RETRY}\ndata: {json.dumps(snapshot)}\n\n".encode()
