"""Tasks that test_celery.py sends."""

import os
import threading
import time
from typing import Any, Dict, List, Optional

from celery import Celery

from dualdb import AsyncDatabaseService, DatabaseConfig, DatabaseService, PoolTimeout
from dualdb.integrations.celery import RETRYABLE, setup

app = Celery("celery_app", broker=os.environ["BROKER_URL"], backend=os.environ["BROKER_URL"])
app.conf.broker_connection_retry_on_startup = True
app.conf.result_serializer = os.environ.get("RESULTS", "json")
app.conf.result_accept_content = ["json", "pickle"]
app.conf.task_acks_late = True
app.conf.task_reject_on_worker_lost = True
app.conf.worker_prefetch_multiplier = 1
# Late acknowledgements of many greenlets at once each take a connection to Redis; above
# this number, 10 by default, the worker loses its own.
app.conf.broker_transport_options = {"max_connections": 100}

config = DatabaseConfig.from_env()
db = DatabaseService(config)
adb = AsyncDatabaseService(config)
setup(app, db, adb)

BUY = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, %s, 1)"


@app.task
def database(shard_id: int) -> List[Any]:
    """The name of the database that answers, and who asked."""
    name = db.shard(shard_id).query_value("SELECT DATABASE() /* %s */", (shard_id,))
    return [shard_id, name, os.getpid(), threading.get_ident()]


@app.task
def buy(shard_id: int, number: int, symbol: str) -> int:
    return db.shard(shard_id).execute(BUY, (number, symbol))


@app.task
def current() -> List[Any]:
    """The blocks it was sent in."""
    started = time.monotonic()
    limit = db.query_value("SELECT 1")
    with db.deadline(1000) as _:
        pass
    try:
        name: Optional[str] = db.current.name
    except Exception as error:
        name = type(error).__name__
    return [name, limit, time.monotonic() - started]


@app.task
def sleep(seconds: float) -> Any:
    return db.shard(1).query_value(f"SELECT SLEEP({seconds}) /* celery */")


@app.task
def fail(how: str) -> Any:
    if how == "scatter":
        return db.shards().query("SELECT * FROM nowhere")
    if how == "shard":
        return db.shard(9).query("SELECT 1")
    if how == "rows":
        db.shard(1).executemany(BUY, [(1, "A"), (2, "B" * 100)])
    return db.shard(2).query("SELECT * FROM nowhere")


@app.task(autoretry_for=RETRYABLE, max_retries=3, default_retry_delay=0, bind=True)
def eventually(self: Any) -> int:
    if self.request.retries < 2:
        raise PoolTimeout("all connections are in use")
    retries: int = self.request.retries
    return retries


@app.task(soft_time_limit=1)
def hang() -> Dict[str, Any]:
    return {"found": db.shard(1).query_value("SELECT SLEEP(50) /* celery hang */")}
