"""A read-only page about a service, as an ASGI and as a WSGI application.

It has no login: mount it behind the application's own.
"""

from .asgi import asgi_app
from .wsgi import wsgi_app

__all__ = ["asgi_app", "wsgi_app"]
