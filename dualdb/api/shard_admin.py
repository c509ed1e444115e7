"""The shard table, changed by the application itself."""

from typing import Generic, Optional, Sequence, Union

from pydantic import SecretStr

from ..passwords import KnownPassword
from ..topology import admin
from ..topology.routing import shard_id_of
from .service_base import ServicePart
from .typevars import DrainR, NoneR


class ShardAdmin(ServicePart, Generic[NoneR, DrainR]):
    """What adds, suspends, drains and removes shards."""

    def add_shard(
        self,
        shard_id: int,
        *,
        host: str,
        database: str,
        user: str,
        password: Union[str, SecretStr],
        port: int = 3306,
        status: str = "active",
        name: Optional[str] = None,
        max_connections: Optional[int] = None,
        privileges: Sequence[str] = admin.PRIVILEGES,
    ) -> NoneR:
        """Add a shard: connect to it, check the account's ``privileges``, write its
        row, and put it into use.

        Args:
            shard_id: Its id.
            host: Name or address of its server.
            database: Its database there.
            user: The account.
            password: Is written as it stands; ``env:NAME`` or ``file:PATH`` keeps the
                secret out of the table.
            port: TCP port of its server.
            status: "active", "readonly", "maintenance" or "inactive".
            name: Needs a column ``shard_name``.
            max_connections: The most connections of its pool; needs a column
                ``max_connections``.
            privileges: What the account must have been granted itself, on the server or
                the database. Give () for one that has them by a role or on single
                tables.

        Raises:
            ParameterError: The row would be unusable, there is one with this id, or a
                privilege is missing.
            ShardUnavailable: It cannot be connected to.

        Example:
            >>> db.add_shard(3, host="db3", database="app_3", user="app",
            ...              password="env:DUALDB_SHARD_3")
        """
        # Wrapped at once, for a traceback shows local variables.
        if not isinstance(password, SecretStr):
            password = KnownPassword(password)
        row = {
            "shard_id": shard_id_of(shard_id),
            "host": host,
            "port": port,
            "database_name": database,
            "username": user,
            "password": password,
            "status": status,
            "shard_name": name,
            "max_connections": max_connections,
        }
        result: NoneR = self._run_exclusive(admin.add(self._lifecycle, row, privileges))
        return result

    def set_shard_status(self, shard_id: int, status: str) -> NoneR:
        """Write a shard's status. In use here at once, elsewhere by refreshing.

        Args:
            shard_id: The shard.
            status: "active", "readonly", "maintenance" or "inactive".

        Raises:
            ParameterError: No such status, no such shard, or a status column that does
                not take the word.
        """
        number = shard_id_of(shard_id)
        result: NoneR = self._run_exclusive(admin.set_status(self._lifecycle, number, status))
        return result

    def drain_shard(self, shard_id: int, timeout: float = 30.0) -> DrainR:
        """Make a shard inactive and wait for its work in progress.

        Args:
            shard_id: The shard.
            timeout: Seconds to wait; what is left then is aborted.

        Returns:
            A DrainReport.

        Raises:
            ParameterError: No such shard.
        """
        number = shard_id_of(shard_id)
        result: DrainR = self._run(
            admin.drain(self._lifecycle, self._lifecycle.exclusive, number, timeout)
        )
        return result

    def remove_shard(self, shard_id: int) -> NoneR:
        """Delete the row of a shard that is out of service.

        Args:
            shard_id: The shard.

        Raises:
            ParameterError: No such shard, or it is in service: drain it first.
        """
        number = shard_id_of(shard_id)
        result: NoneR = self._run_exclusive(admin.remove(self._lifecycle, number))
        return result
