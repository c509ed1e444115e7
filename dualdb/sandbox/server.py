"""One private MariaDB or MySQL server on loopback."""

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
import weakref
from typing import Any, Dict, List, Optional

import pymysql
import pymysql.cursors

# MySQL insists on the directory that its package names for --secure-file-priv, which
# need not be there.
_MYSQL = ["--innodb-redo-log-capacity=8M", "--secure-file-priv=NULL"]
_START_SECONDS = 60.0
_SBIN = os.pathsep.join(["/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/usr/bin"])


class ServerMissing(RuntimeError):
    """No MariaDB or MySQL server is installed."""


def which(*names: str) -> Optional[str]:
    """The first of these programs on PATH, or where servers are installed although an
    ordinary user's PATH leaves it out.
    """
    for name in names:
        found = shutil.which(name) or shutil.which(name, path=_SBIN)
        if found:
            return found
    return None


class Engine:
    """The server program that there is, and how it is started.

    Args:
        program: The program; by default ``mariadbd`` or else ``mysqld`` on PATH.

    Raises:
        ServerMissing: No server is installed.

    Attributes:
        program: The program's path.
        is_mariadb: Whether it is MariaDB's.
        root_password: The password of root on the servers of the data directory that
            ``prepare`` makes: on a port of loopback any local user might be root
            without one.
    """

    def __init__(self, program: Optional[str] = None) -> None:
        found = program or which("mariadbd", "mysqld")
        if found is None:
            raise ServerMissing(
                "no MariaDB or MySQL server on PATH: install one "
                "(Debian and Ubuntu: apt-get install mariadb-server)"
            )
        self.program: str = found
        version = subprocess.run(
            [found, "--no-defaults", "--version"], capture_output=True, text=True, check=False
        )
        if version.returncode != 0:
            raise ServerMissing(
                f"{found} --version failed: {(version.stderr or version.stdout).strip()}"
            )
        self.is_mariadb = "mariadb" in version.stdout.lower()
        self.root_password = secrets.token_urlsafe(18)
        # A server refuses to run as root unless an option allows it.
        self._user = ["--user=root"] if os.geteuid() == 0 else []

    def prepare(self, datadir: str) -> None:
        """Make a data directory with the system tables and one account, root@localhost
        with ``root_password``.

        Args:
            datadir: The directory to make, in one that only this user can enter.

        Raises:
            ServerMissing: A program of the server's package is missing.
            RuntimeError: It failed; with the last lines of what it printed.
        """
        password = f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{self.root_password}';\n"
        if not self.is_mariadb:
            script = f"{datadir}.sql"
            with open(script, "w", encoding="ascii", opener=_private) as file:
                file.write(password)
            command = [self.program, "--no-defaults", f"--datadir={datadir}", *_MYSQL]
            self._run([*command, "--initialize-insecure", f"--init-file={script}"], datadir)
            os.unlink(script)
            return
        install = which("mariadb-install-db", "mysql_install_db")
        if install is None:
            raise ServerMissing(
                "mariadb-install-db is missing: it comes with the server's package "
                "(apt-get install mariadb-server)"
            )
        small = ["--innodb-log-file-size=8M", "--innodb-buffer-pool-size=16M"]
        command = [install, "--no-defaults", f"--datadir={datadir}", *small]
        self._run([*command, "--auth-root-authentication-method=normal", "--skip-test-db"], datadir)
        # In bootstrap mode, where nobody can connect: no account without a password is
        # ever to be reached.
        accounts = (
            "DELETE FROM mysql.global_priv WHERE User <> 'mariadb.sys' "
            "AND NOT (User = 'root' AND Host = 'localhost');\n"
        )
        flush = "FLUSH PRIVILEGES;\n"
        command = [self.program, "--no-defaults", f"--datadir={datadir}", "--bootstrap", *small]
        self._run(command, datadir, flush + accounts + flush + password)

    def _run(self, command: List[str], datadir: str, script: Optional[str] = None) -> None:
        made = subprocess.run(
            command + self._user,
            env=self.environment(os.path.dirname(datadir)),
            input="" if script is None else script,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise RuntimeError(f"{command[0]} failed:\n{(made.stdout + made.stderr)[-2000:]}")

    @staticmethod
    def environment(directory: str) -> Dict[str, str]:
        # A server that starts deletes what looks like its kind's temporary tables in
        # its directory for such, another server's too.
        return {**os.environ, "TMPDIR": directory}

    def command(self, directory: str, port: int, options: List[str]) -> List[str]:
        command = [
            self.program,
            "--no-defaults",
            f"--datadir={directory}/data",
            f"--socket={directory}/s",
            f"--pid-file={directory}/pid",
            f"--port={port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--performance-schema=OFF",
            "--innodb-buffer-pool-size=32M",
            "--innodb-flush-log-at-trx-commit=2",
            "--max-connections=300",
        ]
        command += (
            ["--innodb-log-file-size=8M"]
            if self.is_mariadb
            else [*_MYSQL, "--skip-log-bin", "--mysqlx=OFF"]
        )
        return command + self._user + options


class Server:
    """A server that can be started, stopped, killed and held still.

    Its data stays in its directory until the sandbox goes.
    """

    host = "127.0.0.1"

    def __init__(
        self, engine: Engine, name: str, directory: str, options: Optional[List[str]] = None
    ) -> None:
        self.name = name
        self.directory = directory
        self.port = 0
        self._engine = engine
        self._options = options or []
        self._process: Optional[subprocess.Popen[bytes]] = None

    def __repr__(self) -> str:
        state = "up" if self.is_running else "down"
        return f"<Server {self.name} on {self.host}:{self.port}, {state}>"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the process and return at once; ``wait`` waits until it answers.

        A restart keeps the port.
        """
        if self.is_running:
            return
        if not self.port:
            self.port = free_port(self)
        # A session of its own, so that Ctrl-C reaches the program that uses the sandbox
        # and not the servers.
        with open(f"{self.directory}/log", "ab", opener=_private) as log:
            self._process = subprocess.Popen(
                self._engine.command(self.directory, self.port, self._options),
                env=self._engine.environment(self.directory),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until the server answers.

        Raises:
            RuntimeError: it has ended, or does not answer in time; with the last lines
                of its log.
        """
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                # A server opens its port and its socket file in that order, when it is
                # ready to serve both.
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(f"{self.directory}/s")
                self.admin().close()
                return
            except (OSError, pymysql.err.OperationalError) as error:
                if not self.is_running or time.monotonic() > deadline:
                    raise RuntimeError(
                        f"the server {self.name} did not start ({error.args[-1]}):\n"
                        f"{self.log()[-2000:]}"
                    ) from None
            time.sleep(0.02)

    def start(self) -> None:
        self.launch()
        self.wait()

    def stop(self) -> None:
        """Shut down in good order, and wait until it has."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Die as in a crash."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Hold the process still: its connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def admin(self, database: Optional[str] = None) -> Any:
        """A PyMySQL connection as root, in autocommit, with rows as dicts."""
        return pymysql.connect(
            unix_socket=f"{self.directory}/s",
            user="root",
            password=self._engine.root_password,
            database=database,
            autocommit=True,
            cursorclass=pymysql.cursors.DictCursor,
            # on a unix socket there is nothing to hide, and reading the system's
            # authorities takes 20 ms
            ssl_disabled=True,
        )

    def run(self, *statements: str, database: Optional[str] = None) -> List[Any]:
        """Run statements as root; the rows of the last one."""
        with self.admin(database) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def log(self) -> str:
        try:
            with open(f"{self.directory}/log", encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def _end(self, number: int) -> None:
        self._signal(number)
        if self._process is not None:
            self._process.wait()

    def _signal(self, number: int) -> None:
        if self._process is not None and self.is_running:
            self._process.send_signal(number)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def free_port(holder: object) -> int:
    """A TCP port of 127.0.0.1 that is kept from other sandboxes while ``holder`` lives.

    It is below 30,000: from 32,768 on a system gives ports to whoever connects, so that
    one of those might be taken while its server restarts. The UDP port of the same
    number, which no server uses, is the lock that processes share.
    """
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket(type=socket.SOCK_DGRAM) as lock, socket.socket() as probe:
            try:
                lock.bind(("127.0.0.1", port))
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            weakref.finalize(holder, os.close, lock.detach())
            return port
