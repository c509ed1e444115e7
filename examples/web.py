"""An async web handler: a plain ASGI application on the same rows.

Run it with ``DUALDB_URL=mysql://... uvicorn web:app``.

``GET /portfolio?email=a@example.com`` gives what the user holds; ``POST
/buy?email=...&symbol=ABC&quantity=3`` records a trade.
"""

import json
import logging
from types import SimpleNamespace
from typing import Any, Dict
from urllib.parse import parse_qsl

from dualdb import AsyncDatabaseService, DatabaseConfig, Error, RoutingError

log = logging.getLogger("web")


class App:
    """Opens the service when the server starts, closes it when the server stops."""

    db: AsyncDatabaseService

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            async with AsyncDatabaseService(DatabaseConfig.from_env()) as self.db:
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        try:
            status, answer = (
                200,
                await self.answer(scope["path"], dict(parse_qsl(scope["query_string"].decode()))),
            )
        except RoutingError as error:
            status, answer = 503, {"error": error.message}
        except Error as error:
            # A server's message may hold what somebody's row holds: it is not sent out.
            log.error("%s %s on %s", type(error).__name__, error.errno, error.target)
            status, answer = 500, {"error": type(error).__name__}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    async def answer(self, path: str, query: Dict[str, str]) -> Any:
        client_session = await log_in(self.db, query["email"])
        # Inside, a call to a shard of somebody else is an error.
        async with self.db.scope(client_session, lock=True):
            if path == "/buy":
                symbol, quantity = query["symbol"], int(query["quantity"])
                return {"trade": await buy(self.db, client_session, symbol, quantity)}
            return await portfolio(self.db, client_session)


async def log_in(db: AsyncDatabaseService, email: str) -> Any:
    """The client session that later calls are routed by."""
    account = (await db.call("log_in", (email,))).rows[0]
    return SimpleNamespace(
        session=SimpleNamespace(user_id=account["id"], shard_id=account["shard_id"])
    )


async def buy(db: AsyncDatabaseService, client_session: Any, symbol: str, quantity: int) -> int:
    """Record a trade on the user's shard; its id."""
    params = (client_session.session.user_id, symbol, quantity)
    inserted = await db.session(client_session).execute(
        "INSERT INTO trades (user_id, symbol, quantity) VALUES (%s, %s, %s)", params
    )
    return inserted.lastrowid


async def portfolio(db: AsyncDatabaseService, client_session: Any) -> Dict[str, int]:
    """What the user holds: symbol to quantity."""
    result = await db.session(client_session).call(
        "get_portfolio", (client_session.session.user_id,)
    )
    return {row["symbol"]: row["quantity"] for row in result.rows}


app = App()
