"""Rows of the shard table."""

from typing import Any, Dict

from dualdb import DatabaseConfig

BASE = DatabaseConfig(
    host="global.example",
    database="app",
    user="u",
    password="canary",
    charset="latin1",
    pool_size=4,
    max_overflow=6,
    ssl_mode="required",
)


def row(shard_id: Any = 1, **changed: Any) -> Dict[str, Any]:
    made = {
        "shard_id": shard_id,
        "host": "s.example",
        "port": 3306,
        "database_name": "s",
        "username": "su",
        "password": "canary",
        "status": "active",
    }
    return {**made, **changed}


def new_shard(databases: Any, **changed: Any) -> Dict[str, Any]:
    """What ``add_shard`` is given for another shard in the database of shard 1."""
    config = databases.config_of(1)
    made = {
        "host": config.host,
        "port": config.port,
        "database": config.database,
        "user": config.user,
        "password": config.reveal_password(),
    }
    return {**made, **changed}
