"""Changes of the shard table through the service."""

from typing import Generic, Optional, Sequence, Union

from pydantic import SecretStr

from ..config import DatabaseConfig
from ..passwords import KnownPassword
from ..topology import admin
from ..topology.routing import shard_id_of
from .service_base import ServicePart
from .typevars import DrainR, NoneR


class ShardAdmin(ServicePart, Generic[NoneR, DrainR]):
    """Methods to add, suspend, drain and remove shards, and to resize pools."""

    global_config: DatabaseConfig

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
        connect: bool = True,
        dry_run: bool = False,
    ) -> NoneR:
        """Add a shard: connect to it, check the account's ``privileges``, insert its
        row, and activate it.

        Args:
            shard_id: The shard's id.
            host: Name or address of its server.
            database: The database's name there.
            user: The account name.
            password: The password, which is stored unchanged; ``env:NAME`` or
                ``file:PATH`` keeps the secret out of the table.
            port: TCP port of its server.
            status: "active", "readonly", "moving", "maintenance" or "inactive".
            name: A name; requires a column ``shard_name``.
            max_connections: The most connections of its pool; requires a column
                ``max_connections``.
            privileges: Privileges that must be granted directly to the account, on the
                server or the database. Pass () if it has them through a role or on
                single tables.
            connect: False writes the row without connecting to the shard and checking
                its account first: after a dry run, or before its server is there.
            dry_run: Connect and check, and write nothing.

        Raises:
            ParameterError: The row would be unusable, the id exists, or a privilege is
                missing.
            ShardUnavailable: Connecting to it failed.

        Example:
            >>> db.add_shard(3, host="db3", database="app_3", user="app",
            ...              password="env:DUALDB_SHARD_3")
        """
        # Wrapped first, because a traceback may show local variables.
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
        result: NoneR = self._run_exclusive(
            admin.add(self._lifecycle, row, privileges, connect=connect, dry_run=dry_run)
        )
        return result

    def resize(
        self, *, pool_size: Optional[int] = None, max_overflow: Optional[int] = None
    ) -> NoneR:
        """Change the pool sizes of the global database and of all shards, as if the
        configuration had them. Connections in use stay.

        A row's ``max_connections`` limits its shard as before. For a single pool use
        ``get_shard_client(shard_id).resize(...)``, or change the row.

        Args:
            pool_size: Connections kept open when idle; None leaves it.
            max_overflow: Connections beyond these under load; None leaves it.

        Raises:
            ValueError: A size is out of range.
            Error: The shard table cannot be read; the shards are resized when it can.

        Example:
            >>> db.resize(pool_size=20, max_overflow=0)
            >>> db.stats()[1].limit
            20
        """
        self.global_config = self.global_config.with_sizes(pool_size, max_overflow)
        result: NoneR = self._run_exclusive(self._lifecycle.resize(self.global_config))
        return result

    def set_shard_status(self, shard_id: int, status: str, *, dry_run: bool = False) -> NoneR:
        """Set a shard's status, which is effective here at once and in other processes
        with their next refresh.

        Args:
            shard_id: The shard's id.
            status: "active", "readonly", "moving" (calls wait until it is active, see
                ``buffer_timeout``), "maintenance" or "inactive".
            dry_run: Check that it can be done, and change nothing.

        Raises:
            ParameterError: The status or the shard does not exist, or the type of the
                status column does not allow it.
        """
        number = shard_id_of(shard_id)
        result: NoneR = self._run_exclusive(
            admin.set_status(self._lifecycle, number, status, dry_run=dry_run)
        )
        return result

    def resize_shard(
        self, shard_id: int, max_connections: Optional[int], *, dry_run: bool = False
    ) -> NoneR:
        """Limit the connections of each process to a shard: write its row's
        ``max_connections``. It is effective here at once and in other processes with
        their next refresh; connections in use stay.

        Args:
            shard_id: The shard's id.
            max_connections: The limit; None for the sizes of the configuration.
            dry_run: Check that it can be done, and change nothing.

        Raises:
            ParameterError: The shard, or the column ``max_connections``, does not
                exist.

        Example:
            >>> db.resize_shard(1, 20)
            >>> db.stats()[1].limit
            20
        """
        number = shard_id_of(shard_id)
        result: NoneR = self._run_exclusive(
            admin.resize(self._lifecycle, number, max_connections, dry_run=dry_run)
        )
        return result

    def drain_shard(
        self,
        shard_id: int,
        timeout: float = 30.0,
        *,
        others: bool = False,
        dry_run: bool = False,
    ) -> DrainR:
        """Make a shard inactive and wait for the work in progress of this process.

        Args:
            shard_id: The shard's id.
            timeout: Seconds to wait, after which the remaining connections of this
                process are aborted.
            others: Wait within the timeout for the sessions of other processes, too.
                They leave the shard with their next refresh.
            dry_run: Check that it can be done, and change nothing.

        Returns:
            A DrainReport with the numbers of finished and aborted connections, and of
            the sessions that are left on the server.

        Raises:
            ParameterError: The shard does not exist.
        """
        number = shard_id_of(shard_id)
        options = admin.DrainOptions(timeout, others, dry_run)
        result: DrainR = self._run(
            admin.drain(self._lifecycle, self._lifecycle.exclusive, number, options)
        )
        return result

    def remove_shard(
        self, shard_id: int, *, leave_keys: bool = False, dry_run: bool = False
    ) -> NoneR:
        """Delete the row of a shard that is out of service. Its database stays.

        Args:
            shard_id: The shard's id.
            leave_keys: Do so although the directory has keys on it, which are refused
                then.
            dry_run: Check that it can be done, and change nothing.

        Raises:
            ParameterError: The shard does not exist, is in service (drain it first), or
                keys are on it.
        """
        number = shard_id_of(shard_id)
        directory = self._internals.directory
        counts = None if leave_keys or directory is None else directory.counts()
        result: NoneR = self._run_exclusive(
            admin.remove(self._lifecycle, number, counts, dry_run=dry_run)
        )
        return result
