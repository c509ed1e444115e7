"""A sharded database on private servers, removed when its block ends or its process
dies.
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from typing import Any, Dict, Iterable, List, Optional, Set, Union

from ..config import DatabaseConfig
from ..topology.shard_map import DDL
from . import reaper
from .clusters import Galera, Replication
from .server import Engine, Server

#: ``"global"`` or a shard id.
Name = Union[str, int]


class Sandbox:
    """A server for the global database ``app_global`` with its shard table, and a
    server for each shard's database ``app_shard_N``; or several servers for each.

    Args:
        shards: The number of shards, with ids from 1, or their ids.
        program: The server program; by default ``mariadbd``, or else ``mysqld``, on
            PATH.
        options: Further options for every server, such as ``["--general-log=1"]``.
        replicas: The number of replicas of each database, which follow its primary by
            GTID and are read-only.
        galera: The number of nodes of each database's Galera cluster, at least 2; 0 for
            a single server. With 2 nodes, either goes on alone.

    Raises:
        ServerMissing: (On entering.) No server is installed; the message names the
            package.

    Attributes:
        servers: The Server objects: ``servers["global"]``, ``servers[1]`` and so on; of
            several, the primary or the first node.
        members: All servers of each database, the primary first.
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
        replicas: int = 0,
        galera: int = 0,
    ) -> None:
        if replicas and galera:
            raise ValueError("a database has replicas or is on a Galera cluster, not both")
        if galera == 1:
            raise ValueError("a Galera cluster has at least 2 nodes")
        self._ids: List[int] = (
            list(range(1, shards + 1)) if isinstance(shards, int) else list(shards)
        )
        self._program = program
        self._options = options or []
        self._sizes = (1 + replicas, galera)
        self._user = "app"
        self._password = secrets.token_urlsafe(12)
        self.servers: Dict[Name, Server] = {}
        self.members: Dict[Name, List[Server]] = {}
        self._replication: Optional[Replication] = None
        self._clusters: Dict[Name, Galera] = {}
        self.directory = ""
        self._reaper: Optional[subprocess.Popen[bytes]] = None

    def __enter__(self) -> "Sandbox":
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all servers, create the databases, the account and the shard table.

        Takes about two seconds with MariaDB, and six with Galera.
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
            if self._sizes[1]:
                self._prepare_galera()
            names: List[Name] = ["global", *self._ids]
            for name in names:
                self._launch(name)
            for name in names:
                self._create_database(name)
            for name in names:
                self.wait_synced(name)
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
        for members in self.members.values():
            for server in members:
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

    def config_of(self, name: Name, member: int = 0) -> DatabaseConfig:
        """Return the configuration of ``"global"`` or of a shard's database.

        Args:
            name: ``"global"`` or a shard id.
            member: Which of its servers; 0 is the primary, or the first node.
        """
        server = self.members[name][member]
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
        server = self._launch(shard_id)
        self._create_database(shard_id)
        self.wait_synced(shard_id)
        self._insert_row(shard_id, status)
        return server

    def wait_synced(self, name: Name) -> None:
        """Wait until every running server of a database has what its primary has now,
        and every Galera node takes part.

        Args:
            name: ``"global"`` or a shard id.

        Raises:
            RuntimeError: That takes longer than a minute.
        """
        if name in self._clusters:
            self._clusters[name].wait_synced()
        elif self._replication is not None:
            self._replication.wait_synced(self.servers[name], self._running(name)[1:])

    def promote(self, name: Name, member: int = 1) -> Server:
        """Make a replica the primary of its database; the running ones follow it.

        It becomes ``servers[name]``, and the former primary, if it is running, its
        replica. The shard table is not changed.

        Args:
            name: ``"global"`` or a shard id.
            member: Which of its servers, by its place in ``members``.

        Returns:
            The new primary.
        """
        if self._replication is None:
            raise ValueError("the databases have no replicas")
        promoted = self.members[name][member]
        others = [each for each in self._running(name) if each is not promoted]
        self._replication.promote(promoted, others)
        self.members[name].remove(promoted)
        self.members[name].insert(0, promoted)
        self.servers[name] = promoted
        return promoted

    def set_status(self, shard_id: int, status: str) -> None:
        """Change a shard's row: active, readonly, inactive, maintenance or moving."""
        self.run(
            "global",
            f"UPDATE table_shard_config SET status = '{status}' WHERE shard_id = {int(shard_id)}",
        )

    def reset(self, keep: Iterable[str] = ()) -> None:
        """Empty all tables, make the shard table as it was made, and start what does
        not run.

        Tables and procedures stay. The rows of shards that were added are there, too.

        Args:
            keep: The names of tables whose rows stay.
        """
        for members in self.members.values():
            for server in members:
                server.resume()
                if not server.is_running:
                    server.start()
        kept = {"table_shard_config", *keep}
        for name in self.servers:
            self._empty_tables(name, kept)
        self.run(
            "global",
            "DROP TABLE IF EXISTS table_shard_config",
            DDL.format(table="table_shard_config"),
        )
        for shard_id in self.servers:
            if isinstance(shard_id, int):
                self._insert_row(shard_id)

    def _empty_tables(self, name: Name, kept: Set[str]) -> None:
        tables = self.run(
            name,
            "SELECT TABLE_NAME AS name FROM information_schema.TABLES "
            "WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'BASE TABLE'",
        )
        emptied = [f"TRUNCATE `{each['name']}`" for each in tables if each["name"] not in kept]
        if emptied:
            self.run(name, "SET foreign_key_checks = 0", *emptied)

    def run(self, name: Name, *statements: str) -> List[Any]:
        """Run statements as root.

        Args:
            name: ``"global"`` or a shard id; its database is the current one.
            statements: The statements.

        Returns:
            The rows of the last statement, as dicts.
        """
        return self.servers[name].run(*statements, database=self._database(name))

    @staticmethod
    def _database(name: Name) -> str:
        return "app_global" if name == "global" else f"app_shard_{name}"

    def _running(self, name: Name) -> List[Server]:
        return [server for server in self.members[name] if server.is_running]

    def _launch(self, name: Name) -> Server:
        """Make a database's servers and launch them; of a Galera cluster the first,
        which the others join.
        """
        count, nodes = self._sizes
        if nodes:
            self._clusters[name] = Galera(self._engine, f"dualdb-{name}", nodes)
        elif count > 1 and self._replication is None:
            self._replication = Replication(self._engine)
        self.members[name] = [self._server(name, number) for number in range(max(count, nodes))]
        self.servers[name] = self.members[name][0]
        for server in self.members[name][: 1 if nodes else None]:
            server.launch()
        return self.servers[name]

    def _server(self, name: Name, number: int) -> Server:
        directory = f"{self.directory}/{name}" + (f"-{number + 1}" if number else "")
        shutil.copytree(
            f"{self.directory}/template",
            f"{directory}/data",
            ignore=shutil.ignore_patterns("auto.cnf"),  # with the UUID of a MySQL server
        )
        title = f"{name}" + (f" ({number + 1})" if number else "")
        if name in self._clusters:
            self._open_to_rsync(directory)
            return self._clusters[name].node(number, title, directory, self._options)
        more = [] if self._replication is None else self._replication.options(number)
        return Server(self._engine, title, directory, [*more, *self._options])

    def _prepare_galera(self) -> None:
        """Give the template a cluster's state, so that copies of it can join."""
        directory = f"{self.directory}/first"
        os.mkdir(directory)
        os.rename(f"{self.directory}/template", f"{directory}/data")
        node = Galera(self._engine, "dualdb", 1).node(0, "first", directory, self._options)
        try:
            node.start()
        finally:
            node.stop()
        os.rename(f"{directory}/data", f"{self.directory}/template")
        os.unlink(f"{self.directory}/template/galera.cache")

    def _open_to_rsync(self, directory: str) -> None:
        """As root, rsync receives a copy of the data as nobody."""
        if os.geteuid() == 0:
            os.chmod(self.directory, 0o711)
            os.chmod(directory, 0o711)
            os.chmod(f"{directory}/data", 0o777)

    def _create_database(self, name: Name) -> None:
        server = self.servers[name]
        database = self._database(name)
        server.wait()
        others = self.members[name][1:]
        server.run(
            f"CREATE DATABASE `{database}` CHARACTER SET utf8mb4",
            f"CREATE USER '{self._user}'@'%' IDENTIFIED BY '{self._password}'",
            f"GRANT ALL ON `{database}`.* TO '{self._user}'@'%'",
        )
        if not self._engine.is_mariadb:  # which lists prepared transactions to everybody
            server.run(f"GRANT XA_RECOVER_ADMIN ON *.* TO '{self._user}'@'%'")
        for other in others:
            other.launch()
        if self._replication is not None:
            for other in others:
                other.wait()
            self._replication.link(server, others)

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
