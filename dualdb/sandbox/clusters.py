"""Several servers for one database: a primary with replicas, or a Galera cluster."""

import os
import re
import secrets
import subprocess
import time
from typing import Callable, List, Optional

import pymysql

from .server import Engine, Server, ServerMissing, free_port, which

#: Seconds until replicas have caught up, or nodes are in sync.
SYNC_SECONDS = 60.0

_PROVIDERS = (
    "/usr/lib/galera/libgalera_smm.so",
    "/usr/lib64/galera-4/libgalera_smm.so",
    "/usr/lib64/galera/libgalera_smm.so",
)
_GTID_MYSQL = ["--gtid-mode=ON", "--enforce-gtid-consistency=ON"]


def wait_until(condition: Callable[[], bool], what: str, seconds: float = SYNC_SECONDS) -> None:
    """Wait until a condition is true; errors of a server that starts mean that it is
    not.

    Args:
        condition: The condition.
        what: What is waited for, for the message.
        seconds: How long at most.

    Raises:
        RuntimeError: It has not become true in time.
    """
    deadline = time.monotonic() + seconds
    error: Optional[Exception] = None
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except (OSError, pymysql.err.MySQLError) as failure:
            error = failure
        time.sleep(0.02)
    raise RuntimeError(f"{what} did not happen within {seconds:g} s ({error})")


class Replication:
    """A primary and its replicas, by GTID.

    Args:
        engine: The server program.

    Attributes:
        engine: The same.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._password = secrets.token_urlsafe(12)

    def options(self, number: int) -> List[str]:
        """Return the options of a member: 0 is the primary."""
        options = ["--log-bin=bin", f"--server-id={number + 1}"]
        if self.engine.is_mariadb:
            options += ["--log-slave-updates", "--gtid-strict-mode=1"]
        else:
            options += _GTID_MYSQL
        return [*options, "--read-only=1"] if number else options

    def link(self, primary: Server, replicas: List[Server]) -> None:
        """Let the replicas follow the primary, from its first transaction."""
        primary.run(
            f"CREATE USER 'dualdb_replica'@'%' IDENTIFIED BY '{self._password}'",
            "GRANT REPLICATION SLAVE ON *.* TO 'dualdb_replica'@'%'",
        )
        for replica in replicas:
            self.follow(replica, primary)

    def follow(self, replica: Server, primary: Server) -> None:
        """Let a server replicate from another one."""
        if self.engine.is_mariadb:
            source = "CHANGE MASTER TO MASTER_{}"
            more = "MASTER_USE_GTID = current_pos, MASTER_CONNECT_RETRY = 1"
            start = "START SLAVE"
        else:
            source = "CHANGE REPLICATION SOURCE TO SOURCE_{}"
            more = "SOURCE_AUTO_POSITION = 1, SOURCE_CONNECT_RETRY = 1, GET_SOURCE_PUBLIC_KEY = 1"
            start = "START REPLICA"
        prefix = "MASTER" if self.engine.is_mariadb else "SOURCE"
        replica.run(
            source.format(f"HOST = '{primary.host}', ")
            + f"{prefix}_PORT = {primary.port}, {prefix}_USER = 'dualdb_replica', "
            + f"{prefix}_PASSWORD = '{self._password}', {more}",
            "SET GLOBAL read_only = 1",
            start,
        )

    def promote(self, replica: Server, others: List[Server]) -> None:
        """Make a replica the primary of the others that are running."""
        stop = ["STOP SLAVE", "RESET SLAVE ALL"]
        if not self.engine.is_mariadb:
            stop = ["STOP REPLICA", "RESET REPLICA ALL"]
        for other in others:
            other.run("SET GLOBAL read_only = 1", *stop[:1])
        replica.run(*stop, "SET GLOBAL read_only = 0")
        for other in others:
            self.follow(other, replica)

    def wait_synced(self, primary: Server, replicas: List[Server]) -> None:
        """Wait until the replicas have applied everything that the primary has now.

        Raises:
            RuntimeError: That takes longer than a minute; with the replica's error.
        """
        if self.engine.is_mariadb:
            (row,) = primary.run("SELECT @@gtid_binlog_pos AS position")
            sql = f"SELECT MASTER_GTID_WAIT('{row['position']}', {SYNC_SECONDS}) AS result"
            state = "SHOW SLAVE STATUS"
        else:
            (row,) = primary.run("SELECT @@GLOBAL.gtid_executed AS position")
            position = row["position"].replace("\n", "")
            sql = f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{position}', {SYNC_SECONDS}) AS result"
            state = "SHOW REPLICA STATUS"
        for replica in replicas:
            (row,) = replica.run(sql)
            if row["result"] != 0:
                raise RuntimeError(f"{replica} does not follow: {replica.run(state)}")


class Galera:
    """A Galera cluster. Its nodes have copies of one data directory, so that each is
    sent what came since and nothing else.

    Args:
        engine: The server program; MariaDB's.
        name: The cluster's name.
        size: The number of nodes.

    Raises:
        ServerMissing: Galera is not installed; the message names the package.
    """

    def __init__(self, engine: Engine, name: str, size: int) -> None:
        found = [path for path in _PROVIDERS if os.path.exists(path)]
        if not engine.is_mariadb or not found or which("rsync") is None:
            raise ServerMissing(
                "a Galera cluster needs MariaDB, galera-4 and rsync "
                "(Debian and Ubuntu: apt-get install mariadb-server galera-4 rsync)"
            )
        self._engine = engine
        self._provider = found[0]
        self._name = name
        self._ports = [[free_port(self) for _ in range(3)] for _ in range(size)]
        self.nodes: List[GaleraNode] = []

    def node(self, number: int, name: str, directory: str, options: List[str]) -> "GaleraNode":
        """Make a node, which joins the others or, if there are none, begins the
        cluster.
        """
        made = GaleraNode(self._engine, name, directory, [*self._options(number), *options])
        made.cluster = self
        self.nodes.append(made)
        return made

    def _options(self, number: int) -> List[str]:
        port, whole, missing = self._ports[number]
        addresses = ",".join([f"127.0.0.1:{ports[0]}" for ports in self._ports])
        provider = [
            f"base_host=127.0.0.1; base_port={port}",
            f"gmcast.listen_addr=tcp://127.0.0.1:{port}; ist.recv_addr=127.0.0.1:{missing}",
            "gcache.size=8M; gcache.page_size=8M",
            "evs.keepalive_period=PT0.5S; evs.suspect_timeout=PT2S",
            "evs.inactive_timeout=PT3S; evs.install_timeout=PT3S",
        ]
        if len(self._ports) == 2:
            # one node of two has no majority, and would refuse everything
            provider.append("pc.ignore_sb=true")
        return [
            "--wsrep-on=ON",
            f"--wsrep-provider={self._provider}",
            f"--wsrep-cluster-name={self._name}",
            f"--wsrep-cluster-address=gcomm://{addresses}",
            f"--wsrep-node-address=127.0.0.1:{port}",
            f"--wsrep-sst-receive-address=127.0.0.1:{whole}",
            "--wsrep-sst-method=rsync",
            f"--wsrep-provider-options={'; '.join(provider)}",
            "--binlog-format=ROW",
            "--innodb-autoinc-lock-mode=2",
        ]

    def wait_synced(self) -> None:
        """Wait until every running node is in sync with the cluster.

        Raises:
            RuntimeError: That takes longer than a minute, or a node has exited.
        """
        for node in self.nodes:
            if node.is_running:
                node.wait()
                wait_until(node.is_synced, f"{node}: synchronization")


class GaleraNode(Server):
    """One node of a Galera cluster."""

    cluster: Galera

    def launch(self) -> None:
        """Start the process: join the running nodes, or begin the cluster anew."""
        if self.is_running:
            return
        running = [node for node in self.cluster.nodes if node is not self and node.is_running]
        start = [] if running else ["--wsrep-new-cluster"]
        if not running:
            self._allow_bootstrap()
        self._launch([*start, *self._position()])

    def is_synced(self) -> bool:
        """Return whether the node takes part in the cluster and may be used.

        Raises:
            RuntimeError: It has exited; with the end of its log.
        """
        if not self.is_running:
            raise RuntimeError(f"{self} has exited:\n{self.log()[-2000:]}")
        (state,) = self.run("SHOW STATUS LIKE 'wsrep_local_state_comment'")
        return bool(state["Value"] == "Synced")

    def _allow_bootstrap(self) -> None:
        path = f"{self.directory}/data/grastate.dat"
        if os.path.exists(path):
            with open(path, encoding="ascii") as file:
                text = file.read()
            with open(path, "w", encoding="ascii") as file:
                file.write(text.replace("safe_to_bootstrap: 0", "safe_to_bootstrap: 1"))

    def _position(self) -> List[str]:
        """After a crash the position is in the data alone: find it, so that the node is
        sent what it missed and not everything.
        """
        path = f"{self.directory}/data/grastate.dat"
        if not os.path.exists(path):
            return []
        with open(path, encoding="ascii") as file:
            if not re.search(r"^seqno:\s+-1$", file.read(), re.M):
                return []
        command = [*self._command(), "--wsrep-recover"]
        made = subprocess.run(
            command,
            env=self._engine.environment(self.directory),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        found = re.findall(r"Recovered position:\s*(\S+)", made.stdout + made.stderr)
        return [f"--wsrep-start-position={found[-1]}"] if found else []
