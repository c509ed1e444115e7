"""The web application. Each user's trades are on one shard."""

import pathlib
from types import SimpleNamespace
from typing import Any, Dict, List, Optional

from celery.result import AsyncResult
from fastapi import Cookie, Depends, FastAPI, HTTPException, Response
from fastapi.responses import HTMLResponse
from typing_extensions import Annotated

from dualdb import IntegrityError, Sum
from dualdb.integrations.fastapi import (
    AsyncTarget,
    AsyncTransaction,
    DatabaseMiddleware,
    RowsResponse,
    current,
    lifespan,
    transaction,
)
from shop.jobs import celery_app, report
from shop.jobs import web_db as db

PAGE = pathlib.Path(__file__).with_name("page.html")

app = FastAPI(title="shop", lifespan=lifespan(db))
app.add_middleware(DatabaseMiddleware, service=db, timeout=10)


async def client_session(email: Annotated[Optional[str], Cookie()] = None) -> Any:
    """Who asks. A real application has a signed session, not a name in a cookie."""
    found = (await db.call("log_in", (email,))).rows if email else []
    if not found:
        raise HTTPException(401, "sign up first")
    account = found[0]
    return SimpleNamespace(
        session=SimpleNamespace(user_id=account["id"], shard_id=account["shard_id"])
    )


Client = Annotated[Any, Depends(client_session)]
Shard = Annotated[AsyncTarget, current(db, client_session)]
Tx = Annotated[AsyncTransaction, transaction(db, client_session)]


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    """The page."""
    return PAGE.read_text(encoding="utf-8")


@app.post("/sign-up")
async def sign_up(email: str, response: Response) -> Dict[str, Any]:
    """Make an account, on the shard with the fewest, or log in to one."""
    rows = await db.query("SELECT shard_id, COUNT(*) AS n FROM accounts GROUP BY shard_id")
    accounts = {row["shard_id"]: row["n"] for row in rows}
    shards = await db.get_active_shard_ids()
    shard_id = min(shards, key=lambda each: (accounts.get(each, 0), each))
    try:
        await db.call("sign_up", (email, shard_id))
    except IntegrityError:
        pass  # it is there
    response.set_cookie("email", email)
    return (await db.call("log_in", (email,))).rows[0]


@app.post("/buy")
async def buy(tx: Tx, client: Client, symbol: str, quantity: int) -> Dict[str, Any]:
    """Record a trade. It is committed before the answer is sent."""
    inserted = await tx.execute(
        "INSERT INTO trades (user_id, symbol, quantity) VALUES (%s, %s, %s)",
        (client.session.user_id, symbol.upper(), quantity),
    )
    return {"trade": inserted.lastrowid, "database": tx.name}


@app.get("/portfolio")
async def portfolio(shard: Shard, client: Client) -> List[Dict[str, Any]]:
    """What the user holds."""
    return (await shard.call("get_portfolio", (client.session.user_id,))).rows


@app.get("/totals")
async def totals() -> List[Dict[str, Any]]:
    """What all users hold, over all shards."""
    rows = await db.shards().aggregate(
        "SELECT symbol, quantity FROM trades", group_by="symbol", quantity=Sum("quantity")
    )
    # the server's SUM is a DECIMAL
    return [{**row, "quantity": int(row["quantity"])} for row in rows]


@app.get("/export")
async def export(shard: Shard, client: Client) -> RowsResponse:
    """The user's trades, sent as they are read."""
    sql = "SELECT id, symbol, quantity FROM trades WHERE user_id = %s ORDER BY id"
    return RowsResponse(shard.stream(sql, (client.session.user_id,)))


@app.post("/report")
async def begin_report(shard: Shard, client: Client) -> Dict[str, str]:
    """Have a worker make a report; the task runs on the shard of this request."""
    return {"id": report.delay(client.session.user_id).id}


@app.get("/report/{task_id}")
def report_state(task_id: str) -> Dict[str, Any]:
    """The report, when it is ready."""
    found = AsyncResult(task_id, app=celery_app)
    return {"state": found.state, "report": found.result if found.successful() else None}
