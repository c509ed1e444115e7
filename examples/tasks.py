"""Celery tasks on the threaded service.

Run the worker with ``DUALDB_URL=mysql://... BROKER_URL=redis://... celery -A tasks
worker``.

Each worker process opens a service of its own once it has been forked, and closes it
when it ends.
"""

import os
from typing import Any, Dict, Optional

import script
from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown

from dualdb import DatabaseConfig, DatabaseService

app = Celery("tasks", broker=os.environ["BROKER_URL"], backend=os.environ["BROKER_URL"])
app.conf.broker_connection_retry_on_startup = True

db: Optional[DatabaseService] = None


@worker_process_init.connect
def open_service(**_: Any) -> None:
    global db  # noqa: PLW0603 - one service for each worker process
    db = DatabaseService(DatabaseConfig.from_env())
    db.init_service()


@worker_process_shutdown.connect
def close_service(**_: Any) -> None:
    if db is not None:
        db.close_service()


@app.task
def buy(email: str, symbol: str, quantity: int) -> Dict[str, int]:
    """Record a trade; which process did it, and the trade's id."""
    assert db is not None
    return {
        "process": os.getpid(),
        "trade": script.buy(db, script.log_in(db, email), symbol, quantity),
    }


@app.task
def fail(shard_id: int) -> None:
    """An error travels to the caller as it is: every error can be pickled."""
    assert db is not None
    db.execute_shard_query(shard_id, "SELECT * FROM nowhere")
