"""Celery tasks. The web application sends them, and the worker runs them."""

import os
from typing import Any, Dict

from celery import Celery

from dualdb import AsyncDatabaseService, DatabaseConfig, DatabaseService
from dualdb.integrations.celery import RETRYABLE, setup

celery_app = Celery("shop")
if os.environ.get("BROKER_URL"):
    celery_app.conf.broker_url = celery_app.conf.result_backend = os.environ["BROKER_URL"]
else:  # without Redis: through files
    files = os.environ["BROKER_DIRECTORY"]
    celery_app.conf.broker_url = "filesystem://"
    celery_app.conf.broker_transport_options = {
        "data_folder_in": files,
        "data_folder_out": files,
        "control_folder": f"{files}/control",
    }
    celery_app.conf.result_backend = f"file://{files}"

db = DatabaseService(DatabaseConfig.from_env())
#: The service of the web application. It is here so that the scope of a request travels
#: with the tasks that it sends; a worker does not open it.
web_db = AsyncDatabaseService(DatabaseConfig.from_env())
setup(celery_app, db, web_db)


@celery_app.task(autoretry_for=RETRYABLE, retry_backoff=True, max_retries=5)
def report(user_id: int) -> Dict[str, Any]:
    """Sum up what a user holds, on the database that the request was on."""
    row = db.current.query_one(
        "SELECT COUNT(*) AS trades, CAST(SUM(quantity) AS SIGNED) AS quantity "
        "FROM trades WHERE user_id = %s",
        (user_id,),
    )
    return {**(row or {}), "database": db.current.name}
