"""A Flask application, for gunicorn."""

import os
from types import SimpleNamespace
from typing import Any

import flask

from dualdb import DatabaseConfig, DatabaseService
from dualdb.integrations.flask import DualDB, rows_response

config = DatabaseConfig.from_env()
db = DatabaseService(config)
if "PRELOAD" in os.environ:  # as an application does that reads something at its start
    db.init_service()
    assert db.query_value("SELECT 1") == 1

app = flask.Flask(__name__)


def client_session() -> Any:
    shard_id = flask.request.headers.get("X-Shard", type=int)
    if shard_id is None:
        return None
    return SimpleNamespace(session=SimpleNamespace(shard_id=shard_id))


DualDB(app, service=db, session=client_session, timeout=10)


@app.get("/database")
def database() -> Any:
    return [db.current.query_value("SELECT DATABASE()"), os.getpid()]


@app.get("/other")
def other() -> Any:
    return [db.shard(1).query_value("SELECT 1")]


@app.get("/fail/<how>")
def fail(how: str) -> Any:
    if how == "slow":
        return [db.current.query("SELECT SLEEP(50)", timeout=0.2)]
    if how == "sql":
        return [db.current.query("SELECT nothing")]
    raise ValueError(how)


@app.get("/stream")
def stream() -> Any:
    sql = "SELECT REPEAT('x', 1000) AS x FROM trades a CROSS JOIN trades b LIMIT %s"
    return rows_response(db.current.stream(sql, (int(flask.request.args["rows"]),)))


@app.get("/pools")
def pools() -> Any:
    return [sum(each.in_use for each in db.stats().values())]
