"""A deadline, a current database and answers to errors for each request."""

import asyncio
import contextlib
import inspect
from typing import Any, Callable, Optional

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse

from ... import blocks
from ...deadlines import Deadline
from ..http import error_answer
from ..wsgi import open_at_first_use
from . import options


class DatabaseMiddleware:
    """The middleware, for WSGI and ASGI.

    It opens the services before the first request of each process. Put it after the
    middleware that ``DUALDB["SESSION"]`` needs, such as AuthenticationMiddleware.
    Errors of a database in a view, also those of the ORM, are answered with 503, 504,
    409, 429 or 404; see ``error_answer``. A streaming response is sent after its end.

    Args:
        get_response: What handles the request.

    Example:
        >>> MIDDLEWARE = [..., "dualdb.integrations.django.DatabaseMiddleware"]
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._service = options.service()
        self._async_service = options.async_service()
        self._session = options.session()
        self._timeout = options.timeout()
        self._lock = options.lock()
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Handle a request.

        Args:
            request: The request.
        """
        if self._is_async:
            return self._call_in_task(request)
        with blocks.outside_all(), contextlib.ExitStack() as stack:
            open_at_first_use(self._service)
            if self._timeout is not None:
                stack.enter_context(Deadline(self._timeout))
            session = None if self._session is None else self._session(request)
            if session is not None:
                stack.enter_context(self._service.scope(session, lock=self._lock))
            return self._get_response(request)

    async def _call_in_task(self, request: HttpRequest) -> Any:
        with blocks.outside_all():
            async with contextlib.AsyncExitStack() as stack:
                await asyncio.to_thread(open_at_first_use, self._service)
                if self._async_service is not None:
                    await self._async_service.init_service()
                if self._timeout is not None:
                    stack.enter_context(Deadline(self._timeout))
                session = await self._find_session(request)
                if session is not None:
                    # found without I/O; the ORM's threads run in copies of the context
                    stack.enter_context(self._service.scope(session, lock=self._lock))
                    if self._async_service is not None:
                        scope = self._async_service.scope(session, lock=self._lock)
                        await stack.enter_async_context(scope)
                return await self._get_response(request)

    async def _find_session(self, request: HttpRequest) -> Any:
        if self._session is None:
            return None
        if iscoroutinefunction(self._session):
            return await self._session(request)
        found = await sync_to_async(self._session)(request)
        return await found if inspect.isawaitable(found) else found

    def process_exception(
        self, request: HttpRequest, exception: BaseException
    ) -> Optional[HttpResponse]:
        """Answer an error that a view has raised.

        Args:
            request: The request.
            exception: The error.
        """
        answer = error_answer(exception)
        if answer is None:
            return None
        return HttpResponse(answer.body, status=answer.status, headers=answer.headers)
