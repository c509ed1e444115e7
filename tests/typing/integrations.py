"""What strict type checkers say of an application on the integrations; never run."""

from typing import List, Optional

import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine
from typing_extensions import Annotated, assert_type

from dualdb import AsyncDatabaseService, ClientSession, DatabaseConfig, DatabaseService
from dualdb.integrations.asgi import DatabaseMiddleware
from dualdb.integrations.fastapi import (
    AsyncTarget,
    AsyncTransaction,
    RowsResponse,
    Target,
    Transaction,
    current,
    lifespan,
    transaction,
)
from dualdb.integrations.flask import DualDB
from dualdb.integrations.http import ErrorAnswer, error_answer
from dualdb.results import Row
from dualdb.testing import FakeRouter, Fault, FaultProxy

db = DatabaseService(DatabaseConfig.from_env())
adb = AsyncDatabaseService(DatabaseConfig.from_env())


async def client_session() -> ClientSession:
    raise NotImplementedError


AsyncShard = Annotated[AsyncTarget, current(adb, client_session)]
Shard = Annotated[Target, current(db, client_session)]
AsyncTx = Annotated[AsyncTransaction, transaction(adb, client_session, isolation="SERIALIZABLE")]
Tx = Annotated[Transaction, transaction(db)]

app = FastAPI(lifespan=lifespan(adb, db))
app.add_middleware(DatabaseMiddleware, service=adb, timeout=10)


@app.get("/rows")
async def rows(shard: AsyncShard) -> List[Row]:
    return await shard.query("SELECT 1")


@app.post("/buy")
def buy(tx: Tx, shard: Shard) -> int:
    assert_type(shard.shard_id, Optional[int])
    return tx.execute("INSERT INTO trades VALUES (1)").lastrowid


@app.post("/async/buy")
async def buy_async(tx: AsyncTx) -> int:
    return (await tx.execute("INSERT INTO trades VALUES (1)")).lastrowid


@app.get("/stream")
async def stream(shard: AsyncShard) -> RowsResponse:
    return RowsResponse(shard.stream("SELECT 1"), format="json")


DualDB(service=db, session=lambda: None, timeout=3)
assert_type(error_answer(ValueError()), Optional[ErrorAnswer])
assert_type(db.sqlalchemy.engine(1), sa.Engine)
assert_type(adb.sqlalchemy.engine(1), AsyncEngine)

with db.testing_transaction(), FaultProxy("localhost", 3306) as proxy:
    proxy.set(Fault("up", 1, "cut"))
with FakeRouter(2) as fake:
    fake.on("SELECT", [{"a": 1}], database=1)
