"""Django: models on shards, a current database for each request, migrations.

The setting ``DUALDB`` is a dict:

- ``SERVICE``: the DatabaseService, or its dotted path.
- ``ASYNC_SERVICE``: an AsyncDatabaseService for ``async def`` views, or its path.
- ``SESSION``: takes a request and returns the client session, or None; or its path.
- ``TIMEOUT``: seconds for all calls of one request together.
- ``LOCK``: whether calls to other shards than the session's are refused; True.
- ``SHARDED_APPS``: the labels of the applications whose models are on the shards.
"""

from .databases import ShardDatabases, alias_of, databases
from .middleware import DatabaseMiddleware
from .router import Router

__all__ = ["DatabaseMiddleware", "Router", "ShardDatabases", "alias_of", "databases"]
