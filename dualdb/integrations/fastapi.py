"""Dependencies for FastAPI, in ``def`` and in ``async def`` handlers."""

import asyncio
from typing import Any, AsyncIterator, Callable, Dict, Optional
from weakref import WeakKeyDictionary

import anyio.to_thread
from fastapi import Depends
from fastapi.params import Depends as Dependency
from typing_extensions import Annotated, Literal

from ..async_impl import DatabaseService as AsyncDatabaseService
from ..async_impl import Target as AsyncTarget
from ..async_impl import Transaction as AsyncTransaction
from ..sync_impl import DatabaseService, Target, Transaction
from .asgi import DatabaseMiddleware, Service, lifespan
from .starlette import RowsResponse

__all__ = [
    "AsyncTarget",
    "AsyncTransaction",
    "DatabaseMiddleware",
    "RowsResponse",
    "Target",
    "Transaction",
    "current",
    "lifespan",
    "transaction",
]


def current(
    service: Service, session: Optional[Callable[..., Any]] = None, *, lock: bool = True
) -> Dependency:
    """Make a dependency on the database of the request's session.

    Args:
        service: The service: DatabaseService for ``def`` handlers,
            AsyncDatabaseService for ``async def`` handlers.
        session: Your dependency that returns the client session, as it finds out who
            asks. ``db.current`` is its database during the request. By default the
            target is ``db.current`` of DatabaseMiddleware.
        lock: Refuse calls to other shards during the request; see ``db.scope``.

    Returns:
        What stands in ``Annotated[Target, ...]``.

    Raises:
        DualDB's errors of ``db.scope``, during a request.

    Example:
        >>> Shard = Annotated[AsyncTarget, current(db, client_session)]
        >>> @app.get("/trades")
        ... async def trades(shard: Shard):
        ...     return await shard.query("SELECT * FROM trades")
    """
    if session is None:

        async def innermost() -> Any:
            return service.current

        return _depends(innermost)

    # In the task of the request, for threads too: the context of a dependency that runs
    # in a thread is not that of the handler.
    async def of_session(client_session: Annotated[Any, Depends(session)]) -> AsyncIterator[Any]:
        if isinstance(service, AsyncDatabaseService):
            async with service.scope(client_session, lock=lock):
                yield service.current
        else:  # the scope of a session is found without I/O
            with service.scope(client_session, lock=lock):
                yield service.current

    return _depends(of_session)


def transaction(
    service: Service,
    session: Optional[Callable[..., Any]] = None,
    *,
    commit_marker: bool = False,
    isolation: Optional[str] = None,
    read_only: bool = False,
    timeout: Optional[float] = None,
) -> Dependency:
    """Make a dependency on a transaction around the handler.

    It is committed when the handler returns, before the response is sent: a client is
    never answered 200 for what is not committed. It is rolled back if the handler
    raises, an HTTPException too. A response that the handler *returns* commits,
    whatever its status. It is over before the body of a streaming response.

    Args:
        service: As for ``current``.
        session: As for ``current``.
        commit_marker: As for ``db.transaction``, and so the arguments below.
        isolation: As there.
        read_only: As there.
        timeout: As there.

    Returns:
        What stands in ``Annotated[Transaction, ...]``.

    Example:
        >>> Tx = Annotated[AsyncTransaction, transaction(db, client_session)]
        >>> @app.post("/buy")
        ... async def buy(tx: Tx, symbol: str):
        ...     await tx.execute("INSERT INTO trades (symbol) VALUES (%s)", (symbol,))
    """
    options: Dict[str, Any] = {
        "commit_marker": commit_marker,
        "isolation": isolation,
        "read_only": read_only,
        "timeout": timeout,
    }
    get_session = session or _no_session

    async def in_task(client_session: Annotated[Any, Depends(get_session)]) -> AsyncIterator[Any]:
        assert isinstance(service, AsyncDatabaseService)
        target = service.current if session is None else service.session(client_session)
        async with target.transaction(**options) as tx:
            yield tx

    async def in_threads(
        client_session: Annotated[Any, Depends(get_session)],
    ) -> AsyncIterator[Any]:
        assert isinstance(service, DatabaseService)
        target = service.current if session is None else service.session(client_session)
        async with _most_transactions(service):
            tx = target.transaction(**options)
            try:
                await _in_thread(tx.__enter__)
                yield tx
            except BaseException as error:
                if tx.is_open:
                    await _in_thread(tx.__exit__, type(error), error, error.__traceback__)
                raise
            await _in_thread(tx.__exit__, None, None, None)

    made: Callable[..., Any] = in_task if isinstance(service, AsyncDatabaseService) else in_threads
    # FastAPI ends other dependencies after the response has been sent.
    return _depends(made, scope="function")


def _depends(
    function: Callable[..., Any], scope: Optional[Literal["function", "request"]] = None
) -> Dependency:
    dependency: Dependency = Depends(function, scope=scope)
    return dependency


def _most_transactions(service: DatabaseService) -> anyio.CapacityLimiter:
    """Let the transactions of ``def`` handlers have all connections of a pool but one.

    A transaction that is open waits for a thread, which its handler runs in. If all
    threads waited for connections, and transactions held all of these, nothing would go
    on.
    """
    if service not in _limiters:
        config = service.global_config
        most = max(1, config.pool_size + config.max_overflow - 1)
        _limiters[service] = anyio.CapacityLimiter(most)
    return _limiters[service]


_limiters: "WeakKeyDictionary[DatabaseService, anyio.CapacityLimiter]" = WeakKeyDictionary()


async def _in_thread(function: Callable[..., Any], *args: Any) -> None:
    """Call it in a thread beyond those of the handlers; if cancelled, wait for its end
    all the same.
    """
    call = asyncio.ensure_future(
        anyio.to_thread.run_sync(function, *args, limiter=anyio.CapacityLimiter(1))
    )
    try:
        await asyncio.shield(call)
    except asyncio.CancelledError:
        await asyncio.wait([call])
        raise


async def _no_session() -> None:
    """The current database is that of the middleware."""
