"""A sharded database on private servers, removed when its block ends or its process
dies.
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from typing import Any, Dict, Iterable, List, Optional, Union

from ..config import DatabaseConfig
from ..topology.shard_map import DDL
from . import reaper
from .server import Engine, Server


class Sandbox:
    """A server for the global database ``app_global`` with its shard table, and a
    server for each shard's database ``app_shard_N``.

    Args:
        shards: The number of shards, with ids from 1, or their ids.
        program: The server program; by default ``mariadbd``, or else ``mysqld``, on
            PATH.
        options: Further options for every server, such as ``["--general-log=1"]``.

    Raises:
        ServerMissing: (On entering.) No server is installed; the message names the
            package.

    Attributes:
        servers: The Server objects: ``servers["global"]``, ``servers[1]`` and so on.
        directory: The directory with the servers' data.

    Example:
        >>> with Sandbox(shards=2) as sandbox, DatabaseService(sandbox.config) as db:
        ...     db.shard(2).query_value("SELECT DATABASE()")
        'app_shard_2'
    """

    def __init__(
        self,
        shards: Union[int, Iterable[int]] = 2,
        *,
        program: Optional[str] = None,
        options: Optional[List[str]] = None,
    ) -> None:
        self._ids: List[int] = (
            list(range(1, shards + 1)) if isinstance(shards, int) else list(shards)
        )
        self._program = program
        self._options = options
        self._user = "app"
        self._password = secrets.token_urlsafe(12)
        self.servers: Dict[Union[str, int], Server] = {}
        self.directory = ""
        self._reaper: Optional[subprocess.Popen[bytes]] = None

    def __enter__(self) -> "Sandbox":
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all servers, create the databases, the account and the shard table.

        Takes about two seconds with MariaDB.
        """
        self._engine = Engine(self._program)
        self.directory = tempfile.mkdtemp(prefix="dualdb-")
        script = os.path.abspath(reaper.__file__)
        self._reaper = subprocess.Popen(
            [sys.executable, "-I", script, self.directory],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._reaper.stdin is not None
        # A forked child would keep the pipe open, and so the servers running after its
        # parent's death.
        os.register_at_fork(after_in_child=self._reaper.stdin.close)
        try:
            # Servers start on copies of one data directory, because copying is faster
            # than initialising.
            self._engine.prepare(f"{self.directory}/template")
            names: List[Union[str, int]] = ["global", *self._ids]
            for name in names:
                self._server(name).launch()
            for name in self.servers:
                self._create_database(name)
            self.servers["global"].run(
                DDL.format(table="table_shard_config"), database=self._database("global")
            )
            for shard_id in self._ids:
                self._insert_row(shard_id)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the servers and remove all files.

        This also happens automatically when the process dies.
        """
        if self._reaper is None:
            return
        self._reaper.communicate(b".")
        for server in self.servers.values():
            server.kill()
        self._reaper = None

    @property
    def config(self) -> DatabaseConfig:
        """The configuration of the global database."""
        return self.config_of("global")

    @property
    def url(self) -> str:
        """The global database's URL with its password, for ``DatabaseConfig.from_url``,
        or ``DUALDB_URL`` in another process.
        """
        config = self.config
        return (
            f"mysql://{config.user}:{self._password}@{config.host}:{config.port}/{config.database}"
        )

    def config_of(self, name: Union[str, int]) -> DatabaseConfig:
        """Return the configuration of ``"global"`` or of a shard's database."""
        server = self.servers[name]
        return DatabaseConfig(
            host=server.host,
            port=server.port,
            database=self._database(name),
            user=self._user,
            password=self._password,
        )

    def add_shard(self, shard_id: int, *, status: str = "active") -> Server:
        """Start another server and insert its row into the shard table.

        Args:
            shard_id: The shard's id.
            status: The status in its row.

        Returns:
            The server.
        """
        server = self._server(shard_id)
        server.launch()
        self._create_database(shard_id)
        self._insert_row(shard_id, status)
        return server

    def set_status(self, shard_id: int, status: str) -> None:
        """Change a shard's row: active, inactive or maintenance."""
        self.run(
            "global",
            f"UPDATE table_shard_config SET status = '{status}' WHERE shard_id = {int(shard_id)}",
        )

    def run(self, name: Union[str, int], *statements: str) -> List[Any]:
        """Run statements as root.

        Args:
            name: ``"global"`` or a shard id; its database is the current one.
            statements: The statements.

        Returns:
            The rows of the last statement, as dicts.
        """
        return self.servers[name].run(*statements, database=self._database(name))

    @staticmethod
    def _database(name: Union[str, int]) -> str:
        return "app_global" if name == "global" else f"app_shard_{name}"

    def _server(self, name: Union[str, int]) -> Server:
        directory = f"{self.directory}/{name}"
        shutil.copytree(f"{self.directory}/template", f"{directory}/data")
        self.servers[name] = Server(self._engine, str(name), directory, self._options)
        return self.servers[name]

    def _create_database(self, name: Union[str, int]) -> None:
        server = self.servers[name]
        database = self._database(name)
        server.wait()
        server.run(
            f"CREATE DATABASE `{database}` CHARACTER SET utf8mb4",
            f"CREATE USER '{self._user}'@'%' IDENTIFIED BY '{self._password}'",
            f"GRANT ALL ON `{database}`.* TO '{self._user}'@'%'",
        )

    def _insert_row(self, shard_id: int, status: str = "active") -> None:
        config = self.config_of(shard_id)
        with (
            self.servers["global"].admin(self._database("global")) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(
                "INSERT INTO table_shard_config "
                "(shard_id, host, port, database_name, username, password, status) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s)",
                (
                    shard_id,
                    config.host,
                    config.port,
                    config.database,
                    config.user,
                    self._password,
                    status,
                ),
            )
