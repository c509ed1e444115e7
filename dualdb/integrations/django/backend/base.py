"""The engine: Django's own for MySQL and MariaDB, on connections of a service."""

from typing import Any, Dict

from django.db.backends.mysql.base import DatabaseWrapper as MySQLWrapper
from django.db.backends.utils import typecast_time
from pymysql.constants import FIELD_TYPE

from ....api.interfaces import route_of
from ...dbapi import Connection
from ...wsgi import open_at_first_use
from .. import options
from ..databases import shard_of

__all__ = ["DatabaseWrapper"]


class DatabaseWrapper(MySQLWrapper):
    """The connection of a thread to one database, out of the service's pool."""

    vendor = "mysql"

    def get_new_connection(self, conn_params: Dict[str, Any]) -> Connection:
        """Check a connection out of the pool.

        Args:
            conn_params: Django's, which are not used.
        """
        service = options.service()
        open_at_first_use(service)
        shard_id = shard_of(self.alias)
        target: Any = service if shard_id is None else service.shard(shard_id)
        connection = Connection(route_of(target))
        raw = connection.raw
        raw.decoders = {**raw.decoders, FIELD_TYPE.TIME: typecast_time}
        return connection
