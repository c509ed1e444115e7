"""The status page under an ASGI and under a WSGI application."""

import asyncio
from typing import Any

from flask import Flask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from dualdb import AsyncDatabaseService, DatabaseConfig, DatabaseService, Error
from dualdb.integrations.asgi import lifespan
from dualdb.integrations.status_page import asgi_app, wsgi_app
from dualdb.integrations.wsgi import open_at_first_use

config = DatabaseConfig.from_env()
adb = AsyncDatabaseService(config, refresh_interval=0.5)
db = DatabaseService(config, refresh_interval=0.5)


def sql_of(what: str) -> Any:
    return {
        "read": ("SELECT %s AS a", ("canary",)),
        "slow": ("SELECT SLEEP(0.3), %s", ("canary",)),
        "fail": ("SELECT %s FROM absent", ("canary",)),
        "markup": ("SELECT 1 AS `<img src=x onerror=alert(1)>` FROM `<b>absent</b>`", None),
    }[what]


async def query(request: Request) -> JSONResponse:
    sql, params = sql_of(request.path_params["what"])
    target = request.path_params["shard_id"]
    calls = [
        adb.shard(target).query(sql, params),
        asyncio.to_thread(db.shard(target).query, sql, params),
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    failed = [type(each).__name__ for each in outcomes if isinstance(each, Exception)]
    return JSONResponse(failed or "ok")


app = Starlette(
    routes=[
        Mount("/ops/status", asgi_app(adb)),
        Mount("/threads/status", asgi_app(db)),
        Route("/query/{shard_id:int}/{what}", query),
    ],
    lifespan=lifespan(adb, db),
)

flask_app = Flask(__name__)


@flask_app.before_request
def opened() -> None:
    open_at_first_use(db)


@flask_app.get("/query/<int:shard_id>/<what>")
def query_in_thread(shard_id: int, what: str) -> Any:
    sql, params = sql_of(what)
    try:
        db.shard(shard_id).query(sql, params)
    except Error as error:
        return [type(error).__name__]
    return ["ok"]


wsgi: Any = DispatcherMiddleware(flask_app, {"/ops/status": wsgi_app(db)})
