"""Private database servers for demos and tests: one for the global database, one for
each shard.

>>> from dualdb import DatabaseService
>>> from dualdb.sandbox import Sandbox
>>> with Sandbox(shards=2) as sandbox, DatabaseService(sandbox.config) as db:
...     db.shard(2).query_value("SELECT DATABASE()")
'app_shard_2'
"""

from .sandbox import Sandbox
from .server import Server, ServerMissing

__all__ = ["Sandbox", "Server", "ServerMissing"]
