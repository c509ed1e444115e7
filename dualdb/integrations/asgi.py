"""A middleware and a lifespan for ASGI applications, whatever their framework."""

import asyncio
import contextlib
import inspect
import logging
from typing import (
    Any,
    AsyncIterator,
    Awaitable,
    Callable,
    Dict,
    Iterator,
    List,
    MutableMapping,
    Optional,
    Tuple,
    Union,
)

from .. import blocks, errors
from ..async_impl import DatabaseService as AsyncDatabaseService
from ..deadlines import Deadline, seconds
from ..sync_impl import DatabaseService
from .http import CausalCarrier, ErrorAnswer, error_answer

__all__ = ["DatabaseMiddleware", "Service", "lifespan"]

log = logging.getLogger("dualdb.integrations")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Either implementation of the service.
Service = Union[DatabaseService, AsyncDatabaseService]


def lifespan(
    *services: Service,
) -> "Callable[[Any], contextlib.AbstractAsyncContextManager[None]]":
    """Open services when the server starts, and close them when it stops.

    Args:
        services: The services, of either implementation.

    Returns:
        What ``FastAPI(lifespan=...)`` and ``Starlette(lifespan=...)`` take. Inside a
        lifespan of your own: ``async with lifespan(db)(app):``.

    Example:
        >>> app = FastAPI(lifespan=lifespan(db))
    """

    @contextlib.asynccontextmanager
    async def opened(app: object) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for service in services:
                await _open(service, stack)
            yield

    return opened


async def _open(service: Service, stack: contextlib.AsyncExitStack) -> None:
    if isinstance(service, AsyncDatabaseService):
        await stack.enter_async_context(service)
    else:
        await asyncio.to_thread(service.init_service)
        stack.push_async_callback(asyncio.to_thread, service.close_service)


class DatabaseMiddleware:
    """Give each request a deadline and a current database, and answer its errors.

    Add it outermost: blocks (``db.scope``, ``db.deadline``) around it are not those of
    the request.

    - A request whose client has left is cancelled, and its running query is killed.
      A handler in a thread cannot be cancelled; its deadline limits it.
    - An error of a database is answered with 503, 504, 409, 429 or 404 (see
      ``error_answer``), with Retry-After where the request may be repeated. Anything
      else is left to the framework.

    Args:
        app: The application.
        service: The service, of either implementation.
        timeout: Seconds for all calls of one request together; or a function that
            takes the ASGI scope and returns them. None for no limit.
        timeout_header: The name of a request header with a shorter limit in seconds,
            as a gateway sets it. None to ignore the client's wishes.
        session: Takes the ASGI scope and returns the client session, or an awaitable of
            it: ``db.current`` is its database. For None there is no current database,
            and every shard may be used.
        lock: Refuse calls to other shards than the session's; see ``db.scope``.
        causal_header: The name of a header in which the token of ``db.causal`` comes
            with a request, and goes with its response: reads of replicas see what the
            same client has written before. None for none.
        causal_cookie: The name of a cookie for the same.

    Example:
        >>> app.add_middleware(DatabaseMiddleware, service=db, timeout=10)
    """

    def __init__(
        self,
        app: Application,
        service: Service,
        *,
        timeout: Union[float, Callable[[Scope], Optional[float]], None] = None,
        timeout_header: Optional[str] = None,
        session: Optional[Callable[[Scope], object]] = None,
        lock: bool = True,
        causal_header: Optional[str] = None,
        causal_cookie: Optional[str] = None,
    ) -> None:
        self._app = app
        self._service = service
        self._timeout = timeout if timeout is None or callable(timeout) else seconds(timeout)
        self._timeout_header = None if timeout_header is None else timeout_header.lower().encode()
        self._session = session
        self._lock = lock
        header = None if causal_header is None else causal_header.lower()
        self._causal = CausalCarrier(header, causal_cookie)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, websocket or lifespan; see the ASGI specification.

        Args:
            scope: What is asked for.
            receive: Gives the messages of the client.
            send: Takes the messages for the client.
        """
        if scope["type"] == "http":
            with blocks.outside_all():
                await self._request(scope, _Exchange(receive, send))
        elif scope["type"] == "websocket":
            with blocks.outside_all():
                async with self._blocks(scope, None):
                    await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _request(self, scope: Scope, exchange: "_Exchange") -> None:
        try:
            async with self._blocks(scope, self._limit(scope)):
                with self._causal_block(scope, exchange):
                    await exchange.run(self._app, scope)
        except Exception as error:
            answer = error_answer(error)
            if answer is None or exchange.started:
                raise
            log.warning(
                "%s %s answered with %d: %s (shard %s)",
                scope["method"],
                scope["path"],
                answer.status,
                answer.error,
                answer.shard_id,
            )
            await exchange.answer(answer)

    @contextlib.contextmanager
    def _causal_block(self, scope: Scope, exchange: "_Exchange") -> Iterator[None]:
        carrier = self._causal
        if not carrier.is_used:
            yield
            return
        found = {name.decode("latin1"): value.decode("latin1") for name, value in scope["headers"]}
        given = None if carrier.header is None else found.get(carrier.header)
        secure = scope.get("scheme") == "https"
        with carrier.block(self._service, given, found.get("cookie")) as block:
            exchange.more_headers = lambda: carrier.headers(block.token, secure=secure)
            yield

    def _limit(self, scope: Scope) -> Optional[float]:
        timeout = self._timeout(scope) if callable(self._timeout) else self._timeout
        for name, value in scope["headers"]:
            if name == self._timeout_header:
                with contextlib.suppress(ValueError, errors.ParameterError):
                    asked = seconds(float(value))
                    return asked if timeout is None else min(asked, timeout)
        return timeout

    @contextlib.asynccontextmanager
    async def _blocks(self, scope: Scope, timeout: Optional[float]) -> AsyncIterator[None]:
        """The deadline and the scope of a request."""
        async with contextlib.AsyncExitStack() as stack:
            if timeout is not None:
                stack.enter_context(Deadline(timeout))
            if self._session is not None:
                session = self._session(scope)
                if inspect.isawaitable(session):
                    session = await session
                if session is not None:
                    await self._enter_scope(stack, session)
            yield

    async def _enter_scope(self, stack: contextlib.AsyncExitStack, session: object) -> None:
        service = self._service
        if isinstance(service, AsyncDatabaseService):
            await stack.enter_async_context(service.scope(session, lock=self._lock))
        else:  # the scope of a session is found without I/O
            stack.enter_context(service.scope(session, lock=self._lock))


class _Exchange:
    """The messages of one request, read ahead far enough to learn that the client has
    left.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._ahead: asyncio.Queue[Message] = asyncio.Queue()
        # Not the whole of a large body that nobody reads.
        self._room = asyncio.Semaphore(2)
        self.started = False
        self._complete = False
        #: Gives headers to be added to the response.
        self.more_headers: Callable[[], List[Tuple[str, str]]] = list

    async def run(self, app: Application, scope: Scope) -> None:
        """Run the application until it ends, or cancel it when the client leaves before
        the whole response has been sent.
        """
        call = asyncio.ensure_future(app(scope, self._next, self._pass_on))
        watch = asyncio.ensure_future(self._watch())
        tasks: List[asyncio.Future[None]] = [call, watch]
        left = False
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not call.done() and not self._complete:
                left = call.cancel()
            await asyncio.wait([call])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if call.cancelled() and left:
            log.info("%s %s cancelled: the client has left", scope["method"], scope["path"])
            return
        call.result()

    async def answer(self, answer: ErrorAnswer) -> None:
        """Send a whole response."""
        headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        start: Dict[str, Any] = {"status": answer.status, "headers": headers}
        await self._send({"type": "http.response.start", **start})
        await self._send({"type": "http.response.body", "body": answer.body})

    async def _watch(self) -> None:
        """Return when the client has left, or the server says so after the response."""
        while True:
            await self._room.acquire()
            message = await self._receive()
            self._ahead.put_nowait(message)
            if message["type"] == "http.disconnect":
                return

    async def _next(self) -> Message:
        message = await self._ahead.get()
        if message["type"] == "http.disconnect":
            self._ahead.put_nowait(message)  # it is the answer from now on
        else:
            self._room.release()
        return message

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            added = [(name.encode(), value.encode()) for name, value in self.more_headers()]
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        self.started = True
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._complete = True
        await self._send(message)
