"""Clusters of real servers for tests: a primary with a replica, Galera, Group
Replication; and a load of unique tokens, counted afterwards.
"""

import contextlib
import logging
import os
import shutil
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import (
    AbstractSet,
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Set,
    Tuple,
)

import pymysql.err
from io_kinds import IO
from waiting import wait_for

import dualdb
from dualdb import DatabaseConfig
from dualdb.sandbox.server import Engine, Server, free_port

log = logging.getLogger("clusters")

PROVIDER = "/usr/lib/galera/libgalera_smm.so"

#: The schema of every cluster; a token that is stored twice is seen.
SCHEMA = (
    "CREATE DATABASE app",
    "CREATE USER u@'%' IDENTIFIED BY 'p'",
    "GRANT ALL ON app.* TO u@'%'",
    "CREATE TABLE app.tokens (id BIGINT AUTO_INCREMENT PRIMARY KEY, token VARCHAR(40) NOT NULL)",
)


class Cluster:
    """Servers that hold the same data.

    Args:
        nodes: The servers.
    """

    def __init__(self, nodes: List[Server]) -> None:
        self.nodes = nodes

    def config(self, **changes: Any) -> DatabaseConfig:
        """The configuration that names every host."""
        fields = {
            "host": ",".join([f"127.0.0.1:{node.port}" for node in self.nodes]),
            "database": "app",
            "user": "u",
            "password": "p",
            "read_timeout": 5.0,
        }
        return DatabaseConfig(**{**fields, **changes})

    def stop(self) -> None:
        for node in reversed(self.nodes):
            node.resume()
            node.kill()

    @contextlib.contextmanager
    def stopping(self, node: Server) -> Iterator[None]:
        """A block in which a server shuts down, which it may take long for while its
        sessions wait for each other; it has ended afterwards.
        """
        stop = threading.Thread(target=node.stop)
        stop.start()
        try:
            yield
        finally:
            node.kill()
            stop.join()


def answer(node: Server, *statements: str) -> List[Any]:
    """The rows of the last statement; none where the server does not answer."""
    try:
        # PyMySQL leaves the socket of a refused connection to the garbage collector.
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(f"{node.directory}/s")
        return node.run(*statements)
    except (OSError, pymysql.err.MySQLError):
        return []


class ReplicaPair(Cluster):
    """A MariaDB primary and a replica by GTID, which is read-only."""

    @property
    def primary(self) -> Server:
        return self.nodes[0]

    @property
    def replica(self) -> Server:
        return self.nodes[1]

    def follow(self, node: Server, source: Server) -> None:
        """Make a server the replica of another one."""
        node.run(
            "SET GLOBAL read_only = 1",
            f"CHANGE MASTER TO master_host='127.0.0.1', master_port={source.port}, "
            "master_user='repl', master_password='r', master_use_gtid=slave_pos, "
            "master_connect_retry=1",
            "START SLAVE",
        )

    def promote(self, node: Server) -> None:
        """Make the replica the primary, once it has applied what it has received."""
        node.run("STOP SLAVE IO_THREAD")

        def applied() -> bool:
            (state,) = node.run("SHOW SLAVE STATUS")
            return bool(state["Exec_Master_Log_Pos"] == state["Read_Master_Log_Pos"])

        wait_for(applied)
        node.run("STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = 0")

    def wait_until_caught_up(self, node: Server, source: Server) -> None:
        (row,) = source.run("SELECT @@gtid_binlog_pos AS at")
        (waited,) = node.run(f"SELECT MASTER_GTID_WAIT('{row['at']}', 30) AS failed")
        assert waited["failed"] == 0


@contextlib.contextmanager
def replica_pair() -> Iterator[ReplicaPair]:
    """Start a MariaDB primary with a replica."""
    engine = Engine()
    directory = tempfile.mkdtemp(prefix="dualdb-pair-")
    nodes = []
    for number in (1, 2):
        home = f"{directory}/{number}"
        os.mkdir(home)
        options = [
            f"--server-id={number}",
            "--log-bin=bin",
            "--log-slave-updates",
            "--gtid-strict-mode=1",
            *(["--read-only=1"] if number == 2 else []),
        ]
        nodes.append(Server(engine, str(number), home, options))
    pair = ReplicaPair(nodes)
    try:
        engine.prepare(f"{directory}/1/data")
        shutil.copytree(f"{directory}/1/data", f"{directory}/2/data")
        for node in nodes:
            node.start()
        pair.primary.run(
            "CREATE USER repl@'127.0.0.1' IDENTIFIED BY 'r'",
            "GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1'",
            *SCHEMA,
        )
        pair.follow(pair.replica, pair.primary)
        pair.wait_until_caught_up(pair.replica, pair.primary)
        yield pair
    finally:
        pair.stop()
        shutil.rmtree(directory)


class Galera(Cluster):
    """A Galera cluster."""

    def wait_until_synced(self, node: Server) -> None:
        """Wait through a time in which a joining node refuses or closes connections."""

        def is_synced() -> bool:
            assert node.is_running, node.log()[-4000:]
            state = answer(node, "SHOW STATUS LIKE 'wsrep_local_state_comment'")
            return bool(state and state[0]["Value"] == "Synced")

        try:
            wait_for(is_synced, 60, every=0.05)
        except AssertionError as error:
            raise AssertionError(f"{node} is not synced: {error}\n{node.log()[-4000:]}") from None


def _galera_options(
    number: int, ports: List[int], transfers: List[Tuple[int, int]], name: str
) -> List[str]:
    port, (copied, missed) = ports[number], transfers[number]
    provider = f"base_host=127.0.0.1; base_port={port}; gmcast.listen_addr=tcp://127.0.0.1:{port}; "
    return [
        "--wsrep-on=ON",
        f"--wsrep-provider={PROVIDER}",
        f"--wsrep-cluster-name={name}",
        "--wsrep-cluster-address=gcomm://" + ",".join([f"127.0.0.1:{each}" for each in ports]),
        f"--wsrep-node-address=127.0.0.1:{port}",
        f"--wsrep-sst-receive-address=127.0.0.1:{copied}",
        "--wsrep-sst-method=rsync",
        (
            f"--wsrep-provider-options={provider}ist.recv_addr=127.0.0.1:{missed}; "
            "gcache.size=8M; gcache.page_size=8M; evs.keepalive_period=PT0.5S; "
            "evs.suspect_timeout=PT2S; evs.inactive_timeout=PT3S; evs.install_timeout=PT3S"
        ),
        "--binlog-format=ROW",
        "--innodb-autoinc-lock-mode=2",
    ]


class _ClusterEngine(Engine):
    """Root's servers run as mysql: where root receives a copy of the data, rsync writes
    it as nobody.
    """

    def command(self, directory: str, port: int, options: List[str]) -> List[str]:
        words = super().command(directory, port, options)
        return ["--user=mysql" if word == "--user=root" else word for word in words]


@contextlib.contextmanager
def galera(size: int) -> Iterator[Galera]:
    """Start a Galera cluster of so many nodes."""
    engine = _ClusterEngine()
    if not engine.is_mariadb or not os.path.exists(PROVIDER):
        raise RuntimeError(
            "these tests need MariaDB with Galera (Debian and Ubuntu: apt-get install "
            "mariadb-server galera-4)"
        )
    directory = tempfile.mkdtemp(prefix="dualdb-galera-")
    os.chmod(directory, 0o711)
    ports = [free_port(engine) for _ in range(size)]
    transfers = [(free_port(engine), free_port(engine)) for _ in range(size)]
    name = os.path.basename(directory)
    options = [_galera_options(number, ports, transfers, name) for number in range(size)]
    nodes = [
        Server(engine, str(number), f"{directory}/{number}", options[number])
        for number in range(size)
    ]
    cluster = Galera(nodes)
    try:
        os.mkdir(f"{directory}/0")
        engine.prepare(f"{directory}/0/data")
        _give_away(f"{directory}/0")
        options[0].append("--wsrep-new-cluster")
        nodes[0].start()
        nodes[0].run(*SCHEMA)
        # The others begin with a copy, so that each is sent what came since and nothing
        # else.
        nodes[0].stop()
        ignored = shutil.ignore_patterns("galera.cache", "s", "log", "pid")
        for node in nodes[1:]:
            shutil.copytree(f"{directory}/0", node.directory, ignore=ignored)
            _give_away(node.directory)
        nodes[0].start()
        options[0].remove("--wsrep-new-cluster")
        for node in nodes[1:]:
            node.start()
        for node in nodes:
            cluster.wait_until_synced(node)
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(directory)


def _give_away(directory: str) -> None:
    """Give a node's files to the account that it runs as."""
    if os.geteuid():
        return
    for path, _, files in os.walk(directory):
        for each in (path, *[os.path.join(path, file) for file in files]):
            shutil.chown(each, "mysql", "mysql")


#: The variable that names a mysqld of MySQL 8.4 or later, with its plugins.
MYSQLD = "DUALDB_TEST_MYSQLD"

#: Lets the account see whether a member is in its group.
MEMBER_GRANT = "GRANT SELECT ON performance_schema.replication_group_members TO u@'%'"

_GROUP = "9f1c2f6e-0b5c-11ef-9d1a-0242ac120002"


class Group(Cluster):
    """A group of MySQL servers with one primary."""

    def start(self, node: Server) -> None:
        """Start a server, outside its group."""
        node.start()

    def join(self, node: Server) -> None:
        """Have a running server join the group."""
        node.run("START GROUP_REPLICATION")

    def bootstrap(self, node: Server) -> None:
        """Begin the group with one server."""
        node.run(
            "SET GLOBAL group_replication_bootstrap_group = ON",
            "START GROUP_REPLICATION",
            "SET GLOBAL group_replication_bootstrap_group = OFF",
        )

    def states(self, node: Server) -> Dict[int, str]:
        """What a server knows of the members: their state and role, by port."""
        rows = answer(
            node,
            "SELECT member_port AS port, CONCAT(member_state, '/', member_role) AS state "
            "FROM performance_schema.replication_group_members",
        )
        return {int(row["port"] or 0): row["state"] for row in rows}

    def wait_until_online(self, node: Server) -> None:
        """Wait until a server is a member."""
        wait_for(lambda: self.states(node).get(node.port, "").startswith("ONLINE/"), 90)

    def primary(self, seen_by: Server) -> Server:
        """The primary, as a server knows it."""
        (port,) = [port for port, state in self.states(seen_by).items() if "PRIMARY" in state]
        return next(node for node in self.nodes if node.port == port)

    def switch(self, node: Server) -> None:
        """Make a member the primary."""
        (row,) = node.run("SELECT @@server_uuid AS uuid")
        node.run(f"SELECT group_replication_set_as_primary('{row['uuid']}')")


def _group_options(number: int, ports: List[int]) -> List[str]:
    seeds = ",".join([f"127.0.0.1:{port}" for port in ports])
    return [
        f"--server-id={number + 1}",
        "--performance-schema=ON",
        "--log-bin=bin",
        "--gtid-mode=ON",
        "--enforce-gtid-consistency=ON",
        "--report-host=127.0.0.1",
        "--plugin-load-add=group_replication.so",
        f"--loose-group-replication-group-name={_GROUP}",
        "--loose-group-replication-start-on-boot=OFF",
        f"--loose-group-replication-local-address=127.0.0.1:{ports[number]}",
        f"--loose-group-replication-group-seeds={seeds}",
        "--loose-group-replication-ip-allowlist=127.0.0.1",
        "--loose-group-replication-recovery-get-public-key=ON",
        "--loose-group-replication-communication-stack=XCOM",
        "--loose-group-replication-member-expel-timeout=0",
        "--loose-group-replication-unreachable-majority-timeout=3",
    ]


@contextlib.contextmanager
def group(size: int) -> Iterator[Group]:
    """Start a group of so many MySQL servers."""
    program = os.environ.get(MYSQLD)
    if not program:
        raise RuntimeError(
            f"these tests need MySQL 8.4 or later: name its mysqld in {MYSQLD} (for its packages "
            "see https://dev.mysql.com/downloads/mysql/)"
        )
    engine = Engine(program)
    directory = tempfile.mkdtemp(prefix="dualdb-group-")
    ports = [free_port(engine) for _ in range(size)]
    nodes = []
    for number in range(size):
        os.mkdir(f"{directory}/{number}")
        options = _group_options(number, ports)
        nodes.append(Server(engine, str(number), f"{directory}/{number}", options))
    started = Group(nodes)
    try:
        engine.prepare(f"{directory}/0/data")
        for node in nodes[1:]:
            shutil.copytree(f"{directory}/0/data", f"{node.directory}/data")
            os.unlink(f"{node.directory}/data/auto.cnf")  # it has the server's uuid
        for node in nodes:
            started.start(node)
            node.run(
                "SET SESSION sql_log_bin = 0",
                "CREATE USER repl@'%' IDENTIFIED BY 'r'",
                "GRANT REPLICATION SLAVE, CONNECTION_ADMIN, BACKUP_ADMIN, "
                "GROUP_REPLICATION_STREAM ON *.* TO repl@'%'",
                "SET SESSION sql_log_bin = 1",
                "RESET BINARY LOGS AND GTIDS",
                "CHANGE REPLICATION SOURCE TO SOURCE_USER = 'repl', SOURCE_PASSWORD = 'r' "
                "FOR CHANNEL 'group_replication_recovery'",
            )
        started.bootstrap(nodes[0])
        nodes[0].run(*SCHEMA)
        for node in nodes[1:]:
            started.join(node)
        for node in nodes:
            started.wait_until_online(node)
        yield started
    finally:
        started.stop()
        shutil.rmtree(directory)


class Failure(NamedTuple):
    """A write that failed.

    Attributes:
        at: When, by time.monotonic().
        token: What was to be written.
        error: Why.
    """

    at: float
    token: str
    error: BaseException


class Load:
    """Writers of unique tokens, and readers, in threads or tasks.

    Args:
        io: The implementation.
        client: A client, or a target of a service.
        writers: How many write; half of them in transactions.
    """

    def __init__(self, io: IO, client: Any, writers: int = 6) -> None:
        self.io = io
        self.acknowledged: List[Tuple[float, str]] = []
        self.unknown: Set[str] = set()
        self.failures: List[Failure] = []
        self._client = client
        self._writers = writers
        self._stop = threading.Event()

    def __repr__(self) -> str:
        return (
            f"<Load: {len(self.acknowledged)} writes, errors {self.kinds or 'none'}, longest pause "
            f"{self.longest_pause:.2f} s>"
        )

    @property
    def kinds(self) -> Dict[str, int]:
        """How many errors of each class there were."""
        found: Dict[str, int] = {}
        for failure in self.failures:
            name = type(failure.error).__name__
            found[name] = found.get(name, 0) + 1
        return found

    @property
    def longest_pause(self) -> float:
        """The longest time without an acknowledged write, in seconds."""
        times = sorted([at for at, _ in self.acknowledged])
        return max([after - before for before, after in zip(times, times[1:])], default=0.0)

    def wait_for_writes(self, count: int = 20, seconds: float = 60.0) -> float:
        """Wait until so many more writes were acknowledged; how long it took."""
        began, before = time.monotonic(), len(self.acknowledged)
        wait_for(lambda: len(self.acknowledged) >= before + count, seconds, every=0.005)
        return time.monotonic() - began

    def wait_for_silence(self, seconds: float = 1.0) -> None:
        """Wait until no write has been acknowledged for so long."""
        wait_for(lambda: time.monotonic() - self.acknowledged[-1][0] > seconds, 60, every=0.01)

    def check_errors(self, faults: int = 1) -> None:
        """Check that nothing failed but what was on its way when a fault happened."""
        # TransactionAborted: it was found to be gone before COMMIT was sent.
        allowed = (
            dualdb.OutcomeUnknown,
            dualdb.ConnectionLost,
            dualdb.NotPrimary,
            dualdb.TransactionAborted,
        )
        shown = [repr(failure.error) for failure in self.failures]
        assert all(isinstance(failure.error, allowed) for failure in self.failures), shown
        assert len(self.failures) <= faults * self._writers, shown

    def run(self, scenario: Callable[["Load"], Any]) -> None:
        """Run the writers while a scenario happens, and until it is over."""

        def play() -> None:
            try:
                self.wait_for_writes()
                scenario(self)
                self.wait_for_writes()
            finally:
                self._stop.set()

        calls = [
            self.io.function(self._write_in_transactions if number % 2 else self._write)
            for number in range(self._writers)
        ]
        with ThreadPoolExecutor(1) as executor:
            played = executor.submit(play)
            outcomes = self.io.concurrently(
                [lambda call=call, number=number: call(number) for number, call in enumerate(calls)]
            )
            played.result()
        log.info("%s", self)
        assert outcomes == [None] * self._writers

    def check(self, node: Server, given_up: AbstractSet[str] = frozenset()) -> None:
        """Check that every acknowledged token is there once, and that a write that
        failed for certain is not.

        Args:
            node: Where.
            given_up: Tokens that the engine itself has lost.
        """
        stored = stored_tokens(node)
        acknowledged = {token for _, token in self.acknowledged}
        assert not [token for token, count in stored.items() if count > 1], "doubled"
        assert not acknowledged - given_up - stored.keys(), "missing"
        refused = {failure.token for failure in self.failures} - self.unknown
        assert not refused & stored.keys(), "there although its error says that it is not"

    def _write(self, number: int) -> Any:
        for count in range(10**9):
            if self._stop.is_set():
                return
            token = f"{number}-{count}"
            try:
                yield self._client.execute("INSERT INTO tokens (token) VALUES (%s)", (token,))
                self._written(token)
                yield self._client.query("SELECT id FROM tokens ORDER BY id DESC LIMIT 1")
            except dualdb.Error as error:
                self._failed(token, error)
                yield self.io.pause(0.01)

    def _write_in_transactions(self, number: int) -> Any:
        for count in range(10**9):
            if self._stop.is_set():
                return
            token = f"{number}-{count}"

            def body(tx: Any, token: str = token) -> Any:
                yield tx.query("SELECT COUNT(*) FROM tokens WHERE id < 10")
                yield tx.execute("INSERT INTO tokens (token) VALUES (%s)", (token,))

            try:
                yield self.io.block(self._client.transaction, body)()
                self._written(token)
            except dualdb.Error as error:
                self._failed(token, error)
                yield self.io.pause(0.01)

    def _written(self, token: str) -> None:
        self.acknowledged.append((time.monotonic(), token))

    def _failed(self, token: str, error: dualdb.Error) -> None:
        written = self.acknowledged and (
            token in [done for _, done in self.acknowledged[-4 * self._writers :]]
        )
        if isinstance(error, dualdb.OutcomeUnknown) or written:
            self.unknown.add(token)
        self.failures.append(Failure(time.monotonic(), token, error))


def stored_tokens(node: Server) -> Dict[str, int]:
    """How often each token is stored."""
    rows = node.run("SELECT token, COUNT(*) AS n FROM app.tokens GROUP BY token")
    return {row["token"]: int(row["n"]) for row in rows}


def outage(load: Load, since: float) -> Optional[float]:
    """Seconds from a moment to the next acknowledged write; None if there is none."""
    after = [at for at, _ in load.acknowledged if at > since]
    return min(after) - since if after else None
