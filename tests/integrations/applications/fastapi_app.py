"""A FastAPI application whose handlers are of both kinds."""

import asyncio
from types import SimpleNamespace
from typing import Any, Dict, List, Optional

from fastapi import FastAPI, Header, HTTPException, Request
from typing_extensions import Annotated

from dualdb import AsyncDatabaseService, DatabaseConfig, DatabaseService, Deadlock, MySQLClient
from dualdb.integrations.fastapi import (
    AsyncTarget,
    AsyncTransaction,
    DatabaseMiddleware,
    RowsResponse,
    Target,
    Transaction,
    current,
    lifespan,
    transaction,
)

config = DatabaseConfig.from_env().model_copy(update={"pool_size": 20, "pool_timeout": 30.0})
adb = AsyncDatabaseService(config)
db = DatabaseService(config)


async def client_session(x_shard: Annotated[Optional[int], Header()] = None) -> Any:
    return SimpleNamespace(session=SimpleNamespace(shard_id=x_shard))


def of_headers(scope: Any) -> Any:
    if scope["path"] == "/async/merge":
        return None
    found = dict(scope["headers"]).get(b"x-shard")
    return SimpleNamespace(session=SimpleNamespace(shard_id=None if found is None else int(found)))


AsyncShard = Annotated[AsyncTarget, current(adb, client_session)]
Shard = Annotated[Target, current(db, client_session)]
AsyncTx = Annotated[AsyncTransaction, transaction(adb, client_session)]
Tx = Annotated[Transaction, transaction(db, client_session)]
OfScope = Annotated[AsyncTarget, current(adb)]

app = FastAPI(lifespan=lifespan(adb, db))
app.add_middleware(
    DatabaseMiddleware,
    service=adb,
    timeout=lambda scope: 0.3 if scope["path"] == "/slow" else 20,
    timeout_header="X-Timeout",
    session=of_headers,
)

MANY = "SELECT REPEAT('x', 1000) AS x FROM trades a CROSS JOIN trades b LIMIT %s"
BUY = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, 'WEB', 1)"


def kill(connection_id: int) -> None:
    """End a session of shard 2, so that its transaction cannot be committed."""
    killer = MySQLClient(db.shard_configs[2])
    try:
        killer.execute(f"KILL {connection_id}")
    finally:
        killer.close_pool()


@app.get("/async/database")
async def database_async(shard: AsyncShard) -> List[Any]:
    # another task, and code that is not handed the target
    name = await asyncio.ensure_future(adb.current.query_value("SELECT DATABASE()"))
    return [name, await shard.query_value("SELECT DATABASE()"), shard.shard_id]


@app.get("/database")
def database(shard: Shard) -> List[Any]:
    name = db.current.query_value("SELECT DATABASE()")
    return [name, shard.query_value("SELECT DATABASE()"), shard.shard_id]


@app.get("/scope/database")
async def database_of_scope(shard: OfScope) -> List[Any]:
    return [await shard.query_value("SELECT DATABASE()"), await shard.query_value("SELECT 1")]


@app.post("/async/buy/{number}")
async def buy_async(tx: AsyncTx, number: int) -> Dict[str, int]:
    await tx.execute(BUY, (number,))
    # joins the transaction
    await adb.execute("DO 0")
    if number % 4 == 1:
        raise HTTPException(418)
    if number % 4 == 2:
        await asyncio.to_thread(kill, await tx.query_value("SELECT CONNECTION_ID()"))
    if number % 4 == 3:
        raise Deadlock(1213, "Deadlock found when trying to get lock")
    return {"number": number}


@app.post("/buy/{number}")
def buy(tx: Tx, number: int) -> Dict[str, int]:
    tx.execute(BUY, (number,))
    if number % 4 == 1:
        raise HTTPException(418)
    if number % 4 == 2:
        kill(tx.query_value("SELECT CONNECTION_ID()"))
    if number % 4 == 3:
        raise Deadlock(1213, "Deadlock found when trying to get lock")
    return {"number": number}


@app.get("/slow")
@app.get("/async/sleep")
async def sleep_async(shard: AsyncShard) -> Any:
    return await shard.query_value("SELECT SLEEP(50) /* web */")


@app.post("/async/body")
async def body(shard: AsyncShard, request: Request) -> int:
    return len(await request.body())


@app.get("/stream")
def stream(shard: Shard, rows: int) -> RowsResponse:
    return RowsResponse(shard.stream(MANY, (rows,)))


@app.get("/async/stream")
async def stream_async(shard: AsyncShard, rows: int) -> RowsResponse:
    return RowsResponse(shard.stream(MANY, (rows,)), format="json")


@app.get("/async/stream/wrong")
async def stream_wrong(shard: AsyncShard) -> RowsResponse:
    return RowsResponse(shard.stream("SELECT SLEEP(50)", timeout=0.2))


@app.get("/async/merge")
async def merge() -> RowsResponse:
    return RowsResponse(adb.shards().merge("SELECT user_id FROM trades", order_by="user_id"))


@app.get("/pools")
def pools() -> Dict[str, int]:
    return {
        "sync": sum(each.in_use for each in db.stats().values()),
        "async": sum(each.in_use for each in adb.stats().values()),
    }
