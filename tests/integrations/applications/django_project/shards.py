"""The services, and who asks."""

from types import SimpleNamespace
from typing import Any

from dualdb import AsyncDatabaseService, DatabaseConfig, DatabaseService

config = DatabaseConfig.from_env()
db = DatabaseService(config, refresh_interval=0.5)
adb = AsyncDatabaseService(config, refresh_interval=0.5)


def client_session(request: Any) -> Any:
    shard_id = request.headers.get("X-Shard")
    if shard_id is None:
        return None
    return SimpleNamespace(session=SimpleNamespace(shard_id=int(shard_id)))
